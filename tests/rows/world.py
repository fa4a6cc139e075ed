"""A world: some tables, their past, an incident, and what the application did later; and the SQL that makes it so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Values: TypeAlias = tuple[str | None, ...]
"""Texts as each type's output function writes them (or as its input function reads them, before they are stored)."""
Action: TypeAlias = Literal["cascade", "set null", "set default", "no action", "restrict"]
Places: TypeAlias = tuple[int, ...]
"""Of columns in their table, counted from 0."""

OUTBOX = "outbox"
TOUCHED = "touched"


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    extra: str = ""
    """NOT NULL, GENERATED ..., CHECK ...; or serial."""
    default: str | None = None
    computed: bool = False
    """GENERATED ALWAYS AS ... STORED."""
    sequence: bool = False
    """An identity or a serial."""


@dataclass(frozen=True)
class Unique:
    columns: Places
    deferrable: bool = False
    when_set: int | None = None
    """A partial index: only of rows where this column is not null."""


@dataclass(frozen=True)
class Tie:
    """A foreign key."""

    name: str
    child: int
    child_columns: Places
    parent: int
    parent_columns: Places
    action: Action
    cleared: Places
    """Child columns that SET NULL or SET DEFAULT touches."""
    deferred: bool


@dataclass(frozen=True)
class Table:
    schema: str
    name: str
    columns: tuple[Column, ...]
    key: Places
    """Empty: nothing tells a row from its equal."""
    primary: bool
    """False: the key is a unique one whose columns are NOT NULL."""
    uniques: tuple[Unique, ...]
    partition: str | None
    """A PARTITION BY clause's kind and the bounds of each partition but the default one."""
    partitions: tuple[str, ...]
    audited: bool
    rows: tuple[Values, ...]
    """The past; of computed columns the value is left to the server."""

    @property
    def sql(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def written(self) -> Places:
        return tuple(place for place, column in enumerate(self.columns) if not column.computed)

    @property
    def touched(self) -> bool:
        return any(column.name == TOUCHED for column in self.columns)

    def named(self, places: Iterable[int]) -> str:
        return ", ".join(quoted(self.columns[place].name) for place in places)

    def types(self, places: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.columns[place].type for place in places)


@dataclass(frozen=True)
class World:
    tables: tuple[Table, ...]
    ties: tuple[Tie, ...]
    incident: tuple[str, ...]
    later: tuple[str, ...]
    asked: Places
    """Tables whose rows are asked for."""
    where: tuple[int, ...] | None
    """Only these rows (places in the past) of the one table asked for."""
    changed: bool
    until: bool
    """Whether the state after the damage is given too."""
    undone: bool
    """Whether the recovery is taken back afterwards, or carried out once more."""

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """What hypothesis prints of it: `script` is noted beside, which says it better."""
        printer.text("World(...)")

    @property
    def condition(self) -> str | None:
        """The WHERE of the request."""
        if self.where is None:
            return None
        table = self.tables[self.asked[0]]
        return same_keys(table, [table.rows[place] for place in self.where])

    @property
    def setup(self) -> str:
        """Statements for the owner of an empty database."""
        lines = [*_PREAMBLE]
        lines += [
            f"CREATE SCHEMA {quoted(name)};" for name in {table.schema: 0 for table in self.tables} if name != "public"
        ]
        for number, table in enumerate(self.tables):
            lines += _created(table, number)
        for tie in self.ties:
            lines.append(_tied(self, tie))
        for number, table in enumerate(self.tables):
            lines += _triggers(table, number)
        return "\n".join(lines)

    @property
    def script(self) -> str:
        """Everything, to be read and replayed by a person."""
        request = ", ".join(self.tables[place].sql for place in self.asked)
        parts = [
            "-- the past\n" + self.setup,
            "-- the incident (what a constraint forbids is skipped)\n"
            + "\n".join(f"{line};" for line in self.incident),
            f"-- later{', after --until' if self.until else ''}\n" + "\n".join(f"{line};" for line in self.later),
            f"-- recover {request}{' --changed' if self.changed else ''} where {self.condition}",
        ]
        return "\n".join(parts)


_PREAMBLE = (
    "SET search_path TO public;",
    "CREATE TYPE mood AS ENUM ('sad', 'a \"quoted\" one', 'ok');",
    "CREATE DOMAIN word AS text CHECK (value <> 'forbidden');",
    "CREATE TYPE pair AS (a text, b numeric);",
    f"CREATE TABLE {OUTBOX} (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);",
    "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS",
    f"  'BEGIN INSERT INTO {OUTBOX} (what) VALUES (TG_ARGV[0] || NEW::text); RETURN NULL; END';",
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS",
    f"  'BEGIN NEW.{TOUCHED} := coalesce(NEW.{TOUCHED}, 0) + 1; RETURN NEW; END';",
)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def literals(values: Iterable[str | None]) -> str:
    return ", ".join(map(literal, values))


def same_keys(table: Table, rows: Sequence[Values]) -> str:
    """A condition that picks the rows by their key (by every column that can be compared, where there is none)."""
    places = table.key or tuple(
        place for place in table.written if table.columns[place].type in ("int", "text", "boolean")
    )
    alike = (
        " AND ".join(
            f"{quoted(table.columns[place].name)} " + ("IS NULL" if row[place] is None else f"= {literal(row[place])}")
            for place in places
        )
        or "true"
        for row in rows
    )
    return " OR ".join(f"({each})" for each in alike) or "false"


def inserted(table: Table, rows: Sequence[Values], *, leaving_out: Places = ()) -> str:
    """An INSERT as the application writes it; what is left out, and what is computed, the server fills."""
    places = tuple(place for place in table.written if place not in leaving_out)
    if not places:
        return f"INSERT INTO {table.sql} DEFAULT VALUES"
    lines = ",\n  ".join(f"({literals(row[place] for place in places)})" for row in rows)
    return f"INSERT INTO {table.sql} ({table.named(places)}) OVERRIDING SYSTEM VALUE VALUES\n  {lines}"


def _created(table: Table, number: int) -> list[str]:
    parts = [_column(column) for column in table.columns]
    if table.key:
        parts.append(f"{'PRIMARY KEY' if table.primary else 'UNIQUE'} ({table.named(table.key)})")
    parts += [
        f"UNIQUE ({table.named(unique.columns)}){' DEFERRABLE' if unique.deferrable else ''}"
        for unique in table.uniques
        if unique.when_set is None
    ]
    by = f" PARTITION BY {table.partition} ({table.named(table.key[:1])})" if table.partition else ""
    lines = [f"CREATE TABLE {table.sql} (\n  " + ",\n  ".join(parts) + f"\n){by};"]
    lines += [
        f"CREATE TABLE {quoted(table.schema)}.{quoted(f'part {number}.{place}')} PARTITION OF {table.sql} {bounds};"
        for place, bounds in enumerate(table.partitions)
    ]
    lines += [
        f"CREATE UNIQUE INDEX ON {table.sql} ({table.named(unique.columns)})"
        f" WHERE {table.named([unique.when_set])} IS NOT NULL;"
        for unique in table.uniques
        if unique.when_set is not None
    ]
    if table.rows:
        lines.append(inserted(table, table.rows) + ";")
    lines += [
        f"SELECT setval(pg_get_serial_sequence({literal(table.sql)}, {literal(column.name)}), 20);"
        for column in table.columns
        if column.sequence
    ]
    return lines


def _column(column: Column) -> str:
    kind = "" if column.extra == "serial" else column.type  # serial stands for a type
    parts = [quoted(column.name), kind, column.extra]
    if column.default is not None:
        parts.append(f"DEFAULT {literal(column.default)}")
    return " ".join(part for part in parts if part)


def _tied(world: World, tie: Tie) -> str:
    child, parent = world.tables[tie.child], world.tables[tie.parent]
    some = ""
    if tie.action in ("set null", "set default") and tie.cleared != tie.child_columns:
        some = f" ({child.named(tie.cleared)})"
    return (
        f"ALTER TABLE {child.sql} ADD CONSTRAINT {quoted(tie.name)} FOREIGN KEY ({child.named(tie.child_columns)})"
        f" REFERENCES {parent.sql} ({parent.named(tie.parent_columns)}) ON DELETE {tie.action.upper()}{some}"
        f"{' DEFERRABLE INITIALLY DEFERRED' if tie.deferred else ''};"
    )


def _triggers(table: Table, number: int) -> list[str]:
    lines = []
    if table.audited:
        lines.append(
            f'CREATE TRIGGER "audit%s" AFTER INSERT ON {table.sql} FOR EACH ROW EXECUTE FUNCTION audit({number});'
        )
    if table.touched:
        lines.append(f"CREATE TRIGGER touch BEFORE UPDATE ON {table.sql} FOR EACH ROW EXECUTE FUNCTION touch();")
    return lines
