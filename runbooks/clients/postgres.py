"""Connections to PostgreSQL: on the direct host only, set up alike everywhere, and proved to lead where they should."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import TupleRow, class_row
from pydantic import BaseModel, ConfigDict

from runbooks.clients.postgres_faults import final_refusal, said, translate
from runbooks.clients.postgres_faults import translated as translated
from runbooks.clients.postgres_lock import hold_lock as hold_lock
from runbooks.model.dsn import Dsn
from runbooks.model.errors import BloomError, DatabaseUnreachable, WrongTarget

Connection: TypeAlias = psycopg.Connection[TupleRow]

SETTINGS = {
    # One spelling of every value on every server, so that texts and their checksums can be compared.
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "lc_monetary": "C",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    # Only what is named with its schema is found, and a temporary table cannot pose as a catalog.
    "search_path": "pg_catalog, pg_temp",
    # A policy that would hide rows becomes an error.
    "row_security": "off",
    "synchronous_commit": "on",
    # A database that was frozen (and branched while frozen) must still let the recovery write.
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    # Whoever waits for a strong lock makes everybody behind him wait too, so not for long.
    "lock_timeout": "5s",
    "statement_timeout": "30min",
    "idle_in_transaction_session_timeout": "5min",
}
"""Session settings of every connection; `connect(**settings)` overrides them one by one."""

_WHERE_SUPPORTED = {
    "client_connection_check_interval": "2s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
}
"""So that the server notices a client that was killed and frees its locks; not every platform has them."""

_KEYWORDS = {
    "options": "",  # set, so that PGOPTIONS of the environment cannot change who we are or what is committed
    "client_encoding": "UTF8",
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}


def connect(
    dsn: Dsn,
    *,
    application_name: str,
    wait: timedelta = timedelta(seconds=30),
    progress: Callable[[str], None] | None = None,
    **settings: str,
) -> Connection:
    """A session in autocommit mode with `SETTINGS`, on the direct host also if `dsn` names the pooler.

    A compute that sleeps, starts up, refuses or drops the connection is tried again until `wait` has passed, and
    `progress` hears of each try. Raises DatabaseUnreachable then; LoginRefused and NotFound (role, password, database)
    at the first answer. The password is in no error.
    """
    dsn = dsn.direct()
    deadline = time.monotonic() + wait.total_seconds()
    for pause in _pauses():
        try:
            return _open(dsn, application_name, deadline, SETTINGS | settings)
        except psycopg.OperationalError as error:
            refusal = final_refusal(error, _place(dsn))
            if refusal is not None:
                raise refusal from error
            left = deadline - time.monotonic() - pause
            if left <= 0:
                raise _unreachable(dsn, wait, error) from error
            if progress:
                progress(f"waiting for {_place(dsn)} for another {left:.0f} s: {said(error)}")
        except psycopg.Error as error:
            raise translate(error, "set up the session", safe="nothing else was run") or error from error
        time.sleep(pause)
    raise AssertionError("the pauses never end")


def _open(dsn: Dsn, application_name: str, deadline: float, settings: dict[str, str]) -> Connection:
    """One login at most: psycopg itself would repeat a wrong password at every address of the host."""
    keywords: dict[str, Any] = _KEYWORDS | dsn.keywords() | {"application_name": application_name}
    addresses = _addresses(dsn)
    for position, address in enumerate(addresses):
        share = (deadline - time.monotonic()) / (len(addresses) - position)
        keywords |= {"hostaddr": address, "connect_timeout": max(2, round(share))}
        try:
            conn = psycopg.connect(**keywords, autocommit=True, prepare_threshold=None)
        except psycopg.OperationalError as error:
            if position == len(addresses) - 1 or final_refusal(error, ""):
                raise
            continue
        return _set_up(conn, settings)
    raise AssertionError("every host has an address")


def _addresses(dsn: Dsn) -> list[str]:
    """The host's addresses, or an empty text where libpq shall find it (a socket folder).

    Never left out: the variable PGHOSTADDR would send us elsewhere.
    """
    given = dsn.option("hostaddr")
    if given or dsn.host.startswith("/"):
        return [given or ""]
    try:
        answers = socket.getaddrinfo(dsn.host, dsn.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise psycopg.OperationalError(f"the name server does not answer for {dsn.host}") from error
        raise DatabaseUnreachable(
            f"no machine has the name {dsn.host} ({error.strerror})",
            safe="no connection was made",
            next_step="correct the host in the connection string",
        ) from error
    return [str(answer[4][0]) for answer in answers]


def _set_up(conn: Connection, settings: dict[str, str]) -> Connection:
    try:
        # Functions with their schema: the search path is still whatever role and database prescribe.
        conn.execute(
            "SELECT pg_catalog.set_config(s.name, s.value, false)"
            " FROM ROWS FROM (pg_catalog.unnest(%s::pg_catalog.text[]), pg_catalog.unnest(%s::pg_catalog.text[]))"
            " AS s (name, value)",
            (list(settings), list(settings.values())),
        )
        for name, value in _WHERE_SUPPORTED.items():
            with suppress(psycopg.errors.InvalidParameterValue, psycopg.errors.UndefinedObject):
                conn.execute("SELECT set_config(%s, %s, false)", (name, value))
    except BaseException:
        conn.close()
        raise
    return conn


def _pauses() -> Iterator[float]:
    pause = 0.1
    while True:
        yield pause
        pause = min(pause * 2, 2.0)


def _place(dsn: Dsn) -> str:
    return f"{dsn.host}:{dsn.port}"


def _unreachable(dsn: Dsn, wait: timedelta, error: psycopg.OperationalError) -> BloomError:
    return DatabaseUnreachable(
        f"no connection to {_place(dsn)} within {wait.total_seconds():.0f} s: {said(error)}",
        safe="no statement was run",
        next_step="check that the compute can start and that this machine reaches it, then run the same command again",
    )


class Identity(BaseModel):
    """Which database a session is in, as the server itself tells it. The Neon ids are None elsewhere."""

    model_config = ConfigDict(frozen=True)

    system_identifier: str
    """The same on every branch of a Neon project."""
    database: str
    server_version: int
    """As in `server_version_num`: 170010."""
    project_id: str | None = None
    branch_id: str | None = None
    timeline_id: str | None = None
    """Changes when a branch is restored in place."""
    role: str

    @property
    def server_major(self) -> int:
        return self.server_version // 10000

    def __str__(self) -> str:
        place = f"Neon branch {self.branch_id}" if self.branch_id else f"system {self.system_identifier}"
        return f"database {self.database} on {place}"


@dataclass(frozen=True)
class Expected:
    """What is known beforehand of the database to find, from an API answer say; None where it is not known."""

    system_identifier: str | None = None
    database: str | None = None
    project_id: str | None = None
    branch_id: str | None = None
    timeline_id: str | None = None


_IDENTITY = """
SELECT (SELECT system_identifier FROM pg_control_system())::text AS system_identifier,
       current_database()::text AS database,
       current_setting('server_version_num')::int AS server_version,
       nullif(current_setting('neon.project_id', true), '') AS project_id,
       nullif(current_setting('neon.branch_id', true), '') AS branch_id,
       nullif(current_setting('neon.timeline_id', true), '') AS timeline_id,
       current_user::text AS role
