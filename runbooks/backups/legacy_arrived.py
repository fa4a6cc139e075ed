"""What arrived in the target, compared with what the file of an old backup says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg import sql

from runbooks.backups.legacy import LegacyFacts
from runbooks.clients.dump_toc import parts
from runbooks.clients.postgres import Connection

_RELATIONS = """
SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relispopulated FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f', 'm', 'S')
"""


class Arrived:
    """What is in the target, compared with what the file says."""

    def __init__(self, conn: Connection, facts: LegacyFacts) -> None:
        self._conn, self.rows = conn, 0
        self._there = {(row[0], row[1]): (row[2], row[3]) for row in conn.execute(_RELATIONS)}
        self.differences = [*self._tables(facts), *self._sequences(facts), *self._large_objects(facts)]
        empty = {key for key, (kind, populated) in self._there.items() if kind == "m" and not populated}
        filled = {parts(name): name for name in facts.refreshed}
        self.differences += [f"materialized view {filled[key]} has no data" for key in empty & filled.keys()]
        self.unpopulated = tuple(sorted(".".join(key) for key in empty - filled.keys()))

    def _tables(self, facts: LegacyFacts) -> Iterator[str]:
        for table in facts.tables:
            key = parts(table.name)
            if table.rows is None or len(key) != 2:
                continue
            kind, _ = self._there.get((key[0], key[1]), (None, None))
            if kind is None:
                yield f"table {table.name}: {table.rows} rows expected, no such table found"
                continue
            # A dump with --load-via-partition-root names the partitioned table, whose rows are in its partitions.
            query = sql.SQL("SELECT count(*) FROM {} {}").format(
                sql.SQL("" if kind == "p" else "ONLY"), sql.Identifier(*key)
            )
            found = self._number(query)
            self.rows += found
            if found != table.rows:
                yield f"table {table.name}: {table.rows} rows expected, {found} rows found"

    def _sequences(self, facts: LegacyFacts) -> Iterator[str]:
        for one in facts.sequences:
            key = parts(one.name)
            if len(key) != 2:
                continue
            if (key[0], key[1]) not in self._there:
                yield f"sequence {one.name}: not there"
                continue
            row: Any = self._conn.execute(
                sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(*key))
            ).fetchone()
            if tuple(row) != (one.last_value, one.is_called):
                yield f"sequence {one.name}: {one.last_value} expected, {row[0]} found"

    def _large_objects(self, facts: LegacyFacts) -> Iterator[str]:
        found = self._number(sql.SQL("SELECT count(*) FROM pg_largeobject_metadata").format())
        if found != facts.large_objects:
            yield f"large objects: {facts.large_objects} expected, {found} found"

    def _number(self, query: sql.Composed) -> int:
        row: Any = self._conn.execute(query).fetchone()
        return int(row[0])
