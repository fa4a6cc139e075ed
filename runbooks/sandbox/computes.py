"""Making and starting the compute of a branch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runbooks.model.moment import Moment
from runbooks.sandbox import names
from runbooks.sandbox.faults import Fault
from runbooks.sandbox.jobs import Task
from runbooks.sandbox.plane import Body, Plane
from runbooks.sandbox.processes import free_port
from runbooks.sandbox.records import Branch, Endpoint


class Options(Body):
    type: Literal["read_write", "read_only"]
    autoscaling_limit_min_cu: float = 0.25
    autoscaling_limit_max_cu: float = 2
    suspend_timeout_seconds: int = 0
    settings: dict[str, object] = Field(default_factory=dict)
    provisioner: str | None = None


def new(options: Options, branch: Branch, now: Moment, *, name: str | None = None, disabled: bool = False) -> Endpoint:
    """A compute for `branch` with an id, a host and a port of its own. ApiFault unless it is a read_write one."""
    if options.type != "read_write":
        raise Fault.NOT_PART(what="a read_only compute")
    return Endpoint(
        id=names.endpoint_id(),
        project_id=branch.project_id,
        branch_id=branch.id,
        port=free_port(),
        name=name,
        created_at=now,
        updated_at=now,
        min_cu=options.autoscaling_limit_min_cu,
        max_cu=options.autoscaling_limit_max_cu,
        suspend_timeout_seconds=options.suspend_timeout_seconds,
        disabled=disabled,
        wanted=not disabled,
    )


def starting(plane: Plane, endpoint: Endpoint) -> Task:
    return Task("start_compute", lambda: start(plane, endpoint.id), endpoint.branch_id, endpoint.id)


def start(plane: Plane, endpoint_id: str) -> None:
    """Start it and wait until it takes connections. Safe to repeat."""
    now = plane.clock()
    endpoint = plane.ledger.get(Endpoint, endpoint_id)
    endpoint = plane.ledger.change(endpoint, wanted=True, started_at=now, updated_at=now)
    plane.servers.start(plane.ledger.get(Branch, endpoint.branch_id), endpoint)
