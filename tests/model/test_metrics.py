"""C30: what the alarm on a missing backup goes by is sent for a proved backup, and for nothing else."""

from __future__ import annotations

import ast
import itertools
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.model.backup import BackupId, ProofRecord, Rung, Tier, Verdict, standing
from runbooks.model.freshness import Freshness
from runbooks.model.metrics import (
    BACKUP_AGE,
    BACKUP_FAILURE,
    BACKUP_SIZE,
    BACKUP_SUCCESS,
    DRILL_RTO,
    EVERY_SERIES,
    NAMESPACE,
    PRUNE_FAILURE,
    SYNC_ERRORS,
    TRAIL_CHANGED,
    VERIFIED_RUNG,
    VERIFY_FAILURE,
    By,
    Metric,
    of_ages,
    of_drill,
    of_drill_age,
    of_failed_backup,
    of_failed_drill,
    of_proof,
    of_prune,
    of_success,
    of_sync,
    of_verified_age,
    of_window,
)
from runbooks.model.moment import Moment
from runbooks.model.objectives import Measured
from tests.model.test_backup import START, manifest, proof
from tests.model.test_drill import a_test, report

NOW = Moment(START + timedelta(hours=1))
DAILY = (("Environment", "production"), ("Tier", "daily"))
TOGETHER = (("Environment", "production"),)
GIVEN: dict[By, tuple[str | None, Tier | None, str | None]] = {
    "tier": ("production", Tier.DAILY, None),
    "environment": ("production", None, None),
    "test": ("production", None, "corruption"),
    "stack": (None, None, None),
}


def values(metrics: tuple[Metric, ...]) -> dict[str, float]:
    found = {metric.name: metric.value for metric in metrics}
    assert len(found) == len(metrics), "each is sent once"
    return found


@st.composite
def attempts(draw: st.DrawFn) -> list[ProofRecord]:
    found = []
    for minute in range(draw(st.integers(1, 5))):
        verdict = draw(st.sampled_from(Verdict))
        highest = max(Rung) - (verdict is Verdict.FAILED)
        found.append(proof(draw(st.integers(0, highest)), verdict, minute + 5))
    return found


def test_a_proved_backup_is_a_success_of_its_own_size_at_its_own_time() -> None:
    whole = manifest()
    success, size, duration = of_success(whole, [proof(2)], Rung.DECODED)
    assert success == Metric(name="BackupSuccess", value=1, unit="Count", dimensions=DAILY, at=whole.finished)
    assert size == Metric(name="BackupSize", value=whole.stored_size, unit="Bytes", dimensions=DAILY, at=whole.finished)
    took = (whole.finished.utc - whole.started.utc).total_seconds()
    assert duration == Metric(name="BackupDuration", value=took, unit="Seconds", dimensions=DAILY, at=whole.finished)


@pytest.mark.parametrize(
    ("before", "percent"),
    [
        ([], None),
        ([1.0, 1.0], None),
        ([1.0, 1.0, 1.0], 0),
        ([2.0, 2.0, 2.0], 50),
        ([0.5, 0.5, 0.5], 100),
        ([0.1, 1.0, 1.0, 9.0], 0),
        ([50.0] * 90 + [1.0] * 7, 0),
        ([1.0] * 90 + [2.0] * 4 + [1.0] * 3, 50),
        ([0.0, 0.0, 0.0], None),
    ],
)
def test_a_size_is_compared_with_the_median_of_the_last_seven(before: list[float], percent: float | None) -> None:
    whole = manifest()
    sizes = [int(each * whole.stored_size) for each in before]
    said = {metric.name: metric for metric in of_proof(whole, proof(2), [], Rung.DECODED, sizes)}
    assert "BackupSize" in said
    if percent is None:
        assert "BackupSizeDeviation" not in said
    else:
        deviation = said["BackupSizeDeviation"]
        assert deviation.value == pytest.approx(percent, abs=1)
        assert (deviation.unit, deviation.dimensions, deviation.at) == ("Percent", DAILY, whole.finished)


def test_what_is_no_success_has_no_size_to_stand_out_with() -> None:
    failed = values(of_proof(manifest(), proof(2, Verdict.FAILED), [], Rung.DECODED, [1, 1, 1]))
    assert failed == {"VerifyFailure": 1}


@given(attempts(), st.sampled_from(Rung))
def test_c30_success_is_sent_exactly_for_what_is_proved(proofs: list[ProofRecord], at_least: Rung) -> None:
    proved = at_least >= Rung.REREAD and standing(proofs).proved(at_least)
    *earlier, last = proofs
    said = values(of_proof(manifest(), last, earlier, at_least))
    if proved and last.verdict is Verdict.PASSED:
        assert said["BackupSuccess"] == 1
    else:
        assert "BackupSuccess" not in said
        assert not said.keys() & {"BackupSize", "BackupSizeDeviation", "BackupDuration"}
    if not proved:
        with pytest.raises(ValueError, match="is not proved"):
            of_success(manifest(), proofs, at_least)


