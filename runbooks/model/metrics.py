"""What is measured about backups, and under which names. Who sends and who watches both read them here.

CloudWatch tells metrics apart by namespace, name and all dimensions: an alarm on any other set of them sees nothing,
and an alarm that sees nothing may well be quiet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Annotated, Literal

from pydantic import Field

from runbooks.model.backup import Manifest, ProofRecord, Rung, Tier, Verdict, standing
from runbooks.model.drill import DrillReport
from runbooks.model.freshness import Freshness
from runbooks.model.moment import Moment
from runbooks.model.record import Record

NAMESPACE = "BloomDR"

Unit = Literal["Count", "Bytes", "Seconds", "Percent", "None"]
"""Of those that CloudWatch knows."""

By = Literal["tier", "environment", "test", "stack"]
"""What a name is told apart by: a tier of an environment, an environment, a test of its drills, or a stack.

Those of a stack are counted by log metric filters on its audit trail and never sent by us; what a filter counts has no
dimensions, so each stack has a namespace of its own for them.
"""

FEWEST_SIZES, MOST_SIZES = 3, 7
"""So many backups before one tell what size is usual."""

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
    by: By = "tier"

    def namespace(self, stack: str | None = None) -> str:
        """Where they are. ValueError for a stack too many or too few."""
        if (self.by == "stack") is (stack is None):
            raise ValueError(f"{self.name} is counted by {self.by}")
        return f"{NAMESPACE}/Audit/{stack}" if stack else NAMESPACE

    def dimensions(
        self, environment: str | None = None, tier: Tier | None = None, *, test: str | None = None
    ) -> tuple[tuple[str, str], ...]:
        """All of them, as they are sent and as an alarm has to name them. ValueError for one too many or too few.

        `test` is the name of the objective that a test of the drill is judged by: `accidental-delete`, `corruption`.
        """
        given = {"Environment": environment, "Tier": tier and tier.value, "Test": test}
        found = tuple((name, value) for name, value in given.items() if value)
        if tuple(name for name, _ in found) != _DIMENSIONS[self.by]:
            raise ValueError(f"{self.name} is measured by {self.by}: it has the dimensions {_DIMENSIONS[self.by]}")
        return found

    def _measured(
        self, value: float, at: Moment, environment: str, tier: Tier | None = None, *, test: str | None = None
    ) -> Metric:
        dimensions = self.dimensions(environment, tier, test=test)
        return Metric(name=self.name, value=value, unit=self.unit, dimensions=dimensions, at=at)


_DIMENSIONS: dict[By, tuple[str, ...]] = {
    "tier": ("Environment", "Tier"),
    "environment": ("Environment",),
    "test": ("Environment", "Test"),
    "stack": (),
}

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
SYNC_ERRORS = Series("S3SyncErrors", "Count", by="environment")
"""Local backups that a sync left without their equal in the archive."""
PRUNE_FAILURE = Series("PruneFailure", "Count", by="environment")
"""1 for a clean-up that did not do all it had planned, 0 for one that did."""

BACKUP_SIZE_DEVIATION = Series("BackupSizeDeviation", "Percent")
"""How far a BackupSize is from the median of the up to 7 verified backups of its tier before it, up or down.

Sent together with BackupSize, but not while there are fewer than 3 before it.
"""
BACKUP_DURATION = Series("BackupDuration", "Seconds")
"""How long a verified backup took to be dumped and stored; sent together with BackupSize."""
VERIFIED_AGE = Series("VerifiedAge", "Seconds", by="environment")
"""Since the newest backup that was restored, compared and held to its rules (rung 5) was started; daily.

