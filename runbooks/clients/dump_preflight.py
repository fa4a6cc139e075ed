"""What has to be right before a dump is started, and what a dump of this database cannot carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runbooks.clients import inventory_catalog, programs
from runbooks.clients.postgres import Connection
from runbooks.clients.postgres_faults import translated
from runbooks.clients.programs import Program
from runbooks.model.errors import LoginRefused, Refused, ToolMissing

_SAFE = "nothing was dumped and nothing was stored"
_ZSTD = 16
"""The first pg_dump that can compress with zstd."""
_OLDEST = 14
"""The first server with a hash over whole rows."""
_SHOWN = 8


@dataclass(frozen=True)
class Preflight:
    """What a dump will meet."""

    client: Program
    server_version: int
    """As in server_version_num: 170010."""
    database: str
    role: str
    bytes: int
    """Of the whole database on the server's disk: an upper limit of what will be read."""
    tables: int
    notes: tuple[str, ...]
    """What the dump will not hold, or holds in a way that a restorer should know."""

    @property
    def server_major(self) -> int:
        return self.server_version // 10000


def client_for(conn: Connection) -> Program:
    """A pg_dump of this machine that is not older than `conn`'s server. ToolMissing, naming both versions, if there is
    none (C01)."""
    server = conn.info.server_version // 10000
    try:
        return programs.find("pg_dump", at_least=max(server, _ZSTD))
    except ToolMissing as error:
        raise ToolMissing(
            f"the server is PostgreSQL {server}, and a dump needs a client that is not older: {error.happened}",
            safe=_SAFE,
            next_step=error.next_step,
        ) from error


_FACTS = """
SELECT current_setting('server_version_num')::int, current_database()::text, current_user::text,
       pg_database_size(current_database())
"""

# What pg_dump will LOCK, COPY or SELECT from.
_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relkind::text AS kind,
       has_schema_privilege(n.oid, 'USAGE') AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
           ELSE has_table_privilege(c.oid, 'SELECT') END AS readable,
       c.relkind IN ('r', 'p') AND row_security_active(c.oid) AS hidden
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'S', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT 1 FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                  AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
ORDER BY 1
"""


def preflight(conn: Connection, client: Program) -> Preflight:
    """Check that `client` (a pg_dump) and `conn`'s role can dump the whole database; what is known of it. Only reads.

    Refused if the client is older than the server, naming both versions (C01); LoginRefused if the role may not read a
    table or row-level security would hide rows from it.
    """
    with translated("look at the database before the dump", safe=_SAFE):
        version, database, role, size = _row(conn, _FACTS)
        _check_versions(client, version // 10000)
        found = conn.execute(_TABLES).fetchall()
        settings = inventory_catalog.settings(conn)
    _check_readable([name for name, kind, readable, _ in found if not readable and kind != "f"], role)
    _check_visible([name for name, _, _, hidden in found if hidden], role)
    tables = sum(kind in ("r", "p") for _, kind, *_ in found)
    notes = tuple(
        f"the rows of foreign table {name} are on another server and not in the dump"
        for name, kind, *_ in found
        if kind == "f"
    )
    notes += tuple(
        f"the dump does not hold {each}: globals.sql beside it does, and a restore names it" for each, _ in settings
    )
    return Preflight(client, version, database, role, size, tables, notes)


def _row(conn: Connection, query: Any) -> Any:
    return conn.execute(query).fetchone()


def _check_versions(client: Program, server: int) -> None:
    major, minor = client.version
    if server < _OLDEST:
        raise Refused(
            f"the server is PostgreSQL {server}; backups are proved from {_OLDEST} on",
            safe=_SAFE,
            next_step=f"upgrade the server to {_OLDEST} or newer",
        )
    if major < max(server, _ZSTD):
        raise Refused(
            f"{client.path} is version {major}.{minor} and the server is PostgreSQL {server}: the client has to be"
            f" {max(server, _ZSTD)} or newer",
            safe=_SAFE,
            next_step=programs.INSTALL,
        )


def _check_readable(names: list[str], role: str) -> None:
    if names:
        raise LoginRefused(
            f"role {role} may not read {_listed(names)}: a dump without them would be no backup",
            safe=_SAFE,
            next_step=f"GRANT pg_read_all_data TO {role}, or back up as the owner",
        )


def _check_visible(names: list[str], role: str) -> None:
    if names:
        raise LoginRefused(
            f"row-level security hides rows of {_listed(names)} from role {role}",
            safe=_SAFE,
            next_step=f"ALTER ROLE {role} BYPASSRLS, or back up as a role that has it",
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
