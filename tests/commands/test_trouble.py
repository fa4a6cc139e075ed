"""What goes wrong around a recovery: the network, the disk, locks, other operators, Ctrl-C, kill -9. Each time the
target is as it was or as it has to be, the message says so, and the run goes on where it stopped.
"""

from __future__ import annotations

import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.commands.between import KEY, watched
from tests.commands.operator import CODES, Operator, Said, interrupt, lines_until, now
from tests.stack import until

RECOVER = "recover.accidental-delete"


@dataclass(frozen=True)
class Lost:
    """A payment that was deleted by accident."""

    payment: int
    moment: str

    @property
    def words(self) -> tuple[str, ...]:
        return (RECOVER, "--at", self.moment, "--tables", "payments", "--where", f"id = {self.payment}")

    def preview(self, operator: Operator) -> Said:
        said = operator.invoke(*self.words)
        assert said.code == CODES["ConsentNeeded"], said
        return said

    def is_back(self, operator: Operator) -> bool:
        return operator.sql("select count(*) from payments where id = %s", self.payment) == [(1,)]


@pytest.fixture
def lost(operator: Operator) -> Lost:
    moment = now()
    ((payment,),) = operator.sql("delete from payments where id = (select max(id) from payments) returning id")
    return Lost(payment, moment)


@contextmanager
def locked(operator: Operator) -> Iterator[None]:
    """Another session has the table to itself."""
    with operator.database() as conn, conn.transaction():
        conn.execute("lock table payments in access exclusive mode")
        yield


def stand_before_the_lock(operator: Operator, process: subprocess.Popen[str]) -> None:
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name ~ 'bloom-dr'"
    until(lambda: process.poll() is not None or operator.sql(waiting) != [(0,)])
    assert process.poll() is None, process.communicate()


# The way to Neon and to the database


def test_production_and_the_branch_being_one_database_is_seen(operator: Operator, lost: Lost, tmp_path: Path) -> None:
    """By the host that Neon names for the branch, and where the host is right, by what the database says it is."""
    with operator.api() as api:
        production = api.uri()

    def names_production(uri: str, query: dict[str, str]) -> str:
        return production

    def leads_to_production(uri: str, query: dict[str, str]) -> str:
        return uri.replace(f":{urlsplit(uri).port}/", f":{urlsplit(production).port}/")

    with watched(operator, tmp_path) as (watcher, between), operator.nothing_changes():
        between.lie = names_production
        watcher.invoke(*lost.words).stopped("WrongTarget", "which is no compute of branch bloom-dr-")
        between.lie = leads_to_production
        watcher.invoke(*lost.words).stopped("WrongTarget", "not the expected database")


def test_c11_a_wrong_password_is_not_tried_again_and_not_told(operator: Operator, lost: Lost, tmp_path: Path) -> None:
    def with_wrong_password(uri: str, query: dict[str, str]) -> str:
        return uri.replace(f":{urlsplit(uri).password}@", ":wr0ng-passw0rd@")

    with watched(operator, tmp_path) as (watcher, between), operator.nothing_changes():
        between.lie = with_wrong_password
        said = watcher.invoke(*lost.words)
        said.stopped("LoginRefused", "password authentication failed")
        assert "waiting for ep-" not in said.err
        assert between.changing() == []
    assert "wr0ng" not in said.err + operator.written()


def test_a_wrong_or_missing_api_key_is_named_and_not_told(operator: Operator, lost: Lost, tmp_path: Path) -> None:
    with watched(operator, tmp_path) as (watcher, between):
        wrong = watcher.having(**{KEY: "napi_wr0ng"}).invoke(*lost.words)
        wrong.stopped("LoginRefused")
        missing = watcher.having(**{KEY: ""}).invoke(*lost.words)
        missing.stopped("PolicyFault", KEY, "is not set")
        assert between.changing() == []
    assert "wr0ng" not in wrong.err + operator.written()


def test_c11_a_sleeping_database_is_waited_for(operator: Operator, lost: Lost) -> None:
    with operator.api() as api:
        (endpoint,) = api.call("GET", f"{api.branch()}/endpoints")["endpoints"]
        path = f"{api.project}/endpoints/{endpoint['id']}"
        api.done("POST", f"{path}/suspend")
        try:
            process = operator.start(*lost.words)
            lines_until(process, "waiting for ep-")
        finally:
            api.done("POST", f"{path}/start")
    _, err = process.communicate(timeout=60)
    assert process.returncode == CODES["ConsentNeeded"], err


@pytest.mark.long
def test_c11_a_database_that_does_not_wake_is_given_up_after_half_a_minute(operator: Operator, lost: Lost) -> None:
    with operator.api() as api:
        (endpoint,) = api.call("GET", f"{api.branch()}/endpoints")["endpoints"]
        path = f"{api.project}/endpoints/{endpoint['id']}"
        api.done("POST", f"{path}/suspend")
        before = operator.branches()
        try:
            said = operator.invoke(*lost.words)
        finally:
            api.done("POST", f"{path}/start")
    said.stopped("DatabaseUnreachable", "within 30 s", "no statement was run")
    assert operator.branches() == before


