"""The operating-system account that PostgreSQL runs as, and the programs that account can execute.

PostgreSQL refuses to run as root. As root we drop to an unprivileged account for every server-side program and own
nothing but the stack's folder; as anybody else we run as ourselves. No accounts are created, no foreign modes changed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runbooks.clients import programs
from runbooks.clients.programs import Program
from runbooks.model.errors import SandboxFault, ToolMissing

SETTING = "BLOOM_DR_PG_USER"
NEEDS = 17
"""The builtin C.UTF-8 locale, which Neon uses too, came with PostgreSQL 17."""

_ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""All that a child gets: tokens in our own environment are none of the server's business."""

NOTHING = "no database was touched"


@dataclass(frozen=True)
class Account:
    """Who runs PostgreSQL. `uid` None: the account we run as already."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def choose(cls) -> Account:
        """Ourselves; as root the account in BLOOM_DR_PG_USER, else `postgres`, else `nobody`. Raises SandboxFault."""
        if os.geteuid() != 0:
            return cls()
        wanted = os.environ.get(SETTING)
        for name in (wanted,) if wanted else ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            if entry.pw_uid != 0:
                return cls(entry.pw_uid, entry.pw_gid)
        raise SandboxFault(
            "PostgreSQL does not run as root, and there is no account to run it as",
            safe=NOTHING,
            next_step=f"run this as an ordinary user, or set {SETTING} to an account that is not root",
        )

    def spawning(self) -> dict[str, Any]:
        """Arguments for `subprocess` that make a child of this account."""
        common: dict[str, Any] = {"env": dict(_ENVIRONMENT), "cwd": "/", "umask": 0o077}
        if self.uid is None:
            return common
        return common | {"user": self.uid, "group": self.gid, "extra_groups": []}

    def run(self, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
        """Run to the end and answer stdout; SandboxFault with what the program said if it fails."""
        how = self.spawning()
        how["env"] = how["env"] | dict(env or {})
        try:
            done = subprocess.run(command, **how, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except OSError as error:
            raise _failed(Path(command[0]).name, str(error)) from error
        if done.returncode != 0:
            raise _failed(Path(command[0]).name, (done.stderr or done.stdout).strip()[-2000:])
        return str(done.stdout)

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def folder(self, path: Path) -> Path:
        """Make `path` (and what is missing above it), 0700, for this account."""
        for missing in reversed([path, *path.parents]):
            if not missing.exists():
                missing.mkdir(mode=0o700)
                self.own(missing)
        return path

    def write(self, path: Path, text: str) -> None:
        """A file of this account, 0600, replaced whole."""
        beside = path.with_name(path.name + ".new")
        beside.touch(mode=0o600)
        beside.write_text(text)
        self.own(beside)
        beside.replace(path)


def prepare(root: Path, account: Account) -> Program:
    """PostgreSQL that `account` can run, with `root` as its place. Raises SandboxFault or ToolMissing.

    Programs below a folder closed to the account (a virtual environment in root's home) are copied below `root`.
    """
    found = programs.find("postgres", at_least=NEEDS)
    for needed in ("initdb", "pg_basebackup"):
        found.sibling(needed)
    try:
        account.run("test", "-x", root)
    except SandboxFault as fault:
        raise SandboxFault(
            f"the account that runs PostgreSQL cannot enter {root}",
            safe=NOTHING,
            next_step="set BLOOM_DR_SANDBOX to a folder that every account can reach, such as one below /var/tmp",
        ) from fault
    if _runs(found.path, account):
        return found
    # The install tree is relocatable: bin, lib and share find each other by their relative places.
    copy = root / "programs" / f"{found.version[0]}.{found.version[1]}"
    if not (copy / "bin" / "postgres").exists():
        _copy_tree(found.path.parent.parent, copy, account)
    moved = Program(copy / "bin" / "postgres", found.version, found.source)
    if not _runs(moved.path, account):
        raise ToolMissing(
            f"{moved.path} cannot be run by the account that runs PostgreSQL",
            safe=NOTHING,
            next_step=programs.INSTALL,
        )
    return moved


def _runs(postgres: Path, account: Account) -> bool:
    try:
        account.run(postgres, "--version")
    except SandboxFault:
        return False
    return True


def _copy_tree(source: Path, target: Path, account: Account) -> None:
    """All or nothing: a copy that was cut short is not found by the next start."""
    account.folder(target.parent)
    beside = target.with_name(target.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    for part in ("bin", "lib", "share"):
        shutil.copytree(source / part, beside / part, symlinks=True)
    beside.chmod(0o755)
    for path in (beside, *beside.rglob("*")):
        if not path.is_symlink():
            account.own(path)
    beside.replace(target)


def _failed(program: str, said: str) -> SandboxFault:
    return SandboxFault(
        f"{program} failed: {said}",
        safe="only the sandbox's own files were touched",
        next_step="cure what the message names, then `invoke sandbox.up` goes on from what is there",
    )
