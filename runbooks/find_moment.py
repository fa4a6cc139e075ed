"""Something was there and is gone, and nobody knows since when: ask the past until the moment is known.

Each question is put to a short-lived branch of its own: one session that can only read, one answer, and the branch is
removed. Both ends of the range first, then samples spread over it, then halving. Production is not even connected to.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta

from runbooks.clients.neon_types import BranchAt
from runbooks.clients.postgres import Expected, prove
from runbooks.clients.short_branch import short_branch
from runbooks.clients.world import World
from runbooks.engine.plan import Ending, Plan, Preview, Verdict
from runbooks.engine.step import Effect, Run, Runbook, Running, Step
from runbooks.model.bisection import Answer, Question, Span, Why, bracket, changes, next_question, unsteady
from runbooks.model.duration import spell
from runbooks.model.errors import BloomError, NotFound, UsageFault
from runbooks.model.moment import Moment
from runbooks.model.record import Record
from runbooks.rows.predicate import Predicate, Reading

SECOND, MILLISECOND = timedelta(seconds=1), timedelta(milliseconds=1)
SPARE_LIFE = timedelta(hours=1)
"""How much longer a branch may live than its question may take: for a killed run only."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Request(Record):
    """What the operator asked for."""

    since: Moment
    until: Moment
    predicate: Predicate
    database: str | None = None
    exact: bool = False

    @classmethod
    def parse(
        cls,
        since: str,
        until: str,
        *,
        tables: str,
        where: str,
        dropped_by: str,
        sql: str,
        database: str,
        exact: bool,
        now: datetime,
    ) -> Request:
        """From the command line. Raises UsageFault."""
        predicate = Predicate.parse(tables, where, dropped_by, sql)
        if not since:
            raise UsageFault(
                "a search needs a moment at which all was still well",
                safe="nothing was started",
                next_step="invoke recover.find --since '2025-12-03 08:00 America/Mexico_City' with what was there then",
            )
        good = Moment.parse(since, now=now)
        bad = Moment.parse(until, now=now) if until else Moment.of(now)
        if _milliseconds(good) >= _milliseconds(bad):
            raise UsageFault(
                f"--since {good.iso()} is not before --until {bad.iso()}",
                safe="nothing was started",
                next_step="give in --since when it was still there, in --until when it was seen to be gone",
            )
        return cls(since=good, until=bad, predicate=predicate, database=database or None, exact=exact)


class Place(Record):
    """Whose past is asked."""

    environment: str
    project: str
    branch: str
    branch_name: str
    database: str
    role: str
    history_begins: Moment
    zone: str


class Survey(Record):
    place: Place


