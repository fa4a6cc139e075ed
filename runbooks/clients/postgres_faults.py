"""What the server or libpq said, as one of our own errors. The only place that reads SQLSTATEs and libpq's texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from runbooks.model.errors import (
    BloomError,
    DatabaseFault,
    DatabaseUnreachable,
    DeadlinePassed,
    LoginRefused,
    NotFound,
    TableLocked,
)

ROLLED_BACK = "the statement's transaction was rolled back; nothing of it remains"
RUN_AGAIN = "cure what the message names, then run the same command again"

_SHOWS_A_ROW = {"23502", "23514", "23P01"}
"""Not null, check, exclusion: their DETAIL quotes whole rows, which have no place in a log."""

_GONE = ("08", "57P", "25P03", "25P04")
"""The session is over: connection exceptions, server shutdown or termination, idle or transaction time-outs."""


@contextmanager
def translated(doing: str, *, safe: str = ROLLED_BACK, next_step: str = RUN_AGAIN) -> Iterator[None]:
    """Turn psycopg's errors inside the block into ours; `doing` reads like "insert the rows of public.booking"."""
    try:
        yield
    except psycopg.Error as error:
        fault = translate(error, doing, safe=safe, next_step=next_step)
        if fault is None:
            raise
        raise fault from error


def translate(
    error: psycopg.Error, doing: str, *, safe: str = ROLLED_BACK, next_step: str = RUN_AGAIN
) -> BloomError | None:
    """None for a mistake in our own code (no SQLSTATE and no connection trouble): that one must surface as it is."""
    state = error.sqlstate
    if state is None and not isinstance(error, psycopg.OperationalError):
        return None
    kind = _kind(state)
    if kind is DatabaseUnreachable:
        safe = "a transaction that was not committed is rolled back by the server on its own"
    return kind(f"could not {doing}: {said(error)}", safe=safe, next_step=next_step)


def _kind(state: str | None) -> type[BloomError]:
    if state is None or state.startswith(_GONE):
        return DatabaseUnreachable
    if state == "55P03":
        return TableLocked
    if state == "57014":
        return DeadlinePassed
    if state == "42501" or state.startswith("28"):
        return LoginRefused
    return DatabaseFault


def said(error: psycopg.Error) -> str:
    """The server's own words with SQLSTATE, table and constraint; without quoting a whole row."""
    diag = error.diag
    if error.sqlstate is None or diag.message_primary is None:
        return " ".join(str(error).split()) or type(error).__name__
    text = diag.message_primary
    if diag.message_detail and error.sqlstate not in _SHOWS_A_ROW:
        text += f" ({' '.join(diag.message_detail.split())})"
    facts = [f"SQLSTATE {error.sqlstate}"]
    if diag.table_name:
        facts.append(f"table {diag.schema_name}.{diag.table_name}")
    facts += [f"{label} {name}" for label, name in _named(diag) if name]
    return f"{text} [{', '.join(facts)}]"


def _named(diag: psycopg.errors.Diagnostic) -> list[tuple[str, str | None]]:
    return [("column", diag.column_name), ("constraint", diag.constraint_name), ("type", diag.datatype_name)]


# libpq gives no SQLSTATE for a failed login, so these are texts: PostgreSQL's, then those of Neon's proxy.
_FINAL: tuple[tuple[re.Pattern[str], type[BloomError], str], ...] = tuple(
    (re.compile(pattern), kind, cure)
    for pattern, kind, cure in (
        (
            r"password authentication failed|no password supplied|authentication failed|no pg_hba\.conf entry"
            r"|role \".*\" (does not exist|is not permitted to log in)|permission denied for database"
            r"|channel binding required|IP address .* is not allowed",
            LoginRefused,
            "correct the role, password or access rule of this database, then run the same command again",
        ),
        (
            r"database \".*\" does not exist|endpoint could not be found|[Ee]ndpoint ID is not specified",
            NotFound,
            "correct the database or host in the connection string",
        ),
        (
            r"endpoint is disabled|quota|exceeded the|compute time|suspended",
            DatabaseUnreachable,
            "look at the project in the Neon console: its compute may not start as it is set up now",
        ),
        (
            r"SSL was required|certificate|sslmode|SSL negotiation",
            DatabaseUnreachable,
            "correct the TLS options of the connection string; an encrypted connection is not given up silently",
        ),
    )
)
_PASSING = re.compile(
    r"database system is (starting up|shutting down|in recovery mode|not (yet )?accepting connections)"
    r"|too many (clients|connections)|remaining connection slots|connection to compute node|[Cc]ontrol plane"
)
_ANSWERED = re.compile(r"\b(FATAL|ERROR|PANIC): ")


def final_refusal(error: psycopg.OperationalError, where: str) -> BloomError | None:
    """The error of a login that the server refused for good; None if trying again may help.

    Trying again helps with a compute that sleeps, refuses, drops us or is starting up, and never with a wrong password:
    repeating that one can lock the role.
    """
    text = " ".join(str(error).split())
    if _PASSING.search(text):
        return None
    nothing = "no statement was run"
    for pattern, kind, cure in _FINAL:
        if pattern.search(text):
            return kind(f"{where} refused the connection: {text}", safe=nothing, next_step=cure)
    if _ANSWERED.search(text):
        return DatabaseUnreachable(f"{where} refused the connection: {text}", safe=nothing, next_step=RUN_AGAIN)
    return None
