"""What every handler of the API works with: the records, the servers, the jobs and the clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from runbooks.model.moment import Moment
from runbooks.sandbox import answers
from runbooks.sandbox.faults import Fault
from runbooks.sandbox.jobs import Jobs
from runbooks.sandbox.records import Branch, Endpoint, Operation, Project
from runbooks.sandbox.servers import Servers
from runbooks.sandbox.state import Ledger

Json = dict[str, Any]
Answer = tuple[int, Json | None]


class Body(BaseModel):
    """A request's body. Unknown fields are refused: Neon ignores a misspelt one, which a test should find out."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


B = TypeVar("B", bound=Body)


@dataclass(frozen=True)
class Call:
    """One request, after the key was checked."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: object

    @property
    def project_id(self) -> str:
        return self.path["project_id"]

    def read(self, kind: type[B]) -> B:
        """The body as `kind`; ApiFault 400 naming the first field that is wrong."""
        try:
            return kind.model_validate({} if self.body is None else self.body)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise Fault.BAD_BODY(why=f"{place}: {first['msg']}") from None

    def flag(self, name: str) -> bool:
        text = self.query.get(name, "false")
        if text not in ("true", "false"):
            raise Fault.BAD_QUERY(name=name, why="true or false")
        return text == "true"


@dataclass(frozen=True)
class Plane:
    ledger: Ledger
    servers: Servers
    jobs: Jobs
    clock: Callable[[], Moment]

    def branch(self, call: Call) -> Branch:
        """The branch in the path, of a project that is there; ApiFault 404."""
        self.ledger.project(call.project_id)
        return self.ledger.owned(Branch, call.project_id, call.path["branch_id"])

    def endpoint(self, call: Call) -> Endpoint:
        self.ledger.project(call.project_id)
        return self.ledger.owned(Endpoint, call.project_id, call.path["endpoint_id"])

    def state_of(self, endpoint: Endpoint) -> str:
        branch = self.ledger.find(Branch, endpoint.branch_id)
        if branch and self.servers.get(branch.timeline_id):
            return "active"
        return "init" if endpoint.wanted and self.jobs.is_busy(endpoint.project_id) else "idle"

    def endpoint_json(self, endpoint: Endpoint) -> Json:
        return answers.endpoint(endpoint, self.state_of(endpoint))

    def require_free_name(self, project_id: str, name: str, *, but: Branch | None = None) -> None:
        for branch in self.ledger.of(Branch, project_id):
            if branch.name == name and branch != but:
                raise Fault.TAKEN(what="branch", name=name)


def operations_json(rows: tuple[Operation, ...]) -> list[Json]:
    return [answers.operation(row) for row in rows]


__all__ = ["Answer", "B", "Body", "Call", "Json", "Plane", "Project", "operations_json"]
