"""A promise is judged number by number, and what was not measured is never a pass."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runbooks.model.objectives import Mark, Measured, Objective, judge

MINUTE, TICK = timedelta(minutes=1), timedelta(microseconds=1)
PROMISE = Objective(rto=30 * MINUTE, rpo=5 * MINUTE)
promised = st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=30))
taken = st.timedeltas(min_value=timedelta(), max_value=timedelta(days=60))


@pytest.mark.parametrize(
    ("measured", "rto", "rpo", "overall"),
    [
        (Measured(rto=30 * MINUTE, rpo=5 * MINUTE), Mark.PASSED, Mark.PASSED, Mark.PASSED),
        (Measured(rto=timedelta(), rpo=timedelta()), Mark.PASSED, Mark.PASSED, Mark.PASSED),
        (Measured(rto=30 * MINUTE + TICK, rpo=MINUTE), Mark.MISSED, Mark.PASSED, Mark.MISSED),
        (Measured(rto=MINUTE, rpo=5 * MINUTE + TICK), Mark.PASSED, Mark.MISSED, Mark.MISSED),
        (Measured(rto=MINUTE, rpo=None), Mark.PASSED, Mark.COULD_NOT_VERIFY, Mark.COULD_NOT_VERIFY),
        (Measured(rto=31 * MINUTE, rpo=None), Mark.MISSED, Mark.COULD_NOT_VERIFY, Mark.MISSED),
    ],
)
def test_each_number_has_its_mark_and_the_worse_one_counts(
    measured: Measured, rto: Mark, rpo: Mark, overall: Mark
) -> None:
    verdict = judge(PROMISE, measured)
    assert (verdict.rto, verdict.rpo, verdict.overall) == (rto, rpo, overall)
    assert verdict.passed == (overall is Mark.PASSED)


def test_a_loss_that_could_not_be_measured_is_said_and_never_a_pass() -> None:
    verdict = judge(PROMISE, Measured(rto=MINUTE, rpo=None))
    assert not verdict.passed
    assert str(verdict) == (
        "recovered in 1m, at most 30m promised: passed; "
        "lost an unknown length of time, at most 5m promised: could not verify"
    )


def test_a_miss_by_a_hair_is_seen_in_the_text() -> None:
    text = judge(PROMISE, Measured(rto=30 * MINUTE + TICK, rpo=timedelta(seconds=3))).text
    assert text == "recovered in 30m0.001s, at most 30m promised: missed; lost 3s, at most 5m promised: passed"


@given(promised, promised, taken, st.none() | taken)
def test_the_verdict_is_a_pass_exactly_when_both_numbers_are_known_and_kept(
    rto: timedelta, rpo: timedelta, took: timedelta, lost: timedelta | None
) -> None:
    verdict = judge(Objective(rto=rto, rpo=rpo), Measured(rto=took, rpo=lost))
    assert verdict.passed == (took <= rto and lost is not None and lost <= rpo)


@given(taken, st.none() | taken)
def test_a_measurement_that_was_stored_is_judged_no_better_than_before(took: timedelta, lost: timedelta | None) -> None:
    measured = Measured(rto=took, rpo=lost)
    stored = Measured.model_validate_json(measured.model_dump_json())
    assert stored.rto >= took
    assert judge(PROMISE, stored).overall == judge(PROMISE, measured).overall


def test_negative_measurements_are_refused_rather_than_passed() -> None:
    with pytest.raises(ValidationError, match="not negative"):
        Measured(rto=-TICK, rpo=MINUTE)
    with pytest.raises(ValidationError, match="not negative"):
        Measured(rto=MINUTE, rpo=-TICK)


def test_a_promise_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="slip of the pen"):
        Objective(rto=timedelta(), rpo=MINUTE)
