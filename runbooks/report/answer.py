"""The answer of a command: one text for people, one JSON value for scripts, one exit code. It goes to stdout alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from runbooks.engine.plan import Verdict
from runbooks.engine.step import Ended
from runbooks.model.errors import (
    INTERRUPTED,
    UNEXPECTED,
    BloomError,
    ConsentNeeded,
    CouldNotVerify,
    Incomplete,
    ObjectiveMissed,
    ProofFailed,
)
from runbooks.model.run_id import RunId

_EXIT = {
    Verdict.PROVED: 0,
    Verdict.NOTHING_MISSING: 0,
    Verdict.INCOMPLETE: Incomplete.exit_code,
    Verdict.FAILED: ProofFailed.exit_code,
    Verdict.COULD_NOT_VERIFY: CouldNotVerify.exit_code,
    Verdict.OBJECTIVE_MISSED: ObjectiveMissed.exit_code,
}


@dataclass(frozen=True)
class Answer:
    text: str
    data: Any
    exit_code: int = 0


def answer_of(value: Any) -> Answer:
    """What a command has to say: of an Answer itself, of a run that ended, or of any record of facts."""
    if isinstance(value, Answer):
        return value
    if isinstance(value, Ended):
        return _of_run(value)
    data = plain(value)
    lines = [f"{name.replace('_', ' '):<18} {fact}" for name, fact in data.items() if fact not in (None, [], {})]
    return Answer("\n".join(lines), data)


def of_error(error: BloomError, run_id: RunId | None) -> Answer:
    """The JSON form of a failure; its text is for stderr and comes from the console."""
    told = (error.happened, error.safe, error.next_step)
    answer = _failure(type(error).__name__, error.exit_code, run_id, told, getattr(error, "__notes__", ()))
    if isinstance(error, ConsentNeeded):
        answer.data["error"]["page"] = None if error.page is None else str(error.page)
    return answer


def of_interruption(run_id: RunId | None) -> Answer:
    told = ("interrupted", "the journal holds every step that was begun", "invoke run.list, then run.resume")
    return _failure("Interrupted", INTERRUPTED, run_id, told)


def of_fault(fault: Exception, run_id: RunId | None) -> Answer:
    """A fault in this program. Its words may quote data or a password, so only its kind is told."""
    told = ("a fault in this program", "the journal holds every step that was begun", "read the trace on stderr")
    return _failure(type(fault).__name__, UNEXPECTED, run_id, told)


def plain(value: Any) -> Any:
    """A value as JSON has it. Secrets mask themselves on the way; a kind this does not know is a TypeError."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path) or hasattr(value, "reveal"):  # str() of a secret is its mask
        return str(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _failure(
    kind: str, exit_code: int, run_id: RunId | None, told: tuple[str, str, str], notes: Iterable[str] = ()
) -> Answer:
    happened, safe, next_step = told
    error = {
        "kind": kind,
        "exit_code": exit_code,
        "run_id": None if run_id is None else str(run_id),
        "happened": happened,
        "safe": safe,
        "next_step": next_step,
        "notes": list(notes),
    }
    return Answer("", {"error": error}, exit_code)


def _of_run(ended: Ended) -> Answer:
    data = {
        "run_id": str(ended.run_id),
        "folder": str(ended.folder),
        "opened": ended.opened.isoformat(),
        "finished": ended.finished.isoformat(),
        "last_hash": ended.last_hash,
        **ended.ending.as_json(),
        "results": {name: result.as_json() for name, result in ended.results.items()},
    }
    text = f"{ended.run_id}  {ended.ending.verdict}  {ended.ending.summary}"
    text += "".join(f"\n{value}" for name, value in ended.ending.facts if name == "report")
    return Answer(text, data, _EXIT[ended.ending.verdict])
