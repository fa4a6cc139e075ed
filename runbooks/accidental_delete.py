"""Rows were deleted at a known moment: bring them back from the past, exactly.

Survey: one short-lived branch at the moment, or a backup that is older than Neon's history; production's keys compared
with it. Plan: which rows come back, which do
not and why. Execute: one transaction on production, proved before it commits. Prove: read back afterwards. Nothing that
exists now is overwritten; a second run inserts nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from collections.abc import Mapping as Results
from contextlib import closing, contextmanager
from datetime import datetime, timedelta

from runbooks.clients.neon_types import Branch, Window
from runbooks.clients.postgres import Connection, Expected, Identity, prove
from runbooks.clients.postgres_lock import hold_lock
from runbooks.clients.world import World
from runbooks.engine.plan import Ending, Plan, Preview, Verdict
from runbooks.engine.step import Effect, Run, Runbook, Running, Step
from runbooks.model.errors import BloomError, NotFound, OutsideWindow, UsageFault
from runbooks.model.moment import Moment
from runbooks.model.record import Record
from runbooks.past import choice
from runbooks.past.backup import make_backup_past
from runbooks.past.branch import make_branch
from runbooks.past.kind import Past
from runbooks.past.session import branch_session
from runbooks.report import recovery
from runbooks.rows.applied import Applied
from runbooks.rows.apply import apply
from runbooks.rows.catalog import resolve
from runbooks.rows.decisions import Decisions, conflicts_file
from runbooks.rows.found import Found
from runbooks.rows.found import Request as RowsWanted
from runbooks.rows.mapping import Mapping
from runbooks.rows.names import TableName
from runbooks.rows.plan import Plan as RowsPlan
from runbooks.rows.plan import make_plan
from runbooks.rows.proof import Proof, prove_recovery
from runbooks.rows.survey import survey as survey_rows
from runbooks.rows.transaction import committed

UNDO_FILE = "undo.jsonl"
CONFLICTS_FILE = "conflicts.json"


class Request(Record):
    """What the operator asked for."""

    at: Moment
    tables: tuple[str, ...]
    where: str | None = None
    database: str | None = None
    accept_triggers: tuple[str, ...] = ()
    accept_keyless: tuple[str, ...] = ()
    from_backup: str | None = None
    """`latest` or the id of a backup: the past to read from, instead of a branch."""
    changed: bool = False
    """Whether rows that are there with other content are meant too."""
    until: Moment | None = None
    """After the damage, and before people went on: what tells the damage from their edits."""
    mapping: Mapping = Mapping()
    decisions: Decisions = Decisions()
    files: tuple[tuple[str, str], ...] = ()
    """The flags that named files, for the command as it is typed."""

    @classmethod
    def parse(
        cls,
        *,
        at: str,
        tables: str,
        where: str = "",
        database: str = "",
        accept_triggers: str = "",
        accept_keyless: str = "",
        from_backup: str = "",
        changed: bool = False,
        until: str = "",
        map_file: str = "",
        resolve_file: str = "",
        now: datetime,
    ) -> Request:
        """From the command line. Reads the two files. Raises UsageFault."""
        named = _split(tables)
        if not at or not named:
            raise UsageFault(
                "a recovery needs a moment and tables",
                safe="nothing was started",
                next_step="invoke recover.accidental-delete --at '2025-12-03 14:30 America/Mexico_City' --tables a,b",
            )
        wanted = RowsWanted.parse(named, where or None)
        if from_backup:
            choice.check_name(from_backup)
        moment = Moment.parse(at, now=now)
        return cls(
            at=moment,
            tables=tuple(str(name) for name in wanted.tables),
            where=wanted.where,
            database=database or None,
            accept_triggers=_split(accept_triggers),
            accept_keyless=_split(accept_keyless),
            from_backup=from_backup or None,
            changed=changed,
            until=_until(moment, until, now) if _means_changed(changed, until) else None,
            mapping=Mapping.read(map_file) if map_file else Mapping(),
            decisions=Decisions.read(resolve_file) if resolve_file else Decisions(),
            files=tuple((flag, name) for flag, name in (("map", map_file), ("resolve", resolve_file)) if name),
        )

    @property
    def wanted(self) -> RowsWanted:
        return RowsWanted.parse(
            self.tables,
            self.where,
            changed=self.changed,
            mapping=self.mapping,
            decisions=self.decisions,
            accept_keyless=self.accept_keyless,
        )

    def command(self, environment: str) -> str:
        """As it is typed, without the choice of a backup."""
        given = {
            "at": self.at.iso(),
            "tables": ",".join(self.tables),
            "where": self.where,
            "database": self.database,
            "accept-triggers": ",".join(self.accept_triggers),
            "accept-keyless": ",".join(self.accept_keyless),
            "until": self.until and self.until.iso(),
            **dict(self.files),
            "env": environment,
        }
        flags = [f"--{name} {shlex.quote(value)}" for name, value in given.items() if value]
        return " ".join(["invoke recover.accidental-delete", *flags, *(["--changed"] if self.changed else [])])


def _means_changed(changed: bool, until: str) -> bool:
    if until and not changed:
        raise UsageFault(
            "--until says what the damage changed, so it goes with --changed",
            safe="nothing was started",
            next_step="add --changed, or leave --until out",
        )
    return bool(until)


def _until(at: Moment, until: str, now: datetime) -> Moment:
    moment = Moment.parse(until, now=now)
    if moment <= at:
        raise UsageFault(
            "--until is not after --at",
            safe="nothing was started",
            next_step="--at is a moment before the damage, --until one after it, before people went on",
        )
    return moment


class Place(Record):
    """Where the rows go."""

    project: str
    target: Identity
    target_branch: str
    target_branch_name: str
    history_begins: Moment
    history_retention: timedelta
    """What the project keeps, as Neon says."""
    promised_window: timedelta
    zone: str


class Survey(Record):
    """What was found, before anything in production is changed."""

    place: Place
    past: Past
    found: Found
    conflicts_file: str | None


class RecoveryPlan(Plan):
    at: Moment
    place: Place
    until: Moment | None
    past: Past
    recovery: RowsPlan

    conflicts_file: str | None
    """Where the conflicts lie, to be decided and given back; None if there are none."""

    @property
    def rows(self) -> int:
        """Rows that come back."""
        return self.recovery.rows

    def confirmation(self) -> str | None:
        """Branch, database and number of rows written; None if nothing would be changed."""
        place, writes = self.place, self.recovery.writes
        return f"{place.target_branch}/{place.target.database}/{writes}" if writes else None

    def preview(self) -> Preview:
        place, found = self.place, self.recovery.found
        return Preview(
            title="bring back deleted rows",
            target=f"{_writes(self.recovery)} database {place.target.database} of branch {place.target_branch_name} "
            f"({place.target_branch}), project {place.project}",
            facts=(
                *self.past.facts(place.zone),
                ("history reaches back to", place.history_begins.both(place.zone)),
                ("condition", found.where or f"none: every {_meant(found)} row of the named tables"),
                *self._decisions(),
            ),
            tables=tuple(recovery.tables(found)),
            warnings=tuple(_warnings(self)),
            undo="invoke recover.undo with this run's id deletes exactly the rows inserted again, and gives those set "
            "back what they hold now, unless changed since",
            good_until=self.past.expires,
        )

    def _decisions(self) -> Iterator[tuple[str, str]]:
        if self.until:
            yield "state after the damage", self.until.both(self.place.zone)
        if self.conflicts_file:
            yield "to be decided", f"{self.conflicts_file}: edit it, then run the same command with --resolve and it"


def _meant(found: Found) -> str:
    return "missing or changed" if found.changed else "missing"


def _writes(plan: RowsPlan) -> str:
    amended = recovery.amended(plan.found.amendments)
    rows = f"{plan.rows:,} rows into"
    return rows if not amended else f"{rows}, {amended} in" if plan.rows else f"{amended} in"


class WrittenBack(Record):
    """What the transaction on production did."""

    applied: Applied


class ProvedRows(Record):
    proof: Proof


class PastRemoved(Record):
    what: str


def survey(run: Run[World], request: Request) -> Survey:
    """Reads production; makes the one past that a preview may make, and removes it again if no plan comes of it."""
    world = run.world
    target = world.target_branch()
    window = world.neon.window(target, world.now())
    _require_reachable(world, window, request)
    if request.until:
        window.check(request.until)
    place, named = _look(run, request, target, window)
    past = _make_past(run, request, target, place, named)
    try:
        with _after(run, request, target, place) as after:
            found = _compare(run, place, past, request.wanted, after)
        file = _write_conflicts(run, found)
        surveyed = Survey(place=place, past=past, found=found, conflicts_file=file)
        plan(request, surveyed)  # what cannot be planned is told while the past can still be removed
    except BaseException as error:
        _remove_after(error, run, past)
        raise
    return surveyed


def plan(request: Request, survey: Survey) -> RecoveryPlan:
    """Pure. Raises NotFound if nothing was there to be lost, and what `make_plan` raises (triggers, sequences)."""
    found = survey.found
    if not any(table.asked for table in found.tables):
        where = f" that fits {found.where!r}" if found.where else ""
        raise NotFound(
            f"in the state of {survey.past.state(survey.place.zone)} no row{where} was in {', '.join(request.tables)}, "
            "so there is nothing to bring back",
            safe="nothing was changed",
            next_step="check the condition and the moment; an earlier --at may still have had the rows, and invoke "
            "recover.find finds it",
        )
    return RecoveryPlan(
        at=request.at,
        until=request.until,
        place=survey.place,
        past=survey.past,
        recovery=make_plan(found, accept_triggers=request.accept_triggers),
        conflicts_file=survey.conflicts_file,
    )


@contextmanager
def locked(run: Run[World], plan: RecoveryPlan) -> Iterator[Connection]:
    """Production's session, proved to be the surveyed database, holding its recovery lock."""
    place = plan.place
    with production_session(run, place, f"{run.id} {run.world.operator}") as production:
        with hold_lock(production, run.id, run.world.operator, zone=place.zone, progress=run.tell):
            yield production


