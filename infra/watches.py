"""What is watched, when it is an alarm, and who is told. Pure: what `alarms` declares follows from the policy here.

Two shapes. An event is an alarm when it happens, and silence is fine. A heartbeat is an alarm unless something good was
heard within some hours: silence is what it is about (C30). Its periods are hours, as CloudWatch looks back some periods
further than it is told before it takes data for missing: of hours that is a little, of days it is days.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Literal

from runbooks.model import metrics
from runbooks.model.aws_names import REPLICATION, AwsNames
from runbooks.model.backup import Tier
from runbooks.model.cron import Cron
from runbooks.model.duration import spell
from runbooks.model.freshness import PROVING
from runbooks.model.metrics import Series
from runbooks.model.moment import Moment
from runbooks.model.policy import Environment
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.policy_stack import StackPolicy

Severity = Literal["page", "mail", "chat"]
"""A field of `policy_stack.Alerts`."""
Statistic = Literal["Sum", "Minimum", "Maximum"]
Comparison = Literal["LessThanThreshold", "GreaterThanThreshold", "GreaterThanOrEqualToThreshold"]

HOUR, DAY = 3600, 86_400
SOON = 300
"""Seconds after which the rarest and worst are told."""
LONGEST = 7 * DAY
"""Seconds that an alarm can look at, where its periods are hours or more. AWS's."""
DEVIATION = 50
"""Percent that a backup may be larger or smaller than is usual. The strategy's."""
_NEAR = timedelta(minutes=1)
"""So far may a window be from what was promised."""
_NOT_ROTATED = "A password was not changed. The present one still works, and running applications with it"
_SIX_YEARS = (datetime(2028, 1, 1, tzinfo=UTC), datetime(2034, 1, 1, tzinfo=UTC))
"""With two leap years, and a year after each."""


@dataclass(frozen=True)
class Source:
    """A metric, by all that CloudWatch tells it apart by."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Watch:
    what: str
    """BackupFailed, for example: the end of the alarm's name."""
    severity: Severity
    source: Source
    statistic: Statistic
    comparison: Comparison
    threshold: float
    why: str
    """What has happened and what to do, for whoever is woken by it."""
    period: int = HOUR
    """Seconds."""
    periods: int = 1
    """All of them have to breach."""
    silence: Literal["breaching", "notBreaching"] = "notBreaching"
    environment: str | None = None
    """None: the whole stack."""
    tier: Tier | None = None

    def name(self, names: AwsNames) -> str:
        return names.alarm(self.what, self.environment, self.tier and self.tier.value)


@dataclass(frozen=True)
class Watched:
    """What the watches of a stack follow from."""

    names: AwsNames
    section: StackPolicy
    backup: BackupPolicy
    environments: Mapping[str, Environment]


def watched(of: Watched) -> tuple[Watch, ...]:
    """All watches of a stack, always in the same order. Their names are all different."""
    found = list(_of_the_stack(of))
    for name, environment in of.environments.items():
        for each in _of_an_environment(of, name, environment):
            found.append(replace(each, environment=name))
        for tier in Tier:
            for each in _of_a_tier(of, name, tier):
                found.append(replace(each, environment=name, tier=tier))
    return tuple(found)


# --- the backups of one tier ------------------------------------------------------------------------------------------


def _of_a_tier(of: Watched, environment: str, tier: Tier) -> Iterator[Watch]:
    def source(series: Series) -> Source:
        return _ours(series, environment, tier)

    cron = of.backup.tiers[tier].cron
    if cron is not None:
        yield _backup_failed(of, cron, source(metrics.BACKUP_SUCCESS), source(metrics.BACKUP_AGE), tier)
    yield Watch(
        "BackupSizeAnomaly", "mail", source(metrics.BACKUP_SIZE_DEVIATION), "Maximum", "GreaterThanOrEqualToThreshold",
        DEVIATION, f"A {tier} backup is {DEVIATION} % larger or smaller than those before it: find out what became of"
        " the data before older backups are removed. invoke backup.list", period=DAY,
    )  # fmt: skip
    yield _event(
        "VerifyFailed", "mail", source(metrics.VERIFY_FAILURE),
        f"A {tier} backup could not be proved. invoke backup.list shows how far; invoke backup.verify tries again",
    )  # fmt: skip
    yield _event(
        "BackupAttemptFailed", "chat", source(metrics.BACKUP_FAILURE),
        f"An attempt to take a {tier} backup failed. If none after it does better, the pager rings",
    )  # fmt: skip


