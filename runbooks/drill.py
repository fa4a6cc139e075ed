"""The quarterly drill: break a real database on this machine, recover it with the real runbooks, measure.

May be lost: nothing. It touches only the stack that it makes for itself, and removes that in every outcome but a kill,
after which `run.resume` goes on with it. One that counts for an environment leaves its report in the archive there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from pydantic import ValidationError

from runbooks.clients import programs
from runbooks.clients.world import World
from runbooks.drills import deleted_rows, kept, restored_backup
from runbooks.drills.ground import DrillPlan, DrillRunning, Ground, ground, on, session
from runbooks.engine.plan import Ending, Preview, Verdict
from runbooks.engine.step import Effect, Run, Runbook, Running, Step
from runbooks.model.drill import DATA, TEXT, DrillReport, Test, drills_prefix
from runbooks.model.duration import spell
from runbooks.model.errors import UsageFault
from runbooks.model.objectives import Objective
from runbooks.model.policy import Policy
from runbooks.model.record import Record
from runbooks.report.drill import write
from runbooks.sandbox.daemon import default_root
from runbooks.sandbox.seed import FEWEST, MOST, recorded, seed

SANDBOX = "sandbox"
"""The environment that is there without a word in the policy."""


class Request(Record):
    clients: int
    counts_for: str | None = None
    """An environment; it is neither read nor written there but for the report."""

    @classmethod
    def parse(cls, clients: str, counts_for: str = "", *, policy: Policy) -> Request:
        """Raises UsageFault."""
        if counts_for and counts_for != SANDBOX:
            policy.environment(counts_for)
        if not clients.isdecimal() or not FEWEST <= int(clients) <= MOST:
            raise UsageFault(
                f"{clients!r} is not a number of clients from {FEWEST} to {MOST}",
                safe="nothing was started",
                next_step="invoke drill.quarterly --clients 2000",
            )
        return cls(clients=int(clients), counts_for=counts_for or None)


class Survey(Record):
    counts_for: str | None
    """An environment; None: the report stays in the run's folder."""
    archive: str | None
    """Where its report goes."""
    root: str
    postgres: str
    rows_objective: Objective
    backup_objective: Objective


class QuarterlyPlan(DrillPlan):
    counts_for: str | None
    archive: str | None

    def confirmation(self) -> str | None:
        return None  # it touches only what it makes

    def preview(self) -> Preview:
        return Preview(
            title="quarterly drill: rows deleted by accident, and a database restored from its backup",
            target=f"a new database of its own in {self.root}",
            facts=(
                ("PostgreSQL", self.postgres),
                ("clients", f"{self.clients:,}"),
                ("test 1 may take", _allowed(self.rows_objective)),
                ("test 2 may take", _allowed(self.backup_objective)),
                *(() if self.archive is None else (("its report goes to", self.archive),)),
            ),
            tables=(),
            warnings=(),
            undo="not needed: the stack is removed at the end",
        )


def _allowed(objective: Objective) -> str:
    return f"RTO {spell(objective.rto)}, RPO {spell(objective.rpo)}"


class SeededRows(Record):
    rows: int
    bytes: int


class Reported(Record):
    markdown: str
    tests: tuple[Test, ...]


def survey(run: Run[World], request: Request) -> Survey:
    """PolicyFault, before anything is made, if it is to count for an environment that has no archive."""
    archive = None
    if request.counts_for is not None:
        repository = run.world.repository_of(request.counts_for)
        archive = f"bucket {repository.policy.bucket}, below {drills_prefix(request.counts_for)}"
    postgres = programs.find("postgres")
    version = ".".join(str(part) for part in postgres.version)
    return Survey(
        counts_for=request.counts_for,
        archive=archive,
        root=str(default_root().parent / f"bloom-dr-drill-{run.id}"),
        postgres=f"PostgreSQL {version} ({postgres.source})",
        rows_objective=run.world.policy.objective("accidental-delete"),
        backup_objective=run.world.policy.objective("corruption"),
    )


def plan(request: Request, survey: Survey) -> QuarterlyPlan:
    return QuarterlyPlan.model_validate({"clients": request.clients, **dict(survey)})


@contextmanager
def _ground(run: Run[World], plan: QuarterlyPlan) -> Iterator[Ground | None]:
    with kept.failure_told(run, plan.counts_for), ground(run, Path(plan.root)) as made:
        yield made


