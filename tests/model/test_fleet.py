"""A fleet ends well only if all of it does, and each child is of exactly one database."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.model.backup import Tier
from runbooks.model.errors import PolicyFault, UsageFault, every_error
from runbooks.model.fleet import INDEX, Job, Outcome, Routine, environment_of, order, worst

NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True), min_size=1, max_size=9, unique=True)
CODES = st.sampled_from([0, 1, 2, 11, 14, 21, 28, 30, 31, 99, 137])


@given(st.lists(CODES, min_size=1, max_size=6))
def test_the_whole_ends_well_only_if_all_do(codes: list[int]) -> None:
    assert (worst(codes) == 0) is (not any(codes))


@pytest.mark.parametrize(
    ("codes", "whole"),
    [
        ([0, 0], 0),
        ([0, 21], 11),
        ([21, 21], 21),
        ([21, 28], 11),
        ([0, 30, 21], 30),
        ([31, 0], 31),
        ([31, 30], 30),
        ([0, 1], 1),
        ([21, 137], 1),
        ([], 11),
    ],
)
def test_the_gravest_is_told(codes: list[int], whole: int) -> None:
    assert worst(codes) == whole


def test_an_unknown_code_is_a_fault_in_this_program() -> None:
    unknown = max(kind.exit_code for kind in every_error()) + 1
    assert worst([0, unknown]) == 1


# --- what a process said ----------------------------------------------------------------------------------------------


def test_a_proved_backup_is_told_with_its_run() -> None:
    answer = json.dumps({"run_id": "20251203-020000-aaaa", "verdict": "proved", "summary": "1 row"})
    outcome = Outcome.read("one", 0, answer)
    assert (outcome.exit_code, outcome.said, outcome.run_id) == (0, "proved: 1 row", "20251203-020000-aaaa")


def test_an_error_is_told_with_what_to_do_next() -> None:
    error = {"happened": "no route", "next_step": "mend it", "run_id": None, "exit_code": 21}
    outcome = Outcome.read("one", 21, json.dumps({"error": error}))
    assert (outcome.exit_code, outcome.said, outcome.next_step, outcome.run_id) == (21, "no route", "mend it", None)


@pytest.mark.parametrize("answer", ["", "proved", "[]", "null", "{", '{"error": {"happened": "x"}}'])
def test_a_good_exit_code_without_a_good_answer_is_no_good_ending(answer: str) -> None:
    assert Outcome.read("one", 0, answer).exit_code == 31


def test_a_process_that_was_killed_is_told_with_its_last_words() -> None:
    outcome = Outcome.read("one", -9, "", "1/3 take\nout of memory\n")
    assert (outcome.exit_code, outcome.said) == (137, "it ended without an answer: out of memory")


# --- which child is whose ---------------------------------------------------------------------------------------------


@given(NAMES)
def test_each_environment_has_one_child_and_none_has_two(names: list[str]) -> None:
    assert [environment_of(names, {INDEX: str(index)}) for index in range(len(names))] == names


@given(NAMES, st.randoms())
def test_another_order_or_another_set_has_another_mark(names: list[str], random: st.randoms) -> None:  # type: ignore[valid-type]
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert (order(shuffled) == order(names)) is (shuffled == names)
    assert order([*names, "another-one"]) != order(names)
    assert order(names[1:]) != order(names)


@pytest.mark.parametrize("environ", [{}, {INDEX: ""}, {INDEX: "-1"}, {INDEX: "1.0"}, {INDEX: "²"}])
def test_outside_of_an_array_job_nobody_is_a_child(environ: dict[str, str]) -> None:
    with pytest.raises(UsageFault, match="--child is for jobs of AWS Batch"):
        environment_of(["one"], environ)


def test_a_child_too_many_is_told_that_the_image_is_old() -> None:
    with pytest.raises(PolicyFault, match="child 2 of a fleet") as refused:
        environment_of(["one", "two"], {INDEX: "2"})
    assert "image" in refused.value.next_step


# --- what is done -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routine", "alone", "together", "job"),
    [
        (Routine.take(Tier.DAILY), "backup.take --tier daily --env a", "--tier daily", Job.TAKE),
        (Routine.verify(7), "backup.verify --last 7 --env a", "--verify 7", Job.VERIFY),
        (Routine.fresh(), "backup.fresh --env a", "--fresh", Job.JUDGE),
    ],
)
def test_alone_and_together_the_same_is_done(routine: Routine, alone: str, together: str, job: Job) -> None:
    assert (" ".join(routine.of("a")), routine.job) == (alone, job)
    child = " ".join(routine.child("pair", ["a", "b"]))
    assert child == f"backup.fleet --child --stack pair --order {order(['a', 'b'])} {together}"
    given_back = dict(zip(routine.together[::2], routine.together[1::2], strict=False))
    again = Routine.parse(
        given_back.get("--tier", ""), verify=given_back.get("--verify", ""), fresh=len(given_back) == 0
    )
    assert again == routine


@pytest.mark.parametrize(
    ("tier", "verify", "fresh"),
    [("", "", False), ("daily", "7", False), ("daily", "", True), ("dayly", "", False), ("", "0", False),
     ("", "seven", False), ("", "1001", False)],
)  # fmt: skip
def test_anything_but_exactly_one_thing_is_refused(tier: str, verify: str, fresh: bool) -> None:
    with pytest.raises(UsageFault):
        Routine.parse(tier, verify=verify, fresh=fresh)
