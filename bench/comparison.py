"""One benchmark's result: ours, the peers, and whether the targets are met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measure import Measured


@dataclass(frozen=True)
class Target:
    what: str
    limit: float
    measured: float
    unit: str = "x"

    @property
    def met(self) -> bool:
        return self.measured <= self.limit

    def __str__(self) -> str:
        return f"{self.what}: {self.measured:.2f}{self.unit}, target <= {self.limit:g}{self.unit}: " + (
            "met" if self.met else "MISSED"
        )


@dataclass(frozen=True)
class Comparison:
    title: str
    ours: Measured
    peers: tuple[Measured, ...] = ()
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be measured, and why."""


def against(ours: Measured, peer: Measured, limit: float) -> Target:
    """The ratio of the medians, with a limit."""
    return Target(f"time against {peer.what}", limit, ours.median / peer.median)


def show(results: Sequence[Comparison], console: Console) -> None:
    for result in results:
        table = Table(title=result.title, title_justify="left")
        table.add_column("")
        for heading in ("median", "best", "runs", "peak memory", "ours / theirs"):
            table.add_column(heading, justify="right")
        for one in (result.ours, *result.peers):
            ratio = "" if one is result.ours else f"{result.ours.median / one.median:.2f}x"
            peak = "" if one.peak_mib is None else f"{one.peak_mib:.0f} MiB"
            table.add_row(one.what, _time(one.median), _time(one.best), str(len(one.seconds)), peak, ratio)
        console.print(table)
        commands = (f"{one.what}: {one.shown}" for one in (result.ours, *result.peers))
        for line in (*map(str, result.targets), *result.notes, *commands):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print()


def _time(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds >= 0.1 else f"{1000 * seconds:.2f} ms"


def as_json(results: Sequence[Comparison]) -> list[dict[str, Any]]:
    def one(measured: Measured) -> dict[str, Any]:
        return {
            "what": measured.what,
            "command": measured.shown,
            "seconds": measured.seconds,
            "median": measured.median,
            "peak_mib": measured.peak_mib,
        }

    return [
        {
            "title": result.title,
            "ours": one(result.ours),
            "peers": [one(peer) for peer in result.peers],
            "targets": [
                {"what": t.what, "limit": t.limit, "measured": t.measured, "unit": t.unit, "met": t.met}
                for t in result.targets
            ],
            "notes": result.notes,
        }
        for result in results
    ]
