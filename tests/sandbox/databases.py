"""Empty databases in the shared stack."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from runbooks.model.dsn import Dsn

PLAIN = "bloom_plain"
_numbers = itertools.count(1)


def connect(dsn: Dsn) -> psycopg.Connection:
    return psycopg.connect(**dsn.keywords(), autocommit=True)


@contextmanager
def empty_database(admin: Dsn, plain: Dsn) -> Iterator[Dsn]:
    """A new database owned by the plain role, dropped at the end."""
    name = f"bloom_{next(_numbers)}"
    with connect(admin) as conn:
        owner = sql.Identifier(PLAIN)
        conn.execute(sql.SQL("create database {} owner {}").format(sql.Identifier(name), owner))
        try:
            yield plain.with_database(name)
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
