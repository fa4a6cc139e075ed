"""Whether the backups that are due are there. Judged from what the archive holds, never from what a scheduler says.

A scheduler that never ran reports nothing, so silence has to be an alarm.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from runbooks.model.backup import Tier
from runbooks.model.duration import spell
from runbooks.model.moment import Moment
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.record import Record


class Freshness(Record):
    """The judgement on one scheduled tier. `str()` is one line for a person."""

    tier: Tier
    fresh: bool
    newest: Moment | None
    """Start of its newest verified backup; None: there is none."""
    due: Moment | None
    """The schedule's last moment whose backup has had the time to be taken and proved; None: there was none yet."""
    at: Moment

    @property
    def age(self) -> timedelta | None:
        """Of the newest verified backup; a backup from the future is as old as none."""
        return None if self.newest is None or self.newest > self.at else self.at.utc - self.newest.utc

    def __str__(self) -> str:
        told = "there is none that is verified"
        if self.age is not None:
            told = f"the newest verified one is {spell(timedelta(seconds=self.age // timedelta(seconds=1)))} old"
        due = f"one was due at {self.due.utc:%Y-%m-%d %H:%M} UTC" if self.due else "none was due yet"
        return f"{self.tier} backups are {'fresh' if self.fresh else 'STALE'}: {told}; {due}"


PROVING = timedelta(hours=1)
"""What a run may take beyond the policy's time limit until its backup is proved."""
EARLY = timedelta(minutes=5)
"""So far may the clock of the machine that takes backups be behind."""


def judge(policy: BackupPolicy, newest: Mapping[Tier, Moment], now: Moment) -> tuple[Freshness, ...]:
    """For each tier with a schedule. `newest`: the start of the newest verified backup of each tier. Pure.

    Fresh is what was started at the last due moment or later; a due moment counts once its run must be over.
    """
    settled = Moment(now.utc - policy.time_limit - PROVING)
    found = []
    for tier in Tier:
        cron = policy.tiers[tier].cron
        if cron is not None:
            due, last = cron.latest(settled), newest.get(tier)
            fresh = due is None or (last is not None and due.utc - EARLY <= last.utc <= now.utc + EARLY)
            found.append(Freshness(tier=tier, fresh=fresh, newest=last, due=due, at=now))
    return tuple(found)
