"""What a dump carries, read from the catalogs of a database: tables and columns to hash, and all that is counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg.rows import class_row

from runbooks.clients.postgres import Connection
from runbooks.model.inventory import Extension, Locale, ObjectCount, TableKind

# pg_dump leaves out the same schemas, and what belongs to an extension but for the rows that its configuration tables
# have gained: CREATE EXTENSION brings the rest.
_TABLES = """
WITH exact AS (
    SELECT unnest(%(exact)s::text[]::regtype[])::oid AS oid
), configured AS (
    SELECT u.relation, u.condition
    FROM pg_extension AS e, unnest(e.extconfig, e.extcondition) AS u (relation, condition)
), member AS (
    SELECT objid FROM pg_depend
    WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
)
SELECT c.oid, n.nspname AS schema, c.relname AS table, format('%%I.%%I', n.nspname, c.relname) AS name,
       c.relkind AS kind, c.relispopulated AS populated, c.relrowsecurity AS row_security,
       coalesce(am.amname = 'heap', false) AS heap,
       CASE WHEN c.relkind IN ('r', 'm') THEN pg_relation_size(c.oid) ELSE 0 END AS heap_bytes,
       CASE WHEN c.relkind IN ('r', 'm') THEN pg_table_size(c.oid) ELSE 0 END AS bytes,
       coalesce(k.condition, '') AS condition,
       (SELECT coalesce(array_agg(ARRAY[a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
                                        a.attgenerated::text, a.attidentity::text]
                                  ORDER BY a.attname COLLATE "C"), '{}')
        FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS definition,
       (SELECT coalesce(array_agg(ARRAY[a.attname::text, CASE WHEN b.exact THEN 'value' ELSE 'text' END]
                                  ORDER BY a.attname COLLATE "C"), '{}')
        FROM pg_attribute AS a
        CROSS JOIN LATERAL (
            WITH RECURSIVE base (oid, type) AS (
                SELECT t.oid, t.typtype FROM pg_type AS t WHERE t.oid = a.atttypid
                UNION ALL
                SELECT t.oid, t.typtype FROM base AS d JOIN pg_type AS p ON p.oid = d.oid
                JOIN pg_type AS t ON t.oid = p.typbasetype WHERE d.type = 'd'
            )
            SELECT d.oid FROM base AS d WHERE d.type <> 'd'
        ) AS d
        CROSS JOIN LATERAL (
            SELECT (d.oid IN (SELECT oid FROM exact)
                    OR EXISTS (SELECT 1 FROM pg_type AS e JOIN exact AS x ON x.oid = e.oid WHERE e.typarray = d.oid))
                   AND NOT EXISTS (SELECT 1 FROM pg_collation AS l
                                   WHERE l.oid = a.attcollation AND NOT l.collisdeterministic) AS exact
        ) AS b
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS columns
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_am AS am ON am.oid = c.relam
LEFT JOIN configured AS k ON k.relation = c.oid
WHERE c.relkind IN ('r', 'p', 'f', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (k.relation IS NOT NULL OR c.oid NOT IN (SELECT objid FROM member))
ORDER BY c.oid
"""

_EXACT = """
    bool "char" name int2 int4 int8 oid float4 float8 numeric text varchar bpchar bytea uuid jsonb
    date time timetz timestamp timestamptz interval inet cidr macaddr macaddr8 pg_lsn xid8
""".split()  # noqa: SIM905 - thirty lines otherwise
"""Types that are hashed as they are. Everything else as text: an enum's hash is that of an oid which a restore
changes, and citext and the like hash different texts alike. None of these depends on the server."""

_KINDS = {
    "r": TableKind.TABLE,
    "p": TableKind.PARTITIONED,
    "f": TableKind.FOREIGN,
    "m": TableKind.MATERIALIZED_VIEW,
}


@dataclass(frozen=True)
class Shape:
    """One table as it is to be hashed."""

    oid: int
    schema: str
    table: str
    name: str
    """Quoted: `public."Order"`."""
    kind: str
    populated: bool
    row_security: bool
    heap: bool
    heap_bytes: int
    bytes: int
    condition: str
    """Of an extension's configuration table: which of its rows are dumped (`WHERE …`)."""
    definition: list[list[str]]
    columns: list[list[str]]
    """Name, and `value` or `text`; in the order of the names, since a restore may change the order in the table."""

    @property
    def table_kind(self) -> TableKind:
        return _KINDS[self.kind]

    @property
    def has_rows(self) -> bool:
        """Rows of its own, that can be read."""
        return self.kind == "r" or (self.kind == "m" and self.populated)


def shapes(conn: Connection) -> list[Shape]:
    with conn.cursor(row_factory=class_row(Shape)) as cursor:
        return cursor.execute(_TABLES, {"exact": _EXACT}).fetchall()


_SEQUENCES = """
SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (NOT EXISTS (SELECT 1 FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                   AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
       OR EXISTS (SELECT 1 FROM pg_extension AS e WHERE c.oid = ANY (e.extconfig)))
ORDER BY c.oid
"""


def sequences(conn: Connection) -> list[tuple[str, str, str]]:
    """Schema, name, and both quoted."""
    return [(str(row[0]), str(row[1]), str(row[2])) for row in conn.execute(_SEQUENCES)]


# Only what any restore brings: event triggers, publications and grants depend on the rights of who restores.
_OBJECTS = """
WITH ours AS (
    SELECT n.oid FROM pg_namespace AS n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
), member AS (
    SELECT classid, objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
), relation AS (
    SELECT c.oid, c.relkind FROM pg_class AS c
    WHERE c.relnamespace IN (SELECT oid FROM ours)
      AND (('pg_class'::regclass)::oid, c.oid) NOT IN (SELECT classid, objid FROM member)
)
SELECT 'view', count(*) FROM relation WHERE relkind = 'v'
UNION ALL
SELECT 'index', count(*) FROM pg_index AS i JOIN relation AS r ON r.oid = i.indrelid
    JOIN pg_class AS x ON x.oid = i.indexrelid WHERE i.indisvalid OR x.relkind = 'I'
UNION ALL
SELECT 'trigger', count(*) FROM pg_trigger AS t JOIN relation AS r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL
SELECT 'policy', count(*) FROM pg_policy AS p JOIN relation AS r ON r.oid = p.polrelid
UNION ALL
SELECT CASE k.contype WHEN 'c' THEN 'check constraint' WHEN 'f' THEN 'foreign key' WHEN 'p' THEN 'primary key'
            WHEN 'u' THEN 'unique constraint' ELSE 'exclusion constraint' END, count(*)
    FROM pg_constraint AS k JOIN relation AS r ON r.oid = k.conrelid
    WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND k.conparentid = 0 GROUP BY k.contype
UNION ALL
SELECT 'function', count(*) FROM pg_proc AS f WHERE f.pronamespace IN (SELECT oid FROM ours)
    AND (('pg_proc'::regclass)::oid, f.oid) NOT IN (SELECT classid, objid FROM member)
UNION ALL
SELECT 'type', count(*) FROM pg_type AS t
    WHERE t.typnamespace IN (SELECT oid FROM ours) AND t.typtype IN ('e', 'd', 'r')
    AND (('pg_type'::regclass)::oid, t.oid) NOT IN (SELECT classid, objid FROM member)
UNION ALL
SELECT 'default value', count(*) FROM pg_attrdef AS d JOIN relation AS r ON r.oid = d.adrelid
"""


def objects(conn: Connection) -> tuple[ObjectCount, ...]:
    """Never empty, as that would mean that nobody has counted: none of a kind is 0 of it."""
    return tuple(ObjectCount(name=row[0], count=row[1]) for row in conn.execute(_OBJECTS))


def extensions(conn: Connection) -> tuple[Extension, ...]:
    return tuple(
        Extension(name=row[0], version=row[1])
        for row in conn.execute("SELECT extname::text, extversion FROM pg_extension ORDER BY extname")
    )


# Superusers' ownership is not among the recorded dependencies, so owners are asked for themselves.
_ROLES = """
WITH ours AS (
    SELECT n.oid, n.nspowner FROM pg_namespace AS n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
), database AS (SELECT oid, datdba FROM pg_database WHERE datname = current_database())
SELECT DISTINCT r.rolname::text FROM pg_roles AS r WHERE r.rolname !~ '^pg_' AND r.oid IN (
    SELECT d.refobjid FROM pg_shdepend AS d, database AS b
    WHERE d.refclassid = 'pg_authid'::regclass
      AND (d.dbid = b.oid OR (d.dbid = 0 AND d.classid = 'pg_database'::regclass AND d.objid = b.oid))
    UNION SELECT datdba FROM database
    UNION SELECT nspowner FROM ours
    UNION SELECT relowner FROM pg_class WHERE relnamespace IN (SELECT oid FROM ours)
    UNION SELECT proowner FROM pg_proc WHERE pronamespace IN (SELECT oid FROM ours)
    UNION SELECT typowner FROM pg_type WHERE typnamespace IN (SELECT oid FROM ours)
    UNION SELECT defaclrole FROM pg_default_acl
    UNION SELECT evtowner FROM pg_event_trigger
)
ORDER BY 1
"""


def roles(conn: Connection) -> tuple[str, ...]:
    """Who owns or may do something in this database; the roles that PostgreSQL comes with are left out."""
    return tuple(str(row[0]) for row in conn.execute(_ROLES))


_SETTINGS: LiteralString = """
SELECT 'ALTER ' || CASE WHEN s.setrole = 0 THEN 'DATABASE' ELSE format('ROLE %I IN DATABASE', r.rolname) END
       || format(' %I SET ', d.datname) || CASE WHEN n.name ~ '^[A-Za-z_][A-Za-z0-9_$.]*$' THEN n.name
                                                ELSE quote_ident(n.name) END,
       -- These hold a list of names that are quoted already, where they need it.
       CASE WHEN n.name IN ('search_path', 'temp_tablespaces', 'local_preload_libraries', 'session_preload_libraries',
                            'shared_preload_libraries') THEN n.value ELSE quote_literal(n.value) END
FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
LEFT JOIN pg_roles AS r ON r.oid = s.setrole, unnest(s.setconfig) AS c,
LATERAL (SELECT split_part(c, '=', 1) AS name, substr(c, strpos(c, '=') + 1) AS value) AS n
WHERE d.datname = current_database() ORDER BY 1
"""


def settings(conn: Connection) -> tuple[tuple[str, str], ...]:
    """The database's own settings, and those of roles in it: statement up to the name, and value. Some keep secrets
    there, so values are for encrypted files only. No dump holds any of them."""
    return tuple((str(row[0]), str(row[1])) for row in conn.execute(_SETTINGS))


# As JSON, because the columns differ between the versions of PostgreSQL.
_LOCALE: LiteralString = """
SELECT pg_encoding_to_char(d.encoding)::text, to_jsonb(d) FROM pg_database AS d WHERE d.datname = current_database()
"""
_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}


def locale(conn: Connection) -> Locale:
    row: Any = conn.execute(_LOCALE).fetchone()
    encoding, found = row
    return Locale(
        encoding=encoding,
        provider=_PROVIDERS[found.get("datlocprovider", "c")],
        collate=found["datcollate"],
        ctype=found["datctype"],
        locale=found.get("datlocale") or found.get("daticulocale"),
        version=found.get("datcollversion"),
    )
