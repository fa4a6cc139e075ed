"""A schedule means the same to cron, systemd and GitHub, or it is refused."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.model.cron import Cron
from runbooks.model.moment import Moment


@pytest.mark.parametrize(
    ("text", "plain", "systemd"),
    [
        ("0 2 * * *", "0 2 * * *", "*-*-* 02:00:00 UTC"),
        ("0 4 * * 0", "0 4 * * 0", "Sun *-*-* 04:00:00 UTC"),
        ("0 4 * * 7", "0 4 * * 0", "Sun *-*-* 04:00:00 UTC"),
        ("0 4 * * SUN,wed", "0 4 * * 0,3", "Sun,Wed *-*-* 04:00:00 UTC"),
        ("5 */6 * * *", "5 0,6,12,18 * * *", "*-*-* 00,06,12,18:05:00 UTC"),
        ("59 9-17/4 * * 1-5", "59 9,13,17 * * 1,2,3,4,5", "Mon,Tue,Wed,Thu,Fri *-*-* 09,13,17:59:00 UTC"),
        ("30 1 1,15 jan-mar *", "30 1 1,15 1,2,3 *", "*-01,02,03-01,15 01:30:00 UTC"),
        ("0 0 29 2 *", "0 0 29 2 *", "*-02-29 00:00:00 UTC"),
        ("00 02 */1 1-12 0-7", "0 2 * * *", "*-*-* 02:00:00 UTC"),
    ],
)
def test_a_schedule_is_spelled_plainly(text: str, plain: str, systemd: str) -> None:
    cron = Cron.parse(text)
    assert str(cron) == plain
    assert cron.systemd() == systemd


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "five fields"),
        ("@daily", "five fields"),
        ("0 2 * *", "five fields"),
        ("0 2 * * * *", "five fields"),
        ("0  2 * * *", "five fields"),
        ("0 2 * * *\n", "weekday"),
        ("* 2 * * *", "more than one backup in an hour"),
        ("0,30 2 * * *", "more than one backup in an hour"),
        ("60 2 * * *", "minute that is not between 0 and 59"),
        ("0 24 * * *", "hour that is not between 0 and 23"),
        ("0 2 0 * *", "day that is not between 1 and 31"),
        ("0 2 * 13 *", "month that is not between"),
        ("0 2 * * 8", "weekday that is not between 0 and 7"),
        ("0 2 * * fun", "weekday that is not between"),
        ("0 2 * mon *", "month that is not between"),
        ("0 2 L * *", "day that is not between"),
        ("0 2 ? * *", "day that is not a number"),
        ("0 2 1, * *", "day that is not a number"),
        ("0 5-3 * * *", "runs backwards"),
        ("0 2/3 * * *", "counts over nothing"),
        ("0 */0 * * *", "counts over nothing"),
        ("0 -2 * * *", "hour that is not a number"),
        ("0 ٢ * * *", "hour that is not a number"),
        ("0 2 1 * 1", "give only one"),
        ("0 2 30 2 *", "never comes"),
        ("0 2 31 4,6,9,11 *", "never comes"),
    ],
)
def test_what_schedulers_read_differently_or_not_at_all_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Cron.parse(text)


def test_the_latest_due_moment_is_found_across_months_and_leap_years() -> None:
    def latest(text: str, at: str) -> str | None:
        found = Cron.parse(text).latest(Moment(datetime.fromisoformat(at)))
        return found and f"{found.utc:%Y-%m-%d %H:%M}"

    assert latest("0 2 * * *", "2025-12-03T02:00:00+00:00") == "2025-12-03 02:00"
    assert latest("0 2 * * *", "2025-12-03T01:59:59+00:00") == "2025-12-02 02:00"
    assert latest("0 4 * * 0", "2025-12-03T12:00:00+00:00") == "2025-11-30 04:00"
    assert latest("0 6,18 * * *", "2025-12-03T17:00:00+00:00") == "2025-12-03 06:00"
    assert latest("0 0 31 * *", "2025-12-03T00:00:00+00:00") == "2025-10-31 00:00"
    assert latest("0 0 29 2 *", "2104-02-28T00:00:00+00:00") == "2096-02-29 00:00"


hours = st.lists(st.integers(0, 23), min_size=1, max_size=4, unique=True)
weekdays = st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True)
crons = st.builds(
    lambda minute, hours, weekdays: Cron.parse(
        f"{minute} {','.join(map(str, hours))} * * {','.join(map(str, weekdays))}"
    ),
    st.integers(0, 59),
    hours,
    weekdays,
) | st.builds(
    lambda minute, day, month: Cron.parse(f"{minute} * {day} {month} *"),
    st.integers(0, 59),
    st.integers(1, 29),
    st.sampled_from(["*", "2", "1-6", "*/3"]),
)


@given(crons)
def test_the_plain_spelling_means_the_same(cron: Cron) -> None:
    assert Cron.parse(str(cron)) == cron


@settings(max_examples=60)
@given(crons, st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_nothing_is_due_between_the_latest_due_moment_and_now(cron: Cron, now: datetime) -> None:
    due = cron.latest(Moment(now))
    assert due is not None
    assert due.utc <= now
    assert matches(cron, due.utc)
    minute = now.replace(second=0, microsecond=0)
    for back in range(min(int((minute - due.utc) / timedelta(minutes=1)), 3000)):
        assert not matches(cron, minute - timedelta(minutes=back))


def matches(cron: Cron, at: datetime) -> bool:
    return (
        (at.minute == cron.minute and at.hour in cron.hours)
        and (at.day in cron.days and at.month in cron.months)
        and int(f"{at:%w}") in cron.weekdays
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="asks systemd itself, where there is one")
def test_systemd_reads_the_calendar_as_we_do() -> None:
    for text in ("0 2 * * *", "0 4 * * 0", "30 1 1,15 1-3 *", "59 9-17/4 * * 1-5"):
        calendar = Cron.parse(text).systemd()
        answer = subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
