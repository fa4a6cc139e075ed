"""One recovery at a time in a database: the guard is a lock in the database itself, held by the recovery's session."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, LiteralString

import psycopg
from psycopg.rows import class_row

from runbooks.clients.postgres_faults import translated
from runbooks.model.errors import DatabaseUnreachable, LockHeld
from runbooks.model.moment import Moment
from runbooks.model.run_id import RunId

if TYPE_CHECKING:
    from runbooks.clients.postgres import Connection


@dataclass(frozen=True)
class Purpose:
    """What a lock keeps to one at a time. Locks of different purposes do not know each other."""

    key: int
    """The advisory lock's number, the same in every version of this program."""
    work: str


RECOVERY = Purpose(0x426C_6F6F_6D44_5231, "recovery")  # BloomDR1
BACKUP = Purpose(0x426C_6F6F_6D44_5232, "backup")  # BloomDR2
RESTORE = Purpose(0x426C_6F6F_6D44_5233, "restore")  # BloomDR3

_NAME = "bloom-dr"
_NOTHING = "nothing was changed by this run"


@dataclass(frozen=True)
class Holder:
    """A session in our way."""

    pid: int
    application_name: str
    role: str | None
    since: datetime | None
    """When its session or transaction began; None if our role may not see it."""

    def told(self, zone: str) -> str:
        name = self.application_name or "a session without a name"
        return f"{name} (process {self.pid}, role {self.role}) since {self._since(zone)}"

    def _since(self, zone: str) -> str:
        if self.since is None:
            return "a time that our role may not see"
        began = Moment.of(self.since)
        return began.iso() if zone == "UTC" else began.both(zone)

    def is_run(self, run_id: str) -> bool:
        return self.application_name.split(" ")[:2] == [_NAME, run_id]


@contextmanager
def hold_lock(
    conn: Connection,
    run_id: RunId | str,
    operator: str,
    *,
    purpose: Purpose = RECOVERY,
    zone: str = "UTC",
    wait: timedelta = timedelta(seconds=60),
    progress: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold this database's lock for `purpose` for the block; LockHeld, naming the holder, if another run has it.

    The lock lives in `conn`'s session: when the process is killed the server frees it, and nothing is left to clean
    up. A holder with our own run id is a killed predecessor that is still ending, so for that one we `wait`.
    """
    name = f"{_NAME} {run_id} {operator}".encode("ascii", "replace").decode()
    with translated(f"take the {purpose.work} lock", safe=_NOTHING):
        _acquire(conn, purpose, str(run_id), zone, time.monotonic() + wait.total_seconds(), progress)
        conn.execute("SELECT set_config('application_name', %s, false)", (name,))
    try:
        yield
    finally:
        _release(conn, purpose)


def _acquire(
    conn: Connection, purpose: Purpose, run_id: str, zone: str, deadline: float, progress: Callable[[str], None] | None
) -> None:
    while not _answer(conn, "SELECT pg_try_advisory_lock(%s)", purpose.key):
        holder = _holder(conn, purpose)
        if holder is not None and (not holder.is_run(run_id) or time.monotonic() > deadline):
            raise LockHeld(
                f"another {purpose.work} is at work on this database: {holder.told(zone)}",
                safe=_NOTHING,
                next_step="wait until it has ended, or ask its operator; then run the same command again",
            )
        if progress and holder:
            progress(f"waiting for the killed predecessor of this run to end: process {holder.pid}")
        _queue_for_a_second(conn, purpose)


def _queue_for_a_second(conn: Connection, purpose: Purpose) -> None:
    """Wait inside the server until the lock is free, without taking it."""
    with suppress(psycopg.errors.LockNotAvailable), conn.transaction():
        conn.execute("SET LOCAL lock_timeout = '1s'")
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (purpose.key,))


def _answer(conn: Connection, question: LiteralString, *values: object) -> object:
    row = conn.execute(question, values).fetchone()
    return row[0] if row else None


_HOLDER = """
SELECT l.pid, coalesce(a.application_name, '') AS application_name, a.usename AS role, a.backend_start AS since
FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = %s AND l.objid = %s
"""


def _holder(conn: Connection, purpose: Purpose) -> Holder | None:
    with conn.cursor(row_factory=class_row(Holder)) as cursor:
        return cursor.execute(_HOLDER, (purpose.key >> 32, purpose.key & 0xFFFFFFFF)).fetchone()


def require_lock(conn: Connection) -> None:
    """DatabaseUnreachable unless this very session holds the recovery lock: a new session would have lost it."""
    with translated("look for the recovery lock", safe=_NOTHING):
        held = conn.execute(
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND pid = pg_backend_pid()"
            " AND classid = %s AND objid = %s",
            (RECOVERY.key >> 32, RECOVERY.key & 0xFFFFFFFF),
        ).fetchone()
    if not held:
        raise DatabaseUnreachable(
            "the session that held the recovery lock is gone",
            safe=_NOTHING,
            next_step="run the same command again; it takes the lock anew and goes on",
        )


def _release(conn: Connection, purpose: Purpose) -> None:
    """Free the lock; a session that is broken or closed has freed it already."""
    with suppress(psycopg.OperationalError):
        conn.rollback()
        conn.execute("SELECT pg_advisory_unlock(%s)", (purpose.key,))


WRITERS_BLOCKED_BY = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")
"""What keeps a ROW EXCLUSIVE lock, an ordinary writer's, from being granted."""
LONERS_BLOCKED_BY = ("RowExclusiveLock", "ShareUpdateExclusiveLock", *WRITERS_BLOCKED_BY)
"""What keeps a SHARE ROW EXCLUSIVE lock from being granted; every writer has one of these."""

_TABLE_LOCKS = """
SELECT DISTINCT l.pid, coalesce(a.application_name, '') AS application_name, a.usename AS role, a.xact_start AS since
FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.pid <> pg_backend_pid() AND l.relation = ANY (%s)
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.mode = ANY (%s)
ORDER BY since NULLS LAST
"""


def table_holders(
    conn: Connection, table_oids: list[int], modes: Sequence[str] = LONERS_BLOCKED_BY
) -> tuple[Holder, ...]:
    """Other sessions that hold one of the lock modes on the tables, or queue for one, oldest first.

    For the message after a lock time-out: then nobody waits any more, so the server cannot say who was waited for.
    """
    with conn.cursor(row_factory=class_row(Holder)) as cursor:
        return tuple(cursor.execute(_TABLE_LOCKS, (table_oids, list(modes))).fetchall())