def _write_back(running: Running[World, RecoveryPlan]) -> WrittenBack:
    plan = running.plan
    with plan.past.session(running, plan.place.zone) as past:
        applied = apply(
            running.held,
            past,
            plan.recovery,
            run_id=running.id,
            undo_path=running.folder / UNDO_FILE,
            before_commit=lambda ready: running.note(ready.as_json()),
            progress=running.tell,
        )
    return WrittenBack(applied=applied)


def _is_written_back(running: Running[World, RecoveryPlan]) -> WrittenBack | None:
    """A killed run knows by the transaction's id, journalled before the commit, whether it was committed."""
    ready = committed(running.held, [Applied.model_validate(note) for note in running.notes])
    return WrittenBack(applied=ready) if ready else None


def _prove(running: Running[World, RecoveryPlan]) -> ProvedRows:
    """In sessions of its own: what others can read."""
    plan, place = running.plan, running.plan.place
    with (
        production_session(running, place, f"proof {running.id}") as production,
        plan.past.session(running, place.zone) as past,
    ):
        proof = prove_recovery(
            production,
            past,
            plan.recovery,
            running.result(WRITE_BACK).applied,
            progress=running.tell,
        )
    return ProvedRows(proof=proof)


def _remove_past(running: Running[World, RecoveryPlan]) -> PastRemoved:
    return PastRemoved(what=running.plan.past.remove(running))


