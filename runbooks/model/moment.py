"""A moment: one instant, known to the microsecond, whose zone is never guessed.

Everything Neon answers about history is "the last commit at or before T", so T is only ever cut, never rounded forward:
a moment a fraction later than the asked one could be after the accident.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from runbooks.model.errors import UsageFault
from runbooks.model.zones import zone

_FORM = re.compile(
    r"""(?P<date>\d{4}-\d\d-\d\d) (?:[Tt]|[ ]+)
        (?P<minute>\d\d:\d\d) (?: :(?P<second>\d\d) (?: [.,](?P<fraction>\d{1,9}) )? )?
        [ ]* (?P<zone> [Zz] | [+-]\d\d(?: :?\d\d)? | [A-Za-z][A-Za-z0-9_+/-]* )?""",
    re.ASCII | re.VERBOSE,
)
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)?", re.ASCII)
_TWO_FORMS = "write it as 2025-12-03T14:30:00Z (or with an offset), or as '2025-12-03 14:30:00 America/Mexico_City'"


@dataclass(frozen=True, order=True, slots=True)
class Moment:
    """One instant. Ordered, hashable, immutable; as a pydantic field it reads and writes the text of `iso()`."""

    utc: datetime
    """Aware, in UTC, to the microsecond."""

    def __post_init__(self) -> None:
        if self.utc.tzinfo is not UTC:
            raise ValueError("a Moment holds a datetime in UTC; use Moment.of for any other zone")

    @classmethod
    def parse(cls, text: str, *, now: datetime) -> Moment:
        """The moment a person wrote: RFC 3339, or `2025-12-03 14:30[:05[.123]] America/Mexico_City`.

        Digits below the microsecond are cut off. Raises UsageFault for a text without a zone, for a moment later than
        `now` (aware), and for a local hour that the clocks showed twice or skipped. ValueError if `now` is naive.
        """
        latest = cls.of(now)
        moment = cls(_read(text))
        if moment > latest:
            raise _refusal(
                f"{_shown(text)} is in the future: it is {moment}, and the clock here says {latest}",
                "check the date and the zone; give a moment that has already passed",
            )
        return moment

    @classmethod
    def of(cls, value: datetime) -> Moment:
        """The same instant as `value`. ValueError if `value` is naive."""
        if value.utcoffset() is None:
            raise ValueError("a datetime without a zone is not a moment")
        return cls(value.astimezone(UTC))

    def iso(self) -> str:
        """`2025-12-03T14:30:00.123456Z`, always with microseconds; sorts as text as it does in time."""
        return self.utc.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"

    def neon(self) -> str:
        """`2025-12-03T14:30:00.123Z`: what the Neon API takes. Milliseconds, cut off: never after the moment."""
        return self.utc.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"

    def both(self, zone_name: str) -> str:
        """`2025-12-03 08:30:00.123 CST (2025-12-03 14:30:00.123 UTC)`; milliseconds, cut off.

        ValueError if the zone is not IANA's.
        """
        try:
            local = self.utc.astimezone(zone(zone_name))
        except OverflowError:  # the first or last hours of the calendar have no local reading
            local = self.utc
        return f"{_clock(local)} ({_clock(self.utc)})"

    def __str__(self) -> str:
        return self.iso()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from_text = core_schema.no_info_after_validator_function(_stored, core_schema.str_schema())
        return core_schema.json_or_python_schema(
            json_schema=from_text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), from_text]),
            serialization=core_schema.plain_serializer_function_ser_schema(cls.iso),
        )


def _stored(text: str) -> Moment:
    """A moment from a journal or an API: the same forms, but it may lie ahead (an expiry)."""
    try:
        return Moment(_read(text))
    except UsageFault as fault:
        raise ValueError(fault.happened) from None


def _read(text: str) -> datetime:
    """The instant in UTC, however it is spelled; UsageFault if it is not exactly one instant."""
    found = _FORM.fullmatch(text.strip(" "))
    if found is None:
        raise _refusal(f"{_shown(text)} is not a date and time this program reads", _TWO_FORMS)
    if found["second"] == "60":
        raise _refusal(
            f"{_shown(text)} is a leap second, which PostgreSQL and Neon do not have",
            "give second 59, or second 00 of the next minute",
        )
    wall = _wall_clock(text, found)
    if found["zone"] is None:
        example = wall.isoformat(sep=" ")
        raise _refusal(
            f"{_shown(text)} has no zone, so it is a different moment in every office",
            f"if it is UTC write {wall.isoformat()}Z, if it is local time write '{example} America/Mexico_City' "
            "(with your own IANA zone)",
        )
    try:
        return _instant(text, wall, found["zone"])
    except OverflowError:
        raise _refusal(f"{_shown(text)} lies outside the years 1 to 9999 in UTC", _TWO_FORMS) from None


def _wall_clock(text: str, found: re.Match[str]) -> datetime:
    """What the clock on the wall showed: the date and time as written, zone still open."""
    year, month, day = map(int, found["date"].split("-"))
    hour, minute = map(int, found["minute"].split(":"))
    second, micros = int(found["second"] or 0), int((found["fraction"] or "")[:6].ljust(6, "0"))
    try:
        return datetime(year, month, day, hour, minute, second, micros)  # noqa: DTZ001 - the zone comes next
    except ValueError as problem:
        raise _refusal(f"{_shown(text)} is not on the calendar ({problem})", _TWO_FORMS) from None


def _instant(text: str, wall: datetime, zone_text: str) -> datetime:
    if zone_text in ("Z", "z"):
        return wall.replace(tzinfo=UTC)
    offset = _OFFSET.fullmatch(zone_text)
    if offset is None:
        return _local_instant(text, wall, zone_text)
    sign, hours, minutes = offset.groups(default="0")
    if int(hours) > 23 or int(minutes) > 59:
        raise _refusal(f"{_shown(text)} has an offset that no clock shows", _TWO_FORMS)
    ahead = timedelta(hours=int(hours), minutes=int(minutes))
    return wall.replace(tzinfo=timezone(-ahead if sign == "-" else ahead)).astimezone(UTC)


def _local_instant(text: str, wall: datetime, zone_name: str) -> datetime:
    try:
        local = zone(zone_name)
    except ValueError as problem:
        raise _refusal(f"the time {_shown(text)} cannot be placed: {problem}", _TWO_FORMS) from None
    # PEP 495: fold picks the offset in force before (0) or after (1) a change of the clocks around this hour.
    readings = [wall.replace(tzinfo=local, fold=fold).astimezone(UTC) for fold in (0, 1)]
    if readings[0] == readings[1]:
        return readings[0]
    exists = readings[0].astimezone(local).replace(tzinfo=None) == wall
    why = (
        "happened twice there, as the clocks went back: it is both"
        if exists
        else "was skipped there, as the clocks went forward; around it there are"
    )
    first, second = (Moment(reading) for reading in sorted(readings))
    raise _refusal(
        f"the hour in {_shown(text)} {why} {first.both(zone_name)} and {second.both(zone_name)}",
        f"say which one is meant: {first.iso()} or {second.iso()}",
    )


def _clock(value: datetime) -> str:
    return f"{value.replace(tzinfo=None).isoformat(sep=' ', timespec='milliseconds')} {value.tzname()}"


def _shown(text: str) -> str:
    """The text as typed, safe to print: quoted, escaped, and not longer than a line."""
    return repr(text if len(text) <= 60 else text[:60] + "...")


def _refusal(happened: str, next_step: str) -> UsageFault:
    return UsageFault(happened, safe="nothing was started", next_step=next_step)
