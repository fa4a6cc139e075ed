"""Restore in place: the branch keeps its id, host and passwords, and gets another timeline.

The new timeline is built beside the old one. Then: stop the old server, write the swap, start the new one on the same
port. The swap is one write of the state file, so a crash leaves the branch whole on one side of it or the other.
"""

from __future__ import annotations

from runbooks.sandbox import answers, computes, contents, fork, names, timelines
from runbooks.sandbox.faults import Fault
from runbooks.sandbox.jobs import Task
from runbooks.sandbox.plane import Answer, Body, Call, Plane, operations_json
from runbooks.sandbox.records import Branch, Row
from runbooks.sandbox.window import Place, locate


class Restore(Body):
    source_branch_id: str
    source_lsn: str | None = None
    source_timestamp: str | None = None
    preserve_under_name: str | None = None


def restore(plane: Plane, call: Call) -> Answer:
    wish = call.read(Restore)
    with plane.jobs.admission(call.project_id):
        branch = plane.branch(call)
        source = plane.ledger.owned(Branch, call.project_id, wish.source_branch_id)
        _check(plane, branch, source, wish)
        place = locate(plane, source, timestamp=wish.source_timestamp, lsn=wish.source_lsn)
        now = plane.clock()
        branch = plane.ledger.change(branch, current_state="resetting", state_changed_at=now, updated_at=now)
        operations = plane.jobs.schedule(
            call.project_id,
            [
                Task(
                    "create_branch", lambda: _replace(plane, branch, source, place, wish.preserve_under_name), branch.id
                )
            ],
            give_up=lambda: _leave_as_it_was(plane, branch.id),
        )
        return 200, {"branch": answers.branch(branch), "operations": operations_json(operations)}


def _check(plane: Plane, branch: Branch, source: Branch, wish: Restore) -> None:
    if branch.protected:
        raise Fault.RESET_PROTECTED()
    for root in (branch, source):
        if root.parent_id is not None:
            raise Fault.RESTORE_CHILD(name=root.name)
    own = branch.id == source.id
    if own and wish.source_timestamp is None and wish.source_lsn is None:
        raise Fault.RESTORE_NEEDS_POINT()
    if wish.preserve_under_name:
        plane.require_free_name(branch.project_id, wish.preserve_under_name)
    elif own:
        raise Fault.RESTORE_NEEDS_NAME(why="the branch is restored from itself")
    elif plane.ledger.children(branch):
        raise Fault.RESTORE_NEEDS_NAME(why="the branch has children")


def _replace(plane: Plane, branch: Branch, source: Branch, place: Place, preserve: str | None) -> None:
    forked = fork.fork(
        plane.servers,
        place.timeline,
        place.point,
        names.timeline_id(),
        arrange=lambda session: contents.read(plane, session, source.roles, source),
    )
    endpoint = plane.ledger.endpoint_of(branch)
    plane.servers.stop(branch.timeline_id)
    restored = contents.adopt(plane, branch, forked, last_reset_at=plane.clock())
    moved = _preserved(plane, branch, source, preserve) if preserve else []
    plane.ledger.commit(forked.timeline, restored, *moved)
    if endpoint and endpoint.wanted:
        plane.servers.start(restored, endpoint)
    timelines.clear(plane, branch.project_id)


def _preserved(plane: Plane, branch: Branch, source: Branch, name: str) -> list[Row]:
    """The old state as a root branch without a compute, and the children, which follow it."""
    now = plane.clock()
    kept = branch.model_copy(
        update={
            "id": names.branch_id(), "name": name, "created_at": now, "updated_at": now, "state_changed_at": now,
            "current_state": "ready", "default": False, "protected": False, "expires_at": None, "schedule": (),
            "backup_of": branch.id if branch.id == source.id else None,
        }
    )  # fmt: skip
    children = [child.model_copy(update={"parent_id": kept.id}) for child in plane.ledger.children(branch)]
    return [kept, *children]


def _leave_as_it_was(plane: Plane, branch_id: str) -> None:
    """The swap did not happen, or it did and only the start failed: either way the record says what is true."""
    now = plane.clock()
    branch = plane.ledger.get(Branch, branch_id)
    plane.ledger.change(branch, current_state="ready", state_changed_at=now, updated_at=now)
    endpoint = plane.ledger.endpoint_of(branch)
    timelines.clear(plane, branch.project_id)
    if endpoint and endpoint.wanted:
        computes.start(plane, endpoint.id)
