"""What can be switched on a Neon project: protection, history, computes, passwords, snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from runbooks.clients.neon_reader import NeonReader
from runbooks.clients.neon_request import GONE, Answer, Request
from runbooks.clients.neon_types import (
    FAILED,
    SUCCEEDED,
    Branch,
    Endpoint,
    Operation,
    Project,
    Snapshot,
    SnapshotTime,
    read,
    read_all,
    read_text,
)
from runbooks.model.dsn import Secret
from runbooks.model.errors import BloomError, NeonFault, Refused, WrongTarget
from runbooks.model.moment import Moment

NO_DATA = "no data was changed by this"
_OTHERS = "no other snapshot is touched"

T = TypeVar("T")


class NeonSettings(NeonReader):
    """A reader that also changes settings. Every change waits until Neon has finished it, and is read back."""

    def set_protected(self, branch: Branch, protected: bool) -> Branch:
        """Protect a branch or lift its protection. Returns the branch as read back: what holds now."""
        what = f"{'protecting' if protected else 'lifting the protection of'} branch {branch.name}"
        self._change(
            Request("PATCH", self._path("branches", branch.id), what, NO_DATA, {"branch": {"protected": protected}}),
            look=lambda: _if(self.branch(branch.id), lambda now: now.protected == protected),
        )
        now = self.branch(branch.id)
        if now.protected != protected:
            raise _not_so(what, f"the branch is still {'un' if protected else ''}protected")
        return now

    @contextmanager
    def unprotected(self, branch: Branch) -> Iterator[Branch]:
        """Lift the protection of `branch` for the block, and put it back whatever happens, read back to prove it.

        A branch that was not protected stays so. If protection cannot be put back, that is raised, or noted on the
        error that ended the block.
        """
        before = self.branch(branch.id)
        if not before.protected:
            yield before
            return
        try:
            yield self.set_protected(before, False)  # inside: it may have happened although it failed
        except BaseException as first:
            try:
                self._protect_again(before)
            except (BloomError, KeyboardInterrupt) as trouble:
                warning = f"check now that branch {before.name} ({before.id}) is protected"
                first.add_note(f"while cleaning up: {str(trouble) or 'interrupted'}; {warning}")
            raise
        self._protect_again(before)

    def set_history_retention(self, retention: timedelta) -> Project:
        """Set how far back the whole project keeps history; plans cap it. Returns the project as read back."""
        seconds = int(retention.total_seconds())
        what = f"keeping {retention} of history in project {self.project_id}"
        self._change(
            Request("PATCH", self._path(), what, NO_DATA, {"project": {"history_retention_seconds": seconds}}),
            look=lambda: _if(self.project(), lambda now: now.history_retention_seconds == seconds),
        )
        project = self.project()
        if project.history_retention_seconds != seconds:
            raise _not_so(what, f"it keeps {project.history_retention}")
        return project

    def enable_logical_replication(self) -> Project:
        """Let subscribers decode the project's changes. Neon never takes this back, and it drops all sessions once.

        Where it is on already nothing is sent, so no session is dropped. Returns the project as read back.
        """
        project = self.project()
        if project.settings.enable_logical_replication:
            return project
        what = f"switching on logical replication in project {self.project_id}"
        wish = {"project": {"settings": {"enable_logical_replication": True}}}
        self._change(
            Request("PATCH", self._path(), what, NO_DATA, wish),
            look=lambda: _if(self.project(), lambda now: now.settings.enable_logical_replication),
        )
        project = self.project()
        if not project.settings.enable_logical_replication:
            raise _not_so(what, "it is still off")
        return project

    def set_snapshot_schedule(self, branch: Branch, times: Sequence[SnapshotTime]) -> tuple[SnapshotTime, ...]:
        """Replace the branch's snapshot schedule; an empty one ends it. Snapshots that were taken stay.

        Returns the schedule as read back. Neon has schedules for root branches of paid plans only.
        """
        wanted = tuple(times)
        what = f"setting the snapshot schedule of branch {branch.name}"
        body = {"schedule": [each.model_dump(exclude_none=True) for each in wanted]}
        self._change(
            Request("PUT", self._path("branches", branch.id, "backup_schedule"), what, NO_DATA, body),
            look=lambda: _if(self.snapshot_schedule(branch.id), lambda now: is_schedule(now, wanted)),
        )
        now = self.snapshot_schedule(branch.id)
        if not is_schedule(now, wanted):
            raise _not_so(what, f"it has {len(now)} other times")
        return now

    def disable_endpoint(self, endpoint: Endpoint) -> Endpoint:
        """Stop a compute so that no connection and no click starts it: the firm way to stop writers."""
        return self._set_disabled(endpoint, True)

    def enable_endpoint(self, endpoint: Endpoint) -> Endpoint:
        """Undo `disable_endpoint`; the next connection starts the compute."""
        return self._set_disabled(endpoint, False)

    def suspend_endpoint(self, endpoint: Endpoint) -> None:
        """Drop all sessions. It blocks nothing: the next connection wakes the compute."""
        self._change(
            Request("POST", self._path("endpoints", endpoint.id, "suspend"), f"suspending {endpoint.id}", NO_DATA),
            look=lambda: _if(self.endpoint(endpoint.id), lambda now: now.current_state == "idle"),
        )

    def restart_endpoint(self, endpoint: Endpoint) -> None:
        """Drop all sessions and start afresh. After a lost answer it restarts once more, which loses nothing."""
        path = self._path("endpoints", endpoint.id, "restart")
        self._change(Request("POST", path, f"restarting {endpoint.id}", NO_DATA), look=_unseen)

    def reset_password(self, *, branch_id: str, role: str) -> Secret:
        """A new password for the role, valid when this returns; the old one is dead and its connections are dropped.

        After a lost answer it is reset once more: nobody can know a password that was never received.
        """
        path = self._path("branches", branch_id, "roles", role, "reset_password")
        change = Request("POST", path, f"resetting the password of {role} on {branch_id}", NO_DATA)
        answer = self._change(change, look=_unseen)
        return Secret(read_text(answer.body, "role", "password"))

    def create_snapshot(
        self, *, branch: Branch, name: str, moment: Moment | None = None, expires_at: Moment | None = None
    ) -> Snapshot:
        """A snapshot of the branch, now or at a moment in its window: the cheapest forensic copy.

        Repeating it returns the first one. Refused if the name belongs to a snapshot of another branch; OutsideWindow.
        """
        found = self._find_snapshot(name)
        if found is not None:
            return _of_branch(found, branch)
        query = {"name": name}
        if moment is not None:
            self.window(branch, self._clock()).check(moment)
            query["timestamp"] = moment.neon()
        if expires_at is not None:
            query["expires_at"] = to_the_second(expires_at)
        path = self._path("branches", branch.id, "snapshot")
        made = self._change(
            Request("POST", path, f"taking snapshot {name}", NO_DATA, query=query),
            look=lambda: self._find_snapshot(name),
        )
        return made if isinstance(made, Snapshot) else read(Snapshot, made.body, "snapshot")

    def delete_snapshot(self, snapshot_id: str, *, name: str) -> None:
        """Delete the snapshot that has this id and exactly this name; done already is done. Else WrongTarget."""
        found = self._snapshot(snapshot_id)
        if found is None:
            return
        if found.name != name:
            raise other_name("snapshot", snapshot_id, found.name, name)
        self._change(
            Request("DELETE", self._path("snapshots", snapshot_id), f"deleting snapshot {name}", _OTHERS, accept=GONE),
            look=lambda: None if self._snapshot(snapshot_id) else True,
        )

    def wait(self, operations: Iterable[Operation]) -> None:
        """Return when all have succeeded. NeonFault if one fails, or when the client's patience is over."""
        waiting = self._wire.waiting("waiting for operations", "what Neon has finished so far stays")
        pending = tuple(operations)
        while True:
            for operation in pending:
                if operation.status in FAILED:
                    raise _failed(operation)
            pending = tuple(each for each in pending if each.status not in SUCCEEDED)
            if not pending:
                return
            waiting.pause(", ".join(each.action for each in pending))
            pending = tuple(self.operation(each.id) for each in pending)

    def _change(self, change: Request, *, look: Callable[[], T | None]) -> Answer | T:
        """Send once, look after a lost answer, wait until Neon has finished. Returns the answer, or what was seen."""

        def look_when_quiet() -> T | None:
            self.wait(self.running_operations())  # the effect may show only at the end of them
            return look()

        outcome = self._wire.once(change, look_when_quiet)
        if isinstance(outcome, Answer) and outcome.body.get("operations"):
            self.wait(read_all(Operation, outcome.body, "operations"))
        return outcome

    def _protect_again(self, branch: Branch) -> None:
        try:
            self.set_protected(branch, True)
        except KeyboardInterrupt:  # people press it twice; protection goes first
            self.set_protected(branch, True)
            raise

    def _set_disabled(self, endpoint: Endpoint, disabled: bool) -> Endpoint:
        what = f"{'disabling' if disabled else 'enabling'} {endpoint.id}"
        self._change(
            Request("PATCH", self._path("endpoints", endpoint.id), what, NO_DATA, {"endpoint": {"disabled": disabled}}),
            look=lambda: _if(self.endpoint(endpoint.id), lambda now: now.disabled == disabled),
        )
        now = self.endpoint(endpoint.id)
        if now.disabled != disabled:
            raise _not_so(what, f"it is still {'enabled' if disabled else 'disabled'}")
        return now

    def _snapshot(self, snapshot_id: str) -> Snapshot | None:
        return next((each for each in self.snapshots() if each.id == snapshot_id), None)

    def _find_snapshot(self, name: str) -> Snapshot | None:
        return next((each for each in self.snapshots() if each.name == name), None)


