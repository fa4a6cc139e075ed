"""Fill an empty database from a backup: its files fetched and compared first, removed again in every outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from runbooks.backups import legacy_restore
from runbooks.backups.arrived import LeftOut
from runbooks.backups.prospect import Prospect
from runbooks.backups.source import fetch_files, fetch_old
from runbooks.clients.repository import Repository
from runbooks.clients.restore import restore
from runbooks.clients.restore_complaints import Complaint
from runbooks.clients.restore_outlook import LeftOut as Foretold
from runbooks.model.dsn import Dsn
from runbooks.model.record import Record


class Told(Record):
    """A complaint of the restore that did not stop it."""

    kind: str
    text: str
    reason: str


class Restored(Record):
    complaints: tuple[Told, ...]
    left_out: tuple[LeftOut, ...]
    grants: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    """What was left out on purpose, counted: owners, privileges."""
    unproved: tuple[str, ...] = ()
    """What cannot be proved with such a backup."""
    fetch_seconds: float = 0
    restore_seconds: float = 0


def fetch_dump(repository: Repository, about: Prospect, workspace: Path, tell: Callable[[str], None]) -> Path:
    """The decrypted dump below `workspace`. ProofFailed if a file is not what it was; what an archive raises."""
    if about.old is not None:
        return fetch_old(repository, about.source, workspace / "dump.sql.gz")
    names = None if about.tables is None else about.what.names
    fetch_files(repository, about.source, workspace / "dump", repository.require_opener(), names, tell)
    return workspace / "dump"


def refill(repository: Repository, about: Prospect, dump: Path, target: Dsn, tell: Callable[[str], None]) -> Restored:
    """Not safe to repeat: a restore that failed leaves a part. ProofFailed with each statement that failed (C03)."""
    policy = repository.policy
    if about.old is not None:
        old = legacy_restore.restore(
            dump, target, tolerated=policy.tolerated, facts=about.old, time_limit=policy.time_limit, progress=tell
        )
        return Restored(
            complaints=_told(old.complaints),
            left_out=_left_out(old.left_out),
            grants=old.grants,
            skipped=tuple(f"{count:,} statements about {what}" for what, count in old.skipped),
            unproved=old.unproved,
        )
    done = restore(
        dump, target, jobs=about.jobs, tables=about.tables, tolerated=policy.tolerated, checked=True,
        time_limit=policy.time_limit, progress=tell,
    ).require()  # fmt: skip
    return Restored(complaints=_told(done.complaints), left_out=_left_out(done.left_out), grants=done.grants)


def _told(complaints: Iterable[Complaint]) -> tuple[Told, ...]:
    return tuple(Told(kind=each.kind, text=each.text[:500], reason=each.reason) for each in complaints)


def _left_out(things: Iterable[Foretold]) -> tuple[LeftOut, ...]:
    return tuple(LeftOut(what=each.what, reason=each.reason) for each in things)
