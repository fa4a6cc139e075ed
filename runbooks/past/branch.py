"""The past as a Neon branch: made at the moment itself, short-lived, and removed by the run that made it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Literal

from runbooks.clients.neon_types import Branch
from runbooks.clients.postgres import Connection, Expected, prove
from runbooks.clients.world import World
from runbooks.engine.step import Run
from runbooks.model.dsn import same_database
from runbooks.model.errors import NotFound, WrongTarget
from runbooks.model.moment import Moment
from runbooks.model.record import Record
from runbooks.past.session import branch_session

QUIET = timedelta(minutes=1)
"""A last commit earlier than this before the asked moment is worth a word."""


class PastBranch(Record):
    kind: Literal["branch"] = "branch"
    at: Moment
    """As it was asked for."""
    project: str
    branch: str
    name: str
    expires: Moment
    resolved: Moment | None
    """The last commit that the branch holds; None if Neon did not say."""
    database: str
    role: str

    def state(self, zone: str) -> str:
        """Of when its rows are."""
        return self.at.both(zone)

    def facts(self, zone: str) -> tuple[tuple[str, str], ...]:
        resolved = "Neon did not say" if self.resolved is None else self.resolved.both(zone)
        return (
            ("state of", self.state(zone)),
            ("last commit in it", resolved),
            ("read from branch", f"{self.name}, expires {self.expires.both(zone)}"),
        )

    def warnings(self, zone: str) -> Iterator[str]:
        if self.resolved is None:
            yield "Neon did not say which commit the branch ends with: the moment is unproved"
        elif self.at.utc - self.resolved.utc > QUIET:
            yield f"the last commit is {self.at.utc - self.resolved.utc} before the moment: right for a quiet database"

    @property
    def if_left(self) -> str:
        """What it means if it cannot be removed."""
        return f"branch {self.name} expires by itself"

    @contextmanager
    def session(self, run: Run[World], zone: str) -> Iterator[Connection]:
        """A session on it, proved to be on it. NotFound, saying what to do, if it has expired; WrongTarget."""
        try:
            session = branch_session(run, self.branch, self.database, self.role, f"past {run.id}")
        except NotFound as gone:
            raise NotFound(
                f"branch {self.name} of this run is gone; it was to expire at {self.expires.both(zone)}",
                safe="no row was written by this attempt",
                next_step=f"see how far the run came: invoke run.show {run.id}; then start a new one",
            ) from gone
        with closing(session):
            prove(session, Expected(database=self.database, project_id=self.project, branch_id=self.branch))
            yield session

    def require_apart(self, run: Run[World], target_branch: str) -> None:
        """WrongTarget if it is reached at the address of the branch that the rows go to."""
        neon = run.world.neon
        here, there = (
            neon.connection(branch=neon.branch(each), database=self.database, role=self.role)
            for each in (target_branch, self.branch)
        )
        if same_database(here, there):
            raise WrongTarget(
                "the branch of the past and production are reached at the same address",
                safe="nothing was changed in production",
                next_step="look at both in the Neon console; do not go on with this project before that is understood",
            )

    def remove(self, run: Run[World]) -> str:
        """Delete it, by id and exact name; what was removed. Safe to repeat."""
        run.world.neon.remove_branch(self.branch, name=self.name)
        return self.branch


def make_branch(
    run: Run[World], parent: Branch, moment: Moment, *, database: str, role: str, name: str | None = None
) -> PastBranch:
    """A branch of `parent` at `moment`, called `name` (the run's own branch name). One that an earlier attempt made
    under that name is taken as it is. What Neon raises."""
    world = run.world
    ends = Moment.of(world.now().utc + world.policy.recovery.branch_lifetime)
    made = world.neon.branch_at(
        parent=parent,
        moment=moment,
        name=name or run.id.branch_name,
        expires_at=ends,
        annotation={"bloom-dr-run": str(run.id)},
    )
    return PastBranch(
        at=moment,
        project=made.branch.project_id,
        branch=made.branch.id,
        name=made.branch.name,
        expires=made.branch.expires_at or ends,
        resolved=made.resolved,
        database=database,
        role=role,
    )
