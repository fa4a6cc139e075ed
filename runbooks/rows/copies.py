"""Rows of a table without a key: told apart by their text and, among rows of equal text, by a number.

On the branch the rows concerned are kept in a table of ours that has both as columns; from there on they are rows with
a key. In production they are counted: of a text that is there n times, the copies up to n are there.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.rows.compose import digest, fields, numbered
from runbooks.rows.shape import COPY, DIGEST, Table

_PART, _PLACE = sql.Identifier("bloom_dr_part"), sql.Identifier("bloom_dr_place")

Values = Sequence[tuple[str, sql.Composable]]
"""Columns of now, and how each is made from a row `t` of the past."""


def create(branch: Connection, copies: sql.Composable, source: Table, values: Values) -> None:
    """Make the table that keeps rows of `source`, empty: the columns of now, DIGEST, COPY, and where the row lies."""
    branch.execute(
        sql.SQL(
            "CREATE TABLE {} AS SELECT {}, ''::text AS {}, 0::bigint AS {}, t.tableoid AS {}, t.ctid AS {}"
            " FROM {} AS t WHERE false"
        ).format(
            copies,
            _made(values),
            sql.Identifier(DIGEST),
            sql.Identifier(COPY),
            _PART,
            _PLACE,
            source.rows,
        )
    )
    branch.execute(sql.SQL("CREATE INDEX ON {} ({}, {})").format(copies, sql.Identifier(DIGEST), sql.Identifier(COPY)))


def keep(
    branch: Connection,
    copies: sql.Composable,
    source: Table,
    values: Values,
    compared: tuple[str, ...],
    places: sql.Identifier | None,
) -> None:
    """Keep the rows that lie at `places` (k1, k2), none of which is kept yet; or all. `compared` makes their text."""
    rows = sql.SQL("{} AS t").format(source.rows)
    if places:
        rows = sql.SQL("{} JOIN {} AS o ON t.tableoid = o.k1 AND t.ctid = o.k2").format(rows, places)
    branch.execute(
        sql.SQL(
            "WITH made AS MATERIALIZED (SELECT m.*, {text} AS {digest} FROM"
            " (SELECT {values}, t.tableoid AS {part}, t.ctid AS {place} FROM {rows}) AS m)"
            " INSERT INTO {copies} ({names}, {digest}, {copy}, {part}, {place})"
            " SELECT {made}, m.{digest}, coalesce(x.many, 0) + row_number() OVER (PARTITION BY m.{digest}),"
            " m.{part}, m.{place} FROM made AS m"
            " LEFT JOIN (SELECT {digest}, count(*) AS many FROM {copies} GROUP BY 1) AS x USING ({digest})"
        ).format(
            text=digest("m", compared),
            digest=sql.Identifier(DIGEST),
            copy=sql.Identifier(COPY),
            part=_PART,
            place=_PLACE,
            values=_made(values),
            rows=rows,
            copies=copies,
            names=fields(None, [name for name, _ in values]),
            made=fields("m", [name for name, _ in values]),
        )
    )
    branch.execute(sql.SQL("ANALYZE {}").format(copies))


def keys_at(copies: sql.Composable, places: sql.Identifier) -> sql.Composed:
    """A query for the keys (k1, k2) of the kept rows that lie at `places`."""
    return sql.SQL("SELECT {} FROM {} AS x JOIN {} AS o ON x.{} = o.k1 AND x.{} = o.k2").format(
        fields("x", (DIGEST, COPY), renamed=numbered(2)), copies, places, _PART, _PLACE
    )


def is_kept(copies: sql.Composable, row: str) -> sql.Composed:
    """Row `row` of the table on the branch is among the kept ones."""
    return sql.SQL("EXISTS (SELECT FROM {} AS x WHERE x.{} = {} AND x.{} = {})").format(
        copies, _PART, sql.Identifier(row, "tableoid"), _PLACE, sql.Identifier(row, "ctid")
    )


def counts(
    table: Table,
    compared: tuple[str, ...],
    *,
    among: sql.Composable | None = None,
    only: sql.Composable | None = None,
) -> sql.Composed:
    """A query for each text of the table's rows, as MD5, and how many have it; `among` is a FROM item of some MD5s, d.
    A row `t` of which `only` is not true has none of them.

    It reads the whole table, once.
    """
    query = sql.SQL("SELECT {} AS digest FROM {} AS t WHERE {}").format(
        digest("t", compared), table.rows, only or sql.SQL("true")
    )
    join = sql.SQL(" JOIN {} ON d.digest = n.digest").format(among) if among else sql.SQL("")
    return sql.SQL("SELECT n.digest, count(*) AS many FROM ({}) AS n{} GROUP BY n.digest").format(query, join)


def _made(values: Values) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{} AS {}").format(value, sql.Identifier(name)) for name, value in values)
