"""Sessions of a recovery, with the limits that the policy sets for it."""

from __future__ import annotations

from runbooks.clients.postgres import Connection
from runbooks.clients.world import World
from runbooks.engine.step import Run
from runbooks.model.dsn import Dsn


def open_session(run: Run[World], dsn: Dsn, name: str) -> Connection:
    """The errors of connecting."""
    limits = run.world.policy.recovery
    return run.world.connect(
        dsn,
        application_name=f"bloom-dr {name}",
        wait=limits.connect_wait,
        progress=run.tell,
        lock_timeout=f"{limits.lock_timeout.total_seconds():.0f}s",
        statement_timeout=f"{limits.statement_timeout.total_seconds():.0f}s",
    )


def branch_session(run: Run[World], branch_id: str, database: str, role: str, name: str) -> Connection:
    """A session on a Neon branch; where and with which password, the API is asked for that very branch."""
    branch = run.world.neon.branch(branch_id)
    return open_session(run, run.world.neon.connection(branch=branch, database=database, role=role), name)
