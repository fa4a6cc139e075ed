"""Carries out a runbook, from the start or from wherever a journal ends. Every order of events in here is chosen for
the crash: a fact is made durable before anything is built on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from runbooks.engine.consent import Consenting, obtain
from runbooks.engine.deadline import deadline
from runbooks.engine.journal import Journal
from runbooks.engine.plan import Ending, Plan, Preview, Verdict
from runbooks.engine.preview_page import keep_page
from runbooks.engine.readback import not_ours, parsed, plan_in, previewed
from runbooks.engine.runs import Runs
from runbooks.engine.step import AnyRunbook, Effect, Ended, Run, Running, Step
from runbooks.model.errors import BloomError, JournalBroken, Refused
from runbooks.model.record import Record
from runbooks.model.run_id import RunId


class Voice(Protocol):
    """How a run speaks to whoever watches. `engine.console` is the one for terminals."""

    def say(self, text: str) -> None: ...
    def opened(self, runbook: str, run_id: RunId, folder: Path) -> None: ...
    def preview(self, preview: Preview, digest: str, page: Path | None) -> None: ...
    def step_started(self, number: int, of: int, step: Step[Any, Any, Any]) -> None: ...
    def step_ended(self, number: int, of: int, step: Step[Any, Any, Any], seconds: float, remark: str) -> None: ...


@dataclass(frozen=True)
class Engine:
    """What carrying out runs needs besides the runbook: where runs are kept, who speaks, what time it is."""

    runs: Runs
    voice: Voice
    now: Callable[[], datetime]
    environment: str
    operator: str
    zone: str = "UTC"
    """Where people are: times are told in it and in UTC."""

    def start(
        self,
        runbook: AnyRunbook,
        request: Record,
        world: Any,
        consenting: Consenting,
        run_id: RunId | None = None,
    ) -> Ended:
        """Begin a new run and carry it as far as consent allows. Raises BloomError; the journal holds what was done."""
        run_id = run_id or RunId.new(self.now())
        journal = self.runs.create(run_id, now=self.now)
        with _closing(journal):
            journal.append(
                "opened",
                {
                    "runbook": runbook.name,
                    "environment": self.environment,
                    "operator": self.operator,
                    "request": request.as_json(),
                },
            )
            return self._carry_on(runbook, world, run_id, journal, consenting)

    def resume(self, runbook: AnyRunbook, run_id: RunId, world: Any, consenting: Consenting) -> Ended:
        """Go on with a run from its journal. A finished run's ending is told again. Safe to repeat."""
        self.runs.reading(run_id)
        journal = Journal.resume(self.runs.folder(run_id), now=self.now)
        with _closing(journal):
            if ended := _Story(journal).ended(run_id, self.runs.folder(run_id), runbook):
                return ended
            journal.append("resumed", {"operator": self.operator})
            return self._carry_on(runbook, world, run_id, journal, consenting)

    def _carry_on(
        self, runbook: AnyRunbook, world: Any, run_id: RunId, journal: Journal, consenting: Consenting
    ) -> Ended:
        story = _Story(journal)
        folder = self.runs.folder(run_id)
        self.voice.opened(runbook.name, run_id, folder)
        run = Run(world, run_id, folder, self.voice.say, partial(self._nested, run_id))
        try:
            plan = self._plan(runbook, run, story)
            page = self._show(runbook, run, plan, story)
            self._consent(plan, run_id, story, consenting, page)
            results = self._execute(runbook, run, plan, story)
        except BaseException as error:
            _record_failure(journal, "failed", {}, error)
            raise
        ending = runbook.ending(plan, results)
        if ending.verdict in (Verdict.PROVED, Verdict.NOTHING_MISSING) and ending.left_open:
            raise AssertionError(f"{runbook.name} calls itself well ended and leaves open: {ending.left_open}")
        journal.append("finished", ending.as_json())
        ended = story.ended(run_id, folder, runbook)
        assert ended is not None
        return ended

    def _nested(
        self,
        outer: RunId,
        number: int,
        runbook: AnyRunbook,
        request: Record,
        world: Any,
        consenting: Consenting,
    ) -> Ended:
        run_id = outer.nested(number)
        if self.runs.exists(run_id) and self.runs.reading(run_id).entries:
            return self.resume(runbook, run_id, world, consenting)
        return self.start(runbook, request, world, consenting, run_id)

    def _plan(self, runbook: AnyRunbook, run: Run[Any], story: _Story) -> Plan:
        if (planned := plan_in(story.journal.entries, runbook, run.id)) is not None:
            return planned
        request = parsed(runbook.request, story.opened["request"], str(run.id))
        survey = runbook.survey(run, request)
        story.journal.append("surveyed", {"survey": survey.as_json()})
        plan: Plan = runbook.plan(request, survey)
        story.journal.append("planned", {"plan": plan.as_json(), "digest": plan.digest})
        return plan

    def _show(self, runbook: AnyRunbook, run: Run[Any], plan: Plan, story: _Story) -> Path | None:
        """The preview, as long as nothing is carried out. Where it asks for consent, the same as a page: its path."""
        if story.last("executing") is not None:
            return None
        shown = previewed(story.journal.entries, runbook, run.id)
        page = keep_page(shown, run.folder, self.zone) if plan.confirmation() is not None else None
        self.voice.preview(shown.preview, shown.digest, page)
        return page

    def _consent(self, plan: Plan, run_id: RunId, story: _Story, consenting: Consenting, page: Path | None) -> None:
        given = story.last("consented")
        if given is not None:
            if given["digest"] != plan.digest:
                raise not_ours(run_id, "consent was given to another plan")
            return
        if consent := obtain(consenting, plan, run_id, page):
            story.journal.append("consented", consent.as_json())

    def _execute(self, runbook: AnyRunbook, run: Run[Any], plan: Plan, story: _Story) -> Mapping[str, Record]:
        results: dict[str, Record] = {}
        with runbook.guard(run, plan) as held:
            if story.last("executed") is not None:  # only the closing line is missing; the guard lets go what it held
                return story.results(runbook)
            story.journal.append("executing", {"digest": plan.digest})
            for number, step in enumerate(runbook.steps, start=1):
                running = Running(
                    **vars(run),
                    plan=plan,
                    results=MappingProxyType(dict(results)),
                    note=partial(_note, story.journal, step.name),
                    notes=story.notes(step.name),
                    held=held,
                )
                results[step.name] = self._step(step, running, story, number, len(runbook.steps))
            story.journal.append("executed")
        return MappingProxyType(results)

    def _step(self, step: Step[Any, Any, Any], running: Running[Any, Any], story: _Story, number: int, of: int) -> Any:
        self.voice.step_started(number, of, step)
        started = time.monotonic()
        finished = story.finished(step)
        if finished is not None and step.effect is Effect.READS:
            # What was read is a fact; what it was read from may rightly be gone by now.
            self.voice.step_ended(number, of, step, 0.0, "stands, from an earlier attempt")
            return finished
        remark = ""
        try:
            with deadline(step.deadline, f"step {step.name!r}", step.by_hand):
                result = step.done(running) if story.was_started(step.name) else None
                if result is not None:
                    remark = "was already done"
                elif finished is not None and not step.repeatable:
                    raise _vanished(step, running.id)
                else:
                    story.journal.append("step-started", {"step": step.name})
                    result = step.run(running)
        except BaseException as error:
            _record_failure(story.journal, "step-failed", {"step": step.name}, error)
            raise
        seconds = round(time.monotonic() - started, 3)
        story.journal.append("step-done", {"step": step.name, "result": result.as_json(), "seconds": seconds})
        self.voice.step_ended(number, of, step, seconds, remark)
        return result


