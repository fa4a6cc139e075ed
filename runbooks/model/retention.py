"""Which backups may go: a plan with a reason for each. Pure; whoever carries it out deletes what it says and no more.

Two rules make it safe whatever failed before. Only what is proved counts as a backup, so that failed ones never push
good ones out. And whatever goes, goes behind enough proved newer ones: the newest proved ones therefore always stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from runbooks.model.backup import BackupId, Rung, Standing, Tier
from runbooks.model.moment import Moment
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.record import Record


class Place(StrEnum):
    LOCAL = "local"
    ARCHIVE = "archive"


class Copy(Record):
    """One backup in one place, as a listing found it. Old `.sql.gz` backups are none: nothing here removes them."""

    id: BackupId
    place: Place
    tier: Tier
    """From the manifest, or from the tags where half a backup has none."""
    complete: bool
    """Its manifest is there."""
    standing: Standing
    """What is proved of these bytes."""
    locked_until: Moment | None = None


class Reason(StrEnum):
    LOCKED = "locked"
    PRE_MIGRATION = "a pre-migration backup before its release"
    YOUNG = "within its retention"
    NOT_SENT = "the archive does not hold it, or not whole"
    LAST_GOOD = "one of the newest verified backups"
    NOTHING_NEWER = "not enough verified newer backups"
    EXPIRED = "past its retention"
    HALF = "half a backup, left behind by a failed run"


class Entry(Record):
    """The decision on one copy. `str()` is one line for a person."""

    copy_of: Copy
    keep: bool
    reason: Reason
    until: Moment | None = None
    """Kept at least until then by this reason; None where that depends on other backups, or is never."""

    def __str__(self) -> str:
        until = f" (until {self.until.utc:%Y-%m-%d %H:%M} UTC)" if self.until else ""
        return f"{'keep' if self.keep else 'drop'} {self.copy_of.place} {self.copy_of.id}: {self.reason}{until}"


class PrunePlan(Record):
    """Every copy, oldest first, once."""

    entries: tuple[Entry, ...]

    @property
    def kept(self) -> tuple[Copy, ...]:
        return tuple(entry.copy_of for entry in self.entries if entry.keep)

    @property
    def dropped(self) -> tuple[Copy, ...]:
        """Delete the manifest of each first: then half a deletion is never taken for a backup."""
        return tuple(entry.copy_of for entry in self.entries if not entry.keep)


HALF_LIFE = timedelta(days=7)
"""Half a backup is left alone for so long: it may be one that is being written, or sent again."""


def plan_prune(copies: Iterable[Copy], policy: BackupPolicy, now: Moment) -> PrunePlan:
    """What may be dropped at `now`. ValueError if a copy is given twice.

    Every environment and place is judged by itself: neither another environment's backups nor the other place's are a
    reason to drop the last good one here. Time and further verified backups only ever add to what may go.
    """
    ordered = sorted(copies, key=lambda copy: (copy.id, copy.place))
    if any(count > 1 for count in Counter((copy.id, copy.place) for copy in ordered).values()):
        raise ValueError("a backup is listed twice in one place")
    sent = frozenset(copy.id for copy in ordered if copy.place is Place.ARCHIVE and _whole(copy))
    rules = _Rules(policy, now, sent)
    entries: list[Entry] = []
    newer: Counter[tuple[str, Place]] = Counter()
    for copy in reversed(ordered):
        shelf = (copy.id.environment, copy.place)
        entries.append(rules.judge(copy, newer[shelf]))
        newer[shelf] += rules.verified(copy)
    return PrunePlan(entries=tuple(reversed(entries)))


@dataclass(frozen=True)
class _Rules:
    policy: BackupPolicy
    now: Moment
    sent: frozenset[BackupId]

    def verified(self, copy: Copy) -> bool:
        return copy.complete and copy.standing.proved(Rung(self.policy.verified_rung))

    def judge(self, copy: Copy, newer: int) -> Entry:
        """The first reason that holds; `newer` verified ones lie in the same place."""
        end = self._end(copy, copy.place)
        if copy.locked_until is not None and copy.locked_until > self.now:
            return Entry(copy_of=copy, keep=True, reason=Reason.LOCKED, until=copy.locked_until)
        if copy.tier is Tier.PRE_MIGRATION and not self._past(end):
            return Entry(copy_of=copy, keep=True, reason=Reason.PRE_MIGRATION, until=_moment(end))
        if not copy.complete:
            end = copy.id.started.utc + HALF_LIFE
        if not self._past(end):
            return Entry(copy_of=copy, keep=True, reason=Reason.YOUNG, until=_moment(end))
        if copy.complete and copy.place is Place.LOCAL and copy.id not in self.sent:
            in_archive = self._end(copy, Place.ARCHIVE)
            if not self._past(in_archive):
                return Entry(copy_of=copy, keep=True, reason=Reason.NOT_SENT, until=_moment(in_archive))
        if newer < self.policy.keep_verified:
            reason = Reason.LAST_GOOD if self.verified(copy) else Reason.NOTHING_NEWER
            return Entry(copy_of=copy, keep=True, reason=reason)
        return Entry(copy_of=copy, keep=False, reason=Reason.EXPIRED if copy.complete else Reason.HALF)

    def _end(self, copy: Copy, place: Place) -> datetime | None:
        """Of the retention that the policy gives a backup of this tier; None: never."""
        tier = self.policy.tiers[copy.tier]
        days = tier.local_days if place is Place.LOCAL else tier.s3_days
        return None if days is None else copy.id.started.utc + timedelta(days=days)

    def _past(self, end: datetime | None) -> bool:
        return end is not None and end <= self.now.utc


def _whole(copy: Copy) -> bool:
    return copy.complete and copy.standing.failure is None


def _moment(end: datetime | None) -> Moment | None:
    return None if end is None else Moment(end)
