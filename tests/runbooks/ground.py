"""A stack with Bloom's data, and the world and engine to run runbooks on it, in this process or another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from runbooks.backups.sandboxed import sandboxed
from runbooks.clients.neon import Neon
from runbooks.clients.postgres import connect
from runbooks.clients.repository import Repository
from runbooks.clients.world import World
from runbooks.engine.runner import Engine
from runbooks.engine.runs import Runs
from runbooks.model.dsn import Dsn
from runbooks.model.moment import Moment
from runbooks.model.policy import Policy, SandboxEnvironment
from runbooks.model.secret import Secret
from runbooks.sandbox.archive import ArchiveFacts
from runbooks.sandbox.stack import Stack
from tests.engine.toy import Silent

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Facts:
    """How a stack is reached: plain values, so that they can be told to another process."""

    api_url: str
    api_key: str
    project_id: str
    runs: str
    archive: str = ""
    """The stack's own S3, as JSON; empty: nobody has asked for it."""

    @classmethod
    def of(cls, stack: Stack, runs: Path, *, archive: bool = False) -> Facts:
        told = json.dumps(stack.archive().reveal()) if archive else ""
        return cls(stack.api_url, stack.api_key.reveal(), stack.project_id, str(runs), told)

    def neon(self) -> Neon:
        return Neon(api=self.api_url, key=Secret(self.api_key), project_id=self.project_id)

    def world(self) -> World:
        return World(
            name="sandbox",
            environment=SandboxEnvironment(sandbox=True),
            policy=Policy.load(ROOT / "policy.toml"),
            operator="tester",
            now=lambda: Moment.of(datetime.now(UTC)),
            open_neon=self.neon,
            connect=connect,
            open_repository=self.repository,
            repository_of=self.repository_of,
        )

    def repository(self) -> Repository:
        """With local copies, which policy.toml only proposes."""
        return self.repository_of("sandbox")

    def repository_of(self, environment: str) -> Repository:
        """All of them are in the one bucket, each below its own name."""
        facts = ArchiveFacts.of(json.loads(self.archive))
        return replace(sandboxed(environment, Policy.load(ROOT / "policy.toml"), facts), local=facts.local)

    def engine(self, voice: Silent | None = None) -> Engine:
        return Engine(
            runs=Runs(Path(self.runs)),
            voice=voice or Silent(),
            now=lambda: datetime.now(UTC),
            environment="sandbox",
            operator="tester",
        )

    def dsn(self) -> Dsn:
        neon = self.neon()
        return neon.connection(branch=neon.default_branch(), database="neondb", role="neondb_owner")

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection[Any]]:
        """The application's kind of session on production."""
        with connect(self.dsn(), application_name="test", search_path="public") as conn:
            yield conn

    def branch_names(self) -> set[str]:
        return {branch.name for branch in self.neon().branches()}


def journal_text(facts: Facts) -> str:
    """Everything that every run wrote below the folder of runs."""
    files = sorted(path for path in Path(facts.runs).rglob("*") if path.is_file())
    return "\n".join(path.read_text() for path in files)
