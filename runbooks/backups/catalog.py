"""What lies in the repository: each backup with what is proved of it, and whether it can be read now. Only reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import ValidationError

from runbooks.backups.reading import Open
from runbooks.clients.archive_types import Access, Cold, Readable, StoredObject, Thawing
from runbooks.clients.repository import Repository
from runbooks.model.backup import Manifest, ProofRecord, Rung, Standing, Tier, Verdict, standing
from runbooks.model.backup_id import BackupId, LegacyBackup
from runbooks.model.errors import ArchiveFault, LocalFault, NotFound
from runbooks.model.freshness import EARLY
from runbooks.model.moment import Moment
from runbooks.model.retention import Copy, Place
from runbooks.model.shelf import Folder, sort_keys

T = TypeVar("T")
LATEST = "latest"
_READERS = 16
_UNPROVED = Standing(rung=Rung.UPLOADED, failure=None)


@dataclass(frozen=True)
class Listed:
    """One backup in one place."""

    id: BackupId
    place: Place
    manifest: Manifest | None
    """None: half a backup, or one whose manifest cannot be read (then `trouble` says why)."""
    complete: bool
    """A manifest lies there."""
    tier: Tier | None
    """None where neither manifest nor tags tell it."""
    standing: Standing
    proofs: tuple[ProofRecord, ...]
    trouble: str | None
    """Why manifest or proofs could not be read: a backup with trouble is never taken for a good one."""
    stored_size: int
    """Octets of what lies there, all of it."""
    storage_class: str
    """The coldest of its files; `local` for a local copy."""
    access: Access
    locked_until: Moment | None
    unread: bool = False
    """Manifest or proofs were not handed out when this was looked at: `trouble` may be of the archive alone."""

    @property
    def usable(self) -> bool:
        """It has a manifest that can be read, and no proof says that it is broken."""
        return self.manifest is not None and self.trouble is None and self.standing.failure is None

    def verified(self, rung: int) -> bool:
        return self.usable and self.standing.proved(Rung(rung))

    def as_copy(self) -> Copy:
        """For the plan of a clean-up. One whose tier nobody knows is kept as long as any: as a pre-migration one."""
        broken = ProofRecord(
            backup=self.id, at=self.id.started, rung=Rung.UPLOADED, verdict=Verdict.FAILED, by="catalog", seconds=0
        )
        return Copy(
            id=self.id,
            place=self.place,
            tier=self.tier or Tier.PRE_MIGRATION,
            complete=self.complete,
            standing=Standing(rung=Rung.UPLOADED, failure=broken) if self.trouble else self.standing,
            locked_until=self.locked_until,
        )


@dataclass(frozen=True)
class ListedLegacy:
    """An old single file. Nothing is proved of it and there is no manifest to compare it with."""

    backup: LegacyBackup
    place: Place
    stored_size: int
    storage_class: str
    access: Access


@dataclass(frozen=True)
class Offer:
    """What there is to get back to the state before an incident."""

    take: Listed | None
    """The newest verified one that can be read now."""
    colder: Listed | None
    """A newer verified one, in cold storage."""
    unproved: Listed | None
    """A newer one of which nothing bad is known, and which is not verified."""


@dataclass(frozen=True)
class Catalog:
    """Oldest first."""

    backups: tuple[Listed, ...]
    legacy: tuple[ListedLegacy, ...]
    foreign: int
    """Objects that are none of ours: neither listed nor touched."""

    def before(self, moment: Moment) -> Catalog:
        """What was started before `moment`: of old files, what surely was, whatever zone their clock was in."""
        backups = tuple(one for one in self.backups if one.id.started < moment)
        return Catalog(backups, tuple(one for one in self.legacy if one.backup.latest < moment.utc), self.foreign)

    def newest(self, fits: Callable[[Listed], bool]) -> Listed | None:
        return next(filter(fits, reversed(self.backups)), None)

    def newest_verified(self, rung: int, now: Moment) -> dict[Tier, Moment]:
        """When the newest verified backup of each tier was started. One from the future hides none that is real."""
        found: dict[Tier, Moment] = {}
        for one in self.backups:
            if one.tier is not None and one.verified(rung) and one.id.started.utc <= now.utc + EARLY:
                found[one.tier] = one.id.started
        return found

    def sizes_before(self, started: Moment, tier: Tier, rung: int) -> tuple[int, ...]:
        """As stored, of the verified backups of a tier that were started before that moment; oldest first."""
        older = (one for one in self.backups if one.tier is tier and one.id.started < started and one.verified(rung))
        return tuple(one.manifest.stored_size for one in older if one.manifest is not None)

    def offer(self, moment: Moment, rung: int) -> Offer:
        """Of those that were finished by then: a longer one may hold the damage."""
        older = [one for one in self.backups if one.manifest is not None and one.manifest.finished <= moment]
        wholes = Catalog(tuple(older), (), 0)
        take = wholes.newest(lambda one: one.verified(rung) and isinstance(one.access, Readable))
        newer = Catalog(tuple(older[older.index(take) + 1 :] if take else older), (), 0)
        return Offer(
            take=take,
            colder=newer.newest(lambda one: one.verified(rung)),
            unproved=newer.newest(lambda one: one.usable and not one.verified(rung)),
        )

    def get(self, backup: BackupId) -> Listed:
        """NotFound if it is not there."""
        for one in self.backups:
            if one.id == backup:
                return one
        raise NotFound(
            f"there is no backup {backup}",
            safe="nothing was changed",
            next_step="see what there is: invoke backup.list",
        )


def catalog(repository: Repository, place: Place = Place.ARCHIVE) -> Catalog:
    """All backups of the repository's environment in one place. ArchiveFault, LoginRefused, LocalFault."""
    objects = _objects(repository, place, f"{repository.environment}/")
    shelf = sort_keys(objects)
    look = partial(_listed, repository, place, objects)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="catalog") as pool:
        backups = tuple(pool.map(look, shelf.backups))
        legacy = tuple(pool.map(partial(_legacy, repository, place, objects), shelf.legacy))
    return Catalog(backups, legacy, len(shelf.foreign))


