"""The checks of integrity.py, one sort after the other: each a query that answers a sentence if something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from psycopg import sql

from runbooks.clients.postgres import Connection

Checks = Callable[[Connection], Iterator[tuple[str, sql.Composed]]]

_FOREIGN_KEYS = """
SELECT format('%I on %s', k.conname, k.conrelid::regclass), n.nspname, c.relname, c.relkind = 'p',
       pn.nspname, pc.relname, pc.relkind = 'p', k.confmatchtype = 'f',
       (SELECT array_agg(a.attname::text ORDER BY u.n) FROM unnest(k.conkey) WITH ORDINALITY AS u (num, n)
        JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.num),
       (SELECT array_agg(a.attname::text ORDER BY u.n) FROM unnest(k.confkey) WITH ORDINALITY AS u (num, n)
        JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.num),
       (SELECT array_agg(ARRAY[s.nspname::text, o.oprname::text] ORDER BY u.n)
        FROM unnest(k.conpfeqop) WITH ORDINALITY AS u (op, n)
        JOIN pg_operator AS o ON o.oid = u.op JOIN pg_namespace AS s ON s.oid = o.oprnamespace)
FROM pg_constraint AS k
JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_class AS pc ON pc.oid = k.confrelid JOIN pg_namespace AS pn ON pn.oid = pc.relnamespace
WHERE k.contype = 'f' AND k.convalidated AND k.conparentid = 0
ORDER BY 1
"""


def _foreign_keys(conn: Connection) -> Iterator[tuple[str, sql.Composed]]:
    """As PostgreSQL's own RI_Initial_Check."""
    for name, schema, table, split, p_schema, p_table, p_split, full, columns, p_columns, operators in conn.execute(
        _FOREIGN_KEYS
    ).fetchall():
        mine = [sql.SQL("f.{}").format(sql.Identifier(column)) for column in columns]
        other = [sql.SQL("p.{}").format(sql.Identifier(column)) for column in p_columns]
        same = [
            sql.SQL("{} OPERATOR({}.{}) {}").format(theirs, sql.Identifier(place), sql.SQL(operator), ours)
            for ours, theirs, (place, operator) in zip(mine, other, operators, strict=True)
        ]
        filled = [sql.SQL("{} IS NOT NULL").format(column) for column in mine]
        yield (
            name,
            sql.SQL(
                "SELECT 'a row of ' || {} || ' has no parent' FROM {} {} AS f LEFT JOIN {} {} AS p ON {}"
                " WHERE {} IS NULL AND ({}) LIMIT 1"
            ).format(
                sql.Literal(f"{schema}.{table}"),
                sql.SQL("" if split else "ONLY"),
                sql.Identifier(schema, table),
                sql.SQL("" if p_split else "ONLY"),
                sql.Identifier(p_schema, p_table),
                sql.SQL(" AND ").join(same),
                other[0],
                sql.SQL(" OR " if full else " AND ").join(filled),
            ),
        )


_UNIQUE = """
SELECT i.indexrelid::regclass::text, n.nspname, c.relname,
       (SELECT array_agg(pg_get_indexdef(i.indexrelid, g, true) ORDER BY g)
        FROM generate_series(1, i.indnkeyatts) AS g),
       pg_get_expr(i.indpred, i.indrelid, true), {nulls}
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE i.indisunique AND i.indisvalid AND c.relkind IN ('r', 'm') AND c.relispopulated
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 1
"""


def _unique(conn: Connection) -> Iterator[tuple[str, sql.Composed]]:
    """By the rows, not by the index. Key expressions and predicates are the server's own spelling of them."""
    nulls = sql.SQL("i.indnullsnotdistinct" if conn.info.server_version >= 150000 else "false")
    for name, schema, table, keys, predicate, nulls_alike in conn.execute(
        sql.SQL(_UNIQUE).format(nulls=nulls)
    ).fetchall():
        terms = [_raw(f"({key})") for key in keys]
        where: list[sql.Composable] = []
        if not nulls_alike:
            where += [sql.SQL("{} IS NOT NULL").format(term) for term in terms]
        if predicate:
            where.append(_raw(f"({predicate})"))
        yield (
            name,
            sql.SQL("SELECT 'a key is there twice' FROM ONLY {} {} GROUP BY {} HAVING count(*) > 1 LIMIT 1").format(
                sql.Identifier(schema, table),
                sql.SQL("WHERE {}").format(sql.SQL(" AND ").join(where)) if where else sql.SQL(""),
                sql.SQL(", ").join(terms),
            ),
        )


