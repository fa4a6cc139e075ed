"""What a runbook is made of: steps with an effect, a reason and a way out, and the runbook that orders them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from runbooks.engine.consent import Consenting
from runbooks.engine.plan import Ending, Plan
from runbooks.model.record import Record
from runbooks.model.run_id import RunId

W = TypeVar("W")
Q = TypeVar("Q", bound=Record)
S = TypeVar("S", bound=Record)
P = TypeVar("P", bound=Plan)
R = TypeVar("R", bound=Record)


class Effect(StrEnum):
    """What a step does to the world, the strongest word that applies."""

    READS = "READS"
    CREATES = "CREATES"
    REPLACES = "REPLACES"
    DESTROYS = "DESTROYS"


class Nested(Protocol):
    """Starts a whole runbook as part `number` of this run, or goes on with it if an earlier attempt started it."""

    def __call__(
        self, number: int, runbook: AnyRunbook, request: Record, world: Any, consenting: Consenting
    ) -> Ended: ...


@dataclass(frozen=True)
class Ended:
    """A run that came to its end."""

    run_id: RunId
    folder: Path
    ending: Ending
    results: Mapping[str, Record]
    last_hash: str
    """The hash of the journal's closing line: whoever keeps it can tell later if lines were cut off."""
    opened: datetime
    finished: datetime


@dataclass(frozen=True)
class Run(Generic[W]):
    """What every phase of a run is given: the world, the run's own names and places, and a voice."""

    world: W
    id: RunId
    folder: Path
    """The run's own folder (0700): undo file, reports."""
    tell: Callable[[str], None]
    """Say what the run waits for or how far it is; for the screen, never for the journal."""
    nested: Nested
    """Carries out another runbook as a part of this run."""


@dataclass(frozen=True)
class Running(Run[W], Generic[W, P]):
    """A run in execution: adds the consented plan and what earlier steps found out."""

    plan: P
    results: Mapping[str, Record]
    note: Callable[[dict[str, Any]], None]
    """Make a fact durable in the journal before acting on it, under the step that runs."""
    notes: tuple[dict[str, Any], ...]
    """What earlier attempts of this step noted, oldest first."""
    held: Any
    """What the runbook's guard holds during the execution: the locked session, say."""

    def result(self, step: Step[Any, Any, R]) -> R:
        """The result of an earlier step of this run. KeyError if it has none: the runbook's order is wrong."""
        found = self.results[step.name]
        assert isinstance(found, step.result)
        return found


def _never(_: Running[Any, Any]) -> None:
    return None


@dataclass(frozen=True)
class Step(Generic[W, P, R]):
    """One act of a runbook. It is journalled before and after it runs, and may be met again after a kill.

    On resume a finished step is looked for in the world (`done`) before it is skipped; only what a finished READS step
    found stands without a second look.
    """

    name: str
    effect: Effect
    why: str
    """Why it is here, and why at this place."""
    by_hand: str
    """What a person does if it cannot be carried out by this program."""
    deadline: timedelta
    result: type[R]
    run: Callable[[Running[W, P]], R]
    done: Callable[[Running[W, P]], R | None] = _never
    """Look at the world: if the step's effect is already there, its result; else None. Reads only."""
    repeatable: bool = True
    """False: if the journal says it was finished but `done` does not find it, stop instead of running it again."""


@dataclass(frozen=True)
class Runbook(Generic[W, Q, S, P]):
    """One recovery or routine: survey -> plan -> consent -> execute -> prove."""

    name: str
    """As typed after `invoke`, for example `recover.accidental-delete`."""
    symptom: str
    may_be_lost: str
    takes: str
    request: type[Q]
    survey_type: type[S]
    plan_type: type[P]
    survey: Callable[[Run[W], Q], S]
    plan: Callable[[Q, S], P]
    steps: tuple[Step[W, P, Any], ...]
    ending: Callable[[P, Mapping[str, Record]], Ending]
    """Pure: what the results amount to. The only place that may say PROVED."""
    guard: Callable[[Run[W], P], AbstractContextManager[Any]] = field(default=lambda run, plan: nullcontext())
    """Held around the whole execution, and what it gives is given to the steps: the session that holds the lock in the
    target, which keeps a second operator out."""
    page: str = ""
    """File name of its page below docs/runbooks/, without ending."""


AnyRunbook: TypeAlias = Runbook[Any, Any, Any, Any]
