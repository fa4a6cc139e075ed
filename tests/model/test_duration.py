"""Lengths of time have units, and are never shown shorter than they were."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.model.duration import parse, spell

lengths = st.timedeltas(min_value=timedelta(), max_value=timedelta(days=99_999))


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("30m", timedelta(minutes=30)),
        ("1h30m", timedelta(minutes=90)),
        ("90m", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
        ("5s", timedelta(seconds=5)),
        ("1d2h3m4.005s", timedelta(days=1, hours=2, minutes=3, seconds=4, milliseconds=5)),
        ("0s", timedelta()),
    ],
)
def test_a_duration_is_numbers_with_units(text: str, length: timedelta) -> None:
    assert parse(text) == length


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5",
        "5 m",
        "m",
        "-5m",
        "+5m",
        "5M",
        "5min",
        "30m1h",
        "1h1h",
        "1.5h",
        "5ms",
        "1w",
        "5m\n",
        "٥m",
        "9" * 30 + "d",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse(text)


@given(lengths)
def test_what_is_spelled_reads_back_less_than_a_millisecond_longer_and_never_shorter(length: timedelta) -> None:
    assert length <= parse(spell(length)) < length + timedelta(milliseconds=1)


@given(st.integers(0, 10**12))
def test_whole_milliseconds_are_spelled_exactly(count: int) -> None:
    assert parse(spell(timedelta(milliseconds=count))) == timedelta(milliseconds=count)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(minutes=90), "1h30m"),
        (timedelta(days=1), "1d"),
        (timedelta(), "0s"),
        (timedelta(seconds=12, microseconds=415_001), "12.416s"),
        (timedelta(minutes=30, microseconds=1), "30m0.001s"),
        (timedelta(minutes=59, seconds=59, microseconds=999_999), "1h"),
        (timedelta(milliseconds=100), "0.1s"),
        (timedelta(seconds=10), "10s"),
    ],
)
def test_durations_are_spelled_shortly(length: timedelta, text: str) -> None:
    assert spell(length) == text


def test_a_negative_duration_is_not_spelled() -> None:
    with pytest.raises(ValueError, match="not negative"):
        spell(timedelta(microseconds=-1))
