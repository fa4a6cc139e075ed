"""What is different in inserting rows of a table without a key: its copies are counted, by text.

The table is locked against writers meanwhile, so a count holds until COMMIT.
"""

from __future__ import annotations

from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.model.errors import ProofFailed
from runbooks.rows import copies
from runbooks.rows.compose import fields, row_text
from runbooks.rows.stage import Staged
from runbooks.rows.transaction import ROLLED_BACK

_QUICK = frozenset(("bool", "int2", "int4", "int8", "oid", "uuid", "date", "timestamp", "timestamptz", "time"))
"""Types that are hashed in no time, and equally wherever their text is equal."""


def mark_there(conn: Connection, one: Staged, fate: str) -> None:
    """Give this fate to the copies that are in production by now: no more is inserted than is missing."""
    texts = sql.SQL("(SELECT DISTINCT k1 AS digest FROM {}) AS d").format(one.rows)
    counts = copies.counts(one.table.target, one.names, among=texts, only=_may_be_one(one))
    conn.execute(
        sql.SQL(
            "INSERT INTO {} SELECT {}, {} FROM {} AS s JOIN ({}) AS n ON n.digest = s.k1 AND s.k2 <= n.many"
        ).format(one.fates, fields("s", one.k), fate, one.rows, counts)
    )


def _may_be_one(one: Staged) -> sql.Composable:
    """Row `t` of the table may equal a staged one: to write and digest every row takes ten times as long."""
    names = tuple(each.name for each in one.columns if each.type_schema == "pg_catalog" and each.type_name in _QUICK)
    if not names:
        return sql.SQL("true")
    hashed = sql.SQL("hash_record_extended(ROW({}), 0)")
    return sql.SQL("{} IN (SELECT {} FROM {} AS s)").format(
        hashed.format(fields("t", names)), hashed.format(fields("s", one.staged(names))), one.rows
    )


def put(one: Staged, name: sql.Identifier, written: tuple[str, ...], waiting: sql.Composed) -> sql.Composed:
    """The insert, as a part of WITH that gives the keys (k1, k2) of the copies that got in."""
    # By their text as this very statement reads it: the application's search path may spell a name otherwise.
    return sql.SQL(
        "{texts} AS (INSERT INTO {table} AS t ({columns}) OVERRIDING SYSTEM VALUE"
        " SELECT {values} FROM {rows} AS s WHERE {waiting} ON CONFLICT DO NOTHING RETURNING {inserted} AS text),"
        " {name} AS (SELECT w.k1, w.k2 FROM"
        " (SELECT {k}, {staged} AS text, row_number() OVER (PARTITION BY s.k1 ORDER BY s.k2) AS place"
        " FROM {rows} AS s WHERE {waiting}) AS w"
        " JOIN (SELECT text, count(*) AS many FROM {texts} GROUP BY text) AS p"
        " ON p.text = w.text AND w.place <= p.many)"
    ).format(
        texts=sql.Identifier(f"texts_{one.number}"),
        table=one.name.identifier,
        columns=fields(None, written),
        values=fields("s", one.staged(written)),
        rows=one.rows,
        waiting=waiting,
        inserted=row_text("t", one.names),
        name=name,
        k=fields("s", one.k),
        staged=row_text("s", one.c),
    )


def note_the_rest(conn: Connection, one: Staged, fate: str, waiting: sql.Composed) -> None:
    """What was not inserted was kept out by somebody's unique value."""
    conn.execute(
        sql.SQL("INSERT INTO {} SELECT {}, {} FROM {} AS s WHERE {}").format(
            one.fates, fields("s", one.k), fate, one.rows, waiting
        )
    )


def prove_equal(conn: Connection, one: Staged, inserted: int, fate: str) -> None:
    """ProofFailed unless the rows of this transaction are, text by text, as many as were inserted."""
    ours = sql.SQL("SELECT {} AS text FROM {} AS t WHERE t.xmin = pg_current_xact_id()::xid").format(
        row_text("t", one.names), one.table.target.rows
    )
    due = sql.SQL("SELECT {} AS text, s.k1 FROM {} AS s JOIN {} AS f ON f.k1 = s.k1 AND f.k2 = s.k2 AND f.fate = {}")
    row = conn.execute(
        sql.SQL(
            "SELECT coalesce(sum(o.many), 0), count(*) FILTER (WHERE o.many IS DISTINCT FROM d.many"
            " OR md5(d.text) <> d.k1), min(left(o.text, 200)) FILTER (WHERE d.many IS NULL)"
            " FROM (SELECT text, count(*) AS many FROM ({ours}) AS o GROUP BY text) AS o"
            " FULL JOIN (SELECT text, k1, count(*) AS many FROM ({due}) AS d GROUP BY text, k1) AS d USING (text)"
        ).format(ours=ours, due=due.format(row_text("s", one.c), one.rows, one.fates, fate))
    ).fetchone()
    if row is None or row[:2] != (inserted, 0):
        told = f", such as {row[2]}" if row and row[2] else ""
        raise ProofFailed(
            f"of {inserted} rows inserted into {one.name}, without a key, not all read as on the branch{told}",
            safe=ROLLED_BACK,
            next_step="a trigger or a generated column changed them; have the trigger switched off by its owner, then "
            "run the same command again",
        )


def undo_keys(one: Staged, fate: str) -> sql.Composed:
    """A query for the text (MD5) of each inserted row, and its number among the inserted ones of that text."""
    return sql.SQL("SELECT f.k1, row_number() OVER (PARTITION BY f.k1) FROM {} AS f WHERE f.fate = {}").format(
        one.fates, fate
    )
