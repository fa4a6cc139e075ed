"""Reading tables from the system catalogs: by exact name, with parameters, and never through the search path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, LiteralString

from psycopg.rows import dict_row

from runbooks.clients.postgres import Connection, translated
from runbooks.model.errors import NotFound, UsageFault
from runbooks.model.nearest import nearest
from runbooks.rows.names import AskedName, TableName
from runbooks.rows.shape import Table

_READ_ONLY = "the catalogs were only read; nothing was changed"


def resolve(conn: Connection, asked: Iterable[AskedName]) -> tuple[TableName, ...]:
    """The table behind each name, once each, in the order asked. NotFound, with the nearest names, for one that does
    not exist; UsageFault for one that exists in several schemas.
    """
    found = tuple(_resolve(conn, name) for name in asked)
    return tuple(dict.fromkeys(found))


def all_tables(conn: Connection) -> tuple[TableName, ...]:
    """Every table and view of the application."""
    return tuple(
        TableName(row["schema"], row["name"])
        for row in _rows(
            conn,
            "SELECT n.nspname AS schema, c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n"
            " ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')"
            " AND n.nspname <> 'information_schema' AND n.nspname <> 'bloom_dr' AND n.nspname !~ '^pg_'",
        )
    )


def _resolve(conn: Connection, asked: AskedName) -> TableName:
    known = all_tables(conn)
    fitting = [table for table in known if table.name == asked.name and asked.schema in (None, table.schema)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageFault(
            f"the name {asked} means {len(fitting)} tables: {', '.join(map(str, sorted(fitting)))}",
            safe=_READ_ONLY,
            next_step="give the name with its schema",
        )
    close = nearest(
        str(asked), [str(table) for table in known] + [str(AskedName(None, t.name)) for t in known], count=3
    )
    raise NotFound(
        f"there is no table {asked}" + (f"; the nearest names are {', '.join(close)}" if close else ""),
        safe=_READ_ONLY,
        next_step='correct the name; one with capital letters or spaces is written as "Invoice Items"',
    )


def describe(conn: Connection, name: TableName) -> Table | None:
    """Everything recovery needs to know of the table; None if there is no such table."""
    with translated(f"read the definition of {name}", safe=_READ_ONLY):
        head = next(iter(_rows(conn, _HEAD, name.schema, name.name)), None)
        if head is None:
            return None
        oid, tree = head["oid"], head["tree"]
        ties = list(_rows(conn, _FOREIGN_KEYS, tree, tree, tree, tree))
        return Table(
            name=name,
            **head,
            columns=tuple(_rows(conn, _COLUMNS, oid, oid)),
            keys=tuple(_rows(conn, _UNIQUE_KEYS, oid)),
            parents=tuple(tie["key"] for tie in ties if tie["outgoing"]),
            children=tuple(tie["key"] for tie in ties if tie["incoming"]),
            triggers=tuple(_rows(conn, _TRIGGERS, tree)),
            sequences=tuple(_rows(conn, _SEQUENCES, oid, oid)),
        )


def _rows(conn: Connection, query: LiteralString, *values: object) -> Iterable[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, values).fetchall()


_HEAD = """
SELECT c.oid::bigint AS oid, c.relkind::text AS kind,
       c.relpersistence = 'u' AS unlogged, c.relpersistence = 't' AS temporary, c.relispartition AS is_partition,
       ARRAY(SELECT jsonb_build_object('schema', hn.nspname, 'name', h.relname)
             FROM pg_inherits AS i JOIN pg_class AS h ON h.oid = i.inhrelid JOIN pg_namespace AS hn
               ON hn.oid = h.relnamespace
             WHERE c.relkind = 'r' AND i.inhparent = c.oid ORDER BY hn.nspname, h.relname) AS heirs,
       c.relhasrules AS has_rules, row_security_active(c.oid) AS hides_rows,
       pg_get_userbyid(c.relowner)::text AS owner, pg_has_role(c.relowner, 'USAGE') AS ours,
       t.oids AS tree,
       EXISTS (SELECT FROM pg_class AS leaf WHERE leaf.oid = ANY (t.oids) AND leaf.relkind = 'f') AS foreign_partitions,
       ARRAY(SELECT p.name FROM unnest(ARRAY['select', 'insert', 'update', 'delete']) AS p (name)
             WHERE has_table_privilege(c.oid, p.name)) AS privileges
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT ARRAY(SELECT c.oid::bigint UNION SELECT p.relid::oid::bigint FROM pg_partition_tree(c.oid) AS p
                 ORDER BY 1)) AS t (oids)
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
"""

# reach: every type that a value of the column can contain.
_COLUMNS = """
WITH RECURSIVE reach (attnum, typid) AS (
    SELECT attnum, atttypid FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
    UNION
    SELECT r.attnum, inner_type.oid
    FROM reach AS r JOIN pg_type AS t ON t.oid = r.typid
    CROSS JOIN LATERAL (
        SELECT t.typelem WHERE t.typelem <> 0
        UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL SELECT rngsubtype FROM pg_range WHERE t.oid IN (rngtypid, rngmultitypid)
        UNION ALL SELECT f.atttypid FROM pg_attribute AS f
                  WHERE t.typtype = 'c' AND f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped
    ) AS inner_type (oid)
), part (attnum, said) AS (
    SELECT r.attnum, format('label %%L of %%s', e.enumlabel, format_type(r.typid, NULL))
    FROM reach AS r JOIN pg_enum AS e ON e.enumtypid = r.typid
    UNION ALL
    SELECT r.attnum, format('%%s as a domain over %%s', format_type(r.typid, NULL),
                            format_type(t.typbasetype, t.typtypmod))
    FROM reach AS r JOIN pg_type AS t ON t.oid = r.typid AND t.typtype = 'd'
    UNION ALL
    SELECT r.attnum, format('%%s as a record of (%%s)', format_type(r.typid, NULL),
                            string_agg(format('%%I %%s', f.attname, format_type(f.atttypid, f.atttypmod)), ', '
                                       ORDER BY f.attnum))
    FROM reach AS r JOIN pg_type AS t ON t.oid = r.typid AND t.typtype = 'c'
    JOIN pg_attribute AS f ON f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped
    GROUP BY r.attnum, r.typid
)
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       tn.nspname AS type_schema, t.typname AS type_name,
       a.attnotnull OR t.typnotnull AS not_null,
       a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL AS has_default,
       CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END AS generated,
       a.attidentity = 'a' AS always,
       ARRAY(SELECT DISTINCT p.said FROM part AS p WHERE p.attnum = a.attnum ORDER BY p.said) AS parts
