"""Finding which rows of a big table an accident lost or changed, by their content; and what its users notice of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

from bench import peers
from bench.comparison import Comparison, Target, against
from bench.data import Damaged, damaged, folder
from bench.measure import Command, Measured, once, side_by_side
from bench.writer import EACH_SECOND, updates

PROJECT = Path(__file__).parent.parent
ROWS = 5_000_000
COLUMNS = ("client", "kind", "price", "name", "city", "note", "starts_at", "created_at")
"""Beside the key, all but the array and the jsonb, which reladiff cannot compare."""


def run(runs: int, say: Callable[[str], None]) -> tuple[Comparison, ...]:
    with folder() as place, damaged(place, ROWS, say) as data:
        return (_compare(data, place, runs, say), _beside(data, runs, say))


def _compare(data: Damaged, place: Path, runs: int, say: Callable[[str], None]) -> Comparison:
    reladiff = peers.reladiff(data, place, say, COLUMNS, lambda output: _told_by_reladiff(data, output))
    commands = [_ours(data), *([reladiff] if reladiff else [])]
    ours, *others = side_by_side(commands, runs=runs, say=say)
    memory = () if ours.peak_mib is None else (Target("peak memory", 150, ours.peak_mib, " MiB"),)
    return Comparison(
        f"Finding {len(data.lost):,} lost and {len(data.changed):,} changed rows among {ROWS:,}",
        ours,
        tuple(others),
        (*(against(ours, other, 0.15) for other in others), *memory),
        (
            "reladiff compares 9 of the 11 columns, the key included; ours all"
            if others
            else f"reladiff was not measured: {peers.RELADIFF} could not be installed",
        ),
    )


def _ours(data: Damaged) -> Command:
    return Command(
        "bloom-dr",
        "the survey of `invoke recover.accidental-delete --tables visits --changed`",
        [sys.executable, "-m", "bench.ours", "changed"],
        environment=data.environment(),
        folder=PROJECT,
        check=lambda output: _told_by_us(data, output),
    )


def _told_by_us(data: Damaged, output: str) -> None:
    found = sorted((state, int(key)) for state, key in map(str.split, output.splitlines()))
    due = [("differs", key) for key in data.changed] + [("missing", key) for key in data.lost]
    assert found == sorted(due), "the rows found are not the rows lost and changed"


def _told_by_reladiff(data: Damaged, output: str) -> None:
    keys = peers.keys_by_side(output)
    assert keys["+"] - keys["-"] == data.lost, "the rows found are not the rows lost"
    assert keys["+"] & keys["-"] == data.changed, "the rows found are not the rows changed"


def _beside(data: Damaged, runs: int, say: Callable[[str], None]) -> Comparison:
    """In turns: as many seconds of updates alone as the comparison takes, and updates beside the comparison."""
    ours = _ours(data)
    seconds, _ = once(ours)
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    for number in range(1, runs + 1):
        for who, took, during in (
            ("updates alone", alone, lambda: time.sleep(seconds)),
            ("updates beside the comparison", beside, lambda: once(ours)),
        ):
            took.append(updates(data.production, data.rows, during))
            say(f"{who}: run {number} of {runs}: {_told(took[-1])}")
    what = f"{EACH_SECOND} updates a second of single rows of visits that are new since, in a session of their own"
    busy, quiet = (
        Measured(who, what, tuple(map(_p95, took)), None) for who, took in (("meanwhile", beside), ("alone", alone))
    )
    return Comparison(
        f"An update in production while {ROWS:,} rows are compared: 95th percentile",
        busy,
        (quiet,),
        (Target("95th percentile of an update", 10, 1000 * busy.median, " ms"),),
        (
            "an update that waits for the one before it is counted from when it was due",
            *(
                f"{measured.what}, all runs: {_told([each for run in took for each in run])}"
                for measured, took in ((busy, beside), (quiet, alone))
            ),
        ),
    )


def _p95(took: list[float]) -> float:
    return quantiles(took, n=20)[-1]


def _told(took: list[float]) -> str:
    middle, high, most = (1000 * each for each in (median(took), _p95(took), max(took)))
    return f"{len(took):,} updates, p50 {middle:.2f} ms, p95 {high:.2f} ms, the longest {most:.1f} ms"
