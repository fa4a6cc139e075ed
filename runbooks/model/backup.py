"""A backup as data: its files, its manifest, what was proved of it. Names and keys are in backup_id.py."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from enum import IntEnum, StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from runbooks.model.backup_id import BackupId, LegacyBackup, is_file_name
from runbooks.model.inventory import Difference, Inventory, Weight
from runbooks.model.moment import Moment
from runbooks.model.record import Record

__all__ = [
    "BackupId",
    "Encryption",
    "LegacyBackup",
    "Manifest",
    "ProofRecord",
    "Rung",
    "Standing",
    "StoredFile",
    "Tier",
    "Verdict",
    "standing",
    "verdict_of",
]


class Tier(StrEnum):
    """Why a backup was taken, and with that how long it is kept."""

    DAILY = "daily"
    WEEKLY = "weekly"
    PRE_MIGRATION = "pre-migration"


class Rung(IntEnum):
    """How much of a backup is proved. Each rung stands on those below it."""

    UPLOADED = 0
    """The manifest is there, and with it, as it is written last, everything else."""
    REREAD = 1
    """Every byte was read again and has its hash."""
    DECODED = 2
    """Every block was decrypted and decompressed."""
    RESTORED = 3
    """A PostgreSQL of a matching version took it without an error."""
    EQUAL = 4
    """What was restored equals the inventory of the dump's own snapshot."""
    INTEGRAL = 5
    """Keys, constraints and the team's own assertions hold in it."""


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    COULD_NOT_VERIFY = "could not verify"


def _file_name(name: str) -> str:
    if not is_file_name(name):
        raise ValueError("is not a plain file name, or one that is kept for the manifest and the proofs")
    return name


FileName = Annotated[str, AfterValidator(_file_name)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0)]


class StoredFile(Record):
    """One file of the dump, and the object it became."""

    name: FileName
    """As pg_dump wrote it: `toc.dat`, `3345.dat.zst`; or `globals.sql`, the roles and the settings of the database."""
    size: Size
    sha256: Sha256
    stored_name: FileName
    """As it lies in the archive: `3345.dat.zst.age`."""
    stored_size: Size
    stored_sha256: Sha256
    table: str | None = None
    """The table whose rows are in it."""


class Encryption(Record):
    method: Literal["age", "gpg"]
    recipients: Annotated[tuple[str, ...], Field(min_length=1)]
    """Fingerprints of the public keys: any one of their private keys opens the backup."""


class Manifest(Record):
    """What a backup is. Written last: without it there is no backup, however many files lie there."""

    format: Literal[1] = 1
    id: BackupId
    environment: str
    database: str
    tier: Tier
    started: Moment
    finished: Moment
    lsn: Annotated[str, StringConstraints(pattern=r"^[0-9A-F]{1,8}/[0-9A-F]{1,8}$")]
    """Of the snapshot."""
    server_version: Annotated[int, Field(ge=90_000)]
    """As in server_version_num: 170010."""
    client_version: str
    tool_version: str
    encryption: Encryption
    inventory: Inventory
    files: tuple[StoredFile, ...]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.id != BackupId.new(self.environment, self.started.utc):
            raise ValueError("the id does not belong to this environment and start")
        if self.finished < self.started:
            raise ValueError("it was finished before it was started")
        names = Counter(file.name for file in self.files), Counter(file.stored_name for file in self.files)
        if any(count > 1 for counter in names for count in counter.values()):
            raise ValueError("two files have the same name")
        if "toc.dat" not in names[0]:
            raise ValueError("there is no toc.dat, without which pg_restore reads nothing")
        return self

    @property
    def digest(self) -> str:
        """Of all that it says: a proof names it, so that it is none of what takes this one's place."""
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Octets of the dump, before encryption."""
        return sum(file.size for file in self.files)

    @property
    def stored_size(self) -> int:
        """Octets in the archive, without manifest and proofs."""
        return sum(file.stored_size for file in self.files)

    def file(self, name: str) -> StoredFile | None:
        """The file that pg_dump called `name`."""
        return next((file for file in self.files if file.name == name), None)

    def to_bytes(self) -> bytes:
        """The object under `id.manifest_key`: UTF-8 JSON, readable by people, the same for equal manifests."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The inverse of `to_bytes`. pydantic's ValidationError (a ValueError) for anything else."""
        return cls.model_validate_json(content)


class ProofRecord(Record):
    """One attempt to prove one backup. An object of its own beside it: a later one never replaces an earlier one."""

    backup: BackupId
    at: Moment
    rung: Rung
    """The highest that was reached: a failure is at the next one."""
    verdict: Verdict
    by: str
    """Who or what did it."""
    details: tuple[str, ...] = ()
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    manifest: Sha256 | None = None
    """`Manifest.digest` of what was proved; None if that was not kept."""

    @model_validator(mode="after")
    def _can_fail_there(self) -> Self:
        if self.verdict is Verdict.FAILED and self.rung is max(Rung):
            raise ValueError("an attempt that reached the highest rung has not failed")
        return self

    @property
    def key(self) -> str:
        return self.backup.proof_key(self.at)

    def to_bytes(self) -> bytes:
        return self.model_dump_json(indent=2).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The inverse of `to_bytes`. pydantic's ValidationError (a ValueError) for anything else."""
        return cls.model_validate_json(content)


class Standing(Record):
    """What all proofs of one backup together say."""

    rung: Rung
    failure: ProofRecord | None
    """A failure that no later proof has refuted. With one, the backup counts as broken."""

    def proved(self, at_least: Rung) -> bool:
        """Whether it may be relied on as far as this rung."""
        return self.failure is None and self.rung >= at_least


def standing(proofs: Iterable[ProofRecord]) -> Standing:
    """What is proved of one complete backup. Pure.

    A failure stands until a later proof passes a rung above the one that the failed attempt reached: reading every
    byte again (rung 1) says nothing about a restore that failed. "Could not verify" proves nothing and refutes nothing.
    """
    ordered = sorted(proofs, key=lambda proof: (proof.at, proof.verdict is Verdict.FAILED))
    if len({proof.backup for proof in ordered}) > 1:
        raise ValueError("the proofs are of several backups")
    failure: ProofRecord | None = None
    rung = Rung.UPLOADED
    for proof in ordered:
        if proof.verdict is Verdict.FAILED:
            if failure is None or proof.rung >= failure.rung:
                failure = proof
        elif proof.verdict is Verdict.PASSED:
            rung = max(rung, proof.rung)
            if failure is not None and proof.rung > failure.rung:
                failure = None
    return Standing(rung=rung, failure=failure)


def verdict_of(differences: Iterable[Difference]) -> Verdict:
    """What a comparison of inventories means for rung 4."""
    weights = {difference.weight for difference in differences}
    if Weight.DATA in weights:
        return Verdict.FAILED
    return Verdict.COULD_NOT_VERIFY if Weight.UNCOMPARED in weights else Verdict.PASSED
