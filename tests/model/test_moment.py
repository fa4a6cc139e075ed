"""A moment is read exactly, or refused with the way to say it better."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from importlib import resources
from pathlib import Path
from zoneinfo import ZoneInfo, reset_tzpath

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from runbooks.model.errors import UsageFault
from runbooks.model.moment import Moment
from runbooks.model.zones import names, zone

NOW = datetime(2025, 12, 5, tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
CITY = "America/Mexico_City"
moments = st.datetimes(timezones=st.just(UTC)).map(Moment.of)


def read(text: str) -> str:
    return Moment.parse(text, now=NOW).iso()


def attempt(text: str) -> Moment | UsageFault:
    try:
        return Moment.parse(text, now=LAST)
    except UsageFault as fault:
        return fault


def refusal(text: str) -> UsageFault:
    with pytest.raises(UsageFault) as caught:
        Moment.parse(text, now=NOW)
    return caught.value


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2025-12-03T14:30:00Z", "2025-12-03T14:30:00.000000Z"),
        ("2025-12-03t14:30:00z", "2025-12-03T14:30:00.000000Z"),
        ("2025-12-03 14:30:00Z", "2025-12-03T14:30:00.000000Z"),
        ("2025-12-03T08:30:00.5-06:00", "2025-12-03T14:30:00.500000Z"),
        ("2025-12-04T00:15:00+09:45", "2025-12-03T14:30:00.000000Z"),
        ("2025-12-03T14:30:00-00:00", "2025-12-03T14:30:00.000000Z"),
        ("2025-12-03 14:30:00.123+00", "2025-12-03T14:30:00.123000Z"),  # as psql shows a timestamptz
        ("2025-12-03 08:30:00,123 -0600", "2025-12-03T14:30:00.123000Z"),  # as Python's logging and git do
        (f"2025-12-03 08:30 {CITY}", "2025-12-03T14:30:00.000000Z"),
        (f"2025-12-03 08:30:05 {CITY}", "2025-12-03T14:30:05.000000Z"),
        (f"2025-12-03T08:30:05.123 {CITY}", "2025-12-03T14:30:05.123000Z"),
        ("2025-12-03 14:30 UTC", "2025-12-03T14:30:00.000000Z"),
        (f"  2025-12-03 08:30 {CITY} ", "2025-12-03T14:30:00.000000Z"),
    ],
)
def test_both_forms_are_read(text: str, instant: str) -> None:
    assert read(text) == instant


@pytest.mark.parametrize(
    ("fraction", "micros"),
    [("9", "900000"), ("999999", "999999"), ("9999999", "999999"), ("123456789", "123456"), ("000000999", "000000")],
)
def test_digits_below_the_microsecond_are_cut_off(fraction: str, micros: str) -> None:
    assert read(f"2025-12-03T14:30:00.{fraction}Z") == f"2025-12-03T14:30:00.{micros}Z"


@pytest.mark.parametrize("text", ["2025-12-03T14:30:00", "2025-12-03 14:30:00", "2025-12-03 14:30:00.000"])
def test_a_moment_without_zone_is_refused_and_both_ways_to_give_one_are_shown(text: str) -> None:
    fault = refusal(text)
    assert "has no zone" in fault.happened
    assert "2025-12-03T14:30:00Z" in fault.next_step
    assert "'2025-12-03 14:30:00 America/Mexico_City'" in fault.next_step


def test_the_forms_that_a_refusal_proposes_are_themselves_accepted() -> None:
    assert read("2025-12-03T14:30:00Z")
    assert read("2025-12-03 14:30:00 America/Mexico_City")


def test_the_future_is_refused_with_both_times() -> None:
    fault = refusal("2025-12-05T00:00:00.000001Z")
    assert "2025-12-05T00:00:00.000001Z" in fault.happened
    assert "2025-12-05T00:00:00.000000Z" in fault.happened
    assert read("2025-12-05T00:00:00Z") == "2025-12-05T00:00:00.000000Z"


def test_a_naive_clock_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        Moment.parse("2025-12-03T14:30:00Z", now=datetime(2025, 12, 5))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("2025-11-02 01:30 America/New_York", "2025-11-02T05:30:00.000000Z", "2025-11-02T06:30:00.000000Z"),
        (f"2021-10-31 01:59:59.999 {CITY}", "2021-10-31T06:59:59.999000Z", "2021-10-31T07:59:59.999000Z"),
        ("2025-04-06 01:45 Australia/Lord_Howe", "2025-04-05T14:45:00.000000Z", "2025-04-05T15:15:00.000000Z"),
    ],
)
def test_an_hour_that_happened_twice_is_refused_with_both_readings(text: str, first: str, second: str) -> None:
    fault = refusal(text)
    assert "happened twice" in fault.happened
    assert fault.next_step.index(first) < fault.next_step.index(second)


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("2025-03-09 02:30 America/New_York", "2025-03-09T06:30:00.000000Z", "2025-03-09T07:30:00.000000Z"),
        (f"2022-04-03 02:00 {CITY}", "2022-04-03T07:00:00.000000Z", "2022-04-03T08:00:00.000000Z"),
        ("2011-12-30 12:00 Pacific/Apia", "2011-12-29T22:00:00.000000Z", "2011-12-30T22:00:00.000000Z"),
    ],
)
def test_an_hour_that_was_skipped_is_refused_with_the_readings_around_it(text: str, before: str, after: str) -> None:
    fault = refusal(text)
    assert "was skipped" in fault.happened
    assert fault.next_step.index(before) < fault.next_step.index(after)


def test_the_edges_of_a_change_of_the_clocks_are_not_ambiguous() -> None:
    assert read("2025-11-02 00:59:59.999999 America/New_York") == "2025-11-02T04:59:59.999999Z"
    assert read("2025-11-02 02:00 America/New_York") == "2025-11-02T07:00:00.000000Z"
    assert read("2025-03-09 01:59:59.999999 America/New_York") == "2025-03-09T06:59:59.999999Z"
    assert read("2025-03-09 03:00 America/New_York") == "2025-03-09T07:00:00.000000Z"


def test_mexico_has_no_summer_time_since_2022_whatever_the_machines_own_zone_files_say() -> None:
    assert read(f"2025-07-01 08:00 {CITY}") == "2025-07-01T14:00:00.000000Z"
    assert read(f"2022-07-01 08:00 {CITY}") == "2022-07-01T13:00:00.000000Z"


@pytest.mark.parametrize("short", ["CST", "EST", "MST", "CET", "BST", "PRC", "EST5EDT"])
def test_an_abbreviation_is_refused_as_ambiguous(short: str) -> None:
    assert "ambiguous" in refusal(f"2025-12-03 14:30 {short}").happened


def test_an_unknown_zone_is_refused_with_the_nearest_names() -> None:
    assert CITY in refusal("2025-12-03 14:30 America/Mexico").happened
    assert CITY in refusal("2025-12-03 14:30 Mexico_City").happened
    assert CITY in refusal("2025-12-03 14:30 america/mexico_city").happened
    assert "offset alone" in refusal("2025-12-03 14:30 UTC-6").happened
    assert "IANA" in refusal("2025-12-03 14:30 Qqqqqqq/Zzzzz").happened


@pytest.mark.parametrize("name", ["", "../tzdata/zones", "/etc/localtime", "localtime", "Factory", "America"])
def test_only_names_on_the_list_open_a_zone_file(name: str) -> None:
    with pytest.raises(ValueError, match="IANA"):
        zone(name)


@pytest.mark.parametrize(
    "text",
    [
        "2025-02-30T00:00:00Z",
        "2025-13-01T00:00:00Z",
        "2025-12-03T24:00:00Z",
        "2025-12-03T14:60:00Z",
        "2025-12-03T14:30:61Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+10:00",
        "9999-12-31T23:00:00-10:00",
        "2025-12-03T14:30:00+24:00",
        "2025-12-03T14:30:00+10:60",
        "2016-12-31T23:59:60Z",
    ],
)
def test_times_that_no_clock_shows_are_refused(text: str) -> None:
    assert refusal(text).next_step


def test_a_leap_second_says_what_to_write() -> None:
    assert "second 59" in refusal("2016-12-31T23:59:60Z").next_step


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "now",
        "yesterday",
        "2025-12-03",
        "14:30:00Z",
        "1764772200",
        "20251203T143000Z",
        "2025-12-03T14:30:00Z\n",
        "2025-12-03T14:30:00.1234567890Z",
        "2025-12-03T14:30:00.Z",
        "٢٠٢٥-12-03T14:30:00Z",
        "-2025-12-03T14:30:00Z",
        "02025-12-03T14:30:00Z",
        "3/12/2025 14:30 UTC",
        "x" * 10_000,
    ],
)
def test_anything_else_is_refused_on_one_short_line_with_the_two_forms(text: str) -> None:
    fault = refusal(text)
    assert "\n" not in fault.happened
    assert len(fault.happened) < 200
    assert "2025-12-03T14:30:00Z" in fault.next_step
    assert CITY in fault.next_step


@given(st.text())
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    assert isinstance(attempt(text), Moment | UsageFault)


@given(moments)
def test_parse_reads_what_iso_writes(moment: Moment) -> None:
    assert Moment.parse(moment.iso(), now=LAST) == moment


@given(moments)
def test_the_form_for_neon_is_at_most_a_millisecond_early_and_never_late(moment: Moment) -> None:
    sent = Moment.parse(moment.neon(), now=LAST)
    assert timedelta(0) <= moment.utc - sent.utc < timedelta(milliseconds=1)


@given(st.datetimes(timezones=st.just(UTC)), st.from_regex(r"[0-9]{0,9}", fullmatch=True))
def test_a_fraction_is_never_rounded_forward(second: datetime, digits: str) -> None:
    written = second.replace(microsecond=0).isoformat().removesuffix("+00:00")
    moment = Moment.parse(f"{written}{'.' if digits else ''}{digits}Z", now=LAST)
    exact = int(digits.ljust(9, "0") or 0)
    assert moment.utc.replace(microsecond=0) == second.replace(microsecond=0)
    assert moment.utc.microsecond == exact // 1000


@given(moments, moments)
def test_moments_and_both_their_texts_sort_as_they_happened(one: Moment, other: Moment) -> None:
    assert (one < other) == (one.utc < other.utc) == (one.iso() < other.iso())
    assert (one == other) == (one.iso() == other.iso())
    assert one.neon() <= other.neon() or one > other


@given(moments, st.timedeltas(min_value=timedelta(hours=-23, minutes=-59), max_value=timedelta(hours=23, minutes=59)))
def test_every_offset_spells_the_same_moment(moment: Moment, offset: timedelta) -> None:
    minutes = timedelta(minutes=offset // timedelta(minutes=1))
    assume(2 <= moment.utc.year <= 9998)
    written = moment.utc.astimezone(timezone(minutes)).isoformat()
    assert Moment.parse(written, now=LAST) == moment
    assert Moment.of(moment.utc.astimezone(timezone(minutes))) == moment


@given(
    st.integers(631152000, 2114380800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    st.sampled_from(
        [CITY, "America/New_York", "Europe/Dublin", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Cairo"]
    ),
)
def test_a_local_time_is_read_as_exactly_one_instant_or_refused(instant: datetime, name: str) -> None:
    wall = instant.astimezone(zone(name)).replace(tzinfo=None, fold=0)
    readings = {wall.replace(tzinfo=zone(name), fold=fold).astimezone(UTC) for fold in (0, 1)}
    answer = attempt(f"{wall.isoformat(sep=' ')} {name}")
    if isinstance(answer, Moment):
        assert readings == {answer.utc} == {instant}
    else:
        assert len(readings) == 2
        assert all(Moment.of(reading).iso() in answer.next_step for reading in readings)


def test_both_names_the_local_and_the_utc_reading() -> None:
    moment = Moment.parse("2025-12-03T14:30:00.123999Z", now=NOW)
    assert moment.both(CITY) == "2025-12-03 08:30:00.123 CST (2025-12-03 14:30:00.123 UTC)"
    with pytest.raises(ValueError, match="nearest: America/Mexico_City"):
        moment.both("America/Mexico_Citi")


@given(moments, st.sampled_from(sorted(names())))
def test_both_has_an_answer_for_every_moment_and_zone(moment: Moment, name: str) -> None:
    assert moment.both(name).endswith(" UTC)")


def test_the_ends_of_the_calendar_have_no_local_reading_and_are_shown_in_utc() -> None:
    first, last = Moment.of(datetime.min.replace(tzinfo=UTC)), Moment.of(LAST)
    assert first.both(CITY) == "0001-01-01 00:00:00.000 UTC (0001-01-01 00:00:00.000 UTC)"
    assert last.both("Asia/Tokyo").startswith("9999-12-31 23:59:59.999 UTC")


def test_a_zone_file_of_the_machine_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "America").mkdir()
    outdated = resources.files("tzdata.zoneinfo").joinpath("Asia/Tokyo").read_bytes()
    (tmp_path / CITY).write_bytes(outdated)
    reset_tzpath([tmp_path])
    zone.cache_clear()
    try:
        assert ZoneInfo.no_cache(CITY).utcoffset(NOW.replace(tzinfo=None)) == timedelta(hours=9)
        assert read(f"2025-12-03 08:30 {CITY}") == "2025-12-03T14:30:00.000000Z"
    finally:
        reset_tzpath()


def test_of_takes_any_zone_and_refuses_a_naive_datetime() -> None:
    local = datetime(2025, 12, 3, 8, 30, tzinfo=ZoneInfo(CITY))
    assert Moment.of(local).iso() == "2025-12-03T14:30:00.000000Z"
    assert Moment.of(local).utc.tzinfo is UTC
    with pytest.raises(ValueError, match="without a zone"):
        Moment.of(datetime(2025, 12, 3))  # noqa: DTZ001
    with pytest.raises(ValueError, match="UTC"):
        Moment(local)


class Record(BaseModel):
    at: Moment


def test_a_field_reads_and_writes_iso() -> None:
    record = Record(at=Moment.parse("2025-12-03T14:30:00.123456789Z", now=NOW))
    assert record.model_dump_json() == '{"at":"2025-12-03T14:30:00.123456Z"}'
    assert record.model_dump() == {"at": "2025-12-03T14:30:00.123456Z"}
    assert Record.model_validate_json(record.model_dump_json()) == record
    assert Record.model_validate(record.model_dump()) == record
    assert Record.model_json_schema()["properties"]["at"]["type"] == "string"


def test_a_field_may_lie_ahead_but_still_needs_a_zone() -> None:
    assert Record.model_validate_json('{"at":"2999-01-01T00:00:00Z"}').at.iso() == "2999-01-01T00:00:00.000000Z"
    with pytest.raises(ValidationError, match="has no zone"):
        Record.model_validate_json('{"at":"2025-12-03T14:30:00"}')
    with pytest.raises(ValidationError):
        Record.model_validate({"at": datetime(2025, 12, 3)})  # noqa: DTZ001


def test_a_moment_is_frozen_and_usable_as_a_key() -> None:
    moment = Moment.of(NOW)
    with pytest.raises(AttributeError):
        moment.utc = NOW  # type: ignore[misc]
    assert {moment: 1}[Moment.of(NOW.astimezone(ZoneInfo(CITY)))] == 1
    assert f"{moment}" == moment.iso()
