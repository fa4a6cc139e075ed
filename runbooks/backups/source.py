"""A chosen backup as a restore needs it: what it is, which of its files, and what of it a target would not take."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO

from runbooks.backups.arrived import LeftOut
from runbooks.backups.catalog import Listed, ListedLegacy, local_root, opening
from runbooks.backups.fetch import fetch, fetch_one
from runbooks.backups.legacy import LegacyFacts, inspect
from runbooks.backups.legacy_choice import Choice as LegacyChoice
from runbooks.backups.reading import Broken
from runbooks.clients.dump_toc import NAME as TOC
from runbooks.clients.dump_toc import parse_toc, parts
from runbooks.clients.postgres import Connection
from runbooks.clients.repository import Repository
from runbooks.clients.restore_archive import client_for_archive
from runbooks.clients.restore_outlook import Outlook, Target, foresee
from runbooks.clients.seal import Opener
from runbooks.model.backup import Manifest, Rung
from runbooks.model.backup_id import MANIFEST, BackupId
from runbooks.model.errors import LocalFault, ProofFailed, Refused
from runbooks.model.moment import Moment
from runbooks.model.record import Record, digest
from runbooks.model.retention import Place

SAFE = "no target was touched"
NOT_IN_A_DUMP = "a dump holds no settings: the statement is in globals.sql of the backup, under the source's name"


class Source(Record):
    key: str
    """The id of a backup, or the key of an old file."""
    legacy: bool
    place: Place
    tier: str
    database: str | None
    """None: an old file does not say."""
    started: Moment
    """Nothing in it is later by more than a moment. Of an old file, whose clock's zone nobody knows: the latest."""
    rung: Rung
    stored_size: int
    server_version: int | None
    digest: str | None
    """Of the manifest; None for an old file."""

    @property
    def backup(self) -> BackupId:
        return BackupId.parse(self.key)

    @property
    def file_keys_below(self) -> str:
        """A prefix of the keys of its files, and of no other backup's."""
        return self.key if self.legacy else self.backup.prefix


def source_of(found: Listed | ListedLegacy) -> Source:
    if isinstance(found, ListedLegacy):
        return Source(
            key=found.backup.key, legacy=True, place=found.place, tier="old single file", database=None,
            started=Moment.of(found.backup.latest), rung=Rung.UPLOADED, stored_size=found.stored_size,
            server_version=None, digest=None,
        )  # fmt: skip
    manifest = found.manifest
    assert manifest is not None  # `choose` gives no other
    return Source(
        key=str(found.id), legacy=False, place=found.place, tier=manifest.tier, database=manifest.database,
        started=found.id.started, rung=found.standing.rung, stored_size=manifest.stored_size,
        server_version=manifest.server_version, digest=digest(manifest.as_json()),
    )  # fmt: skip


def manifest_of(repository: Repository, source: Source) -> Manifest:
    """Refused if it is not the one that was surveyed."""
    if source.place is Place.LOCAL:
        with opening(repository, source.backup, source.place)(MANIFEST) as file:
            content = file.read()
    else:
        content = repository.archive.read(source.backup.manifest_key)
    manifest = Manifest.from_bytes(content)
    if digest(manifest.as_json()) != source.digest:
        raise Refused(
            f"the manifest of {source.key} is another one than when the restore was planned",
            safe=SAFE,
            next_step="find out who replaced it; then start a new restore, whose preview shows what there is now",
        )
    return manifest


def needed(manifest: Manifest, tables: tuple[str, ...] | None) -> tuple[str, ...]:
    """The names, in the dump, of the files that a restore reads. Known from the manifest alone: all may be cold."""
    if tables is None:
        return tuple(file.name for file in manifest.files)
    wanted = {parts(name) for name in tables}
    return tuple(f.name for f in manifest.files if f.name == TOC or (f.table and parts(f.table) in wanted))


def keys_of(source: Source, manifest: Manifest | None, names: tuple[str, ...]) -> tuple[str, ...]:
    """Where these files lie."""
    if manifest is None:
        return (source.key,)
    return tuple(source.backup.file_key(f.stored_name) for f in manifest.files if f.name in names)


class Foreseen(Record):
    """What a restore will do, told before it."""

    rows: int
    tables: int
    objects: int
    """Entries of the dump, or statements of an old file that were looked at."""
    left_out: tuple[LeftOut, ...]
    lost_tables: tuple[str, ...]
    grants: tuple[str, ...]
    names: tuple[str, ...]
    """Files of the dump."""
    size: int
    """Of these files, decrypted."""
    sequences: tuple[str, ...]
    """Those that are set."""
    clashes: tuple[str, ...]
    """What comes along with single tables and is in the target already."""
    client: str
    """What restores it."""


