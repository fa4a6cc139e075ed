"""What a stack does when, and what it cannot be without. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from runbooks.model.backup import Tier
from runbooks.model.cron import Cron
from runbooks.model.errors import PolicyFault
from runbooks.model.fleet import MOST, Routine
from runbooks.model.freshness import PROVING
from runbooks.model.policy import Environment
from runbooks.model.policy_backup import BackupPolicy

VERIFIED = 7
"""So many of the newest backups are restored for proof each week."""
MOST_KEYS = 100
"""Variables with Neon keys in one job definition, whose whole size AWS limits."""
_SUNDAYS, _DAILY = Cron.parse("0 4 * * 0"), Cron.parse("0 0 * * *")


def check(environments: Mapping[str, Environment], backup: BackupPolicy) -> None:
    """PolicyFault, with the field's name, for what would keep tasks in Fargate from taking these backups."""
    real = [each for each in environments.values() if not each.sandbox]
    if len(environments) > MOST:
        raise _fault(f"environments: a fleet has at most {MOST:,} databases", "make two stacks of it")
    if len({each.api_key_env for each in real}) > MOST_KEYS:
        raise _fault(
            f"environments: their api_key_env name more than {MOST_KEYS} variables", "let several share a Neon API key"
        )
    if not any(backup.tiers[tier].cron for tier in Tier):
        raise _fault("backup.tiers: none has a schedule", 'write schedule = "0 2 * * *" in [backup.tiers.daily]')
    if backup.local_folder is not None:
        raise _fault(
            "backup.local_folder: a task in Fargate has no disk that lasts",
            'leave it out, or write runner = "elsewhere" into the stack and take the backups on a machine of your own',
        )
    if real and backup.encryption is None:
        raise _fault(
            "backup.encryption: there is none, so that every scheduled backup would fail",
            "invoke backup.keys --new FILE, and put its public key into [backup.encryption]",
        )


def planned(backup: BackupPolicy) -> tuple[tuple[Routine, Cron], ...]:
    """Backups are taken as the policy says, judged each day, and restored on the days of the weekly ones.

    The latter two when the backups that they are about must be over; and before the bucket makes weekly ones cold.
    """
    crons = {tier: cron for tier in Tier if (cron := backup.tiers[tier].cron)}
    daily = crons.get(Tier.DAILY, _DAILY)
    weekly = crons.get(Tier.WEEKLY, _SUNDAYS)
    weekly = weekly if len(weekly.days) == 31 else _SUNDAYS
    judged = replace(_DAILY, minute=daily.minute, hours=settled(daily, backup).hours)
    return (
        *((Routine.take(tier), cron) for tier, cron in crons.items()),
        (Routine.fresh(), judged),
        (Routine.verify(VERIFIED), settled(weekly, backup)),
    )


def settled(cron: Cron, backup: BackupPolicy) -> Cron:
    """The last time on each of its days, so much later that the run must be over; maybe on the day after."""
    hour = cron.hours[-1] + -(-(backup.time_limit + PROVING) // timedelta(hours=1))
    weekdays = {(day + hour // 24) % 7 for day in cron.weekdays}
    return replace(cron, hours=(hour % 24,), weekdays=tuple(sorted(weekdays)))


def _fault(happened: str, next_step: str) -> PolicyFault:
    return PolicyFault(happened, safe="nothing was declared, and no cloud was called", next_step=next_step)
