"""Where two copies of a big table differ, without moving their rows: both sides hash theirs into buckets.

A bucket holds the rows whose key hashes into it; its sum is the exclusive or of their hashes. Equal sums mean equal
rows (but for a chance of 1 in 2^64 for each bucket that differs); where they differ, the rows have to be compared.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.rows.compose import fields, numbered, scratch
from runbooks.rows.search import Involved, Search
from runbooks.rows.shape import Column

LEAST, MOST = 1 << 10, 1 << 18
"""Numbers of buckets. More would not fit into a client of modest memory (30 bytes for each)."""
ROWS_EACH = 16
"""Aimed at: fewer rows to compare for each bucket that differs."""
TOO_MANY = 0.15
"""If more of the buckets differ, it is cheaper to compare everything."""

_FAITHFUL = frozenset(
    (
        "bool",
        "int2",
        "int4",
        "int8",
        "oid",
        "text",
        "varchar",
        "uuid",
        "date",
        "timestamp",
        "timestamptz",
        "time",
        "bytea",
    )
)
"""Types whose hash differs wherever their text differs. Not so numeric (1.0 is 1.00), float (-0 is 0), interval, jsonb,
arrays, enums (which hash by their oid): they are hashed as text."""
_COLLATED = frozenset(("text", "varchar"))


def candidates(search: Search, table: Involved, names: tuple[str, ...]) -> sql.Composed | None:
    """A query for the keys (k1, k2, ...) on the branch of all rows that production lacks or has otherwise, and of few
    others.

    None if so much differs that everything has to be compared. `names` are the columns that count. Production is read
    once, within the search's snapshot.
    """
    buckets = min(MOST, max(LEAST, 1 << (table.matching // ROWS_EACH).bit_length()))
    here, there = scratch(f"buckets_{search.number()}"), scratch(f"buckets_{search.number()}")
    columns = tuple(table.target.column(name) for name in names)
    same = {name for name in names if table.source.column(name).type == table.target.column(name).type}
    bucket = _bucket(table, same, buckets)
    sums = sql.SQL("SELECT {} AS bucket, count(*)::int AS rows, bit_xor({}) AS sum FROM {} AS t GROUP BY 1")
    search.tell(f"{table.target.name}: both sides hash their rows into {buckets:,} buckets")
    with ThreadPoolExecutor(1) as beside:
        reading = beside.submit(
            _read,
            search.snapshot.production,
            sums.format(bucket, _hash(columns, same), table.target.rows),
        )
        search.run(
            "CREATE UNLOGGED TABLE {here} AS {sums}",
            here=here,
            sums=sums.format(bucket, _hash(columns, same), table.past),
        )
        found = reading.result()
    search.run("CREATE UNLOGGED TABLE {there} (bucket bigint, rows int, sum bigint)", there=there)
    with search.branch.cursor() as cursor, cursor.copy(sql.SQL("COPY {} FROM STDIN").format(there)) as copy:
        copy.write(found)
    search.run(
        "DELETE FROM {here} AS h USING {there} AS t WHERE h.bucket = t.bucket AND h.rows = t.rows AND h.sum = t.sum",
        here=here,
        there=there,
    )
    differing = search.count(here)
    search.tell(f"{table.target.name}: {differing:,} of {buckets:,} buckets differ")
    if differing > TOO_MANY * buckets:
        return None
    return sql.SQL("SELECT {} FROM {} AS t WHERE {} IN (SELECT bucket FROM {})").format(
        fields("t", table.source.key.columns, renamed=numbered(len(table.source.key.columns))), table.past, bucket, here
    )


def _read(production: Connection, query: sql.Composed) -> bytes:
    with production.cursor() as cursor, cursor.copy(sql.SQL("COPY ({}) TO STDOUT").format(query)) as copy:
        return b"".join(bytes(block) for block in copy)


def _bucket(table: Involved, same: set[str], buckets: int) -> sql.Composed:
    key = tuple(table.target.column(name) for name in table.target.key.columns)
    return sql.SQL("({} & {})").format(_hash(key, same), sql.Literal(buckets - 1))


def _hash(columns: tuple[Column, ...], same: set[str]) -> sql.Composed:
    """64 bits of the row `t`, alike on both sides if all the columns' texts are."""
    faithful = [column for column in columns if _is_faithful(column) and column.name in same]
    others = tuple(column.name for column in columns if column not in faithful)
    parts: list[sql.Composable] = [_plain(column) for column in faithful]
    if others:
        parts.append(sql.SQL('ROW({})::text COLLATE "C"').format(fields("t", others)))
    return sql.SQL("hash_record_extended(ROW({}), 0)").format(sql.SQL(", ").join(parts))


def _is_faithful(column: Column) -> bool:
    return column.type_schema == "pg_catalog" and column.type_name in _FAITHFUL


def _plain(column: Column) -> sql.Composed:
    value = sql.Identifier("t", column.name)
    # A collation may call different texts equal.
    return sql.SQL('{} COLLATE "C"').format(value) if column.type_name in _COLLATED else sql.Composed([value])
