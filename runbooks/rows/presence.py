"""Which of these keys does production have? Asked one way or the other, by how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.rows import copies
from runbooks.rows.compose import fields, numbered
from runbooks.rows.fit import common_columns
from runbooks.rows.pipe import ship
from runbooks.rows.shape import COPIES, Column, ForeignKey, Operator, Table, UniqueKey

BATCH = 1_000
"""Keys for one question; no more candidates than that are always looked up in production's index."""
FEW = 200_000
"""More keys than this are never looked up."""
SPARSE = 20
"""In between they are looked up if production has at least this many rows for each of them."""


@dataclass(frozen=True)
class Lookup:
    """Values on the branch, and where production may hold them.

    `candidates` selects them on the branch as columns k1, k2, ... of the types of `columns`; `equals` compares each of
    the `target` columns in production (left) with its value (right).
    """

    candidates: sql.Composed
    columns: tuple[Column, ...]
    target: Table
    target_columns: tuple[str, ...]
    equals: tuple[Operator, ...]
    also: tuple[str, ...] = ()
    """Columns of production's row to be kept beside its values, as a1, a2, ..."""
    counted: tuple[str, ...] = ()
    """Of a table without a key, the columns that make the text of a row: the candidates are copies, to be counted."""

    @property
    def candidate_names(self) -> tuple[str, ...]:
        return numbered(len(self.columns))


def by_key(source: Table, target: Table, key: UniqueKey, candidates: sql.Composed) -> Lookup:
    """Look up rows of `source` (the branch's record) in `target` (production's) by one of its unique keys."""
    counted = tuple(column.name for column in common_columns(source, target)) if key == COPIES else ()
    columns = tuple(source.column(name) for name in key.columns)
    return Lookup(candidates, columns, target, key.columns, key.equals, counted=counted)


def by_reference(child: Table, parent: Table, tie: ForeignKey, candidates: sql.Composed) -> Lookup:
    """Look up what rows of `child` point at in `parent` (production's record)."""
    columns = tuple(child.column(name) for name in tie.child_columns)
    return Lookup(candidates, columns, parent, tie.parent_columns, tie.equals)


@dataclass(frozen=True)
class Snapshot:
    """Production at one instant: a session inside the transaction that exported `name`."""

    production: Connection
    name: str