WRITE_BACK: Step[World, RecoveryPlan, WrittenBack] = Step(
    name="write-rows-back",
    effect=Effect.CREATES,
    why="one transaction, parents first; it commits only if the rows equal the past's and nothing else changed",
    by_hand="copy the rows by hand from the branch or folder that the preview names, which stays until it expires",
    deadline=timedelta(hours=2),
    result=WrittenBack,
    run=_write_back,
    done=_is_written_back,
    repeatable=False,
)
PROVE: Step[World, RecoveryPlan, ProvedRows] = Step(
    name="prove-rows",
    effect=Effect.READS,
    why="what counts is what others can read after the commit; the past is still there to compare with",
    by_hand="compare the rows named in the undo file with the branch or folder that the preview names",
    deadline=timedelta(hours=1),
    result=ProvedRows,
    run=_prove,
)
REMOVE_PAST: Step[World, RecoveryPlan, PastRemoved] = Step(
    name="remove-past",
    effect=Effect.DESTROYS,
    why="only the branch (or the folder with rows of a backup) that this run made; last, as all was proved by it",
    by_hand="delete the branch named bloom-dr-RUN_ID in the Neon console, or let it expire; the folder: rm -r",
    deadline=timedelta(minutes=10),
    result=PastRemoved,
    run=_remove_past,
)