@pytest.mark.parametrize(
    "proofs",
    [
        [],
        [proof(1)],
        [proof(2, Verdict.FAILED)],
        [proof(5, Verdict.COULD_NOT_VERIFY)],
        [proof(3, Verdict.FAILED, 5), proof(2, minute=6)],
    ],
    ids=["nothing", "too low", "failed", "could not verify", "failed higher up"],
)
def test_c30_no_success_can_be_made_of(proofs: list[ProofRecord]) -> None:
    with pytest.raises(ValueError, match="is not proved"):
        of_success(manifest(), proofs, Rung.DECODED)


def test_c30_an_upload_alone_is_never_a_success() -> None:
    with pytest.raises(ValueError, match="anything"):
        of_success(manifest(), [proof(0)], Rung.UPLOADED)


def test_c30_the_proof_of_another_backup_is_refused() -> None:
    other = manifest(id=BackupId.new("staging", START), environment="staging")
    with pytest.raises(ValueError, match="another backup"):
        of_success(other, [proof(2)], Rung.DECODED)


def test_c30_proving_an_old_backup_again_does_not_pass_for_a_new_one() -> None:
    whole = manifest()
    yesterdays = proof(2, minute=60 * 24)
    said = {metric.name: metric for metric in of_proof(whole, yesterdays, [proof(2)], Rung.DECODED)}
    assert said["BackupSuccess"].at == whole.finished
    assert said["VerifiedRung"].at == yesterdays.at


def test_what_cloudwatch_would_refuse_for_its_age_does_not_take_the_rest_with_it() -> None:
    month_later = proof(4, minute=60 * 24 * 30)
    assert values(of_proof(manifest(), month_later, [], Rung.DECODED)) == {"VerifiedRung": 4, "VerifyFailure": 0}


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.COULD_NOT_VERIFY])
def test_an_attempt_that_did_not_pass_counts_as_failure_and_shows_no_rung(verdict: Verdict) -> None:
    assert values(of_proof(manifest(), proof(3, verdict, 6), [proof(2)], Rung.DECODED)) == {"VerifyFailure": 1}


def test_reading_again_what_failed_to_restore_shows_no_rung() -> None:
    said = values(of_proof(manifest(), proof(2, minute=9), [proof(2, Verdict.FAILED, 8)], Rung.DECODED))
    assert said == {"VerifyFailure": 0}


def test_a_failed_backup_says_so_and_nothing_of_success() -> None:
    (failure,) = of_failed_backup("production", Tier.DAILY, NOW)
    assert failure == Metric(name="BackupFailure", value=1, unit="Count", dimensions=DAILY, at=NOW)


def test_c16_the_age_of_a_backup_that_does_not_exist_is_not_sent_as_a_number() -> None:
    def judged(newest: Moment | None, tier: Tier) -> Freshness:
        return Freshness(tier=tier, fresh=newest is not None, newest=newest, due=None, at=NOW)

    future = Moment(START + timedelta(days=1))
    ages = of_ages("production", [judged(Moment(START), Tier.DAILY), judged(None, Tier.WEEKLY)])
    assert ages == (Metric(name="BackupAge", value=3600, unit="Seconds", dimensions=DAILY, at=NOW),)
    assert of_ages("production", [judged(future, Tier.DAILY)]) == ()


def test_the_age_of_what_is_not_there_or_from_the_future_is_not_sent_as_a_number() -> None:
    future, past = Moment(START + timedelta(days=1)), Moment(START)
    assert values(of_verified_age("production", past, NOW)) == {"VerifiedAge": 3600}
    assert values(of_drill_age("production", report(), NOW)) == {"DrillAge": 3600}
    for newest in (None, future):
        assert of_verified_age("production", newest, NOW) == ()
    assert of_drill_age("production", None, NOW) == ()
    assert of_drill_age("production", report(written=future), NOW) == ()


def test_a_drill_that_failed_or_was_for_another_environment_has_no_age() -> None:
    rows = a_test("accidental-delete")
    for other in (report(rows), report(counts_for="staging"), report(counts_for=None)):
        with pytest.raises(ValueError, match="does not count for production"):
            of_drill_age("production", other, NOW)


