"""The folder of a run for readable rows of a backup. Unlike a workspace it outlives its process: consent comes later.

It lies beside the sandbox's place, as that of a run is closed, as root, to the account that PostgreSQL runs as. The
run's last step removes it; of a run that nobody goes on with, the next one that makes such a folder, once it expired.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from runbooks.backups.workspace import workspace_root
from runbooks.model.errors import LocalFault
from runbooks.model.moment import Moment
from runbooks.model.run_id import RunId
from runbooks.sandbox.kept import Kept

MARK = "bloom-dr-past-"
_EXPIRES = "expires"


def folder_of(run: RunId) -> Path:
    return workspace_root() / f"{MARK}{run}"


@contextmanager
def fresh(folder: Path, expires: Moment, now: Moment) -> Iterator[None]:
    """A new, empty folder (0700), in use for the block. What an earlier attempt left there is removed first, and so are
    the expired ones of other runs. LocalFault."""
    try:
        held = _made(folder, expires, now)
    except OSError as error:
        raise LocalFault(
            f"the folder {folder} cannot be made: {error.strerror}",
            safe="nothing was read and no database was touched",
            next_step="make room or cure what the message names, or set BLOOM_DR_SANDBOX to a place on another disk",
        ) from error
    try:
        yield
    finally:
        os.close(held)


@contextmanager
def in_use(folder: Path) -> Iterator[bool]:
    """Nobody takes it for expired during the block. False: it is not there."""
    try:
        held = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder.exists()
    finally:
        os.close(held)


def remove(folder: Path) -> None:
    """End the server there, if one is left, and delete everything. Safe to repeat. LocalFault."""
    try:
        Kept(folder).remove()
    except OSError as error:
        raise LocalFault(
            f"{folder} could not be removed, and may hold readable rows of a backup: {error}",
            safe="no backup was touched",
            next_step=f"remove it by hand: rm -r {folder}",
        ) from error


def _made(folder: Path, expires: Moment, now: Moment) -> int:
    """The descriptor whose lock says that somebody lives there: the lock goes with the process, however that ends."""
    folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    above = os.open(folder.parent, os.O_RDONLY)
    try:
        fcntl.flock(above, fcntl.LOCK_EX)  # nobody sweeps away a folder that is not locked yet
        for left in folder.parent.glob(f"{MARK}*"):
            if left == folder:
                remove(left)
            else:
                _sweep(left, now)
        folder.mkdir(mode=0o700)
        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        word = folder / _EXPIRES
        word.touch(mode=0o600)
        word.write_text(expires.iso())
        return held
    finally:
        os.close(above)


def _sweep(folder: Path, now: Moment) -> None:
    """Remove it, if it has expired and nobody lives there."""
    try:
        held = os.open(folder, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):  # gone meanwhile, or another user's
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        if _expired(folder, now):
            remove(folder)
    finally:
        os.close(held)


def _expired(folder: Path, now: Moment) -> bool:
    """One without a whole word on it was left before anything was put there."""
    try:
        said = datetime.fromisoformat((folder / _EXPIRES).read_text())
    except (FileNotFoundError, ValueError):
        return True
    return Moment.of(said) <= now