_CHECK_CONSTRAINTS = """
SELECT format('%I on %s', k.conname, k.conrelid::regclass), n.nspname, c.relname,
       pg_get_expr(k.conbin, k.conrelid, true)
FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE k.contype = 'c' AND k.convalidated AND c.relkind = 'r'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 1
"""


def _checks(conn: Connection) -> Iterator[tuple[str, sql.Composed]]:
    for name, schema, table, expression in conn.execute(_CHECK_CONSTRAINTS).fetchall():
        yield (
            name,
            sql.SQL("SELECT 'a row does not fulfil it' FROM ONLY {} WHERE NOT ({}) LIMIT 1").format(
                sql.Identifier(schema, table), _raw(expression)
            ),
        )


_SEQUENCES = """
SELECT s.oid::regclass::text, sn.nspname, s.relname, n.nspname, c.relname, a.attname, q.seqincrement > 0
FROM pg_depend AS d
JOIN pg_class AS s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_namespace AS sn ON sn.oid = s.relnamespace
JOIN pg_sequence AS q ON q.seqrelid = s.oid
JOIN pg_class AS c ON c.oid = d.refobjid JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
JOIN pg_type AS t ON t.oid = a.atttypid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
  AND t.typcategory = 'N' AND NOT q.seqcycle
ORDER BY 1
"""


def _sequences(conn: Connection) -> Iterator[tuple[str, sql.Composed]]:
    for name, s_schema, sequence, schema, table, column, upwards in conn.execute(_SEQUENCES).fetchall():
        extreme, behind = ("max", "<") if upwards else ("min", ">")
        yield (
            name,
            sql.SQL(
                "SELECT 'it stands at ' || s.last_value || ', and ' || t.id || ' is in use' FROM {} AS s,"
                " (SELECT {}({}) AS id FROM {}) AS t"
                " WHERE s.last_value {} t.id OR (s.last_value = t.id AND NOT s.is_called)"
            ).format(
                sql.Identifier(s_schema, sequence),
                sql.SQL(extreme),
                sql.Identifier(column),
                sql.Identifier(schema, table),
                sql.SQL(behind),
            ),
        )


def _views(conn: Connection) -> Iterator[tuple[str, sql.Composed]]:
    rows = conn.execute("SELECT oid::regclass::text, oid FROM pg_class WHERE relkind = 'm' ORDER BY 1").fetchall()
    for name, oid in rows:
        yield (
            name,
            sql.SQL(
                "SELECT 'it has no data (never refreshed)' FROM pg_class WHERE oid = {} AND NOT relispopulated"
            ).format(oid),
        )


def _indexes(conn: Connection) -> Iterator[tuple[str, sql.Composed]]:
    rows = conn.execute(
        "SELECT i.indexrelid::regclass::text, i.indexrelid FROM pg_index AS i"
        " JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname !~ '^pg_' ORDER BY 1"
    ).fetchall()
    for name, oid in rows:
        yield (
            name,
            sql.SQL(
                "SELECT 'it is not valid' FROM pg_index WHERE indexrelid = {} AND NOT (indisvalid AND indisready)"
            ).format(oid),
        )


CHECKS: tuple[tuple[str, Checks], ...] = (
    ("foreign key", _foreign_keys),
    ("unique index", _unique),
    ("check", _checks),
    ("sequence", _sequences),
    ("materialized view", _views),
    ("index", _indexes),
)


def _raw(text: str) -> sql.SQL:
    """An expression as the server itself has just spelled it."""
    return sql.SQL(text)
