"""A fresh clone's first drill, after installation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.comparison import Comparison, Target
from bench.measure import Command, side_by_side

PROJECT = Path(__file__).parent.parent


def run(runs: int, say: Callable[[str], None]) -> tuple[Comparison, ...]:
    (ours,) = side_by_side(
        [Command("bloom-dr", "make drill", ["make", "drill"], folder=PROJECT)], runs=min(runs, 3), say=say
    )
    return (Comparison("make drill", ours, targets=(Target("time", 60, ours.median, " s"),)),)
