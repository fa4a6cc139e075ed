"""One Neon project, as recoveries use it: branches of the past, and bringing a branch back in place.

`NeonReader` reads, `NeonSettings` switches, `Neon` makes, restores and removes branches.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from runbooks.clients.neon_reader import READ_WRITE
from runbooks.clients.neon_request import GONE, NOTHING_CHANGED, Answer, Request
from runbooks.clients.neon_settings import NeonSettings, other_name, to_the_second
from runbooks.clients.neon_types import Branch, BranchAt, Database, Endpoint, Window, read
from runbooks.model.errors import NeonFault, Refused, UsageFault
from runbooks.model.moment import Moment

LONGEST_LIFE = timedelta(days=30)
"""Neon's limit for the expiry of a branch."""
NOTED_MOMENT = "bloom-dr-moment"
"""The annotation that says which moment a branch was asked for; `parent_timestamp` only tells what it became."""
USABLE = frozenset({"ready", "archived"})


class Neon(NeonSettings):
    """One project. Methods raise NotFound, LoginRefused, NeonFault, and what their docstrings add."""

    def branch_at(
        self, *, parent: Branch, moment: Moment, name: str, expires_at: Moment, annotation: Mapping[str, str]
    ) -> BranchAt:
        """A branch `name` with the data of `parent` as of the last commit at or before `moment`, ready to connect to.

        Repeating it returns the branch of the first call, also when the moment has left the window since. Raises
        OutsideWindow before anything is changed, Refused if the name belongs to something else, NeonFault if Neon
        made a branch that holds data from after `moment`.
        """
        now = self._clock()
        _check_expiry(expires_at, now)
        Window.of_branch(parent, now, zone=self._zone).check(moment)
        found = self.find_branch(name)
        if found is None:
            self.window(parent, now).check(moment)
            made = self._make_branch(parent, moment, name, expires_at, annotation)
        else:
            self._prove_same(found, parent, moment)
            made = found
        branch, endpoint = self.ready(made)
        if branch.parent_timestamp is not None and branch.parent_timestamp > moment:
            raise NeonFault(
                f"branch {name} holds data up to {branch.parent_timestamp.iso()}, which is after {moment.iso()}",
                safe=f"{parent.name} was not changed; that branch is not used and expires by itself",
                next_step=f"remove branch {branch.id}, then run it again with an earlier moment",
            )
        return BranchAt(
            branch=branch,
            endpoint=endpoint,
            asked=_as_sent(moment),
            resolved=branch.parent_timestamp,
            reused=found is not None,
        )

    def remove_branch(self, branch_id: str, *, name: str) -> None:
        """Remove the branch that has this id and exactly this name; done already is done.

        WrongTarget if it has another name; Refused if it is the default one, protected, or has children.
        """
        path = self._path("branches", branch_id)
        answer = self._wire.get(path, what=f"reading branch {branch_id}", accept=GONE)
        if answer.status == 404:
            return
        branch = read(Branch, answer.body, "branch")
        self._prove_removable(branch, branch_id, name)
        change = Request("DELETE", path, f"removing branch {name}", "no other branch is touched", accept=GONE)
        self._change(change, look=lambda: True if self._is_gone(path) else None)

    def restore_branch(self, *, branch: Branch, source: Branch, moment: Moment, preserve_under: str) -> Branch:
        """Put `branch` in place to what `source` (often itself) was at `moment`; its state goes to `preserve_under`.

        Replaces every database, role and setting of the branch and drops its connections and replication slots; id
        and host stay. Not repeatable: if `preserve_under` exists, an earlier call has done it (or the name belongs to
        something else), which is Refused. Also Refused while the branch is protected or restricted (see `unprotected`).
        Raises OutsideWindow before anything is changed.
        """
        now = self._clock()
        Window.of_branch(source, now, zone=self._zone).check(moment)
        self._prove_restorable(self.branch(branch.id), preserve_under)
        self.window(source, now).check(moment)
        change = Request(
            "POST",
            self._path("branches", branch.id, "restore"),
            f"restoring branch {branch.name}",
            f"what {branch.name} held until now is kept under {preserve_under} as soon as it is replaced",
            body={
                "source_branch_id": source.id,
                "source_timestamp": moment.neon(),
                "preserve_under_name": preserve_under,
            },
            accept=frozenset({409}),
        )
        outcome = self._change(change, look=lambda: self.find_branch(preserve_under))
        # The name was free a moment ago: if it is taken now, by an earlier request of ours that was slow.
        if isinstance(outcome, Answer) and outcome.status == 409 and self.find_branch(preserve_under) is None:
            raise self._wire.refusal(outcome, change.what, change.safe)
        restored, _ = self.ready(branch)
        return restored

    def create_database(self, *, branch: Branch, name: str, owner: str) -> Database:
        """Make an empty database on the branch, which can be connected to when this returns.

        Repeating it returns the database that is there, empty or not: look before it is used. Refused if it belongs to
        another role.
        """
        found = self._find_database(branch, name)
        if found is None:
            change = Request(
                "POST",
                self._path("branches", branch.id, "databases"),
                f"making database {name} on branch {branch.name}",
                f"no other database of {branch.name} was touched",
                body={"database": {"name": name, "owner_name": owner}},
                accept=frozenset({409}),
            )
            outcome = self._change(change, look=lambda: self._find_database(branch, name))
            if isinstance(outcome, Database):
                found = outcome
            elif outcome.status != 409:
                found = read(Database, outcome.body, "database")
            else:  # by an earlier request of ours that was slow, or by somebody else
                found = self._find_database(branch, name)
                if found is None:
                    raise self._wire.refusal(outcome, change.what, change.safe)
        if found.owner_name != owner:
            raise Refused(
                f"database {name} of branch {branch.name} belongs to {found.owner_name}, not to {owner}",
                safe="it was not used and not changed",
                next_step="choose another name for the database, then start a new run",
            )
        return found

    def _find_database(self, branch: Branch, name: str) -> Database | None:
        return next((each for each in self.databases(branch.id) if each.name == name), None)

    def ready(self, branch: Branch) -> tuple[Branch, Endpoint]:
        """Wait until the branch and its compute can be connected to; both as they are then."""
        waiting = self._wire.waiting(f"waiting for branch {branch.name}", "what Neon has finished so far stays")
        while True:
            now = self.branch(branch.id)
            endpoint = next((each for each in self.endpoints(branch.id) if each.type == READ_WRITE), None)
            if endpoint is None:
                raise NeonFault(
                    f"branch {branch.name} ({branch.id}) has no compute, so nobody can connect to it",
                    safe=NOTHING_CHANGED,
                    next_step="add a compute to it in the Neon Console, or remove the branch; then run it again",
                )
            if now.current_state in USABLE and endpoint.current_state != "init":
                return now, endpoint
            waiting.pause(f"branch {now.name} is {now.current_state}, its compute {endpoint.current_state}")

    def _make_branch(
        self, parent: Branch, moment: Moment, name: str, expires_at: Moment, annotation: Mapping[str, str]
    ) -> Branch:
        change = Request(
            "POST",
            self._path("branches"),
            f"making branch {name}",
            f"{parent.name} was not changed; if a branch {name} was made, it expires at {to_the_second(expires_at)}",
            body={
                "branch": {
                    "parent_id": parent.id,
                    "parent_timestamp": moment.neon(),
                    "name": name,
                    "init_source": "parent-data",
                    "expires_at": to_the_second(expires_at),
                },
                "endpoints": [{"type": READ_WRITE}],
                "annotation_value": {**annotation, NOTED_MOMENT: moment.neon()},
            },
            accept=frozenset({409}),
        )
        outcome = self._change(change, look=lambda: self.find_branch(name))
        if isinstance(outcome, Branch):
            self._prove_same(outcome, parent, moment)
            return outcome
        if outcome.status != 409:
            return read(Branch, outcome.body, "branch")
        taken = self.find_branch(name)  # by an earlier request of ours that was slow, or by somebody else
        if taken is None:
            raise self._wire.refusal(outcome, change.what, change.safe)
        self._prove_same(taken, parent, moment)
        return taken

    def _prove_same(self, found: Branch, parent: Branch, moment: Moment) -> None:
        """Refused unless `found` was made of this parent for this moment."""
        noted = self.annotation(found.id).get(NOTED_MOMENT)
        if noted is None and found.parent_timestamp is not None:
            noted = found.parent_timestamp.neon()
        if found.parent_id == parent.id and noted == moment.neon():
            return
        raise Refused(
            f"branch {found.name} ({found.id}) exists, but of {found.parent_id or 'no parent'} at "
            f"{noted or 'an unknown moment'} instead of {parent.id} at {moment.neon()}",
            safe="nothing was changed, and that branch was not used",
            next_step="start a new run, which takes a new name; remove that branch if nobody needs it",
        )

    def _is_gone(self, path: str) -> bool:
        return self._wire.get(path, what="looking whether it is gone", accept=GONE).status == 404

    def _prove_removable(self, branch: Branch, branch_id: str, name: str) -> None:
        if (branch.id, branch.name) != (branch_id, name):
            raise other_name("branch", branch_id, branch.name, name)
        children = [each.name for each in self.branches() if each.parent_id == branch_id]
        reasons = {
            "is the default branch": branch.default,
            "is protected": branch.protected,
            f"is the parent of {', '.join(children)}": bool(children),
        }
        for reason, holds in reasons.items():
            if holds:
                raise Refused(
                    f"branch {name} ({branch_id}) {reason}",
                    safe="no branch was removed",
                    next_step="check that this is the branch you mean; if so, remove it in the Neon Console",
                )

    def _prove_restorable(self, branch: Branch, preserve_under: str) -> None:
        if branch.protected:
            reason: str | None = "it is protected"
        elif restricted := branch.restriction("restore"):
            reason = restricted
        elif kept := self.find_branch(preserve_under):
            reason = f"a branch {preserve_under} ({kept.id}) exists already, so this restore may have been done before"
        else:
            return
        raise Refused(
            f"branch {branch.name} cannot be restored in place: {reason}",
            safe="nothing was changed",
            next_step="check the branch in the Neon Console, then start a new run",
        )


def _as_sent(moment: Moment) -> Moment:
    return Moment.of(moment.utc.replace(microsecond=moment.utc.microsecond // 1000 * 1000))


def _check_expiry(expires_at: Moment, now: Moment) -> None:
    if not timedelta(0) < expires_at.utc - now.utc <= LONGEST_LIFE:
        raise UsageFault(
            f"a branch cannot expire at {expires_at.iso()}: Neon takes times up to {LONGEST_LIFE.days} days ahead",
            safe="nothing was changed",
            next_step="give a shorter life to recovery branches, then run it again",
        )
