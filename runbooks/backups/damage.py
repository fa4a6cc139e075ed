"""Damage a copy of a backup, in a chosen way: so that somebody sees the proof ladder catch it. In the sandbox only.

A proof that finds nothing wrong with a broken backup says nothing about a good one.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import BinaryIO, cast

import zstandard

from runbooks.backups.damage_rows import Tables
from runbooks.backups.reading import decode
from runbooks.backups.shipping import discard
from runbooks.clients.archive_client import is_loopback
from runbooks.clients.dump_toc import NAME as TOC
from runbooks.clients.dump_toc import parse_toc
from runbooks.clients.repository import Repository
from runbooks.clients.seal import KeyPair, Opener, Sealer
from runbooks.model.backup import Manifest, Rung, StoredFile
from runbooks.model.backup_id import BackupId
from runbooks.model.errors import BloomError, NotFound, Refused, UsageFault

Tell = Callable[[str], None]
Keep = Callable[[Iterable[bytes]], Iterator[bytes]]
"""The lines of a data file to those that stay."""
_BLOCK = 1024 * 1024


class How(StrEnum):
    CUT = "cut"
    """A stored file ends in its middle."""
    FLIP = "flip"
    """One bit of a stored file is another."""
    TRUNCATE_TABLE = "truncate-table"
    """A table that nothing points to was dumped without its rows, under a manifest that fits the files."""
    DROP_FILE = "drop-file"
    SWAP_FILES = "swap-files"
    """Two stored files have each other's content."""
    WRONG_KEY = "wrong-key"
    """One file is sealed to somebody else, under a manifest that fits the files."""
    LOST_ROWS = "lost-rows"
    """A row is missing that another table's row points to, under a manifest that fits the files."""

    @classmethod
    def parse(cls, text: str) -> How:
        """UsageFault for what is none."""
        try:
            return cls(text)
        except ValueError:
            raise UsageFault(
                f"{text!r} is no way to damage a backup",
                safe="nothing was started",
                next_step=f"--how is one of: {', '.join(cls)}",
            ) from None


CAUGHT_AT: Mapping[How, Rung] = MappingProxyType(
    {
        How.CUT: Rung.UPLOADED,
        How.FLIP: Rung.UPLOADED,
        How.DROP_FILE: Rung.UPLOADED,
        How.SWAP_FILES: Rung.UPLOADED,
        How.WRONG_KEY: Rung.REREAD,
        How.LOST_ROWS: Rung.DECODED,
        How.TRUNCATE_TABLE: Rung.RESTORED,
    }
)
"""The highest rung that still holds: `rung` of the failed proof, which is caught at the next one."""


def damage(
    repository: Repository, manifest: Manifest, how: How, *, opener: Opener, at: datetime, tell: Tell
) -> BackupId:
    """Store a damaged copy of a backup as the one that was started `at` (aware, cut to the second); its id.

    The original is only read. The copy is not proved and not marked: prove it, or `remove` it. On any error nothing of
    it stays. Refused outside of a sandbox, if that id is taken, or if the original is not what its manifest says;
    NotFound if the database has no table that can be damaged so; and what archive and keys raise.
    """
    _require_sandbox(repository)
    copy = BackupId.new(manifest.environment, at)
    if next(iter(repository.archive.objects(copy.prefix)), None) is not None:
        raise Refused(
            f"there is already something at {copy}", safe="nothing was stored", next_step="run the same command again"
        )
    with TemporaryDirectory(prefix="bloom-dr-damage-") as folder:
        work = _Work(repository, manifest, opener, Path(folder), tell)
        for file in manifest.files:
            work.bring(file)
        files = _DAMAGES[how](work)
        about = {"id": copy, "started": copy.started, "finished": copy.started, "files": files}
        _store(repository, Manifest(**(dict(manifest) | about)), Path(folder))
    return copy


def remove(repository: Repository, copy: BackupId) -> None:
    """A damaged copy, with its proofs. Safe to repeat. Refused outside of a sandbox, or where it is locked."""
    _require_sandbox(repository)
    repository.archive.delete(copy.manifest_key)
    discard(repository, copy)


