"""Snapshots: a copy of a branch at a point, kept apart from its history. Schedules are stored, not carried out."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from runbooks.model.moment import Moment
from runbooks.sandbox import answers, contents, fork, names, timelines
from runbooks.sandbox.faults import Fault
from runbooks.sandbox.history import Point
from runbooks.sandbox.jobs import Task
from runbooks.sandbox.plane import Answer, Body, Call, Plane, operations_json
from runbooks.sandbox.records import Branch, Operation, Row, Snapshot, Timeline
from runbooks.sandbox.window import Place, locate, read_moment


class Changes(Body):
    name: str | None = None
    expires_at: str | None = None


class Update(Body):
    snapshot: Changes


class Restore(Body):
    name: str | None = None
    target_branch_id: str | None = None
    finalize_restore: bool = False


class Finalize(Body):
    name: str | None = None


class ScheduleItem(Body):
    frequency: Literal["daily", "weekly", "monthly"]
    hour: int | None = Field(default=None, ge=0, le=23)
    day: int | None = Field(default=None, ge=1, le=31)
    month: int | None = Field(default=None, ge=1, le=12)
    retention_seconds: int | None = Field(default=None, ge=3600, le=3_024_000)


class Schedule(Body):
    schedule: tuple[ScheduleItem, ...] = Field(strict=False)


def create(plane: Plane, call: Call) -> Answer:
    with plane.jobs.admission(call.project_id):
        branch, now = plane.branch(call), plane.clock()
        place = locate(plane, branch, timestamp=call.query.get("timestamp"), lsn=call.query.get("lsn"))
        expires_at = _expiry(call.query.get("expires_at"), now)
        id_ = names.snapshot_id()
        snapshot = Snapshot(
            id=id_, project_id=branch.project_id, name=call.query.get("name") or id_, source_branch_id=branch.id,
            timeline_id=names.timeline_id(), created_at=now, expires_at=expires_at,
            timestamp=place.point.at if place.point else now,
        )  # fmt: skip
        plane.ledger.commit(snapshot)
        operations = plane.jobs.schedule(
            call.project_id,
            [Task("create_branch", lambda: _fill(plane, snapshot, branch, place), branch.id)],
            give_up=lambda: _drop(plane, snapshot),
        )
        return 200, {"snapshot": answers.snapshot(snapshot), "operations": operations_json(operations)}


def list_all(plane: Plane, call: Call) -> Answer:
    plane.ledger.project(call.project_id)
    return 200, {"snapshots": [answers.snapshot(row) for row in plane.ledger.of(Snapshot, call.project_id)]}


def update(plane: Plane, call: Call) -> Answer:
    wish = call.read(Update).snapshot
    with plane.jobs.admission(call.project_id):
        snapshot, fields = _snapshot(plane, call), dict[str, object]()
        if wish.name is not None:
            fields["name"] = wish.name
        if "expires_at" in wish.model_fields_set:
            fields["expires_at"] = _expiry(wish.expires_at, plane.clock())
        return 200, {"snapshot": answers.snapshot(plane.ledger.change(snapshot, **fields))}


def delete(plane: Plane, call: Call) -> Answer:
    with plane.jobs.admission(call.project_id):
        return 202, {"operations": operations_json(remove(plane, _snapshot(plane, call)))}


def restore(plane: Plane, call: Call) -> Answer:
    """A new branch from a snapshot: beside the target, or at once in its place."""
    wish = call.read(Restore)
    with plane.jobs.admission(call.project_id):
        snapshot, now = _snapshot(plane, call), plane.clock()
        target = plane.ledger.owned(Branch, call.project_id, wish.target_branch_id or snapshot.source_branch_id)
        id_ = names.branch_id()
        if wish.name:
            plane.require_free_name(call.project_id, wish.name)
        branch = Branch(
            id=id_, project_id=call.project_id, name=wish.name or f"{target.name}_restored_{id_[3:]}", created_at=now,
            updated_at=now, state_changed_at=now, timeline_id=names.timeline_id(), roles=snapshot.roles,
            databases=snapshot.databases, restored_from=snapshot.id, restored_as=target.id, restore_status="restored",
        )  # fmt: skip
        plane.ledger.commit(branch)
        tasks = [Task("create_branch", lambda: _fill_branch(plane, snapshot, branch.id), branch.id)]
        if wish.finalize_restore:
            tasks.append(Task("swap_binding_id", lambda: _finalize(plane, branch.id, None), branch.id))
        operations = plane.jobs.schedule(call.project_id, tasks, give_up=lambda: _forget_unfinished(plane, branch.id))
        return 200, {"branch": answers.branch(branch), "operations": operations_json(operations)}


def finalize_restore(plane: Plane, call: Call) -> Answer:
    """Put a restored branch in the place of its target: names swapped, computes moved and restarted."""
    wish = call.read(Finalize)
    with plane.jobs.admission(call.project_id):
        branch = plane.branch(call)
        if branch.restore_status != "restored":
            raise Fault.NOT_A_RESTORE(name=branch.name)
        if wish.name:
            plane.require_free_name(call.project_id, wish.name)
        task = Task("swap_binding_id", lambda: _finalize(plane, branch.id, wish.name), branch.id)
        return 200, {"operations": operations_json(plane.jobs.schedule(call.project_id, [task]))}


def show_schedule(plane: Plane, call: Call) -> Answer:
    return 200, {"schedule": list(plane.branch(call).schedule)}


def set_schedule(plane: Plane, call: Call) -> Answer:
    wish = call.read(Schedule)
    with plane.jobs.admission(call.project_id):
        branch = plane.branch(call)
        if branch.parent_id is not None and wish.schedule:
            raise Fault.SCHEDULE_ON_CHILD(name=branch.name)
        items = tuple(item.model_dump(exclude_none=True) for item in wish.schedule)
        plane.ledger.change(branch, schedule=items)
        return 200, {}


def remove(plane: Plane, snapshot: Snapshot) -> tuple[Operation, ...]:
    """Schedule the removal. The caller holds the project's admission."""
    task = Task("delete_timeline", lambda: _drop(plane, snapshot), snapshot.source_branch_id)
    return plane.jobs.schedule(snapshot.project_id, [task])


