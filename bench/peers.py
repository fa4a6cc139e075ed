"""What our work is measured against: psql as a person would call it, and reladiff in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.data import Damaged
from bench.measure import Command
from runbooks.clients import programs
from runbooks.model.dsn import Dsn

RELADIFF = "reladiff[postgresql]==0.6.0"


def psql(place: Path, production: Dsn, branch: Dsn) -> Mapping[str, str]:
    """An environment in which `psql "$PRODUCTION"` and `psql "$BRANCH"` work; the passwords are in a file."""
    passwords = place / "passwords"
    _write(passwords, "".join(_password_line(dsn) for dsn in (production, branch)))
    return {
        "PATH": f"{programs.find('psql').path.parent}{os.pathsep}{os.environ['PATH']}",
        "PGPASSFILE": str(passwords),
        "PRODUCTION": replace(production, password=None).reveal_url(),
        "BRANCH": replace(branch, password=None).reveal_url(),
    }


def reladiff(
    data: Damaged, place: Path, say: Callable[[str], None], columns: Sequence[str], check: Callable[[str], None]
) -> Command | None:
    """A comparison of visits by key and `columns`; None if reladiff cannot be installed."""
    program = _installed(place / "reladiff", say)
    if program is None:
        return None
    settings = place / "reladiff.toml"
    sides = "".join(
        f'{side}.database = {json.dumps(dsn.reveal_url())}\n{side}.table = "visits"\n'
        for side, dsn in ((1, data.production), (2, data.branch))
    )
    _write(settings, f"[run.visits]\ncolumns = {json.dumps(list(columns))}\n{sides}")
    argv: list[str | Path] = [program, "--conf", settings, "--run", "visits", "-k", "id", "--json"]
    shown = ['reladiff "$PRODUCTION" visits "$BRANCH" visits -k id', *(f"-c {name}" for name in columns), "--json"]
    wide = {"COLUMNS": "10000"}  # its lines of JSON are wrapped like text for a terminal
    return Command("reladiff", " ".join(shown), argv, environment=wide, check=check)


def _installed(home: Path, say: Callable[[str], None]) -> Path | None:
    program = home / "bin" / "reladiff"
    if not program.exists():
        say(f"installing {RELADIFF}")
        venv.create(home, with_pip=True, clear=True)
        pip = (home / "bin" / "python", "-m", "pip", "install", "--quiet", RELADIFF)
        if subprocess.run(pip, capture_output=True, check=False).returncode != 0:
            return None
    return program


def keys_by_side(output: str) -> Mapping[str, frozenset[int]]:
    """reladiff's answer: keys whose row is only in, or otherwise in, production ("-") and the branch ("+")."""
    rows = [json.loads(line) for line in output.splitlines()]
    return {side: frozenset(int(row[0]) for sign, row in rows if sign == side) for side in ("-", "+")}


def _password_line(dsn: Dsn) -> str:
    assert dsn.password
    fields = (dsn.host, str(dsn.port), dsn.database, dsn.user, dsn.password.reveal())
    return ":".join(field.replace("\\", "\\\\").replace(":", "\\:") for field in fields) + "\n"


def _write(path: Path, secret: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(secret, encoding="utf-8")
