"""Send local copies that the archive lacks: each is read and compared with its manifest first, and that goes last."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from runbooks.backups.catalog import Catalog, Listed, local_root, opening
from runbooks.backups.prove import each_file, prove_by_reading, store
from runbooks.backups.reading import Open
from runbooks.backups.storing import put
from runbooks.clients.repository import Repository
from runbooks.model.backup import StoredFile, Verdict
from runbooks.model.backup_id import MANIFEST
from runbooks.model.errors import LocalFault, NotFound
from runbooks.model.moment import Moment
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.retention import Place

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Behind:
    """A local backup that the archive does not hold whole."""

    local: Listed
    archived: Listed | None
    why_not: str | None
    """Why it cannot be sent; None: it can."""


def behind(local: Catalog, archived: Catalog, policy: BackupPolicy, now: Moment) -> Iterator[Behind]:
    """Oldest first; without half backups, which are none, and without what a clean-up would remove. Pure."""
    known = {one.id: one for one in archived.backups}
    for one in local.backups:
        there = known.get(one.id)
        whole = there is not None and there.manifest is not None and there.trouble is None
        if one.complete and not whole and not _is_over(one, policy, now):
            yield Behind(one, there, _why_not(one, there))


def _is_over(one: Listed, policy: BackupPolicy, now: Moment) -> bool:
    """Past its time in the archive: to send it would bring back what a clean-up has removed."""
    days = None if one.tier is None else policy.tiers[one.tier].s3_days
    return days is not None and one.id.started.utc + timedelta(days=days) <= now.utc


def _why_not(one: Listed, there: Listed | None) -> str | None:
    if one.trouble is not None:
        return one.trouble
    if one.standing.failure is not None:
        return f"it is broken, says {one.standing.failure.key}: {'; '.join(one.standing.failure.details)}"
    if there is not None and there.manifest is not None and there.manifest != one.manifest:
        return "the archive holds another backup under the same name"
    return None


def send(
    repository: Repository, one: Listed, *, by: str, clock: Callable[[], Moment], tell: Tell = lambda text: None
) -> None:
    """Upload what the archive lacks of a local backup, the manifest last. Safe to repeat.

    LocalFault, with nothing uploaded and that noted beside the copy, if it is not what its manifest says; Refused if
    the archive holds something else under one of its keys; else what the archive raises: then it has no manifest there.
    """
    manifest = one.manifest
    assert manifest is not None, "who has no manifest is not sent"
    folder = local_root(repository) / str(one.id)
    found = prove_by_reading(opening(repository, one.id, Place.LOCAL), manifest, None, by=by, clock=clock, tell=tell)
    if found.verdict is not Verdict.PASSED:
        store(repository, manifest.tier, found, Place.LOCAL)
        raise _damaged(folder, found.details)
    now = clock()

    def upload(_: Open, file: StoredFile) -> None:
        if not _is_there(repository, one.id.file_key(file.stored_name), file.stored_size, file.stored_sha256):
            put(
                repository, one.id, manifest.tier, file.stored_name, folder / file.stored_name,
                sha256=file.stored_sha256, now=now,
            )  # fmt: skip

    each_file(opening(repository, one.id, Place.LOCAL), manifest.files, upload, tell, "uploaded")
    content = _manifest(folder)
    if not _is_there(repository, one.id.manifest_key, len(content), hashlib.sha256(content).hexdigest()):
        put(repository, one.id, manifest.tier, MANIFEST, content, now=now)


def _is_there(repository: Repository, key: str, size: int, sha256: str) -> bool:
    """Sent by an earlier attempt. If something else is there, the upload finds out; the proof reads it in any case."""
    try:
        head = repository.archive.head(key)
    except NotFound:
        return False
    return (head.size, head.sha256) == (size, sha256)


def _manifest(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise _damaged(folder, (f"{MANIFEST} cannot be read: {error.strerror}",)) from error


def _damaged(folder: Path, why: tuple[str, ...]) -> LocalFault:
    return LocalFault(
        f"the local copy in {folder} is not what its manifest says: {'; '.join(why)}",
        safe="nothing of it was uploaded",
        next_step="check this machine's disk; take a new backup: invoke backup.take --tier daily",
    )
