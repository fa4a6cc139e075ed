"""Read `toc.dat`, the table of contents of pg_dump's directory format, without any program.

`pg_restore --list` prints the same, but joins schema, name and owner with spaces, so that names with spaces are lost.
The layout is that of WriteHead and WriteToc in PostgreSQL's pg_backup_archiver.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runbooks.model.errors import LocalFault, Refused
from runbooks.model.inventory import SequenceInventory

NAME = "toc.dat"
_MAGIC = b"PGDMP"
_KNOWN = {(1, 14): 14, (1, 15): 16, (1, 16): 17}
"""Archive versions to the first PostgreSQL that writes them."""
_SUFFIXES = {0: "", 1: ".gz", 2: ".lz4", 3: ".zst"}
_TAR = 3
"""pg_dump writes this as the format of a directory too."""
_SAFE = "no database was touched"


@dataclass(frozen=True)
class Entry:
    """One thing in the dump."""

    id: int
    catalog: int
    """The oid of the system catalog it is from, and its oid there; 0 if it is not an object itself."""
    oid: int
    name: str
    kind: str
    """`TABLE`, `TABLE DATA`, `SEQUENCE SET`, `FK CONSTRAINT`, …"""
    schema: str | None
    owner: str
    definition: str
    file: str | None
    """Its data, as the file is called in the folder."""
    needs: frozenset[int]
    copy: str = ""
    """How its rows are loaded: `COPY public.c (i, p) FROM stdin;`. Empty if it has none."""

    def __str__(self) -> str:
        return f"{self.kind} {self.schema + '.' if self.schema else ''}{self.name}"


@dataclass(frozen=True)
class Toc:
    version: tuple[int, int]
    database: str
    server_version: str
    """`17.10`, as the server that was dumped said."""
    client_version: str
    """Of the pg_dump that wrote it."""
    suffix: str
    """Of the data files, by their compression: `.zst`."""
    entries: tuple[Entry, ...]

    @property
    def files(self) -> dict[str, Entry]:
        """The data files by name. The large objects' own files are named in those of the entries of kind BLOBS."""
        return {entry.file: entry for entry in self.entries if entry.file}

    def of_kind(self, *kinds: str) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.kind in kinds)


def read_toc(folder: Path) -> Toc:
    """The table of contents of the dump in `folder`.

    Refused if it is cut, is none, or was written by a client whose format is not known here; the error then says which
    client that was (C01). LocalFault if it cannot be read.
    """
    try:
        content = (folder / NAME).read_bytes()
    except OSError as error:
        raise LocalFault(
            f"{folder / NAME} cannot be read: {error.strerror}",
            safe=_SAFE,
            next_step="check that the folder is a whole dump in pg_dump's directory format",
        ) from error
    return parse_toc(content)


def parse_toc(content: bytes) -> Toc:
    """`read_toc` of the file's content."""
    if content[:5] != _MAGIC:
        raise _broken("does not begin as PostgreSQL's archives do")
    reader = _Reader(content)
    try:
        return _toc(reader)
    except (LookupError, ValueError) as error:
        raise _broken("is cut short or damaged") from error


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = len(_MAGIC)
        self.int_size = 0

    def byte(self) -> int:
        self._at += 1
        return self._content[self._at - 1]

    def number(self) -> int:
        negative = self.byte()
        octets = self._take(self.int_size)
        if negative not in (0, 1):
            raise ValueError("a sign is neither + nor -")
        value = int.from_bytes(octets, "little")
        return -value if negative else value

    def text(self) -> str | None:
        length = self.number()
        return None if length < 0 else self._take(length).decode()

    def _take(self, length: int) -> bytes:
        taken = self._content[self._at : self._at + length]
        if len(taken) != length:
            raise ValueError("the end came early")
        self._at += length
        return taken

    @property
    def at_end(self) -> bool:
        return self._at == len(self._content)