def is_schedule(held: Sequence[SnapshotTime], wanted: Sequence[SnapshotTime]) -> bool:
    """Whether two schedules are the same, in whatever order. Pure."""
    return sorted(map(repr, held)) == sorted(map(repr, wanted))


def to_the_second(moment: Moment) -> str:
    """Neon takes an expiry to the second only."""
    return f"{moment.utc:%Y-%m-%dT%H:%M:%S}Z"


def other_name(kind: str, its_id: str, has: str, expected: str) -> WrongTarget:
    """For a removal that would hit something else."""
    return WrongTarget(
        f"{kind} {its_id} is named {has}, not {expected}",
        safe=f"no {kind} was removed",
        next_step="check the id and the name in the Neon Console, then run it again",
    )


def _unseen() -> None:
    """For changes whose effect cannot be seen from outside, and which may happen twice."""


def _if(value: T, holds: Callable[[T], bool]) -> T | None:
    return value if holds(value) else None


def _of_branch(snapshot: Snapshot, branch: Branch) -> Snapshot:
    if snapshot.source_branch_id == branch.id:
        return snapshot
    owner = snapshot.source_branch_id or "an unknown branch"
    raise Refused(
        f"snapshot {snapshot.name} ({snapshot.id}) exists, but of {owner}, not of {branch.id}",
        safe="nothing was changed",
        next_step="start a new run, which takes a new name",
    )


def _not_so(what: str, truth: str) -> NeonFault:
    return NeonFault(
        f"{what}: Neon accepted it, but {truth}",
        safe=NO_DATA,
        next_step="set it in the Neon Console, then run it again",
    )


def _failed(operation: Operation) -> NeonFault:
    return NeonFault(
        f"Neon's operation {operation.action} ended as {operation.status}: {operation.error or 'no reason given'} "
        f"(operation {operation.id})",
        safe="what was there before the operation is still there",
        next_step="look at the project's operations in the Neon Console, then run it again",
    )
