"""Branches of the past: made once, at the right moment, of the right parent; removed only if they are the ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.clients.neon_types import Branch, BranchAt, Window
from runbooks.model.errors import NeonFault, NotFound, OutsideWindow, Refused, UsageFault, WrongTarget
from runbooks.model.moment import Moment
from tests.fakes.neon_http import (
    Exchange,
    FakeNeon,
    busy,
    cut_after,
    cut_before,
    everything_told,
    gateway_after,
    gives,
    half_after,
    html_after,
    says,
)
from tests.fakes.neon_memory import MAIN, NOON, PASSWORD

NAME = "recovery-20260302-120000-abcd"
HOUR = timedelta(hours=1)


@pytest.fixture
def fake() -> Iterator[FakeNeon]:
    with FakeNeon() as fake:
        yield fake


def ago(span: timedelta) -> Moment:
    return Moment.of(NOON - span)


def make(fake: FakeNeon, moment: Moment | None = None, **other: Any) -> BranchAt:
    neon = fake.neon()
    asked: dict[str, Any] = {
        "parent": neon.default_branch(),
        "moment": moment or ago(HOUR),
        "name": NAME,
        "expires_at": Moment.of(NOON + timedelta(days=1)),
        "annotation": {"run": "20260302-120000-abcd"},
    }
    return neon.branch_at(**{**asked, **other})


def posts(fake: FakeNeon) -> list[Any]:
    return [one.body for one in fake.seen if one.method == "POST"]


# --- making ----------------------------------------------------------------------------------------------------------


def test_a_branch_is_asked_for_with_parent_moment_expiry_and_a_compute(fake: FakeNeon) -> None:
    made = make(fake, Moment.of(NOON - HOUR + timedelta(microseconds=123_999)))
    assert posts(fake) == [
        {
            "branch": {
                "parent_id": MAIN,
                "parent_timestamp": "2026-03-02T11:00:00.123Z",
                "name": NAME,
                "init_source": "parent-data",
                "expires_at": "2026-03-03T12:00:00Z",
            },
            "endpoints": [{"type": "read_write"}],
            "annotation_value": {"run": "20260302-120000-abcd", "bloom-dr-moment": "2026-03-02T11:00:00.123Z"},
        }
    ]
    assert made.branch.name == NAME
    assert made.endpoint.branch_id == made.branch.id
    assert not made.reused


def test_c23_423_is_waited_out_and_the_branch_is_ready_when_the_call_returns(fake: FakeNeon) -> None:
    fake.polls = 2
    fake.fail("POST", "/branches", busy, busy)
    made = make(fake)
    assert made.branch.current_state == "ready"
    assert not any(fake.pending.values())
    assert len(fake.named(NAME)) == 1
    assert len(posts(fake)) == 3


@pytest.mark.parametrize("lost", [cut_after, half_after, gateway_after, html_after])
def test_c23_a_branch_whose_answer_was_lost_is_not_made_twice(fake: FakeNeon, lost: Any) -> None:
    fake.fail("POST", "/branches", lost)
    made = make(fake)
    assert [branch["id"] for branch in fake.named(NAME)] == [made.branch.id]
    assert len(posts(fake)) == 1


def test_c23_a_request_that_never_arrived_is_sent_again(fake: FakeNeon) -> None:
    fake.fail("POST", "/branches", cut_before)
    make(fake)
    assert len(fake.named(NAME)) == 1
    assert len(posts(fake)) == 2


def test_c23_a_slow_request_that_takes_effect_after_the_look_is_found_through_409(fake: FakeNeon) -> None:
    late: list[Callable[[], Any]] = []

    def is_slow(exchange: Exchange) -> None:
        late.append(exchange.happen)
        exchange.cut()

    def comes_after_it(exchange: Exchange) -> None:
        late.pop()()
        exchange.answer(*exchange.happen())

    fake.fail("POST", "/branches", is_slow, comes_after_it)
    make(fake)
    assert len(fake.named(NAME)) == 1
    assert [one.status for one in fake.seen if one.method == "POST"] == [0, 409]


def test_c23_422_is_final_and_shown_with_its_reason_and_request_id(fake: FakeNeon) -> None:
    fake.fail("POST", "/branches", says(422, "branch name is too odd"))
    with pytest.raises(NeonFault, match=r"422: branch name is too odd \(request req-1234\)"):
        make(fake)
    assert len(posts(fake)) == 1


def test_a_branch_that_is_not_ready_yet_is_waited_for(fake: FakeNeon) -> None:
    fake.fail("POST", "/branches", says(422, "branch not ready yet"))
    assert make(fake).branch.current_state == "ready"


def test_a_failed_operation_is_a_fault_that_names_it(fake: FakeNeon) -> None:
    def fails(body: Any) -> Any:
        body["operations"][1] |= {"status": "failed", "error": "no compute left in this region"}
        return body

    fake.fail("POST", "/branches", gives(fails))
    with pytest.raises(NeonFault, match="start_compute ended as failed: no compute left in this region"):
        make(fake)


def test_an_operation_that_never_ends_is_a_fault_after_the_time_allowed(fake: FakeNeon) -> None:
    fake.polls = 10**6
    with pytest.raises(NeonFault, match=r"gave up after 300 s.*create_branch, start_compute"):
        make(fake)
    assert fake.progress[0] == "waiting for Neon: create_branch, start_compute (0 s, until 12:05:00Z)"


def test_a_skipped_operation_counts_as_done_and_a_cancelled_one_does_not(fake: FakeNeon) -> None:
    def ends(status: str) -> Any:
        return gives(lambda body: body | {"operations": [one | {"status": status} for one in body["operations"]]})

    fake.fail("POST", "/branches", ends("skipped"))
    make(fake)
    assert not [one for one in fake.seen if "/operations/" in one.path]
    fake.fail("POST", "/branches", ends("cancelled"))
    with pytest.raises(NeonFault, match="ended as cancelled"):
        make(fake, name="another")


def test_a_branch_without_a_compute_is_a_fault_and_not_a_wait_for_ever(fake: FakeNeon) -> None:
    def forgets_the_compute(exchange: Exchange) -> None:
        exchange.happen()
        fake.endpoints.popitem()
        exchange.cut()

    fake.fail("POST", "/branches", forgets_the_compute)
    with pytest.raises(NeonFault, match="has no compute"):
        make(fake)


def test_a_limit_of_the_plan_is_told_with_its_cure(fake: FakeNeon) -> None:
    fake.fail("POST", "/branches", says(422, "branches limit exceeded", "BRANCHES_LIMIT_EXCEEDED"))
    with pytest.raises(NeonFault) as caught:
        make(fake)
    assert "remove branches that are no longer needed" in caught.value.next_step


@settings(max_examples=40, deadline=None)
@given(
    on_post=st.lists(
        st.sampled_from([busy, cut_before, cut_after, half_after, gateway_after, says(503), says(500), says(429)]),
        max_size=6,
    ),
    on_any=st.lists(st.sampled_from([None, says(502), cut_before, says(429, retry_after="7")]), max_size=12),
    polls=st.integers(0, 4),
)
def test_c23_after_any_transient_faults_exactly_one_branch_exists(on_post: Any, on_any: Any, polls: int) -> None:
    with FakeNeon(polls=polls) as fake:
        fake.fail("POST", "/branches", *on_post)
        fake.fail("GET", ".*", *(fault or (lambda exchange: exchange.answer(*exchange.happen())) for fault in on_any))
        made = make(fake)
        assert [branch["id"] for branch in fake.named(NAME)] == [made.branch.id]
        assert fake.branches[made.branch.id]["parent_timestamp"] == "2026-03-02T11:00:00.000Z"


# --- the moment ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "why"),
    [
        (Moment.of(NOON + HOUR), "in the future"),
        (ago(timedelta(days=91)), "the history of branch main begins there"),
    ],
)
def test_c25_a_moment_that_cannot_be_is_refused_before_any_request(fake: FakeNeon, moment: Moment, why: str) -> None:
    neon, parent = fake.neon(zone="America/Mexico_City"), fake.neon().default_branch()
    fake.seen.clear()
    with pytest.raises(OutsideWindow, match=why):
        neon.branch_at(parent=parent, moment=moment, name=NAME, expires_at=Moment.of(NOON + HOUR), annotation={})
    assert fake.seen == []


def test_c25_a_moment_before_the_configured_history_is_refused_before_any_change(fake: FakeNeon) -> None:
    fake.projects["quiet-lake-123456"]["history_retention_seconds"] = 21600
    with pytest.raises(OutsideWindow) as caught:
        make(fake, ago(7 * HOUR))
    assert "2026-03-02 06:00:00.000 UTC" in caught.value.happened, "the earliest possible moment"
    assert "6:00:00 of history" in caught.value.happened
    assert fake.changes() == []
    assert make(fake, ago(5 * HOUR)).branch.name == NAME


def test_c25_the_refusal_names_both_ends_in_the_zone_of_the_team_too(fake: FakeNeon) -> None:
    neon = fake.neon(zone="America/Mexico_City")
    window = neon.window(neon.default_branch(), Moment.of(NOON))
    with pytest.raises(OutsideWindow) as caught:
        window.check(ago(timedelta(hours=24)))
    for end in ("2026-03-01 06:00:00.000 CST (2026-03-01 12:00:00.000 UTC)", "2026-03-02 06:00:00.000 CST"):
        assert end in caught.value.happened


def test_c25_a_child_has_no_history_from_before_it_was_made_or_reset() -> None:
    def branch(**fields: Any) -> Branch:
        return Branch(
            id="br-1", project_id="p", name="dev", current_state="ready", default=False, protected=False, **fields
        )

    def earliest(branch: Branch) -> Moment:
        return Window.of(branch, Moment.of(NOON), retention=timedelta(days=7), zone="UTC").earliest

    made, reset = ago(2 * HOUR), ago(HOUR)
    assert earliest(branch(parent_id=MAIN, created_at=made)) == made
    assert earliest(branch(parent_id=MAIN, created_at=made, last_reset_at=reset)) == reset
    assert earliest(branch(created_at=ago(timedelta(days=90)))) == ago(timedelta(days=7))


def test_history_that_is_switched_off_leaves_no_moment_at_all(fake: FakeNeon) -> None:
    fake.projects["quiet-lake-123456"]["history_retention_seconds"] = 0
    with pytest.raises(OutsideWindow):
        make(fake, Moment.of(NOON))


def test_c25_the_resolved_moment_is_reported_beside_the_asked_one(fake: FakeNeon) -> None:
    fake.resolve = lambda _: "2026-03-02T10:59:56Z"
    made = make(fake)
    assert (made.resolved, made.gap, made.is_much_earlier) == (
        ago(HOUR + timedelta(seconds=4)),
        timedelta(seconds=4),
        False,
    )
    fake.resolve = lambda _: "2026-03-02T09:00:00Z"
    assert make(fake, name="another").is_much_earlier


def test_a_branch_with_data_from_after_the_moment_is_never_handed_out(fake: FakeNeon) -> None:
    fake.resolve = lambda _: "2026-03-02T11:00:00.002Z"
    with pytest.raises(NeonFault, match=r"holds data up to 2026-03-02T11:00:00.002000Z, which is after"):
        make(fake)


def test_a_branch_of_which_neon_does_not_tell_the_moment_is_marked_as_unproved(fake: FakeNeon) -> None:
    fake.fail("GET", "/branches/br-made-.*[0-9]", *3 * [gives(lambda body: body | {"branch": without_moment(body)})])
    made = make(fake)
    assert (made.resolved, made.gap) == (None, None)


def without_moment(body: Any) -> Any:
    return {name: value for name, value in body["branch"].items() if name != "parent_timestamp"}


@pytest.mark.parametrize("life", [timedelta(0), timedelta(days=30, seconds=1)])
def test_an_expiry_that_neon_does_not_take_is_refused_before_any_request(fake: FakeNeon, life: timedelta) -> None:
    with pytest.raises(UsageFault, match="cannot expire"):
        make(fake, expires_at=Moment.of(NOON + life))
    assert fake.changes() == []


# --- the same name again ---------------------------------------------------------------------------------------------


def test_repeating_returns_the_first_branch_also_when_the_moment_has_left_the_window(fake: FakeNeon) -> None:
    fake.resolve = lambda _: "2026-03-02T10:59:56Z"
    first = make(fake)
    fake.clock.pass_by(23.5 * 3600)
    second = make(fake, expires_at=Moment.of(NOON + timedelta(days=2)))
    assert second.branch.id == first.branch.id
    assert second.reused
    assert len(posts(fake)) == 1


def test_a_branch_of_that_name_for_another_moment_is_refused(fake: FakeNeon) -> None:
    make(fake)
    with pytest.raises(Refused, match=r"at 2026-03-02T11:00:00.000Z instead of .* at 2026-03-02T10:00:00.000Z"):
        make(fake, ago(2 * HOUR))


def test_a_branch_of_that_name_from_another_parent_is_refused(fake: FakeNeon) -> None:
    first = make(fake, name="the-parent")
    fake.clock.pass_by(600)
    make(fake, Moment.of(fake.clock.time), parent=first.branch)
    with pytest.raises(Refused, match=rf"of {first.branch.id} at .* instead of {MAIN}"):
        make(fake, Moment.of(fake.clock.time))


def test_a_branch_of_that_name_that_we_did_not_make_is_refused(fake: FakeNeon) -> None:
    fake._add_branch("br-other-000001", NAME, parent_id=MAIN)
    with pytest.raises(Refused, match="at an unknown moment"):
        make(fake)


def test_two_branches_of_one_name_are_refused(fake: FakeNeon) -> None:
    fake._add_branch("br-twin-000001", NAME)
    fake._add_branch("br-twin-000002", NAME)
    with pytest.raises(Refused, match="2 branches are named"):
        fake.neon().find_branch(NAME)


# --- finding ---------------------------------------------------------------------------------------------------------


def test_a_branch_on_the_last_page_is_found_by_its_exact_name(fake: FakeNeon) -> None:
    fake.page_size = 2
    for place in range(7):
        fake._add_branch(f"br-many-{place:06}", f"{NAME}-{place}")
    found = fake.neon().find_branch(f"{NAME}-6")
    assert found is not None
    assert found.id == "br-many-000006"
    assert fake.neon().find_branch(NAME) is None


def test_pages_that_go_in_a_circle_are_a_fault(fake: FakeNeon) -> None:
    fake.page_size = 1
    fake._add_branch("br-second-000001", "second")
    fake.fail("GET", "/branches", *9 * [gives(lambda body: body | {"pagination": {"next": "1"}})])
    with pytest.raises(NeonFault, match="does not end"):
        fake.neon().branches()


def test_a_project_without_exactly_one_default_branch_is_a_fault(fake: FakeNeon) -> None:
    fake.branches[MAIN]["default"] = False
    with pytest.raises(NeonFault, match="0 default branches"):
        fake.neon().default_branch()


def test_a_branch_that_does_not_exist_is_not_found(fake: FakeNeon) -> None:
    with pytest.raises(NotFound):
        fake.neon().branch("br-nowhere-000001")


# --- connecting ------------------------------------------------------------------------------------------------------


def test_c24_the_connection_of_a_branch_comes_from_the_api_for_that_branch(fake: FakeNeon) -> None:
    made = make(fake)
    fake.passwords[made.branch.id, "shop_owner"] = "another-pw"
    dsn = fake.neon().connection(branch=made.branch, database="shop", role="shop_owner")
    assert dsn.host == made.endpoint.host
    assert dsn.password is not None
    assert dsn.password.reveal() == "another-pw"
    asked = fake.seen[-2].query
    assert asked["branch_id"] == made.branch.id
    assert asked["pooled"] == "false"


def test_c11_a_pooled_host_in_the_answer_is_made_direct(fake: FakeNeon) -> None:
    neon = fake.neon()
    fake.fail("GET", "/connection_uri", gives(lambda body: {"uri": body["uri"].replace(".c-2.", "-pooler.c-2.")}))
    dsn = neon.connection(branch=neon.default_branch(), database="shop", role="shop_owner")
    assert dsn.host == "ep-main-000001.c-2.eu-central-1.aws.example"


def test_a_connection_that_leads_to_another_branch_is_refused(fake: FakeNeon) -> None:
    made = make(fake)
    fake.fail(
        "GET", "/connection_uri", gives(lambda body: {"uri": body["uri"].replace(made.endpoint.id, "ep-main-000001")})
    )
    with pytest.raises(WrongTarget, match=r"ep-main-000001.* which is no compute of branch"):
        fake.neon().connection(branch=made.branch, database="shop", role="shop_owner")


def test_an_endpoint_option_that_leads_to_another_branch_is_refused(fake: FakeNeon) -> None:
    made = make(fake)
    fake.endpoints[made.endpoint.id]["host"] = "db.example"
    fake.fail("GET", "/connection_uri", gives(lambda body: {"uri": body["uri"] + "&options=endpoint%3Dep-main-000001"}))
    with pytest.raises(WrongTarget):
        fake.neon().connection(branch=made.branch, database="shop", role="shop_owner")


def test_a_connection_to_another_database_or_role_is_refused(fake: FakeNeon) -> None:
    neon = fake.neon()
    main = neon.default_branch()
    for right, wrong in (("/shop?", "/shop2?"), ("shop_owner:", "another:")):
        fake.fail("GET", "/connection_uri", gives(_replacing(right, wrong)))
        with pytest.raises(WrongTarget, match=r"instead of shop as shop_owner") as caught:
            neon.connection(branch=main, database="shop", role="shop_owner")
        assert PASSWORD not in everything_told(caught.value)


def _replacing(right: str, wrong: str) -> Callable[[Any], Any]:
    return lambda body: {"uri": body["uri"].replace(right, wrong)}


def test_a_connection_string_that_cannot_be_read_is_a_fault_that_does_not_show_it(fake: FakeNeon) -> None:
    neon = fake.neon()
    fake.fail("GET", "/connection_uri", gives(lambda _: {"uri": f"postgresql://o:{PASSWORD}@a,b/shop"}))
    with pytest.raises(NeonFault) as caught:
        neon.connection(branch=neon.default_branch(), database="shop", role="o")
    assert PASSWORD not in everything_told(caught.value)


# --- removing --------------------------------------------------------------------------------------------------------


def test_a_branch_is_removed_once_and_removing_it_again_is_done_already(fake: FakeNeon) -> None:
    made = make(fake)
    for _ in range(2):
        fake.neon().remove_branch(made.branch.id, name=NAME)
    assert fake.named(NAME) == []
    assert len([one for one in fake.changes() if one.method == "DELETE"]) == 1


@pytest.mark.parametrize("lost", [cut_after, cut_before, half_after, gateway_after, busy])
def test_a_removal_survives_a_lost_answer(fake: FakeNeon, lost: Any) -> None:
    made = make(fake)
    fake.fail("DELETE", ".*", lost)
    fake.neon().remove_branch(made.branch.id, name=NAME)
    assert fake.named(NAME) == []


@pytest.mark.parametrize(
    ("name", "fields", "error", "why"),
    [
        ("recovery", {}, WrongTarget, f"is named {NAME}, not recovery"),
        (NAME.upper(), {}, WrongTarget, "is named"),
        (NAME, {"default": True}, Refused, "is the default branch"),
        (NAME, {"protected": True}, Refused, "is protected"),
    ],
)
def test_a_branch_that_is_not_the_one_to_remove_is_left_alone(
    fake: FakeNeon, name: str, fields: Any, error: type[Exception], why: str
) -> None:
    made = make(fake)
    fake.branches[made.branch.id].update(fields)
    with pytest.raises(error, match=why):
        fake.neon().remove_branch(made.branch.id, name=name)
    assert len(fake.named(NAME)) == 1


def test_a_branch_with_children_is_left_alone(fake: FakeNeon) -> None:
    made = make(fake)
    fake._add_branch("br-child-000001", "child", parent_id=made.branch.id)
    with pytest.raises(Refused, match="is the parent of child"):
        fake.neon().remove_branch(made.branch.id, name=NAME)


# --- restoring in place ----------------------------------------------------------------------------------------------


def restore(fake: FakeNeon, moment: Moment | None = None) -> Branch:
    neon = fake.neon()
    main = neon.default_branch()
    return neon.restore_branch(branch=main, source=main, moment=moment or ago(HOUR), preserve_under="before-restore")


def test_a_restore_keeps_the_old_state_under_the_given_name(fake: FakeNeon) -> None:
    fake.polls = 2
    assert restore(fake).current_state == "ready"
    assert posts(fake) == [
        {
            "source_branch_id": MAIN,
            "source_timestamp": "2026-03-02T11:00:00.000Z",
            "preserve_under_name": "before-restore",
        }
    ]
    assert len(fake.named("before-restore")) == 1


@pytest.mark.parametrize("lost", [cut_after, cut_before, half_after, gateway_after])
def test_a_restore_whose_answer_was_lost_is_done_exactly_once(fake: FakeNeon, lost: Any) -> None:
    """The preserved branch shows only when the operations have ended, well after the answer was lost."""
    fake.polls = 5
    fake.fail("POST", "/restore", lost)
    restore(fake)
    assert len(fake.named("before-restore")) == 1


def test_a_restore_that_may_have_been_done_before_is_refused(fake: FakeNeon) -> None:
    restore(fake)
    with pytest.raises(Refused, match="may have been done before"):
        restore(fake)
    assert len(posts(fake)) == 1


def test_a_restore_of_a_restricted_branch_is_refused_with_neons_reason(fake: FakeNeon) -> None:
    fake.branches[MAIN]["restricted_actions"] = [
        {"name": "restore", "reason": "restore from snapshot is still ongoing"}
    ]
    with pytest.raises(Refused, match="restore from snapshot is still ongoing"):
        restore(fake)
    assert fake.changes() == []


def test_a_restore_to_a_moment_outside_the_window_is_refused_before_any_change(fake: FakeNeon) -> None:
    with pytest.raises(OutsideWindow):
        restore(fake, ago(timedelta(hours=25)))
    assert fake.changes() == []