def look_at(repository: Repository, backup: BackupId, place: Place = Place.ARCHIVE) -> Listed:
    """One backup, without looking at all others. NotFound if it is not there."""
    objects = _objects(repository, place, backup.prefix)
    for folder in sort_keys(objects).backups:
        if folder.id == backup:
            return _listed(repository, place, objects, folder)
    return Catalog((), (), 0).get(backup)


def opening(repository: Repository, backup: BackupId, place: Place) -> Open:
    """How the files of a backup are opened. What they raise: NotFound, StillCold, ArchiveFault, LocalFault."""
    if place is Place.ARCHIVE:
        return lambda name: repository.archive.open(backup.file_key(name))
    folder = local_root(repository) / str(backup)
    return lambda name: _open_local(folder / name)


def local_root(repository: Repository) -> Path:
    """NotFound if the policy keeps no local copies."""
    if repository.local is None:
        raise NotFound(
            "the policy keeps no local copies of backups",
            safe="nothing was changed",
            next_step="set local_folder in [backup] of the policy, or name a backup of the archive",
        )
    return repository.local


def _objects(repository: Repository, place: Place, prefix: str) -> dict[str, StoredObject]:
    """All that lies below a prefix that ends with a slash, by key."""
    if place is Place.ARCHIVE:
        return {each.key: each for each in repository.archive.objects(prefix)}
    root = local_root(repository)
    return {each.key: each for each in (_as_object(root, path) for path in _files(root / prefix)) if each is not None}


def _files(folder: Path) -> Iterator[Path]:
    """All files below it. A folder that cannot be read is no empty one: LocalFault."""

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise _unreadable(Path(error.filename), error) from error

    for at, _, names in os.walk(folder, onerror=unreadable):
        yield from (Path(at, name) for name in names)


