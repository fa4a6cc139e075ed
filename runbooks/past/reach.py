"""Which tables of a dump a recovery has to see. From the dump's table of contents alone: nothing is restored yet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from runbooks.clients.dump_toc import Entry, Toc, parts
from runbooks.clients.restore_outlook import Target, foresee
from runbooks.model.errors import Refused

Name = tuple[str, ...]
"""Schema and table."""

_WORD = r'(?:"(?:[^"]|"")*"|[^\s".(),]+)'
_TABLE = rf"{_WORD}(?:\.{_WORD})?"
_COLUMNS = r'\((?:[^"()]|"(?:[^"]|"")*")*\)'
_FOREIGN_KEY = re.compile(
    rf"ALTER TABLE (?:ONLY )?(?P<child>{_TABLE})\s+ADD CONSTRAINT (?P<name>{_WORD}) FOREIGN KEY {_COLUMNS}"
    rf" REFERENCES (?P<parent>{_TABLE})\s*{_COLUMNS}(?P<rest>[^;]*);",
)
_ATTACH = re.compile(rf"ALTER TABLE (?:ONLY )?(?P<whole>{_TABLE}) ATTACH PARTITION (?P<part>{_TABLE})\s")
_TAKES_ALONG = re.compile(r"\bON DELETE (CASCADE|SET NULL|SET DEFAULT)\b")


@dataclass(frozen=True)
class Tie:
    """A foreign key."""

    name: str
    child: Name
    parent: Name
    follows: bool
    """A delete of the parent deletes the child, or clears its pointer."""


@dataclass(frozen=True)
class Reach:
    tables: frozenset[Name]
    """Those whose rows are needed, each partition too."""
    ties: tuple[Tie, ...]
    """The foreign keys between two of them."""


def reach(toc: Toc, named: Iterable[Name]) -> Reach:
    """What a recovery of rows of the `named` tables reads of the past. Pure.

    The tables that a delete reaches through foreign keys that cascade, or set NULL or a default, at any depth; and
    every table that points at one of these, as the survey tells which rows of it are lost too. Not what they point at
    themselves: whether such a row is there, production is asked. Partitions come with their table, and whatever a
    table is made of comes with its rows, so that no table is there and empty that was not empty.

    Refused if a foreign key is written in a way that is not understood.
    """
    ties = [_tie(entry) for entry in toc.of_kind("FK CONSTRAINT")]
    partitions = [_attached(entry) for entry in toc.of_kind("TABLE ATTACH")]
    reached = _closure(set(named), [(tie.parent, tie.child) for tie in ties if tie.follows])
    needed = reached | {tie.child for tie in ties if tie.parent in reached}
    while more := (_closure(needed, partitions) | _made_of(toc, needed)) - needed:
        needed |= more
    return Reach(frozenset(needed), tuple(tie for tie in ties if {tie.child, tie.parent} <= needed))


def spelled(name: Name) -> str:
    """As `parts` reads it."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name)


def _closure(start: set[Name], edges: Iterable[tuple[Name, Name]]) -> set[Name]:
    found, edges = set(start), list(edges)
    while more := {child for parent, child in edges if parent in found} - found:
        found |= more
    return found


def _made_of(toc: Toc, tables: set[Name]) -> set[Name]:
    """Tables that a restore of these brings along, for the type of a column say."""
    installable = frozenset(entry.name for entry in toc.of_kind("EXTENSION"))
    target = Target(superuser=True, neon=False, installable=installable)
    entries = foresee(toc, target, owners=False, tables=[spelled(name) for name in tables]).entries
    return {name for entry in entries if entry.kind == "TABLE" for name in _named(entry)}


def _named(entry: Entry) -> Iterator[Name]:
    if entry.schema is not None:
        yield entry.schema, entry.name


def _tie(entry: Entry) -> Tie:
    found = _FOREIGN_KEY.match(entry.definition.strip())
    if found is None:
        raise _strange(entry)
    follows = _TAKES_ALONG.search(found["rest"]) is not None
    return Tie(parts(found["name"])[0], parts(found["child"]), parts(found["parent"]), follows)


def _attached(entry: Entry) -> tuple[Name, Name]:
    found = _ATTACH.match(entry.definition.strip())
    if found is None:
        raise _strange(entry)
    return parts(found["whole"]), parts(found["part"])


def _strange(entry: Entry) -> Refused:
    return Refused(
        f"{entry} of the dump is written in a way that is not understood here",
        safe="nothing was fetched but the table of contents, and no database was touched",
        next_step="restore the backup whole, with backup.restore, and copy the rows from there",
    )
