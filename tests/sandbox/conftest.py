"""Databases for the tests of what runs inside one: the seed and the writer."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest
from psycopg import sql

from runbooks.model.dsn import Dsn
from runbooks.model.secret import Secret
from runbooks.sandbox.stack import Stack
from tests.sandbox.databases import PLAIN, connect, empty_database


@pytest.fixture(scope="session")
def admin(shared_stack: Stack) -> Dsn:
    """As the project's first role, which may make databases."""
    return Dsn.parse(shared_stack.uri().reveal())


@pytest.fixture(scope="session")
def plain(admin: Dsn) -> Iterator[Dsn]:
    """As a role of this session without any special right."""
    role, password = sql.Identifier(PLAIN), secrets.token_urlsafe(24)
    with connect(admin) as conn:
        conn.execute(sql.SQL("create role {} login password {}").format(role, sql.Literal(password)))
        conn.execute(sql.SQL("grant {} to current_user").format(role))
    yield replace(admin, user=PLAIN, password=Secret(password))
    with connect(admin) as conn:
        conn.execute(sql.SQL("drop role {}").format(role))


@pytest.fixture
def database(admin: Dsn, plain: Dsn) -> Iterator[Dsn]:
    """A new, empty database, owned by the plain role."""
    with empty_database(admin, plain) as dsn:
        yield dsn