FROM pg_attribute AS a
JOIN pg_type AS t ON t.oid = a.atttypid JOIN pg_namespace AS tn ON tn.oid = t.typnamespace
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

# The equality of a column is strategy 3 of the B-tree family its index uses; other access methods give none.
_UNIQUE_KEYS = """
SELECT c.relname AS name, i.indisprimary AS primary, i.indpred IS NOT NULL AS partial, i.indimmediate AS immediate,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, n, true) FROM generate_series(1, i.indnkeyatts) AS n) AS expressions,
       pg_get_expr(i.indpred, i.indrelid) AS predicate,
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_equal,
       CASE WHEN i.indexprs IS NULL THEN part.columns ELSE '[]' END AS columns,
       CASE WHEN i.indisexclusion THEN '[]' ELSE part.equals END AS equals
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(a.attname ORDER BY k.n) FILTER (WHERE a.attname IS NOT NULL), '[]') AS columns,
           coalesce(jsonb_agg(jsonb_build_object('namespace', onsp.nspname, 'name', o.oprname) ORDER BY k.n)
                    FILTER (WHERE o.oid IS NOT NULL), '[]') AS equals
    FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, n)
    LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum <> 0
    LEFT JOIN pg_opclass AS oc ON oc.oid = i.indclass[k.n - 1]
    LEFT JOIN pg_amop AS ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype
        AND ao.amoprighttype = oc.opcintype AND ao.amopstrategy = 3 AND ao.amopmethod = 403
    LEFT JOIN pg_operator AS o ON o.oid = ao.amopopr LEFT JOIN pg_namespace AS onsp ON onsp.oid = o.oprnamespace
    WHERE k.n <= i.indnkeyatts
) AS part
WHERE i.indrelid = %s AND (i.indisunique OR i.indisexclusion) AND i.indisvalid
ORDER BY i.indisprimary DESC, c.relname
"""