class _Story:
    """A journal read as the story of one run."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    @property
    def opened(self) -> dict[str, Any]:
        entries = self.journal.entries
        if not entries or entries[0].event != "opened":
            raise JournalBroken(
                f"the journal {self.journal.path} does not begin with the opening of a run",
                safe="nothing was started: the process died before the first line was durable",
                next_step="start the runbook again",
            )
        return entries[0].data

    def last(self, event: str) -> dict[str, Any] | None:
        return next((e.data for e in reversed(self.journal.entries) if e.event == event), None)

    def _of_step(self, event: str, name: str) -> list[dict[str, Any]]:
        return [e.data for e in self.journal.entries if e.event == event and e.data["step"] == name]

    def was_started(self, name: str) -> bool:
        return bool(self._of_step("step-started", name))

    def notes(self, name: str) -> tuple[dict[str, Any], ...]:
        return tuple(data["note"] for data in self._of_step("step-noted", name))

    def finished(self, step: Step[Any, Any, Any]) -> Record | None:
        done = self._of_step("step-done", step.name)
        result: Record | None = parsed(step.result, done[-1]["result"], self.journal.path.parent.name) if done else None
        return result

    def results(self, runbook: AnyRunbook) -> Mapping[str, Record]:
        found = ((step.name, self.finished(step)) for step in runbook.steps)
        return MappingProxyType({name: result for name, result in found if result is not None})

    def ended(self, run_id: RunId, folder: Path, runbook: AnyRunbook) -> Ended | None:
        entry = next((e for e in reversed(self.journal.entries) if e.event == "finished"), None)
        if entry is None:
            return None
        return Ended(
            run_id,
            folder,
            Ending.model_validate(entry.data),
            self.results(runbook),
            entry.hash,
            self.journal.entries[0].at,
            entry.at,
        )


def _note(journal: Journal, step: str, note: dict[str, Any]) -> None:
    journal.append("step-noted", {"step": step, "note": note})


@contextmanager
def _closing(journal: Journal) -> Iterator[None]:
    try:
        yield
    finally:
        journal.close()


def _record_failure(journal: Journal, event: str, data: dict[str, Any], error: BaseException) -> None:
    """Journal a failure. If even that fails (disk full), the first error stays the one that is raised."""
    try:
        journal.append(event, data | _told(error))
    except BloomError as second:
        error.add_note(f"while recording this failure: {second}")


def _told(error: BaseException) -> dict[str, Any]:
    if not isinstance(error, BloomError):
        return {"kind": type(error).__name__, "happened": "interrupted or a fault in this program"}
    return {
        "kind": type(error).__name__,
        "exit_code": error.exit_code,
        "happened": error.happened,
        "safe": error.safe,
        "next_step": error.next_step,
        "notes": list(getattr(error, "__notes__", ())),
    }


def _vanished(step: Step[Any, Any, Any], run_id: RunId) -> Refused:
    return Refused(
        f"step {step.name!r} of run {run_id} was finished, but its effect is not there any more",
        safe="it was not carried out a second time",
        next_step=f"find out who undid it (invoke run.show {run_id}); {step.by_hand}",
    )
