"""Pointers that the delete cut off (ON DELETE SET NULL, SET DEFAULT): set again where nobody has set them since."""

from __future__ import annotations

import re
from collections.abc import Iterator

from psycopg import sql

from runbooks.rows import amendments, states
from runbooks.rows.compose import fields, numbered, points_at, row_text, same_key, same_numbers, scratch
from runbooks.rows.fit import amend_obstacles, can_look_up
from runbooks.rows.found import Amendment, Loose
from runbooks.rows.listed import listed
from runbooks.rows.presence import by_key, find_digests
from runbooks.rows.search import Involved, Search
from runbooks.rows.shape import ForeignKey, Table

_ELSEWHERE = "set to something else since, and left so"
_NOT_BACK = "the row they pointed at does not come back"

_CONSTANT = re.compile(
    r"""-?\d+(\.\d+)?|'([^']|'')*'(::[\w ."\[\]()]+)?|\(-\d+\)(::[\w ."]+)?|NULL(::[\w ."]+)?|true|false"""
)
"""A default that is the same whenever it is asked for, as the server prints it."""


def pointers(search: Search) -> tuple[tuple[Amendment, ...], tuple[Loose, ...]]:
    """The pointers to be set again, and those that are not."""
    mended: list[Amendment] = []
    loose: list[Loose] = []
    for parent, tie in search.ties_to_found(("set null", "set default")):
        for one in _look_at(search, parent, tie):
            (mended if isinstance(one, Amendment) else loose).append(one)  # type: ignore[arg-type]
    return tuple(mended), tuple(loose)


def _look_at(search: Search, parent: Involved, tie: ForeignKey) -> Iterator[Amendment | Loose]:
    source, target = search.pair(tie.child)
    count = search.count(_pointing(parent, tie))
    if not count:
        return
    if target is None:
        yield _loose(tie, count, why="the table is not in production any more", certain=False)
        return
    if set(tie.cleared) & set(source.key.columns):
        yield _loose(tie, count, why="the pointer is part of its row's key, which is another one by now", certain=False)
        return
    obstacles = _obstacles(search, source, target, tie)
    if not can_look_up(source, target) or not target.has(tie.child_columns):
        why = f"they cannot be looked up in production: {'; '.join(obstacles)}"
        yield _loose(tie, count, why=why, certain=False)
        return
    default = _default(search, tie)
    k, v = numbered(len(source.key.columns)), numbered(len(tie.cleared), "v")
    # Columns of the key that it shares with another foreign key may have been cleared through that one.
    shared = tuple(name for name in tie.child_columns if name not in tie.cleared)
    query = sql.SQL(
        "SELECT {}, {}, {} AS returns, md5({}) AS held, md5({}) AS cut, md5({}) AS shared, md5({}) AS unset FROM {}"
    ).format(
        fields("c", source.key.columns, renamed=k),
        fields("c", tie.cleared, renamed=v),
        states.among(states.RETURNING),
        row_text("c", tie.cleared),
        _as_cut("c", source, tie, default),
        row_text("c", shared),
        sql.SQL("ROW({})::text").format(sql.SQL(", ").join([sql.SQL("NULL")] * len(shared))),
        _pointing(parent, tie),
    )
    with search.candidates(query) as (rows, many):
        now = scratch(f"pointers_{search.number()}")
        keys = sql.SQL("SELECT {} FROM {} AS c").format(fields("c", k), rows)
        find_digests(
            search.snapshot,
            search.branch,
            by_key(source, target, target.key, keys),
            sql.SQL("concat(md5({}), md5({}))").format(row_text("t", tie.cleared), row_text("t", shared)),
            into=now,
            many=many,
            progress=lambda done, due: search.tell(
                f"pointers of {tie.child}: {done:,} of about {max(done, due):,} rows"
            ),
        )
        there = sql.SQL("{} AS c JOIN {} AS p ON {}").format(rows, now, same_numbers("p", target.key, "c"))
        whole = search.involved.get(tie.child)
        if whole:  # a row that is set back has its pointers with it; of one in conflict, a person decides as a whole
            there = sql.SQL("{} AND NOT EXISTS (SELECT FROM {} AS d WHERE ({} OR d.kind <> 'later') AND {})").format(
                there, whole.found, states.among(states.SET_BACK, "d"), same_numbers("d", target.key, "c")
            )
        cut = sql.SQL(
            "{} WHERE left(p.digest, 32) = c.cut AND c.cut <> c.held AND right(p.digest, 32) IN (c.shared, c.unset)"
        ).format(there)
        if obstacles or default is None:
            why = "; ".join(obstacles) or "what the delete set them to is not a constant"
            yield from _listed(search, tie, cut, k, why)
        else:
            mended = sql.SQL("SELECT {}, {}, c.cut AS seen FROM {} AND c.returns").format(
                fields("c", k), fields("c", v), cut
            )
            found = amendments.keep(search, source, target, mended, columns=tie.cleared, guarded=tie.cleared, tie=tie)
            if found:
                yield found
            yield from _listed(search, tie, sql.SQL("{} AND NOT c.returns").format(cut), k, _NOT_BACK)
        elsewhere = sql.SQL(
            "{} WHERE left(p.digest, 32) NOT IN (c.cut, c.held) OR right(p.digest, 32) NOT IN (c.shared, c.unset)"
        ).format(there)
        yield from _listed(search, tie, elsewhere, k, _ELSEWHERE, settled=True)
        search.run("DROP TABLE {now}", now=now)


