"""A recovery brought back the wrong rows: delete exactly what it inserted, and give what it set back the values that it
held before; as far as nobody has changed it since.

A row counts as untouched while it still carries the recovery's transaction id. Rows changed since stay and are listed;
if other rows point at one that would go, nothing is deleted and they are named. A second run finds nothing to delete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from pydantic import ValidationError

from runbooks import accidental_delete
from runbooks.accidental_delete import UNDO_FILE, RecoveryPlan, production_session
from runbooks.clients.postgres import Connection
from runbooks.clients.postgres_lock import hold_lock
from runbooks.clients.world import World
from runbooks.engine.journal import FILE_NAME, read
from runbooks.engine.plan import Ending, Plan, Preview, Table, Verdict
from runbooks.engine.readback import of_another_version
from runbooks.engine.step import Effect, Run, Runbook, Running, Step
from runbooks.model.errors import NotFound
from runbooks.model.record import Record
from runbooks.model.run_id import RunId
from runbooks.rows.transaction import committed
from runbooks.rows.undo import Undone, UndoneTable, UndoPlan, apply_undo, survey_undo


class Request(Record):
    recovery: str
    """The id of the run to take back."""


class Survey(Record):
    target_branch: str
    target_branch_name: str
    undo_file: str
    undo: UndoPlan


class TakeBackPlan(Plan):
    target_branch: str
    target_branch_name: str
    undo_file: str
    undo: UndoPlan

    def confirmation(self) -> str | None:
        """Branch, database and number of rows; None if no row is left to delete or change."""
        rows = self.undo.rows
        return f"{self.target_branch}/{self.undo.database.database}/{rows}" if rows else None

    def preview(self) -> Preview:
        undo = self.undo
        return Preview(
            title=f"take back recovery {undo.run}",
            target=f"{undo.deletes:,} rows are DELETED from{_reverts(undo)} database {undo.database.database} "
            f"of branch {self.target_branch_name} ({self.target_branch})",
            facts=(("only rows of", f"transaction {undo.recovery_xid}, not changed since"),),
            tables=(
                Table(
                    title="rows",
                    head=("table", "what", "rows", "changed since, stay", "gone already"),
                    rows=tuple(
                        (str(one.name), what, f"{one.rows:,}", f"{one.changed.count:,}", f"{one.gone.count:,}")
                        for what, tables in (("are deleted", undo.tables), ("get back what they held", undo.amended))
                        for one in tables
                    ),
                ),
            ),
            warnings=(
                *(f"trigger {trigger.label} is kept from firing" for trigger in undo.suppressed),
                *_kept((*undo.tables, *undo.amended)),
            ),
            undo="run the same recovery again",
        )


def _reverts(undo: UndoPlan) -> str:
    return f", and {undo.reverts:,} get back what they held in" if undo.reverts else ""


class TakenBack(Record):
    undone: Undone


def survey(run: Run[World], request: Request) -> Survey:
    """Reads the recovery's journal and undo file, and looks which of its rows are still untouched."""
    folder = run.folder.parent / str(RunId.parse(request.recovery))
    recovery = _recovery(folder, request.recovery)
    undo_file = folder / UNDO_FILE
    if not undo_file.exists():
        raise NotFound(
            f"run {request.recovery} has written nothing, so there is nothing to take back",
            safe="nothing was changed",
            next_step=f"invoke run.show {request.recovery}",
        )
    with production_session(run, recovery.place, f"survey {run.id}") as production:
        undo = survey_undo(production, undo_file)
    return Survey(
        target_branch=recovery.place.target_branch,
        target_branch_name=recovery.place.target_branch_name,
        undo_file=str(undo_file),
        undo=undo,
    )


def plan(request: Request, survey: Survey) -> TakeBackPlan:
    return TakeBackPlan.model_validate(dict(survey))


@contextmanager
def _locked(run: Run[World], plan: TakeBackPlan) -> Iterator[Connection]:
    """Production's session, proved to be the recovered database, holding its recovery lock."""
    world = run.world
    recovery = _recovery(Path(plan.undo_file).parent, plan.undo.run)
    with production_session(run, recovery.place, f"{run.id} {world.operator}") as production:
        with hold_lock(production, run.id, world.operator, zone=world.policy.local_timezone, progress=run.tell):
            yield production


