"""A length of time in the policy file: "30m", "1h30m", "7d". A bare number is refused, because it has no unit."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

_FORM = re.compile(
    r"(?:(\d{1,5})d)?(?:(\d{1,7})h)?(?:(\d{1,9})m)?(?:(\d{1,9})(?:\.(\d{1,3}))?s)?",
    re.ASCII,
)


def parse(text: str) -> timedelta:
    """From days, hours, minutes and seconds in that order, each a number with its letter: whole, but for thousandths
    of a second. ValueError if it is anything else."""
    found = _FORM.fullmatch(text)
    if not text or found is None:
        raise ValueError('is not a duration such as "30m", "1h30m" or "7d" (d, h, m, s; m is minutes)')
    days, hours, minutes, seconds = (int(count or 0) for count in found.groups()[:4])
    thousandths = int((found[5] or "").ljust(3, "0"))
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=thousandths)


def spell(length: timedelta) -> str:
    """The form that `parse` reads; "0s" for none. Not negative.

    Below a second the thousandths are shown, rounded up, so that a measured time never looks better than it was.
    """
    if length < timedelta():
        raise ValueError("a duration is not negative")
    thousandths = -(-length // timedelta(milliseconds=1))
    minutes, thousandths = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    seconds = f"{thousandths // 1000}.{thousandths % 1000:03}".rstrip("0").removesuffix(".")
    parts = [f"{days}d" if days else "", f"{hours}h" if hours else "", f"{minutes}m" if minutes else ""]
    return "".join([*parts, f"{seconds}s" if thousandths else ""]) or "0s"


def _from_toml(value: Any) -> Any:
    if isinstance(value, str):
        return parse(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f'is a number without a unit; write "{value}s", "{value}m", "{value}h" or "{value}d"')
    return value


Duration = Annotated[timedelta, BeforeValidator(_from_toml), PlainSerializer(spell, return_type=str)]
"""A pydantic field: read from the text form or a timedelta, written as text."""


def between(least: str, most: str, why: str) -> AfterValidator:
    """For a Duration field: refuses what is shorter than `least` or longer than `most`; `why` explains the bounds."""
    low, high = parse(least), parse(most)

    def check(length: timedelta) -> timedelta:
        if not low <= length <= high:
            shown = f"-{spell(-length)}" if length < timedelta() else spell(length)
            raise ValueError(f"is {shown}, and has to lie between {least} and {most}: {why}")
        return length

    return AfterValidator(check)
