"""What held before a loss and does not hold since: rows of a table that were there, or a question in SQL."""

from __future__ import annotations

from psycopg import sql

from runbooks.clients.postgres import Connection, translated
from runbooks.model.errors import NotFound, UsageFault
from runbooks.model.record import Record
from runbooks.rows.catalog import resolve
from runbooks.rows.filters import answer, count_matching
from runbooks.rows.names import AskedName, TableName

_START = "invoke recover.find --since MOMENT --tables clients --where \"city = 'Oaxaca'\" (or --dropped-by 9, or --sql)"


class Reading(Record):
    """What a database said at one moment."""

    table: str | None = None
    """The very table that was looked at, with its schema."""
    rows: int | None = None
    """How many rows there are, or fit; 0 if the table is not there. None for a question in SQL."""
    said: bool | None = None
    """The answer to a question in SQL."""

    def __str__(self) -> str:
        return f"{self.rows:,} rows" if self.rows is not None else str(self.said).lower()


class Predicate(Record):
    """Either rows of a table, or `sql`."""

    table: AskedName | None = None
    where: str | None = None
    """A condition on the rows that are counted; None: all of the table."""
    dropped_by: int = 1
    """It holds while fewer rows than these are gone."""
    sql: str | None = None

    @classmethod
    def parse(cls, tables: str, where: str, dropped_by: str, sql: str) -> Predicate:
        """From the command line. UsageFault unless it is exactly one of the kinds."""
        if sql:
            if tables or where or dropped_by:
                raise _unclear("--sql is a question of its own: it goes without --tables, --where and --dropped-by")
            return cls(sql=sql)
        if not tables:
            raise _unclear("a search needs to know what was there before: --tables or --sql")
        if not where and not dropped_by:
            raise _unclear("of a table it has to be known which rows are gone (--where) or how many (--dropped-by)")
        if dropped_by and not (dropped_by.isascii() and dropped_by.isdecimal() and int(dropped_by)):
            raise _unclear(f"--dropped-by {dropped_by!r} is not a number of rows")
        return cls(table=AskedName.parse(tables), where=where or None, dropped_by=int(dropped_by or 1))

    def __str__(self) -> str:
        """As it would be said while it holds."""
        if self.table is None:
            return f"true: {self.sql}"
        fitting = f" that fit {self.where!r}" if self.where else ""
        fewer = "not fewer" if self.dropped_by == 1 else f"less than {self.dropped_by:,} fewer"
        return f"{fewer} rows of {self.table}{fitting} than at the beginning"

    def read(self, session: Connection, first: Reading | None) -> Reading:
        """Ask the database; `first` is what was read where it should hold, None when that is read now.

        The session may be read-only. A table that is missing has no rows, except in the first reading: that is
        NotFound. UsageFault for SQL that is no condition or question: see `rows.filters`.
        """
        if self.sql is not None:
            return Reading(said=answer(session, self.sql))
        table = self._table(session, first)
        if table is None:
            return Reading(table=first and first.table, rows=0)
        rows = count_matching(session, table, self.where) if self.where else _count(session, table)
        return Reading(table=str(table), rows=rows)

    def holds(self, reading: Reading, first: Reading) -> bool:
        """Whether it held at that moment; pure."""
        if reading.rows is None or first.rows is None:
            return bool(reading.said)
        return reading.rows > first.rows - self.dropped_by and first.rows >= self.dropped_by

    def _table(self, session: Connection, first: Reading | None) -> TableName | None:
        asked = AskedName.parse(first.table) if first and first.table else self.table
        assert asked is not None
        try:
            (table,) = resolve(session, (asked,))
        except NotFound:
            if first is None:
                raise
            return None
        return table


def _count(session: Connection, table: TableName) -> int:
    with translated(f"count the rows of {table}", safe="nothing was changed"):
        row = session.execute(sql.SQL("SELECT count(*) FROM {}").format(table.identifier)).fetchone()
    assert row is not None
    return int(row[0])


def _unclear(happened: str) -> UsageFault:
    return UsageFault(happened, safe="nothing was started", next_step=_START)