def _backup_failed(of: Watched, cron: Cron, success: Source, age: Source, tier: Tier) -> Watch:
    """Daily ones by what was proved; rarer ones by their age, as no alarm can look back for more than a week."""
    hours, gap = of.section.heartbeat_hours, longest_gap(cron)
    then = "find out why with invoke backup.fresh, and take one: invoke backup.take --tier " + tier.value
    if gap <= timedelta(days=1):
        return _heartbeat(
            "BackupFailed", "page", success, "Sum", 1, hours,
            f"No {tier} backup was proved for {hours} hours: {then}",
        )  # fmt: skip
    most = gap + of.backup.time_limit + PROVING
    return _heartbeat(
        "BackupFailed", "page", age, "Maximum", most.total_seconds(), hours,
        f"The newest proved {tier} backup is older than {spell(most)}, or nothing says how old it is: {then}",
    )  # fmt: skip


@cache
def longest_gap(cron: Cron) -> timedelta:
    """At most so long is it from one due moment to the next, less than a day more on days with several."""
    first, last = _SIX_YEARS
    once = replace(cron, hours=cron.hours[:1])
    due = [at for day in range((last - first).days) if (at := once.latest(Moment(first + timedelta(days=day))))]
    return max((later.utc - earlier.utc for earlier, later in pairwise(due)), default=last - first)


# --- one environment --------------------------------------------------------------------------------------------------


def _of_an_environment(of: Watched, name: str, environment: Environment) -> Iterator[Watch]:
    def source(series: Series) -> Source:
        return _ours(series, name)

    section, hours = of.section, of.section.heartbeat_hours
    promised = spell(environment.promised_window)
    unverified, drill = timedelta(days=section.unverified_days), timedelta(days=section.drill_days)
    yield _heartbeat(
        "NotVerified", "mail", source(metrics.VERIFIED_AGE), "Maximum", unverified.total_seconds(), hours,
        f"No backup of the last {spell(unverified)} was restored and compared, or nothing says so:"
        " invoke backup.verify --latest",
    )  # fmt: skip
    yield _heartbeat(
        "RestoreWindowShrunk", "mail", source(metrics.RESTORE_WINDOW), "Minimum",
        (environment.promised_window - _NEAR).total_seconds(), hours,
        f"Neon cannot go back {promised} as promised, or nothing says how far: raise the history retention of"
        " the project, or promise less in the policy",
    )  # fmt: skip
    yield _heartbeat(
        "DrillOverdue", "mail", source(metrics.DRILL_AGE), "Maximum", drill.total_seconds(), hours,
        f"No drill passed within {spell(drill)}, or nothing says so: invoke drill.quarterly --for {name}",
    )  # fmt: skip
    yield Watch(
        "DrillFailed", "mail", source(metrics.DRILL_SUCCESS), "Minimum", "LessThanThreshold", 1,
        f"A drill of {name} ended without being proved: its report says what failed",
    )  # fmt: skip
    yield _event(
        "PruneFailed", "mail", source(metrics.PRUNE_FAILURE),
        "A clean-up did not remove all that it had planned; no backup that counts is touched: invoke backup.prune",
    )  # fmt: skip
    function = (("FunctionName", of.names.rotation_function(name)),)
    yield _event("RotationErrors", "mail", Source("AWS/Lambda", "Errors", function), _NOT_ROTATED)
    yield _event(
        "S3SyncFailed", "chat", source(metrics.SYNC_ERRORS),
        "Local backups are not in the bucket: invoke backup.sync",
    )  # fmt: skip


