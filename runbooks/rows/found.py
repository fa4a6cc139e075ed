"""What a survey finds: which rows are missing, and all that the plan must show of them. It goes into the journal."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from runbooks.clients.postgres import Identity
from runbooks.model.record import Record
from runbooks.rows.compose import scratch
from runbooks.rows.decisions import ConflictRow, Decisions, Kind
from runbooks.rows.fit import Difference
from runbooks.rows.mapping import Mapping
from runbooks.rows.names import AskedName, TableName
from runbooks.rows.sequences import SequenceNeed
from runbooks.rows.shape import Table

_HEIRS = 3
"""So many tables that inherit from one are named."""


class Request(Record):
    """The tables to bring rows back to, and which of their rows are meant."""

    tables: tuple[AskedName, ...]
    where: str | None = None
    """A condition on the rows of every table asked for; None for all rows."""

    changed: bool = False
    """Whether rows that are there with other content are meant too."""
    mapping: Mapping = Mapping()
    decisions: Decisions = Decisions()
    accept_keyless: tuple[str, ...] = ()
    """Tables without a key whose missing rows come back although some may have been edited rather than lost."""

    @classmethod
    def parse(
        cls,
        tables: Iterable[str],
        where: str | None = None,
        *,
        changed: bool = False,
        mapping: Mapping | None = None,
        decisions: Decisions | None = None,
        accept_keyless: Iterable[str] = (),
    ) -> Request:
        """UsageFault for a text that is not a table's name. `where` is read by the server, in the survey."""
        return cls(
            tables=tuple(AskedName.parse(text) for text in tables),
            where=where,
            changed=changed,
            mapping=mapping or Mapping(),
            decisions=decisions or Decisions(),
            accept_keyless=tuple(str(AskedName.parse(text)) for text in accept_keyless),
        )


class Conflict(Record):
    """Rows that are missing and cannot be brought back as they were."""

    table: TableName
    kind: Kind
    why: str
    settled: bool
    """A person decided that they stay away."""
    count: int
    keys: tuple[str, ...]
    """The first of them, as record text: `(17)`, `(17,abc)`."""


class Loose(Record):
    """Rows of production that pointed at a found row, lost the pointer when it was deleted (SET NULL, SET DEFAULT), and
    do not get it back.
    """

    table: TableName
    foreign_key: str
    columns: tuple[str, ...]
    why: str
    settled: bool
    """A person has set them to something else since: a fact, nothing left open."""
    count: int
    certain: bool
    """False if the rows cannot be looked up in production: then `count` is how many pointed there on the branch."""
    keys: tuple[str, ...]


class Amendment(Record):
    """Rows of production, there under their key, of which columns are set to what they were.

    The branch keeps them below our schema in `rows_table`: k1, k2, ... (key), v1, v2, ... (`columns`), and `seen`, the
    MD5 of what production must have in the columns `guarded` for a row to be touched.
    """

    target: Table
    source: Table
    rows_table: str
    foreign_key: str | None
    """The pointer that is set again; None if whole rows are set back."""
    columns: tuple[str, ...]
    guarded: tuple[str, ...]
    count: int
    checksum: str
    samples: tuple[str, ...]

    @property
    def name(self) -> TableName:
        return self.target.name

    @property
    def written(self) -> tuple[str, ...]:
        """The columns that can be set; the others are made by the server, and only compared."""
        fixed = {column.name for column in self.target.columns if column.generated is not None or column.always}
        return tuple(name for name in self.columns if name not in fixed)


class AlsoLost(Record):
    """Rows of a table that was not asked for, which pointed at found rows and are missing in production too."""

    table: TableName
    foreign_key: str
    count: int
    certain: bool


class Different(Record):
    """Rows asked for whose key is in production, with another content."""

    table: TableName
    kind: Kind | None
    """Why nobody but a person can decide; None if it was not asked for, or edited after the damage only: a fact."""
    why: str
    settled: bool
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
    past_view: str | None
    """There too, its rows as they are to come back; None if that is as they were. Always, if it has no key."""
    accepted: bool
    """It has no key, and its missing rows come back although some may have been edited rather than lost."""
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
    set_back: int
    """Of those already there, to be set back to what they were."""
    replaced: int
    """Of these, rows under whose key there is something else now: it is overwritten, as a person decided."""
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

    @property
    def keyless(self) -> bool:
        """Its rows are copies: of each text as many as there were."""
        return self.target.keyless

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of it before its rows come back."""
        found = []
        if self.accepted and self.missing:
            found.append(
                "it has no key, and was accepted: a row that was only edited comes back beside what became of it"
            )
        if self.target.heirs:
            heirs = ", ".join(map(str, self.target.heirs[:_HEIRS])) + (" ..." if self.target.heirs[_HEIRS:] else "")
            found.append(f"only its own rows are meant; those of the tables that inherit from it are theirs: {heirs}")
        return tuple(found)

    @property
    def past(self) -> sql.Composable:
        """Where on the branch its rows are read, with the columns of now."""
        return scratch(self.past_view) if self.past_view else self.source.rows


class Found(Record):
    production: Identity
    branch: Identity
    where: str | None
    changed: bool
    tables: tuple[FoundTable, ...]
    conflicts: tuple[Conflict, ...]
    different: tuple[Different, ...]
    unfitting: int
    """Decisions on a row that fit nothing: it is no conflict any more, or not as it was when it was decided."""
    conflict_rows: tuple[ConflictRow, ...]
    """Conflicts row by row, the first of them."""
    amendments: tuple[Amendment, ...]
    loose: tuple[Loose, ...]
    also_lost: tuple[AlsoLost, ...]

    @property
    def missing(self) -> int:
        return sum(table.missing for table in self.tables)

    @property
    def amended(self) -> int:
        """Rows of production that are changed: set back, or given their pointer again."""
        return sum(amendment.count for amendment in self.amendments)

    @property
    def undecided(self) -> int:
        """Conflicts that a person may decide."""
        missing = sum(one.count for one in self.conflicts if not one.settled)
        return missing + sum(one.count for one in self.different if one.kind and not one.settled)

    def conflicts_of(self, name: TableName) -> tuple[Conflict, ...]:
        return tuple(conflict for conflict in self.conflicts if conflict.table == name)