def ending(plan: RecoveryPlan, results: Results[str, Record]) -> Ending:
    """PROVED only if the rows inserted equal the past's, all others asked for are there, and no loss is left."""
    written, proved = results[WRITE_BACK.name], results[PROVE.name]
    assert isinstance(written, WrittenBack)
    assert isinstance(proved, ProvedRows)
    applied, proof, found = written.applied, proved.proof, plan.recovery.found
    left_open = recovery.left_open(found, applied, proof)
    verdict = Verdict.PROVED if applied.inserted or applied.set_back else Verdict.NOTHING_MISSING
    if left_open:
        verdict = Verdict.INCOMPLETE
    if proof.verdict != "passed":
        verdict = Verdict.FAILED
    there = sum(table.already_there for table in applied.tables)
    return Ending(
        verdict=verdict,
        summary=_summary(plan, applied, proof, there),
        facts=(
            ("rows inserted", f"{applied.inserted:,}"),
            ("set back, pointers too", f"{applied.set_back:,}"),
            ("proved after the commit", f"{proof.proved + proof.proved_set_back:,}"),
            ("changed by others since", f"{proof.changed:,}"),
            ("already there", f"{there:,}"),
            ("their content", recovery.compared(found)),
            *(("kept as it is", text) for text in (*recovery.differing(found.different), *recovery.elsewhere(found))),
            *([("to be decided", plan.conflicts_file)] if plan.conflicts_file else []),
            *([("once it is cured", _again(applied))] if left_open and applied.xid else []),
        ),
        left_open=left_open,
    )


def _again(applied: Applied) -> str:
    """A second run follows what led from a missing row to others; what this one brought back is missing no more."""
    return f"invoke recover.undo {applied.run}, then the same command again; or --resolve with what was decided"


def _summary(plan: RecoveryPlan, applied: Applied, proof: Proof, there: int) -> str:
    state = f"the state of {plan.past.state(plan.place.zone)}"
    if applied.inserted or applied.set_back:
        amended = f", {applied.set_back:,} that were there are set back" if applied.set_back else ""
        return f"{applied.inserted - proof.gone:,} rows are back{amended}, as in {state}"
    if there == sum(table.asked for table in applied.tables):
        return (
            f"nothing was changed: no row of {state} is missing; if you miss rows, try an earlier --at "
            "(invoke recover.find finds the moment)"
        )
    return f"nothing was changed: no row of {state} could be inserted"


RUNBOOK: Runbook[World, Request, Survey, RecoveryPlan] = Runbook(
    name="recover.accidental-delete",
    symptom="rows are missing: deleted by a person, a bug or a migration",
    may_be_lost="what was written to these rows after the chosen moment",
    takes="minutes; most of it is reading the preview",
    request=Request,
    survey_type=Survey,
    plan_type=RecoveryPlan,
    survey=survey,
    plan=plan,
    steps=(WRITE_BACK, PROVE, REMOVE_PAST),
    ending=ending,
    guard=locked,
    page="accidental-delete",
)


def _split(text: str) -> tuple[str, ...]:
    """Comma-separated names; a comma inside double quotes belongs to the name."""
    parts, quoted = [""], False
    for sign in text:
        quoted ^= sign == '"'
        if sign == "," and not quoted:
            parts.append("")
        else:
            parts[-1] += sign
    return tuple(part.strip() for part in parts if part.strip())


