"""When a backup is due: the part of cron's five fields that cron, systemd and GitHub all read alike. Always UTC."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runbooks.model.moment import Moment

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_PART = re.compile(r"(?:(\*)|(\w{1,3})(?:-(\w{1,3}))?)(?:/(\d{1,2}))?", re.ASCII)
_EIGHT_YEARS = 8 * 366  # 29 February can be that far away, around a year like 2100


@dataclass(frozen=True)
class Cron:
    """Moments at which something is due. Each field holds every value that fits, in order."""

    minute: int
    hours: tuple[int, ...]
    days: tuple[int, ...]
    """Of the month."""
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    """0 is Sunday."""

    @classmethod
    def parse(cls, text: str) -> Cron:
        """From `minute hour day month weekday`, with lists, ranges, steps and English names. ValueError says why not.

        Refused because not everybody reads it alike: `@daily`, `L`, `?`, a day of the month together with a weekday
        (cron fires on either, systemd on both). Refused because it is no backup plan: several minutes in an hour.
        """
        fields = text.split(" ")
        if len(fields) != 5:
            raise ValueError('is not the five fields of cron with single spaces between them, such as "0 2 * * *"')
        minutes = _values("minute", fields[0], range(60))
        if len(minutes) != 1:
            raise ValueError("asks for more than one backup in an hour: the first field has to be one minute")
        weekdays = {day % 7 for day in _values("weekday", fields[4], range(8), _DAYS)}
        cron = cls(
            minutes[0],
            _values("hour", fields[1], range(24)),
            _values("day", fields[2], range(1, 32)),
            _values("month", fields[3], range(1, 13), _MONTHS),
            tuple(sorted(weekdays)),
        )
        cron._check()
        return cron

    def _check(self) -> None:
        if len(self.days) < 31 and len(self.weekdays) < 7:
            raise ValueError(
                "gives a day of the month and a weekday; cron fires on either, systemd on both: give only one"
            )
        longest = max(29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31 for month in self.months)
        if self.days[0] > longest:
            raise ValueError("names a day that never comes")

    def latest(self, at: Moment) -> Moment | None:
        """The last due moment that is not after `at`; None if there was none in the eight years before."""
        for due in self._backwards(at.utc):
            if due <= at.utc:
                return Moment(due)
        return None

    def _backwards(self, start: datetime) -> Iterator[datetime]:
        for back in range(_EIGHT_YEARS):
            day = (start - timedelta(days=back)).date()
            if day.month in self.months and day.day in self.days and day.isoweekday() % 7 in self.weekdays:
                for hour in reversed(self.hours):
                    yield datetime(day.year, day.month, day.day, hour, self.minute, tzinfo=UTC)

    def systemd(self) -> str:
        """For `OnCalendar=`, with the zone: `Sun *-*-* 02:00:00 UTC`."""
        weekdays = "" if len(self.weekdays) == 7 else ",".join(_DAYS[day].capitalize() for day in self.weekdays) + " "
        month, day = (_list(values, full, 2) for values, full in ((self.months, 12), (self.days, 31)))
        return f"{weekdays}*-{month}-{day} {_list(self.hours, 24, 2)}:{self.minute:02}:00 UTC"

    def aws(self) -> str:
        """For EventBridge: six fields, Sunday is 1, and of day and weekday one is `?`. Says nothing of the zone."""
        any_weekday = len(self.weekdays) == 7
        days = _list(self.days, 31, 1) if any_weekday else "?"
        weekdays = "?" if any_weekday else ",".join(str(day + 1) for day in self.weekdays)
        hours, months = _list(self.hours, 24, 1), _list(self.months, 12, 1)
        return f"cron({self.minute} {hours} {days} {months} {weekdays} *)"

    def __str__(self) -> str:
        """The five fields in their plainest spelling: numbers, lists and stars only."""
        lists = ((self.hours, 24), (self.days, 31), (self.months, 12), (self.weekdays, 7))
        return " ".join([str(self.minute), *(_list(values, full, 1) for values, full in lists)])


def _list(values: tuple[int, ...], full: int, width: int) -> str:
    return "*" if len(values) == full else ",".join(f"{value:0{width}}" for value in values)


def _values(name: str, field: str, allowed: range, words: tuple[str, ...] = ()) -> tuple[int, ...]:
    found: set[int] = set()
    for part in field.split(","):
        read = _PART.fullmatch(part)
        if read is None:
            raise ValueError(f"has a {name} that is not a number, list, range or step")
        star, first, last, step = read.groups()
        if step is not None and (int(step) == 0 or not (star or last)):
            raise ValueError(f"has a {name} with a step that counts over nothing")
        low = allowed[0] if star else _number(name, first, allowed, words)
        high = allowed[-1] if star else _number(name, last or first, allowed, words)
        if low > high:
            raise ValueError(f"has a {name} whose range runs backwards")
        found.update(range(low, high + 1, int(step or 1)))
    return tuple(sorted(found))


def _number(name: str, text: str, allowed: range, words: tuple[str, ...]) -> int:
    if text.lower() in words:
        return words.index(text.lower()) + allowed[0]
    if not text.isdecimal() or int(text) not in allowed:
        raise ValueError(f"has a {name} that is not between {allowed[0]} and {allowed[-1]}")
    return int(text)