# conparentid: copies that partitioning made of a key are left out. to_jsonb: columns that older servers lack.
_FOREIGN_KEYS = """
SELECT con.conrelid = ANY (%s::oid[]) AS outgoing, con.confrelid = ANY (%s::oid[]) AS incoming,
       jsonb_build_object(
           'name', con.conname,
           'child', jsonb_build_object('schema', cn.nspname, 'name', c.relname),
           'parent', jsonb_build_object('schema', pn.nspname, 'name', p.relname),
           'child_columns', names.child, 'parent_columns', names.parent, 'equals', names.equals,
           'cleared', names.cleared,
           'on_delete', CASE con.confdeltype WHEN 'a' THEN 'no action' WHEN 'r' THEN 'restrict' WHEN 'c' THEN 'cascade'
                                             WHEN 'n' THEN 'set null' WHEN 'd' THEN 'set default' END,
           'on_partition', c.relispartition OR p.relispartition,
           'period', coalesce((to_jsonb(con) ->> 'conperiod')::boolean, false),
           'child_partitioned', c.relkind = 'p', 'parent_partitioned', p.relkind = 'p') AS key
FROM pg_constraint AS con
JOIN pg_class AS c ON c.oid = con.conrelid JOIN pg_namespace AS cn ON cn.oid = c.relnamespace
JOIN pg_class AS p ON p.oid = con.confrelid JOIN pg_namespace AS pn ON pn.oid = p.relnamespace
CROSS JOIN LATERAL (
    SELECT jsonb_agg(ca.attname ORDER BY k.n) AS child, jsonb_agg(pa.attname ORDER BY k.n) AS parent,
           jsonb_agg(jsonb_build_object('namespace', onsp.nspname, 'name', o.oprname) ORDER BY k.n) AS equals,
           jsonb_agg(ca.attname ORDER BY k.n) FILTER (WHERE set_columns.list IS NULL
               OR set_columns.list @> to_jsonb(k.child)) AS cleared
    FROM ROWS FROM (unnest(con.conkey), unnest(con.confkey), unnest(con.conpfeqop))
        WITH ORDINALITY AS k (child, parent, operator, n)
    JOIN pg_attribute AS ca ON ca.attrelid = con.conrelid AND ca.attnum = k.child
    JOIN pg_attribute AS pa ON pa.attrelid = con.confrelid AND pa.attnum = k.parent
    JOIN pg_operator AS o ON o.oid = k.operator JOIN pg_namespace AS onsp ON onsp.oid = o.oprnamespace
    CROSS JOIN LATERAL (SELECT nullif(to_jsonb(con) -> 'confdelsetcols', 'null')) AS set_columns (list)
) AS names
WHERE con.contype = 'f' AND con.conparentid = 0 AND coalesce((to_jsonb(con) ->> 'conenforced')::boolean, true)
  AND (con.conrelid = ANY (%s::oid[]) OR con.confrelid = ANY (%s::oid[]))
ORDER BY cn.nspname, c.relname, con.conname
"""

# tgtype: row 1, before 2, insert 4, delete 8, update 16, truncate 32, instead of 64.
_TRIGGERS = """
SELECT jsonb_build_object('schema', n.nspname, 'name', c.relname) AS table, t.tgname AS name,
       CASE t.tgenabled WHEN 'A' THEN 'always' ELSE 'origin' END AS fires,
       CASE WHEN t.tgtype & 64 <> 0 THEN 'instead of' WHEN t.tgtype & 2 <> 0 THEN 'before' ELSE 'after' END AS timing,
       ARRAY(SELECT e.name FROM (VALUES (4, 'insert'), (16, 'update'), (8, 'delete'), (32, 'truncate')) AS e (bit, name)
             WHERE t.tgtype & e.bit <> 0) AS events,
       CASE WHEN t.tgtype & 1 <> 0 THEN 'row' ELSE 'statement' END AS level,
       t.tgfoid::regprocedure::text AS function, pg_has_role(c.relowner, 'USAGE') AND NOT t.tgisinternal AS ours
FROM pg_trigger AS t
JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE t.tgrelid = ANY (%s::oid[]) AND t.tgenabled IN ('O', 'A') AND (NOT t.tgisinternal
      -- Up to version 14 a partition's copy of a user's trigger is internal, and only a superuser switches it off.
      OR t.tgparentid <> 0
         AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.oid = t.tgconstraint AND k.contype <> 't'))
ORDER BY n.nspname, c.relname, t.tgname
"""

_SEQUENCES = """
SELECT jsonb_build_object('schema', n.nspname, 'name', c.relname) AS name, a.attname AS column,
       s.seqincrement AS increment, s.seqmin AS least, s.seqmax AS greatest, s.seqcycle AS cycles,
       a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype) AS integers,
       pg_has_role(c.relowner, 'USAGE') AS ours
FROM (
    SELECT d.objid AS seq, d.refobjid AS rel, d.refobjsubid AS attnum FROM pg_depend AS d
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
      AND d.refobjid = %s AND d.refobjsubid > 0
    UNION
    SELECT d.refobjid, ad.adrelid, ad.adnum FROM pg_attrdef AS ad
    JOIN pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = ad.oid
        AND d.refclassid = 'pg_class'::regclass
    WHERE ad.adrelid = %s
) AS fed
JOIN pg_sequence AS s ON s.seqrelid = fed.seq
JOIN pg_class AS c ON c.oid = fed.seq JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = fed.rel AND a.attnum = fed.attnum
ORDER BY 2, n.nspname, c.relname
"""
