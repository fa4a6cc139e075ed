"""The folder of a stack: whose it is, who runs it now, and where the facts of a running one are. Quick to import."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runbooks.model.errors import SandboxFault
from runbooks.sandbox.osuser import Account

FACTS = "stack.json"
LOCK = "sandbox.lock"
"""Also what tells a folder of ours from any other."""


def make_root(root: Path, account: Account) -> None:
    """Make the folder, or accept one that is ours (or our server account's) and closed to others."""
    try:
        root.mkdir(mode=0o700, parents=True)
        account.own(root)
    except FileExistsError:
        pass
    entries = {entry.name for entry in root.iterdir()}
    if entries and LOCK not in entries:
        raise _unusable(root, "is not empty, and what is in it is no sandbox")
    about = root.stat()
    if about.st_uid == os.geteuid() and about.st_uid != account.uid:
        account.own(root)
    elif about.st_uid not in (os.geteuid(), account.uid):
        raise _unusable(root, "belongs to another account")
    if about.st_mode & 0o077:
        raise _unusable(root, "is open to other accounts")
    (root / LOCK).touch(mode=0o600)


@contextmanager
def lock(root: Path) -> Iterator[None]:
    """Held while a process runs the stack; the system lets go of it when the process ends, however it ends."""
    file = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # `is_held` takes it for a moment, so one refusal proves nothing.
        until = time.monotonic() + 1
        while not _take(file):
            if time.monotonic() > until:
                raise SandboxFault(
                    f"another process runs the sandbox in {root}",
                    safe="nothing was changed",
                    next_step="use it (`invoke sandbox.status` shows it), or end it with `invoke sandbox.down`",
                )
            time.sleep(0.01)
        yield
    finally:
        os.close(file)


def is_held(root: Path) -> bool:
    """Whether a process runs the stack in `root`."""
    try:
        file = os.open(root / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _take(file)
    finally:
        os.close(file)


def _take(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unusable(root: Path, why: str) -> SandboxFault:
    return SandboxFault(
        f"the folder {root} {why}",
        safe="nothing was changed",
        next_step="set BLOOM_DR_SANDBOX to a folder of your own",
    )
