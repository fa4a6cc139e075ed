"""Which table of a dump can lose its rows unseen by a restore, and which row cannot be lost, by the foreign keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from runbooks.clients.dump_toc import Entry, Toc, parts
from runbooks.model.backup import Manifest, StoredFile

_PART = r'(?:"(?:[^"]|"")*"|[^\s".,()]+)'
_NAME = rf"{_PART}\.{_PART}"
_LIST = rf"{_PART}(?:, {_PART})*"
_POINTS = re.compile(rf"REFERENCES (?P<parent>{_NAME})")
_KEY = re.compile(
    rf"ALTER TABLE (?:ONLY )?(?P<child>{_NAME})\s+ADD CONSTRAINT {_PART} FOREIGN KEY \((?P<columns>{_LIST})\)"
    rf" REFERENCES (?P<parent>{_NAME})\((?P<keys>{_LIST})\)(?P<rest>[^;]*)"
)
_COPY = re.compile(rf"COPY {_NAME} \((?P<columns>{_LIST})\) FROM stdin")
_END = b"\\.\n"
_NULL = b"\\N"
Key = tuple[bytes, ...]
"""Values as COPY writes them."""


@dataclass(frozen=True)
class Pointer:
    """A foreign key between two tables with rows."""

    child: StoredFile
    parent: StoredFile
    _of_child: tuple[int, ...]
    _of_parent: tuple[int, ...]
    """Where the columns stand in a row of the dump."""

    def first_key(self, lines: Iterable[bytes]) -> Key | None:
        """What the first row of the child that points anywhere points to."""
        found = (_values(line, self._of_child) for line in _rows(lines))
        return next((key for key in found if _NULL not in key), None)

    def is_there(self, key: Key, lines: Iterable[bytes]) -> bool:
        """Whether the parent has that row, written in the same way."""
        return any(_values(line, self._of_parent) == key for line in _rows(lines))

    def without(self, key: Key) -> Callable[[Iterable[bytes]], Iterator[bytes]]:
        def keep(lines: Iterable[bytes]) -> Iterator[bytes]:
            among = True
            for line in lines:
                among = among and line != _END
                if not among or _values(line, self._of_parent) != key:
                    yield line

        return keep


@dataclass(frozen=True)
class Tables:
    """The data files of tables with rows, each with its entry in the table of contents."""

    _toc: Toc
    _files: dict[tuple[str, ...], tuple[StoredFile, Entry]]
    """By schema and name."""

    @classmethod
    def of(cls, manifest: Manifest, toc: Toc) -> Tables:
        full = {table.name for table in manifest.inventory.tables if table.rows}
        files: dict[tuple[str, ...], tuple[StoredFile, Entry]] = {
            (entry.schema or "", entry.name): (file, entry)
            for file in manifest.files
            if file.table in full and (entry := toc.files.get(file.name)) is not None
        }
        return cls(toc, files)

    def leaf(self) -> StoredFile | None:
        """The largest that no foreign key points to, and that is no partition of one to which it may."""
        keys = self._toc.of_kind("FK CONSTRAINT")
        pointed = {parts(found["parent"]) for entry in keys for found in _POINTS.finditer(entry.definition)}
        partitions = {(entry.schema or "", entry.name) for entry in self._toc.of_kind("TABLE ATTACH")}
        free = [file for name, (file, _) in self._files.items() if name not in pointed | partitions]
        return max(free, key=lambda file: (file.stored_size, file.name), default=None)

    def pointers(self) -> Iterator[Pointer]:
        """Those that a restore checks, between two different tables."""
        for entry in self._toc.of_kind("FK CONSTRAINT"):
            found = _KEY.search(entry.definition)
            if found is None or "NOT VALID" in found["rest"] or found["child"] == found["parent"]:
                continue
            child, parent = self._files.get(parts(found["child"])), self._files.get(parts(found["parent"]))
            if child and parent:
                of_child, of_parent = _places(child[1], found["columns"]), _places(parent[1], found["keys"])
                if of_child and of_parent:
                    yield Pointer(child[0], parent[0], of_child, of_parent)


def _places(entry: Entry, columns: str) -> tuple[int, ...] | None:
    """None if the dump does not hold one of them: it is generated."""
    found = _COPY.match(entry.copy)
    order = re.findall(_PART, found["columns"]) if found else []
    wanted = re.findall(_PART, columns)
    return tuple(map(order.index, wanted)) if {*wanted} <= {*order} else None


def _rows(lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        if line == _END:
            return
        yield line


def _values(line: bytes, places: tuple[int, ...]) -> Key:
    values = line.rstrip(b"\n").split(b"\t")
    return tuple(values[place] for place in places)
