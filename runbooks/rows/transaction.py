"""Our writing transactions: how they begin, what they lock, and how they end for certain."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from runbooks.clients.postgres import Connection, Outcome, outcome
from runbooks.clients.postgres_lock import LONERS_BLOCKED_BY, WRITERS_BLOCKED_BY, table_holders
from runbooks.model.errors import CouldNotVerify, ProofFailed, Refused, TableLocked
from runbooks.rows.catalog import describe
from runbooks.rows.names import TableName
from runbooks.rows.shape import Table

ROLLED_BACK = "the transaction was rolled back; production is as it was"


@contextmanager
def writing(conn: Connection) -> Iterator[None]:
    """A transaction that is rolled back at the end of the block unless `commit` has ended it.

    READ COMMITTED, on purpose: a row that another session committed under one of our keys a moment ago is then skipped
    by ON CONFLICT DO NOTHING and seen by the next statement, where REPEATABLE READ would fail on it.
    """
    conn.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    try:
        # It idles while the branch is read, and holds no lock then that keeps anybody from reading or writing.
        conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield
    finally:
        _roll_back(conn)


@contextmanager
def comparing(conn: Connection) -> Iterator[None]:
    """One view of the database, with room for temporary tables; always rolled back, so nothing stays."""
    conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE")
    try:
        conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield
    finally:
        _roll_back(conn)


@contextmanager
def reading(conn: Connection) -> Iterator[None]:
    """One view of the database for the block."""
    conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield
    finally:
        _roll_back(conn)


def _roll_back(conn: Connection) -> None:
    """End what is open. A broken session has been rolled back by the server; the error that broke it is the news."""
    with suppress(psycopg.OperationalError):
        if conn.info.transaction_status is not TransactionStatus.IDLE:
            conn.rollback()


@contextmanager
def as_application(conn: Connection) -> Iterator[None]:
    """Inside a transaction: names mean for the block what they mean to the application, by the search path that role
    and database prescribe. Its functions, in checks and triggers, may rely on that. Every name of ours is in full.
    """
    conn.execute("SET LOCAL search_path TO DEFAULT")
    yield  # after an error the transaction is over, and with it the setting
    conn.execute("SET LOCAL search_path TO pg_catalog, pg_temp")


def current_xid(conn: Connection) -> int:
    row = conn.execute("SELECT pg_current_xact_id()::text").fetchone()
    assert row is not None
    return int(row[0])


def commit(conn: Connection, xid: int) -> None:
    """COMMIT. CouldNotVerify if the connection broke before the answer came: then only the server knows."""
    try:
        tag = conn.execute("COMMIT").statusmessage
    except psycopg.OperationalError as error:
        raise CouldNotVerify(
            f"the connection broke at COMMIT of transaction {xid}, so it is not known yet whether it was committed",
            safe="either all of its rows are in or none",
            next_step=f"run the same command again: it asks the server how transaction {xid} ended",
        ) from error
    if tag != "COMMIT":
        raise ProofFailed(
            f"the server answered {tag} to the COMMIT of transaction {xid}",
            safe=ROLLED_BACK,
            next_step="run the same command again",
        )


def lock(conn: Connection, tables: Sequence[Table], alone: Collection[TableName]) -> None:
    """Keep other sessions from changing the tables' definitions; and, for those in `alone`, from writing to them."""
    for table in tables:
        mode, blocked_by = (
            ("SHARE ROW EXCLUSIVE", LONERS_BLOCKED_BY) if table.name in alone else ("ROW EXCLUSIVE", WRITERS_BLOCKED_BY)
        )
        with naming_blockers(conn, [table], blocked_by):
            conn.execute(sql.SQL("LOCK TABLE {} IN {} MODE").format(table.rows, sql.SQL(mode)))
    # From here on others may wait for us: a hanging client must not keep them waiting.
    conn.execute("SET LOCAL idle_in_transaction_session_timeout = '5min'")


@contextmanager
def naming_blockers(
    conn: Connection, tables: Sequence[Table], blocked_by: Sequence[str] = LONERS_BLOCKED_BY
) -> Iterator[None]:
    """Turn a lock time-out inside the block into TableLocked, with the tables and the sessions in the way."""
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        conn.rollback()
        holders = table_holders(conn, [oid for table in tables for oid in table.tree], blocked_by)
        names = ", ".join(str(table.name) for table in tables)
        told = "; ".join(holder.told("UTC") for holder in holders) or "nobody any more: it has just become free"
        raise TableLocked(
            f"we waited for a lock on {names} for as long as lock_timeout allows; in the way: {told}",
            safe=ROLLED_BACK,
            next_step="let that session finish (or end it: SELECT pg_terminate_backend(<process>)), then run the same "
            "command again",
        ) from error


def check_unchanged(conn: Connection, tables: Sequence[Table]) -> None:
    """Refused unless the tables are defined as the plan knows them. Call after `lock`."""
    changed = [str(table.name) for table in tables if describe(conn, table.name) != table]
    if changed:
        raise Refused(
            f"{', '.join(changed)} was altered after the plan was made (columns, keys, triggers, owner or rights)",
            safe=ROLLED_BACK,
            next_step="start a new run of the recovery: this one's plan does not fit any more",
        )


class Noted(Protocol):
    """What an attempt wrote down just before COMMIT."""

    @property
    def xid(self) -> int | None: ...


N = TypeVar("N", bound=Noted)


def committed(conn: Connection, attempts: Sequence[N]) -> N | None:
    """The attempt (oldest first) that came true, asked of the database itself; None if none did.

    Raises CouldNotVerify if it cannot tell of one: then nothing may be done a second time.
    """
    for attempt in reversed(attempts):
        if attempt.xid is None:
            continue
        how = outcome(conn, attempt.xid)
        if how is Outcome.COMMITTED:
            return attempt
        if how is not Outcome.ABORTED:
            raise CouldNotVerify(
                f"the database cannot tell whether transaction {attempt.xid} of this run was committed: it is {how}",
                safe="nothing was done a second time",
                next_step="look whether the rows are as wanted; then start a new run, which does only what is missing",
            )
    return None
