"""How long the list of commands takes to appear: it is typed by someone under stress."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.comparison import Comparison, against
from bench.measure import Command, side_by_side

PROJECT = Path(__file__).parent.parent
EMPTY = "from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n"


def run(runs: int, say: Callable[[str], None]) -> tuple[Comparison, ...]:
    invoke = Path(sys.executable).with_name("invoke")
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tasks.py").write_text(EMPTY, encoding="utf-8")
        ours, empty = side_by_side(
            [
                Command("bloom-dr", "invoke --list", [invoke, "--list"], folder=PROJECT, check=_has_recoveries),
                Command("an empty tasks.py", "invoke --list", [invoke, "--list"], folder=folder),
            ],
            runs=3 * runs,
            say=say,
        )
    return (Comparison("The list of commands", ours, (empty,), (against(ours, empty, 1.5),)),)


def _has_recoveries(output: str) -> None:
    assert "recover." in output, output
