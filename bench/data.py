"""A big table in a stack of its own: production after an accident, and the branch from just before it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from runbooks.clients import postgres
from runbooks.clients.neon import Neon
from runbooks.clients.neon_types import Branch
from runbooks.model.dsn import Dsn
from runbooks.model.moment import Moment
from runbooks.sandbox.stack import Stack

SETTING = "BLOOM_DR_BENCH"
LOST = 1000
BRANCH = "before"


@dataclass(frozen=True)
class Damaged:
    """Table public.visits with `rows` rows; production has lost `lost`, changed 499 of 5 M and gained 2,000 since."""

    production: Dsn
    branch: Dsn
    rows: int
    lost: frozenset[int]

    @property
    def changed(self) -> frozenset[int]:
        """As the update of `_make`."""
        return frozenset(range(5, self.rows + 1, 10_007)) - self.lost

    def environment(self) -> dict[str, str]:
        """For `bench.ours` and `bench.writer`."""
        return {"PRODUCTION": self.production.reveal_url(), "BRANCH": self.branch.reveal_url()}


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


@contextmanager
def damaged(place: Path, rows: int, say: Callable[[str], None]) -> Iterator[Damaged]:
    """A running stack below `place` with the table of `rows` rows; made once, used again if `place` is kept."""
    root = place / f"visits-{rows}"
    done = root.with_suffix(".done")
    if not done.exists():
        shutil.rmtree(root, ignore_errors=True)
    with Stack.start(root) as stack:
        neon = Neon(api=stack.api_url, key=stack.api_key, project_id=stack.project_id)
        production = _dsn(neon, neon.default_branch())
        branch = neon.find_branch(BRANCH)
        if branch is None and done.exists():
            done.unlink()
            raise RuntimeError(f"the branch in {root} has expired; run it again to make the data anew")
        if branch is None:
            say(f"making a table of {rows:,} rows and a branch of it")
            branch = _make(neon, production, rows)
            done.touch()
        yield Damaged(production, _dsn(neon, branch), rows, lost(rows))


def _dsn(neon: Neon, branch: Branch) -> Dsn:
    return neon.connection(branch=branch, database="neondb", role="neondb_owner")


def _make(neon: Neon, production: Dsn, rows: int) -> Branch:
    """The table; a moment; the damage; and the branch from that moment."""
    with postgres.connect(production, application_name="bloom-dr bench", search_path="public") as conn:
        fill(conn, rows)
        moment = conn.execute("select clock_timestamp()").fetchone()
        assert moment
        conn.execute("delete from visits where id = any(%s)", [sorted(lost(rows))])
        conn.execute("update visits set note = note || '!', price = price + 1 where id % 10007 = 5")
        conn.execute(
            "insert into visits select id + %s, client, kind, price, name, city, note, tags, detail, starts_at,"
            " created_at from visits where id <= 2050 order by id limit 2000",
            [rows],
        )
    return neon.branch_at(
        parent=neon.default_branch(),
        moment=Moment.of(moment[0]),
        name=BRANCH,
        expires_at=Moment.of(datetime.now(UTC) + timedelta(days=29)),
        annotation={},
    ).branch


def fill(conn: postgres.Connection, rows: int) -> None:
    """The table visits, in the schema that `conn` makes tables in."""
    conn.execute("select set_config('bench.rows', %s, false)", [str(rows)])
    for statement in Path(__file__).with_name("data.sql").read_bytes().split(b"\n\n"):
        conn.execute(statement)


def lost(rows: int) -> frozenset[int]:
    return frozenset(number * (rows // LOST - 1) for number in range(1, LOST + 1))
