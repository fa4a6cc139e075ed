"""Finding 1,000 rows that an accident scattered over a big table lost, by its keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from bench.comparison import Comparison, Target, against
from bench.data import Damaged, damaged, folder
from bench.measure import Command, Measured, side_by_side
from runbooks.clients import programs
from runbooks.model.dsn import Dsn

PROJECT = Path(__file__).parent.parent
ROWS, FEW_ROWS = 5_000_000, 1_000_000
RELADIFF = "reladiff[postgresql]==0.6.0"

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
            reladiff = _reladiff(data, place, say)
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
            () if others else (f"reladiff was not measured: {RELADIFF} could not be installed",),
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
        environment={"PRODUCTION": data.production.reveal_url(), "BRANCH": data.branch.reveal_url()},
        folder=PROJECT,
        check=lambda output: _same(data, map(int, output.split())),
    )


def _pipe(data: Damaged, place: Path) -> Command:
    passwords = place / "passwords"
    _write(passwords, "".join(_password_line(dsn) for dsn in (data.production, data.branch)))
    folder_of_psql = programs.find("psql").path.parent
    return Command(
        "psql pipe",
        PIPE.strip().replace("\n", "; "),
        ["sh", "-ec", PIPE],
        environment={
            "PATH": f"{folder_of_psql}{os.pathsep}{os.environ['PATH']}",
            "PGPASSFILE": str(passwords),
            "PRODUCTION": replace(data.production, password=None).reveal_url(),
            "BRANCH": replace(data.branch, password=None).reveal_url(),
        },
        check=lambda output: _same(data, map(int, output.split())),
    )


def _reladiff(data: Damaged, place: Path, say: Callable[[str], None]) -> Command | None:
    """The peer in a virtual environment of its own; None if it cannot be installed."""
    home = place / "reladiff"
    program = home / "bin" / "reladiff"
    if not program.exists():
        say(f"installing {RELADIFF}")
        venv.create(home, with_pip=True, clear=True)
        done = subprocess.run(
            [home / "bin" / "python", "-m", "pip", "install", "--quiet", RELADIFF], capture_output=True, check=False
        )
        if done.returncode != 0:
            return None
    settings = place / "reladiff.toml"
    _write(
        settings,
        "[run.keys]\n"
        + "".join(
            f'{side}.database = {json.dumps(dsn.reveal_url())}\n{side}.table = "visits"\n'
            for side, dsn in ((1, data.production), (2, data.branch))
        ),
    )
    argv: list[str | Path] = [program, "--conf", settings, "--run", "keys", "-k", "id", "--json"]
    return Command(
        "reladiff",
        'reladiff "$PRODUCTION" visits "$BRANCH" visits -k id --json',
        argv,
        check=lambda output: _same(data, _only_in_branch(output)),
    )


def _only_in_branch(output: str) -> Iterator[int]:
    for line in output.splitlines():
        sign, (key,) = json.loads(line)
        if sign == "+":
            yield int(key)


def _same(data: Damaged, found: Iterable[int]) -> None:
    assert sorted(found) == sorted(data.lost), "the rows found are not the rows lost"


def _password_line(dsn: Dsn) -> str:
    assert dsn.password
    fields = (dsn.host, str(dsn.port), dsn.database, dsn.user, dsn.password.reveal())
    return ":".join(field.replace("\\", "\\\\").replace(":", "\\:") for field in fields) + "\n"


def _write(path: Path, secret: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(secret, encoding="utf-8")
