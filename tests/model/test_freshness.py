"""C16: silence is an alarm. What a scheduler did not do shows in the age of the newest verified backup."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runbooks.model.backup import Tier
from runbooks.model.freshness import judge
from runbooks.model.moment import Moment
from tests.model.test_retention import policy

NOON = datetime(2025, 12, 3, 12, tzinfo=UTC)  # a Wednesday; daily at 2, weekly on Sunday at 4
LAST_NIGHT = NOON.replace(hour=2, second=7)
SUNDAY = datetime(2025, 11, 30, 4, 1, tzinfo=UTC)


def stale(now: datetime = NOON, **newest: datetime) -> set[str]:
    starts = {Tier(name): Moment(start) for name, start in newest.items()}
    return {each.tier.value for each in judge(policy(), starts, Moment(now)) if not each.fresh}


def test_c16_both_tiers_are_fresh_after_their_last_due_run() -> None:
    assert stale(daily=LAST_NIGHT, weekly=SUNDAY) == set()


def test_c16_a_scheduler_that_never_ran_is_an_alarm() -> None:
    assert stale() == {"daily", "weekly"}


@pytest.mark.parametrize("hours", [24, 31, 24 * 365])
def test_c16_a_missed_run_is_an_alarm_however_long_ago(hours: int) -> None:
    assert stale(daily=LAST_NIGHT - timedelta(hours=hours), weekly=SUNDAY) == {"daily"}


def test_c16_a_run_that_may_still_be_at_work_is_no_alarm_yet() -> None:
    yesterday = LAST_NIGHT - timedelta(days=1)
    assert stale(NOON.replace(hour=6), daily=yesterday, weekly=SUNDAY) == set()
    assert stale(NOON.replace(hour=7), daily=yesterday, weekly=SUNDAY) == {"daily"}


def test_c16_a_backup_by_hand_before_the_due_moment_does_not_hide_a_missed_run() -> None:
    assert stale(daily=LAST_NIGHT - timedelta(minutes=30), weekly=SUNDAY) == {"daily"}
    assert stale(daily=LAST_NIGHT - timedelta(minutes=3), weekly=SUNDAY) == set()


def test_c16_a_backup_from_the_future_is_none() -> None:
    assert stale(daily=NOON + timedelta(hours=1), weekly=SUNDAY) == {"daily"}
    (daily, _) = judge(policy(), {Tier.DAILY: Moment(NOON + timedelta(hours=1))}, Moment(NOON))
    assert daily.age is None


def test_c16_the_line_for_people_has_the_age_and_when_it_was_due() -> None:
    starts = {Tier.DAILY: Moment(NOON - timedelta(hours=31, milliseconds=1))}
    assert [str(each) for each in judge(policy(), starts, Moment(NOON))] == [
        "daily backups are STALE: the newest verified one is 1d7h old; one was due at 2025-12-03 02:00 UTC",
        "weekly backups are STALE: there is none that is verified; one was due at 2025-11-30 04:00 UTC",
    ]
