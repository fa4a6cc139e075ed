"""Roles and databases inside a server, as Neon sets them up, and reading them back."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

from runbooks.model.errors import SandboxFault
from runbooks.model.moment import Moment
from runbooks.sandbox.cluster import SUPERUSER
from runbooks.sandbox.records import Branch, Database, Password, Role

GROUP = "neon_superuser"
OWNER = "neondb_owner"
DATABASE = "neondb"
SYSTEM = (SUPERUSER, GROUP)

# What Neon's compute writes into every user database, and why dumps from it fail elsewhere when privileges are kept.
_DEFAULT_GRANTS = f"""
alter default privileges for role {SUPERUSER} in schema public grant all on tables to {GROUP} with grant option;
alter default privileges for role {SUPERUSER} in schema public grant all on sequences to {GROUP} with grant option;
"""


def set_up(session: psycopg.Connection[Any]) -> None:
    """Neon's group of privileges, in a new cluster."""
    session.execute(f"create role {GROUP} nologin createdb createrole replication bypassrls")
    session.execute(
        "grant pg_read_all_data, pg_write_all_data, pg_monitor, pg_signal_backend, pg_create_subscription, pg_maintain "
        f"to {GROUP} with admin option"
    )


def require_time_zones(session: psycopg.Connection[Any]) -> None:
    """SandboxFault on a machine without zone files: `at time zone` would fail in the middle of something."""
    try:
        session.execute("select now() at time zone 'America/Mexico_City'")
    except psycopg.errors.InvalidParameterValue:
        raise SandboxFault(
            "PostgreSQL finds no time zones on this machine",
            safe="no database was touched",
            next_step="install the system's tzdata package, then `invoke sandbox.up`",
        ) from None


def create_role(session: psycopg.Connection[Any], name: str, password: str | None) -> None:
    """A role as the API makes them: in `neon_superuser`, not a superuser. Without a password it cannot log in."""
    session.execute(
        sql.SQL("create role {} {} createdb createrole replication bypassrls in role {}").format(
            sql.Identifier(name), sql.SQL("login" if password else "nologin"), sql.Identifier(GROUP)
        )
    )
    if password:
        set_password(session, name, password)


def set_password(session: psycopg.Connection[Any], name: str, password: str) -> None:
    """Sends only the verifier, so that the server's log never holds the password."""
    verifier = session.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256")
    session.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(name), sql.Literal(verifier.decode())))


def drop_sessions(session: psycopg.Connection[Any], role: str) -> None:
    session.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", (role,))


def drop_role(session: psycopg.Connection[Any], name: str) -> None:
    session.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def create_database(session: psycopg.Connection[Any], name: str, owner: str) -> None:
    """Owned by `owner`; in it, the grants that Neon's compute writes. `session` is in any other database."""
    session.execute(sql.SQL("create database {} owner {}").format(sql.Identifier(name), sql.Identifier(owner)))
    with psycopg.connect(session.info.dsn, dbname=name, password=session.info.password, autocommit=True) as inside:
        inside.execute(_DEFAULT_GRANTS)


def drop_database(session: psycopg.Connection[Any], name: str) -> None:
    session.execute(sql.SQL("drop database {} (force)").format(sql.Identifier(name)))


def databases(session: psycopg.Connection[Any], known: Branch, now: Moment) -> tuple[Database, ...]:
    """The databases of the server; one that the API did not know is dated `now`."""
    rows = session.execute(
        "select oid::bigint, datname, pg_get_userbyid(datdba) from pg_database "
        "where not datistemplate and datname <> 'postgres' order by oid"
    )
    found = []
    for oid, name, owner in rows:
        before = known.database(name)
        since = before.created_at if before else now
        found.append(Database(id=oid, name=name, owner_name=owner, created_at=since))
    return tuple(found)


def roles(session: psycopg.Connection[Any], known: Iterable[Role], now: Moment) -> tuple[Role, ...]:
    """The roles of the server, each with the passwords of `known` that are no newer than the one in force there.

    A role whose password was set by SQL has none that the API could tell.
    """
    by_name = {role.name: role for role in known}
    rows = session.execute(
        "select rolname, rolcanlogin, rolpassword from pg_authid "
        "where rolname !~ '^pg_' and rolname <> all(%s) order by oid",
        (list(SYSTEM),),
    )
    found = []
    for name, login, verifier in rows:
        role = by_name.get(name) or Role(name=name, created_at=now, updated_at=now)
        found.append(role.model_copy(update={"login": login, "passwords": _in_force(role.passwords, verifier)}))
    return tuple(found)


def size(session: psycopg.Connection[Any]) -> int:
    row = session.execute("select sum(pg_database_size(oid))::bigint from pg_database where datallowconn").fetchone()
    return int(row[0]) if row else 0


def _in_force(passwords: tuple[Password, ...], verifier: str | None) -> tuple[Password, ...]:
    for age, password in enumerate(passwords):
        if verifier and fits(password.text, verifier):
            return passwords[age:]
    return ()


def fits(password: str, verifier: str) -> bool:
    """Whether a SCRAM-SHA-256 verifier of PostgreSQL was made from `password` (RFC 5803)."""
    method, _, rest = verifier.partition("$")
    if method != "SCRAM-SHA-256":
        return False
    salting, _, keys = rest.partition("$")
    rounds, _, salt = salting.partition(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored = hashlib.sha256(client_key).digest()
    return hmac.compare_digest(base64.b64decode(keys.partition(":")[0]), stored)
