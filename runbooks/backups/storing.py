"""One object of a backup, put into the archive as the policy keeps its tier: tags, storage class, lock."""

from __future__ import annotations

from pathlib import Path

from runbooks.clients.archive_types import Lock
from runbooks.clients.repository import Repository
from runbooks.model.backup import Tier
from runbooks.model.backup_id import MANIFEST, BackupId
from runbooks.model.moment import Moment


def put(
    repository: Repository,
    backup: BackupId,
    tier: Tier,
    name: str,
    content: Path | bytes,
    *,
    sha256: str | None = None,
    now: Moment | None = None,
) -> None:
    """A dumped file, or the manifest. `now`: a lock that would be over by then is left out, as S3 refuses it.

    Raises as `Archive.put`, and is as safe to repeat.
    """
    part = "manifest" if name == MANIFEST else "data"
    key = backup.manifest_key if part == "manifest" else backup.file_key(name)
    repository.archive.put(
        key, content, tags=repository.tags(tier, part), lock=_lock(repository, backup, tier, now), sha256=sha256,
        storage_class=repository.upload_class(tier) if part == "data" else "STANDARD",
    )  # fmt: skip


def _lock(repository: Repository, backup: BackupId, tier: Tier, now: Moment | None) -> Lock | None:
    """Counted from the start of the backup, whenever it is stored."""
    rule = repository.policy.tiers[tier]
    until = rule.locked_until(backup.started)
    if rule.lock_mode is None or until is None or (now is not None and until <= now):
        return None
    return Lock(rule.lock_mode, until)
