"""Claims that hold for each runbook of the registry: any kill is survived, and no secret is told."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from runbooks import drill
from runbooks.clients.postgres import Connection, connect
from runbooks.clients.postgres_lock import hold_lock
from runbooks.engine.consent import Consenting
from runbooks.engine.runs import Runs
from runbooks.engine.step import AnyRunbook
from runbooks.model.dsn import Dsn, same_database
from runbooks.model.errors import ConsentNeeded, LockHeld, WrongTarget
from runbooks.model.run_id import RunId
from runbooks.registry import RUNBOOKS
from runbooks.sandbox.seed import seed
from tests.runbooks.ground import ROOT, Facts, journal_text
from tests.runbooks.scenario import YES, Scenario
from tests.runbooks.scenarios import SCENARIOS
from tests.stack import Stack, stack_root

RUN = RunId.parse("20251203-143000-k7qx")
each_runbook = pytest.mark.parametrize("book", RUNBOOKS, ids=lambda book: book.name)
each_that_asks = pytest.mark.parametrize(
    "book", [book for book in RUNBOOKS if SCENARIOS[book.name].asks], ids=lambda book: book.name
)
each_recovery = pytest.mark.parametrize(
    "book",
    [book for book in RUNBOOKS if book.name.startswith("recover.") and SCENARIOS[book.name].asks],
    ids=lambda book: book.name,
)


@pytest.fixture(scope="module")
def seeded() -> Iterator[Stack]:
    with stack_root() as root, Stack.start(root) as stack:
        seed(Facts.of(stack, root).dsn(), clients=100)
        yield stack


@pytest.fixture
def facts(seeded: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Facts]:
    with stack_root() as home:  # where a drill may put its own stack, which PostgreSQL's account has to reach
        home.chmod(0o711)
        monkeypatch.setenv("BLOOM_DR_SANDBOX", str(home / "sandbox"))
        facts = Facts.of(seeded, tmp_path / "runs", archive=True)
        yield facts
        for branch in facts.neon().branches():  # a preview leaves its branch for whoever consents
            if branch.name == RUN.branch_name:
                facts.neon().remove_branch(branch.id, name=branch.name)


def scenario_of(book: AnyRunbook) -> Scenario:
    return SCENARIOS[book.name]()


def test_every_runbook_has_an_incident_to_be_tested_with() -> None:
    assert set(SCENARIOS) == {book.name for book in RUNBOOKS}


@each_runbook
def test_carried_out_it_ends_well_and_a_second_resume_changes_nothing(book: AnyRunbook, facts: Facts) -> None:
    scenario = scenario_of(book)
    request = scenario.prepare(facts)
    ended = facts.engine().start(book, request, facts.world(), YES, RUN)
    scenario.check(facts, ended)
    again = facts.engine().resume(book, RUN, facts.world(), YES)
    assert again.ending == ended.ending
    scenario.check(facts, again)


@each_runbook
def test_no_secret_is_written_into_the_runs_folder(book: AnyRunbook, facts: Facts) -> None:
    request = scenario_of(book).prepare(facts)
    facts.engine().start(book, request, facts.world(), YES, RUN)
    told = journal_text(facts)
    password = facts.dsn().password
    assert password is not None
    assert password.reveal() not in told
    assert facts.api_key not in told
    for path in Path(facts.runs).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, f"{path} is open to others"


def killed(facts: Facts, scenario: Scenario, kind: str, point: int, side: str) -> bool:
    """Carry out the scenario's runbook in another process, killed at `point`; False if it ended before."""
    order = {
        "facts": dataclasses.asdict(facts), "scenario": scenario.name, "kind": kind, "point": point,
        "side": side, "run_id": str(RUN), "request": scenario.prepare(facts).as_json(),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.runbooks.killed"], input=json.dumps(order), text=True, cwd=ROOT,
        capture_output=True, env=os.environ, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return False
    assert done.returncode == -signal.SIGKILL, done.stderr
    return True


def resumed_well(facts: Facts, scenario: Scenario) -> None:
    """Whatever the killed process left: going on with its run leads to the one right end."""
    runs = Runs(Path(facts.runs))
    if not runs.exists(RUN) or not runs.reading(RUN).entries:
        return  # killed before the run's first line was durable: nothing had begun
    ended = facts.engine().resume(scenario.runbook, RUN, facts.world(), YES)
    scenario.check(facts, ended)


KILLS = [
    (book, kind, side)
    for book in RUNBOOKS
    for kind in SCENARIOS[book.name].kills
    for side in ("before", "after")
    if (kind, side) != ("statement", "before") and (book is not drill.RUNBOOK or side == "before")
]


def _stride(book: AnyRunbook, kind: str) -> int:
    """Killed after one point is killed before the next: where both sides are tried, every second point meets every gap
    between two."""
    if kind == "journal" and SCENARIOS[book.name].every > 1:
        return SCENARIOS[book.name].every
    return 2 if all((book, kind, side) in KILLS for side in ("before", "after")) else 1


@pytest.mark.long
@pytest.mark.parametrize(("book", "kind", "side"), KILLS, ids=lambda value: getattr(value, "name", value))
def test_killed_at_any_point_and_resumed_it_reaches_the_same_end(
    book: AnyRunbook, kind: str, side: str, seeded: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for point in itertools.count(1, _stride(book, kind)):
        with stack_root() as home:
            home.chmod(0o711)
            monkeypatch.setenv("BLOOM_DR_SANDBOX", str(home / "sandbox"))
            facts, scenario = Facts.of(seeded, tmp_path / str(point), archive=True), scenario_of(book)
            if not killed(facts, scenario, kind, point, side):
                break
            resumed_well(facts, scenario)
    least = {"journal": 9, "statement": 5, "change": 1, "object": 3, "report": 4}[kind]
    assert point >= least, "the points were not counted where the run touches the world"


class Recorder:
    """Stands before the Neon API of a preview and remembers every request that could change something."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes: list[tuple[str, str, bytes]] = []
        send = httpx.Client.send

        def recording(client: httpx.Client, request: httpx.Request, **kwargs: Any) -> httpx.Response:
            if request.method != "GET":
                self.writes.append((request.method, request.url.path, request.content))
            return send(client, request, **kwargs)

        monkeypatch.setattr(httpx.Client, "send", recording)


@each_that_asks
def test_a_preview_changes_nothing_but_the_one_branch_that_it_may_make(
    book: AnyRunbook, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = scenario_of(book).prepare(facts)
    production = facts.dsn()

    def read_only(dsn: Dsn, **settings: Any) -> Connection:
        if same_database(dsn, production):
            settings["default_transaction_read_only"] = "on"  # any write there is an error now
        return connect(dsn, **settings)

    recorder = Recorder(monkeypatch)
    world = dataclasses.replace(facts.world(), connect=read_only)
    with pytest.raises(ConsentNeeded):
        facts.engine().start(book, request, world, Consenting("tester"), RUN)
    for method, path, body in recorder.writes:
        assert (method, path) == ("POST", f"/api/v2/projects/{facts.project_id}/branches")
        branch = json.loads(body)["branch"]
        assert branch["name"] == RUN.branch_name
        assert branch["expires_at"]
    assert len(recorder.writes) <= 1


@each_that_asks
def test_who_has_only_read_the_page_of_a_preview_cannot_consent(book: AnyRunbook, facts: Facts) -> None:
    request = scenario_of(book).prepare(facts)
    with pytest.raises(ConsentNeeded) as waiting:
        facts.engine().start(book, request, facts.world(), Consenting("tester"), RUN)
    assert waiting.value.page
    page = waiting.value.page.read_text()
    assert str(RUN) in page
    assert waiting.value.next_step.rsplit("--confirm ", 1)[1].strip("'") not in page


@each_recovery
def test_c33_of_two_operators_one_goes_on_and_the_other_is_told_who_holds_it(book: AnyRunbook, facts: Facts) -> None:
    scenario = scenario_of(book)
    request = scenario.prepare(facts)
    with connect(facts.dsn(), application_name="other") as other:
        with hold_lock(other, "20251203-110000-abcd", "ana@bloom"):
            with pytest.raises(LockHeld) as refused:
                facts.engine().start(book, request, facts.world(), YES, RUN)
        assert "20251203-110000-abcd ana@bloom" in refused.value.happened
        assert "UTC" in refused.value.happened
    scenario.check(facts, facts.engine().resume(book, RUN, facts.world(), YES))


@each_that_asks
def test_the_confirm_value_of_another_branch_changes_nothing(book: AnyRunbook, facts: Facts) -> None:
    scenario = scenario_of(book)
    request = scenario.prepare(facts)
    with pytest.raises(ConsentNeeded) as waiting:
        facts.engine().start(book, request, facts.world(), Consenting("tester"), RUN)
    right = waiting.value.next_step.rsplit("--confirm ", 1)[1]
    branch, database, rows = right.split("/")
    for wrong in (f"br-other-branch-123456/{database}/{rows}", f"{branch}/other/{rows}", f"{branch}/{database}/1"):
        with pytest.raises(WrongTarget):
            facts.engine().resume(book, RUN, facts.world(), Consenting("tester", value=wrong))
    scenario.check(facts, facts.engine().resume(book, RUN, facts.world(), Consenting("tester", value=right)))
