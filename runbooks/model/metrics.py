"""What is measured about backups, and under which names. Who sends and who watches both read them here.

CloudWatch tells metrics apart by namespace, name and all dimensions: an alarm on any other set of them sees nothing,
and an alarm that sees nothing may well be quiet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from runbooks.model.backup import Manifest, ProofRecord, Rung, Tier, Verdict, standing
from runbooks.model.freshness import Freshness
from runbooks.model.moment import Moment
from runbooks.model.record import Record

NAMESPACE = "BloomDR"

Unit = Literal["Count", "Bytes", "Seconds", "None"]
"""Of those that CloudWatch knows."""

_OLDEST = timedelta(days=13)
"""CloudWatch refuses what happened more than two weeks ago (and, with it, all that is sent in the same request)."""


class Metric(Record):
    """One number to be sent. Made by the functions below, so that none says more than is known."""

    name: str
    value: Annotated[float, Field(allow_inf_nan=False)]
    unit: Unit
    dimensions: tuple[tuple[str, str], ...]
    at: Moment


@dataclass(frozen=True)
class Series:
    """All numbers of one name."""

    name: str
    unit: Unit
    by_tier: bool = True
    """Whether each tier has its own, or the environment one for all."""

    def dimensions(self, environment: str, tier: Tier | None = None) -> tuple[tuple[str, str], ...]:
        """All of them, as they are sent and as an alarm has to name them. ValueError for a tier too many or too few."""
        if self.by_tier is (tier is None):
            raise ValueError(f"{self.name} is measured {'for each tier' if self.by_tier else 'for all tiers together'}")
        return (("Environment", environment), *((("Tier", tier.value),) if tier else ()))

    def _measured(self, value: float, at: Moment, environment: str, tier: Tier | None = None) -> Metric:
        dimensions = self.dimensions(environment, tier)
        return Metric(name=self.name, value=value, unit=self.unit, dimensions=dimensions, at=at)


BACKUP_SUCCESS = Series("BackupSuccess", "Count")
"""1 for a backup that is verified, at the moment when it was finished. Sent again whenever it is verified again."""
BACKUP_SIZE = Series("BackupSize", "Bytes")
"""Of a verified backup, as stored; at the moment when it was finished."""
BACKUP_FAILURE = Series("BackupFailure", "Count")
"""1 for an attempt to take a backup that did not end with one. A job that is dead sends none: watch BackupSuccess."""
BACKUP_AGE = Series("BackupAge", "Seconds")
"""Since the newest verified backup was started. Where there is none nothing is sent, so missing data is the alarm."""
VERIFIED_RUNG = Series("VerifiedRung", "None")
"""How far an attempt has proved a backup in which nothing is known to be wrong."""
VERIFY_FAILURE = Series("VerifyFailure", "Count")
"""1 for an attempt to prove a backup that ended otherwise than passed, 0 for one that passed."""
SYNC_ERRORS = Series("S3SyncErrors", "Count", by_tier=False)
"""Local backups that a sync left without their equal in the archive."""
PRUNE_FAILURE = Series("PruneFailure", "Count", by_tier=False)
"""1 for a clean-up that did not do all it had planned, 0 for one that did."""

EVERY_SERIES = (
    BACKUP_SUCCESS, BACKUP_SIZE, BACKUP_FAILURE, BACKUP_AGE, VERIFIED_RUNG, VERIFY_FAILURE, SYNC_ERRORS, PRUNE_FAILURE,
)  # fmt: skip


def of_success(manifest: Manifest, proofs: Iterable[ProofRecord], at_least: Rung) -> tuple[Metric, ...]:
    """A verified backup: BackupSuccess and BackupSize. ValueError if these proofs, all there are of it, say less (C30).

    They stand at the backup's own time, so that proving an old backup again does not pass for taking a new one.
    """
    found = tuple(proofs)
    if any(proof.backup != manifest.id for proof in found):
        raise ValueError("a proof is of another backup")
    if not _verified(found, at_least):
        raise ValueError(f"the backup is not proved up to rung {int(at_least)}, or not up to one that proves anything")
    where = (manifest.finished, manifest.environment, manifest.tier)
    return (BACKUP_SUCCESS._measured(1, *where), BACKUP_SIZE._measured(manifest.stored_size, *where))


def of_proof(
    manifest: Manifest, proof: ProofRecord, earlier: Iterable[ProofRecord], at_least: Rung
) -> tuple[Metric, ...]:
    """All that follows from one attempt to prove a backup, by its taker or later. `earlier`: all other attempts on it.

    A backup counts as success from the rung `at_least` on, and while CloudWatch takes a number of its age.
    """
    where = (proof.at, manifest.environment, manifest.tier)
    passed = proof.verdict is Verdict.PASSED
    proofs = (*earlier, proof)
    found = [VERIFY_FAILURE._measured(not passed, *where)]
    if passed and standing(proofs).failure is None:
        found.append(VERIFIED_RUNG._measured(proof.rung, *where))
        if _verified(proofs, at_least) and proof.at.utc - manifest.finished.utc < _OLDEST:
            found += of_success(manifest, proofs, at_least)
    return tuple(found)


def _verified(proofs: Iterable[ProofRecord], at_least: Rung) -> bool:
    return at_least >= Rung.REREAD and standing(proofs).proved(at_least)


def of_failed_backup(environment: str, tier: Tier, at: Moment) -> tuple[Metric, ...]:
    """`backup.take` ended, for whatever reason, without a proved backup."""
    return (BACKUP_FAILURE._measured(1, at, environment, tier),)


def of_ages(environment: str, judged: Iterable[Freshness]) -> tuple[Metric, ...]:
    """What a judgement of freshness says, by whoever has just read the archive (C16)."""
    return tuple(
        BACKUP_AGE._measured(each.age.total_seconds(), each.at, environment, each.tier)
        for each in judged
        if each.age is not None
    )


def of_sync(environment: str, left_behind: int, at: Moment) -> tuple[Metric, ...]:
    """A sync ended; `left_behind` local backups are still not in the archive. ValueError for a negative number."""
    if left_behind < 0:
        raise ValueError("fewer than no backups were left behind")
    return (SYNC_ERRORS._measured(left_behind, at, environment),)


def of_prune(environment: str, at: Moment, *, done: bool) -> tuple[Metric, ...]:
    """A clean-up ended; `done`: all that it had planned was removed."""
    return (PRUNE_FAILURE._measured(not done, at, environment),)
