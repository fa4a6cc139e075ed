"""What is done when for the databases of a policy, and how long it may take: alike in AWS and elsewhere. Pure.

The alarms go by it: without the daily judgement and the weekly proof they have no data, and ring.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from runbooks.model.backup import Tier
from runbooks.model.cron import Cron
from runbooks.model.fleet import Job, Routine
from runbooks.model.freshness import PROVING
from runbooks.model.policy_backup import BackupPolicy

VERIFIED = 7
"""So many of the newest backups are restored for proof each week."""
_HOUR = timedelta(hours=1)
_SPARE = timedelta(minutes=10)
"""For a run to end by itself before it is ended."""
_LIMITED = {Job.TAKE: 1, Job.JUDGE: 0, Job.VERIFY: VERIFIED}
"""So many times may the policy's time limit be used up."""
_SUNDAYS, _DAILY = Cron.parse("0 4 * * 0"), Cron.parse("0 0 * * *")


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
    hour = cron.hours[-1] + -(-(backup.time_limit + PROVING) // _HOUR)
    weekdays = {(day + hour // 24) % 7 for day in cron.weekdays}
    return replace(cron, hours=(hour % 24,), weekdays=tuple(sorted(weekdays)))


def ended_after(job: Job, backup: BackupPolicy) -> timedelta:
    """A scheduler ends a run that takes longer: by then it should have ended itself."""
    return _LIMITED[job] * backup.time_limit + PROVING + _SPARE
