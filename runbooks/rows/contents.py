"""Rows whose key is in production: do they still hold what they held? A key may be used for something else by now."""

from __future__ import annotations

from psycopg import sql

from runbooks.rows.compose import row_text, same_key, same_numbers, scratch
from runbooks.rows.fit import common_columns
from runbooks.rows.found import Different
from runbooks.rows.listed import listed
from runbooks.rows.presence import by_key, find_digests
from runbooks.rows.search import Involved, Search

MOST = 50_000
"""More rows than this are not compared one by one; it is said that they were not."""


def mark_different(search: Search) -> tuple[frozenset[str], tuple[Different, ...]]:
    """Note the rows asked for that production has with another content, with the state 'differs'.

    Returns the names (`found_name`) of the tables whose rows were compared, and what differs.
    """
    compared = [table for table in search.involved.values() if _compare(search, table)]
    different = (
        Different(table=table.target.name, **listed(search.branch, rows, "f", table.k).model_dump())
        for table in compared
        for rows in [sql.SQL("{} AS f WHERE state = 'differs'").format(table.found)]
    )
    return frozenset(table.found_name for table in compared), tuple(each for each in different if each.count)


def _compare(search: Search, table: Involved) -> bool:
    there = table.matching - search.count(sql.SQL("{} AS f WHERE NOT f.cascaded").format(table.found))
    if not table.named or there > MOST:
        return not table.named
    names = tuple(column.name for column in common_columns(table.source, table.target))
    query = sql.SQL("SELECT * FROM ({}) AS v WHERE NOT EXISTS (SELECT FROM {} AS f WHERE {})").format(
        table.asked_keys, table.found, same_numbers("f", table.source.key, "v")
    )
    with search.candidates(query) as (rows, many):
        if not many:
            return True
        digests = scratch(f"digests_of_{table.found_name}")
        lookup = by_key(table.source, table.target, table.target.key, sql.SQL("SELECT * FROM {}").format(rows))
        find_digests(
            search.snapshot,
            search.branch,
            lookup,
            sql.SQL("md5({})").format(row_text("t", names)),
            into=digests,
            progress=lambda done: search.tell(f"content of {table.target.name}: {done:,} of {many:,} rows compared"),
        )
        search.run(
            "INSERT INTO {found} SELECT v.*, 'differs', NULL, -1, false FROM {rows} AS v"
            " JOIN {digests} AS p ON {same} JOIN {source} AS t ON {this} WHERE p.digest <> md5({now})",
            found=table.found,
            rows=rows,
            digests=digests,
            same=same_numbers("p", table.target.key, "v"),
            source=table.source.name.identifier,
            this=same_key("v", table.source.key, "t"),
            now=row_text("t", names),
        )
        search.run("DROP TABLE {digests}", digests=digests)
    return True