def _as_object(root: Path, path: Path) -> StoredObject | None:
    """None for what is no file, or no more."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(about.st_mode):
        return None
    modified = Moment.of(datetime.fromtimestamp(about.st_mtime, UTC))
    return StoredObject(path.relative_to(root).as_posix(), about.st_size, modified, "local")


def _listed(repository: Repository, place: Place, objects: dict[str, StoredObject], folder: Folder) -> Listed:
    keys = [folder.id.file_key(name) for name in folder.files]
    written_last = (folder.id.manifest_key,) if folder.complete else ()
    lying = [objects[key] for key in (*keys, *written_last, *folder.proofs)]
    papers = _papers(repository, place, folder)
    manifest = papers.manifest
    storage_class, access = _coldest(repository, [objects[key] for key in keys])
    return Listed(
        id=folder.id,
        place=place,
        manifest=manifest,
        complete=folder.complete,
        tier=manifest.tier if manifest else _tagged(repository, place, [*keys, *folder.proofs]),
        standing=standing(papers.proofs),
        proofs=papers.proofs,
        trouble=papers.trouble or _misfit(manifest, objects),
        stored_size=sum(each.size for each in lying),
        storage_class=storage_class if place is Place.ARCHIVE else "local",
        access=access,
        locked_until=papers.locked_until,
        unread=papers.unread,
    )


@dataclass(frozen=True)
class _Papers:
    manifest: Manifest | None
    proofs: tuple[ProofRecord, ...]
    trouble: str | None
    unread: bool
    locked_until: Moment | None


def _papers(repository: Repository, place: Place, folder: Folder) -> _Papers:
    manifest, trouble, locked, unread = None, None, None, False
    proofs: list[ProofRecord] = []
    try:
        if folder.complete:
            content, locked = _content(repository, place, folder.id.manifest_key)
            manifest = Manifest.from_bytes(content)
            if manifest.id != folder.id:
                trouble, manifest = f"its manifest is that of {manifest.id}", None
        for key in folder.proofs:
            proof = ProofRecord.from_bytes(_content(repository, place, key)[0])
            if proof.backup != folder.id:
                trouble = f"{key} is the proof of {proof.backup}"
                continue
            if manifest is not None and proof.manifest not in (None, manifest.digest):
                trouble = f"{key} is the proof of another backup, which lay here before this one took its place"
                continue
            proofs.append(proof)
    except ValidationError:
        trouble = "its manifest or a proof beside it is not what this program writes"
    except (ArchiveFault, NotFound, LocalFault) as error:
        trouble, unread = error.happened, True
    return _Papers(manifest, tuple(proofs), trouble, unread, locked)


def _misfit(manifest: Manifest | None, objects: dict[str, StoredObject]) -> str | None:
    """The manifest was written last: a file of it that is not there now was taken away."""
    if manifest is None:
        return None
    found = {file: objects.get(manifest.id.file_key(file.stored_name)) for file in manifest.files}
    if gone := sorted(file.stored_name for file, lying in found.items() if lying is None):
        return f"files of it are gone: {_some(gone)}"
    other = sorted(file.stored_name for file, lying in found.items() if lying and lying.size != file.stored_size)
    return f"files of it have not the size that was stored: {_some(other)}" if other else None


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _content(repository: Repository, place: Place, key: str) -> tuple[bytes, Moment | None]:
    if place is Place.ARCHIVE:
        return repository.archive.read_with_lock(key)
    with _open_local(local_root(repository) / key) as file:
        return file.read(), None


def _open_local(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no file {path}", safe="nothing was changed", next_step="see what there is: invoke backup.list"
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> LocalFault:
    return LocalFault(
        f"{path} cannot be read: {error.strerror}",
        safe="nothing was changed",
        next_step="cure what the message names; the archive may hold the same backup",
    )


_COLDNESS = ("local", "STANDARD", "STANDARD_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE")


def _coldest(repository: Repository, files: Iterable[StoredObject]) -> tuple[str, Access]:
    """The coldest class, and how the whole can be read. Of each class one file is asked about: they go cold together,
    and `fetch` asks each of them again."""
    worst: tuple[str, Access] = ("STANDARD", Readable())
    by_class = groupby(sorted(files, key=lambda each: _rank(each.storage_class)), key=lambda each: each.storage_class)
    for storage_class, members in by_class:
        access: Access = Readable()
        if storage_class in ("GLACIER", "DEEP_ARCHIVE", "INTELLIGENT_TIERING"):
            access = repository.archive.head(max(members, key=lambda each: each.size).key).access
        if isinstance(access, Cold | Thawing) or isinstance(worst[1], Readable):
            worst = (storage_class, access)
    return worst


def _rank(storage_class: str) -> int:
    return _COLDNESS.index(storage_class) if storage_class in _COLDNESS else len(_COLDNESS)


def _tagged(repository: Repository, place: Place, keys: list[str]) -> Tier | None:
    """Of half a backup."""
    if place is Place.LOCAL or not keys:
        return None
    found = repository.archive.head(keys[0]).tags.get("tier", "")
    return next((tier for tier in Tier if tier.value == found), None)


def _legacy(
    repository: Repository, place: Place, objects: dict[str, StoredObject], backup: LegacyBackup
) -> ListedLegacy:
    lying = objects[backup.key]
    storage_class, access = _coldest(repository, [lying])
    return ListedLegacy(backup, place, lying.size, storage_class, access)
