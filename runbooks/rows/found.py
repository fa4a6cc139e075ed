"""What a survey finds: which rows are missing, and all that the plan must show of them. It goes into the journal."""

from __future__ import annotations

from collections.abc import Iterable

from runbooks.clients.postgres import Identity
from runbooks.model.record import Record
from runbooks.rows.fit import Difference
from runbooks.rows.names import AskedName, TableName
from runbooks.rows.sequences import SequenceNeed
from runbooks.rows.shape import Table


class Request(Record):
    """The tables to bring rows back to, and which of their rows are meant."""

    tables: tuple[AskedName, ...]
    where: str | None = None
    """A condition on the rows of every table asked for; None for all rows."""

    @classmethod
    def parse(cls, tables: Iterable[str], where: str | None = None) -> Request:
        """UsageFault for a text that is not a table's name. `where` is read by the server, in the survey."""
        return cls(tables=tuple(AskedName.parse(text) for text in tables), where=where)


class Conflict(Record):
    """Rows that are missing and cannot be brought back as they were."""

    table: TableName
    why: str
    count: int
    keys: tuple[str, ...]
    """The first of them, as record text: `(17)`, `(17,abc)`."""


class Loose(Record):
    """Rows of production that pointed at a found row and lost the pointer when it was deleted (SET NULL, SET DEFAULT).

    They are counted, not repaired.
    """

    table: TableName
    foreign_key: str
    columns: tuple[str, ...]
    count: int
    certain: bool
    """False if the rows cannot be looked up in production: then `count` is how many pointed there on the branch."""
    keys: tuple[str, ...]


class AlsoLost(Record):
    """Rows of a table that was not asked for, which pointed at found rows and are missing in production too."""

    table: TableName
    foreign_key: str
    count: int
    certain: bool


class Different(Record):
    """Rows asked for whose key is in production, with another content: changed since, or by now another thing's key."""

    table: TableName
    count: int
    keys: tuple[str, ...]


class FoundTable(Record):
    source: Table
    """As the branch has it."""
    target: Table
    """As production has it."""
    named: bool
    """Asked for by name; False: reached through ON DELETE CASCADE."""
    keys_table: str
    """Where on the branch the keys are kept, below our own schema."""
    asked_table: str | None
    """There too, the keys that a condition picked; None if all rows were asked for, or none."""
    asked: int
    """Rows on the branch that are meant."""
    already_there: int
    """Of these, in production by key."""
    compared: bool
    """Whether the content of those already there was compared with the past: not where they are very many."""
    missing: int
    """Of these, to be inserted."""
    in_conflict: int
    """Of these, missing but in the way of something: see the conflicts."""
    key_checksum: str
    """Over the keys of the missing rows, whatever their order."""
    size: int
    """Bytes of the missing rows, about."""
    samples: tuple[str, ...]
    sequences: tuple[SequenceNeed, ...]
    differences: tuple[Difference, ...]
    """Harmless ones: columns that production has in addition."""
    unchecked: tuple[str, ...]
    """Unique indexes (partial, on expressions, exclusion) that only the insert itself will check."""

    @property
    def name(self) -> TableName:
        return self.target.name


class Found(Record):
    production: Identity
    branch: Identity
    where: str | None
    tables: tuple[FoundTable, ...]
    conflicts: tuple[Conflict, ...]
    different: tuple[Different, ...]
    loose: tuple[Loose, ...]
    also_lost: tuple[AlsoLost, ...]

    @property
    def missing(self) -> int:
        return sum(table.missing for table in self.tables)

    def conflicts_of(self, name: TableName) -> tuple[Conflict, ...]:
        return tuple(conflict for conflict in self.conflicts if conflict.table == name)
