"""When did it stop being true? Which moments to ask about, and what their answers amount to. Pure; moments are whole
milliseconds.

Both ends come first, then samples spread evenly over the whole range: each change between two of them is seen, also
when it changed more than once, and the search goes on between the last sample where it held and the next one. What was
asked about a moment is also known back to the last commit before it, so a search may take fewer questions than
promised; never more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from runbooks.model.record import Record

SAMPLES = 4


class Why(StrEnum):
    """What a question is for."""

    END = "one end of the range"
    SAMPLE = "a sample between them"
    HALF = "half-way"
    BEFORE = "just before the commit that is suspected"


class Answer(Record):
    """Whether it held at a moment."""

    at: int
    why: Why
    holds: bool
    unchanged_since: int
    """Nothing was committed after this moment, up to `at`; `at` itself where that is not known."""


class Question(NamedTuple):
    at: int
    why: Why


class Change(NamedTuple):
    """Between two moments it changed, with no question between them: an odd number of times."""

    before: int
    after: int
    """No earlier than the first commit that can have done it."""
    holds: bool
    """Whether it holds after."""


@dataclass(frozen=True)
class Span:
    """The moments to search: it should hold at `since` and not at `until`, the later one."""

    since: int
    until: int
    step: int
    """How far apart the last good and the first bad moment may be in the end."""

    @property
    def samples(self) -> tuple[int, ...]:
        """At least a step apart from each other and from the ends; none in a short range."""
        length = self.until - self.since
        count = min(SAMPLES, max(length // self.step - 1, 0))
        return tuple(self.since + length * number // (count + 1) for number in range(1, count + 1))

    @property
    def most(self) -> int:
        """The promise: no search asks more questions than these."""
        widest = max(after - before for before, after in pairwise((self.since, *self.samples, self.until)))
        halvings = (-(-widest // self.step) - 1).bit_length()
        return 2 + len(self.samples) + halvings + (1 if self.step > 1 else 0)


def next_question(span: Span, answers: Sequence[Answer]) -> Question | None:
    """What to ask after these answers; None when all is known, or when the ends are not as they should be.

    It depends on the answers alone, so that a search that was cut off goes on as if it had not been.
    """
    known = {answer.at: answer.holds for answer in answers}
    if span.since not in known:
        return Question(span.since, Why.END)
    if not known[span.since]:
        return None
    if span.until not in known:
        return Question(span.until, Why.END)
    if known[span.until]:
        return None
    open_samples = (Question(at, Why.SAMPLE) for at in span.samples if at not in known)
    return next(open_samples, None) or _between(span, answers)


def _between(span: Span, answers: Sequence[Answer]) -> Question | None:
    good, bad = bracket(answers)
    if bad - good > span.step:
        return Question((good + bad) // 2, Why.HALF)
    # `bad` is most often where a commit became visible: if it held until then, that commit is the one. Asked once,
    # as in a busy database there may be many commits.
    if bad - good > 1 and not any(answer.why is Why.BEFORE for answer in answers):
        return Question(bad - 1, Why.BEFORE)
    return None


def bracket(answers: Sequence[Answer]) -> tuple[int, int]:
    """The last moment at which it is known to have held, and the first one after it at which it is known not to.

    IndexError unless it held somewhere and not at a later moment.
    """
    last = [change for change in changes(answers) if not change.holds][-1]
    return last.before, last.after


def changes(answers: Sequence[Answer]) -> tuple[Change, ...]:
    """Every change that the answers show, oldest first. More than one: the loss is not one event."""
    return tuple(
        Change(one.at, max(two.unchanged_since, one.at + 1), two.holds) for one, two in _neighbours_that_differ(answers)
    )


def unsteady(answers: Sequence[Answer]) -> tuple[Change, ...]:
    """Changes without any commit that could have made them: the question depends on something else than the data."""
    return tuple(
        Change(one.at, two.at, two.holds)
        for one, two in _neighbours_that_differ(answers)
        if two.unchanged_since <= one.at
    )


def _neighbours_that_differ(answers: Sequence[Answer]) -> Iterator[tuple[Answer, Answer]]:
    ordered = sorted(answers, key=lambda answer: answer.at)
    return ((one, two) for one, two in pairwise(ordered) if one.holds != two.holds)