def foresee_dump(
    repository: Repository,
    source: Source,
    manifest: Manifest,
    opener: Opener,
    target: Target,
    holds: tuple[str, ...],
    tables: tuple[str, ...] | None,
) -> Foreseen:
    """From the dump's table of contents, which is fetched. Refused if its version is unknown (C01), ToolMissing if no
    client here can read it, ProofFailed if it is damaged, CouldNotVerify without a key that fits."""
    try:
        content = fetch_one(opening(repository, source.backup, source.place), manifest, TOC, opener)
    except Broken as broken:
        raise is_broken(source.key, broken) from broken
    toc = parse_toc(content)
    found = foresee(toc, target, owners=False, tables=tables)
    files = {entry.file for entry in found.entries if entry.file}
    names = needed(manifest, None) if tables is None else tuple(sorted({TOC, *files}))
    settings = manifest.inventory.settings if tables is None else ()
    chosen = [t for t in manifest.inventory.tables if t.kind == "table" and (tables is None or t.name in tables)]
    return Foreseen(
        rows=manifest.inventory.rows if tables is None else sum(table.rows for table in chosen),
        tables=len(chosen),
        objects=len(found.entries),
        left_out=(
            *(LeftOut(what=each.what, reason=each.reason) for each in found.left_out),
            *(LeftOut(what=each, reason=NOT_IN_A_DUMP) for each in settings),
        ),
        lost_tables=found.lost_tables,
        grants=found.grants,
        names=names,
        size=sum(file.size for file in manifest.files if file.name in names),
        sequences=_set_by(found, manifest),
        clashes=() if tables is None else tuple(_clashes(found, holds)),
        client=f"pg_restore {'.'.join(map(str, client_for_archive(toc).version))}",
    )


def _set_by(found: Outlook, manifest: Manifest) -> tuple[str, ...]:
    """The sequences that the chosen entries set, as the inventory spells them."""
    kept = {(entry.schema, entry.name) for entry in found.entries if entry.kind == "SEQUENCE SET"}
    return tuple(each.name for each in manifest.inventory.sequences if parts(each.name) in kept)


def _clashes(found: Outlook, holds: tuple[str, ...]) -> list[str]:
    """A schema, type, function or sequence that is there cannot be made a second time. Extensions can."""
    there = {_plain(what) for what in holds}
    kinds = {"SCHEMA": "schema", "TYPE": "type", "DOMAIN": "type", "FUNCTION": "function", "SEQUENCE": "sequence"}
    made = {
        _plain(f"{kinds[entry.kind]} {f'{entry.schema}.' if entry.schema else ''}{entry.name}")
        for entry in found.entries
        if entry.kind in kinds
    }
    return sorted(made & there)


def _plain(what: str) -> str:
    return re.sub(r'["\s]+', " ", what.replace('"', "")).strip()


def inspect_old(repository: Repository, source: Source, tell: Callable[[str], None]) -> LegacyFacts:
    """Read an old file to its end. ProofFailed if it is cut or damaged (C12)."""
    with closing(_open_old(repository, source)) as stream:
        return inspect(stream, progress=tell)


def foresee_old(facts: LegacyFacts, target: Target, conn: Connection) -> Foreseen:
    choice = LegacyChoice.of(conn, owners=False)
    for text in facts.special:
        choice.wants(text)
    return Foreseen(
        rows=facts.rows,
        tables=len(facts.tables),
        objects=len(facts.special),
        left_out=tuple(LeftOut(what=each.what, reason=each.reason) for each in choice.left_out),
        lost_tables=(), grants=(), names=(), size=facts.octets, sequences=(), clashes=(),
        client="this program, statement by statement",
    )  # fmt: skip


def fetch_files(
    repository: Repository,
    source: Source,
    folder: Path,
    opener: Opener,
    names: tuple[str, ...] | None,
    tell: Callable[[str], None],
) -> None:
    """The files of a backup, decrypted into `folder`. ProofFailed if one is not what the manifest says."""
    manifest = manifest_of(repository, source)
    try:
        fetch(opening(repository, source.backup, source.place), manifest, folder, opener, names=names, tell=tell)
    except Broken as broken:
        raise is_broken(source.key, broken) from broken


def fetch_old(repository: Repository, source: Source, path: Path) -> Path:
    try:
        with closing(_open_old(repository, source)) as stream, path.open("xb") as file:
            copyfileobj(stream, file, 1024 * 1024)
    except OSError as error:
        raise LocalFault(
            f"{path} cannot be written: {error.strerror}", safe=SAFE, next_step="make room, then resume the run"
        ) from error
    return path


def _open_old(repository: Repository, source: Source) -> BinaryIO:
    if source.place is Place.ARCHIVE:
        return repository.archive.open(source.key)
    path = local_root(repository) / source.key
    try:
        return path.open("rb")
    except OSError as error:
        raise LocalFault(
            f"{path} cannot be read: {error.strerror}", safe=SAFE, next_step="cure what the message names"
        ) from error


def is_broken(key: str, broken: Broken) -> ProofFailed:
    return ProofFailed(
        f"{key} is damaged: {broken}",
        safe=SAFE,
        next_step=f"keep that as a proof: invoke backup.verify --id {key}; then restore another one, see: "
        "invoke backup.list",
    )
