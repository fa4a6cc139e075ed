"""The undo file: the keys of the rows a run inserted, and what the rows it changed held before, on disk before COMMIT.

JSON lines: a header, one line for each row (its table's place in the header, tables filled before tables amended; its
key as PostgreSQL writes it; and of an amended row the values before), and a last line with their number, so that a file
that was cut off is recognised.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from runbooks.clients.postgres import Identity
from runbooks.model.errors import LocalFault
from runbooks.model.record import Record
from runbooks.rows.names import TableName

FORMAT = "bloom-dr undo 1"

Values = tuple[str | None, ...]
"""Values, each as its type's output function writes it: a row's key, and for an amended one what it held."""


class UndoTable(Record):
    name: TableName
    key: tuple[str, ...]
    """The columns that tell its rows apart."""
    rows: int
    copies: bool = False
    """It has no key: its lines have the MD5 of the text of the columns `key`, and a number among equal ones."""


class UndoAmended(UndoTable):
    columns: tuple[str, ...]
    """The columns that were set, whose values before are in the file."""
    compared: tuple[str, ...]
    """Those that were proved: made by the server, some of them."""
    rows_table: str
    """Where on the branch the values set are kept."""


class UndoHeader(Record):
    format: str = FORMAT
    run: str
    database: Identity
    xid: int
    """The transaction that inserted the rows, in 64 bits; a row keeps the lower 32 in xmin until it is changed."""
    tables: tuple[UndoTable, ...]
    amended: tuple[UndoAmended, ...] = ()

    @property
    def entries(self) -> tuple[UndoTable, ...]:
        """All of them, in the order of the lines' numbers."""
        return (*self.tables, *self.amended)

    @property
    def xmin(self) -> str:
        """What `xmin` shows on a row of this run that was not changed since."""
        return str(self.xid % 2**32)


def write(path: Path, header: UndoHeader, rows: Iterable[tuple[int, Values]]) -> None:
    """Write the file whole, mode 0600, and have it on disk on return. Replaces an earlier one. Raises LocalFault."""
    beside = path.with_name(path.name + ".part")
    count = 0
    with _local(path):
        with _create(beside) as file:
            file.write(header.model_dump_json() + "\n")
            for table, key in rows:
                file.write(json.dumps([table, *key]) + "\n")
                count += 1
            file.write(json.dumps({"rows": count}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)


def _create(path: Path) -> IO[str]:
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_header(path: Path) -> UndoHeader:
    """The header alone. Raises LocalFault if the file cannot be read or is not an undo file."""
    with _local(path), path.open(encoding="utf-8") as file:
        return _header(path, file)


def read_rows(path: Path) -> Iterator[tuple[int, Values]]:
    """Every row, after the header; LocalFault at the end if the file is not whole."""
    with _local(path), path.open(encoding="utf-8") as file:
        header = _header(path, file)
        counts = [0] * len(header.entries)
        for line in file:
            parts = json.loads(line)
            if isinstance(parts, dict):
                break
            table, *key = parts
            counts[table] += 1
            yield table, tuple(key)
        else:
            raise _not_whole(path, "it has no end")
        if counts != [table.rows for table in header.entries] or parts != {"rows": sum(counts)} or file.read():
            raise _not_whole(path, "its rows are not as many as it says")


def _header(path: Path, file: IO[str]) -> UndoHeader:
    try:
        header = UndoHeader.model_validate_json(file.readline())
    except ValidationError as error:
        raise _not_whole(path, "its first line is no header of one") from error
    if header.format != FORMAT:
        raise _not_whole(path, f"its format is {header.format}")
    return header


@contextmanager
def _local(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, IndexError) as error:
        raise LocalFault(
            f"the undo file {path} cannot be written or read: {error}",
            safe="no transaction was committed by this step",
            next_step="make room or correct the rights of its folder, then run the same command again",
        ) from error


def _not_whole(path: Path, why: str) -> LocalFault:
    return LocalFault(
        f"{path} is not a whole undo file: {why}",
        safe="nothing was changed",
        next_step="use the undo file of the run's folder, as the run wrote it",
    )
