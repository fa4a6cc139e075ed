"""A desk for runbooks about backups: an engine, and a world that has a repository and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbooks.clients.postgres import connect
from runbooks.clients.repository import Repository
from runbooks.clients.world import World
from runbooks.engine.consent import Consenting
from runbooks.engine.runner import Engine
from runbooks.engine.runs import Runs
from runbooks.engine.step import AnyRunbook, Ended
from runbooks.model.moment import Moment
from runbooks.model.policy import Policy, SandboxEnvironment
from runbooks.model.record import Record
from runbooks.model.run_id import RunId
from tests.engine.toy import Silent

ROOT = Path(__file__).resolve().parents[2]
YES = Consenting("tester", ask=lambda wanted: wanted)
NOBODY = Consenting("tester")
RUN = RunId.parse("20251203-143000-k7qx")


def _nobody() -> Any:
    raise AssertionError("a clean-up has no business with Neon")


@dataclass
class Desk:
    runs: Path
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def _engine(self, where: Repository) -> Engine:
        return Engine(Runs(self.runs), Silent(), self.now, where.environment, "tester")

    def _world(self, where: Repository) -> World:
        return World(
            name=where.environment,
            environment=SandboxEnvironment(sandbox=True),
            policy=Policy.load(ROOT / "policy.toml"),
            operator="tester",
            now=lambda: Moment.of(self.now()),
            open_neon=_nobody,
            connect=connect,
            open_repository=lambda: where,
        )

    def start(self, book: AnyRunbook, request: Record, where: Repository, consenting: Consenting = YES) -> Ended:
        return self._engine(where).start(book, request, self._world(where), consenting, RUN)

    def resume(self, book: AnyRunbook, where: Repository, consenting: Consenting = YES) -> Ended:
        return self._engine(where).resume(book, RUN, self._world(where), consenting)
