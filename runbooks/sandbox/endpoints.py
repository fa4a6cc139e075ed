"""Computes: create, start, suspend, restart, disable, delete.

Neon's proxy wakes a suspended compute at the next connection. There is no proxy here: after a suspend, connecting fails
until `start` or `restart`. Taking `disabled` back starts the compute, because on Neon the next connection would.
"""

from __future__ import annotations

from collections.abc import Callable

from runbooks.sandbox import computes
from runbooks.sandbox.faults import Fault
from runbooks.sandbox.jobs import Task
from runbooks.sandbox.plane import Answer, Body, Call, Plane, operations_json
from runbooks.sandbox.records import Branch, Endpoint, Operation


class NewEndpoint(computes.Options):
    branch_id: str
    region_id: str | None = None
    name: str | None = None
    disabled: bool = False
    pooler_enabled: bool = False


class Create(Body):
    endpoint: NewEndpoint


class Changes(Body):
    name: str | None = None
    disabled: bool | None = None
    autoscaling_limit_min_cu: float | None = None
    autoscaling_limit_max_cu: float | None = None
    suspend_timeout_seconds: int | None = None


class Update(Body):
    endpoint: Changes


def create(plane: Plane, call: Call) -> Answer:
    wish = call.read(Create).endpoint
    plane.ledger.project(call.project_id)
    with plane.jobs.admission(call.project_id):
        branch = plane.ledger.owned(Branch, call.project_id, wish.branch_id)
        if plane.ledger.endpoint_of(branch):
            raise Fault.SECOND_COMPUTE(name=branch.name)
        endpoint = computes.new(wish, branch, plane.clock(), name=wish.name, disabled=wish.disabled)
        plane.ledger.commit(endpoint)
        operations = plane.jobs.schedule(call.project_id, [] if wish.disabled else [computes.starting(plane, endpoint)])
        return 201, _answer(plane, endpoint, operations)


def list_all(plane: Plane, call: Call) -> Answer:
    plane.ledger.project(call.project_id)
    rows = plane.ledger.of(Endpoint, call.project_id)
    return 200, {"endpoints": [plane.endpoint_json(each) for each in rows]}


def list_of_branch(plane: Plane, call: Call) -> Answer:
    branch = plane.branch(call)
    rows = [each for each in plane.ledger.of(Endpoint, call.project_id) if each.branch_id == branch.id]
    return 200, {"endpoints": [plane.endpoint_json(each) for each in rows]}


def show(plane: Plane, call: Call) -> Answer:
    return 200, {"endpoint": plane.endpoint_json(plane.endpoint(call))}


def update(plane: Plane, call: Call) -> Answer:
    wish = call.read(Update).endpoint
    with plane.jobs.admission(call.project_id):
        before = plane.endpoint(call)
        fields: dict[str, object] = {"updated_at": plane.clock()}
        for ours, theirs in (
            ("name", wish.name), ("min_cu", wish.autoscaling_limit_min_cu), ("max_cu", wish.autoscaling_limit_max_cu),
            ("suspend_timeout_seconds", wish.suspend_timeout_seconds), ("disabled", wish.disabled),
        ):  # fmt: skip
            if theirs is not None:
                fields[ours] = theirs
        after = plane.ledger.change(before, **fields)
        tasks = []
        if after.disabled and not before.disabled:
            tasks.append(_suspend(plane, after))
        if before.disabled and not after.disabled:
            tasks.append(computes.starting(plane, after))
        return 200, _answer(plane, after, plane.jobs.schedule(call.project_id, tasks))


def delete(plane: Plane, call: Call) -> Answer:
    plane.ledger.project(call.project_id)
    if plane.ledger.find(Endpoint, call.path["endpoint_id"]) is None:
        return 204, None
    with plane.jobs.admission(call.project_id):
        endpoint = plane.endpoint(call)
        if plane.ledger.get(Branch, endpoint.branch_id).protected:
            raise Fault.DELETE_PROTECTED_COMPUTE()
        tasks = [_suspend(plane, endpoint, then=lambda: plane.ledger.commit(drop=[endpoint]))]
        return 200, _answer(plane, endpoint, plane.jobs.schedule(call.project_id, tasks))


def start(plane: Plane, call: Call) -> Answer:
    return _act(plane, call, lambda endpoint: [computes.starting(plane, endpoint)], needs_enabled=True)


def suspend(plane: Plane, call: Call) -> Answer:
    return _act(plane, call, lambda endpoint: [_suspend(plane, endpoint)])


def restart(plane: Plane, call: Call) -> Answer:
    return _act(
        plane,
        call,
        lambda endpoint: [_suspend(plane, endpoint), computes.starting(plane, endpoint)],
        needs_enabled=True,
    )


def _act(plane: Plane, call: Call, tasks: Callable[[Endpoint], list[Task]], *, needs_enabled: bool = False) -> Answer:
    with plane.jobs.admission(call.project_id):
        endpoint = plane.endpoint(call)
        if needs_enabled and endpoint.disabled:
            raise Fault.COMPUTE_DISABLED()
        return 200, _answer(plane, endpoint, plane.jobs.schedule(call.project_id, tasks(endpoint)))


def _suspend(plane: Plane, endpoint: Endpoint, *, then: Callable[[], None] = lambda: None) -> Task:
    def stop() -> None:
        plane.ledger.change(endpoint, wanted=False, suspended_at=plane.clock(), updated_at=plane.clock())
        plane.servers.stop(plane.ledger.get(Branch, endpoint.branch_id).timeline_id)
        then()

    return Task("suspend_compute", stop, endpoint.branch_id, endpoint.id)


def _answer(plane: Plane, endpoint: Endpoint, operations: tuple[Operation, ...]) -> dict[str, object]:
    return {"endpoint": plane.endpoint_json(endpoint), "operations": operations_json(operations)}