def _require_reachable(world: World, window: Window, request: Request) -> None:
    """OutsideWindow, naming the backup that reaches further back, before anything is made."""
    if request.from_backup is not None and request.at <= window.latest:
        return
    try:
        window.check(request.at)
    except OutsideWindow as fault:
        if request.at > window.latest:
            raise
        raise choice.outside(world, fault, request.at, request.command(world.name)) from fault


def _look(run: Run[World], request: Request, target: Branch, window: Window) -> tuple[Place, tuple[TableName, ...]]:
    """Production, and the tables that are meant: a misspelt name must cost neither a branch nor a restore."""
    world, environment = run.world, run.world.environment
    database = request.database or environment.database
    with closing(branch_session(run, target.id, database, environment.role, f"look {run.id}")) as production:
        here = prove(production, Expected(database=database, project_id=target.project_id, branch_id=target.id))
        named = resolve(production, request.wanted.tables)
    place = Place(
        project=target.project_id,
        target=here,
        target_branch=target.id,
        target_branch_name=target.name,
        history_begins=window.earliest,
        history_retention=world.neon.project().history_retention,
        promised_window=environment.promised_window,
        zone=world.policy.local_timezone,
    )
    return place, named


def _make_past(run: Run[World], request: Request, target: Branch, place: Place, named: tuple[TableName, ...]) -> Past:
    here = place.target
    if request.from_backup is None:
        return make_branch(run, target, request.at, database=here.database, role=run.world.environment.role)
    reaches = place.history_begins < request.at
    return make_backup_past(run, request.from_backup, request.at, named, here, history_reaches=reaches)


@contextmanager
def _after(run: Run[World], request: Request, target: Branch, place: Place) -> Iterator[Connection | None]:
    """A session on a branch of the moment after the damage, which is needed for the comparison only."""
    if request.until is None:
        yield None
        return
    here, role = place.target, run.world.environment.role
    name = f"{run.id.branch_name}-after"
    branch = make_branch(run, target, request.until, database=here.database, role=role, name=name)
    try:
        branch.require_apart(run, place.target_branch)
        with branch.session(run, place.zone) as session:
            yield session
    except BaseException as error:
        _remove_after(error, run, branch)
        raise
    branch.remove(run)


def _compare(run: Run[World], place: Place, past: Past, wanted: RowsWanted, after: Connection | None) -> Found:
    past.require_apart(run, place.target_branch)
    with (
        production_session(run, place, f"survey {run.id}") as production,
        past.session(run, place.zone) as session,
    ):
        return survey_rows(production, session, wanted, after=after, progress=run.tell)


def _write_conflicts(run: Run[World], found: Found) -> str | None:
    """The conflicts as a file of the run, for a person to decide; its path, or None if there are none."""
    if not found.conflict_rows:
        return None
    path = run.folder / CONFLICTS_FILE
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(
        conflicts_file(str(run.id), found.conflict_rows, left_out=found.undecided - len(found.conflict_rows))
    )
    return str(path)


def _remove_after(error: BaseException, run: Run[World], past: Past) -> None:
    try:
        past.remove(run)
    except BloomError as trouble:
        error.add_note(f"besides, {past.if_left}: {trouble}")


@contextmanager
def production_session(run: Run[World], place: Place, name: str) -> Iterator[Connection]:
    """A session on the surveyed database, proved to be it. Raises WrongTarget, and the errors of connecting."""
    there = place.target
    with closing(branch_session(run, place.target_branch, there.database, there.role, name)) as session:
        prove(session, there)
        yield session


def _warnings(plan: RecoveryPlan) -> Iterator[str]:
    place = plan.place
    yield from plan.past.warnings(place.zone)
    if place.history_retention < place.promised_window:
        yield f"Neon keeps {place.history_retention} of history, less than the promised {place.promised_window}"
    yield from recovery.warnings(plan.recovery)
