"""Bringing back 200,000 rows that lay together in a big table: found, written and proved; by hand only written.

On two ordinary servers, the second a copy of the first: the sandbox would take base backups of so much WAL meanwhile.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from psycopg import sql

from bench import peers
from bench.by_hand import INIT, hand
from bench.comparison import Comparison, Target, against
from bench.data import fill, folder
from bench.measure import Command, side_by_side
from runbooks.clients import postgres
from runbooks.model.dsn import Dsn

PROJECT = Path(__file__).parent.parent
ROWS, LOST = 5_000_000, 200_000

COPY = """
pg_ctl -D data -m fast -w stop >/dev/null
cp -a --reflink=auto data branch
pg_ctl -D data -w -l log -o "-p $PORT -F -k ''" start >/dev/null
pg_ctl -D branch -w -l branch.log -o "-p $BRANCH_PORT -F -k ''" start >/dev/null
"""

PIPE = """
psql "$BRANCH" -qc "create unlogged table keys (id bigint)"
psql "$PRODUCTION" -c "copy (select id from visits) to stdout" | psql "$BRANCH" -qc "copy keys from stdin"
psql "$BRANCH" -c "copy (select * from visits v where not exists (select from keys k where k.id = v.id)) to stdout" \
| psql "$PRODUCTION" -qc "copy visits from stdin"
psql "$BRANCH" -qc "drop table keys"
"""


@dataclass(frozen=True)
class Damage:
    """Two servers with table public.visits of `ROWS` rows; from one of them `lost` is deleted before every run."""

    production: Dsn
    branch: Dsn
    lost: range

    def inflict(self) -> None:
        """The rows are gone, and both sides are as clean as after the first time."""
        with postgres.connect(self.production, application_name="bloom-dr bench") as conn:
            conn.execute("delete from public.visits where id between %s and %s", [self.lost[0], self.lost[-1]])
            conn.execute("vacuum (analyze) public.visits")
            conn.execute("checkpoint")
        with postgres.connect(self.branch, application_name="bloom-dr bench") as conn:
            conn.execute("checkpoint")

    def check(self) -> None:
        """AssertionError unless production holds again what the branch does, outside the lost range too."""
        one, other = (_content(dsn) for dsn in (self.production, self.branch))
        assert one == other, f"production (rows, sum of hashes) has {one}, the branch {other}"


def run(runs: int, say: Callable[[str], None]) -> tuple[Comparison, ...]:
    with folder() as kept, _damage(kept, say) as damage:
        ours, pipe = side_by_side([_ours(damage), _pipe(damage, kept)], runs=runs, say=say)
    memory = () if ours.peak_mib is None else (Target("peak memory", 150, ours.peak_mib, " MiB"),)
    return (
        Comparison(
            f"Bringing back {LOST:,} rows that lay together among {ROWS:,}",
            ours,
            (pipe,),
            (against(ours, pipe, 2.0), *memory),
            (
                "ours also looks for conflicts, compares every row with the branch before and after its commit, and "
                "keeps what an undo needs; by hand nothing is checked",
            ),
        ),
    )


def _ours(damage: Damage) -> Command:
    def check(output: str) -> None:
        assert output.split() == ["passed", str(LOST)], output
        damage.check()

    return Command(
        "bloom-dr",
        "survey, plan, transaction and proof of `invoke recover.accidental-delete --tables visits`",
        [sys.executable, "-m", "bench.ours", "recover"],
        environment={"PRODUCTION": damage.production.reveal_url(), "BRANCH": damage.branch.reveal_url()},
        folder=PROJECT,
        prepare=damage.inflict,
        check=check,
    )


def _pipe(damage: Damage, place: Path) -> Command:
    return Command(
        "psql pipes",
        PIPE.strip().replace("\n", "; "),
        ["sh", "-ec", PIPE],
        environment=peers.psql(place, damage.production, damage.branch),
        prepare=damage.inflict,
        check=lambda _: damage.check(),
    )


def _content(dsn: Dsn) -> object:
    hashes = sql.SQL("select count(*), sum(hashtextextended(v::text, 0)::numeric) from public.visits as v")
    with postgres.connect(dsn, application_name="bloom-dr bench") as conn:
        return conn.execute(hashes).fetchone()


@contextmanager
def _damage(kept: Path, say: Callable[[str], None]) -> Iterator[Damage]:
    home = kept / "bring-back"
    shutil.rmtree(home, ignore_errors=True)
    with ExitStack() as closing:
        closing.callback(shutil.rmtree, home, ignore_errors=True)
        servers = closing.enter_context(hand(home))
        servers.run(INIT)
        say(f"making a table of {ROWS:,} rows and a copy of its server")
        with postgres.connect(servers.dsn, application_name="bloom-dr bench", search_path="public") as conn:
            fill(conn, ROWS)
        servers.run(COPY)
        first = ROWS // 2
        yield Damage(servers.dsn, replace(servers.dsn, port=servers.branch_port), range(first, first + LOST))