def _seed(running: DrillRunning) -> SeededRows:
    seed(on(running).dsn, clients=running.plan.clients, progress=running.tell)
    seeded = _is_seeded(running)
    assert seeded is not None
    return seeded


def _is_seeded(running: DrillRunning) -> SeededRows | None:
    with session(running) as conn:
        made = recorded(conn)
        size = conn.execute("SELECT pg_database_size(current_database())").fetchone()
    assert size is not None
    return None if made is None else SeededRows(rows=sum(made.values()), bytes=size[0])


def _tests(running: Running[World, QuarterlyPlan]) -> tuple[Test, ...]:
    objectives = running.plan
    return (
        deleted_rows.judged(running.results, objectives.rows_objective),
        restored_backup.judged(running.results, objectives.backup_objective),
    )


def _report(running: Running[World, QuarterlyPlan]) -> Reported:
    seeded, tests = running.result(SEED), _tests(running)
    report = DrillReport(
        run_id=str(running.id),
        counts_for=running.plan.counts_for,
        operator=running.world.operator,
        written=running.world.now(),
        zone=running.world.policy.local_timezone,
        postgres=running.plan.postgres,
        rows=seeded.rows,
        bytes=seeded.bytes,
        tests=tests,
    )
    markdown, _ = write(report, running.folder)
    return Reported(markdown=str(markdown), tests=tests)


def _is_reported(running: Running[World, QuarterlyPlan]) -> Reported | None:
    """A report that an earlier attempt wrote stays as it is: it may lie in the archive already."""
    try:
        found = DrillReport.model_validate_json((running.folder / DATA).read_bytes())
    except (OSError, ValidationError):
        return None
    markdown = running.folder / TEXT
    same = found.run_id == str(running.id) and found.tests == _tests(running)
    return Reported(markdown=str(markdown), tests=found.tests) if same and markdown.exists() else None


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
REPORT = Step(
    name="report",
    effect=Effect.CREATES,
    why="the checklist of the strategy with measured numbers, for whoever signs it",
    by_hand="the numbers are in the journal: invoke run.show",
    deadline=timedelta(minutes=1),
    result=Reported,
    run=_report,
    done=_is_reported,
)


def ending(plan: QuarterlyPlan, results: Mapping[str, Record]) -> Ending:
    """As the worst of its tests."""
    reported, stored = results[REPORT.name], results[kept.KEEP.name]
    assert isinstance(reported, Reported)
    assert isinstance(stored, kept.Kept)
    failed = tuple(
        f"{test.name}: {check.claim}: {check.found}"
        for test in reported.tests
        for check in test.checks
        if not check.held
    )
    missed = tuple(f"{test.name}: {test.judged}" for test in reported.tests if test.result == "FAIL")
    unknown = tuple(f"{test.name}: {test.judged}" for test in reported.tests if test.result == "COULD NOT VERIFY")
    verdict = (
        Verdict.FAILED if failed
        else Verdict.OBJECTIVE_MISSED if missed
        else Verdict.COULD_NOT_VERIFY if unknown
        else Verdict.PROVED
    )  # fmt: skip
    return Ending(
        verdict=verdict,
        summary="; ".join(f"{test.name.partition(',')[0]}: {test.judged}" for test in reported.tests),
        facts=(
            *((f"{test.name.partition(',')[0]}, RTO", f"{test.rto_seconds:.1f} s") for test in reported.tests),
            ("report", reported.markdown),
            *(("kept as", key) for key in stored.keys),
        ),
        left_open=failed or (*missed, *unknown),
    )


RUNBOOK: Runbook[World, Request, Survey, QuarterlyPlan] = Runbook(
    name="drill.quarterly",
    symptom="a quarter has passed, or somebody asks whether recovery would work",
    may_be_lost="nothing: it breaks only what it makes",
    takes="under a minute",
    request=Request,
    survey_type=Survey,
    plan_type=QuarterlyPlan,
    survey=survey,
    plan=plan,
    steps=(
        SEED,
        deleted_rows.BREAK,
        deleted_rows.RECOVER,
        deleted_rows.COMPARE,
        restored_backup.BACK_UP,
        restored_backup.SPOIL,
        restored_backup.VERIFY,
        restored_backup.RESTORE,
        restored_backup.CHECK,
        REPORT,
        kept.KEEP,
        kept.MEASURE,
    ),
    ending=ending,
    guard=_ground,
    page="drill",
)
