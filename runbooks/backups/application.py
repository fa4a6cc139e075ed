"""What the team knows must be true of its data: assertions in SQL, and the application itself, started on a restore."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import psycopg

from runbooks.clients.postgres import Connection, connect
from runbooks.clients.postgres_faults import said
from runbooks.model.backup import Verdict
from runbooks.model.dsn import Dsn
from runbooks.model.policy_backup import Assertion

Answers = Iterator[tuple[Verdict, str]]
_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TERM", "TMPDIR", "TZ", "VIRTUAL_ENV")
"""All that an application is given of our environment: on restored data it must not reach mail servers or queues."""
_TAIL = 2000
_ENDING = 10.0


def check_assertions(dsn: Dsn, assertions: Sequence[Assertion], *, time_limit: timedelta) -> Answers:
    """Each in a session that cannot write, with the search path `public`. It holds if it gives one row with `true`.

    An answer that is no `true`, and a statement that fails, have failed; one that is not done in time, or whose session
    breaks, could not be verified. Values of rows are not quoted.
    """
    if not assertions:
        return
    limit = f"{max(1, int(time_limit.total_seconds()))}s"
    with connect(
        dsn, application_name="bloom-dr assertions", search_path="public", statement_timeout=limit,
        default_transaction_read_only="on",
    ) as conn:  # fmt: skip
        for one in assertions:
            yield _asserted(conn, one)


def _asserted(conn: Connection, one: Assertion) -> tuple[Verdict, str]:
    try:
        with conn.transaction(force_rollback=True):
            cursor = conn.execute(one.sql.encode())
            rows: list[Any] = cursor.fetchmany(2) if cursor.description else []
    except psycopg.errors.QueryCanceled as error:
        return Verdict.COULD_NOT_VERIFY, f"assertion {one.name!r} was not answered: {said(error)}"
    except psycopg.Error as error:
        unanswered = conn.broken or isinstance(error, psycopg.OperationalError)
        return (
            Verdict.COULD_NOT_VERIFY if unanswered else Verdict.FAILED,
            f"assertion {one.name!r} could not be asked: {said(error)}",
        )
    if len(rows) == 1 and len(rows[0]) == 1 and rows[0][0] is True:
        return Verdict.PASSED, f"assertion {one.name!r} holds"
    return Verdict.FAILED, f"assertion {one.name!r} does not hold: it gives {_shape(rows)} instead of true"


def _shape(rows: list[Any]) -> str:
    if len(rows) != 1:
        return "more than one row" if rows else "no row"
    if len(rows[0]) != 1:
        return f"{len(rows[0])} columns"
    found = rows[0][0]
    return "NULL" if found is None else "false" if found is False else "no boolean"


def start_application(command: Sequence[str], dsn: Dsn, folder: Path, time_limit: timedelta) -> Answers:
    """Run the policy's boot command on the database: DATABASE_URL and PG… are in its environment. Exit code 0 passes.

    It and what it starts are ended in the end. What it says goes to a file in `folder`; its last words are told if it
    fails, without the password.
    """
    with tempfile.TemporaryFile(dir=folder) as said_to:
        try:
            process = subprocess.Popen(
                command, env=environment(dsn, os.environ), stdin=subprocess.DEVNULL, stdout=said_to, stderr=said_to,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            yield Verdict.COULD_NOT_VERIFY, f"the boot command {command[0]} cannot be started: {error.strerror}"
            return
        try:
            code: int | None = process.wait(time_limit.total_seconds())
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
        last = _last_words(said_to, dsn)
    if code == 0:
        yield Verdict.PASSED, f"the application started on it: {command[0]} ended with exit code 0"
    elif code is None:
        yield Verdict.COULD_NOT_VERIFY, f"the boot command had not ended after {time_limit}; its last words: {last}"
    else:
        yield Verdict.FAILED, f"the application did not start on it: exit code {code}; its last words: {last}"


def environment(dsn: Dsn, ours: Mapping[str, str]) -> dict[str, str]:
    """What an application finds the database with, and little else."""
    password = dsn.password.reveal() if dsn.password else ""
    url = f"postgresql://{quote(dsn.user, safe='')}:{quote(password, safe='')}@{dsn.host}:{dsn.port}"
    kept = {name: value for name, value in ours.items() if name in _KEPT or name.startswith("LC_")}
    return kept | {
        "DATABASE_URL": f"{url}/{quote(dsn.database, safe='')}?sslmode=disable",
        "PGHOST": dsn.host,
        "PGPORT": str(dsn.port),
        "PGUSER": dsn.user,
        "PGPASSWORD": password,
        "PGDATABASE": dsn.database,
        "PGSSLMODE": "disable",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole group: the program may have left servers behind."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING)


def _last_words(file: BinaryIO, dsn: Dsn) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    text = " ".join(file.read().decode(errors="replace").split()) or "none"
    for secret in {dsn.password.reveal(), quote(dsn.password.reveal(), safe="")} if dsn.password else ():
        text = text.replace(secret, "***")
    return text
