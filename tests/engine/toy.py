"""A small runbook over a folder of files: enough world to kill a run in and see what it left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runbooks.engine.plan import Ending, Plan, Preview, Verdict
from runbooks.engine.runner import Engine
from runbooks.engine.runs import Runs
from runbooks.engine.step import Effect, Run, Runbook, Running, Step
from runbooks.model.record import Record


@dataclass(frozen=True)
class Shelf:
    """The world: a folder. Every write appends to `log`, so a thing done twice shows."""

    folder: Path

    def put(self, name: str) -> None:
        with (self.folder / "log").open("a") as log:
            log.write(f"{name}\n")
        (self.folder / name).write_text(name)

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def log(self) -> list[str]:
        return (self.folder / "log").read_text().split() if self.has("log") else []


class Request(Record):
    name: str


class Survey(Record):
    there: tuple[str, ...]


class ToyPlan(Plan):
    name: str
    there: tuple[str, ...]

    def confirmation(self) -> str | None:
        return f"shelf/{self.name}"

    def preview(self) -> Preview:
        return Preview(title="toy", target=self.name, facts=(), tables=(), warnings=(), undo="remove it")


class Done(Record):
    name: str


def survey(run: Run[Shelf], request: Request) -> Survey:
    return Survey(there=tuple(sorted(p.name for p in run.world.folder.iterdir())))


def plan(request: Request, survey: Survey) -> ToyPlan:
    return ToyPlan(name=request.name, there=survey.there)


def _put(suffix: str) -> Any:
    def run(running: Running[Shelf, ToyPlan]) -> Done:
        running.note({"about": suffix})
        running.world.put(running.plan.name + suffix)
        return Done(name=running.plan.name + suffix)

    return run


def _is_put(suffix: str) -> Any:
    def done(running: Running[Shelf, ToyPlan]) -> Done | None:
        name = running.plan.name + suffix
        return Done(name=name) if running.world.has(name) else None

    return done


def step(name: str, suffix: str, *, repeatable: bool = True) -> Step[Shelf, ToyPlan, Done]:
    return Step(
        name=name, effect=Effect.CREATES, why="to test", by_hand="put it there", deadline=timedelta(minutes=1),
        result=Done, run=_put(suffix), done=_is_put(suffix), repeatable=repeatable,
    )  # fmt: skip


FIRST = step("first", ".1", repeatable=False)
SECOND = step("second", ".2")
THIRD = step("third", ".3")


def ending(plan: ToyPlan, results: Mapping[str, Record]) -> Ending:
    return Ending(verdict=Verdict.PROVED, summary=" ".join(sorted(results)))


@contextmanager
def guard(run: Run[Shelf], plan: ToyPlan) -> Iterator[None]:
    yield


TOY: Runbook[Shelf, Request, Survey, ToyPlan] = Runbook(
    name="toy.put", symptom="s", may_be_lost="m", takes="t", request=Request, survey_type=Survey, plan_type=ToyPlan,
    survey=survey, plan=plan, steps=(FIRST, SECOND, THIRD), ending=ending, guard=guard,
)  # fmt: skip


class Silent:
    """A voice that remembers what was shown."""

    def __init__(self) -> None:
        self.previews: list[str] = []

    def say(self, text: str) -> None: ...
    def opened(self, runbook: str, run_id: object, folder: Path) -> None: ...
    def preview(self, preview: Preview, digest: str, page: Path | None) -> None:
        self.previews.append(digest)

    def step_started(self, number: int, of: int, step: object) -> None: ...
    def step_ended(self, number: int, of: int, step: object, seconds: float, remark: str) -> None: ...


def engine(root: Path, voice: Silent | None = None) -> Engine:
    return Engine(
        runs=Runs(root), voice=voice or Silent(), now=lambda: datetime.now(UTC), environment="toy", operator="tester"
    )