# The disk


def limited(size: int) -> dict[str, Any]:
    """No file can grow beyond `size` bytes: what a full disk looks like from inside."""
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))}


def test_a_full_disk_before_the_first_line_starts_nothing(operator: Operator, lost: Lost) -> None:
    with operator.nothing_changes():
        said = operator.invoke(*lost.words, **limited(100))
        said.stopped("LocalFault", "journal.jsonl", "BLOOM_DR_RUNS")


@pytest.mark.parametrize("room", [pytest.param(300, marks=pytest.mark.long), 1400])
def test_a_disk_that_fills_during_execution_leaves_the_target_and_a_run_to_go_on_with(
    operator: Operator, lost: Lost, room: int
) -> None:
    """With so much room the consent, or the first step's beginning, is still written; the rows' own note is not."""
    first = lost.preview(operator)
    size = (operator.runs / first.run_id / "journal.jsonl").stat().st_size
    with operator.nothing_changes():
        said = operator.invoke("run.resume", first.run_id, "--confirm", first.confirm, **limited(size + room))
        said.stopped("LocalFault", "free space")
    on = operator.paste(first.pasted)
    assert on.code == 0, on
    assert lost.is_back(operator)


# Locks and other operators


@pytest.mark.long
def test_a_table_locked_by_somebody_is_given_up_and_the_run_goes_on_later(hasty: Operator, lost: Lost) -> None:
    first = lost.preview(hasty)
    with hasty.nothing_changes(), locked(hasty):
        hasty.paste(first.pasted).stopped("TableLocked")
    assert hasty.invoke("run.resume", first.run_id).code == 0, "consent was given before"
    assert lost.is_back(hasty)


@pytest.mark.long
def test_c33_of_two_operators_the_second_is_told_who_is_at_work(patient: Operator, lost: Lost) -> None:
    first, second = lost.preview(patient), lost.preview(patient)
    with locked(patient):
        process = patient.having(BLOOM_DR_OPERATOR="ana@bloom").start(*first.pasted.split()[1:])
        stand_before_the_lock(patient, process)
        same_run = patient.paste(first.pasted)
        other_run = patient.paste(second.pasted)
    _, err = process.communicate(timeout=60)
    same_run.stopped("LockHeld", first.run_id)
    other_run.stopped("LockHeld", first.run_id, "ana@bloom", "since", "UTC")
    assert process.returncode == 0, err
    assert lost.is_back(patient)
    with patient.nothing_changes(but_branch=f"bloom-dr-{second.run_id}"):
        late = patient.invoke("run.resume", second.run_id)
    assert late.code == 0
    assert "nothing was changed" in late.out


@pytest.mark.long
def test_a_booking_under_way_and_the_recovery_do_not_stop_each_other(patient: Operator) -> None:
    """The application writes parents first: the reservation, then its payment. So must we lock."""
    moment = now()
    patient.sql("delete from reservations where id in (select reservation_id from payments order by id desc limit 1)")
    first = patient.invoke(RECOVER, "--at", moment, "--tables", "reservations")
    with patient.database() as application:
        with application.transaction():
            ((booked,),) = application.execute(
                "insert into reservations (client_id, service_id, starts_at, ends_at, price)"
                " select (select max(id) from clients), min(id), now(), now() + interval '1 hour', 1 from services"
                " returning id"
            ).fetchall()
            process = patient.start(*first.pasted.split()[1:])
            stand_before_the_lock(patient, process)
            application.execute(
                "insert into payments (reservation_id, amount, method, receipt) values (%s, 1, 'card', 'under way')",
                [booked],
            )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


# Signals


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGINT,
        pytest.param(signal.SIGKILL, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, marks=pytest.mark.long),
    ],
    ids=lambda how: how.name,
)
def test_c34_a_run_that_was_stopped_in_the_middle_goes_on(patient: Operator, lost: Lost, how: signal.Signals) -> None:
    first = lost.preview(patient)
    with patient.nothing_changes(), locked(patient):
        process = patient.start(*first.pasted.split()[1:], "--json")
        stand_before_the_lock(patient, process)
        said = interrupt(process, how)
    if how is signal.SIGKILL:
        assert said.code == -how
    else:
        assert said.code == said.data["error"]["exit_code"] == 130
        assert said.data["error"]["run_id"] == first.run_id
        assert f"next:  invoke run.resume {first.run_id}\n" in said.err
        assert "Traceback" not in said.err
    (listed,) = [run for run in patient.json("run.list")["runs"] if run["run_id"] == first.run_id]
    assert listed["state"] == "unfinished: executing"
    patient.invoke("--dry", "run.resume", first.run_id).stopped("UsageFault", "has its consent")
    assert not lost.is_back(patient)
    on = patient.invoke("run.resume", first.run_id, "--json")
    assert (on.code, on.data["verdict"]) == (0, "proved")
    assert lost.is_back(patient)
