"""Find the missing rows on the branch: those asked for, and those that ON DELETE CASCADE took with them.

The keys found stay in a table of ours on the branch, so that the plan and its execution mean the very same rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import LiteralString

from psycopg import errors, sql

from runbooks.clients.postgres import Connection
from runbooks.clients.postgres_faults import said
from runbooks.model.errors import NotFound, Refused
from runbooks.rows import copies, states, wanted
from runbooks.rows.catalog import describe
from runbooks.rows.compose import fields, key_types, numbered, points_at, same_key, same_numbers, scratch
from runbooks.rows.decisions import Decisions
from runbooks.rows.filters import select_matching
from runbooks.rows.fit import check_recoverable, common_columns
from runbooks.rows.mapping import Mapping, map_fault
from runbooks.rows.names import TableName
from runbooks.rows.presence import Lookup, Snapshot, by_key, find_present
from runbooks.rows.shape import Column, ForeignKey, Table

_SAFE = "production was only read"


@dataclass(frozen=True)
class Involved:
    """A table whose rows are searched for; `found` on the branch has k1, k2, ... and what became of the row (`states`),
    with the kind and reason of a conflict, and `seen`, the MD5 of the row that is there with other content.
    """

    source: Table
    """As the branch has it, with the names and types that a map gives it."""
    target: Table
    found_name: str
    named: bool
    """Asked for; False: only a cascade led to it."""
    matching: int
    """Rows on the branch that were asked for."""
    filter_name: str | None = None
    """A table of ours with their keys; None if all rows were asked for, or none."""
    view_name: str | None = None
    """A view of ours on its rows as they are to come back; None if that is as they were. Of a table without a key, a
    table of ours with those that are concerned: see `copies`."""

    @property
    def found(self) -> sql.Identifier:
        return scratch(self.found_name)

    @property
    def past(self) -> sql.Composable:
        """Its rows on the branch, with the columns of now."""
        return scratch(self.view_name) if self.view_name else self.source.rows

    @property
    def then(self) -> sql.Composable:
        """Its rows on the branch, with what tells them apart and connects them."""
        return self.past if self.target.keyless else self.source.rows

    @property
    def compared(self) -> tuple[str, ...]:
        """The columns that both sides have."""
        return tuple(column.name for column in common_columns(self.source, self.target))

    @property
    def filter(self) -> sql.Identifier | None:
        return scratch(self.filter_name) if self.filter_name else None

    @property
    def k(self) -> tuple[str, ...]:
        return numbered(len(self.source.key.columns))

    @property
    def whole(self) -> bool:
        """All rows were asked for."""
        return self.named and self.filter is None

    @property
    def asked_keys(self) -> sql.Composed:
        """A query for the keys asked for, k1, k2, ...; before any cascade was followed."""
        if self.filter and not self.target.keyless:
            return sql.SQL("SELECT {} FROM {}").format(fields(None, self.k), self.filter)
        columns = fields("t", self.source.key.columns, renamed=self.k)
        return sql.SQL("SELECT {} FROM {} AS t").format(columns, self.then)

    def is_known(self, row: str) -> sql.Composed:
        """Row `row` on the branch was looked at."""
        if self.target.keyless:
            return copies.is_kept(self.past, row)
        return sql.SQL("EXISTS (SELECT FROM {} AS x WHERE {})").format(self.found, same_key("x", self.source.key, row))

    def is_asked(self, row: str) -> sql.Composable:
        """Row `row` on the branch is one of those that a condition picked."""
        if self.filter is None or self.target.keyless:
            return sql.SQL("false")
        return sql.SQL("EXISTS (SELECT FROM {} AS x WHERE {})").format(self.filter, same_key("x", self.source.key, row))


@dataclass
class Search:
    """One search: its two sides, and the tables it has come across so far."""

    branch: Connection
    snapshot: Snapshot
    progress: Callable[[str], None] | None = None
    changed: bool = False
    """Whether rows that are there with other content are meant too."""
    mapping: Mapping = field(default_factory=Mapping)
    decisions: Decisions = field(default_factory=Decisions)
    involved: dict[TableName, Involved] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def asked(self, names: tuple[TableName, ...], where: str | None) -> None:
        """Take up the tables asked for, and which of their rows. Checks all of them before it looks at any row."""
        pairs = [self._pair(name) for name in names]
        for source, target in pairs:
            check_recoverable(self._fitted(source, target), target, changed=self.changed)
        for source, target in pairs:
            self._asked_for(source, target, where)

    def find_missing(self, table: Involved) -> None:
        """Note the rows asked for that production lacks."""
        lookup = by_key(table.source, table.target, table.target.key, table.asked_keys)
        with self.present(lookup, table.matching, f"keys of {table.target.name}") as present:
            self.run(
                "INSERT INTO {found} ({k}, state, round, cascaded) SELECT {v}, 'missing', 0, false"
                " FROM ({asked}) AS v WHERE NOT EXISTS (SELECT FROM {present} AS p WHERE {same})",
                found=table.found,
                k=fields(None, table.k),
                v=fields("v", table.k),
                asked=table.asked_keys,
                present=present,
                same=same_numbers("p", table.target.key, "v"),
            )
        self.run("ANALYZE {found}", found=table.found)

    def _asked_for(self, source: Table, target: Table, where: str | None) -> None:
        if where is None:
            self._involve(source, target, named=True, matching=self.count(source.rows))
            self._keep_copies(target.name, None)
            return
        number = next(self._numbers)
        name, view = f"asked_{number}", scratch(f"asked_view_{number}")
        matching = select_matching(self.branch, source, where, scratch(name), view)
        self._involve(source, target, named=True, matching=matching, filter_name=name)
        self._keep_copies(target.name, scratch(name))

    def _involve(
        self, source: Table, target: Table, *, named: bool, matching: int, filter_name: str | None = None
    ) -> Involved:
        number = next(self._numbers)
        view = self._view(number, source, target)
        fitted = self._fitted(source, target)
        if view and not target.keyless:
            # What the server makes of other values than they were is not what it was.
            made = tuple(column for column in fitted.columns if column.generated is None)
            fitted = fitted.model_copy(update={"columns": made})
        table = Involved(fitted, target, f"found_{number}", named, matching, filter_name, view)
        # Not unlogged: the branch's compute may go to sleep before the plan is carried out, and would empty it.
        self.run(
            "CREATE TABLE {found} AS SELECT {key}, ''::text AS state, 0 AS round, false AS cascaded,"
            " NULL::text AS kind, NULL::text AS why, false AS settled, NULL::text AS seen"
            " FROM {source} AS t WHERE false",
            found=table.found,
            key=key_types("t", source.key),
            source=source.rows,
        )
        self.run("ALTER TABLE {found} ALTER settled SET DEFAULT false", found=table.found)
        self.involved[target.name] = table
        return table

    def _view(self, number: int, source: Table, target: Table) -> str | None:
        mapped, decided = self.mapping.of(source.name), self.decisions.of(source.name).rows
        if not target.keyless:
            return wanted.create(self.branch, number, source, mapped, decided)
        wanted.refuse_set(source, decided)
        name = f"copies_{number}"
        copies.create(self.branch, scratch(name), source, wanted.values(source, mapped))
        return name

    def _keep_copies(self, name: TableName, places: sql.Identifier | None) -> None:
        """Of a table without a key, keep the rows that lie at `places` (None: all)."""
        table = self.involved[name]
        if table.target.keyless:
            source = describe(self.branch, name)
            assert source is not None
            values = wanted.values(source, self.mapping.of(name))
            copies.keep(self.branch, table.past, source, values, table.compared, places)

    def cascades(self) -> None:
        """Find the rows that pointed at found rows through ON DELETE CASCADE, at any depth, and are missing too."""
        for depth in itertools.count(1):
            ties = self.ties_to_found(("cascade",))
            if not sum(self._cascade(parent, tie, depth) for parent, tie in ties):
                return

    def _cascade(self, parent: Involved, tie: ForeignKey, depth: int) -> int:
        """Look at the children of the rows found one round before; how many were not looked at yet."""
        child = self.involved.get(tie.child)
        recent = sql.SQL("f.round = {}").format(depth - 1)
        if child is None:
            if not self.count_pointing(parent, tie, recent):
                return 0
            source, target = self._pair(tie.child)
            because = f"rows of it were deleted too, through foreign key {tie}; "
            check_recoverable(self._fitted(source, target), target, because=because)
            child = self._involve(source, target, named=False, matching=0)
        if child.whole:
            return 0
        unknown = sql.SQL("{} AND NOT {} AND NOT {}").format(recent, child.is_known("c"), child.is_asked("c"))
        with self.candidates(self.pointing(parent, tie, child.source.apart, unknown)) as (rows, many):
            if many and child.target.keyless:
                self._keep_copies(child.target.name, rows)
                with self.candidates(copies.keys_at(child.past, rows)) as (keys, _):
                    self._sort_out(child, keys, many, depth)
            elif many:
                self._sort_out(child, rows, many, depth)
            return many

    def take_up(self, name: TableName, keys: sql.Composed) -> None:
        """Look at rows of a table by their keys (k1, k2, ...), whether or not anything leads to them."""
        table = self.involved.get(name)
        if table is None:
            source, target = self._pair(name)
            check_recoverable(self._fitted(source, target), target, because="decisions name rows of it; ")
            table = self._involve(source, target, named=False, matching=0)
        if table.whole or table.target.keyless:
            return
        query = sql.SQL(
            "SELECT {} FROM {} AS t WHERE EXISTS (SELECT FROM ({}) AS d WHERE {}) AND NOT {} AND NOT {}"
        ).format(
            fields("t", table.source.key.columns, renamed=table.k),
            table.source.rows,
            keys,
            same_key("d", table.source.key, "t"),
            table.is_known("t"),
            table.is_asked("t"),
        )
        with self.candidates(query) as (rows, many):
            if many:
                self._sort_out(table, rows, many, 0)

    def _sort_out(self, child: Involved, rows: sql.Identifier, many: int, depth: int) -> None:
        keys = sql.SQL("SELECT {} FROM {} AS c").format(fields("c", child.k), rows)
        lookup = by_key(child.source, child.target, child.target.key, keys)
        with self.present(lookup, many, f"rows of {child.target.name} that a cascade deleted") as present:
            # Two joins: an EXISTS in the select list would be run once for each row.
            there = sql.SQL("EXISTS (SELECT FROM {} AS p WHERE {})").format(
                present, same_numbers("p", child.target.key, "c")
            )
            self.run(
                "INSERT INTO {found} ({k}, state, round, cascaded)"
                " SELECT {c}, 'there', {depth}, true FROM {rows} AS c WHERE {there}"
                " UNION ALL SELECT {c}, 'missing', {depth}, true FROM {rows} AS c WHERE NOT {there}",
                found=child.found,
                k=fields(None, child.k),
                c=fields("c", child.k),
                depth=sql.Literal(depth),
                rows=rows,
                there=there,
            )
        self.run("ANALYZE {found}", found=child.found)

    def pointing(
        self,
        parent: Involved,
        tie: ForeignKey,
        columns: tuple[str, ...],
        condition: sql.Composable,
        which: tuple[str, ...] = states.RETURNING,
    ) -> sql.Composed:
        """The rows `c` on the branch that point at rows `f` of `parent` in a state: their `columns` as k1, k2, ..."""
        return sql.SQL("SELECT {} FROM {}").format(
            fields("c", columns, renamed=numbered(len(columns))), self._joined(parent, tie, condition, which)
        )

    def count_pointing(
        self, parent: Involved, tie: ForeignKey, condition: sql.Composable, which: tuple[str, ...] = states.RETURNING
    ) -> int:
        return self.count(self._joined(parent, tie, condition, which))

    def _joined(
        self, parent: Involved, tie: ForeignKey, condition: sql.Composable, which: tuple[str, ...]
    ) -> sql.Composed:
        return sql.SQL("{} AS c JOIN {} AS p ON {} JOIN {} AS f ON {} WHERE {} AND {}").format(
            tie.child_rows,
            parent.then,
            points_at("c", tie, "p"),
            parent.found,
            same_key("f", parent.source.key, "p"),
            states.among(which),
            condition,
        )

    @contextmanager
    def candidates(self, query: sql.Composed) -> Iterator[tuple[sql.Identifier, int]]:
        """The rows of `query` in a table that lasts for the block, and how many they are."""
        rows = scratch(f"candidates_{next(self._numbers)}")
        cursor = self.run("CREATE UNLOGGED TABLE {rows} AS {query}", rows=rows, query=query)
        yield rows, cursor
        self.run("DROP TABLE {rows}", rows=rows)

    @contextmanager
    def present(self, lookup: Lookup, many: int, what: str) -> Iterator[sql.Identifier]:
        """A table that lasts for the block, with those of the `many` candidates that production has."""
        rows = scratch(f"present_{next(self._numbers)}")
        self.run("DROP TABLE IF EXISTS {rows}", rows=rows)  # a proof that was killed leaves one
        find_present(
            self.snapshot,
            self.branch,
            lookup,
            into=rows,
            many=many,
            progress=lambda done, expected: self.tell(f"{what}: {done:,} of about {max(done, expected):,}"),
        )
        yield rows
        self.run("DROP TABLE {rows}", rows=rows)

    def ties_to_found(self, actions: tuple[str, ...]) -> list[tuple[Involved, ForeignKey]]:
        """Foreign keys with one of these actions on delete, and the table searched that they point at."""
        return [
            (parent, tie) for parent in self.involved.values() for tie in self._ties(parent) if tie.on_delete in actions
        ]

    def _ties(self, parent: Involved) -> Iterator[ForeignKey]:
        """Foreign keys that point at a table: those of the past, and those that production has since, as far as the
        past has their columns. A migration may have changed one and then deleted.
        """
        yield from parent.source.children
        known = {_acts(tie) for tie in parent.source.children}
        for tie in parent.target.children:
            if _acts(tie) not in known and parent.source.has(tie.parent_columns):
                child = describe(self.branch, tie.child)
                if child and child.has(tie.child_columns):
                    yield tie

    def tell(self, text: str) -> None:
        if self.progress:
            self.progress(text)

    def pair(self, name: TableName) -> tuple[Table, Table | None]:
        """A table as the branch has it, and as production has it, if it does."""
        known = self.involved.get(name)
        if known:
            return known.source, known.target
        source = describe(self.branch, name)
        if source is None:
            raise NotFound(
                f"there is no table {name} on the branch",
                safe=_SAFE,
                next_step="choose an earlier or later moment, when the table existed",
            )
        return source, describe(self.snapshot.production, name)

    def in_production(self, name: TableName) -> Table:
        known = self.involved.get(name)
        target = known.target if known else describe(self.snapshot.production, name)
        if target is None:
            raise NotFound(
                f"there is no table {name} in production", safe=_SAFE, next_step="run the same command again"
            )
        return target

    def number(self) -> int:
        """A number that no table of ours on the branch has yet."""
        return next(self._numbers)

    def check_map(self) -> None:
        """UsageFault if production's types do not take a value that the map gives."""
        for entry in self.mapping.tables:
            target = next(
                (table.target for table in self.involved.values() if str(table.target.name) == entry.table), None
            )
            if target:
                for column, value in entry.values_now():
                    self._require_value(target.column(column), value)

    def _require_value(self, column: Column, value: str) -> None:
        kind = sql.SQL(column.type)  # spelled and quoted by the server
        try:
            with self.snapshot.production.transaction():
                found = self.snapshot.production.execute(
                    sql.SQL("SELECT concat({}::{})").format(value, kind)
                ).fetchone()
        except errors.Error as error:
            if isinstance(error, errors.OperationalError):
                raise
            raise map_fault(f"{column.name} does not take {value!r}: {said(error)}") from error
        if found != (value,):
            raise map_fault(f"{column.name} would hold {found and found[0]!r}, not {value!r}; write it so")

    def _fitted(self, source: Table, target: Table) -> Table:
        mapped = self.mapping.of(source.name)
        return mapped.fit(source, target) if mapped else source

    def _pair(self, name: TableName) -> tuple[Table, Table]:
        source, target = self.pair(name)
        if target is None:
            raise Refused(
                f"table {name} is not in production any more, or our role cannot see it",
                safe=_SAFE,
                next_step=f"bring the table itself back first (`pg_dump --schema-only --table '{name}'` on the branch "
                "prints its definition), then run the same command again",
            )
        return source, target

    def count(self, rows: sql.Composable) -> int:
        row = self.branch.execute(sql.SQL("SELECT count(*) FROM {}").format(rows)).fetchone()
        return int(row[0]) if row else 0

    def run(self, text: LiteralString, **parts: sql.Composable | None) -> int:
        """Run a statement on the branch; the number of rows it touched."""
        return self.branch.execute(sql.SQL(text).format(**parts)).rowcount


def _acts(tie: ForeignKey) -> tuple[object, ...]:
    """What a delete does through a foreign key, whatever it is called."""
    return tie.child, tie.child_columns, tie.parent_columns, tie.on_delete, tie.cleared
