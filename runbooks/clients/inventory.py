"""Take the inventory of a database: what it holds, with a hash of the rows of each table in whatever order they lie."""

from __future__ import annotations

import hashlib
import json
import queue
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

from psycopg import sql

from runbooks.clients import inventory_catalog as catalog
from runbooks.clients.inventory_catalog import Shape
from runbooks.clients.inventory_snapshot import SAFE, Snapshot, hold_snapshot, imported
from runbooks.clients.postgres import Connection
from runbooks.clients.postgres_faults import translated
from runbooks.model.inventory import Inventory, LargeObjects, SequenceInventory, TableInventory

__all__ = ["ALGORITHM", "Snapshot", "hold_snapshot", "take_inventory"]

ALGORITHM = "bloom-rows-1"
"""Two sums over the rows, of h and of the product of its halves, where h is `hash_record_extended` of the columns in
the order of their names; then the hash of what the columns are. The first sum alone would not do: the hash of a record
is a sum over its columns, so two values that changed places between rows would leave it as it was. PostgreSQL keeps
its extended hash functions the same over major versions, because hash partitions rest on them."""

_PIECE = 128 * 1024**2
"""Octets of table and TOAST that one statement reads, so that several sessions can share a big table."""

ConnFactory = Callable[[], Connection]


def take_inventory(
    conn_factory: ConnFactory,
    snapshot: str,
    jobs: int,
    *,
    only: Collection[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Inventory:
    """Everything in the database as of the exported `snapshot`, read by `jobs` sessions. Safe to repeat.

    With `only` no other tables than these (spelled as in an inventory), and no large objects, are read and listed.

    `conn_factory` gives sessions as `clients.postgres.connect` sets them up; they are closed here. Sequences do not
    belong to a snapshot: what is found is not older than it. Raises the database's errors; after the first, all stop.
    """
    with conn_factory() as conn:
        with imported(conn, snapshot), translated("take the inventory", safe=SAFE):
            shapes = [shape for shape in catalog.shapes(conn) if only is None or shape.name in only]
            found = _Found(progress, sum(shape.bytes for shape in shapes))
            _share(_pieces(shapes, _block_size(conn)), conn, conn_factory, snapshot, jobs, found)
            return Inventory(
                tables=tuple(_table(shape, found.sums[shape.oid]) for shape in shapes),
                sequences=_sequences(conn),
                extensions=catalog.extensions(conn),
                objects=catalog.objects(conn),
                roles=catalog.roles(conn),
                locale=catalog.locale(conn),
                large_objects=_large_objects(conn) if only is None else LargeObjects(),
                settings=tuple(name for name, _ in catalog.settings(conn)),
                row_security=tuple(shape.name for shape in shapes if shape.row_security),
                unpopulated=tuple(shape.name for shape in shapes if shape.kind == "m" and not shape.populated),
            )


@dataclass(frozen=True)
class _Piece:
    """A part of a table: the blocks from `first` to before `end`; None where it has no such end."""

    shape: Shape
    first: int | None
    end: int | None
    bytes: int


def _pieces(shapes: Iterable[Shape], block_size: int) -> list[_Piece]:
    """The greatest first, so that no session is left alone with one at the end."""
    pieces = [piece for shape in shapes if shape.has_rows for piece in _split(shape, block_size)]
    return sorted(pieces, key=lambda piece: piece.bytes, reverse=True)


def _split(shape: Shape, block_size: int) -> list[_Piece]:
    count = min(-(-shape.bytes // _PIECE), shape.heap_bytes // block_size) if shape.heap and not shape.condition else 1
    if count <= 1:
        return [_Piece(shape, None, None, shape.bytes)]
    blocks = shape.heap_bytes // block_size
    edges: list[int | None] = [None, *(blocks * number // count for number in range(1, count)), None]
    return [_Piece(shape, first, end, shape.bytes // count) for first, end in pairwise(edges)]


@dataclass
class _Sums:
    rows: int = 0
    plain: int = 0
    mixed: int = 0

    def add(self, rows: int, plain: int | None, mixed: int | None) -> None:
        self.rows += rows
        self.plain += int(plain or 0)
        self.mixed += int(mixed or 0)

    def hex(self) -> str:
        return f"{self.plain % 2**64:016x}{self.mixed % 2**64:016x}"


@dataclass
class _Found:
    """What the sessions have found so far."""

    progress: Callable[[str], None] | None
    total: int
    sums: dict[int, _Sums] = field(default_factory=lambda: _Table())
    done: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, piece: _Piece, row: tuple[Any, ...]) -> None:
        with self._lock:
            self.sums[piece.shape.oid].add(*row)
            before, self.done = self.done, self.done + piece.bytes
            if self.progress and self.total and before * 20 // self.total < self.done * 20 // self.total:
                self.progress(f"inventory: {100 * self.done // self.total} % of {self.total / 1e6:.0f} MB read")


class _Table(dict[int, _Sums]):
    def __missing__(self, oid: int) -> _Sums:
        return self.setdefault(oid, _Sums())


def _share(
    pieces: list[_Piece], conn: Connection, conn_factory: ConnFactory, snapshot: str, jobs: int, found: _Found
) -> None:
    """Hash the pieces in `jobs` sessions, `conn` among them."""
    todo: queue.SimpleQueue[_Piece] = queue.SimpleQueue()
    for piece in pieces:
        todo.put(piece)
    failures: list[BaseException] = []

    def work(session: Connection) -> None:
        while not failures:
            try:
                piece = todo.get_nowait()
            except queue.Empty:
                return
            with translated(f"read table {piece.shape.name}", safe=SAFE):
                found.add(piece, cast("tuple[Any, ...]", session.execute(_query(piece)).fetchone()))

    def helper() -> None:
        try:
            with conn_factory() as session, imported(session, snapshot):
                work(session)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=helper, name="inventory") for _ in range(min(jobs, len(pieces)) - 1)]
    for thread in threads:
        thread.start()
    try:
        work(conn)
    except BaseException as error:
        failures.insert(0, error)
        raise
    finally:
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def _query(piece: _Piece) -> sql.Composed:
    shape = piece.shape
    columns = sql.SQL(", ").join(
        sql.SQL("t.{}").format(sql.Identifier(name)) if how == "value"
        else sql.SQL('t.{}::text COLLATE "C"').format(sql.Identifier(name))  # else equal means equal to its collation
        for name, how in shape.columns
    )  # fmt: skip
    # OFFSET 0 keeps the planner from computing the hash three times.
    return sql.SQL(
        "SELECT count(*), sum(h), sum((h >> 32) * (h & 4294967295)) FROM ("
        "SELECT hash_record_extended(ROW({columns}), 0) AS h FROM ONLY {table} AS t {which} OFFSET 0) AS s"
    ).format(
        columns=columns,
        table=sql.Identifier(shape.schema, shape.table),
        # An extension's own words, which pg_dump puts in the same place.
        which=sql.SQL(cast("Any", shape.condition)) if shape.condition else _among(piece),
    )


def _among(piece: _Piece) -> sql.Composed:
    limits = [("t.ctid >= {}::tid", piece.first), ("t.ctid < {}::tid", piece.end)]
    given = [sql.SQL(text).format(f"({block},0)") for text, block in limits if block is not None]
    return sql.SQL("WHERE {}").format(sql.SQL(" AND ").join(given)) if given else sql.SQL("").format()


def _table(shape: Shape, sums: _Sums) -> TableInventory:
    definition = hashlib.sha256(json.dumps(shape.definition).encode()).hexdigest()[:16]
    content = f"{ALGORITHM}:{sums.hex()}{definition}"
    return TableInventory(name=shape.name, kind=shape.table_kind, rows=sums.rows, content=content)


def _block_size(conn: Connection) -> int:
    row: Any = conn.execute("SELECT current_setting('block_size')::int").fetchone()
    return int(row[0])


def _sequences(conn: Connection) -> tuple[SequenceInventory, ...]:
    """One statement for all of them: a far server answers each in its own time."""
    names = catalog.sequences(conn)
    found: list[SequenceInventory] = []
    for start in range(0, len(names), 500):
        query = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}, last_value, is_called FROM {}").format(told, sql.Identifier(schema, name))
            for schema, name, told in names[start : start + 500]
        )
        found += [SequenceInventory(name=n, last_value=v, is_called=c) for n, v, c in conn.execute(query)]
    return tuple(found)


# In pieces: a large object may be bigger than the greatest value, and bigger than memory.
_LARGE_OBJECTS = """
WITH RECURSIVE piece (loid, number, size, h) AS (
    SELECT m.oid, 0::bigint, length(d.data), hash_record_extended(ROW(m.oid, 0::bigint, d.data), 0)
    FROM pg_largeobject_metadata AS m, LATERAL (SELECT lo_get(m.oid, 0, 1048576) AS data OFFSET 0) AS d
    UNION ALL
    SELECT p.loid, p.number + 1, length(d.data), hash_record_extended(ROW(p.loid, p.number + 1, d.data), 0)
    FROM piece AS p, LATERAL (SELECT lo_get(p.loid, (p.number + 1) * 1048576, 1048576) AS data OFFSET 0) AS d
    WHERE p.size = 1048576
)
SELECT count(DISTINCT loid), sum(h), sum((h >> 32) * (h & 4294967295)) FROM piece
"""


def _large_objects(conn: Connection) -> LargeObjects:
    count, plain, mixed = cast("tuple[Any, ...]", conn.execute(_LARGE_OBJECTS).fetchone())
    if not count:
        return LargeObjects()
    sums = _Sums()
    sums.add(count, plain, mixed)
    return LargeObjects(count=count, content=f"{ALGORITHM}:{sums.hex()}")