@contextmanager
def removed_on_error(repository: Repository, copy: BackupId) -> Iterator[None]:
    """A damaged copy of which nobody knows that it is broken does not stay, whatever happens."""
    try:
        yield
    except BaseException as error:
        try:
            remove(repository, copy)
        except BloomError as trouble:
            error.add_note(f"besides, the damaged copy {copy} could not be removed: {trouble.happened}")
        raise


@dataclass(frozen=True)
class _Work:
    repository: Repository
    manifest: Manifest
    opener: Opener
    folder: Path
    """Of ours alone; holds the stored files, which are damaged there."""
    tell: Tell

    def at(self, file: StoredFile) -> Path:
        return self.folder / file.stored_name

    def bring(self, file: StoredFile) -> None:
        total = hashlib.sha256()
        with (
            self.repository.archive.open(self.manifest.id.file_key(file.stored_name)) as source,
            self.at(file).open("xb") as sink,
        ):
            while block := source.read(_BLOCK):
                total.update(block)
                sink.write(block)
        if total.hexdigest() != file.stored_sha256:
            raise Refused(
                f"{file.stored_name} of {self.manifest.id} is damaged already",
                safe="it was only read, and nothing was stored",
                next_step=f"invoke backup.verify --id {self.manifest.id}, and damage a copy of a whole one",
            )

    def decrypted(self, file: StoredFile) -> Path:
        plain = self.folder / f"{file.name}.plain"
        with plain.open("wb") as sink:
            decode(self._open, file, self.opener, self.manifest.encryption.recipients, sink)
        return plain

    def _open(self, stored_name: str) -> BinaryIO:
        return (self.folder / stored_name).open("rb")

    def sealed(self, file: StoredFile, plain: Path, sealer: Sealer) -> tuple[StoredFile, ...]:
        """The files of the manifest, with this one as if `plain` had been dumped."""
        with plain.open("rb") as source, self.at(file).open("wb") as sink:
            passed = sealer.seal(source, sink)
        now = file.model_copy(
            update={
                "size": passed.size_in, "sha256": passed.sha256_in,
                "stored_size": passed.size_out, "stored_sha256": passed.sha256_out,
            }
        )  # fmt: skip
        return tuple(now if each.name == file.name else each for each in self.manifest.files)

    def without(self, file: StoredFile, keep: Keep) -> tuple[StoredFile, ...]:
        """The files of the manifest, as if this table had held fewer rows."""
        plain = self.decrypted(file)
        changed = plain.with_name(f"{plain.name}.changed")
        with _content(plain, file) as source, _compressing(changed, file) as sink:
            for line in keep(source):
                sink.write(line)
        return self.sealed(file, changed, self.repository.sealer())

    def lines(self, file: StoredFile) -> Iterator[bytes]:
        with _content(self.decrypted(file), file) as source:
            yield from source

    def tables(self) -> Tables:
        toc = self.manifest.file(TOC)
        assert toc is not None  # a manifest without one is none
        return Tables.of(self.manifest, parse_toc(self.decrypted(toc).read_bytes()))

    def largest(self) -> list[StoredFile]:
        """Those with rows first."""
        return sorted(
            self.manifest.files, key=lambda file: (file.table is not None, file.stored_size, file.name), reverse=True
        )