def test_of_a_drill_only_what_was_measured_in_it_is_sent() -> None:
    done = {(metric.name, metric.dimensions[1:]): metric.value for metric in of_drill(report())}
    rows, backup = ((("Test", test),) for test in ("accidental-delete", "corruption"))
    assert done == {
        ("DrillSuccess", ()): 1,
        ("DrillRTO", rows): 12, ("DrillRPO", rows): 3,
        ("DrillRTO", backup): 12, ("DrillRPO", backup): 3,
    }  # fmt: skip
    lost = a_test("accidental-delete", Measured(rto=timedelta(seconds=12), rpo=None))
    failed = of_drill(report(lost, a_test("corruption", held=False)))
    assert [(metric.name, metric.value) for metric in failed] == [("DrillSuccess", 0), ("DrillRTO", 12)]
    assert failed[1].dimensions == DRILL_RTO.dimensions("production", test="accidental-delete")
    with pytest.raises(ValueError, match="counts for no environment"):
        of_drill(report(counts_for=None))


def test_a_window_of_nothing_is_a_number_and_one_into_the_future_is_none() -> None:
    assert values(of_window("production", timedelta(), NOW)) == {"RestoreWindow": 0}
    with pytest.raises(ValueError, match="future"):
        of_window("production", -timedelta(seconds=1), NOW)


@pytest.mark.parametrize(("done", "failures"), [(True, 0), (False, 1)])
def test_a_clean_up_tells_whether_it_did_all_it_had_planned(done: bool, failures: int) -> None:
    (metric,) = of_prune("production", NOW, done=done)
    assert (metric.name, metric.value, metric.dimensions) == ("PruneFailure", failures, TOGETHER)


def test_a_sync_tells_how_many_backups_it_left_behind() -> None:
    (metric,) = of_sync("production", 3, NOW)
    assert (metric.name, metric.value, metric.dimensions) == ("S3SyncErrors", 3, TOGETHER)
    with pytest.raises(ValueError, match="fewer than no"):
        of_sync("production", -1, NOW)


def test_every_number_has_the_dimensions_and_unit_that_its_series_promises_to_alarms() -> None:
    fresh = Freshness(tier=Tier.DAILY, fresh=True, newest=Moment(START), due=None, at=NOW)
    sent = [
        *of_proof(manifest(), proof(2, minute=5), [], Rung.DECODED, [1, 2, 3]),
        *of_failed_backup("production", Tier.DAILY, NOW),
        *of_ages("production", [fresh]),
        *of_sync("production", 0, NOW),
        *of_prune("production", NOW, done=True),
        *of_verified_age("production", Moment(START), NOW),
        *of_drill_age("production", report(), NOW),
        *of_window("production", timedelta(days=7), NOW),
        *of_drill(report(a_test("corruption"))),
        *of_failed_drill("production", NOW),
    ]
    promised = {
        each.name: (each.unit, each.dimensions(*GIVEN[each.by][:2], test=GIVEN[each.by][2]))
        for each in EVERY_SERIES
        if each.by != "stack"
    }
    found = {metric.name: (metric.unit, metric.dimensions) for metric in sent}
    assert found == promised, "each has a sender, but those that a filter of the trail's log counts"


def test_exactly_the_dimensions_of_a_series_are_asked_for() -> None:
    for series, (by, known) in itertools.product(EVERY_SERIES, GIVEN.items()):
        environment, tier, test = known
        if series.by == by:
            assert all(value for _, value in series.dimensions(environment, tier, test=test))
        else:
            with pytest.raises(ValueError, match=series.name):
                series.dimensions(environment, tier, test=test)


def test_what_a_stacks_trail_counts_is_in_a_namespace_of_that_stack() -> None:
    assert TRAIL_CHANGED.namespace("production") == "BloomDR/Audit/production"
    assert BACKUP_AGE.namespace() == NAMESPACE
    for series, stack in ((TRAIL_CHANGED, None), (BACKUP_AGE, "production")):
        with pytest.raises(ValueError, match=series.name):
            series.namespace(stack)


def test_the_strategys_names_stay() -> None:
    names = {each.name for each in EVERY_SERIES}
    assert {"BackupSuccess", "BackupSize", "S3SyncErrors"} <= names
    assert len(names) == len(EVERY_SERIES)
    by_tier = [BACKUP_AGE, BACKUP_FAILURE, BACKUP_SIZE, BACKUP_SUCCESS, VERIFIED_RUNG, VERIFY_FAILURE]
    assert all(each.by == "tier" for each in by_tier)
    assert all(each.by == "environment" for each in (SYNC_ERRORS, PRUNE_FAILURE))


def test_c30_nobody_makes_a_metric_by_hand() -> None:
    """Else a success could be sent that was not built from a proof."""
    root = Path(__file__).resolve().parents[2] / "runbooks"
    makers = set()
    for path in root.rglob("*.py"):
        text = path.read_text()
        if "runbooks.model.metrics" in text or path.stem == "metrics":
            calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
            names = {getattr(call, "id", "") or getattr(call, "attr", "") for call in calls}
            makers |= {str(path.relative_to(root))} if names & {"Metric", "_measured"} else set()
    assert makers == {"model/metrics.py"}


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Metric(name="BackupSize", value=float("nan"), unit="Bytes", dimensions=DAILY, at=NOW)
