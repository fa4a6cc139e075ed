"""The evaluator that the claims about alarms rest on judges as CloudWatch's own examples do."""

from __future__ import annotations

import pytest

from tests.infra.alarm_state import judged

X, O = True, False  # noqa: E741 - as in the examples: X breaches, O does not


def points(row: str) -> list[bool]:
    """Newest first, those that are there, of a row of the examples, which have the newest last."""
    return [{"X": X, "0": O}[mark] for mark in reversed(row.split()) if mark != "-"]


@pytest.mark.parametrize(
    ("row", "needed", "breaching", "not_breaching"),
    [
        ("0 - X - X", 3, "OK", "OK"),
        ("0 - - - -", 3, "OK", "OK"),
        ("- - - - -", 3, "ALARM", "OK"),
        ("0 X X - X", 3, "ALARM", "ALARM"),
        ("- - X - -", 3, "ALARM", "OK"),
        ("0 - X - X", 2, "ALARM", "ALARM"),
        ("0 0 X 0 X", 2, "ALARM", "ALARM"),
        ("0 - X - -", 2, "ALARM", "OK"),
        ("- - - - 0", 2, "ALARM", "OK"),
        ("- - - X -", 2, "ALARM", "OK"),
    ],
)
def test_the_examples_of_cloudwatchs_manual(row: str, needed: int, breaching: str, not_breaching: str) -> None:
    alarm = {"EvaluationPeriods": 3, "DatapointsToAlarm": needed}
    assert judged(points(row), {**alarm, "TreatMissingData": "breaching"}) == breaching
    assert judged(points(row), {**alarm, "TreatMissingData": "notBreaching"}) == not_breaching


def test_an_alarm_that_may_know_nothing_is_refused() -> None:
    with pytest.raises(AssertionError, match="INSUFFICIENT_DATA"):
        judged([], {"EvaluationPeriods": 1, "TreatMissingData": "missing"})