def _toc(reader: _Reader) -> Toc:
    version = (reader.byte(), reader.byte())
    reader.byte()  # revision
    reader.int_size = reader.byte()
    reader.byte()  # size of offsets
    form = reader.byte()
    compression = reader.byte() if version >= (1, 15) else (1 if reader.number() else 0)
    for _ in range(7):
        reader.number()  # when it was made
    database, server, client = reader.text() or "", reader.text() or "", reader.text() or ""
    if version not in _KNOWN:
        raise _unknown(version, client)
    if form != _TAR:
        raise _broken("is not that of a dump in directory format")
    suffix = _SUFFIXES[compression]
    entries = tuple(_entry(reader, version, suffix) for _ in range(reader.number()))
    if not reader.at_end:
        raise ValueError("something follows the end")
    return Toc(version, database, server, client, suffix, entries)


def _entry(reader: _Reader, version: tuple[int, int], suffix: str) -> Entry:
    number = reader.number()
    reader.number()  # whether it has data
    catalog, oid = int(reader.text() or 0), int(reader.text() or 0)
    name, kind = reader.text() or "", reader.text() or ""
    reader.number()  # section
    definition = reader.text() or ""
    reader.text()  # DROP statement
    copy = reader.text() or ""
    schema = reader.text()
    reader.text()  # tablespace
    reader.text()  # access method
    if version >= (1, 16):
        reader.number()  # kind of relation
    owner = reader.text() or ""
    reader.text()  # WITH OIDS, of old
    needs = set()
    while (other := reader.text()) is not None:
        needs.add(int(other))
    file = reader.text() or None
    if file and not file.endswith(".toc"):
        file += suffix
    return Entry(number, catalog, oid, name, kind, schema or None, owner, definition, file, frozenset(needs), copy)


_SETVAL = re.compile(r"pg_catalog\.setval\('(?P<name>(?:[^']|'')*)', (?P<value>-?\d+), (?P<called>true|false)\)")
_PART = re.compile(r'"((?:[^"]|"")*)"|([^".]+)')


def parts(name: str) -> tuple[str, ...]:
    """`public."Order"` as ('public', 'Order')."""
    return tuple(quoted.replace('""', '"') if quoted else plain for quoted, plain in _PART.findall(name))


def sequences(toc: Toc, named: Iterable[str]) -> tuple[SequenceInventory, ...]:
    """Where the dump sets the sequences, under the spelling of `named` (those of an inventory).

    A sequence belongs to no snapshot, so pg_dump may have read a later value than the inventory: what the dump says is
    what a restore has to bring. ValueError unless the dump sets exactly the sequences that are named.
    """
    names = {parts(name): name for name in named}
    found = []
    for entry in toc.of_kind("SEQUENCE SET"):
        said = _SETVAL.search(entry.definition)
        if said is None:
            raise ValueError(f"{entry} sets no value")
        key = parts(said["name"].replace("''", "'"))
        if key not in names:
            raise ValueError(f"{entry} is not among the sequences of the inventory")
        found.append(
            SequenceInventory(name=names.pop(key), last_value=int(said["value"]), is_called=said["called"] == "true")
        )
    if names:
        raise ValueError(f"the dump does not set {', '.join(sorted(names.values()))}")
    return tuple(found)


def _unknown(version: tuple[int, int], client: str) -> Refused:
    who = f"pg_dump {client}" if re.fullmatch(r"[\w.() +~-]{1,80}", client) else "an unknown client"
    return Refused(
        f"the dump was written by {who} in archive version {version[0]}.{version[1]}, which is not known here"
        f" (known: {', '.join(f'{major}.{minor}' for major, minor in sorted(_KNOWN))})",
        safe=_SAFE,
        next_step="restore it with the pg_restore of that client, or with a newer version of this program",
    )


def _broken(how: str) -> Refused:
    return Refused(
        f"the dump's table of contents ({NAME}) {how}", safe=_SAFE, next_step="use another copy, or another backup"
    )
