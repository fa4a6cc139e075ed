"""What a policy asks for is done when it says, and judged and proved when it must be there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runbooks.model.cron import Cron
from runbooks.model.duration import parse
from runbooks.model.fleet import Job
from runbooks.model.freshness import PROVING
from runbooks.model.moment import Moment
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.timetable import VERIFIED, ended_after, planned, settled
from tests.model.test_cron import crons


def backup(**settings: Any) -> BackupPolicy:
    return BackupPolicy.model_validate({"bucket": "bloom-test", "region": "us-east-1"} | settings)


def _tier(schedule: str | None) -> dict[str, Any]:
    tier = {"local_days": 30, "s3_days": 400, "storage_class": "STANDARD"}
    return tier if schedule is None else tier | {"schedule": schedule}


def times(policy: BackupPolicy) -> dict[str, str]:
    return {routine.name: str(cron) for routine, cron in planned(policy)}


def test_the_strategys_schedule_is_taken_over_and_its_backups_are_judged_and_restored_after_them() -> None:
    assert times(backup()) == {
        "take-daily": "0 2 * * *",
        "take-weekly": "0 4 * * 0",
        "fresh": "0 7 * * *",
        "verify": "0 9 * * 0",
    }


def test_what_runs_past_midnight_is_judged_on_the_next_day() -> None:
    tiers = {"daily": _tier("30 22 * * *"), "weekly": _tier("0 23 * * sat"), "pre-migration": _tier(None)}
    assert times(backup(tiers=tiers)) == {
        "take-daily": "30 22 * * *",
        "take-weekly": "0 23 * * 6",
        "fresh": "30 3 * * *",
        "verify": "0 4 * * 0",
    }


def test_without_weekly_backups_the_daily_ones_are_restored_on_sundays() -> None:
    tiers = {"daily": _tier("0 2 * * *"), "weekly": _tier(None), "pre-migration": _tier(None)}
    assert times(backup(tiers=tiers)) == {"take-daily": "0 2 * * *", "fresh": "0 7 * * *", "verify": "0 9 * * 0"}


def test_monthly_backups_of_the_weekly_tier_do_not_make_proofs_monthly() -> None:
    tiers = {"daily": _tier("0 2 * * *"), "weekly": _tier("0 4 1 * *"), "pre-migration": _tier(None)}
    assert times(backup(tiers=tiers))["verify"] == "0 9 * * 0"


LIMITS = st.sampled_from(["1m", "30m", "1h", "4h", "12h", "22h"])
DAYS = st.datetimes(timezones=st.just(UTC), min_value=datetime(2025, 1, 1), max_value=datetime(2026, 1, 1))  # noqa: DTZ001


@given(LIMITS, crons.filter(lambda cron: len(cron.days) == 31 and len(cron.months) == 12), DAYS)
def test_what_has_settled_had_the_time_to_be_taken_and_proved(limit: str, cron: Cron, at: datetime) -> None:
    """All of its day, and by less than an hour more."""
    policy = backup(time_limit=limit)
    after = settled(cron, policy).latest(Moment.of(at))
    assert after is not None
    due = cron.latest(Moment(after.utc - policy.time_limit - PROVING))
    assert due is not None
    assert due.utc.hour == cron.hours[-1]
    assert policy.time_limit + PROVING <= after.utc - due.utc < policy.time_limit + PROVING + timedelta(hours=1)


@given(LIMITS)
def test_a_run_is_ended_only_when_it_should_have_ended_itself(limit: str) -> None:
    policy, time = backup(time_limit=limit), parse(limit)
    assert ended_after(Job.TAKE, policy) > time + PROVING
    assert ended_after(Job.VERIFY, policy) > VERIFIED * time + PROVING
    assert timedelta(hours=1) <= ended_after(Job.JUDGE, policy) < timedelta(hours=2), "it restores nothing"
