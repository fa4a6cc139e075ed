"""Finding 1,000 rows that an accident scattered over a big table lost, by its keys."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from bench import peers
from bench.comparison import Comparison, Target, against
from bench.data import Damaged, damaged, folder
from bench.measure import Command, Measured, side_by_side

PROJECT = Path(__file__).parent.parent
ROWS, FEW_ROWS = 5_000_000, 1_000_000

PIPE = """
psql "$BRANCH" -qc "create unlogged table keys (id bigint)"
psql "$PRODUCTION" -c "copy (select id from visits) to stdout" | psql "$BRANCH" -qc "copy keys from stdin"
psql "$BRANCH" -Atc "select id from visits v where not exists (select from keys k where k.id = v.id)"
psql "$BRANCH" -qc "drop table keys"
"""


def run(runs: int, say: Callable[[str], None]) -> tuple[Comparison, ...]:
    with folder() as place:
        with damaged(place, FEW_ROWS, say) as few:
            (small,) = side_by_side([_ours(few)], runs=runs, say=say)
        with damaged(place, ROWS, say) as data:
            commands = [_ours(data), _pipe(data, place)]
            reladiff = peers.reladiff(data, place, say, (), lambda output: _same(data, peers.keys_by_side(output)["+"]))
            if reladiff:
                commands.append(reladiff)
            ours, pipe, *others = side_by_side(commands, runs=runs, say=say)
    return (
        Comparison(
            f"Finding {len(data.lost):,} lost rows among {ROWS:,}",
            ours,
            (pipe, *others),
            (
                against(ours, pipe, 1.3),
                *(against(ours, other, 0.2) for other in others),
                *_memory(ours, small),
            ),
            () if others else (f"reladiff was not measured: {peers.RELADIFF} could not be installed",),
        ),
    )


def _memory(ours: Measured, small: Measured) -> tuple[Target, ...]:
    if ours.peak_mib is None or small.peak_mib is None:
        return ()
    return (
        Target("peak memory", 150, ours.peak_mib, " MiB"),
        Target(f"peak memory against that for {FEW_ROWS:,} rows", 1.1, ours.peak_mib / small.peak_mib),
    )


def _ours(data: Damaged) -> Command:
    return Command(
        "bloom-dr",
        "the survey of `invoke recover.accidental-delete --tables visits`",
        [sys.executable, "-m", "bench.ours", "missing"],
        environment=data.environment(),
        folder=PROJECT,
        check=lambda output: _same(data, map(int, output.split())),
    )


def _pipe(data: Damaged, place: Path) -> Command:
    return Command(
        "psql pipe",
        PIPE.strip().replace("\n", "; "),
        ["sh", "-ec", PIPE],
        environment=peers.psql(place, data.production, data.branch),
        check=lambda output: _same(data, map(int, output.split())),
    )


def _same(data: Damaged, found: Iterable[int]) -> None:
    assert sorted(found) == sorted(data.lost), "the rows found are not the rows lost"