# --- the whole stack --------------------------------------------------------------------------------------------------


def _of_the_stack(of: Watched) -> Iterator[Watch]:
    def source(series: Series) -> Source:
        return Source(series.namespace(of.names.stack), series.name, series.dimensions())

    yield _event(
        "DeleteAttempted", "page", source(metrics.DELETE_ATTEMPTED),
        "Somebody tried to delete backups, or to disarm what keeps them from being deleted: policy, lock, lifecycle,"
        " replication or key. Who: the audit log, eventName Delete*, Put*, DisableKey* or ScheduleKeyDeletion. It may"
        " be the first pulumi up, or one that changes these settings, or a backup.take that failed and wanted to take"
        " back what it had sent",
        period=SOON,
    )  # fmt: skip
    yield _event(
        "TrailChanged", "page", source(metrics.TRAIL_CHANGED),
        "Somebody stopped, deleted or changed the audit trail. After a pulumi up that did so this is expected",
        period=SOON,
    )  # fmt: skip
    yield _heartbeat(
        "TrailSilent", "page", Source("AWS/Logs", "IncomingLogEvents", (("LogGroupName", of.names.trail_log_group),)),
        "Sum", 1, of.section.heartbeat_hours,
        "The audit log has heard of nothing, not even of a backup: see whether the trail is still there and logging",
    )  # fmt: skip
    yield _event(
        "RestorerAssumed", "chat", source(metrics.RESTORER_ASSUMED),
        "Somebody can read backups now. If nobody here is restoring anything, take the role away from them",
        period=SOON,
    )  # fmt: skip
    yield _event("RotationFailed", "mail", source(metrics.ROTATION_FAILED), _NOT_ROTATED)
    if of.section.replica is not None:
        copies = (
            ("SourceBucket", of.backup.bucket),
            ("DestinationBucket", of.names.bucket(of.backup.bucket, "replica")),
            ("RuleId", REPLICATION),
        )
        yield _event(
            "ReplicaFailed", "mail", Source("AWS/S3", "OperationsFailedReplication", copies),
            "Backups were not copied to the replica; the archive itself is whole. head-object says FAILED of which",
        )  # fmt: skip
    if of.section.runner == "fargate":
        # Letters that come, not those that lie there: one that nobody removes would hide the next for its two weeks.
        # This metric misses what a redrive policy moves, but Scheduler and EventBridge send. A queue that was idle
        # reports up to 15 minutes late, hence no short period.
        yield _event(
            "DeadLetters", "page",
            Source("AWS/SQS", "NumberOfMessagesSent", (("QueueName", of.names.dead_letters),)),
            "A scheduled task was not started, or ended badly. What and why is in the queue: aws sqs receive-message"
            " --queue-url URL, its URL by aws sqs get-queue-url --queue-name " + of.names.dead_letters
            + ". No role of this stack may read it: take rights of your own in the account. Each new letter rings, so"
            " the old ones may stay their 14 days, or go by aws sqs purge-queue --queue-url URL",
        )  # fmt: skip


# --- shapes -----------------------------------------------------------------------------------------------------------


def _event(what: str, severity: Severity, source: Source, why: str, *, period: int = HOUR) -> Watch:
    """At least one within a period."""
    return Watch(what, severity, source, "Sum", "GreaterThanOrEqualToThreshold", 1, why, period=period)


def _heartbeat(
    what: str, severity: Severity, source: Source, statistic: Statistic, threshold: float, hours: int, why: str
) -> Watch:
    """No hour of so many with at most (Maximum) or at least (Minimum, Sum) the threshold."""
    comparison: Comparison = "GreaterThanThreshold" if statistic == "Maximum" else "LessThanThreshold"
    return Watch(what, severity, source, statistic, comparison, threshold, why, periods=hours, silence="breaching")


def _ours(series: Series, environment: str, tier: Tier | None = None) -> Source:
    return Source(series.namespace(), series.name, series.dimensions(environment, tier))
