"""Remove old backups: each judged once more, right before, by what lies there then; the manifest goes first.

What is stopped in the middle leaves half a backup, which is never taken for one, and which a later clean-up removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runbooks.backups.catalog import Listed, local_root, look_at
from runbooks.clients.archive import Archive
from runbooks.clients.repository import Repository
from runbooks.model.backup import Tier
from runbooks.model.backup_id import MANIFEST, BackupId, is_file_name, is_proof_name
from runbooks.model.errors import CouldNotVerify, LocalFault, NotFound
from runbooks.model.moment import Moment
from runbooks.model.retention import Copy, Entry, Place, plan_prune
from runbooks.model.shelf import Folder, sort_keys

_HANDS = 8


def judge_again(repository: Repository, copy: Copy, guards: Iterable[Copy], now: Moment) -> Entry | None:
    """What the policy says of one backup now; None if it is gone.

    `guards`: the newest verified ones in the same place. Only those that are still there, and still verified, count:
    as more of them only ever add to what may go, a judgement by a few is never too bold. CouldNotVerify if one of
    them cannot be read now; raises as `look_at`.
    """
    now_there = _look(repository, copy.id, copy.place)
    if now_there is None:
        return None
    seen = [now_there.as_copy(), *(each.as_copy() for each in _still(repository, guards))]
    if not now_there.complete:
        seen[0] = seen[0].model_copy(update={"tier": now_there.tier or copy.tier})  # its manifest told it
    if copy.place is Place.LOCAL and (sent := _look(repository, copy.id, Place.ARCHIVE)):
        seen.append(sent.as_copy())
    entries = plan_prune(seen, repository.policy, now).entries
    return next(each for each in entries if (each.copy_of.id, each.copy_of.place) == (copy.id, copy.place))


def _still(repository: Repository, guards: Iterable[Copy]) -> Iterable[Listed]:
    for guard in guards:
        if (now := _look(repository, guard.id, guard.place)) is not None:
            require_read(now)
            yield now


def require_read(one: Listed) -> None:
    """CouldNotVerify if its manifest or proofs were not handed out, which says nothing about the backup."""
    if one.unread:
        raise CouldNotVerify(
            f"whether {one.place} {one.id} is still what it was cannot be seen: {one.trouble}",
            safe="nothing more was deleted; what went before stood behind verified newer backups",
            next_step="when it can be read again, go on with the run; if it stays so: invoke backup.list",
        )


def _look(repository: Repository, backup: BackupId, place: Place) -> Listed | None:
    try:
        return look_at(repository, backup, place)
    except NotFound:
        return None


def with_tiers(local: Iterable[Listed], archived: Iterable[Listed]) -> list[Copy]:
    """As copies. Half a backup in a folder has no tags: its tier is what the archive knows of it."""
    known = {one.id: one.tier for one in archived}
    return [
        one.as_copy().model_copy(update={"tier": one.tier or known.get(one.id) or Tier.PRE_MIGRATION}) for one in local
    ]


def remove(repository: Repository, backup: BackupId, place: Place) -> int:
    """Remove one backup from one place; how many objects or files it had. Safe to repeat; nothing there is no error.

    Only what is ours is touched. Refused, before anything is removed, if a version of one of its objects is locked.
    """
    if place is Place.LOCAL:
        return _remove_folder(local_root(repository) / str(backup))
    folder = _folder(repository.archive, backup)
    return 0 if folder is None else _remove_objects(repository.archive, folder)


def _folder(archive: Archive, backup: BackupId) -> Folder | None:
    shelf = sort_keys(each.key for each in archive.objects(backup.prefix))
    return next((folder for folder in shelf.backups if folder.id == backup), None)


def _remove_objects(archive: Archive, folder: Folder) -> int:
    manifest = [folder.id.manifest_key] if folder.complete else []
    files = [folder.id.file_key(name) for name in folder.files]
    every = [*manifest, *files, *folder.proofs]
    with ThreadPoolExecutor(_HANDS, thread_name_prefix="clearing") as pool:
        _each(pool, archive.require_unlocked, every)
        for key in manifest:
            archive.delete(key)
        _each(pool, lambda key: archive.delete(key), files)
        # They come last: their tags tell the tier of what else is left.
        _each(pool, lambda key: archive.delete(key), folder.proofs)
    return len(every)


def _each(pool: ThreadPoolExecutor, act: Callable[[str], None], keys: Iterable[str]) -> None:
    """The first failure, or an interruption, keeps those that wait from being started."""
    waiting = [pool.submit(act, key) for key in keys]
    try:
        for future in waiting:
            future.result()
    finally:
        for future in waiting:
            future.cancel()


def _remove_folder(folder: Path) -> int:
    try:
        ours = sorted((path for path in folder.iterdir() if _is_ours(path.name)), key=_rank)
        for path in ours:
            path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise LocalFault(
            f"{error.filename or folder} cannot be removed: {error.strerror}",
            safe="its manifest goes first, so what is left of it is never taken for a backup",
            next_step="cure what the message names, then go on with the run",
        ) from error
    return len(ours)


def _is_ours(name: str) -> bool:
    """Also what a process that was killed while it wrote one has left."""
    name = name.removeprefix(".").removesuffix(".new") if name.startswith(".") and name.endswith(".new") else name
    return name == MANIFEST or is_file_name(name) or is_proof_name(name)


def _rank(path: Path) -> tuple[bool, bool, str]:
    """The manifest, the files, the proofs."""
    return path.name != MANIFEST, is_proof_name(path.name), path.name
