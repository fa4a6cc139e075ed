"""The world a runbook acts on, as one frozen record. `runbooks.cli.desk` builds it; tests build theirs with faults."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from runbooks.model.dsn import Dsn
from runbooks.model.errors import PolicyFault
from runbooks.model.moment import Moment
from runbooks.model.policy import Environment, Policy

if TYPE_CHECKING:  # httpx and psycopg load when a run needs them, not when tasks are listed
    from runbooks.clients.neon import Neon
    from runbooks.clients.neon_types import Branch
    from runbooks.clients.postgres import Connection
    from runbooks.clients.repository import Repository


class Connect(Protocol):
    """Opens a session to a database; `runbooks.clients.postgres.connect` is the one."""

    def __call__(
        self,
        dsn: Dsn,
        *,
        application_name: str,
        wait: timedelta = ...,
        progress: Callable[[str], None] | None = None,
        **settings: str,
    ) -> Connection: ...


def _no_repository() -> Repository:
    raise PolicyFault(
        "the policy has no section [backup]",
        safe="nothing was started",
        next_step="write one, as policy.toml of this project shows",
    )


def _no_repositories(name: str) -> Repository:
    return _no_repository()


@dataclass(frozen=True)
class World:
    """One environment of the policy: its Neon project, its databases, and what time it is there."""

    name: str
    """The environment's name in the policy."""
    environment: Environment
    policy: Policy
    operator: str
    now: Callable[[], Moment]
    open_neon: Callable[[], Neon]
    connect: Connect
    open_repository: Callable[[], Repository] = _no_repository
    repository_of: Callable[[str], Repository] = _no_repositories
    """That of any environment of the policy, by name: for a drill, which acts on none of them. PolicyFault, UsageFault.
    """
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    """Where the variables are that the policy names."""

    @cached_property
    def neon(self) -> Neon:
        """The project's API client, opened at first use."""
        return self.open_neon()

    @cached_property
    def repository(self) -> Repository:
        """Where this environment's backups are. PolicyFault if the policy takes none."""
        return self.open_repository()

    def target_branch(self) -> Branch:
        """The branch that recoveries of this environment write to: the policy's, or the project's default one."""
        named = None if self.environment.sandbox else self.environment.branch
        return self.neon.branch(named) if named else self.neon.default_branch()
