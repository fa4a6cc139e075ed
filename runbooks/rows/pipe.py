"""Ship keys from production to the branch: one psql writes, another reads, and this process only watches.

No key passes through Python, so a hundred million of them need no more memory than ten, and no more time than psql.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql
from psycopg.conninfo import make_conninfo

from runbooks.clients import programs
from runbooks.clients.postgres import SETTINGS, Connection
from runbooks.model.errors import BloomError, DatabaseFault

_COUNT = re.compile(r"^bloom-dr rows (\d+)$", re.MULTILINE)
_LOOK_EVERY = 1.0
"""Seconds between two looks at the progress."""

_CARRIED = (
    *("host", "hostaddr", "port", "user", "dbname", "options", "channel_binding", "gssencmode", "require_auth"),
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "sslsni"),
)
"""Connection keywords that psql gets too, as far as it knows them; the password goes another way."""


@dataclass(frozen=True)
class Leg:
    """One psql: its command line, environment, and the file its complaints go to."""

    side: str
    command: list[str]
    environment: dict[str, str]
    complaints: Path

    def start(self, **pipes: object) -> subprocess.Popen[bytes]:
        with self.complaints.open("wb") as errors:
            return subprocess.Popen(self.command, env=self.environment, stderr=errors, **pipes)  # type: ignore[call-overload,no-any-return]

    def said(self) -> str:
        return self.complaints.read_text("utf-8", "replace")[-2000:].strip()

    def rows(self) -> int | None:
        found = _COUNT.search(self.said())
        return int(found[1]) if found else None


def ship(
    production: Connection,
    branch: Connection,
    *,
    query: sql.Composed,
    snapshot: str,
    target: sql.Identifier,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Copy the rows of `query`, as of `snapshot`, into table `target` of the branch; how many. Raises DatabaseFault.

    `snapshot` was exported by `production` and `target` was made by `branch`, so neither psql can be in another
    database than these two proved sessions: it would not find them. `progress` hears the rows so far, about once a
    second. A part that arrived before a failure stays in `target`.
    """
    psql = programs.find("psql", at_least=13)
    with tempfile.TemporaryDirectory(prefix="bloom-dr-") as folder:
        writer = _leg("production", psql.path, production, Path(folder), _writing(production, query, snapshot))
        reader = _leg("branch", psql.path, branch, Path(folder), _reading(branch, target))
        with _both(writer, reader) as (writing, reading):
            while reading.poll() is None:
                try:
                    reading.wait(_LOOK_EVERY)
                except subprocess.TimeoutExpired:
                    if progress:
                        progress(_so_far(branch, target))
            # A writer whose reader has failed may be waiting for the server and not notice.
            if reading.returncode != 0:
                writing.terminate()
            writing.wait()
        return _judge(writer, writing.returncode, reader, reading.returncode)


def _writing(conn: Connection, query: sql.Composed, snapshot: str) -> list[str]:
    # \copy to pstdout with -o elsewhere: only so does psql keep the row count of a COPY to its own output.
    begin = sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}").format(snapshot)
    return [begin.as_string(conn), f"\\copy ({query.as_string(conn)}) TO pstdout"]


def _reading(conn: Connection, target: sql.Identifier) -> list[str]:
    return [sql.SQL("COPY {} FROM STDIN").format(target).as_string(conn)]


def _leg(side: str, psql: Path, conn: Connection, folder: Path, statements: list[str]) -> Leg:
    """psql as the same role, on the same address, with the same session settings as `conn`."""
    known = {name: value for name, value in conn.info.get_parameters().items() if name in _CARRIED}
    known |= {"application_name": f"{conn.info.get_parameters().get('application_name', 'bloom-dr')} keys"}
    passfile = folder / f"{side}.pass"
    passfile.touch(mode=0o600)
    passfile.write_text("*:*:*:*:" + re.sub(r"([\\:])", r"\\\1", conn.info.password) + "\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment |= {"PGPASSFILE": str(passfile), "PGCLIENTENCODING": "UTF8", "LC_ALL": "C"}
    command = [str(psql), "-X", "-q", "-w", "-o", os.devnull, "-v", "ON_ERROR_STOP=1", "-d", make_conninfo(**known)]
    for statement in (_settings(conn), *statements, "\\warn bloom-dr rows :ROW_COUNT"):
        command += ["-c", statement]
    return Leg(side, command, environment, folder / f"{side}.stderr")


def _settings(conn: Connection) -> str:
    """A statement that gives another session the settings `conn` has now."""
    values = conn.execute("SELECT name, setting, unit FROM pg_settings WHERE name = ANY (%s)", (list(SETTINGS),))
    calls = sql.SQL(", ").join(
        sql.SQL("pg_catalog.set_config({}, {}, false)").format(name, f"{setting}{unit or ''}")
        for name, setting, unit in values
    )
    return sql.SQL("SELECT {}").format(calls).as_string(conn)


@contextmanager
def _both(writer: Leg, reader: Leg) -> Iterator[tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """Both processes, joined by a pipe that only they hold; neither outlives the block."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        writing = writer.start(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        running.append(writing)
        assert writing.stdout is not None
        with writing.stdout:  # our copy: while it is open, the writer cannot notice that the reader died
            reading = reader.start(stdin=writing.stdout, stdout=subprocess.DEVNULL)
        running.append(reading)
        yield writing, reading
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()
            process.wait()


def _so_far(branch: Connection, target: sql.Identifier) -> int:
    row = branch.execute(
        "SELECT tuples_processed FROM pg_stat_progress_copy WHERE relid = to_regclass(%s)", (target.as_string(branch),)
    ).fetchone()
    return int(row[0]) if row else 0


def _judge(writer: Leg, wrote: int, reader: Leg, read: int) -> int:
    if read != 0 and (wrote != 0 or reader.said()):
        raise _failed(reader, read)
    if wrote != 0:
        raise _failed(writer, wrote)
    sent, arrived = writer.rows(), reader.rows()
    if read != 0 or sent is None or sent != arrived:
        raise DatabaseFault(
            f"of {sent} keys that production sent, {arrived} arrived on the branch",
            safe="production was only read",
            next_step="run the same command again",
        )
    return sent


def _failed(leg: Leg, code: int) -> BloomError:
    return DatabaseFault(
        f"psql on the {leg.side} side ended with {code} while keys were shipped: {leg.said() or 'it said nothing'}",
        safe="production was only read",
        next_step="cure what the message names, then run the same command again",
    )
