"""A fresh clone's first drill, after installation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.comparison import Comparison, Target
from bench.measure import Command, side_by_side

PROJECT = Path(__file__).parent.parent


def run(runs: int, say: Callable[[str], None]) -> tuple[Comparison, ...]:
    with TemporaryDirectory() as journals:
        (ours,) = side_by_side(
            [
                Command(
                    "bloom-dr",
                    "make drill",
                    ["make", "drill"],
                    environment={"BLOOM_DR_RUNS": journals},
                    folder=PROJECT,
                    check=_is_proved,
                    counts_memory=False,
                )
            ],
            runs=min(runs, 3),
            say=say,
        )
    return (Comparison("make drill", ours, targets=(Target("time", 60, ours.median, " s"),)),)


def _is_proved(output: str) -> None:
    assert " proved " in output, output
