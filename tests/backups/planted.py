"""Backups without a database: small files that are what their manifests say, straight into a bucket or a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from runbooks.backups.shipping import private_folder
from runbooks.clients.repository import Repository
from runbooks.model.backup import Encryption, Manifest, ProofRecord, Rung, StoredFile, Tier, Verdict
from runbooks.model.backup_id import MANIFEST, BackupId
from runbooks.model.inventory import Inventory, Locale, TableInventory
from runbooks.model.moment import Moment
from runbooks.sandbox.s3 import S3Server

NAMES = ("toc.dat", "3345.dat.zst")


@dataclass(frozen=True)
class Planted:
    """A backup as a test wishes it."""

    id: BackupId
    tier: Tier = Tier.DAILY
    proved: Rung | None = Rung.DECODED
    """None: nobody has tried."""
    failed: Rung | None = None
    """The rung that a failed attempt reached, after the passed one."""
    half: bool = False
    storage_class: str = "STANDARD"
    lock: datetime | None = None
    times: int = 3
    """How large its files are."""

    @property
    def files(self) -> dict[str, bytes]:
        return {f"{name}.age": f"{self.id}/{name}".encode() * self.times for name in NAMES}

    @property
    def manifest(self) -> Manifest:
        started = Moment(self.id.started.utc)
        stored = tuple(
            StoredFile(
                name=name.removesuffix(".age"), size=10, sha256="0" * 64, stored_name=name,
                stored_size=len(content), stored_sha256=hashlib.sha256(content).hexdigest(),
                table=None if name.startswith("toc") else "public.t",
            )
            for name, content in self.files.items()
        )  # fmt: skip
        table = TableInventory(name="public.t", rows=1234, content="sum:0")
        locale = Locale(encoding="UTF8", provider="libc", collate="C", ctype="C")
        return Manifest(
            id=self.id, environment=self.id.environment, database="neondb", tier=self.tier, started=started,
            finished=Moment(started.utc + timedelta(minutes=4)), lsn="16/B374D848", server_version=170_010,
            client_version="17.10", tool_version="0.1.0",
            encryption=Encryption(method="age", recipients=("age1x",)),
            inventory=Inventory(tables=(table,), locale=locale), files=stored,
        )  # fmt: skip

    @property
    def proofs(self) -> tuple[ProofRecord, ...]:
        at = self.id.started.utc + timedelta(minutes=10)
        passed = () if self.proved is None else (self._proof(at, self.proved, Verdict.PASSED),)
        failed = () if self.failed is None else (self._proof(at + timedelta(hours=1), self.failed, Verdict.FAILED),)
        return passed + failed

    def _proof(self, at: datetime, rung: Rung, verdict: Verdict) -> ProofRecord:
        return ProofRecord(backup=self.id, at=Moment(at), rung=rung, verdict=verdict, by="test", seconds=1)

    @property
    def objects(self) -> dict[str, bytes]:
        """Key to content."""
        lying = {self.id.file_key(name): content for name, content in self.files.items()}
        if not self.half:
            lying[self.id.manifest_key] = self.manifest.to_bytes()
            lying |= {proof.key: proof.to_bytes() for proof in self.proofs}
        return lying


def planted(environment: str, at: datetime, **wishes: Any) -> Planted:
    return Planted(BackupId.new(environment, at), **wishes)


def in_archive(server: S3Server, backups: Iterable[Planted]) -> None:
    client = server.client()

    def put(each: Planted, key: str, content: bytes) -> None:
        part = "manifest" if key.endswith(MANIFEST) else "proof" if "/proof-" in key else "data"
        tags = {"tier": each.tier.value, "environment": each.id.environment, "part": part}
        lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": each.lock} if each.lock else {}
        client.put_object(
            Bucket=server.bucket, Key=key, Body=content, Tagging=urlencode(tags),
            Metadata={"sha256": hashlib.sha256(content).hexdigest()},
            StorageClass=each.storage_class if part == "data" else "STANDARD", **lock,
        )  # fmt: skip

    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(put, each, key, content) for each in backups for key, content in each.objects.items()]
        for future in done:
            future.result()


def through(repository: Repository, backups: Iterable[Planted]) -> None:
    """Into the archive of a repository, wherever that is."""
    for each in backups:
        for key, content in each.objects.items():
            part = "manifest" if key.endswith(MANIFEST) else "proof" if "/proof-" in key else "data"
            repository.archive.put(key, content, tags=repository.tags(each.tier, part), storage_class="STANDARD")


def in_folder(root: Path, backups: Iterable[Planted]) -> None:
    for each in backups:
        private_folder(root / str(each.id))
        for key, content in each.objects.items():
            (root / key).write_bytes(content)


def keys(repository: Repository) -> set[str]:
    """Of the environment's current objects."""
    return {each.key for each in repository.archive.objects(f"{repository.environment}/")}


def ago(**length: float) -> datetime:
    return datetime.now(UTC) - timedelta(**length)
