"""Plan, preview and ending: what will be done, how a person reads it, and what it came to."""

from __future__ import annotations

from enum import StrEnum

from runbooks.model.moment import Moment
from runbooks.model.record import Record, digest


class Verdict(StrEnum):
    """How a run ended. Only PROVED, and NOTHING_MISSING where nothing was to do, are no failure."""

    PROVED = "proved"
    NOTHING_MISSING = "nothing missing"
    """Nothing had to be done, so nothing was done; said apart, because whoever misses something has asked wrongly."""
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    COULD_NOT_VERIFY = "could not verify"
    OBJECTIVE_MISSED = "objective missed"
    """All rows are proved, but later or with more loss than the policy promises."""


class Table(Record):
    """A small table for people: a title, column heads, rows of text."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def is_sample(self) -> bool:
        """One column: rows of the database, each as one text."""
        return len(self.head) == 1

    def is_numeric(self, column: int) -> bool:
        """Whether every cell of a column begins with a digit, so that it is read from the right."""
        return not self.is_sample and all(row[column][:1].isdigit() for row in self.rows)


class Preview(Record):
    """What a person reads before consenting."""

    title: str
    target: str
    """The one thing that will be changed, named so that it cannot be mistaken."""
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    warnings: tuple[str, ...]
    undo: str
    good_until: Moment | None = None
    """When it can no longer be carried out, as something that it reads will be gone; None if no such end is known."""


class Previewed(Record):
    """A preview and the plan that it is of: all that is told of it wherever else than at the terminal it is read."""

    run_id: str
    runbook: str
    environment: str
    operator: str
    planned: Moment
    digest: str
    preview: Preview


class Plan(Record):
    """What will be done, complete: the object that is printed is the object that is executed."""

    @property
    def digest(self) -> str:
        return digest(self.as_json())

    def confirmation(self) -> str | None:
        """What consent has to repeat, specific to the target; None if nothing but the run's own things is touched."""
        raise NotImplementedError

    def preview(self) -> Preview:
        raise NotImplementedError


class Ending(Record):
    """What a run came to, and the numbers a person asks for first."""

    verdict: Verdict
    summary: str
    facts: tuple[tuple[str, str], ...] = ()
    left_open: tuple[str, ...] = ()
    """Everything that was not done or not proved, a sentence each. Empty only for PROVED."""
