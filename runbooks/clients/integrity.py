"""Does the data keep its own rules? Every foreign key, unique index and CHECK is tried again on the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from runbooks.clients.integrity_checks import CHECKS
from runbooks.clients.postgres import Connection
from runbooks.clients.postgres_faults import said, translated

_SAFE = "the database was only read"
_OF_THE_SOURCE = frozenset(("sequence", "materialized view"))
"""A backup brings these as they were; whether they are as they were is for the comparison of inventories."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Finding:
    """Something that is not as the database itself promises."""

    what: str
    """`foreign key`, `unique index`, `check`, `sequence`, `materialized view`, `index`."""
    name: str
    told: str
    inherited: bool = False
    """The source may well have had it too, and a faithful restore then has it: no fault of the backup."""

    def __str__(self) -> str:
        return f"{self.what} {self.name}: {self.told}"


@dataclass(frozen=True)
class Integrity:
    findings: tuple[Finding, ...]
    checked: dict[str, int]
    """How many of each sort were looked at."""
    not_checked: tuple[str, ...]
    """What could not be looked at, and why. With any of these the answer is not a pass."""

    @property
    def broken(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.inherited)


def integrity(conn: Connection, *, progress: Progress | None = None) -> Integrity:
    """Check the database of `conn`, and change nothing.

    Constraints that the database itself holds for unproved (NOT VALID) are left alone. Where amcheck can be had (it is
    created in a transaction that is rolled back), every B-tree is compared with its table.
    """
    return together(rules(conn, progress=progress), trees(conn, progress=progress))


def together(*parts: Integrity) -> Integrity:
    return Integrity(
        findings=tuple(finding for part in parts for finding in part.findings),
        checked={what: count for part in parts for what, count in part.checked.items()},
        not_checked=tuple(each for part in parts for each in part.not_checked),
    )


def rules(conn: Connection, *, progress: Progress | None = None) -> Integrity:
    """The part of `integrity` that asks the rows."""
    found = _Found(conn)
    with _looking(conn):
        for what, checks in CHECKS:
            # Names and expressions are spelled with their schemas; functions in CHECKs expect the application's path.
            conn.execute("SET LOCAL search_path = pg_catalog, pg_temp")
            queries = list(checks(conn))
            conn.execute("SET LOCAL search_path = public")
            for name, query in queries:
                found.look(what, name, query)
            found.checked[what] = len(queries)
            if progress:
                progress(f"integrity: {what}: {len(queries)} checked")
    return found.told()


def trees(conn: Connection, *, progress: Progress | None = None) -> Integrity:
    """The part of `integrity` that asks the indexes: another session can do it at the same time."""
    found = _Found(conn)
    with _looking(conn):
        conn.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        found.checked["B-tree"] = _amcheck(conn, found)
        if progress:
            progress(f"integrity: {found.checked['B-tree']} B-trees compared with their tables")
    return found.told()


@contextmanager
def _looking(conn: Connection) -> Iterator[None]:
    with translated("check the integrity of the database", safe=_SAFE), conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL statement_timeout = 0")
        yield


class _Found:
    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self.findings: list[Finding] = []
        self.checked: dict[str, int] = {}
        self.not_checked: list[str] = []

    def told(self) -> Integrity:
        return Integrity(tuple(self.findings), self.checked, tuple(self.not_checked))

    def look(self, what: str, name: str, query: sql.Composed) -> None:
        """Run one check. One that cannot be run is no pass."""
        try:
            with self._conn.transaction():
                row = self._conn.execute(query).fetchone()
        except psycopg.errors.InsufficientPrivilege as error:
            self.not_checked.append(f"{what} {name}: {said(error)}")
        except psycopg.Error as error:
            if error.sqlstate is None or self._conn.broken:
                raise
            self.findings.append(Finding(what, name, f"the check itself failed: {said(error)}"))
        else:
            if row is not None:
                self.findings.append(Finding(what, name, str(row[0]), what in _OF_THE_SOURCE))


def _amcheck(conn: Connection, found: _Found) -> int:
    """Compare every B-tree with its table. How many; 0 and a remark where amcheck cannot be had."""
    try:
        with conn.transaction():
            row: Any = conn.execute(_AMCHECK).fetchone()
            if row[0] is None:
                conn.execute("CREATE SCHEMA bloom_amcheck")
                conn.execute("CREATE EXTENSION amcheck SCHEMA bloom_amcheck")
                row = conn.execute(_AMCHECK).fetchone()
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile):
        return 0
    count = 0
    for name, oid in conn.execute(_TREES).fetchall():
        count += 1
        try:
            with conn.transaction():
                conn.execute(
                    sql.SQL("SELECT {}.bt_index_check(index => {}::oid::regclass, heapallindexed => true)").format(
                        sql.Identifier(row[0]), oid
                    )
                )
        except psycopg.errors.InsufficientPrivilege as error:
            found.not_checked.append(f"B-tree {name}: {said(error)}")
        except (psycopg.errors.IndexCorrupted, psycopg.errors.DataCorrupted, psycopg.errors.InternalError_) as error:
            found.findings.append(Finding("index", name, said(error)))
    return count


_AMCHECK = """
SELECT (SELECT n.nspname::text FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
        WHERE e.extname = 'amcheck')
"""
_TREES = """
SELECT c.oid::regclass::text, c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_index AS i ON i.indexrelid = c.oid JOIN pg_am AS a ON a.oid = c.relam
WHERE a.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid AND c.relpersistence = 'p'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 1
"""
