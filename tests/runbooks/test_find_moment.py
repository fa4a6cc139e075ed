"""The moment of a loss is found in a real history, with the promised number of questions, and nothing stays behind."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbooks import find_moment
from runbooks.clients.neon import Neon
from runbooks.clients.neon_types import Branch, Endpoint
from runbooks.clients.postgres import connect
from runbooks.engine.console import Console
from runbooks.engine.journal import FILE_NAME, read
from runbooks.engine.plan import Ending, Verdict
from runbooks.engine.step import Ended
from runbooks.find_moment import MILLISECOND, Flip, Located, Place, Probe, Request, SearchPlan
from runbooks.model.bisection import Answer, Why
from runbooks.model.errors import DatabaseUnreachable, NeonFault, NotFound, OutsideWindow, UsageFault
from runbooks.model.moment import Moment
from runbooks.model.run_id import RunId
from runbooks.model.secret import Secret
from runbooks.rows.predicate import Predicate, Reading
from runbooks.sandbox.stack import Stack
from tests.engine.toy import Silent
from tests.runbooks.ground import Facts
from tests.runbooks.scenario import YES
from tests.stack import stack_root, until

RUN = RunId.parse("20251203-143000-fnnd")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TABLES = """
CREATE TABLE client (id int PRIMARY KEY, city text, visits int DEFAULT 0);
CREATE TABLE restless (id int PRIMARY KEY);
INSERT INTO client SELECT n, CASE WHEN n <= 3 THEN 'Oaxaca' ELSE 'Puebla' END FROM generate_series(1, 10) AS n;
INSERT INTO restless VALUES (1), (2);
"""


@dataclass(frozen=True)
class History:
    """What happened in three seconds: `restless` lost rows, got them back, and lost them again."""

    facts: Facts
    since: Moment
    lost: tuple[Moment, Moment]
    """The clock before and after the delete of the clients of Oaxaca."""
    restless: tuple[tuple[Moment, Moment], ...]
    until: Moment

    def find(self, predicate: Predicate, *, exact: bool = False, voice: Any = None, **world: Any) -> Ended:
        request = Request(since=self.since, until=self.until, predicate=predicate, exact=exact)
        engine, here = self.facts.engine(voice), replace(self.facts.world(), **world)
        return engine.start(find_moment.RUNBOOK, request, here, YES, RUN)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with stack_root() as root, Stack.start(root) as stack:
        facts = Facts.of(stack, tmp_path_factory.mktemp("unused"))
        with facts.session() as conn:

            def clock() -> Moment:
                row = conn.execute("SELECT clock_timestamp()").fetchone()
                assert row is not None
                return Moment.of(row[0])

            def do(*statements: str) -> tuple[Moment, Moment]:
                """Each a commit of its own, and other people's commits before and after."""
                work = "UPDATE client SET visits = visits + 1 WHERE id > 5"
                conn.execute(work)
                before = clock()
                for each in statements:
                    conn.execute(each.encode())
                after = clock()
                conn.execute(work)
                return before, after

            def wait(seconds: float) -> None:
                until(lambda: clock().utc >= since.utc + timedelta(seconds=seconds))

            conn.execute(TABLES.encode())
            made = clock()
            since = until(lambda: (now := clock()).neon() > made.neon() and now)
            wait(0.5)
            away = do("DELETE FROM restless")
            wait(1.2)
            lost = do("DELETE FROM client WHERE city = 'Oaxaca' AND id = 1", "DELETE FROM client WHERE city = 'Oaxaca'")
            wait(1.5)
            back = do("INSERT INTO restless VALUES (1), (2)")
            wait(2.5)
            again = do("DROP TABLE restless")
            wait(3.05)
            yield History(facts, since, lost, (away, back, again), clock())


@pytest.fixture
def history(lived: History, tmp_path: Path) -> Iterator[History]:
    """With a folder of runs of the test's own; no test may leave a branch."""
    yield replace(lived, facts=replace(lived.facts, runs=str(tmp_path)))
    assert lived.facts.branch_names() == {"main"}


