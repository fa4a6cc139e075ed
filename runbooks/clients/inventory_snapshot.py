"""One view of the database for inventory and dump: tables locked against changes of shape, the snapshot exported."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.clients.postgres_faults import translate, translated
from runbooks.model.errors import TableLocked
from runbooks.model.moment import Moment

SAFE = "the database was only read, and nothing was stored"
_BATCH = 200
"""Tables in one LOCK statement: few round trips, and a wait that can still be told."""


@dataclass(frozen=True)
class Snapshot:
    """What other sessions import. It is gone when the session that holds it ends."""

    id: str
    lsn: str
    """Where the server's log stood when the snapshot was taken."""
    at: Moment
    """The server's clock when it was taken."""


_TABLES = """
SELECT c.oid, n.nspname AS schema, c.relname AS name
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY c.oid
"""

_LONG_LIVED = """
SELECT set_config(name, '0', false) FROM pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')
"""

_EXPORT = """
SELECT pg_export_snapshot(),
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text,
       clock_timestamp()
"""


@contextmanager
def hold_snapshot(
    conn: Connection, *, lock_wait: timedelta, progress: Callable[[str], None] | None = None
) -> Iterator[Snapshot]:
    """Export a snapshot of `conn`'s database and keep it for the block. `conn` does nothing else meanwhile.

    All tables are locked first (ACCESS SHARE, which only changes of their shape wait for): TRUNCATE and a rewriting
    ALTER show through older snapshots too, so one between inventory and dump would falsify either. Waits up to
    `lock_wait`, then raises TableLocked, which names the table and who holds it (C10). LoginRefused if our role may
    not read a table.
    """
    deadline = time.monotonic() + lock_wait.total_seconds()
    with translated("take a snapshot of the database", safe=SAFE):
        conn.execute(_LONG_LIVED)
    try:
        while True:
            tables = _tables(conn)
            if _lock(conn, tables, deadline, lock_wait, progress):
                with translated("take a snapshot of the database", safe=SAFE):
                    row: Any = conn.execute(_EXPORT).fetchone()
                    if _tables(conn).keys() <= tables.keys():
                        break
            conn.rollback()
        yield Snapshot(row[0], row[1], Moment.of(row[2]))
    finally:
        if not conn.closed:
            conn.rollback()


@contextmanager
def imported(conn: Connection, snapshot: str) -> Iterator[None]:
    """The block sees what `snapshot` shows, whatever was committed since; it is rolled back at the end."""
    with translated("use the snapshot of the backup", safe=SAFE, next_step="start the backup anew"):
        conn.execute(_LONG_LIVED)
        try:
            conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            conn.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
            yield
        finally:
            if not conn.closed:
                conn.rollback()


def _tables(conn: Connection) -> dict[int, tuple[str, str]]:
    with translated("list the tables", safe=SAFE):
        return {int(row[0]): (str(row[1]), str(row[2])) for row in conn.execute(_TABLES)}


def _lock(
    conn: Connection,
    tables: dict[int, tuple[str, str]],
    deadline: float,
    lock_wait: timedelta,
    progress: Callable[[str], None] | None,
) -> bool:
    """Begin a transaction that locks the tables; False if one was dropped meanwhile.

    Neither BEGIN nor LOCK takes the transaction's snapshot: that is left to the export.
    """
    conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    oids = list(tables)
    for start in range(0, len(oids), _BATCH):
        batch = oids[start : start + _BATCH]
        names = sql.SQL(", ").join(sql.SQL("ONLY {}").format(sql.Identifier(*tables[oid])) for oid in batch)
        left = max(1, round(1000 * (deadline - time.monotonic())))
        try:
            conn.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(left))
            conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return False
        except psycopg.errors.LockNotAvailable as error:
            conn.rollback()
            raise locked(conn, batch, lock_wait) from error
        except psycopg.Error as error:
            raise translate(error, "lock the tables against changes of their shape", safe=SAFE) or error from error
    if progress:
        progress(f"{len(oids)} tables are locked against changes of their shape (reading and writing go on)")
    return True


_IN_THE_WAY = """
SELECT DISTINCT l.relation, l.relation::regclass::text AS table, l.pid, coalesce(a.application_name, '') AS name,
       coalesce(a.usename, 'unknown') AS role, a.xact_start AS since
FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.relation = ANY (%s)
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.pid <> pg_backend_pid()
ORDER BY since NULLS LAST
"""


def locked(conn: Connection, tables: list[int], lock_wait: timedelta) -> TableLocked:
    """The error that names the first of `tables` which somebody holds, or waits for, ACCESS EXCLUSIVE; and who."""
    with translated("look who holds the tables", safe=SAFE):
        row: Any = conn.execute(_IN_THE_WAY, (tables,)).fetchone()
    what = "a table is locked by a session that has just let go of it"
    cure = "run the backup again"
    if row:
        what = f"table {row[1]} is locked by process {row[2]} ({row[3] or 'a session without a name'}, role {row[4]})"
        what += f" since {Moment.of(row[5]).iso()}" if row[5] else ""
        cure = f"let process {row[2]} finish, or end it with SELECT pg_terminate_backend({row[2]}); then back up again"
    return TableLocked(f"{what}; waited {lock_wait}", safe=SAFE, next_step=cure)
