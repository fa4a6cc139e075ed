"""What the strategy promises for a disaster, what a recovery took, and whether that kept the promise."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict

from runbooks.model.duration import Duration, between, spell
from runbooks.model.section import Section

_PROMISE = between("1s", "30d", "a promise of no time at all, or of months, is a slip of the pen")
_MEASURED = between("0s", "36500d", "a measured time is not negative")


class Objective(Section):
    """The most that a disaster of one kind may cost. Keeping it exactly is keeping it."""

    rto: Annotated[Duration, _PROMISE]
    """Time from the start of the recovery to proved data."""
    rpo: Annotated[Duration, _PROMISE]
    """Committed work that may be lost, as time before the disaster."""


class Measured(BaseModel):
    """What one recovery really cost, in the terms of an Objective."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rto: Annotated[Duration, _MEASURED]
    rpo: Annotated[Duration, _MEASURED] | None
    """None: it could not be measured. That is never a pass."""


class Mark(StrEnum):
    PASSED = "passed"
    MISSED = "missed"
    COULD_NOT_VERIFY = "could not verify"


class Verdict(BaseModel):
    """The judgement, number by number. `str()` is one line for a person."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rto: Mark
    rpo: Mark
    text: str

    @property
    def overall(self) -> Mark:
        """The worse of the two: a miss is certain, what could not be verified is not a pass."""
        return max(self.rto, self.rpo, key=[Mark.PASSED, Mark.COULD_NOT_VERIFY, Mark.MISSED].index)

    @property
    def passed(self) -> bool:
        return self.overall is Mark.PASSED

    def __str__(self) -> str:
        return self.text


def judge(objective: Objective, measured: Measured) -> Verdict:
    """Whether `measured` keeps `objective`. Pure."""
    rto, rto_text = _number("recovered in", measured.rto, objective.rto)
    rpo, rpo_text = _number("lost", measured.rpo, objective.rpo)
    return Verdict(rto=rto, rpo=rpo, text=f"{rto_text}; {rpo_text}")


def _number(what: str, taken: timedelta | None, allowed: timedelta) -> tuple[Mark, str]:
    promise = f"at most {spell(allowed)} promised"
    if taken is None:
        mark = Mark.COULD_NOT_VERIFY
        return mark, f"{what} an unknown length of time, {promise}: {mark}"
    mark = Mark.PASSED if taken <= allowed else Mark.MISSED
    return mark, f"{what} {spell(taken)}, {promise}: {mark}"
