"""Which objects of an archive are backups. The whole key decides, so that nothing else is ever listed or pruned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runbooks.model.backup_id import MANIFEST, BackupId, LegacyBackup, is_file_name, is_proof_name
from runbooks.model.drill import run_of_report


@dataclass(frozen=True)
class Folder:
    """What lies under the prefix of one backup."""

    id: BackupId
    complete: bool
    """The manifest is there. Without it this is half a backup, and never one to restore."""
    files: tuple[str, ...]
    """Stored names, without the manifest; whether they are the right ones, the manifest says."""
    proofs: tuple[str, ...]
    """Keys, oldest first."""


@dataclass(frozen=True)
class Shelf:
    """All keys, each in exactly one place. Oldest first."""

    backups: tuple[Folder, ...]
    legacy: tuple[LegacyBackup, ...]
    reports: tuple[str, ...]
    """Of drills: no backups, and not foreign either."""
    foreign: tuple[str, ...]
    """Not ours: neither shown as backups nor touched."""


def sort_keys(keys: Iterable[str]) -> Shelf:
    """Sort the keys of a listing, which may hold several environments and any other object. Pure."""
    folders: dict[BackupId, list[str]] = {}
    legacy: list[LegacyBackup] = []
    reports: list[str] = []
    foreign: list[str] = []
    for key in keys:
        placed = BackupId.of_key(key)
        old = LegacyBackup.of_key(key)
        if placed is not None and _is_ours(placed[1]):
            folders.setdefault(placed[0], []).append(placed[1])
        elif old is not None:
            legacy.append(old)
        elif run_of_report(key) is not None:
            reports.append(key)
        else:
            foreign.append(key)
    backups = tuple(_folder(id_, sorted(names)) for id_, names in sorted(folders.items()))
    return Shelf(backups, tuple(sorted(legacy)), tuple(sorted(reports)), tuple(sorted(foreign)))


def _folder(id_: BackupId, names: list[str]) -> Folder:
    return Folder(
        id=id_,
        complete=MANIFEST in names,
        files=tuple(filter(is_file_name, names)),
        proofs=tuple(id_.prefix + name for name in filter(is_proof_name, names)),
    )


def _is_ours(name: str) -> bool:
    return name == MANIFEST or is_proof_name(name) or is_file_name(name)
