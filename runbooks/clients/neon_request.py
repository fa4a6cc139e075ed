"""A request to the Neon API, what may come of it, and how long to wait for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from runbooks.clients.neon_types import JsonObject
from runbooks.model.errors import NeonFault
from runbooks.model.moment import Moment

Clock = Callable[[], Moment]
Sleep = Callable[[float], None]
Progress = Callable[[str], None]

NOTHING_CHANGED = "nothing was changed"
AGAIN = "run the same command again: it looks at what exists before it makes anything"
GONE = frozenset({404})
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    what: str
    """In the words of an error: 'making branch x'."""
    safe: str
    body: JsonObject | None = None
    query: JsonObject | None = None
    accept: frozenset[int] = frozenset()
    """Statuses beside 2xx that the caller wants to see instead of an error."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: JsonObject = field(repr=False)  # may hold passwords
    request_id: str | None = None


@dataclass(frozen=True)
class Busy:
    """The request was not executed; the same one may be sent again after `at_least`."""

    why: str
    at_least: timedelta = timedelta(0)


@dataclass(frozen=True)
class Lost:
    """No usable answer came. The request may have had its effect, or not, or may still have it."""

    why: str
    at_least: timedelta = timedelta(0)


class Waiting:
    """Growing, jittered pauses until a deadline. What is waited for, and until when, is told before each pause."""

    def __init__(
        self, *, clock: Clock, sleep: Sleep, progress: Progress, limit: timedelta, what: str, safe: str
    ) -> None:
        self._clock, self._sleep, self._progress = clock, sleep, progress
        self._began = clock().utc
        self._deadline = self._began + limit
        self._what, self._safe = what, safe
        self._next = FIRST_PAUSE

    def pause(self, why: str, at_least: timedelta = timedelta(0)) -> None:
        """Sleep once. Raises NeonFault if the deadline has passed, or passes before Neon wants to be asked again."""
        now = self._clock().utc
        left = self._deadline - now
        waited = f"{(now - self._began).total_seconds():.0f} s"
        if left <= timedelta(0) or at_least > left:
            wish = f", which asks for {at_least.total_seconds():.0f} s more" if at_least else ""
            raise NeonFault(
                f"{self._what}: gave up after {waited}, still waiting for Neon: {why}{wish}",
                safe=self._safe,
                next_step=AGAIN,
            )
        self._progress(f"waiting for Neon: {why} ({waited}, until {self._deadline:%H:%M:%S}Z)")
        own = self._next * random.uniform(0.5, 1.0)
        self._next = min(self._next * 2, LONGEST_PAUSE)
        self._sleep(min(max(own, at_least.total_seconds()), left.total_seconds()))
