"""Old backups: one file `bloom_backup_….sql.gz`, written by `pg_dump | gzip`. Is it whole, and what is in it?"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from runbooks.backups.legacy_stream import SAFE, Unzipped
from runbooks.backups.legacy_text import IDENTIFIER, NAME, DumpText, Rows, Statement
from runbooks.model.errors import LocalFault
from runbooks.model.inventory import SequenceInventory
from runbooks.model.record import Record


class LegacyTable(Record):
    name: str
    """As the dump spells it: `public."Order"`."""
    rows: int | None
    """In its COPY blocks; None: they are written as INSERTs, and were not counted."""


class LegacyFacts(Record):
    """What a whole file says of itself."""

    server_version: str
    """`17.10`, of the server that was dumped; with what its packager added."""
    client_version: str
    encoding: str
    octets: int
    """Of the file."""
    sha256: str
    """Of the file."""
    content: str
    """SHA-256 of its statements and rows alone: the same for two dumps of the same content, whatever their comments
    and the random key of their `restrict` lines are (C02)."""
    restricted: bool
    tables: tuple[LegacyTable, ...]
    sequences: tuple[SequenceInventory, ...]
    extensions: tuple[str, ...]
    large_objects: int
    refreshed: tuple[str, ...]
    """Materialized views that a restore fills."""
    special: tuple[str, ...]
    """Beginnings of the statements that not every target allows."""

    @property
    def rows(self) -> int:
        """In all COPY blocks."""
        return sum(table.rows or 0 for table in self.tables)

    @property
    def unknown(self) -> tuple[str, ...]:
        """What cannot be proved with such a file, in sentences."""
        told = ["no inventory was taken with it, so nobody can say whether these were the rows of its source"]
        if uncounted := [table.name for table in self.tables if table.rows is None]:
            told.append(f"the rows of {', '.join(uncounted[:8])} are written as INSERTs, and are not counted")
        if bare := [table.name for table in self.tables if not re.fullmatch(_QUALIFIED, table.name)]:
            told.append(f"{', '.join(bare[:8])} are written without their schema, so their rows are not compared")
        return tuple(told)


_QUALIFIED = rf"{IDENTIFIER}\.{IDENTIFIER}"
_INSERT = re.compile(rf"INSERT INTO ({NAME}) ")
_SETVAL = re.compile(r"SELECT pg_catalog\.setval\((E?)'((?:[^']|'')+)', (-?\d+), (true|false)\);")
_REFRESH = re.compile(rf"REFRESH MATERIALIZED VIEW ({NAME});")
SUBJECT = re.compile(
    rf"(?P<verb>CREATE|ALTER|COMMENT ON)(?: OR REPLACE)?(?: TRUSTED)?(?: (?P<kind>EVENT TRIGGER|PUBLICATION|"
    rf"SUBSCRIPTION|EXTENSION|FOREIGN DATA WRAPPER|OPERATOR CLASS|OPERATOR FAMILY|ACCESS METHOD|TRANSFORM|"
    rf"PROCEDURAL LANGUAGE|TEXT SEARCH PARSER|TEXT SEARCH TEMPLATE))(?: IF NOT EXISTS)? (?P<name>{NAME})"
)
"""Of statements about what not every target allows."""


def inspect(source: Path | BinaryIO, *, progress: Callable[[str], None] | None = None) -> LegacyFacts:
    """Read the whole file, and keep a few megabytes of it in memory at most. Safe to repeat.

    ProofFailed if the gzip is cut, damaged or empty (C12), or the dump in it is none or lacks its own last line;
    Refused if it is whole, but holds what pg_dump's plain text does not (as the commands for psql of `pg_dump -C`).
    """
    with opened(source) as stream:
        unzipped = Unzipped(stream)
        text = DumpText(unzipped)
        found = _Found(progress)
        for piece in text:
            found.take(piece, text.encoding)
    return LegacyFacts(
        server_version=text.server_version,
        client_version=text.client_version,
        encoding=text.encoding,
        octets=unzipped.octets,
        sha256=unzipped.sha256,
        content=found.digest.hexdigest(),
        restricted=text.restricted,
        tables=tuple(LegacyTable(name=name, rows=rows) for name, rows in found.tables.items()),
        sequences=tuple(found.sequences),
        extensions=tuple(found.extensions),
        large_objects=found.large_objects,
        refreshed=tuple(found.refreshed),
        special=tuple(found.special),
    )


def opened(source: Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    """A stream stays open. LocalFault if there is no such file."""
    if not isinstance(source, Path):
        return nullcontext(source)
    try:
        return source.open("rb")
    except OSError as error:
        raise LocalFault(
            f"{source} cannot be read: {error.strerror}",
            safe=SAFE,
            next_step="check the path, and that this user may read the file",
        ) from error


def beginning(text: str) -> str:
    """The first words of a statement, as they may be shown: no text in quotes and no values of rows."""
    return re.split(r"'|\bVALUES\b|\$", text.partition("\n")[0][:300])[0].strip()[:160]


class _Found:
    def __init__(self, progress: Callable[[str], None] | None) -> None:
        self._progress = progress
        self.digest = hashlib.sha256()
        self.tables: dict[str, int | None] = {}
        self.sequences: list[SequenceInventory] = []
        self.extensions: list[str] = []
        self.refreshed: list[str] = []
        self.special: list[str] = []
        self.large_objects = 0

    def take(self, piece: Statement | Rows, encoding: str) -> None:
        self.digest.update(piece.text + b"\n")
        if isinstance(piece, Statement):
            self._statement(piece.text[:1000].decode(encoding, errors="replace"))
            return
        for block in piece:
            self.digest.update(block)
        before = self.tables.get(piece.table, 0)
        self.tables[piece.table] = None if before is None else before + piece.count
        if self._progress:
            self._progress(f"read the rows of {len(self.tables)} tables")

    def _statement(self, text: str) -> None:
        if found := _INSERT.match(text):
            self.tables[found[1]] = None
        elif found := _SETVAL.fullmatch(text):
            self.sequences.append(_sequence(*found.groups()))
        elif text.startswith("SELECT pg_catalog.lo_create("):
            self.large_objects += 1
        elif found := _REFRESH.fullmatch(text):
            self.refreshed.append(found[1])
        elif (found := SUBJECT.match(text)) and found["verb"] == "CREATE":
            self.special.append(beginning(text))
            if found["kind"] == "EXTENSION":
                self.extensions.append(found["name"])


def _sequence(escaped: str, name: str, value: str, called: str) -> SequenceInventory:
    plain = name.replace("''", "'")
    if escaped:
        plain = plain.replace("\\\\", "\\")
    return SequenceInventory(name=plain, last_value=int(value), is_called=called == "true")
