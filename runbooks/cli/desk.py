"""The desk of an operator: the only place where an environment's world is put together from the policy."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from invoke.context import Context
from psycopg.conninfo import make_conninfo

from runbooks.cli.local import console, load_policy, runs
from runbooks.clients.neon import Neon
from runbooks.clients.postgres import connect
from runbooks.clients.repository import Repository
from runbooks.clients.world import World
from runbooks.engine.consent import Consenting
from runbooks.engine.runner import Engine
from runbooks.engine.step import AnyRunbook, Ended
from runbooks.model.dsn import Dsn
from runbooks.model.errors import SandboxFault, UsageFault
from runbooks.model.moment import Moment
from runbooks.model.policy import Environment, Policy, SandboxEnvironment
from runbooks.model.record import Record
from runbooks.model.run_id import RunId
from runbooks.model.secret import Secret
from runbooks.sandbox import daemon


class Desk:
    """One environment's world, the engine, a voice, and how consent can be given at this terminal."""

    def __init__(self, c: Context, env: str, confirm: str, *, as_json: bool) -> None:
        policy = load_policy()
        name = env or policy.default_environment
        environment = _environment(policy, name)
        operator = os.environ.get("BLOOM_DR_OPERATOR") or f"{getpass.getuser()}@{socket.gethostname()}"
        self.voice = console()
        self.voice.environment = name
        self.runs = runs()
        self.world = World(
            name=name,
            environment=environment,
            policy=policy,
            operator=operator,
            now=lambda: Moment.of(self.now()),
            open_neon=lambda: _neon(environment, policy.local_timezone, self.voice.say),
            connect=connect,
            open_repository=lambda: _repository(name, environment, policy),
            repository_of=lambda other: _repository(other, _environment(policy, other), policy),
        )
        self._engine = Engine(self.runs, self.voice, self.now, name, operator, policy.local_timezone)
        self._dry = bool(c.config.run.dry)  # `invoke --dry` stops shell commands only; we make it mean what it says
        at_terminal = sys.stdin.isatty() and sys.stderr.isatty() and not as_json and not self._dry
        self._consenting = Consenting(
            operator, None if self._dry else confirm or None, self.voice.ask if at_terminal else None
        )

    @staticmethod
    def now() -> datetime:
        return datetime.now(UTC)

    def start(self, runbook: AnyRunbook, request: Record) -> Ended:
        return self._engine.start(runbook, request, self.world, self._consenting)

    def resume(self, runbook: AnyRunbook, run_id: RunId) -> Ended:
        if self._dry and any(entry.event in ("consented", "executing") for entry in self.runs.reading(run_id).entries):
            raise UsageFault(
                f"run {run_id} has its consent, so going on with it would change things",
                safe="nothing was started",
                next_step=f"invoke run.show {run_id} tells how far it is; without --dry, run.resume goes on",
            )
        return self._engine.resume(runbook, run_id, self.world, self._consenting)

    def dsn(self, branch: str = "") -> Dsn:
        """Where a branch of this environment is reached, by name or id; the default branch without one."""
        neon, environment = self.world.neon, self.world.environment
        found = (neon.find_branch(branch) or neon.branch(branch)) if branch else neon.default_branch()
        return neon.connection(branch=found, database=environment.database, role=environment.role)

    def become_psql(self, psql: Path, branch: str) -> None:
        """Replace this process by a psql session there. The password goes by environment, never by argument."""
        keywords = self.dsn(branch).keywords()
        secret = {"PGPASSWORD": keywords.pop("password", "")}
        os.execve(psql, [str(psql), make_conninfo(**keywords)], os.environ | secret)


def _environment(policy: Policy, name: str) -> Environment:
    """The policy's; the sandbox needs no configuration and is always there."""
    if name == "sandbox" and name not in policy.environments:
        return SandboxEnvironment(sandbox=True)
    return policy.environment(name)


def _repository(name: str, environment: Environment, policy: Policy) -> Repository:
    from runbooks.cli.repository import repository_of  # boto3 loads where backups are looked at

    return repository_of(name, environment, policy)


def _neon(environment: Environment, zone: str, say: Callable[[str], None]) -> Neon:
    if environment.sandbox:
        stack = daemon.status(daemon.default_root()).running
        if stack is None:
            raise SandboxFault(
                "the local stack is not running",
                safe="nothing was started",
                next_step="invoke sandbox.up (or name another environment with --env)",
            )
        return Neon(api=stack.api_url, key=stack.api_key, project_id=stack.project_id, zone=zone, progress=say)
    key = Secret(environment.api_key(os.environ))
    return Neon(api=environment.api, key=key, project_id=environment.project, zone=zone, progress=say)
