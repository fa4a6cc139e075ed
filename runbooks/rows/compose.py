"""Pieces of SQL that every step needs: lists of fields, equality by the right operators, checksums."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from runbooks.rows.shape import COPIES, ForeignKey, Operator, UniqueKey

SCRATCH = "bloom_dr"
"""Our own schema on the recovery branch; production never gets one."""


def scratch(name: str) -> sql.Identifier:
    """A table of ours on the branch."""
    return sql.Identifier(SCRATCH, name)


def numbered(count: int, letter: str = "k") -> tuple[str, ...]:
    """k1, k2, ...: names that no column of an application can clash with."""
    return tuple(f"{letter}{number}" for number in range(1, count + 1))


def fields(alias: str | None, names: Sequence[str], *, renamed: Sequence[str] | None = None) -> sql.Composed:
    """`a.x, a.y`, or with new names `a.x AS k1, a.y AS k2`."""
    prefix = (alias,) if alias else ()
    columns = [sql.Identifier(*prefix, name) for name in names]
    if renamed is None:
        return sql.SQL(", ").join(columns)
    pairs = zip(columns, renamed, strict=True)
    return sql.SQL(", ").join(sql.SQL("{} AS {}").format(column, sql.Identifier(new)) for column, new in pairs)


def equal(
    left: str, left_names: Sequence[str], operators: Sequence[Operator], right: str, right_names: Sequence[str]
) -> sql.Composed:
    """`left.x = right.y AND ...`, each with its own operator."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} {} {}").format(sql.Identifier(left, one), operator.sql, sql.Identifier(right, other))
        for one, operator, other in zip(left_names, operators, right_names, strict=True)
    )


def key_types(alias: str, key: UniqueKey) -> sql.Composed:
    """Columns k1, k2, ... of the types of the key, for a table of ours that is made empty from `alias`."""
    if key == COPIES:
        return sql.Composed([sql.SQL("''::text AS k1, 0::bigint AS k2")])
    return fields(alias, key.columns, renamed=numbered(len(key.columns)))


def same_value(left: str, key: UniqueKey, right: str, names: Sequence[str]) -> sql.Composed:
    """Two rows have the same value of a unique key, by its own idea of NULL; `names` hold its columns on both sides."""
    if not key.nulls_equal:
        return equal(left, names, key.equals, right, names)
    return sql.SQL(" AND ").join(
        sql.SQL("({l} {is_equal} {r} OR {l} IS NOT DISTINCT FROM NULL AND {r} IS NOT DISTINCT FROM NULL)").format(
            l=sql.Identifier(left, name), is_equal=operator.sql, r=sql.Identifier(right, name)
        )
        for name, operator in zip(names, key.equals, strict=True)
    )


def same_key(ours: str, key: UniqueKey, theirs: str) -> sql.Composed:
    """Row `theirs` of the table has the key k1, k2, ... of our row `ours`."""
    return equal(theirs, key.columns, key.equals, ours, numbered(len(key.columns)))


def same_numbers(one: str, key: UniqueKey, other: str) -> sql.Composed:
    """Two of our own rows hold the same key."""
    names = numbered(len(key.columns))
    return equal(one, names, key.equals, other, names)


def points_at(child: str, tie: ForeignKey, parent: str) -> sql.Composed:
    """Row `child` references row `parent` (never true where a column is null)."""
    return equal(parent, tie.parent_columns, tie.equals, child, tie.child_columns)


def all_set(alias: str, names: Sequence[str]) -> sql.Composed:
    """None of the columns is null; a composite value with null fields is not null."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} IS DISTINCT FROM NULL").format(sql.Identifier(alias, name)) for name in names
    )


def row_text(alias: str, names: Sequence[str]) -> sql.Composed:
    """The row as PostgreSQL writes it, each field by its type's output function."""
    return sql.SQL("ROW({})::text").format(fields(alias, names))


def digest(alias: str, names: Sequence[str]) -> sql.Composed:
    return sql.SQL("md5({})").format(row_text(alias, names))


def checksum(text: sql.Composable) -> sql.Composed:
    """An aggregate over rows that does not depend on their order: the sum of 64 bits of each text's MD5."""
    return sql.SQL("coalesce(sum(('x' || left(md5({}), 16))::bit(64)::bigint::numeric), 0)").format(text)