def remove_expired(plane: Plane, project_id: str) -> None:
    now = plane.clock()
    for snapshot in list(plane.ledger.of(Snapshot, project_id)):
        if snapshot.expires_at and snapshot.expires_at <= now and not plane.jobs.is_busy(project_id):
            with plane.jobs.admission(project_id):
                remove(plane, snapshot)


def _snapshot(plane: Plane, call: Call) -> Snapshot:
    plane.ledger.project(call.project_id)
    return plane.ledger.owned(Snapshot, call.project_id, call.path["snapshot_id"])


def _expiry(text: str | None, now: Moment) -> Moment | None:
    if text is None:
        return None
    moment = read_moment(text)
    if moment <= now:
        raise Fault.EXPIRY_RANGE()
    return moment


def _fill(plane: Plane, snapshot: Snapshot, branch: Branch, place: Place) -> None:
    forked = _alone(plane, place.timeline, place.point, snapshot.timeline_id, branch)
    fields = {name: forked.fields[name] for name in ("roles", "databases")}
    fields |= {"ready": True, "timestamp": forked.parent_timestamp, "lsn": forked.parent_lsn}
    plane.ledger.commit(forked.timeline, snapshot.model_copy(update=fields))


def _fill_branch(plane: Plane, snapshot: Snapshot, branch_id: str) -> None:
    branch = plane.ledger.get(Branch, branch_id)
    forked = _alone(plane, plane.ledger.get(Timeline, snapshot.timeline_id), Point(), branch.timeline_id, branch)
    new = contents.adopt(plane, branch, forked, parent_timestamp=None, parent_lsn=None)
    plane.ledger.commit(forked.timeline, new)


def _alone(plane: Plane, source: Timeline, point: Point | None, timeline_id: str, like: Branch) -> fork.Forked:
    """A fork without a link to where it came from: nothing older is reached through it, and it needs nothing else."""
    forked = fork.fork(
        plane.servers,
        source,
        point,
        timeline_id,
        arrange=lambda session: contents.read(plane, session, like.roles, like),
    )
    return replace(forked, timeline=forked.timeline.model_copy(update={"origin_id": None}))


def _finalize(plane: Plane, branch_id: str, name: str | None) -> None:
    branch = plane.ledger.get(Branch, branch_id)
    target = plane.ledger.get(Branch, branch.restored_as)
    endpoint = plane.ledger.endpoint_of(target)
    own = plane.ledger.endpoint_of(branch)
    plane.servers.stop(target.timeline_id)
    plane.servers.stop(branch.timeline_id)
    taken = {"name": target.name, "default": target.default, "protected": target.protected}
    new = branch.model_copy(update=taken | {"restore_status": "finalized", "updated_at": plane.clock()})
    left = {"name": name or f"{target.name}_old_{branch.id[3:]}", "default": False, "protected": False}
    old = target.model_copy(update=left | {"updated_at": plane.clock()})
    moved: list[Row] = [endpoint.model_copy(update={"branch_id": new.id})] if endpoint else []
    plane.ledger.commit(new, old, *moved, drop=[own] if own and endpoint else [])
    kept = plane.ledger.endpoint_of(new)
    if kept and kept.wanted:
        plane.servers.start(new, kept)


def _drop(plane: Plane, snapshot: Snapshot) -> None:
    plane.ledger.commit(drop=[snapshot])
    timelines.clear(plane, snapshot.project_id)


def _forget_unfinished(plane: Plane, branch_id: str) -> None:
    """A restore that failed leaves no branch, unless the branch was complete and only taking over failed."""
    branch = plane.ledger.get(Branch, branch_id)
    if branch.current_state == "init":
        plane.ledger.commit(drop=[branch])
        timelines.clear(plane, branch.project_id)