def _cut(work: _Work) -> tuple[StoredFile, ...]:
    victim = work.largest()[0]
    os.truncate(work.at(victim), victim.stored_size // 2)
    work.tell(f"{victim.stored_name} is cut to {victim.stored_size // 2:,} of {victim.stored_size:,} octets")
    return work.manifest.files


def _flip(work: _Work) -> tuple[StoredFile, ...]:
    victim = work.largest()[0]
    middle = victim.stored_size // 2
    with work.at(victim).open("r+b") as file:
        file.seek(middle)
        (octet,) = file.read(1)
        file.seek(middle)
        file.write(bytes([octet ^ 1]))
    work.tell(f"octet {middle:,} of {victim.stored_name} has another lowest bit")
    return work.manifest.files


def _drop_file(work: _Work) -> tuple[StoredFile, ...]:
    victim = work.largest()[0]
    work.at(victim).unlink()
    work.tell(f"{victim.stored_name} is left out")
    return work.manifest.files


def _swap_files(work: _Work) -> tuple[StoredFile, ...]:
    if len(work.manifest.files) < 2:
        raise _none("a second file to swap with")
    one, other = work.largest()[:2]
    between = work.folder / "between.plain"
    work.at(one).rename(between)
    work.at(other).rename(work.at(one))
    between.rename(work.at(other))
    work.tell(f"{one.stored_name} and {other.stored_name} have each other's content")
    return work.manifest.files


def _wrong_key(work: _Work) -> tuple[StoredFile, ...]:
    victim = work.largest()[0]
    stranger = KeyPair.new(work.manifest.encryption.method, name="bloom-dr stranger")
    work.tell(f"{victim.stored_name} is encrypted to somebody else")
    return work.sealed(victim, work.decrypted(victim), stranger.sealer())


def _truncate_table(work: _Work) -> tuple[StoredFile, ...]:
    victim = work.tables().leaf()
    if victim is None:
        raise _none("a table with rows that no foreign key points to")

    def keep(lines: Iterable[bytes]) -> Iterator[bytes]:
        ended = False
        for line in lines:
            ended = ended or line == b"\\.\n"
            if ended:
                yield line

    work.tell(f"{victim.table} is left without its rows")
    return work.without(victim, keep)


def _lost_rows(work: _Work) -> tuple[StoredFile, ...]:
    for pointer in work.tables().pointers():
        key = pointer.first_key(work.lines(pointer.child))
        if key is not None and pointer.is_there(key, work.lines(pointer.parent)):
            work.tell(f"{pointer.parent.table} lacks a row that {pointer.child.table} points to")
            return work.without(pointer.parent, pointer.without(key))
    raise _none("a foreign key between two tables with rows")


_DAMAGES: Mapping[How, Callable[[_Work], tuple[StoredFile, ...]]] = MappingProxyType(
    {
        How.CUT: _cut,
        How.FLIP: _flip,
        How.DROP_FILE: _drop_file,
        How.SWAP_FILES: _swap_files,
        How.WRONG_KEY: _wrong_key,
        How.TRUNCATE_TABLE: _truncate_table,
        How.LOST_ROWS: _lost_rows,
    }
)


def _store(repository: Repository, manifest: Manifest, folder: Path) -> None:
    """What is there of the files, then the manifest. Nothing of it stays after an error."""
    archive, tier = repository.archive, manifest.tier
    with removed_on_error(repository, manifest.id):
        for path in (folder / file.stored_name for file in manifest.files):
            if path.exists():
                with path.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                archive.put(
                    manifest.id.file_key(path.name), path, tags=repository.tags(tier, "data"),
                    storage_class=repository.upload_class(tier), sha256=sha256,
                )  # fmt: skip
        content = manifest.to_bytes()
        archive.put(
            manifest.id.manifest_key, content, tags=repository.tags(tier, "manifest"), storage_class="STANDARD",
            sha256=hashlib.sha256(content).hexdigest(),
        )  # fmt: skip


def _require_sandbox(repository: Repository) -> None:
    endpoint = repository.policy.endpoint
    if endpoint is None or not is_loopback(endpoint):
        raise Refused(
            f"the bucket {repository.policy.bucket} is not on this machine, and only a sandbox's backups are damaged",
            safe="nothing was read and nothing was stored",
            next_step="invoke sandbox.up, then name it with --env sandbox",
        )


def _none(what: str) -> NotFound:
    return NotFound(
        f"the backup cannot be damaged in this way: it has not {what}",
        safe="it was only read, and nothing was stored",
        next_step="choose another --how, or a backup of a database that has one",
    )


@contextmanager
def _content(plain: Path, file: StoredFile) -> Iterator[BinaryIO]:
    """The lines of a dumped file."""
    with plain.open("rb") as source:
        if file.name.endswith(".zst"):
            reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
            yield io.BufferedReader(cast(io.RawIOBase, reader), _BLOCK)
        else:
            yield source


@contextmanager
def _compressing(path: Path, file: StoredFile) -> Iterator[BinaryIO]:
    with path.open("wb") as sink:
        if file.name.endswith(".zst"):
            with zstandard.ZstdCompressor().stream_writer(sink, closefd=False) as writer:
                yield cast(BinaryIO, writer)
        else:
            yield sink
