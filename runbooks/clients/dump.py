"""Dump a whole database with pg_dump in directory format, and hand over each file as soon as it is finished."""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from runbooks.clients import inventory_catalog
from runbooks.clients.dump_preflight import client_for
from runbooks.clients.dump_process import failure, login, run
from runbooks.clients.dump_toc import NAME as TOC
from runbooks.clients.dump_toc import Entry, Toc, read_toc, sequences
from runbooks.clients.dump_watch import Watch
from runbooks.clients.postgres import Connection, connect
from runbooks.clients.postgres_faults import translated
from runbooks.clients.programs import Program
from runbooks.model.dsn import Dsn
from runbooks.model.errors import ProofFailed, TableLocked
from runbooks.model.inventory import Inventory

OnFile = Callable[[Path, str | None], None]
_SAFE = "the database was only read, and earlier backups are as they were"
_FINISHED = re.compile(r"finished item (\d+) (TABLE DATA|BLOBS) ")
_LARGE_OBJECT = re.compile(r"^(\d+) (blob_\d+\.dat)$", re.MULTILINE)


@dataclass(frozen=True)
class DumpedFile:
    name: str
    size: int
    table: str | None
    """The table whose rows are in it, as an inventory spells it."""


@dataclass(frozen=True)
class DumpResult:
    files: tuple[DumpedFile, ...]
    """In the order in which they were handed over; `toc.dat` is the last."""
    toc: Toc
    warnings: tuple[str, ...]
    """What pg_dump wanted to be known. No failure (C08)."""
    client: Program
    seconds: float

    def completed(self, inventory: Inventory) -> Inventory:
        """`inventory`, with the sequences standing where this dump sets them (see `dump_toc.sequences`).

        ProofFailed if a table with rows has no data in the dump, or the sequences are not the same.
        """
        dumped = {file.table for file in self.files}
        lost = [table.name for table in inventory.tables if table.kind == "table" and table.name not in dumped]
        if lost:
            raise _not_whole(f"it holds no data of {', '.join(lost[:8])}")
        try:
            found = sequences(self.toc, (sequence.name for sequence in inventory.sequences))
        except ValueError as error:
            raise _not_whole(str(error)) from error
        return Inventory.model_validate({**dict(inventory), "sequences": found})


def dump(
    dsn: Dsn,
    snapshot: str,
    folder: Path,
    *,
    jobs: int,
    lock_wait: timedelta,
    time_limit: timedelta,
    compress: str = "zstd:1",
    on_file: OnFile = lambda path, table: None,
    progress: Callable[[str], None] | None = None,
    client: Program | None = None,
) -> DumpResult:
    """Dump the database of `dsn` as of the exported `snapshot` into `folder`, which must be missing or empty.

    `on_file` gets each file and the table in it as soon as pg_dump has finished with it (all of them after its end if
    `jobs` is 1), `toc.dat` after everything else; it may delete the file. It runs in the reading loop, so it should
    only put the file in a queue. What it raises ends the dump. Files are not fsynced.

    Raises what pg_dump's end means: TableLocked naming table and holder (C10), LoginRefused, DatabaseUnreachable,
    LocalFault (disk full), DeadlinePassed after `time_limit`, else DatabaseFault; ProofFailed if pg_dump says that it
    succeeded and its files are not what it announced (C12). After any of them what lies in `folder` is no backup.
    """
    started = time.monotonic()
    name = f"bloom-dr dump {secrets.token_hex(4)}"
    with connect(dsn, application_name=f"{name} watch") as conn, login(dsn, name) as way:
        client = client or client_for(conn)
        watch = Watch(conn, name, progress)
        handing = _Handing(conn, folder, on_file)
        command: list[str | Path] = [
            *(client.path, "--format=directory", f"--jobs={jobs}", f"--compress={compress}", "--verbose", "--no-sync"),
            *(f"--snapshot={snapshot}", f"--lock-wait-timeout={round(lock_wait.total_seconds() * 1000)}"),
            *("--no-password", f"--file={folder}", f"--dbname={way.conninfo}", *_encoding(conn)),
        ]
        deadline = started + time_limit.total_seconds()
        code, story = run(command, way.environment, deadline=deadline, on_line=handing.hear, on_tick=watch.look)
        if code != 0:
            error = failure("dump the database", code, story, safe=_SAFE)
            raise watch.explain(error) if isinstance(error, TableLocked) else error
        files, toc = handing.finish()
    return DumpResult(files, toc, tuple(story.warnings), client, time.monotonic() - started)


def _encoding(conn: Connection) -> tuple[str, ...]:
    """The table of contents is read as UTF-8, whatever the database is written in. SQL_ASCII cannot be converted."""
    return () if conn.info.parameter_status("server_encoding") == "SQL_ASCII" else ("--encoding=UTF8",)