class SearchPlan(Plan):
    since: Moment
    until: Moment
    predicate: Predicate
    exact: bool
    place: Place
    asked_database: str | None
    """As on the command line, for the next one."""

    @property
    def span(self) -> Span:
        step = MILLISECOND if self.exact else SECOND
        return Span(_milliseconds(self.since), _milliseconds(self.until), step // MILLISECOND)

    def confirmation(self) -> str | None:
        """None: only branches that the run itself makes are touched."""
        return None

    def preview(self) -> Preview:
        place, most = self.place, self.span.most
        return Preview(
            title="find the moment of a loss",
            target=f"nothing is changed: the past of database {place.database} of branch {place.branch_name} "
            f"({place.branch}), project {place.project}, is only read",
            facts=(
                ("held at", self.since.both(place.zone)),
                ("held no more at", self.until.both(place.zone)),
                ("what held", str(self.predicate)),
                ("history reaches back to", place.history_begins.both(place.zone)),
                ("questions", f"at most {most}, until the moment is known to {'1 ms' if self.exact else '1 s'}"),
                ("they cost", f"at most {most} branches, one at a time, each with a compute for the one question"),
            ),
            tables=(),
            warnings=(),
            undo="not needed: each branch is removed as soon as it has answered",
        )


class Probe(Record):
    """One question and its answer."""

    number: int
    answer: Answer
    reading: Reading
    resolved: Moment | None
    """The last commit that the branch held, as Neon said; None if it did not."""
    lsn: str | None
    branch: str
    branch_name: str


class Ends(Record):
    probes: tuple[Probe, ...]


class Flip(Record):
    """Between two moments it changed."""

    before: Moment
    after: Moment
    holds: bool
    """Whether it holds after."""


class Located(Record):
    """What all questions together say."""

    last_good: Moment
    first_bad: Moment
    """After `last_good`, and no earlier than the commit that the loss came with."""
    probes: tuple[Probe, ...]
    flips: tuple[Flip, ...]
    """Every change that was seen, oldest first; the last of them was narrowed down."""
    unsteady: tuple[Flip, ...]
    """Changes between two moments with no commit between them."""

    @property
    def good(self) -> Probe:
        """The last probe at which it held."""
        return max((probe for probe in self.probes if probe.answer.holds), key=_asked_at)

    @property
    def bad(self) -> Probe:
        """The first probe after it."""
        return min((probe for probe in self.probes if _asked_at(probe) > _asked_at(self.good)), key=_asked_at)


def survey(run: Run[World], request: Request) -> Survey:
    """Reads what Neon says of the branch and its history; makes nothing. Raises OutsideWindow."""
    world = run.world
    target = world.target_branch()
    window = world.neon.window(target, world.now())
    for moment in (request.since, request.until):
        window.check(moment)
    place = Place(
        environment=world.name,
        project=target.project_id,
        branch=target.id,
        branch_name=target.name,
        database=request.database or world.environment.database,
        role=world.environment.role,
        history_begins=window.earliest,
        zone=world.policy.local_timezone,
    )
    return Survey(place=place)


def plan(request: Request, survey: Survey) -> SearchPlan:
    """Pure."""
    return SearchPlan(
        since=request.since,
        until=request.until,
        predicate=request.predicate,
        exact=request.exact,
        place=survey.place,
        asked_database=request.database,
    )


def _ask_both_ends(running: Running[World, SearchPlan]) -> Ends:
    """Raises NotFound if it did not hold at the beginning, or still holds at the end."""
    probes = _asked(running, (), {Why.END})
    _check_ends(running.plan, probes)
    return Ends(probes=probes)


def _narrow_down(running: Running[World, SearchPlan]) -> Located:
    probes = _asked(running, running.result(ENDS).probes, set(Why))
    answers = tuple(probe.answer for probe in probes)
    last_good, first_bad = bracket(answers)
    return Located(
        last_good=_moment(last_good),
        first_bad=_moment(first_bad),
        probes=probes,
        flips=tuple(_flips(changes(answers))),
        unsteady=tuple(_flips(unsteady(answers))),
    )


def _asked(
    running: Running[World, SearchPlan], before: tuple[Probe, ...], reasons: Collection[Why]
) -> tuple[Probe, ...]:
    """All questions of these reasons, and what was asked before. What an earlier attempt noted is not asked again."""
    noted = tuple(Probe.model_validate(note) for note in running.notes)
    if noted:  # that attempt may have been killed after it noted the answer, and before it removed the branch
        running.world.neon.remove_branch(noted[-1].branch, name=noted[-1].branch_name)
    probes = before + noted
    while question := next_question(running.plan.span, [probe.answer for probe in probes]):
        if question.why not in reasons:
            break
        probes = (*probes, _probe(running, question, probes))
    return probes


def _probe(running: Running[World, SearchPlan], question: Question, probes: tuple[Probe, ...]) -> Probe:
    """The answer is noted while its branch is there: a killed run may leave a branch, and never asks twice."""
    world, plan, number = running.world, running.plan, len(probes) + 1
    moment = _moment(question.at)
    told = f"question {number} of at most {plan.span.most}, {question.why}: {moment.both(plan.place.zone)}"
    running.tell(told)
    with short_branch(
        world.neon,
        parent=world.neon.branch(plan.place.branch),
        moment=moment,
        name=running.id.probe_name(number),
        expires_at=Moment.of(world.now().utc + world.policy.recovery.statement_timeout + SPARE_LIFE),
        run=running.id,
    ) as past:
        try:
            reading = _read(running, past, probes[0].reading if probes else None)
        except BloomError as error:
            error.add_note(f"this was {told}")
            raise
        probe = _answered(plan.predicate, question, number, past, reading, probes)
        running.note(probe.as_json())
    running.tell(f"{told}: {reading}")
    return probe


def _read(running: Running[World, SearchPlan], past: BranchAt, first: Reading | None) -> Reading:
    world, place = running.world, running.plan.place
    limits = world.policy.recovery
    session = world.connect(
        world.neon.connection(branch=past.branch, database=place.database, role=place.role),
        application_name=f"bloom-dr find {running.id}",
        wait=limits.connect_wait,
        progress=running.tell,
        default_transaction_read_only="on",
        lock_timeout=f"{limits.lock_timeout.total_seconds():.0f}s",
        statement_timeout=f"{limits.statement_timeout.total_seconds():.0f}s",
    )
    with closing(session):
        prove(session, Expected(database=place.database, project_id=place.project, branch_id=past.branch.id))
        return running.plan.predicate.read(session, first)


def _answered(
    predicate: Predicate,
    question: Question,
    number: int,
    past: BranchAt,
    reading: Reading,
    probes: tuple[Probe, ...],
) -> Probe:
    first = probes[0].reading if probes else reading
    return Probe(
        number=number,
        answer=Answer(
            at=question.at,
            why=question.why,
            holds=predicate.holds(reading, first),
            unchanged_since=_unchanged_since(question.at, past.resolved),
        ),
        reading=reading,
        resolved=past.resolved,
        lsn=past.branch.parent_lsn,
        branch=past.branch.id,
        branch_name=past.branch.name,
    )


def _unchanged_since(at: int, resolved: Moment | None) -> int:
    """The first whole millisecond that surely has the commit in it. Neon has been seen to cut its answer to whole
    seconds, so a whole second may be any moment of it.
    """
    if resolved is None:
        return at
    cut = timedelta(0) if resolved.utc.microsecond % 1000 else MILLISECOND if resolved.utc.microsecond else SECOND
    return min(at, -((_EPOCH - resolved.utc - cut) // MILLISECOND))


def _check_ends(plan: SearchPlan, probes: tuple[Probe, ...]) -> None:
    zone, first, last = plan.place.zone, probes[0], probes[-1]
    if not first.answer.holds:
        raise NotFound(
            f"it was already so at {plan.since.both(zone)}, where the search was to begin: {first.reading}",
            safe="nothing was changed; the branch that was asked is removed",
            next_step="give an earlier --since, or check the condition and the database; the history reaches back to "
            f"{plan.place.history_begins.both(zone)}, what is older may be in a backup: "
            f"invoke backup.list --before {plan.since.iso()}",
        )
    if last.answer.holds:
        raise NotFound(
            f"it still holds at {plan.until.both(zone)}, where it was to be gone: {last.reading}, "
            f"and {first.reading} at {plan.since.both(zone)}",
            safe="nothing was changed; the branches that were asked are removed",
            next_step="give a later --until, or a condition that only the lost rows fit, as rows that came meanwhile "
            "count as well; what each flag means: invoke --help recover.find",
        )


ENDS: Step[World, SearchPlan, Ends] = Step(
    name="ask-both-ends",
    effect=Effect.CREATES,
    why="it must hold at the beginning and not at the end; each question makes a branch of its own and removes it",
    by_hand="make a branch at each end in the Neon Console, and ask there",
    deadline=timedelta(hours=1),
    result=Ends,
    run=_ask_both_ends,
)
NARROW: Step[World, SearchPlan, Located] = Step(
    name="narrow-down",
    effect=Effect.CREATES,
    why="samples over the whole range first, as it may have changed more than once; then the last change is halved",
    by_hand="go on by hand half-way between the last good moment and the first bad one in: invoke run.show RUN_ID",
    deadline=timedelta(hours=6),
    result=Located,
    run=_narrow_down,
)


def ending(plan: SearchPlan, results: Mapping[str, Record]) -> Ending:
    """PROVED if the answers changed once, and Neon said which commit each of the two states ends with."""
    located = results[NARROW.name]
    assert isinstance(located, Located)
    zone, good, bad = plan.place.zone, located.good, located.bad
    left_open = tuple(_left_open(plan, located))
    between = located.first_bad.utc - located.last_good.utc
    return Ending(
        verdict=Verdict.INCOMPLETE if left_open else Verdict.PROVED,
        summary=f"it held until {located.last_good.both(zone)} and not from {located.first_bad.both(zone)} on",
        facts=(
            ("last good", f"{located.last_good.both(zone)}{_at_lsn(good)}: {good.reading}"),
            ("first bad", f"{located.first_bad.both(zone)}{_at_lsn(bad)}: {bad.reading}"),
            ("between them", spell(between)),
            ("the loss came with", _commits(located, zone)),
            ("at the beginning", str(located.probes[0].reading)),
            ("questions", f"{len(located.probes)} of at most {plan.span.most}"),
            ("next", _next(plan, located)),
        ),
        left_open=left_open,
    )


RUNBOOK: Runbook[World, Request, Survey, SearchPlan] = Runbook(
    name="recover.find",
    symptom="something is gone, and nobody knows since when",
    may_be_lost="nothing: only branches of the past are made, asked and removed",
    takes="some seconds for each of about twenty questions, and longer where counting takes long",
    request=Request,
    survey_type=Survey,
    plan_type=SearchPlan,
    survey=survey,
    plan=plan,
    steps=(ENDS, NARROW),
    ending=ending,
    page="find-moment",
)


def _left_open(plan: SearchPlan, located: Located) -> Iterator[str]:
    zone = plan.place.zone
    if len(located.flips) > 1:
        yield "it changed more than once, so this may be one of several losses; narrowed down is only the last one"
        for flip in located.flips:
            now = "came back" if flip.holds else "was lost"
            yield f"it {now} between {flip.before.both(zone)} and {flip.after.both(zone)}"
    for flip in located.unsteady:
        yield (
            f"the answer changed between {flip.before.both(zone)} and {flip.after.both(zone)}, though nothing was "
            "committed there: it depends on something else than the data, such as the time of asking"
        )
    for probe in (located.good, located.bad):
        if probe.resolved is None:
            yield f"Neon did not say which commit branch {probe.branch_name} ended with: its moment is unproved"


def _commits(located: Located, zone: str) -> str:
    """The bad state's last commit is the only one that can have done it, if it was good a millisecond before."""
    commit = located.bad.resolved
    if commit is None or located.first_bad.utc - located.last_good.utc > MILLISECOND:
        return "one of the commits between them; --exact narrows it down to the millisecond"
    return f"the commit of {commit.both(zone)}"


def _at_lsn(probe: Probe) -> str:
    return f" (state up to LSN {probe.lsn})" if probe.lsn else ""


def _next(plan: SearchPlan, located: Located) -> str:
    """The command that brings back what was lost, complete but for the tables if they are not known."""
    predicate, table = plan.predicate, located.probes[0].reading.table
    words = ["invoke", "recover.accidental-delete", "--env", plan.place.environment, "--at", located.last_good.iso()]
    words += ["--database", plan.asked_database] if plan.asked_database else []
    words += ["--where", predicate.where] if predicate.where else []
    return shlex.join([*words, "--tables", table or "TABLES"])


def _flips(found: Collection[tuple[int, int, bool]]) -> Iterator[Flip]:
    for before, after, holds in found:
        yield Flip(before=_moment(before), after=_moment(after), holds=holds)


def _asked_at(probe: Probe) -> int:
    return probe.answer.at


def _milliseconds(moment: Moment) -> int:
    """Since 1970, cut off as Neon takes it."""
    return (moment.utc - _EPOCH) // MILLISECOND


def _moment(milliseconds: int) -> Moment:
    return Moment.of(_EPOCH + milliseconds * MILLISECOND)
