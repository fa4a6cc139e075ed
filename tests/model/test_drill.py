"""The report of a drill: what proves, where it lies, and that what was not tested is no pass."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.model import drill
from runbooks.model.drill import DRILLED, Check, DrillReport, report_key, run_of_report
from runbooks.model.moment import Moment
from runbooks.model.objectives import Measured, Objective
from runbooks.model.policy import Objectives
from runbooks.model.run_id import RunId
from tests.model.test_backup import START

RUN = RunId.parse("20251203-143000-k7qx")
PROMISE = Objective(rto=timedelta(minutes=30), rpo=timedelta(minutes=5))
MEASURED = Measured(rto=timedelta(seconds=12), rpo=timedelta(seconds=3))


def a_test(scenario: str, measured: Measured = MEASURED, *, held: bool = True) -> drill.Test:
    return drill.Test.judged_by(
        PROMISE, measured, scenario=scenario, name=f"of {scenario}", incident=Moment(START), moment=Moment(START),
        recovery_run=f"{RUN}-1", checks=(Check(claim="all is there", held=held, found="what was there"),),
    )  # fmt: skip


def report(*tests: drill.Test, counts_for: str | None = "production", **fields: object) -> DrillReport:
    """A proved one, unless its tests are given."""
    told = {
        "run_id": str(RUN), "counts_for": counts_for, "operator": "ana", "written": Moment(START), "zone": "UTC",
        "postgres": "PostgreSQL 17.10", "rows": 100, "bytes": 1000,
        "tests": tests or tuple(map(a_test, DRILLED)),
    }  # fmt: skip
    return DrillReport.model_validate(told | fields)


def test_proved_is_a_drill_of_all_objectives_whose_tests_all_passed() -> None:
    rows, backup = map(a_test, DRILLED)
    assert report().proved
    slow = a_test("corruption", Measured(rto=timedelta(hours=1), rpo=timedelta(seconds=3)))
    unknown = a_test("corruption", Measured(rto=timedelta(seconds=12), rpo=None))
    wrong = a_test("corruption", held=False)
    for tests in ((rows,), (backup,), (rows, rows), (rows, slow), (rows, unknown), (rows, wrong), (rows, backup, slow)):
        assert not report(*tests).proved, [test.result for test in tests]
    lying = backup.model_copy(update={"checks": wrong.checks})
    assert lying.result == "PASS"
    assert not report(rows, lying).proved


def test_what_a_drill_tests_are_objectives_of_the_policy() -> None:
    assert {*DRILLED} <= {field.alias for field in Objectives.model_fields.values()}


def test_a_report_comes_back_from_its_text_as_it_was() -> None:
    assert DrillReport.model_validate_json(report().model_dump_json()) == report()


def test_a_reports_key_tells_whose_it_is() -> None:
    key = report_key("production", RUN, "drill.json")
    assert key == "production/drills/20251203-143000-k7qx/drill.json"
    assert run_of_report(key) == RUN


@pytest.mark.parametrize(
    "key",
    [
        "production/drills/",
        "production/drills/20251203-143000-k7qx/",
        "production/drills/20251203-143000-k7qx/drill.json.bak",
        "production/drills/20251203-143000-k7qx/drill.txt",
        "production/drills/20251203-143000-k7qx/drill.json\n",
        "production/drills/../20251203-143000-k7qx/drill.json",
        "production/drills/20251203-143000-K7QX/drill.json",
        "production/drills/20251203-14300-k7qx/drill.json",
        "production/drills/٢0251203-143000-k7qx/drill.json",
        "x/production/drills/20251203-143000-k7qx/drill.json",
        "Production/drills/20251203-143000-k7qx/drill.json",
        "production/drills/x/20251203-143000-k7qx/drill.json",
        "production/2025/12/20251203-143000-k7qx/drill.json",
    ],
)
def test_no_other_key_is_taken_for_one(key: str) -> None:
    assert run_of_report(key) is None


@given(st.text(max_size=20))
def test_a_key_that_would_not_be_read_again_is_not_written(name: str) -> None:
    for environment, run, file in (
        (name, RUN, "drill.json"),
        ("production", RunId(name), "drill.md"),
        ("a", RUN, name),
    ):
        try:
            assert run_of_report(report_key(environment, run, file)) == run
        except ValueError as refused:
            assert "is not where a report of a drill lies" in str(refused)  # noqa: PT017 - most of them are refused
