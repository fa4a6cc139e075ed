"""The state file: every record of a stack, replaced whole by one rename."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from runbooks.model.errors import SandboxFault
from runbooks.sandbox.faults import missing
from runbooks.sandbox.records import Branch, Endpoint, Operation, Project, Record, Row, Snapshot, Timeline

OPERATIONS_KEPT = 300

R = TypeVar("R", Project, Branch, Endpoint, Timeline, Snapshot, Operation)
Owned = TypeVar("Owned", Branch, Endpoint, Timeline, Snapshot, Operation)


class State(Record):
    """Everything, by id. Never changed: a new one takes its place."""

    api_key: str = Field(repr=False)
    superuser_password: str = Field(repr=False)
    api_port: int | None = None
    default_project: str | None = None
    projects: dict[str, Project] = Field(default_factory=dict)
    branches: dict[str, Branch] = Field(default_factory=dict)
    endpoints: dict[str, Endpoint] = Field(default_factory=dict)
    timelines: dict[str, Timeline] = Field(default_factory=dict)
    snapshots: dict[str, Snapshot] = Field(default_factory=dict)
    operations: dict[str, Operation] = Field(default_factory=dict)


_TABLES: dict[type[Record], str] = {
    Project: "projects",
    Branch: "branches",
    Endpoint: "endpoints",
    Timeline: "timelines",
    Snapshot: "snapshots",
    Operation: "operations",
}


class Ledger:
    """The one holder of the current state. Every change is on disk before it is seen."""

    def __init__(self, path: Path, state: State) -> None:
        self._path = path
        self._state = state
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: Path, fresh: State) -> Ledger:
        """The state at `path`, or `fresh` if there is none. Raises SandboxFault if it cannot be read."""
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            ledger = cls(path, fresh)
            ledger._replace(fresh)
            return ledger
        try:
            return cls(path, State.model_validate_json(text))
        except ValidationError as error:
            raise SandboxFault(
                f"{path} is not a state this version of the sandbox can read ({error.error_count()} faults)",
                safe="nothing was changed",
                next_step="`invoke sandbox.down --delete` clears the sandbox, `invoke sandbox.up` makes a new one",
            ) from None

    @property
    def state(self) -> State:
        return self._state

    def configure(self, **fields: object) -> None:
        with self._lock:
            self._replace(self._state.model_copy(update=fields))

    def commit(self, *put: Row, drop: Iterable[Row] = ()) -> None:
        """Put and drop records in one step: after a crash either all of it happened or nothing."""
        with self._lock:
            changed: dict[str, dict[str, Row]] = {}
            for row in put:
                _table(self._state, changed, row)[row.id] = row
            for row in drop:
                _table(self._state, changed, row).pop(row.id, None)
            if "operations" in changed:
                changed["operations"] = _newest(changed["operations"])
            self._replace(self._state.model_copy(update=changed))

    def change(self, row: R, **fields: object) -> R:
        """The record as it is now, with `fields` replaced; committed and returned."""
        with self._lock:
            now = self.get(type(row), row.id).model_copy(update=fields)
            self.commit(now)
            return now

    def find(self, kind: type[R], id_: str | None) -> R | None:
        return getattr(self._state, _TABLES[kind]).get(id_)  # type: ignore[no-any-return]

    def get(self, kind: type[R], id_: str | None) -> R:
        """Raises ApiFault 404."""
        found = self.find(kind, id_)
        if found is None:
            raise missing(kind.__name__.lower(), id_)
        return found

    def of(self, kind: type[Owned], project_id: str) -> Iterator[Owned]:
        """The project's records of one kind, oldest first."""
        rows: dict[str, Owned] = getattr(self._state, _TABLES[kind])
        return (row for row in rows.values() if row.project_id == project_id)

    def project(self, id_: str) -> Project:
        """A project that is not deleted; ApiFault 404."""
        project = self.get(Project, id_)
        if project.deleted_at is not None:
            raise missing("project", id_)
        return project

    def owned(self, kind: type[Owned], project_id: str, id_: str | None) -> Owned:
        """A record of this project; ApiFault 404 if it is another project's."""
        found = self.get(kind, id_)
        if found.project_id != project_id:
            raise missing(kind.__name__.lower(), id_)
        return found

    def endpoint_of(self, branch: Branch) -> Endpoint | None:
        return next((each for each in self.of(Endpoint, branch.project_id) if each.branch_id == branch.id), None)

    def children(self, branch: Branch) -> list[Branch]:
        return [each for each in self.of(Branch, branch.project_id) if each.parent_id == branch.id]

    def default_branch(self, project_id: str) -> Branch:
        return next(each for each in self.of(Branch, project_id) if each.default)

    def _replace(self, state: State) -> None:
        beside = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(state.model_dump_json())
        beside.replace(self._path)
        self._state = state


def _table(state: State, changed: dict[str, dict[str, Row]], row: Row) -> dict[str, Row]:
    name = _TABLES[type(row)]
    if name not in changed:
        changed[name] = dict(getattr(state, name))
    return changed[name]


def _newest(operations: dict[str, Row]) -> dict[str, Row]:
    return dict(list(operations.items())[-OPERATIONS_KEPT:])
