"""A repository to try backups on: a real S3 server, keys of its own, local copies where wanted; and databases."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runbooks.backups.catalog import opening
from runbooks.backups.prove import prove_by_reading, store
from runbooks.backups.shipping import Order
from runbooks.backups.take import take
from runbooks.clients.archive import Archive
from runbooks.clients.postgres import connect
from runbooks.clients.repository import Repository
from runbooks.clients.seal import KeyPair
from runbooks.model.backup import Manifest, ProofRecord, Tier
from runbooks.model.backup_id import BackupId
from runbooks.model.dsn import Dsn
from runbooks.model.moment import Moment
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.retention import Place
from runbooks.sandbox.s3 import S3Server

_seconds = itertools.count()
START = datetime(2025, 12, 3, 2, 0, 0, tzinfo=UTC)
PAIR = KeyPair.new("age")
"""Of this process: making one takes a moment."""


def the_time() -> Moment:
    return Moment.of(datetime.now(UTC))


@dataclass
class Sent:
    """Takes metrics and keeps them."""

    metrics: list[Any] = field(default_factory=list)

    def send(self, metrics: Any) -> None:
        self.metrics += metrics


def policy(**settings: Any) -> BackupPolicy:
    encryption = {"method": "age", "recipients": [PAIR.recipient]}
    return BackupPolicy.model_validate(
        {"bucket": "bloom-backups", "region": "us-east-1", "encryption": encryption} | settings
    )


def repository(
    server: S3Server, *, environment: str, local: Path | None = None, archive: Archive | None = None, **settings: Any
) -> Repository:
    """Each test has an environment of its own in the one bucket: nobody sees another's backups."""
    return Repository(
        environment=environment,
        policy=policy(**settings),
        archive=archive
        or Archive(server.bucket, region=server.region, endpoint=server.endpoint, clock=the_time, client=server.client),
        local=local,
        metrics=Sent(),
        open_keys=lambda _: PAIR.opener(),
    )


def order(
    repository: Repository, dsn: Dsn, workspace: Path, *, tier: Tier = Tier.DAILY, at: datetime | None = None
) -> Order:
    """Each in a second of its own."""
    at = at or START + timedelta(seconds=next(_seconds))
    sealer = repository.sealer()
    return Order(
        id=BackupId.new(repository.environment, at), tier=tier, dsn=dsn, sealer=sealer,
        fingerprints=sealer.fingerprints, workspace=workspace / "work",
    )  # fmt: skip


def taken(
    repository: Repository, dsn: Dsn, workspace: Path, *, tier: Tier = Tier.DAILY, at: datetime | None = None
) -> Manifest:
    """A whole backup, not proved."""
    wanted = order(repository, dsn, workspace, tier=tier, at=at)
    clock = lambda: max(the_time(), Moment.of(wanted.id.started.utc))  # noqa: E731
    return take(repository, wanted, connect=connect, clock=clock, tell=lambda text: None)


def read_again(repository: Repository, manifest: Manifest, place: Place = Place.ARCHIVE) -> ProofRecord:
    """Proved up to rung 2, and that kept."""
    record = prove_by_reading(
        opening(repository, manifest.id, place), manifest, repository.opener(), by="test", clock=the_time
    )
    return store(repository, manifest.tier, record, place)
