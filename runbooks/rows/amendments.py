"""What is to be changed of rows that are there: kept on the branch, so that plan and execution mean the very same."""

from __future__ import annotations

from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.rows import states
from runbooks.rows.compose import checksum, fields, numbered, row_text, same_key, scratch
from runbooks.rows.found import Amendment
from runbooks.rows.search import Involved, Search
from runbooks.rows.shape import ForeignKey, Table

_SAMPLES = 3
_SAMPLE_LENGTH = 200


def set_back(search: Search, table: Involved) -> Amendment | None:
    """The rows of a table that are set back whole; None if there are none."""
    names = table.compared
    v = numbered(len(names), "v")
    query = sql.SQL("SELECT {}, {}, f.seen FROM {} AS t JOIN {} AS f ON {} WHERE {}").format(
        fields("f", table.k),
        fields("t", names, renamed=v),
        table.past,
        table.found,
        same_key("f", table.source.key, "t"),
        states.among(states.SET_BACK),
    )
    return keep(search, table.source, table.target, query, columns=names, guarded=names)


def keep(
    search: Search,
    source: Table,
    target: Table,
    query: sql.Composed,
    *,
    columns: tuple[str, ...],
    guarded: tuple[str, ...],
    tie: ForeignKey | None = None,
) -> Amendment | None:
    """Keep the rows of `query` (k1, ..., v1, ..., seen: see Amendment) on the branch; None if it has none."""
    name = f"amend_{search.number()}"
    # Not unlogged: the branch's compute may go to sleep before the plan is carried out, and would empty it.
    count = search.run("CREATE TABLE {name} AS {query}", name=scratch(name), query=query)
    if not count:
        search.run("DROP TABLE {name}", name=scratch(name))
        return None
    k, v = numbered(len(source.key.columns)), numbered(len(columns), "v")
    samples = search.branch.execute(
        sql.SQL("SELECT left({}, {}) FROM {} AS a ORDER BY {} LIMIT {}").format(
            row_text("a", (*k, *v) if tie else v), _SAMPLE_LENGTH, scratch(name), fields("a", k), _SAMPLES
        )
    ).fetchall()
    return Amendment(
        target=target,
        source=source,
        rows_table=name,
        foreign_key=tie.name if tie else None,
        columns=columns,
        guarded=guarded,
        count=count,
        checksum=fingerprint(search.branch, scratch(name), (*k, *v, "seen")),
        samples=tuple(sample for (sample,) in samples),
    )


def fingerprint(conn: Connection, rows: sql.Identifier, names: tuple[str, ...]) -> str:
    """Count and checksum of rows of ours, whatever their order; the same on either side."""
    row = conn.execute(
        sql.SQL("SELECT concat(count(*), ':', {}) FROM {} AS a").format(checksum(row_text("a", names)), rows)
    ).fetchone()
    assert row is not None
    return str(row[0])
