"""The journal of a run: JSON lines, append-only, each line bound to the one before it by a hash, fsynced before
anything that depends on it happens. The journal is the truth; the screen is a view of it.

A line: {"seq", "at", "event", "data", "prev", "hash"}; hash = SHA-256 over the canonical JSON of the other five.
A writer killed in the middle of a line leaves an incomplete last line; it was never acted on, so it is cut off when
the run is resumed. Any other damage raises JournalBroken. A chain cannot show that whole lines were cut from its end:
compare the last hash with the one in the run's report for that.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbooks.model.errors import JournalBroken, LocalFault, LockHeld, NotFound
from runbooks.model.record import canonical, digest

FILE_NAME = "journal.jsonl"
_GENESIS = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Entry:
    seq: int
    at: datetime
    event: str
    data: dict[str, Any]
    prev: str
    hash: str


@dataclass(frozen=True)
class Reading:
    """What a journal file holds: its whole entries, and whether an incomplete last line follows them."""

    entries: tuple[Entry, ...]
    good_bytes: int
    torn: bool


def read(path: Path) -> Reading:
    """Read and check a journal. Raises NotFound without a file, JournalBroken if the chain does not hold."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no journal at {path}", safe="nothing was changed", next_step="invoke run.list") from None
    except OSError as trouble:
        raise _unusable(path, trouble) from trouble
    entries: list[Entry] = []
    prev, good = _GENESIS, 0
    for line in raw.splitlines(keepends=True):
        entry = _parse(line)
        if entry is None:
            if good + len(line) == len(raw) and not line.endswith(b"\n"):
                return Reading(tuple(entries), good, torn=True)
            raise _broken(path, len(entries) + 1, "is not a journal line")
        if entry.seq != len(entries) + 1 or entry.prev != prev:
            raise _broken(path, len(entries) + 1, "does not follow the line before it")
        if entry.hash != _hash(entry):
            raise _broken(path, entry.seq, "was altered")
        entries.append(entry)
        prev, good = entry.hash, good + len(line)
    return Reading(tuple(entries), good, torn=False)


class Journal:
    """One process writing one run's journal. Holds an exclusive lock on the file while it is open."""

    def __init__(self, path: Path, fd: int, reading: Reading, now: Callable[[], datetime]) -> None:
        self.path = path
        self.entries: tuple[Entry, ...] = reading.entries
        self._fd = fd
        self._size = reading.good_bytes
        self._now = now

    @classmethod
    def create(cls, folder: Path, *, now: Callable[[], datetime]) -> Journal:
        """Start the journal of a new run in a folder that exists (0700). Raises LocalFault."""
        path = folder / FILE_NAME
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            _sync_folder(folder)
        except OSError as trouble:
            raise _unusable(path, trouble) from trouble
        _lock(fd, path)
        return cls(path, fd, Reading((), 0, torn=False), now)

    @classmethod
    def resume(cls, folder: Path, *, now: Callable[[], datetime]) -> Journal:
        """Open a journal to go on with it: checks the chain, cuts an incomplete last line.

        Raises NotFound, JournalBroken, LocalFault, and LockHeld if another process on this machine has the run open.
        """
        path = folder / FILE_NAME
        read(path)  # a missing or broken journal is told before the file is opened for writing
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as trouble:
            raise _unusable(path, trouble) from trouble
        _lock(fd, path)
        reading = read(path)
        if reading.torn:
            os.ftruncate(fd, reading.good_bytes)
            os.fsync(fd)
        return cls(path, fd, reading, now)

    def append(self, event: str, data: dict[str, Any] | None = None) -> Entry:
        """Write one line and make it durable before returning. On failure nothing is left of it. Raises LocalFault."""
        at = self._now().astimezone(UTC)
        prev = self.entries[-1].hash if self.entries else _GENESIS
        seq = len(self.entries) + 1
        body = json.loads(canonical(data or {}))
        entry = Entry(seq, at, event, body, prev, "")
        entry = replace(entry, hash=_hash(entry))
        line = _line(entry)
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._fd, line[written:], self._size + written)
            os.fsync(self._fd)
        except OSError as trouble:
            fault = _unusable(self.path, trouble)
            try:
                os.ftruncate(self._fd, self._size)
            except OSError as second:
                fault.with_cleanup_trouble(second)
            raise fault from trouble
        self._size += len(line)
        self.entries = (*self.entries, entry)
        return entry

    def close(self) -> None:
        os.close(self._fd)


def _fields(entry: Entry) -> dict[str, Any]:
    """What the hash covers."""
    at = entry.at.isoformat(timespec="microseconds")
    return {"seq": entry.seq, "at": at, "event": entry.event, "data": entry.data, "prev": entry.prev}


def _hash(entry: Entry) -> str:
    return digest(_fields(entry))


def _line(entry: Entry) -> bytes:
    """The one spelling of an entry: any other is an alteration, even one that reads the same."""
    return canonical(_fields(entry) | {"hash": entry.hash}).encode() + b"\n"


def _parse(line: bytes) -> Entry | None:
    """The entry, if the line is one in the one spelling that `append` gives it."""
    try:
        raw = json.loads(line, parse_constant=int)  # int() refuses NaN and its like
        at = datetime.fromisoformat(raw["at"])
        entry = Entry(raw["seq"], at, raw["event"], raw["data"], raw["prev"], raw["hash"])
        return entry if _line(entry) == line else None
    except (ValueError, TypeError, KeyError):
        return None


_LEFT_BEHIND = 2.0
"""Seconds. A process that was killed while it started another one leaves its locks to that one, until it is started."""


def _lock(fd: int, path: Path) -> None:
    until = time.monotonic() + _LEFT_BEHIND
    while not (held := _try_lock(fd)) and time.monotonic() < until:
        time.sleep(0.05)
    if not held:
        os.close(fd)
        raise LockHeld(
            f"another process on this machine is carrying out the run in {path.parent.name}",
            safe="this process changed nothing",
            next_step=f"watch it with: invoke run.show {path.parent.name}",
        )


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _broken(path: Path, line: int, what: str) -> JournalBroken:
    return JournalBroken(
        f"line {line} of {path} {what}",
        safe="nothing was changed by reading it; the databases are as the run left them",
        next_step="check the target by hand before you start a new run; keep this file as it is",
    )


def _unusable(path: Path, trouble: OSError) -> LocalFault:
    return LocalFault(
        f"cannot use {path}: {trouble.strerror}",
        safe="no step that depends on this line was taken",
        next_step="free space or fix the permissions there (BLOOM_DR_RUNS moves the folder), then: invoke run.list",
    )
