"""What stands in the way of the rows found, and what their return will not repair.

All of it is as of the survey; the insert looks again. Only our own tables on the branch are changed.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from psycopg import sql

from runbooks.rows.compose import all_set, equal, fields, numbered, points_at, same_key, same_numbers
from runbooks.rows.found import AlsoLost, Conflict, Loose
from runbooks.rows.listed import listed
from runbooks.rows.names import shown
from runbooks.rows.presence import by_key, by_reference
from runbooks.rows.search import Involved, Search
from runbooks.rows.shape import ForeignKey, Table, UniqueKey

_LEFT: tuple[str, ...] = ("missing", "differs")
"""States of rows that the delete took away, whatever stands under their key now."""


def mark_conflicts(search: Search) -> None:
    """Give every found row that cannot come back as it was the state 'conflict' and a reason.

    First rows whose other unique values are in use by other rows now, then, repeatedly, rows that point at something
    that is neither in production nor coming back.
    """
    for table in search.involved.values():
        for key in table.target.keys:
            if not key.primary and key.is_plain and table.source.has(key.columns):
                _mark_taken(search, table, key)
    _mark_orphans(search)


def _mark_taken(search: Search, table: Involved, key: UniqueKey) -> None:
    values = sql.SQL("SELECT {} FROM {} AS t JOIN {} AS f ON {} WHERE f.state = 'missing' AND {}").format(
        fields("t", key.columns, renamed=numbered(len(key.columns))),
        table.source.name.identifier,
        table.found,
        same_key("f", table.source.key, "t"),
        all_set("t", key.columns),
    )
    with search.candidates(values) as (rows, many):
        if not many:
            return
        query = sql.SQL("SELECT {} FROM {} AS c").format(fields("c", numbered(len(key.columns))), rows)
        lookup = by_key(table.source, table.target, key, query)
        with search.present(lookup, many, f"values of {key.name}") as present:
            search.run(
                "UPDATE {found} AS f SET state = 'conflict', why = {why} FROM {source} AS t"
                " WHERE f.state = 'missing' AND {same} AND EXISTS (SELECT FROM {present} AS p WHERE {taken})",
                found=table.found,
                why=sql.Literal(f"another row has its value of {shown(key.name)} ({', '.join(key.columns)}) now"),
                source=table.source.name.identifier,
                same=same_key("f", table.source.key, "t"),
                present=present,
                taken=equal("p", numbered(len(key.columns)), key.equals, "t", key.columns),
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
    return sql.SQL("EXISTS (SELECT FROM {} AS p JOIN {} AS g ON {} WHERE g.state = 'missing' AND {})").format(
        parent.source.name.identifier,
        parent.found,
        same_key("g", parent.source.key, "p"),
        points_at(child, tie, "p"),
    )


def _parents_there(search: Search, kept: ExitStack, table: Involved, tie: ForeignKey) -> sql.Identifier | None:
    """A table of what the missing rows point at and production has; None if they point at nothing but what comes back
    with them.
    """
    names = numbered(len(tie.child_columns))
    values = sql.SQL(
        "SELECT DISTINCT {} FROM {} AS t JOIN {} AS f ON {} WHERE f.state = 'missing' AND {} AND NOT {}"
    ).format(
        fields("t", tie.child_columns, renamed=names),
        table.source.name.identifier,
        table.found,
        same_key("f", table.source.key, "t"),
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
        "UPDATE {found} AS f SET state = 'conflict', why = {why} FROM {source} AS t"
        " WHERE f.state = 'missing' AND {same} AND {pointing} AND {stays} AND NOT {coming}",
        found=table.found,
        why=sql.Literal(f"the row of {tie.parent} that it points at is missing too and does not come back with it"),
        source=table.source.name.identifier,
        same=same_key("f", table.source.key, "t"),
        pointing=all_set("t", tie.child_columns),
        stays=stays,
        coming=_coming(search, tie, "t"),
    )


def conflicts(search: Search) -> tuple[Conflict, ...]:
    """What was marked, by table and reason."""
    return tuple(
        Conflict(table=table.target.name, why=why, **listed(search.branch, rows, "f", table.k).model_dump())
        for table in search.involved.values()
        for (why,) in search.branch.execute(
            sql.SQL("SELECT DISTINCT why FROM {} WHERE state = 'conflict' ORDER BY why").format(table.found)
        )
        for rows in [sql.SQL("{} AS f WHERE state = 'conflict' AND why = {}").format(table.found, why)]
    )


def loose_ends(search: Search) -> tuple[Loose, ...]:
    """Pointers of rows in production that the delete cleared, and that are not set again."""
    ties = _ties_to_found(search, ("set null", "set default"))
    return tuple(loose for parent, tie in ties if (loose := _loose(search, parent, tie)))


def _loose(search: Search, parent: Involved, tie: ForeignKey) -> Loose | None:
    source, target = search.pair(tie.child)
    any_row = sql.SQL("true")
    if target is None or not _can_look_up(source, target):
        count = search.count_pointing(parent, tie, any_row, _LEFT) if target else 0
        return _loose_record(tie, count, certain=False) if count else None
    cleared = None
    if tie.on_delete == "set null":
        cleared = sql.SQL(" AND ").join(sql.SQL("{} IS NULL").format(sql.Identifier("t", name)) for name in tie.cleared)
    with search.candidates(search.pointing(parent, tie, source.key.columns, any_row, _LEFT)) as (rows, many):
        if not many:
            return None
        k = numbered(len(source.key.columns))
        query = sql.SQL("SELECT {} FROM {} AS c").format(fields("c", k), rows)
        lookup = replace(by_key(source, target, target.key, query), condition=cleared)
        with search.present(lookup, many, f"rows of {tie.child} that may have lost a pointer") as present:
            there = sql.SQL("{} AS c WHERE EXISTS (SELECT FROM {} AS p WHERE {})").format(
                rows, present, same_numbers("p", target.key, "c")
            )
            found = listed(search.branch, there, "c", k)
    return _loose_record(tie, found.count, found.keys) if found.count else None


def _loose_record(tie: ForeignKey, count: int, keys: tuple[str, ...] = (), *, certain: bool = True) -> Loose:
    return Loose(table=tie.child, foreign_key=tie.name, columns=tie.cleared, count=count, certain=certain, keys=keys)


def also_lost(search: Search) -> tuple[AlsoLost, ...]:
    """Rows that are missing, pointed at rows found, and do not come back.

    Without a cascade they were deleted before the row they pointed at. With one, that row is there again under its key,
    as something else: then nobody can say whether they went with the first or were deleted since.
    """
    plain = ((parent, tie, _LEFT) for parent, tie in _ties_to_found(search, ("no action", "restrict")))
    cascades = ((parent, tie, _LEFT[1:]) for parent, tie in _ties_to_found(search, ("cascade",)))
    ties = [*plain, *cascades]
    found = (_also_lost(search, parent, tie, states) for parent, tie, states in ties)
    return tuple(lost for lost in found if lost)


def _also_lost(search: Search, parent: Involved, tie: ForeignKey, states: tuple[str, ...]) -> AlsoLost | None:
    child = search.involved.get(tie.child)
    if child and child.whole:
        return None  # all its rows were looked at
    unknown: sql.Composable = sql.SQL("true")
    if child:
        known = same_key("x", child.source.key, "c")
        unknown = sql.SQL("NOT EXISTS (SELECT FROM {} AS x WHERE {})").format(child.found, known)
    source, target = search.pair(tie.child)
    certain = target is None or _can_look_up(source, target)
    if target is None or not certain:
        count = search.count_pointing(parent, tie, unknown, states)
    else:
        query = search.pointing(parent, tie, source.key.columns, unknown, states)
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


def _can_look_up(source: Table, target: Table) -> bool:
    """Whether rows can be found again in production by their key."""
    if target.hides_rows or "select" not in target.privileges:
        return False
    if not (source.primary and target.primary and source.primary.is_plain and target.primary.is_plain):
        return False
    same_type = all(
        source.column(name).type == target.column(name).type for name in source.key.columns if target.has((name,))
    )
    return source.key.columns == target.key.columns and same_type


def _ties_to_found(search: Search, actions: tuple[str, ...]) -> list[tuple[Involved, ForeignKey]]:
    return [
        (parent, tie)
        for parent in search.involved.values()
        for tie in parent.source.children
        if tie.on_delete in actions
    ]
