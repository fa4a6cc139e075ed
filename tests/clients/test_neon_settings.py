"""Settings of a project: read back to be proved, put back whatever happens, and safe to repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from runbooks.clients.neon import Neon
from runbooks.clients.neon_types import Branch, SnapshotTime
from runbooks.model.errors import NeonFault, OutsideWindow, Refused, WrongTarget
from runbooks.model.moment import Moment
from tests.fakes.neon_http import (
    Exchange,
    FakeNeon,
    busy,
    cut_after,
    cut_before,
    gateway_after,
    gives,
    half_after,
    says,
)
from tests.fakes.neon_memory import MAIN, MAIN_ENDPOINT, NOON, PROJECT

LOST = pytest.mark.parametrize(
    "lost", [cut_after, cut_before, half_after, gateway_after, busy], ids=lambda fault: fault.__name__
)


@pytest.fixture
def fake() -> Iterator[FakeNeon]:
    with FakeNeon() as fake:
        yield fake


def protected_main(fake: FakeNeon) -> tuple[Neon, Branch]:
    fake.branches[MAIN]["protected"] = True
    return fake.neon(), fake.neon().branch(MAIN)


def protections(fake: FakeNeon) -> list[bool]:
    """What the branch was set to, in order."""
    return [one.body["branch"]["protected"] for one in fake.seen if one.method == "PATCH"]


# --- protection ------------------------------------------------------------------------------------------------------


def test_c24_a_protected_branch_refuses_a_restore_until_protection_is_lifted(fake: FakeNeon) -> None:
    neon, main = protected_main(fake)
    asked: dict[str, Any] = {"moment": Moment.of(NOON - timedelta(hours=1)), "preserve_under": "before"}
    with pytest.raises(Refused, match="it is protected"):
        neon.restore_branch(branch=main, source=main, **asked)
    assert fake.changes() == []
    with neon.unprotected(main) as open_main:
        neon.restore_branch(branch=open_main, source=open_main, **asked)
    assert fake.branches[MAIN]["protected"]
    assert len(fake.named("before")) == 1


@pytest.mark.parametrize("ending", [RuntimeError("step 3 failed"), KeyboardInterrupt(), SystemExit(130)], ids=repr)
def test_c24_protection_is_put_back_on_failure_and_on_interrupt(fake: FakeNeon, ending: BaseException) -> None:
    neon, main = protected_main(fake)

    def lift_and_end() -> None:
        with neon.unprotected(main):
            assert not fake.branches[MAIN]["protected"]
            raise ending

    with pytest.raises(type(ending)) as caught:
        lift_and_end()
    assert caught.value is ending
    assert fake.branches[MAIN]["protected"]
    assert protections(fake) == [False, True]


@LOST
def test_c24_protection_is_put_back_when_answers_are_lost(fake: FakeNeon, lost: Any) -> None:
    neon, main = protected_main(fake)
    fake.fail("PATCH", f"/branches/{MAIN}", lost, lost)
    with neon.unprotected(main):
        assert not fake.branches[MAIN]["protected"]
    assert fake.branches[MAIN]["protected"]


def test_c24_protection_is_put_back_when_lifting_it_seemed_to_fail(fake: FakeNeon) -> None:
    neon, main = protected_main(fake)

    def lifts_and_refuses(exchange: Exchange) -> None:
        exchange.happen()
        says(400, "odd")(exchange)

    fake.fail("PATCH", f"/branches/{MAIN}", lifts_and_refuses)
    with pytest.raises(NeonFault, match="400: odd"), neon.unprotected(main):
        pytest.fail("the block must not run")
    assert fake.branches[MAIN]["protected"]


def test_c24_protection_is_read_back_and_an_empty_yes_is_a_fault(fake: FakeNeon) -> None:
    neon, main = protected_main(fake)

    def nods(exchange: Exchange) -> None:
        exchange.answer(200, {"branch": fake.branches[MAIN], "operations": []})

    with pytest.raises(NeonFault, match="the branch is still unprotected"), neon.unprotected(main):
        fake.fail("PATCH", f"/branches/{MAIN}", nods)
    fake.branches[MAIN]["protected"] = True
    fake.fail("PATCH", f"/branches/{MAIN}", nods)
    with pytest.raises(NeonFault, match="the branch is still protected"):
        neon.set_protected(main, False)


def test_c24_trouble_with_putting_it_back_is_noted_on_the_first_error(fake: FakeNeon) -> None:
    neon, main = protected_main(fake)

    def lift_and_fail() -> None:
        with neon.unprotected(main):
            fake.fail("PATCH", f"/branches/{MAIN}", says(422, "not today"))
            raise RuntimeError("step 3 failed")

    with pytest.raises(RuntimeError, match="step 3") as caught:
        lift_and_fail()
    (note,) = caught.value.__notes__
    assert "not today" in note
    assert f"check now that branch main ({MAIN}) is protected" in note


def test_c24_an_interrupt_while_putting_it_back_comes_after_it_is_back(fake: FakeNeon) -> None:
    pressed: list[str] = []

    def press(line: str) -> None:
        if not pressed:
            pressed.append(line)
            raise KeyboardInterrupt

    fake.branches[MAIN]["protected"] = True
    neon = fake.neon(progress=press)
    main = neon.branch(MAIN)
    with pytest.raises(KeyboardInterrupt), neon.unprotected(main):
        fake.fail("PATCH", f"/branches/{MAIN}", busy)
    assert pressed
    assert fake.branches[MAIN]["protected"]


def test_a_branch_that_was_not_protected_stays_so(fake: FakeNeon) -> None:
    neon = fake.neon()
    with neon.unprotected(neon.branch(MAIN)):
        pass
    assert fake.changes() == []


# --- history, computes, passwords ------------------------------------------------------------------------------------


def test_c25_the_history_is_set_and_read_back(fake: FakeNeon) -> None:
    assert fake.neon().set_history_retention(timedelta(days=7)).history_retention == timedelta(days=7)
    fake.fail("PATCH", PROJECT, lambda exchange: exchange.answer(200, {"project": {}, "operations": []}))
    with pytest.raises(NeonFault, match="it keeps 7 days"):
        fake.neon().set_history_retention(timedelta(days=30))


@LOST
def test_the_history_is_set_when_answers_are_lost(fake: FakeNeon, lost: Any) -> None:
    fake.fail("PATCH", PROJECT, lost)
    fake.neon().set_history_retention(timedelta(days=7))
    assert fake.projects[PROJECT]["history_retention_seconds"] == 604800


@LOST
def test_logical_replication_is_switched_on_once_and_waited_for(fake: FakeNeon, lost: Any) -> None:
    fake.polls = 2
    fake.fail("PATCH", PROJECT, lost)
    assert fake.neon().enable_logical_replication().settings.enable_logical_replication
    assert not any(fake.pending.values()), "sessions may be dropped until the operations have finished"
    before = len(fake.changes())
    fake.neon().enable_logical_replication()
    assert len(fake.changes()) == before, "a second time would drop all sessions for nothing"


def test_logical_replication_that_stays_off_is_a_fault(fake: FakeNeon) -> None:
    fake.fail("PATCH", PROJECT, lambda exchange: exchange.answer(200, {"project": {}, "operations": []}))
    with pytest.raises(NeonFault, match="it is still off"):
        fake.neon().enable_logical_replication()


NIGHTLY = SnapshotTime(frequency="daily", hour=3, retention_seconds=604800)
WEEKLY = SnapshotTime(frequency="weekly", hour=4, day=1)


@LOST
def test_a_snapshot_schedule_is_replaced_and_ended_when_answers_are_lost(fake: FakeNeon, lost: Any) -> None:
    neon = fake.neon()
    main = neon.branch(MAIN)
    fake.fail("PUT", "/backup_schedule", lost)
    assert set(neon.set_snapshot_schedule(main, [NIGHTLY, WEEKLY])) == {NIGHTLY, WEEKLY}
    assert neon.set_snapshot_schedule(main, []) == neon.snapshot_schedule(MAIN) == ()


def test_a_snapshot_schedule_that_does_not_hold_is_a_fault(fake: FakeNeon) -> None:
    fake.schedules[MAIN] = [{"frequency": "daily", "hour": 9}]
    fake.fail("PUT", "/backup_schedule", lambda exchange: exchange.answer(200, {}))
    with pytest.raises(NeonFault, match="it has 1 other times"):
        fake.neon().set_snapshot_schedule(fake.neon().branch(MAIN), [NIGHTLY])


@LOST
def test_a_compute_is_disabled_and_enabled_when_answers_are_lost(fake: FakeNeon, lost: Any) -> None:
    fake.polls = 2
    neon = fake.neon()
    endpoint = neon.endpoint(MAIN_ENDPOINT)
    fake.fail("PATCH", MAIN_ENDPOINT, lost)
    assert neon.disable_endpoint(endpoint).disabled
    assert not any(fake.pending.values()), "sessions may live until the operations have finished"
    fake.fail("PATCH", MAIN_ENDPOINT, lost)
    assert not neon.enable_endpoint(endpoint).disabled


def test_a_compute_that_does_not_become_disabled_is_a_fault(fake: FakeNeon) -> None:
    fake.fail("PATCH", MAIN_ENDPOINT, lambda exchange: exchange.answer(200, {"endpoint": {}, "operations": []}))
    with pytest.raises(NeonFault, match="it is still enabled"):
        fake.neon().disable_endpoint(fake.neon().endpoint(MAIN_ENDPOINT))


@LOST
def test_a_compute_is_suspended_and_restarted_when_answers_are_lost(fake: FakeNeon, lost: Any) -> None:
    neon = fake.neon()
    endpoint = neon.endpoint(MAIN_ENDPOINT)
    fake.fail("POST", "/suspend", lost)
    neon.suspend_endpoint(endpoint)
    assert neon.endpoint(MAIN_ENDPOINT).current_state == "idle"
    fake.fail("POST", "/restart", lost)
    neon.restart_endpoint(endpoint)
    assert neon.endpoint(MAIN_ENDPOINT).current_state == "active"


@LOST
def test_a_reset_password_is_the_one_that_holds(fake: FakeNeon, lost: Any) -> None:
    fake.polls = 2
    fake.fail("POST", "/reset_password", lost)
    new = fake.neon().reset_password(branch_id=MAIN, role="shop_owner")
    assert fake.neon().reveal_password(branch_id=MAIN, role="shop_owner") == new
    assert not any(fake.pending.values()), "the password is valid only when the operations have finished"


def test_databases_and_roles_are_listed_without_passwords(fake: FakeNeon) -> None:
    neon = fake.neon()
    assert [each.name for each in neon.databases(MAIN)] == ["shop"]
    assert [each.name for each in neon.roles(MAIN)] == ["shop_owner"]
    assert "password" not in type(neon.roles(MAIN)[0]).model_fields


# --- snapshots -------------------------------------------------------------------------------------------------------


@LOST
def test_a_snapshot_is_taken_once_and_deleted(fake: FakeNeon, lost: Any) -> None:
    neon = fake.neon()
    main = neon.branch(MAIN)
    fake.fail("POST", "/snapshot", lost)
    fake.fail("DELETE", ".*", lost)
    asked: dict[str, Any] = {
        "branch": main,
        "name": "forensic",
        "moment": Moment.of(NOON - timedelta(hours=1)),
        "expires_at": Moment.of(NOON + timedelta(days=35)),
    }
    made = neon.create_snapshot(**asked)
    assert neon.create_snapshot(**asked) == made
    assert [each["timestamp"] for each in fake.snapshots.values()] == ["2026-03-02T11:00:00.000Z"]
    with pytest.raises(WrongTarget):
        neon.delete_snapshot(made.id, name="another")
    for _ in range(2):
        neon.delete_snapshot(made.id, name="forensic")
    assert neon.snapshots() == ()


def test_a_slow_snapshot_is_not_taken_twice(fake: FakeNeon) -> None:
    """Names of snapshots are not unique, so only a second look before sending again prevents it."""
    late: list[Callable[[], Any]] = []

    def is_slow(exchange: Exchange) -> None:
        late.append(exchange.happen)
        exchange.cut()

    def sleep(seconds: float) -> None:
        while late:
            late.pop()()
        fake.clock.sleep(seconds)

    neon = fake.neon(sleep=sleep)
    fake.fail("POST", "/snapshot", is_slow)
    made = neon.create_snapshot(branch=neon.branch(MAIN), name="forensic")
    assert list(fake.snapshots) == [made.id]


def test_an_effect_is_looked_for_even_when_the_time_allowed_is_over(fake: FakeNeon) -> None:
    def takes_an_hour(exchange: Exchange) -> None:
        exchange.happen()
        fake.clock.pass_by(3600)
        exchange.cut()

    neon = fake.neon()
    fake.fail("POST", "/snapshot", takes_an_hour)
    assert neon.create_snapshot(branch=neon.branch(MAIN), name="forensic").name == "forensic"


def test_a_snapshot_name_of_another_branch_is_refused(fake: FakeNeon) -> None:
    neon = fake.neon()
    neon.create_snapshot(branch=neon.branch(MAIN), name="forensic")
    fake._add_branch("br-other-000001", "other")
    with pytest.raises(Refused, match=f"exists, but of {MAIN}"):
        neon.create_snapshot(branch=neon.branch("br-other-000001"), name="forensic")


def test_a_snapshot_outside_the_window_is_refused_before_any_change(fake: FakeNeon) -> None:
    neon = fake.neon()
    with pytest.raises(OutsideWindow):
        neon.create_snapshot(branch=neon.branch(MAIN), name="old", moment=Moment.of(NOON - timedelta(days=2)))
    assert fake.changes() == []


# --- operations ------------------------------------------------------------------------------------------------------


def test_a_state_that_is_not_known_is_waited_for_and_not_taken_for_success(fake: FakeNeon) -> None:
    def odd(body: Any) -> Any:
        return {"operation": body["operation"] | {"status": "pondering"}}

    fake.polls = 1
    fake.fail("GET", "/operations/.*", *99 * [gives(odd)])
    with pytest.raises(NeonFault, match="gave up after 300 s"):
        fake.neon().suspend_endpoint(fake.neon().endpoint(MAIN_ENDPOINT))