def _take_back(running: Running[World, TakeBackPlan]) -> TakenBack:
    undone = apply_undo(
        running.held,
        running.plan.undo,
        undo_path=Path(running.plan.undo_file),
        before_commit=lambda ready: running.note(ready.as_json()),
    )
    return TakenBack(undone=undone)


def _is_taken_back(running: Running[World, TakeBackPlan]) -> TakenBack | None:
    """A killed run knows by the transaction's id, journalled before the commit, whether it was committed."""
    ready = committed(running.held, [Undone.model_validate(note) for note in running.notes])
    return TakenBack(undone=ready) if ready else None


TAKE_BACK: Step[World, TakeBackPlan, TakenBack] = Step(
    name="delete-inserted-rows",
    effect=Effect.DESTROYS,
    why="one transaction, children first; it commits only if exactly these rows went or changed and nothing else",
    by_hand="give the rows of the undo file that hold values these values, and delete the others, children first",
    deadline=timedelta(hours=1),
    result=TakenBack,
    run=_take_back,
    done=_is_taken_back,
    repeatable=False,
)


def ending(plan: TakeBackPlan, results: Mapping[str, Record]) -> Ending:
    """PROVED if every row that the recovery inserted is gone; the delete itself is proved before it commits."""
    taken = results[TAKE_BACK.name]
    assert isinstance(taken, TakenBack)
    undone = taken.undone
    tables = (*undone.tables, *undone.amended)
    told = tuple(_kept(tables))
    # Where nothing is left at all, an earlier undo has taken it: that is no news.
    nothing_left = not undone.deleted + undone.reverted and not any(table.changed.count for table in undone.tables)
    verdict = Verdict.NOTHING_MISSING if nothing_left else Verdict.INCOMPLETE if told else Verdict.PROVED
    return Ending(
        verdict=verdict,
        summary=f"{undone.deleted:,} rows of recovery {plan.undo.run} are deleted again"
        + (f", {undone.reverted:,} hold what they held before it" if undone.reverted else ""),
        facts=(
            ("rows deleted", f"{undone.deleted:,}"),
            ("rows changed back", f"{undone.reverted:,}"),
            ("gone before", f"{sum(table.gone.count for table in tables):,}"),
        ),
        left_open=() if nothing_left else told,
    )


RUNBOOK: Runbook[World, Request, Survey, TakeBackPlan] = Runbook(
    name="recover.undo",
    symptom="a recovery brought back the wrong rows",
    may_be_lost="what the recovery brought back, except what somebody changed since",
    takes="a minute",
    request=Request,
    survey_type=Survey,
    plan_type=TakeBackPlan,
    survey=survey,
    plan=plan,
    steps=(TAKE_BACK,),
    ending=ending,
    guard=_locked,
    page="undo-recovery",
)


def _recovery(folder: Path, run_id: str) -> RecoveryPlan:
    """The plan of the recovery to take back, from its journal. Raises NotFound, JournalBroken."""
    reading = read(folder / FILE_NAME)
    opened = next((entry.data["runbook"] for entry in reading.entries if entry.event == "opened"), None)
    planned = next((entry.data["plan"] for entry in reading.entries if entry.event == "planned"), None)
    if opened != accidental_delete.RUNBOOK.name or planned is None:
        raise NotFound(
            f"run {run_id} is not a row recovery that came as far as a plan",
            safe="nothing was changed",
            next_step=f"invoke run.show {run_id}",
        )
    try:
        return RecoveryPlan.model_validate(planned)
    except ValidationError:
        raise of_another_version(run_id) from None  # pydantic's words would quote the journal


def _kept(tables: tuple[UndoneTable, ...]) -> Iterator[str]:
    for one in tables:
        for rows, what in (
            (one.changed, "were changed by others since, so they stay"),
            (one.gone, "are not there under their key: deleted by others, or their key was changed"),
        ):
            if rows.count:
                more = " …" if rows.count > len(rows.keys) else ""
                yield f"{rows.count:,} rows of {one.name} {what}; keys {', '.join(rows.keys)}{more}"
