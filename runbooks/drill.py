"""The quarterly drill: break a real database on this machine, recover it with the real runbook, measure.

May be lost: nothing. It touches only the stack that it makes for itself, and removes that in every outcome but a kill,
after which `run.resume` goes on with it.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from runbooks import accidental_delete
from runbooks.clients import programs
from runbooks.clients.neon import Neon
from runbooks.clients.postgres import Connection
from runbooks.clients.world import World
from runbooks.engine.consent import Consenting
from runbooks.engine.plan import Ending, Plan, Preview, Verdict
from runbooks.engine.step import Effect, Run, Runbook, Running, Step
from runbooks.model.dsn import Dsn
from runbooks.model.errors import Refused, UsageFault
from runbooks.model.moment import Moment
from runbooks.model.objectives import Mark, Measured, Objective, judge
from runbooks.model.policy import SandboxEnvironment
from runbooks.model.record import Record
from runbooks.report.drill import Check, DrillReport, Test, write
from runbooks.sandbox import incident
from runbooks.sandbox.daemon import default_root
from runbooks.sandbox.incident import Planted
from runbooks.sandbox.seed import FEWEST, MOST, recorded, seed
from runbooks.sandbox.stack import Stack
from runbooks.sandbox.writer import Writer

SCENARIO = "accidental-delete"
OWN = SandboxEnvironment(sandbox=True)
MARK = "stack-made"
"""A file in the run's folder: the stack was made once, so a run that finds none must not go on with another."""


class Request(Record):
    clients: int

    @classmethod
    def parse(cls, clients: str) -> Request:
        """Raises UsageFault."""
        if not clients.isdecimal() or not FEWEST <= int(clients) <= MOST:
            raise UsageFault(
                f"{clients!r} is not a number of clients from {FEWEST} to {MOST}",
                safe="nothing was started",
                next_step="invoke drill.quarterly --clients 2000",
            )
        return cls(clients=int(clients))


class Survey(Record):
    root: str
    postgres: str
    objective: Objective


class DrillPlan(Plan):
    clients: int
    root: str
    postgres: str
    objective: Objective

    def confirmation(self) -> str | None:
        return None  # it touches only what it makes

    def preview(self) -> Preview:
        return Preview(
            title="quarterly drill, test 1: rows deleted by accident",
            target=f"a new database of its own in {self.root}",
            facts=(
                ("PostgreSQL", self.postgres),
                ("clients", f"{self.clients:,}"),
                ("allowed", f"RTO {self.objective.rto}, RPO {self.objective.rpo}"),
            ),
            tables=(),
            warnings=(),
            undo="not needed: the stack is removed at the end",
        )


class SeededRows(Record):
    rows: int
    bytes: int


class Broken(Record):
    planted: Planted


class Recovered(Record):
    run_id: str
    verdict: Verdict
    summary: str
    finished: Moment
    writes: int
    """Transactions that the application committed while the recovery ran."""
    lost_writes: tuple[str, ...]


class Compared(Record):
    checks: tuple[Check, ...]


class Reported(Record):
    markdown: str
    test: Test


@dataclass(frozen=True)
class Ground:
    """The drill's own stack while the drill runs."""

    stack: Stack
    neon: Neon
    dsn: Dsn


def survey(run: Run[World], request: Request) -> Survey:
    postgres = programs.find("postgres")
    version = ".".join(str(part) for part in postgres.version)
    return Survey(
        root=str(default_root().parent / f"bloom-dr-drill-{run.id}"),
        postgres=f"PostgreSQL {version} ({postgres.source})",
        objective=run.world.policy.objective(SCENARIO),
    )


def plan(request: Request, survey: Survey) -> DrillPlan:
    return DrillPlan(
        clients=request.clients, root=survey.root, postgres=survey.postgres, objective=survey.objective
    )  # fmt: skip


@contextmanager
def _ground(run: Run[World], plan: DrillPlan) -> Iterator[Ground | None]:
    """The stack, for as long as the drill runs; removed in every outcome, as a drill leaves nothing behind.

    None if it was removed already: nothing but the end of the journal can be written then.
    """
    root, mark = Path(plan.root), run.folder / MARK
    if mark.exists() and not root.exists():
        yield None
        return
    try:
        with Stack.start(root) as stack:
            mark.touch(mode=0o600)
            neon = Neon(api=stack.api_url, key=stack.api_key, project_id=stack.project_id, progress=run.tell)
            dsn = neon.connection(branch=neon.default_branch(), database=OWN.database, role=OWN.role)
            yield Ground(stack, neon, dsn)
    except BaseException as error:
        try:
            shutil.rmtree(root)
        except OSError as trouble:
            error.add_note(f"besides, {root} could not be removed: {trouble}")
        raise
    shutil.rmtree(root)