def find_present(
    snapshot: Snapshot,
    branch: Connection,
    lookup: Lookup,
    *,
    into: sql.Identifier,
    many: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Create table `into` (k1, k2, ...) on the branch: all candidates that production has are in it, and nothing that
    production lacks.

    The values are production's own, in production's types. `many` is the number of candidates: few are looked up in
    production's index; otherwise all of production's values are shipped. `progress` hears rows done and expected.
    """
    _find(snapshot, branch, lookup, None, into, many, progress)


def find_digests(
    snapshot: Snapshot,
    branch: Connection,
    lookup: Lookup,
    digest: sql.Composable,
    *,
    into: sql.Identifier,
    many: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Create table `into` (k1, k2, ..., digest) on the branch: of each candidate that production has, production's key
    and `digest` of its row `t`; of others perhaps, too. `many` and `progress` are as in `find_present`.
    """
    _find(snapshot, branch, lookup, digest, into, many, progress)


def _find(
    snapshot: Snapshot,
    branch: Connection,
    lookup: Lookup,
    digest: sql.Composable | None,
    into: sql.Identifier,
    many: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    types = [lookup.target.column(name).type_identifier for name in lookup.target_columns]
    columns: list[sql.Composable] = [sql.SQL("k{} {}").format(n, kind) for n, kind in enumerate(types, 1)]
    others = [lookup.target.column(name).type_identifier for name in lookup.also]
    columns += [sql.SQL("a{} {}").format(n, kind) for n, kind in enumerate(others, 1)]
    columns += [sql.SQL("digest text")] if digest else []
    branch.execute(sql.SQL("CREATE UNLOGGED TABLE {} ({})").format(into, sql.SQL(", ").join(columns)))
    held = _rows_estimate(snapshot.production, lookup.target)
    if lookup.counted:
        _count_copies(snapshot, branch, lookup, into, many, progress and (lambda done: progress(done, held)))
    elif many <= BATCH or (many <= FEW and many * SPARSE <= held):
        _look_up(snapshot.production, branch, lookup, into, progress and (lambda done: progress(done, many)), digest)
    else:
        query = sql.SQL("SELECT {}{} FROM {} AS t").format(
            fields("t", (*lookup.target_columns, *lookup.also)),
            sql.SQL(", {}").format(digest) if digest else sql.SQL(""),
            lookup.target.rows,
        )
        ship(
            snapshot.production,
            branch,
            query=query,
            snapshot=snapshot.name,
            target=into,
            progress=progress and (lambda done: progress(done, held)),
        )
    branch.execute(sql.SQL("ANALYZE {}").format(into))


def _count_copies(
    snapshot: Snapshot,
    branch: Connection,
    lookup: Lookup,
    into: sql.Identifier,
    many: int,
    progress: Callable[[int], None] | None,
) -> None:
    """Every copy that production has, by text and number. Either way production reads its table once, as a whole."""
    if many > FEW:
        query = copies.counts(lookup.target, lookup.counted)
        ship(snapshot.production, branch, query=query, snapshot=snapshot.name, target=into, progress=progress)
    else:
        texts = branch.execute(sql.SQL("SELECT DISTINCT k1 FROM ({}) AS c").format(lookup.candidates)).fetchall()
        question = copies.counts(lookup.target, lookup.counted, among=sql.SQL("unnest($1::text[]) AS d (digest)"))
        with psycopg.RawCursor(snapshot.production) as asking:
            _keep(branch, into, asking.execute(question, [[text for (text,) in texts]]))
    # A text and its number of copies is the last copy; those before it are there too.
    branch.execute(sql.SQL("INSERT INTO {} SELECT k1, generate_series(1, k2 - 1) FROM {}").format(into, into))


def _rows_estimate(production: Connection, target: Table) -> int:
    row = production.execute(
        "SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint FROM pg_class WHERE oid = ANY (%s) AND relkind = 'r'",
        (list(target.tree),),
    ).fetchone()
    return int(row[0]) if row else 0


def _look_up(
    production: Connection,
    branch: Connection,
    lookup: Lookup,
    into: sql.Identifier,
    progress: Callable[[int], None] | None,
    digest: sql.Composable | None,
) -> None:
    question = _question(lookup, digest)
    reading = sql.SQL("SELECT {} FROM ({}) AS c").format(_texts("c", lookup.candidate_names), lookup.candidates)
    done = 0
    with branch.transaction(), branch.cursor("bloom_dr_candidates") as cursor:
        cursor.execute(reading)
        while batch := cursor.fetchmany(BATCH):
            # $1 and not %s: a name may contain a percent sign.
            with psycopg.RawCursor(production) as asking:
                found = asking.execute(question, [list(values) for values in zip(*batch, strict=True)])
                _keep(branch, into, found)
            done += len(batch)
            if progress:
                progress(done)


def _question(lookup: Lookup, digest: sql.Composable | None) -> sql.Composed:
    width = len(lookup.columns)
    matches = sql.SQL(" AND ").join(
        sql.SQL("t.{} {} CAST(c.{} AS {})").format(
            sql.Identifier(name), operator.sql, sql.Identifier(candidate), column.type_identifier
        )
        for candidate, name, operator, column in zip(
            lookup.candidate_names, lookup.target_columns, lookup.equals, lookup.columns, strict=True
        )
    )
    return sql.SQL("SELECT {}{} FROM ROWS FROM ({}) AS c ({}) JOIN {} AS t ON {}").format(
        _texts("t", (*lookup.target_columns, *lookup.also)),
        sql.SQL(", {}").format(digest) if digest else sql.SQL(""),
        sql.SQL(", ").join(sql.SQL(f"unnest(${number}::text[])") for number in range(1, width + 1)),
        fields(None, lookup.candidate_names),
        lookup.target.rows,
        matches,
    )


def _texts(alias: str, names: Sequence[str]) -> sql.Composed:
    """Each value as its type's output function writes it, which its input function reads; a cast may do neither."""
    return sql.SQL(", ").join(sql.SQL("concat({})").format(sql.Identifier(alias, name)) for name in names)


def _keep(branch: Connection, into: sql.Identifier, rows: Iterable[Sequence[object]]) -> None:
    with branch.cursor() as cursor, cursor.copy(sql.SQL("COPY {} FROM STDIN").format(into)) as copy:
        for row in rows:
            copy.write_row(row)