class _Handing:
    """Knows which files are finished, and hands each over once."""

    def __init__(self, conn: Connection, folder: Path, on_file: OnFile) -> None:
        self._conn, self._folder, self._on_file = conn, folder, on_file
        self._toc: Toc | None = None
        self._items: dict[int, Entry] = {}
        self._tables: dict[str, str] = {}
        self._given: dict[str, DumpedFile] = {}

    def hear(self, line: str) -> None:
        """The table of contents is complete before the first item is begun, so it names the file."""
        found = _FINISHED.match(line)
        if found:
            self._give_item(int(found[1]))

    def finish(self) -> tuple[tuple[DumpedFile, ...], Toc]:
        """After pg_dump's good end: the remaining files, and a look at whether everything it announced is there."""
        toc = self._contents()
        for number in self._items:
            self._give_item(number)
        left = {path.name for path in self._folder.iterdir()} - self._given.keys() - {TOC}
        if left:
            raise _not_whole(f"it holds files that its table of contents does not name: {', '.join(sorted(left)[:8])}")
        self._give(TOC, None)
        return tuple(self._given.values()), toc

    def _contents(self) -> Toc:
        if self._toc is None:
            if not (self._folder / TOC).is_file():
                raise _not_whole("it has no table of contents")
            self._toc = read_toc(self._folder)
            self._items = {entry.id: entry for entry in self._toc.entries if entry.file}
            self._tables = self._spelled(self._toc)
        return self._toc

    def _spelled(self, toc: Toc) -> dict[str, str]:
        """Data file to table, quoted by the server as it does for the inventory."""
        data = [entry for entry in toc.of_kind("TABLE DATA") if entry.file]
        with translated("spell the tables of the dump", safe=_SAFE):
            rows = self._conn.execute(
                "SELECT format('%%I.%%I', s, t) FROM ROWS FROM (unnest(%s::text[]), unnest(%s::text[])) AS x (s, t)",
                ([entry.schema for entry in data], [entry.name for entry in data]),
            ).fetchall()
        return {entry.file: str(row[0]) for entry, row in zip(data, rows, strict=True) if entry.file}

    def _give_item(self, number: int) -> None:
        toc = self._contents()
        entry = self._items.get(number)
        if entry is None or entry.file is None:
            raise _not_whole(f"its table of contents does not know item {number}")
        if entry.file in self._given:
            return
        for name in self._large_objects(entry.file, toc.suffix) if entry.kind == "BLOBS" else ():
            self._give(name, None)
        self._give(entry.file, self._tables.get(entry.file))

    def _large_objects(self, list_file: str, suffix: str) -> Iterable[str]:
        path = self._folder / list_file
        if not path.is_file():
            raise _not_whole(f"it announces {list_file}, and there is no such file")
        return [f"{found[2]}{suffix}" for found in _LARGE_OBJECT.finditer(path.read_text())]

    def _give(self, name: str, table: str | None) -> None:
        path = self._folder / name
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise _not_whole(f"it announces {name}, and there is no such file") from error
        if size == 0 and not name.startswith("blob"):  # a large object may be empty
            raise _not_whole(f"{name} is empty")
        self._given[name] = DumpedFile(name, size, table)
        self._on_file(path, table)


def _not_whole(how: str) -> ProofFailed:
    return ProofFailed(
        f"pg_dump said that the dump succeeded, and it is not whole: {how}",
        safe=_SAFE,
        next_step="look at what the pg_dump in use really is, and at the disk; then back up again",
    )


_RESTRICT = re.compile(rb"^\\(un)?restrict .*\n", re.MULTILINE)


def globals_sql(dsn: Dsn, *, client: Program | None = None, time_limit: timedelta = timedelta(minutes=5)) -> bytes:
    """The roles of the server as SQL, without passwords, then the settings of the database; equal for equal ones (C02:
    no random key in it).

    Raises as `dump` does.
    """
    out = bytearray()
    with connect(dsn, application_name="bloom-dr roles") as conn, login(dsn, "bloom-dr roles") as way:
        client = client or client_for(conn)
        command: list[str | Path] = [client.sibling("pg_dumpall"), "--roles-only", "--no-role-passwords"]
        command += ["--no-password", f"--database={dsn.database}", f"--dbname={way.conninfo}"]
        deadline = time.monotonic() + time_limit.total_seconds()
        code, story = run(command, way.environment, deadline=deadline, stdout=subprocess.PIPE, on_output=out.extend)
        with translated("read the settings of the database", safe=_SAFE):
            settings = "".join(f"{name} TO {value};\n" for name, value in inventory_catalog.settings(conn))
    if code != 0:
        raise failure("write down the roles", code, story, safe=_SAFE)
    if b"PostgreSQL database cluster dump complete" not in out:
        raise _not_whole("the list of roles has no end")
    head = "\n--\n-- Settings of the database, under its name at the source\n--\n\n" if settings else ""
    return _RESTRICT.sub(b"", bytes(out)) + (head + settings).encode()