def _on(running: Running[World, DrillPlan]) -> Ground:
    if running.held is None:
        raise Refused(
            "the drill's own stack is gone, so this drill cannot go on",
            safe="nothing else was touched",
            next_step="invoke drill.quarterly",
        )
    assert isinstance(running.held, Ground)
    return running.held


def _session(running: Running[World, DrillPlan]) -> Connection:
    """A session of the application's kind: Bloom's triggers name their tables without the schema."""
    return running.world.connect(_on(running).dsn, application_name="bloom-dr drill", search_path="public")


def _seed(running: Running[World, DrillPlan]) -> SeededRows:
    seed(_on(running).dsn, clients=running.plan.clients, progress=running.tell)
    seeded = _is_seeded(running)
    assert seeded is not None
    return seeded


def _is_seeded(running: Running[World, DrillPlan]) -> SeededRows | None:
    with _session(running) as conn:
        made = recorded(conn)
        size = conn.execute("SELECT pg_database_size(current_database())").fetchone()
    assert size is not None
    return None if made is None else SeededRows(rows=sum(made.values()), bytes=size[0])


def _break(running: Running[World, DrillPlan]) -> Broken:
    with _session(running) as conn, Writer(_on(running).dsn) as writer:
        writer.wait_for(5)
        planted = incident.plant(conn)
        running.note({"planted": planted.as_json()})
        incident.strike(conn, planted)
        incident.after(conn, planted)
        writer.wait_for(len(writer.acknowledged) + 5)
    return Broken(planted=planted)


def _is_broken(running: Running[World, DrillPlan]) -> Broken | None:
    if not running.notes:
        return None
    planted = Planted.model_validate(running.notes[-1]["planted"])
    with _session(running) as conn:
        struck = incident.bystander_is_there(conn, planted)
    return Broken(planted=planted) if struck else None


def _recover(running: Running[World, DrillPlan]) -> Recovered:
    """The real runbook on the drill's own target, while the application goes on writing."""
    planted = running.result(BREAK).planted
    ground = _on(running)
    world = dataclasses.replace(running.world, name="drill", environment=OWN, open_neon=lambda: ground.neon)
    request = accidental_delete.Request(at=planted.moment, tables=("clients",))
    consenting = Consenting(f"drill {running.id}", ask=lambda wanted: wanted)
    with Writer(ground.dsn) as writer, running.world.connect(ground.dsn, application_name="bloom-dr drill") as conn:
        writer.wait_for(1)
        ended = running.nested(1, accidental_delete.RUNBOOK, request, world, consenting)
        writer.wait_for(len(writer.acknowledged) + 5)
        lost = writer.verify(conn)
        writes = len(writer.acknowledged)
    return Recovered(
        run_id=str(ended.run_id),
        verdict=ended.ending.verdict,
        summary=ended.ending.summary,
        finished=Moment.of(ended.finished),
        writes=writes,
        lost_writes=lost,
    )


def _compare(running: Running[World, DrillPlan]) -> Compared:
    planted, recovered = running.result(BREAK).planted, running.result(RECOVER)
    with _session(running) as conn:
        now = incident.prints(conn, planted.tag)
        checks = [
            Check(
                claim=f"{was.rows} rows of {was.table} are back, equal in every column",
                held=was == is_now,
                found=f"{is_now.rows} rows, {'equal' if was.md5 == is_now.md5 else 'different'}",
            )
            for was, is_now in zip(planted.before, now, strict=True)
        ]
        too_late, bystander = incident.too_late_is_there(conn, planted), incident.bystander_is_there(conn, planted)
        mails = incident.mails(conn, planted)
    booked = next(each.rows for each in planted.before if each.table == "reservations")
    checks += [
        Check(
            claim="the client made after that moment did not come back",
            held=not too_late,
            found="present" if too_late else "absent",
        ),
        Check(
            claim="the client made after the accident is still there",
            held=bystander,
            found="present" if bystander else "absent",
        ),
        Check(claim="no mail was queued a second time", held=mails == booked, found=f"{mails} mails for {booked}"),
        Check(
            claim="every write that the application committed meanwhile is still there",
            held=recovered.writes > 0 and not recovered.lost_writes,
            found=f"{recovered.writes} writes, {len(recovered.lost_writes)} lost",
        ),
        Check(
            claim="the recovery proved its rows",
            held=recovered.verdict is Verdict.PROVED,
            found=f"{recovered.verdict}: {recovered.summary}",
        ),
    ]
    return Compared(checks=tuple(checks))