def _pointing(parent: Involved, tie: ForeignKey) -> sql.Composed:
    """Rows `c` on the branch that point at found rows `f` which the delete took."""
    return sql.SQL("{} AS c JOIN {} AS p ON {} JOIN {} AS f ON {} WHERE {}").format(
        tie.child_rows,
        parent.then,
        points_at("c", tie, "p"),
        parent.found,
        same_key("f", parent.source.key, "p"),
        states.among(states.TAKEN),
    )


def _obstacles(search: Search, source: Table, target: Table, tie: ForeignKey) -> tuple[str, ...]:
    """Why the pointers cannot be set, if so. A foreign key that is gone in production cleared nothing there."""
    found = list(amend_obstacles(source, target, tie.child_columns))
    always = [name for name in tie.cleared if target.has((name,)) and target.column(name).always]
    found += [f"{name} can only be set by the server" for name in always]
    return tuple(found)


def _default(search: Search, tie: ForeignKey) -> tuple[sql.Composable, ...] | None:
    """What the delete put into each cleared column; None if that cannot be known any more."""
    if tie.on_delete == "set null":
        return tuple(sql.SQL("NULL") for _ in tie.cleared)
    known: dict[str, str] = dict(
        search.branch.execute(_DEFAULTS, (tie.child.schema, tie.child.name, list(tie.cleared))).fetchall()
    )
    values = [known.get(name) or "NULL" for name in tie.cleared]
    if not all(_CONSTANT.fullmatch(value) for value in values):
        return None
    return tuple(sql.SQL(value) for value in values)


def _as_cut(alias: str, source: Table, tie: ForeignKey, default: tuple[sql.Composable, ...] | None) -> sql.Composed:
    """The text of the cleared columns as the delete left them."""
    made = dict(zip(tie.cleared, default or (), strict=False))
    # A default reads as the column's type with its modifiers writes it; that type the server spelled and quoted.
    parts = [
        sql.SQL("CAST({} AS {})").format(made[name], sql.SQL(source.column(name).type))
        if name in made
        else sql.Identifier(alias, name)
        for name in tie.cleared
    ]
    return sql.SQL("ROW({})::text").format(sql.SQL(", ").join(parts))


def _listed(
    search: Search, tie: ForeignKey, rows: sql.Composed, k: tuple[str, ...], why: str, *, settled: bool = False
) -> Iterator[Loose]:
    found = listed(search.branch, rows, "c", k)
    if found.count:
        yield _loose(tie, found.count, found.keys, why=why, settled=settled)


def _loose(
    tie: ForeignKey, count: int, keys: tuple[str, ...] = (), *, why: str, certain: bool = True, settled: bool = False
) -> Loose:
    return Loose(
        table=tie.child,
        foreign_key=tie.name,
        columns=tie.cleared,
        why=why,
        settled=settled,
        count=count,
        certain=certain,
        keys=keys,
    )


# Without a default of its own, a column has that of its domain.
_DEFAULTS = """
SELECT a.attname, coalesce(pg_get_expr(d.adbin, d.adrelid), pg_get_expr(t.typdefaultbin, 0))
FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND a.attname = ANY (%s) AND a.attgenerated = ''
"""
