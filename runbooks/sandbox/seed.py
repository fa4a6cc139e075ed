"""Fill an empty database with Bloom, a Mexican health-booking service: what the drills break and bring back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from runbooks.clients import postgres
from runbooks.model.dsn import Dsn
from runbooks.model.errors import DatabaseFault, Refused, UsageFault

FEWEST, MOST = 100, 500_000

TABLES = (
    "clients",
    "professionals",
    "services",
    "service_professionals",
    "reservations",
    "payments",
    "clinical_notes",
    "Invoice Items",
    "notification_outbox",
    "web_hits",
    "audit_log",
)
"""In schema public, parents before children."""

VICTIM_DOMAIN = "@drill.bloom.example"
"""A drill destroys only clients whose e-mail address ends with this; no seeded row has it."""


@dataclass(frozen=True)
class Seeded:
    clients: int
    rows: tuple[tuple[str, int], ...]
    """Table name (of TABLES) and its rows."""
    bytes: int
    """Disk use of all the tables with their indexes."""
    fresh: bool
    """False if the rows were there already and nothing was done."""

    @property
    def total(self) -> int:
        return sum(count for _, count in self.rows)


def seed(dsn: Dsn, *, clients: int, progress: Callable[[str], None] | None = None) -> Seeded:
    """Make Bloom's schema in `dsn` with `clients` clients (100 to 500,000) and about ten times as many rows in all.

    One transaction: it is all there afterwards, or nothing is. Two databases of one size hold equal rows. Safe to
    repeat: does nothing if the rows of exactly this size are there already, and raises Refused if anything else has a
    table of that name. Other errors: UsageFault (size), DatabaseFault, those of connecting.
    """
    say = progress or (lambda _: None)
    if not FEWEST <= clients <= MOST:
        raise UsageFault(
            f"{clients} clients were asked for, and the seed can make {FEWEST:,} to {MOST:,}",
            safe="no database was touched",
            next_step=f"choose a number between {FEWEST} and {MOST}",
        )
    with postgres.connect(dsn, application_name="bloom-dr seed", progress=progress) as conn:
        try:
            with conn.transaction():
                return _there_already(conn, clients, say) or _fill(conn, clients, say)
        except psycopg.Error as error:
            raise DatabaseFault(
                f"the seed could not be written: {error}",
                safe="its one transaction was rolled back, so the database is as it was",
                next_step="seed a new, empty database that the role owns",
            ) from error


def _there_already(conn: psycopg.Connection, clients: int, say: Callable[[str], None]) -> Seeded | None:
    found = conn.execute(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relname = any(%s) order by 1",
        [list(TABLES)],
    ).fetchall()
    if not found:
        return None
    if len(found) < len(TABLES):
        raise _refused(f"schema public has tables of its own: {', '.join(name for (name,) in found)}")
    made = recorded(conn)
    if made is None:
        raise _refused("schema public has tables with the seed's names that the seed did not make")
    now = _measure(conn, clients, fresh=False)
    if made != dict(now.rows):
        raise _refused("rows were added or removed since this database was seeded")
    if made["clients"] != clients:
        raise _refused(f"it is seeded with {made['clients']} clients, and {clients} were asked for")
    say(f"already seeded with {clients} clients; nothing to do")
    return now


def _refused(why: str) -> Refused:
    return Refused(
        f"this database cannot be seeded: {why}",
        safe="nothing in it was changed",
        next_step="seed a new, empty database",
    )


def _fill(conn: psycopg.Connection, clients: int, say: Callable[[str], None]) -> Seeded:
    # The parameters of SET cannot be bound; set_config's can. All of them end with the transaction.
    for name, value in (
        ("bloom.clients", str(clients)),
        ("search_path", "public"),
        ("work_mem", "64MB"),
        ("maintenance_work_mem", "256MB"),
    ):
        conn.execute("select set_config(%s, %s, true)", [name, value])
    conn.execute(_read("seed_tables.sql"))
    for table, statements in _sections(_read("seed_rows.sql")):
        done = conn.execute(statements)
        if table:
            say(f"{table}: {done.rowcount:,} rows")
    say("keys, indexes and triggers")
    conn.execute(_read("seed_rules.sql"))
    conn.execute(sql.SQL("analyze {}").format(sql.SQL(", ").join(map(sql.Identifier, TABLES))))
    seeded = _measure(conn, clients, fresh=True)
    conn.execute(sql.SQL("comment on table clients is {}").format(sql.Literal(_MARK + json.dumps(dict(seeded.rows)))))
    return seeded


def _sections(text: str) -> list[tuple[str, str]]:
    """The parts of seed_rows.sql: ("", what comes first), then (table, its statement)."""
    first, *rest = re.split(r"^-- rows: (.+)$", text, flags=re.MULTILINE)
    return [("", first), *zip(rest[::2], rest[1::2], strict=True)]


_MARK = "bloom seed "
"""Start of the comment on table clients that says what the seed made."""


def recorded(conn: psycopg.Connection) -> dict[str, int] | None:
    """The rows that the seed made in this database, by table, whatever has happened to them since; None if unseeded."""
    row = conn.execute("select obj_description(to_regclass('public.clients'), 'pg_class')").fetchone()
    comment = row[0] if row else None
    if not comment or not comment.startswith(_MARK):
        return None
    try:
        rows: dict[str, int] = json.loads(comment.removeprefix(_MARK))
    except ValueError:
        return None
    return rows


def _measure(conn: psycopg.Connection, clients: int, *, fresh: bool) -> Seeded:
    counts = sql.SQL(" union all ").join(
        sql.SQL("select {}, count(*) from public.{}").format(sql.Literal(table), sql.Identifier(table))
        for table in TABLES
    )
    rows: dict[str, int] = dict(conn.execute(counts).fetchall())
    size = conn.execute(
        "select sum(pg_total_relation_size(oid))::bigint from pg_class"
        " where relnamespace = 'public'::regnamespace and relkind in ('r', 'm')"
    ).fetchone()
    assert size is not None
    return Seeded(clients, tuple((table, rows[table]) for table in TABLES), size[0], fresh)


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