"""


def identity(conn: Connection) -> Identity:
    """Who the other end says it is."""
    with translated("ask the database who it is", safe="nothing was changed"):
        with conn.cursor(row_factory=class_row(Identity)) as cursor:
            found = cursor.execute(_IDENTITY).fetchone()
    assert found is not None  # a SELECT without FROM has one row
    return found


def prove(conn: Connection, expected: Identity | Expected) -> Identity:
    """The session's identity, if every place-naming field that `expected` knows agrees; raises WrongTarget otherwise.

    Role and server version are not compared: a compute may run a newer minor version than it did a minute ago.
    """
    found = identity(conn)
    names = ("system_identifier", "database", "project_id", "branch_id", "timeline_id")
    differs = [
        f"{name} is {getattr(found, name)}, not {getattr(expected, name)}"
        for name in names
        if getattr(expected, name) not in (None, getattr(found, name))
    ]
    if differs:
        raise WrongTarget(
            f"this is not the expected database: {'; '.join(differs)}",
            safe="no statement was run on it",
            next_step="check the connection string, and whether the branch was restored or replaced since the plan",
        )
    return found


def prove_apart(one: Connection, other: Connection) -> None:
    """Raise WrongTarget if both sessions are in the same database, whatever names and settings say.

    The server is the witness: an advisory lock taken by one session is seen by the other only in the same database.
    """
    mark = secrets.randbits(62)
    with translated("prove that production and branch are two databases", safe="nothing was changed"):
        one.execute("SELECT pg_advisory_lock(%s)", (mark,))
        try:
            found = other.execute(
                "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND classid = %s AND objid = %s"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                (mark >> 32, mark & 0xFFFFFFFF),
            ).fetchone()
        finally:
            one.execute("SELECT pg_advisory_unlock(%s)", (mark,))
    if found:
        raise WrongTarget(
            f"production and recovery branch are the same database ({identity(one)})",
            safe="nothing was changed",
            next_step="give the connection string of a branch made for this recovery",
        )


class Outcome(StrEnum):
    """How a transaction ended."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    IN_PROGRESS = "in progress"
    UNKNOWN = "unknown"
    """Too long ago for the server to remember, or not a transaction of this server's history."""


def outcome(conn: Connection, xid: int) -> Outcome:
    """What became of transaction `xid` (64 bits, as of `pg_current_xact_id()`), for a run that was killed at COMMIT."""
    with translated(f"ask how transaction {xid} ended", safe="nothing was changed"):
        try:
            row = conn.execute("SELECT pg_xact_status(%s::text::xid8)", (str(xid),)).fetchone()
        except psycopg.errors.InvalidParameterValue:  # the number lies in this server's future
            return Outcome.UNKNOWN
    return Outcome(row[0]) if row and row[0] else Outcome.UNKNOWN
