"""A folder for decrypted files and a throw-away server, gone in the end: a killed process's by the next that needs one.

Not below the folder of a run: as root that one is closed to the account that PostgreSQL runs as.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runbooks.model.errors import LocalFault
from runbooks.sandbox.daemon import default_root
from runbooks.sandbox.processes import reap

MARK = "bloom-dr-work-"


def workspace_root() -> Path:
    """Beside the sandbox's place: BLOOM_DR_SANDBOX chooses the disk."""
    return default_root().parent


@contextmanager
def workspace(root: Path | None = None) -> Iterator[Path]:
    """A new, empty folder below `root`, removed at the end. First, those that dead processes left there are removed.

    LocalFault if it cannot be made, or not be removed.
    """
    root = root or workspace_root()
    try:
        folder, held = _made(root)
    except OSError as error:
        raise LocalFault(
            f"no folder can be made in {root}: {error.strerror}",
            safe="nothing was read and no backup was touched",
            next_step="make room or cure what the message names, or set BLOOM_DR_SANDBOX to a place on another disk",
        ) from error
    try:
        yield folder
    except BaseException as error:
        try:
            shutil.rmtree(folder)
        except OSError as trouble:
            error.add_note(f"besides, {_stays(folder, trouble)}")
        raise
    else:
        try:
            shutil.rmtree(folder)
        except OSError as trouble:
            raise LocalFault(
                _stays(folder, trouble), safe="no backup was touched", next_step=f"remove it by hand: rm -r {folder}"
            ) from trouble
    finally:
        os.close(held)


def _stays(folder: Path, trouble: OSError) -> str:
    return f"{folder} could not be removed, and may hold readable rows of a backup: {trouble}"


def _made(root: Path) -> tuple[Path, int]:
    """The folder, and the descriptor whose lock says that somebody lives there."""
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    above = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(above, fcntl.LOCK_EX)  # nobody sweeps away a folder that is not locked yet
        for left in root.glob(f"{MARK}*"):
            _sweep(left)
        folder = Path(tempfile.mkdtemp(prefix=MARK, dir=root))
        folder.chmod(0o711)
        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        return folder, held
    finally:
        os.close(above)


def _sweep(folder: Path) -> None:
    """Remove it, if nobody lives there: the lock goes with the process, however that ends."""
    try:
        held = os.open(folder, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):  # gone meanwhile, or another user's
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        for data in folder.glob("*/cluster/data"):
            reap(data)
        shutil.rmtree(folder)
    finally:
        os.close(held)
