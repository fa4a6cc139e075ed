"""A desk to restore at: a stack as the environment's Neon, and a second cluster that knows none of its roles."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runbooks import restore_backup
from runbooks.clients.postgres import connect
from runbooks.clients.repository import Repository
from runbooks.clients.restore_outlook import contents
from runbooks.clients.world import World
from runbooks.engine.consent import Consenting
from runbooks.engine.plan import Preview
from runbooks.engine.runs import Runs
from runbooks.engine.step import Ended
from runbooks.model.dsn import Dsn
from runbooks.model.errors import ConsentNeeded
from runbooks.model.policy_targets import TargetPolicy
from runbooks.model.run_id import RunId
from runbooks.restore_backup import Request, RestorePlan
from runbooks.sandbox.stack import Stack
from tests.clients.dump_ground import Ground
from tests.engine.toy import Silent
from tests.runbooks.ground import Facts
from tests.runbooks.scenario import YES

VARIABLE = "RDS_DATABASE_URL"


@dataclass
class Desk:
    facts: Facts
    place: Repository
    second: Ground
    """The cluster behind `rds`."""
    environ: dict[str, str] = field(default_factory=dict)
    started: list[RunId] = field(default_factory=list)

    @classmethod
    def of(cls, stack: Stack, place: Repository, second: Ground, runs: Path) -> Desk:
        return cls(Facts.of(stack, runs), place, second)

    @property
    def world(self) -> World:
        world = self.facts.world()
        policy = world.policy.model_copy(update={"targets": {"rds": TargetPolicy(url_env=VARIABLE)}})
        return replace(world, policy=policy, open_repository=lambda: self.place, environ=self.environ)

    def target(self, script: str = "", *, owner: str = "app") -> Dsn:
        """A new database of the second cluster, of an ordinary login; from now on the one that `rds` names."""
        dsn = self.second.database(script, owner=owner)
        self.name(dsn)
        return dsn

    def name(self, dsn: Dsn) -> None:
        self.environ[VARIABLE] = dsn.reveal_url()

    def restore(self, backup: object, to: str = "rds", *, consenting: Consenting = YES, **how: Any) -> Ended:
        request = Request(backup=str(backup), to=to, **how)
        self.started.append(RunId.new(datetime.now(UTC)))
        return self.facts.engine(Silent()).start(
            restore_backup.RUNBOOK, request, self.world, consenting, self.started[-1]
        )

    def resume(self, run: RunId | None = None, *, consenting: Consenting = YES) -> Ended:
        return self.facts.engine(Silent()).resume(restore_backup.RUNBOOK, run or self.last, self.world, consenting)

    def plan(self, backup: object, to: str = "rds", **how: Any) -> RestorePlan:
        """As it is printed, before anybody consents."""
        with pytest.raises(ConsentNeeded) as asked:
            self.restore(backup, to, consenting=Consenting("tester"), **how)
        assert asked.value.page
        assert asked.value.next_step.rsplit("--confirm ", 1)[1] not in asked.value.page.read_text()
        return self.planned(self.last)

    def planned(self, run: RunId) -> RestorePlan:
        """What the journal holds."""
        return next(
            RestorePlan.model_validate(entry.data["plan"])
            for entry in self.runs.reading(run).entries
            if entry.event == "planned"
        )

    def preview(self, backup: object, to: str = "rds", **how: Any) -> Preview:
        return self.plan(backup, to, **how).preview()

    @property
    def runs(self) -> Runs:
        return Runs(Path(self.facts.runs))

    @property
    def last(self) -> RunId:
        """The newest run."""
        return self.started[-1]

    def written(self) -> str:
        files = sorted(path for path in Path(self.facts.runs).rglob("*") if path.is_file())
        return "\n".join(path.read_text() for path in files)

    def on_neon(self, database: str) -> Dsn:
        return self.facts.dsn().with_database(database)


def holds(dsn: Dsn) -> tuple[str, ...]:
    with connect(dsn, application_name="test") as conn:
        return contents(conn)
