"""A journal read back as the records that were written into it; whatever does not read back is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from runbooks.engine.journal import Entry
from runbooks.engine.plan import Plan, Previewed
from runbooks.engine.step import AnyRunbook
from runbooks.model.errors import JournalBroken, NotFound
from runbooks.model.moment import Moment
from runbooks.model.record import Record
from runbooks.model.run_id import RunId

T = TypeVar("T", bound=Record)


def plan_in(entries: Sequence[Entry], runbook: AnyRunbook, run_id: RunId) -> Plan | None:
    """The plan of a run; None as long as it has none. Raises JournalBroken if it is not the one that was printed."""
    entry = _planned(entries)
    if entry is None:
        return None
    plan: Plan = parsed(runbook.plan_type, entry.data["plan"], str(run_id))
    if plan.digest != entry.data["digest"]:
        raise not_ours(run_id, "its plan reads back differently from what was printed")
    return plan


def previewed(entries: Sequence[Entry], runbook: AnyRunbook, run_id: RunId) -> Previewed:
    """What was shown of a run before consent: the same whenever it is asked for. Raises NotFound, JournalBroken."""
    entry, plan = _planned(entries), plan_in(entries, runbook, run_id)
    if entry is None or plan is None:
        raise NotFound(
            f"run {run_id} came to no plan, so there is no preview of it",
            safe="nothing was changed",
            next_step=f"invoke run.show {run_id} tells how far it came",
        )
    opened = entries[0].data
    return Previewed(
        run_id=str(run_id),
        runbook=runbook.name,
        environment=opened["environment"],
        operator=opened["operator"],
        planned=Moment.of(entry.at),
        digest=plan.digest,
        preview=plan.preview(),
    )


def parsed(kind: type[T], data: dict[str, Any], run_id: str) -> T:
    """A record of a journal. Raises JournalBroken if it is not of that kind."""
    try:
        return kind.model_validate(data)
    except ValidationError:
        raise of_another_version(run_id) from None  # pydantic's words would quote the journal


def of_another_version(run_id: str) -> JournalBroken:
    """What a journal says is not what this version writes."""
    return JournalBroken(
        f"the journal of run {run_id} was written by another version of this program",
        safe="nothing was changed",
        next_step=f"go on with the version that began it (invoke run.show {run_id} still reads it), or start a new run",
    )


def not_ours(run_id: RunId, what: str) -> JournalBroken:
    """The journal is whole, and yet cannot be gone on with."""
    return JournalBroken(
        f"run {run_id}: {what}",
        safe="nothing was executed",
        next_step="was it planned by another version of this program? start the runbook again",
    )


def _planned(entries: Sequence[Entry]) -> Entry | None:
    return next((entry for entry in reversed(entries) if entry.event == "planned"), None)
