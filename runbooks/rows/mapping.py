"""The operator's `--map`: how rows of the past fit a table that was altered since.

["public.orders"]
columns = { note = "remark", legacy = "" }   # then = "now"; "" leaves the values behind
values = { status = { void = "cancelled" } } # of a column, by its name of then
new = { channel = "web" }                    # a value for a column that did not exist
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from collections.abc import Mapping as Dictionary
from pathlib import Path

from psycopg import sql
from pydantic import ValidationError

from runbooks.model.errors import UsageFault
from runbooks.model.record import Record
from runbooks.rows.names import TableName
from runbooks.rows.shape import Column, Table


class _Entry(Record):
    columns: Dictionary[str, str] = {}
    values: Dictionary[str, Dictionary[str, str]] = {}
    new: Dictionary[str, str] = {}


class TableMap(Record):
    """The map of one table."""

    table: str
    columns: tuple[tuple[str, str], ...] = ()
    values: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    new: tuple[tuple[str, str], ...] = ()

    def renamed(self, name: str) -> str | None:
        """What a column of the past is called now; None if its values are left behind."""
        return dict(self.columns).get(name, name) or None

    def fit(self, source: Table, target: Table) -> Table:
        """The past's table with the names and types of now, as far as the map tells. UsageFault if it names what is not
        there, or would alter what tells rows apart or connects them.
        """
        self._check(source, target)
        accepted = {name for name, _ in self.columns} | {name for name, _ in self.values}
        columns = [
            self._column(column, target, accepted=column.name in accepted)
            for column in source.columns
            if self.renamed(column.name)
        ]
        columns += [target.column(name) for name, _ in self.new]
        return source.model_copy(update={"columns": tuple(columns)})

    def _column(self, column: Column, target: Table, *, accepted: bool) -> Column:
        name = self.renamed(column.name)
        assert name is not None
        if not accepted or not target.has((name,)):
            return column.model_copy(update={"name": name})
        now = target.column(name)
        # Whether the values fit the other type is proved by the insert: each row has to read as it did.
        return now if now.generated is None and column.generated is None else column.model_copy(update={"name": name})

    def _check(self, source: Table, target: Table) -> None:
        for name in (*dict(self.columns), *dict(self.values)):
            if not source.has((name,)):
                raise map_fault(f"{self.table} had no column {name}")
            if name in _joints(source):
                raise map_fault(
                    f"column {name} of {self.table} is part of a key or a foreign key, which cannot be mapped"
                )
        for given in (*(now for _, now in self.columns if now), *dict(self.new)):
            if not target.has((given,)):
                raise map_fault(f"{self.table} has no column {given} now")
        renamed = [self.renamed(column.name) for column in source.columns]
        names = [*(each for each in renamed if each), *dict(self.new)]
        double = sorted({each for each in names if names.count(each) > 1})
        if double:
            raise map_fault(f"{self.table}: two values for column {', '.join(double)}")

    def values_now(self) -> Iterator[tuple[str, str]]:
        """Column of now and value, for every value that the map gives."""
        for column, pairs in self.values:
            name = self.renamed(column)
            yield from ((name, now) for _, now in pairs if name)
        yield from self.new

    def expressions(self, source: Table, alias: str) -> tuple[tuple[str, sql.Composable], ...]:
        """Of each column of now, how its value is made from a row `alias` of the past (the unmapped `source`)."""
        values = dict(self.values)
        made: list[tuple[str, sql.Composable]] = []
        for column in source.columns:
            name = self.renamed(column.name)
            if name:
                made.append((name, _translated(sql.Identifier(alias, column.name), values.get(column.name, ()))))
        return (*made, *((name, sql.SQL("{}::text").format(value)) for name, value in self.new))


class Mapping(Record):
    tables: tuple[TableMap, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Mapping:
        """Read the TOML above. UsageFault for anything else."""
        try:
            found = {name: _Entry.model_validate(entry) for name, entry in tomllib.loads(text).items()}
        except tomllib.TOMLDecodeError as error:
            raise map_fault(str(error)) from error
        except ValidationError as error:
            first = error.errors()[0]
            raise map_fault(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        return cls(
            tables=tuple(
                TableMap(
                    table=name,
                    columns=tuple(entry.columns.items()),
                    values=tuple((column, tuple(pairs.items())) for column, pairs in entry.values.items()),
                    new=tuple(entry.new.items()),
                )
                for name, entry in found.items()
            )
        )

    @classmethod
    def read(cls, path: str) -> Mapping:
        """UsageFault if the file cannot be read."""
        try:
            return cls.parse(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise map_fault(f"{path} cannot be read: {error}") from error

    def of(self, name: TableName) -> TableMap | None:
        return next((entry for entry in self.tables if entry.table == str(name)), None)


def _joints(table: Table) -> set[str]:
    """Columns of keys and foreign keys."""
    ties = [tie.child_columns for tie in table.parents] + [tie.parent_columns for tie in table.children]
    return {name for names in (*(key.columns for key in table.keys), *ties) for name in names}


def _translated(value: sql.Identifier, pairs: tuple[tuple[str, str], ...]) -> sql.Composable:
    if not pairs:
        return value
    cases = sql.SQL(" ").join(sql.SQL("WHEN {} THEN {}").format(then, now) for then, now in pairs)
    # As text: a label of now may not exist in the past's type.
    return sql.SQL("CASE {value}::text {cases} ELSE {value}::text END").format(value=value, cases=cases)


def map_fault(why: str) -> UsageFault:
    """The map cannot be used."""
    return UsageFault(
        f"the map does not fit: {why}",
        safe="nothing was changed",
        next_step='write it as TOML: ["public.orders"], then columns = { then = "now" }, values = { status = { void = '
        '"cancelled" } }, new = { channel = "web" }',
    )