Like each age it is not sent where there is none, so missing data is the alarm.
"""
DRILL_AGE = Series("DrillAge", "Seconds", by="environment")
"""Since the newest proved drill that counts for the environment, by the reports in its archive; daily."""
RESTORE_WINDOW = Series("RestoreWindow", "Seconds", by="environment")
"""How far back Neon can go now, as Neon says when it is asked; daily."""
DRILL_SUCCESS = Series("DrillSuccess", "Count", by="environment")
"""1 for a drill that was proved, 0 for one that ended otherwise."""
DRILL_RTO = Series("DrillRTO", "Seconds", by="test")
"""Measured in a drill: how long that recovery took."""
DRILL_RPO = Series("DrillRPO", "Seconds", by="test")
"""Measured in a drill: how much that recovery lost. What could not be measured is not sent."""
TRAIL_CHANGED = Series("TrailChanged", "Count", by="stack")
"""Somebody stopped, deleted or changed the audit trail."""
RESTORER_ASSUMED = Series("RestorerAssumed", "Count", by="stack")
"""Somebody became restorer."""
DELETE_ATTEMPTED = Series("DeleteAttempted", "Count", by="stack")
"""Somebody tried to delete what is in the archive, or to disarm what keeps it from being deleted, refused or not."""
ROTATION_FAILED = Series("RotationFailed", "Count", by="stack")
"""Secrets Manager says that a rotation failed."""

EVERY_SERIES = (
    BACKUP_SUCCESS, BACKUP_SIZE, BACKUP_SIZE_DEVIATION, BACKUP_DURATION, BACKUP_FAILURE, BACKUP_AGE, VERIFIED_RUNG,
    VERIFY_FAILURE, VERIFIED_AGE, SYNC_ERRORS, PRUNE_FAILURE, RESTORE_WINDOW, DRILL_AGE, DRILL_SUCCESS, DRILL_RTO,
    DRILL_RPO, TRAIL_CHANGED, RESTORER_ASSUMED, DELETE_ATTEMPTED, ROTATION_FAILED,
)  # fmt: skip


def of_success(
    manifest: Manifest, proofs: Iterable[ProofRecord], at_least: Rung, sizes: Sequence[int] = ()
) -> tuple[Metric, ...]:
    """A verified backup: that it is one, its size, how far that is from those before it, and how long it took.

    ValueError if these proofs, all there are of it, say less (C30). `sizes` are those of the verified backups of its
    tier before it, as stored, oldest first; with too few of them nothing is said of a distance.

    They stand at the backup's own time, so that proving an old backup again does not pass for taking a new one.
    """
    found = tuple(proofs)
    if any(proof.backup != manifest.id for proof in found):
        raise ValueError("a proof is of another backup")
    if not _verified(found, at_least):
        raise ValueError(f"the backup is not proved up to rung {int(at_least)}, or not up to one that proves anything")
    where = (manifest.finished, manifest.environment, manifest.tier)
    took = (manifest.finished.utc - manifest.started.utc).total_seconds()
    deviation = _deviation(manifest.stored_size, sizes)
    return (
        BACKUP_SUCCESS._measured(1, *where),
        BACKUP_SIZE._measured(manifest.stored_size, *where),
        *(() if deviation is None else (BACKUP_SIZE_DEVIATION._measured(deviation, *where),)),
        BACKUP_DURATION._measured(took, *where),
    )


def of_proof(
    manifest: Manifest,
    proof: ProofRecord,
    earlier: Iterable[ProofRecord],
    at_least: Rung,
    sizes: Sequence[int] = (),
) -> tuple[Metric, ...]:
    """All that follows from one attempt to prove a backup, by its taker or later. `earlier`: all other attempts on it.

    A backup counts as success from the rung `at_least` on, and while CloudWatch takes a number of its age. `sizes` as
    for `of_success`.
    """
    where = (proof.at, manifest.environment, manifest.tier)
    passed = proof.verdict is Verdict.PASSED
    proofs = (*earlier, proof)
    found = [VERIFY_FAILURE._measured(not passed, *where)]
    if passed and standing(proofs).failure is None:
        found.append(VERIFIED_RUNG._measured(proof.rung, *where))
        if _verified(proofs, at_least) and proof.at.utc - manifest.finished.utc < _OLDEST:
            found += of_success(manifest, proofs, at_least, sizes)
    return tuple(found)


def _deviation(size: int, before: Sequence[int]) -> float | None:
    """In percent of the median of the last ones; None if they are too few to tell what is usual."""
    last = before[-MOST_SIZES:]
    if len(last) < FEWEST_SIZES or not (usual := median(last)):
        return None
    return 100 * abs(size - usual) / usual


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


def of_verified_age(environment: str, newest: Moment | None, now: Moment) -> tuple[Metric, ...]:
    """`newest`: when the newest backup proved to the highest rung was started; None, or one from the future: none."""
    return _age(VERIFIED_AGE, environment, newest, now)


def of_drill_age(environment: str, newest: DrillReport | None, now: Moment) -> tuple[Metric, ...]:
    """ValueError for a report that proves nothing, or counts for another environment."""
    if newest is not None and not (newest.proved and newest.counts_for == environment):
        raise ValueError(f"drill {newest.run_id} does not count for {environment}")
    return _age(DRILL_AGE, environment, None if newest is None else newest.written, now)


def _age(series: Series, environment: str, newest: Moment | None, now: Moment) -> tuple[Metric, ...]:
    if newest is None or newest > now:
        return ()
    return (series._measured((now.utc - newest.utc).total_seconds(), now, environment),)


def of_window(environment: str, reach: timedelta, at: Moment) -> tuple[Metric, ...]:
    """How far back Neon said that it can go. ValueError for the future."""
    if reach < timedelta():
        raise ValueError("a window into the future")
    return (RESTORE_WINDOW._measured(reach.total_seconds(), at, environment),)


def of_drill(report: DrillReport) -> tuple[Metric, ...]:
    """A drill that counts for an environment has come to its report. ValueError if it counts for none.

    Of a test whose data did not come back whole no time is sent: it would be that of a failure.
    """
    if report.counts_for is None:
        raise ValueError(f"drill {report.run_id} counts for no environment")
    found = [DRILL_SUCCESS._measured(report.proved, report.written, report.counts_for)]
    for test in report.tests:
        where = (report.written, report.counts_for)
        if test.held:
            found.append(DRILL_RTO._measured(test.rto_seconds, *where, test=test.scenario))
        if test.held and test.rpo_seconds is not None:
            found.append(DRILL_RPO._measured(test.rpo_seconds, *where, test=test.scenario))
    return tuple(found)


def of_failed_drill(environment: str, at: Moment) -> tuple[Metric, ...]:
    """A drill that should have counted ended without a report in the archive."""
    return (DRILL_SUCCESS._measured(0, at, environment),)


def of_sync(environment: str, left_behind: int, at: Moment) -> tuple[Metric, ...]:
    """A sync ended; `left_behind` local backups are still not in the archive. ValueError for a negative number."""
    if left_behind < 0:
        raise ValueError("fewer than no backups were left behind")
    return (SYNC_ERRORS._measured(left_behind, at, environment),)


def of_prune(environment: str, at: Moment, *, done: bool) -> tuple[Metric, ...]:
    """A clean-up ended; `done`: all that it had planned was removed."""
    return (PRUNE_FAILURE._measured(not done, at, environment),)
