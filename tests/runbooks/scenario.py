"""A scenario: an incident that a runbook cures, and what has to be true at the end, however often it was killed."""

from __future__ import annotations

from abc import ABC, abstractmethod

from runbooks.engine.consent import Consenting
from runbooks.engine.step import AnyRunbook, Ended
from runbooks.model.record import Record
from tests.runbooks.ground import Facts

YES = Consenting("tester", ask=lambda wanted: wanted)


class Scenario(ABC):
    """An incident on the shared stack. `prepare` makes a new one; its request is all that a process needs for it."""

    runbook: AnyRunbook
    asks = True
    """Whether it asks for consent."""
    kills = ("journal", "change", "statement")
    """Where it touches the world, and so is killed: see tests/runbooks/killed.py."""
    every = 1
    """Of so many lines of its journal it is killed at one."""

    @property
    def name(self) -> str:
        """By which another process finds it."""
        return str(self.runbook.name)

    @abstractmethod
    def prepare(self, facts: Facts) -> Record: ...

    @abstractmethod
    def check(self, facts: Facts, ended: Ended) -> None:
        """Assert the one right end state."""
