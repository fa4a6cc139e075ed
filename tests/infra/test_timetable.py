"""When a stack does what, in AWS's own spelling; and what is refused before anything is declared."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.timetable import check
from runbooks.model.cron import Cron
from runbooks.model.errors import PolicyFault
from runbooks.model.moment import Moment
from runbooks.model.policy import NeonEnvironment, SandboxEnvironment
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.timetable import planned
from tests.model.test_cron import crons

ANCHOR = {"method": "age", "recipients": ["age1" + "q" * 58]}
SANDBOX = SandboxEnvironment(sandbox=True)


def backup(**settings: Any) -> BackupPolicy:
    return BackupPolicy.model_validate({"bucket": "bloom-test", "region": "us-east-1", "encryption": ANCHOR} | settings)


def neon(**settings: Any) -> NeonEnvironment:
    usual = {"project": "quiet-lake-12345678", "database": "neondb", "role": "owner", "promised_window": "1d"}
    return NeonEnvironment.model_validate(usual | settings)


# --- AWS's cron -------------------------------------------------------------------------------------------------------


def fires(expression: str, at: datetime) -> bool:
    """As AWS documents it: six fields, 1 is Sunday, `?` in exactly one of day and weekday; only what we write."""
    found = re.fullmatch(r"cron\((\S+) (\S+) (\S+) (\S+) (\S+) \*\)", expression)
    assert found, expression
    minute, hour, day, month, weekday = found.groups()
    assert [day, weekday].count("?") == 1, "AWS refuses both and neither"
    sunday_is_1 = at.isoweekday() % 7 + 1
    values = ((minute, at.minute), (hour, at.hour), (day, at.day), (month, at.month), (weekday, sunday_is_1))
    return all(field in ("*", "?") or str(value) in field.split(",") for field, value in values)


@given(crons, st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_aws_fires_at_the_policys_last_due_moment_and_not_between_it_and_now(cron: Cron, at: datetime) -> None:
    due = cron.latest(Moment.of(at))
    assert due is not None
    assert fires(cron.aws(), due.utc)
    hour = timedelta(hours=1)
    later = [due.utc + count * hour for count in range(1, min(2000, (at - due.utc) // hour + 1))]
    assert not [moment for moment in later if fires(cron.aws(), moment)]


@pytest.mark.parametrize(
    ("text", "aws"),
    [
        ("0 2 * * *", "cron(0 2 * * ? *)"),
        ("0 4 * * 0", "cron(0 4 ? * 1 *)"),
        ("30 */6 * * mon-fri", "cron(30 0,6,12,18 ? * 2,3,4,5,6 *)"),
        ("5 1 1,15 jan *", "cron(5 1 1,15 1 ? *)"),
    ],
)
def test_in_words_of_aws_sunday_is_one(text: str, aws: str) -> None:
    assert Cron.parse(text).aws() == aws


def test_the_evaluator_would_find_a_weekday_that_is_one_off() -> None:
    sunday = datetime(2025, 12, 7, 4, tzinfo=UTC)
    assert fires("cron(0 4 ? * 1 *)", sunday)
    assert not fires("cron(0 4 ? * 0 *)", sunday)


@given(st.sampled_from(["1m", "30m", "1h", "4h", "12h", "23h", "7d"]), crons)
def test_every_schedule_of_a_stack_can_be_said_to_aws(limit: str, weekly: Cron) -> None:
    policy = backup(time_limit=limit, tiers={"daily": _tier("0 2 * * *"), "weekly": _tier(str(weekly))})
    for _, cron in planned(policy):
        assert Cron.parse(str(cron)) == cron
        fires(cron.aws(), datetime(2025, 1, 1, tzinfo=UTC))  # fails on what AWS would refuse


def _tier(schedule: str | None) -> dict[str, Any]:
    tier = {"local_days": 30, "s3_days": 400, "storage_class": "STANDARD"}
    return tier if schedule is None else tier | {"schedule": schedule}


# --- what is refused --------------------------------------------------------------------------------------------------

UNSCHEDULED = {"daily": _tier(None), "weekly": _tier(None), "pre-migration": _tier(None)}


@pytest.mark.parametrize(
    ("environments", "policy", "says"),
    [
        ({"a": neon()}, backup(local_folder="backups"), r"^backup\.local_folder: "),
        ({"a": neon()}, backup(encryption=None), r"^backup\.encryption: "),
        ({"a": SANDBOX, "b": neon()}, backup(encryption=None), r"^backup\.encryption: "),
        ({"a": neon()}, backup(tiers=UNSCHEDULED), r"^backup\.tiers: none has a schedule"),
        ({f"e{n}": SANDBOX for n in range(10_001)}, backup(), r"^environments: a fleet has at most 10,000"),
        ({f"e{n}": neon(api_key_env=f"KEY_{n}") for n in range(101)}, backup(), r"^environments: their api_key_env"),
    ],
)
def test_what_fargate_cannot_do_is_refused_with_the_field(environments: Any, policy: BackupPolicy, says: str) -> None:
    with pytest.raises(PolicyFault, match=says) as refused:
        check(environments, policy)
    assert refused.value.safe == "nothing was declared, and no cloud was called"


@pytest.mark.parametrize(
    ("environments", "policy"),
    [
        ({"a": neon()}, backup()),
        ({"a": SANDBOX}, backup(encryption=None)),  # it brings a key of its own
        ({f"e{n}": SANDBOX for n in range(10_000)}, backup()),
        ({f"e{n}": neon(api_key_env=f"KEY_{n % 100}") for n in range(300)}, backup()),
    ],
)
def test_what_it_can_do_is_not(environments: Any, policy: BackupPolicy) -> None:
    check(environments, policy)
