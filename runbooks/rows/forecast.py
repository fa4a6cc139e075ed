"""What stands in the way of the rows found, and what else the delete took that does not come back with them.

All of it is as of the survey; the execution looks again. Only our own tables on the branch are changed.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from psycopg import sql

from runbooks.rows import states
from runbooks.rows.compose import all_set, equal, fields, numbered, points_at, same_key, same_numbers
from runbooks.rows.fit import can_look_up
from runbooks.rows.found import AlsoLost
from runbooks.rows.names import shown
from runbooks.rows.presence import by_key, by_reference
from runbooks.rows.search import Involved, Search
from runbooks.rows.shape import ForeignKey, Table, UniqueKey


def mark_conflicts(search: Search) -> None:
    """Give every row to be inserted or set back that cannot be as it was a kind of conflict and a reason.

    First rows whose other unique values are in use by other rows now, then, repeatedly, rows that point at something
    that is neither in production nor coming back.
    """
    for table in tuple(search.involved.values()):
        for key in table.target.keys:
            if key != table.target.key and key.is_plain and table.source.has(key.columns):
                _mark_taken(search, table, key)
    _mark_orphans(search)


def _mark_taken(search: Search, table: Involved, key: UniqueKey) -> None:
    values = sql.SQL("SELECT {} FROM {} AS t JOIN {} AS f ON {} WHERE {} AND {}").format(
        fields("t", key.columns, renamed=numbered(len(key.columns))),
        table.past,
        table.found,
        same_key("f", table.source.key, "t"),
        states.among(states.COMING),
        all_set("t", key.columns),
    )
    with search.candidates(values) as (rows, many):
        if not many:
            return
        query = sql.SQL("SELECT {} FROM {} AS c").format(fields("c", numbered(len(key.columns))), rows)
        lookup = by_key(table.source, table.target, key, query)
        # What is missing has no row of its own there.
        itself: sql.Composable = sql.SQL("false")
        if not table.target.keyless:
            lookup = replace(lookup, also=table.target.key.columns)
            itself = equal("p", numbered(len(table.k), "a"), table.target.key.equals, "f", table.k)
        with search.present(lookup, many, f"values of {key.name}") as present:
            search.run(
                "UPDATE {found} AS f SET {conflict}, kind = 'taken', why = {why} FROM {past} AS t"
                " WHERE {coming} AND {same}"
                " AND EXISTS (SELECT FROM {present} AS p WHERE {taken} AND NOT ({itself}))",
                found=table.found,
                conflict=states.DEMOTED,
                why=sql.Literal(f"another row has its value of {shown(key.name)} ({', '.join(key.columns)}) now"),
                past=table.past,
                coming=states.among(states.COMING),
                same=same_key("f", table.source.key, "t"),
                present=present,
                taken=equal("p", numbered(len(key.columns)), key.equals, "t", key.columns),
                itself=itself,
            )


def _mark_orphans(search: Search) -> None:
    """A parent that is in conflict takes its children with it, so this goes on until nothing changes."""
    with ExitStack() as kept:
        ties = [
            (table, tie, _parents_there(search, kept, table, tie))
            for table in search.involved.values()
            for tie in table.target.parents
            if table.source.has(tie.child_columns)
        ]
        while sum(_mark_orphans_of(search, table, tie, there) for table, tie, there in ties):
            pass


def _coming(search: Search, tie: ForeignKey, child: str) -> sql.Composable:
    """Whether the row that `child` points at is among the found ones that come back."""
    parent = search.involved.get(tie.parent)
    if parent is None or not parent.source.has(tie.parent_columns):
        return sql.SQL("false")
    return sql.SQL("EXISTS (SELECT FROM {} AS p JOIN {} AS g ON {} WHERE {} AND {})").format(
        parent.past,
        parent.found,
        same_key("g", parent.source.key, "p"),
        states.among(states.COMING, "g"),
        points_at(child, tie, "p"),
    )


def _parents_there(search: Search, kept: ExitStack, table: Involved, tie: ForeignKey) -> sql.Identifier | None:
    """A table of what the missing rows point at and production has; None if they point at nothing but what comes back
    with them.
    """
    names = numbered(len(tie.child_columns))
    values = sql.SQL("SELECT DISTINCT {} FROM {} AS t JOIN {} AS f ON {} WHERE {} AND {} AND NOT {}").format(
        fields("t", tie.child_columns, renamed=names),
        table.past,
        table.found,
        same_key("f", table.source.key, "t"),
        states.among(states.COMING),
        all_set("t", tie.child_columns),
        _coming(search, tie, "t"),
    )
    rows, many = kept.enter_context(search.candidates(values))
    if not many:
        return None
    query = sql.SQL("SELECT {} FROM {} AS c").format(fields("c", names), rows)
    lookup = by_reference(table.source, search.in_production(tie.parent), tie, query)
    return kept.enter_context(search.present(lookup, many, f"rows that {tie} points at"))


def _mark_orphans_of(search: Search, table: Involved, tie: ForeignKey, there: sql.Identifier | None) -> int:
    stays: sql.Composable = sql.SQL("true")
    if there:
        points = equal("h", numbered(len(tie.child_columns)), tie.equals, "t", tie.child_columns)
        stays = sql.SQL("NOT EXISTS (SELECT FROM {} AS h WHERE {})").format(there, points)
    return search.run(
        "UPDATE {found} AS f SET {conflict}, kind = 'orphan', why = {why} FROM {past} AS t"
        " WHERE {due} AND {same} AND {pointing} AND {stays} AND NOT {coming}",
        found=table.found,
        conflict=states.DEMOTED,
        why=sql.Literal(f"the row of {tie.parent} that it points at is missing too and does not come back with it"),
        past=table.past,
        due=states.among(states.COMING),
        same=same_key("f", table.source.key, "t"),
        pointing=all_set("t", tie.child_columns),
        stays=stays,
        coming=_coming(search, tie, "t"),
    )


def also_lost(search: Search) -> tuple[AlsoLost, ...]:
    """Rows that are missing, pointed at rows found, and do not come back.

    Without a cascade they were deleted before the row they pointed at. With one, that row is there again under its key,
    as something else: then nobody can say whether they went with the first or were deleted since.
    """
    deleted = (*states.RETURNING, *states.DOUBTED)
    plain = ((parent, tie, deleted) for parent, tie in search.ties_to_found(("no action", "restrict")))
    cascades = ((parent, tie, states.DOUBTED) for parent, tie in search.ties_to_found(("cascade",)))
    ties = [*plain, *cascades]
    found = (_also_lost(search, parent, tie, which) for parent, tie, which in ties)
    return tuple(lost for lost in found if lost)


def _also_lost(search: Search, parent: Involved, tie: ForeignKey, which: tuple[str, ...]) -> AlsoLost | None:
    child = search.involved.get(tie.child)
    if child and child.whole:
        return None  # all its rows were looked at
    unknown: sql.Composable = sql.SQL("true")
    if child:
        unknown = sql.SQL("NOT {}").format(child.is_known("c"))
    source, target = search.pair(tie.child)
    certain = target is None or can_look_up(source, target)
    if target is None or not certain:
        count = search.count_pointing(parent, tie, unknown, which)
    else:
        query = search.pointing(parent, tie, source.key.columns, unknown, which)
        count = _count_absent(search, query, tie, source, target)
    return AlsoLost(table=tie.child, foreign_key=tie.name, count=count, certain=certain) if count else None


def _count_absent(search: Search, pointing: sql.Composed, tie: ForeignKey, source: Table, target: Table) -> int:
    with search.candidates(pointing) as (rows, many):
        if not many:
            return 0
        query = sql.SQL("SELECT {} FROM {} AS c").format(fields("c", numbered(len(source.key.columns))), rows)
        with search.present(by_key(source, target, target.key, query), many, f"rows of {tie.child}") as present:
            return search.count(
                sql.SQL("{} AS c WHERE NOT EXISTS (SELECT FROM {} AS p WHERE {})").format(
                    rows, present, same_numbers("p", target.key, "c")
                )
            )
