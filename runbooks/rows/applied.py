"""What a recovery did, table by table. Written to the journal."""

from __future__ import annotations

from runbooks.model.record import Record
from runbooks.rows.found import Conflict
from runbooks.rows.listed import Listed
from runbooks.rows.names import TableName
from runbooks.rows.sequences import SequenceMove


class AppliedTable(Record):
    name: TableName
    asked: int
    inserted: int
    already_there: int
    """By key: those the survey saw, and those that appeared since."""
    conflicts: tuple[Conflict, ...]
    """Those of the plan, and those that came up since."""

    @property
    def in_conflict(self) -> int:
        return sum(conflict.count for conflict in self.conflicts)

    @property
    def adds_up(self) -> bool:
        """Every row asked for is accounted for, once."""
        return self.asked == self.inserted + self.already_there + self.in_conflict


class AmendedTable(Record):
    """Rows that were there, and were set back or given a pointer again."""

    name: TableName
    foreign_key: str | None
    """The pointer; None if whole rows were set back."""
    planned: int
    done: int
    changed: Listed
    """Planned, but not as the plan saw them any more (or gone): they stay."""


class Applied(Record):
    run: str
    xid: int | None
    """The transaction (64 bits); None if there was nothing to write."""
    tables: tuple[AppliedTable, ...]
    amended: tuple[AmendedTable, ...]
    moves: tuple[SequenceMove, ...]
    undo: str | None
    """The undo file."""

    @property
    def inserted(self) -> int:
        return sum(table.inserted for table in self.tables)

    @property
    def set_back(self) -> int:
        """Rows that were there and are as they were again, wholly or in one pointer."""
        return sum(table.done for table in self.amended)
