"""Pulumi's command line, built once from its Go sources: what go.mod and go.sum here pin, and nothing else."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
VERSION = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"


class CannotBuild(Exception):
    """There is no Go that can; the text says why."""


def command_line() -> Path:
    """The program `pulumi`. The first call on a machine builds it, in about three minutes; others wait for it.

    CannotBuild where Go is missing or too old; CalledProcessError if the build fails.
    """
    program = _folder() / "pulumi"
    if program.exists():
        return program
    go = _go()
    program.parent.mkdir(parents=True, exist_ok=True)
    with _held(program.parent / "lock"):
        if not program.exists():  # another test process may have been quicker
            _build(go, program)
    return program


def _folder() -> Path:
    """Outside of the repository, and another one for each go.sum."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "bloom-dr" / f"pulumi-{hashlib.sha256((HERE / 'go.sum').read_bytes()).hexdigest()[:16]}"


def _go() -> str:
    go, wanted = shutil.which("go"), _required(r"^go (\S+)$")
    if go is None:
        raise CannotBuild(f"the engine's tests need Go {wanted} to build Pulumi's command line, and there is no Go")
    told = subprocess.run([go, "env", "GOVERSION"], cwd="/", capture_output=True, text=True, check=True).stdout.strip()
    if _number(told) < _number(wanted):
        raise CannotBuild(f"the engine's tests need Go {wanted} to build Pulumi's command line, and this is {told}")
    return go


def _build(go: str, program: Path) -> None:
    version = _required(r"^\s*(?:require )?github\.com/pulumi/pulumi/pkg/v3 v(\S+)$")
    made = program.with_suffix(".new")
    flags = f"-s -w -X {VERSION}={version}"
    subprocess.run([go, "build", "-mod=readonly", f"-ldflags={flags}", "-o", str(made), PACKAGE], cwd=HERE, check=True)
    made.rename(program)


def _required(line: str) -> str:
    found = re.search(line, (HERE / "go.mod").read_text(), re.MULTILINE)
    assert found, f"go.mod has no line {line}"
    return found[1]


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


@contextmanager
def _held(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