def _report(running: Running[World, DrillPlan]) -> Reported:
    planted, recovered = running.result(BREAK).planted, running.result(RECOVER)
    seeded, checks = running.result(SEED), running.result(COMPARE).checks
    complete = all(check.held for check in checks)
    measured = Measured(
        rto=recovered.finished.utc - planted.accident.utc,
        # What was committed last before the moment is back; everything later about these clients is lost.
        rpo=planted.accident.utc - planted.last_commit.utc if complete else None,
    )
    objective = running.plan.objective
    verdict = judge(objective, measured)
    test = Test(
        name="Test 1, point-in-time recovery of rows deleted by accident",
        incident=planted.accident,
        moment=planted.moment,
        recovery_run=recovered.run_id,
        rto_seconds=measured.rto.total_seconds(),
        rto_allowed_seconds=objective.rto.total_seconds(),
        rpo_seconds=None if measured.rpo is None else measured.rpo.total_seconds(),
        rpo_allowed_seconds=objective.rpo.total_seconds(),
        judged=verdict.text,
        result="FAIL"
        if not complete
        else {Mark.PASSED: "PASS", Mark.MISSED: "FAIL"}.get(verdict.overall, "COULD NOT VERIFY"),
        checks=checks,
    )
    report = DrillReport(
        run_id=str(running.id),
        operator=running.world.operator,
        written=running.world.now(),
        zone=running.world.policy.local_timezone,
        postgres=running.plan.postgres,
        rows=seeded.rows,
        bytes=seeded.bytes,
        tests=(test,),
    )
    markdown, _ = write(report, running.folder)
    return Reported(markdown=str(markdown), test=test)


SEED = Step(
    name="seed",
    effect=Effect.CREATES,
    why="a recovery is only worth something on data with keys, triggers and history",
    by_hand="see what stands in the way in the message; the drill can be started anew at any time",
    deadline=timedelta(minutes=15),
    result=SeededRows,
    run=_seed,
    done=_is_seeded,
)
BREAK = Step(
    name="break",
    effect=Effect.DESTROYS,
    why="the moment and the rows are journalled before the delete, so that nothing is compared with guesses",
    by_hand="start the drill anew; only its own database is broken",
    deadline=timedelta(minutes=2),
    result=Broken,
    run=_break,
    done=_is_broken,
)
RECOVER = Step(
    name="recover",
    effect=Effect.CREATES,
    why="the runbook of the real incident, with consent, while the application goes on writing",
    by_hand="invoke run.show with the nested run's id tells where it stopped",
    deadline=timedelta(minutes=30),
    result=Recovered,
    run=_recover,
)
COMPARE = Step(
    name="compare",
    effect=Effect.READS,
    why="both sides of the moment: what was there is back, what came later is untouched",
    by_hand="start the drill anew",
    deadline=timedelta(minutes=2),
    result=Compared,
    run=_compare,
)
REPORT = Step(
    name="report",
    effect=Effect.CREATES,
    why="the checklist of the strategy with measured numbers, for whoever signs it",
    by_hand="the numbers are in the journal: invoke run.show",
    deadline=timedelta(minutes=1),
    result=Reported,
    run=_report,
)


def ending(plan: DrillPlan, results: Mapping[str, Record]) -> Ending:
    reported = results[REPORT.name]
    assert isinstance(reported, Reported)
    test = reported.test
    failed = tuple(f"{check.claim}: {check.found}" for check in test.checks if not check.held)
    verdict = {"PASS": Verdict.PROVED, "COULD NOT VERIFY": Verdict.COULD_NOT_VERIFY}.get(
        test.result, Verdict.FAILED if failed else Verdict.OBJECTIVE_MISSED
    )
    return Ending(
        verdict=verdict,
        summary=test.judged,
        facts=(("accident to proved", f"{test.rto_seconds:.1f} s"), ("report", reported.markdown)),
        left_open=failed or (() if verdict is Verdict.PROVED else (test.judged,)),
    )


RUNBOOK: Runbook[World, Request, Survey, DrillPlan] = Runbook(
    name="drill.quarterly",
    symptom="a quarter has passed, or somebody asks whether recovery would work",
    may_be_lost="nothing: it breaks only what it makes",
    takes="under a minute",
    request=Request,
    survey_type=Survey,
    plan_type=DrillPlan,
    survey=survey,
    plan=plan,
    steps=(SEED, BREAK, RECOVER, COMPARE, REPORT),
    ending=ending,
    guard=_ground,
    page="drill",
)
