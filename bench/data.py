"""A big table in a stack of its own: production after an accident, and the branch from just before it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from psycopg import sql

from runbooks.clients import postgres
from runbooks.model.dsn import Dsn

SETTING = "BLOOM_DR_BENCH"
LOST = 1000


@dataclass(frozen=True)
class Damaged:
    """Table public.visits with `rows` rows; production has lost `lost`, changed 499 of 5 M and gained 2,000 since."""

    production: Dsn
    branch: Dsn
    rows: int
    lost: frozenset[int]


@contextmanager
def folder() -> Iterator[Path]:
    """The one that BLOOM_DR_BENCH names, kept; or a temporary one."""
    kept = os.environ.get(SETTING)
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept)
        return
    with TemporaryDirectory(prefix="bloom-dr-bench-") as name:
        Path(name).chmod(0o755)  # the servers run as another account when we are root
        yield Path(name)


def fill(production: Dsn, rows: int, say: Callable[[str], None]) -> None:
    say(f"making a table of {rows:,} rows")
    with postgres.connect(production, application_name="bloom-dr bench", search_path="public") as conn:
        conn.execute("select set_config('bench.rows', %s, false)", [str(rows)])
        for statement in Path(__file__).with_name("data.sql").read_bytes().split(b"\n\n"):
            conn.execute(statement)


def damage(production: Dsn, rows: int) -> None:
    """Lose 1,000 rows that lie scattered, change some, add some: the table of an accident a while ago."""
    with postgres.connect(production, application_name="bloom-dr bench", search_path="public") as conn:
        conn.execute("delete from visits where id = any(%s)", [sorted(lost(rows))])
        conn.execute("update visits set note = note || '!', price = price + 1 where id % 10007 = 5")
        conn.execute(
            sql.SQL(
                "insert into visits select id + {rows}, client, kind, price, name, city, note, tags, detail, starts_at,"
                " created_at from visits where id between 10 and 2050 order by id limit 2000"
            ).format(rows=sql.Literal(rows))
        )


def lost(rows: int) -> frozenset[int]:
    return frozenset(number * (rows // LOST - 1) for number in range(1, LOST + 1))
