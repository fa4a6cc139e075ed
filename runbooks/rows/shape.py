"""What the catalogs say of a table, as frozen records that go into the journal as JSON."""

from __future__ import annotations

from typing import Literal

from psycopg import sql

from runbooks.model.record import Record
from runbooks.rows.names import TableName, shown


class Operator(Record):
    """An operator with its schema: found by name alone, `=` of citext would be the one of text."""

    namespace: str
    name: str

    @property
    def sql(self) -> sql.Composed:
        # An operator's name is not an identifier and cannot be quoted; the server admits only these signs in one.
        if set(self.name) - set("+-*/<>=~!@#%^&|`?"):
            raise ValueError(f"{self.name!r} is no operator")
        return sql.SQL("OPERATOR({}.{})").format(sql.Identifier(self.namespace), sql.SQL(self.name))


class Column(Record):
    name: str
    type: str
    """As `format_type` tells it, with schema and modifiers."""
    type_schema: str
    type_name: str
    not_null: bool
    has_default: bool
    """A default, an identity, or a nullable domain's default: something fills it when it is left out."""
    generated: str | None
    """The expression of a generated column."""
    always: bool
    """An identity that only the server gives: no UPDATE sets it."""
    parts: tuple[str, ...]
    """What its type is made of: each enum label, composite field and domain base, as a sentence."""

    @property
    def type_identifier(self) -> sql.Identifier:
        """The type without modifiers, to cast to."""
        return sql.Identifier(self.type_schema, self.type_name)


class UniqueKey(Record):
    """A unique index or exclusion constraint."""

    name: str
    primary: bool
    columns: tuple[str, ...]
    """Empty if any part of it is an expression."""
    equals: tuple[Operator, ...]
    """The equality of each column; empty if one has none (exclusion, without overlaps)."""
    partial: bool
    immediate: bool
    expressions: tuple[str, ...]
    """What it compares, as the server spells it: columns and expressions."""
    predicate: str | None
    """Of a partial one."""
    nulls_equal: bool
    """NULLS NOT DISTINCT: two NULLs are the same value."""

    @property
    def is_plain(self) -> bool:
        """Whether "is this value taken" can be asked with a plain comparison."""
        return bool(self.columns) and len(self.equals) == len(self.columns) and not self.partial


DIGEST, COPY = "bloom_dr_digest", "bloom_dr_copy"
"""Names that we give to what tells the rows of a table without a key apart."""
COPIES = UniqueKey(
    name="all columns",
    primary=False,
    columns=(DIGEST, COPY),
    equals=(Operator(namespace="pg_catalog", name="="), Operator(namespace="pg_catalog", name="=")),
    partial=False,
    immediate=True,
    expressions=(DIGEST, COPY),
    predicate=None,
    nulls_equal=False,
)
"""What stands for the key of a table without one: the MD5 of a row's text, and a number among the rows of that text.
No table has these columns; our own copies of its rows have them."""


def _made(name: str, kind: str) -> Column:
    return Column(
        name=name,
        type=kind,
        type_schema="pg_catalog",
        type_name=kind,
        not_null=True,
        has_default=False,
        generated=None,
        always=False,
        parts=(),
    )


_MADE = {DIGEST: _made(DIGEST, "text"), COPY: _made(COPY, "int8")}


def _own_rows(name: TableName, *, partitioned: bool) -> sql.Composed:
    return sql.SQL("{}" if partitioned else "ONLY {}").format(name.identifier)


class ForeignKey(Record):
    name: str
    child: TableName
    child_columns: tuple[str, ...]
    parent: TableName
    parent_columns: tuple[str, ...]
    equals: tuple[Operator, ...]
    """parent column = child column, one for each pair."""
    on_delete: Literal["no action", "restrict", "cascade", "set null", "set default"]
    cleared: tuple[str, ...]
    """The columns that SET NULL or SET DEFAULT touches."""
    on_partition: bool
    """Declared on a partition rather than on the partitioned table."""
    period: bool
    """Compares periods, not values."""
    child_partitioned: bool
    parent_partitioned: bool

    @property
    def child_rows(self) -> sql.Composed:
        """Those that it holds for, as an item of FROM."""
        return _own_rows(self.child, partitioned=self.child_partitioned)

    @property
    def parent_rows(self) -> sql.Composed:
        """Those that it can point at, as an item of FROM."""
        return _own_rows(self.parent, partitioned=self.parent_partitioned)

    def __str__(self) -> str:
        return f"{shown(self.name)} of {self.child}"


class Trigger(Record):
    """A trigger of the application that is enabled in an ordinary session."""

    table: TableName
    """The very relation it sits on: a partition has its own copy."""
    name: str
    fires: Literal["origin", "always"]
    timing: Literal["before", "after", "instead of"]
    events: tuple[Literal["insert", "update", "delete", "truncate"], ...]
    level: Literal["row", "statement"]
    function: str
    ours: bool
    """Whether our role may switch it off: it owns the table."""

    @property
    def label(self) -> str:
        return f"{self.table}.{shown(self.name)}"


class Sequence(Record):
    """A sequence that feeds a column: serial, identity, or a default with nextval."""

    name: TableName
    column: str
    increment: int
    least: int
    greatest: int
    cycles: bool
    integers: bool
    """Whether the column holds the sequence's numbers as they are."""
    ours: bool


class Table(Record):
    name: TableName
    oid: int
    kind: str
    """pg_class.relkind."""
    unlogged: bool
    temporary: bool
    is_partition: bool
    heirs: tuple[TableName, ...]
    """Tables that inherit from it, not as partitions: their rows show in a query for it, and are their own."""
    has_rules: bool
    hides_rows: bool
    """Row level security applies to our role."""
    owner: str
    ours: bool
    tree: tuple[int, ...]
    """Oids of the table itself and of all its partitions."""
    foreign_partitions: bool
    privileges: tuple[Literal["select", "insert", "update", "delete"], ...]
    columns: tuple[Column, ...]
    keys: tuple[UniqueKey, ...]
    parents: tuple[ForeignKey, ...]
    """Its own foreign keys."""
    children: tuple[ForeignKey, ...]
    """Foreign keys of other tables (or itself) that point here."""
    triggers: tuple[Trigger, ...]
    sequences: tuple[Sequence, ...]

    @property
    def rows(self) -> sql.Composed:
        """Its own rows, as an item of FROM: not those of tables that inherit from it, as foreign keys see it."""
        return _own_rows(self.name, partitioned=self.kind == "p")

    @property
    def row_key(self) -> UniqueKey | None:
        """What tells a row from all others: the primary key, or else the first unique key that no NULL gets around."""
        return next((key for key in self.keys if key.primary), None) or next(
            (key for key in self.keys if key.is_plain and key.immediate and self._filled(key.columns)), None
        )

    @property
    def keyless(self) -> bool:
        """Its rows are told apart by their text, and equal ones by a number: see COPIES."""
        return self.row_key is None

    @property
    def key(self) -> UniqueKey:
        """The row key, or what stands for it."""
        return self.row_key or COPIES

    @property
    def apart(self) -> tuple[str, ...]:
        """The columns that tell its rows apart where nobody changes them: without a key, where a row lies."""
        return self.row_key.columns if self.row_key else ("tableoid", "ctid")

    def _filled(self, names: tuple[str, ...]) -> bool:
        return all(self.column(name).not_null for name in names)

    def column(self, name: str) -> Column:
        return next((column for column in self.columns if column.name == name), None) or _MADE[name]

    def has(self, names: tuple[str, ...]) -> bool:
        return {column.name for column in self.columns}.issuperset(names)