class Telling(Silent):
    """Keeps what a run says."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def located(ended: Ended) -> Located:
    found = ended.results["narrow-down"]
    assert isinstance(found, Located)
    return found


def within(moments: tuple[Moment, Moment], found: Located) -> bool:
    """The bracket holds the very commit: its clock was read before and after. Moments are cut to milliseconds."""
    return found.last_good <= moments[1] and moments[0].utc <= found.first_bad.utc + MILLISECOND


def moved(moment: Moment, milliseconds: int) -> Moment:
    return Moment.of(moment.utc + milliseconds * MILLISECOND)


def test_a_loss_among_other_commits_is_found_with_the_promised_questions_and_the_next_command(history: History) -> None:
    voice = Telling()
    ended = history.find(Predicate.parse("client", "city = 'Oaxaca'", "", ""), voice=voice)
    found = located(ended)
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert within(history.lost, found)
    assert timedelta(0) < found.first_bad.utc - found.last_good.utc <= timedelta(seconds=1)
    most = 6  # two ends, two samples, one halving of a little more than a second, and just before the commit
    assert len(found.probes) <= most
    assert any(f"question 1 of at most {most}" in text for text in voice.said)
    facts = dict(ended.ending.facts)
    assert facts["questions"] == f"{len(found.probes)} of at most {most}"
    assert facts["last good"].endswith(": 3 rows")
    assert " CST (" in facts["last good"]
    assert found.good.lsn is not None
    assert found.good.lsn in facts["last good"]
    words = shlex.split(facts["next"])
    assert words[:2] == ["invoke", "recover.accidental-delete"]
    assert dict(zip(words[2::2], words[3::2], strict=True)) == {
        "--env": "sandbox", "--at": found.last_good.iso(), "--tables": "public.client", "--where": "city = 'Oaxaca'",
    }  # fmt: skip


@pytest.mark.long
def test_to_the_millisecond_it_is_the_first_of_two_commits_that_took_the_rows(history: History) -> None:
    ended = history.find(Predicate.parse("", "", "", "SELECT count(*) = 3 FROM client WHERE id <= 3"), exact=True)
    found = located(ended)
    assert found.first_bad.utc - found.last_good.utc == MILLISECOND
    assert within(history.lost, found)
    assert "the commit of" in dict(ended.ending.facts)["the loss came with"]
    assert "--tables TABLES" in dict(ended.ending.facts)["next"]


def test_a_loss_that_was_made_good_and_came_again_is_told_and_the_last_one_located(history: History) -> None:
    ended = history.find(Predicate.parse("restless", "", "2", ""))
    found = located(ended)
    away, back, again = history.restless
    assert ended.ending.verdict is Verdict.INCOMPLETE
    assert [flip.holds for flip in found.flips] == [False, True, False]
    for flip, moments in zip(found.flips, (away, back, again), strict=True):
        assert flip.before <= moments[1]
        assert moments[0].utc <= flip.after.utc + MILLISECOND
    assert within(again, found)
    assert sum("was lost between" in text for text in ended.ending.left_open) == 2
    assert sum("came back between" in text for text in ended.ending.left_open) == 1


def test_a_branch_whose_making_failed_half_way_is_removed_too(history: History) -> None:
    class NeverReady(Neon):
        def ready(self, branch: Branch) -> tuple[Branch, Endpoint]:
            assert branch.name in history.facts.branch_names()
            raise NeonFault("it takes too long", safe="nothing was changed", next_step="invoke run.list")

    facts = history.facts
    neon = NeverReady(api=facts.api_url, key=Secret(facts.api_key), project_id=facts.project_id)
    with pytest.raises(NeonFault, match="takes too long"):
        history.find(Predicate.parse("client", "", "1", ""), open_neon=lambda: neon)
    assert facts.branch_names() == {"main"}


def test_what_did_not_hold_at_the_beginning_is_told_after_one_question(history: History) -> None:
    with pytest.raises(NotFound, match=r"already so at .* CST .*: 0 rows"):
        history.find(Predicate.parse("client", "city = 'Mérida'", "", ""))
    assert questions(history) == 1


def test_what_still_holds_at_the_end_is_told_after_two_questions(history: History) -> None:
    with pytest.raises(NotFound, match=r"still holds at .*: 7 rows, and 7 rows at"):
        history.find(Predicate.parse("client", "city = 'Puebla'", "", ""))
    assert questions(history) == 2
    with pytest.raises(NotFound, match="still holds"):  # and again from the journal alone
        history.facts.engine().resume(find_moment.RUNBOOK, RUN, history.facts.world(), YES)
    assert questions(history) == 2


def test_a_question_that_is_none_says_at_which_moment_it_was_asked(history: History) -> None:
    with pytest.raises(UsageFault, match="instead of one boolean") as refused:
        history.find(Predicate.parse("", "", "", "SELECT count(*) FROM client"))
    assert any("question 1 of at most" in note for note in refused.value.__notes__)


def test_a_moment_before_the_history_is_refused_before_anything_is_asked(history: History) -> None:
    early = replace(history, since=Moment.of(history.since.utc - timedelta(days=400)))
    with pytest.raises(OutsideWindow, match="before the history"):
        early.find(Predicate.parse("client", "true", "", ""))
    assert questions(history) == 0


def test_a_search_that_failed_goes_on_where_it_was(history: History) -> None:
    attempts: list[str] = []

    def second_fails(*args: Any, **how: Any) -> Any:
        assert how["default_transaction_read_only"] == "on"
        attempts.append(args[0].host)
        if len(attempts) == 2:
            raise DatabaseUnreachable("the network is gone", safe="nothing was changed", next_step="invoke run.list")
        return connect(*args, **how)

    short = replace(history, since=moved(history.lost[0], -500), until=moved(history.lost[1], 5))
    with pytest.raises(DatabaseUnreachable):
        short.find(Predicate.parse("client", "city = 'Oaxaca'", "", ""), connect=second_fails)
    assert history.facts.branch_names() == {"main"}
    world = replace(history.facts.world(), connect=second_fails)
    ended = history.facts.engine().resume(find_moment.RUNBOOK, RUN, world, YES)
    found = located(ended)
    assert within(history.lost, found)
    assert len(attempts) == len(found.probes) + 1
    assert questions(history) == len(found.probes)


def a_plan() -> SearchPlan:
    """For a day."""
    place = Place(
        environment="production", project="p", branch="br-x", branch_name="main", database="neondb", role="r",
        history_begins=Moment.parse("2025-12-01T00:00:00Z", now=NOW), zone="America/Mexico_City",
    )  # fmt: skip
    return SearchPlan(
        since=Moment.parse("2025-12-02T14:30:00Z", now=NOW),
        until=Moment.parse("2025-12-03T14:30:00Z", now=NOW),
        predicate=Predicate.parse("client", "", "5", ""),
        exact=False,
        place=place,
        asked_database=None,
    )


def an_ending(*, resolved: bool = True, unsteady: bool = False) -> Ending:
    plan = a_plan()
    flip = Flip(before=plan.since, after=plan.until, holds=False)
    good, bad = (
        Probe(
            number=number,
            answer=Answer(at=number, why=Why.END, holds=number == 1, unchanged_since=number),
            reading=Reading(table="public.client", rows=9 if number == 1 else 3),
            resolved=plan.since if resolved else None,
            lsn=None,
            branch="br-y",
            branch_name="probe",
        )
        for number in (1, 2)
    )
    found = Located(
        last_good=plan.since,
        first_bad=plan.until,
        probes=(good, bad),
        flips=(flip,),
        unsteady=(flip,) if unsteady else (),
    )
    return find_moment.ending(plan, {"narrow-down": found})


def test_a_moment_that_neon_did_not_say_or_an_answer_that_moves_by_itself_is_not_called_proved() -> None:
    assert an_ending().verdict is Verdict.PROVED
    unproved = an_ending(resolved=False)
    assert unproved.verdict is Verdict.INCOMPLETE
    assert len([text for text in unproved.left_open if "its moment is unproved" in text]) == 2
    restless = an_ending(unsteady=True)
    assert restless.verdict is Verdict.INCOMPLETE
    assert "nothing was committed there" in restless.left_open[0]


def test_the_preview_promises_the_number_of_questions_and_asks_for_no_consent(capsys: Any) -> None:
    plan = a_plan()
    assert plan.confirmation() is None
    Console().preview(plan.preview(), plan.digest)
    told = capsys.readouterr().err
    assert "at most 22, until the moment is known to 1 s" in told
    assert "nothing is changed" in told


def questions(history: History) -> int:
    """So many answers are in the journal."""
    entries = read(Path(history.facts.runs) / str(RUN) / FILE_NAME).entries
    return sum(entry.event == "step-noted" for entry in entries)


@pytest.mark.parametrize(
    ("resolved", "known_since"),
    [
        (None, 5000),
        ("1970-01-01T00:00:01.234567Z", 1235),
        ("1970-01-01T00:00:01.234Z", 1235),
        ("1970-01-01T00:00:01Z", 2000),
        ("1970-01-01T00:00:04.9999Z", 5000),
        ("1970-01-01T00:00:05Z", 5000),
    ],
)
def test_a_commit_that_neon_tells_cut_off_is_taken_for_the_latest_that_it_can_be(
    resolved: str | None, known_since: int
) -> None:
    told = Moment.parse(resolved, now=NOW) if resolved else None
    assert find_moment._unchanged_since(5000, told) == known_since


@pytest.mark.parametrize(
    ("since", "end", "says"),
    [
        ("", "", "at which all was still well"),
        ("2025-12-03T14:30:00Z", "2025-12-03T14:30:00Z", "is not before --until"),
        ("2025-12-03T14:30:00.0001Z", "2025-12-03T14:30:00.0009Z", "is not before --until"),
        ("2025-12-03 14:30", "", "no zone"),
        ("2025-12-03T14:30:00Z", "2099-01-01T00:00:00Z", "in the future"),
    ],
)
def test_a_range_that_is_none_is_refused(since: str, end: str, says: str) -> None:
    with pytest.raises(UsageFault, match=says):
        Request.parse(
            since, end, tables="", where="", dropped_by="", sql="SELECT true", database="", exact=False, now=NOW
        )


def test_without_an_end_the_search_goes_on_until_now() -> None:
    request = Request.parse(
        "2025-12-03T14:30:00Z", "", tables="t", where="", dropped_by="3", sql="", database="", exact=False, now=NOW
    )
    assert request.until == Moment.of(NOW)
