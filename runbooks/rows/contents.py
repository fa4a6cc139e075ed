"""Rows whose key is in production: do they still hold what they held, and if not, who may have changed them?

Two questions. Without `--changed`, only where it costs little, and for information: what differs is a fact. With it,
for every row asked for, and each that differs is judged by a third state, the one after the damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.model.errors import Refused
from runbooks.rows import states
from runbooks.rows.buckets import candidates
from runbooks.rows.catalog import describe
from runbooks.rows.compose import fields, row_text, same_key, same_numbers, scratch
from runbooks.rows.found import Different
from runbooks.rows.listed import listed
from runbooks.rows.names import TableName
from runbooks.rows.presence import Snapshot, by_key, find_digests
from runbooks.rows.search import Involved, Search
from runbooks.rows.shape import Table

MOST = 50_000
"""Without being asked to, more rows than this are not compared; it is said that they were not. With `--changed`, more
than this are narrowed down by buckets first."""

_OTHERWISE = (states.DIFFERS, states.EDITED)
_SINCE = "changed since: by the damage or by a person, nobody can say which without --until"
_EDITED = "changed by the damage and edited since"
_REUSED = "its key was gone after the damage, and was given to something else since"
_DELETED = "it was there after the damage, and somebody has deleted it since"
_LATER = "edited after the damage, which had left it alone"


def find_missing_and_changed(search: Search, table: Involved) -> None:
    """Note all rows asked for that production lacks or has with another content.

    Of a table without a key, those that it lacks: an edited row is one that is missing, and one that is new.
    """
    if table.target.keyless:
        search.find_missing(table)
        return
    names = table.compared
    query = candidates(search, table, names) if table.whole and table.matching > MOST else None
    _compare(search, table, table.asked_keys if query is None else query, names, lacking=True)


def mark_different(search: Search) -> frozenset[TableName]:
    """Note the rows asked for that production has with another content, where they are not too many to look.

    Returns the tables that were compared.
    """
    return frozenset(table.target.name for table in search.involved.values() if _look(search, table))


def _look(search: Search, table: Involved) -> bool:
    if table.target.keyless:
        return True  # what is there is equal
    there = table.matching - search.count(sql.SQL("{} AS f WHERE NOT f.cascaded").format(table.found))
    if not table.named or there > MOST:
        return not table.named
    query = sql.SQL("SELECT * FROM ({}) AS v WHERE NOT EXISTS (SELECT FROM {} AS f WHERE {})").format(
        table.asked_keys, table.found, same_numbers("f", table.source.key, "v")
    )
    _compare(search, table, query, table.compared, lacking=False)
    return True


def _compare(search: Search, table: Involved, query: sql.Composed, names: tuple[str, ...], *, lacking: bool) -> None:
    with search.candidates(query) as (rows, many):
        if not many:
            return
        search.run("ANALYZE {rows}", rows=rows)
        with _digests(search, search.snapshot, table.target, table, rows, many, names) as digests:
            if lacking:
                search.run(
                    "INSERT INTO {found} ({k}, state, round, cascaded) SELECT {v}, 'missing', 0, false FROM {rows} AS v"
                    " WHERE NOT EXISTS (SELECT FROM {digests} AS p WHERE {same})",
                    found=table.found,
                    k=fields(None, table.k),
                    v=fields("v", table.k),
                    rows=rows,
                    digests=digests,
                    same=same_numbers("p", table.target.key, "v"),
                )
            # Round -1: no cascade starts from a row that is there.
            search.run(
                "INSERT INTO {found} ({k}, state, round, cascaded, why, seen)"
                " SELECT {v}, 'differs', -1, false, {why}, p.digest FROM {rows} AS v"
                " JOIN {digests} AS p ON {same} JOIN {past} AS t ON {this} WHERE p.digest <> md5({then})",
                found=table.found,
                k=fields(None, table.k),
                v=fields("v", table.k),
                why=sql.Literal("changed since, or the key is something else's now"),
                rows=rows,
                digests=digests,
                same=same_numbers("p", table.target.key, "v"),
                past=table.past,
                this=same_key("v", table.source.key, "t"),
                then=row_text("t", names),
            )
    search.run("ANALYZE {found}", found=table.found)


def judge(search: Search, table: Involved, after: Snapshot | None) -> None:
    """Of the rows that differ: damaged if they are as the damage left them; else with a kind of conflict, or none."""
    if table.target.keyless:
        return
    if after is None:
        search.run(
            "UPDATE {found} SET kind = 'changed', why = {why} WHERE state = 'differs'",
            found=table.found,
            why=sql.Literal(_SINCE),
        )
        return
    names = table.compared
    target = _after_the_damage(after.production, table, names)
    query = sql.SQL("SELECT {} FROM {} WHERE state = 'differs'").format(fields(None, table.k), table.found)
    with (
        search.candidates(query) as (rows, many),
        _digests(search, after, target, table, rows, many, names) as digests,
    ):
        search.run(
            "UPDATE {found} AS f SET state = j.state, kind = j.kind, why = j.why FROM (SELECT {v},"
            " CASE WHEN a.digest = g.seen AND a.digest <> t.then THEN 'damaged'"
            " WHEN a.digest IS NULL THEN 'differs' ELSE 'edited' END AS state,"
            " CASE WHEN a.digest IS NULL THEN 'reused' WHEN a.digest = t.then THEN 'later'"
            " WHEN a.digest = g.seen THEN NULL ELSE 'edited' END AS kind,"
            " CASE WHEN a.digest IS NULL THEN {reused} WHEN a.digest = t.then THEN {later}"
            " WHEN a.digest = g.seen THEN NULL ELSE {edited} END AS why"
            " FROM {found} AS g JOIN (SELECT {k}, md5({then}) AS then FROM {past} AS t) AS t ON {this}"
            " JOIN {rows} AS v ON {mine} LEFT JOIN {digests} AS a ON {same}"
            " WHERE g.state = 'differs') AS j WHERE {its}",
            found=table.found,
            v=fields("v", table.k),
            reused=sql.Literal(_REUSED),
            later=sql.Literal(_LATER),
            edited=sql.Literal(_EDITED),
            k=fields("t", table.source.key.columns, renamed=table.k),
            then=row_text("t", names),
            past=table.past,
            this=same_numbers("t", table.source.key, "g"),
            rows=rows,
            mine=same_numbers("v", table.source.key, "g"),
            digests=digests,
            same=same_numbers("a", table.target.key, "v"),
            its=same_numbers("j", table.source.key, "f"),
        )


def judge_missing(search: Search, table: Involved, after: Snapshot | None) -> None:
    """Of the rows that are missing, those that were still there after the damage: somebody has deleted them since."""
    if after is None or table.target.keyless:
        return
    target = _after_the_damage(after.production, table, table.compared)
    query = sql.SQL("SELECT {} FROM {} WHERE state = 'missing'").format(fields(None, table.k), table.found)
    with search.candidates(query) as (rows, many):
        if not many:
            return
        with _digests(search, after, target, table, rows, many, table.source.key.columns) as digests:
            search.run(
                "UPDATE {found} AS f SET state = 'conflict', kind = 'deleted', why = {why}"
                " WHERE f.state = 'missing' AND EXISTS (SELECT FROM {digests} AS a WHERE {same})",
                found=table.found,
                why=sql.Literal(_DELETED),
                digests=digests,
                same=same_numbers("a", table.target.key, "f"),
            )


def _after_the_damage(conn: Connection, table: Involved, names: tuple[str, ...]) -> Table:
    """The table as it was after the damage. Refused if its rows cannot be compared with those of now."""
    found = describe(conn, table.target.name)
    why = None
    if found is None:
        why = "it was not there"
    elif not found.has(names):
        why = f"it had no {', '.join(sorted(set(names) - {column.name for column in found.columns}))}"
    elif found.hides_rows or "select" not in found.privileges:
        why = "our role may not read all of it"
    elif any(found.column(name).type != table.target.column(name).type for name in table.target.key.columns):
        why = "its key was of another type"
    if found is None or why:
        raise Refused(
            f"the state of {table.target.name} after the damage cannot be compared with that of now: {why}",
            safe="production was only read",
            next_step="choose another --until, or leave it out and decide each changed row with --resolve",
        )
    return found.model_copy(update={"keys": (table.target.key,)})


@contextmanager
def _digests(
    search: Search,
    snapshot: Snapshot,
    target: Table,
    table: Involved,
    rows: sql.Identifier,
    many: int,
    names: tuple[str, ...],
) -> Iterator[sql.Identifier]:
    """A table that lasts for the block: those keys in `rows` that `target` has, and the digest of its row."""
    into = scratch(f"digests_{search.number()}")
    query = sql.SQL("SELECT {} FROM {} AS c").format(fields("c", table.k), rows)
    find_digests(
        snapshot,
        search.branch,
        by_key(table.source, target, target.key, query),
        sql.SQL("md5({})").format(row_text("t", names)),
        into=into,
        many=many,
        progress=lambda done, due: search.tell(
            f"content of {table.target.name}: {done:,} of about {max(done, due):,} rows"
        ),
    )
    yield into
    search.run("DROP TABLE {into}", into=into)


def different(search: Search, compared: frozenset[TableName]) -> tuple[Different, ...]:
    """What differs and stays as it is, by table and reason."""
    return tuple(
        Different(
            table=table.target.name,
            kind=None if kind == "later" else kind,
            why=why,
            settled=settled,
            **each.model_dump(),
        )
        for table in search.involved.values()
        if table.target.name in compared
        for kind, why, settled in search.branch.execute(
            sql.SQL("SELECT DISTINCT kind, why, settled FROM {} AS f WHERE {} ORDER BY 1, 2, 3").format(
                table.found, states.among(_OTHERWISE)
            )
        ).fetchall()
        for rows in [
            sql.SQL("{} AS f WHERE {} AND (kind, why, settled) IS NOT DISTINCT FROM ({}, {}, {})").format(
                table.found, states.among(_OTHERWISE), kind, why, settled
            )
        ]
        for each in [listed(search.branch, rows, "f", table.k)]
    )
