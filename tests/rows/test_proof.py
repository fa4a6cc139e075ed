"""The proof after COMMIT fails if a row is not as it was, and tells what others did since."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbooks.model.errors import LocalFault, WrongTarget
from runbooks.rows.proof import Proof, prove_recovery
from tests.rows.cluster import Pair, Pairs, Recovery, recover
from tests.rows.test_recovery import SHOP


def again(pair: Pair, done: Recovery) -> Proof:
    return prove_recovery(pair.production, pair.branch, done.plan, done.applied)


def lost_and_found(pairs: Pairs, folder: Path) -> tuple[Pair, Recovery]:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE booking <= 2")
    return pair, recover(pair, folder, "item")


def test_a_proof_can_be_repeated_and_goes_through_json(pairs: Pairs, tmp_path: Path) -> None:
    pair, done = lost_and_found(pairs, tmp_path)
    assert done.proof.verdict == "passed"
    assert again(pair, done) == done.proof == Proof.model_validate_json(done.proof.model_dump_json())


def test_what_others_did_since_is_told_and_is_no_failure(pairs: Pairs, tmp_path: Path) -> None:
    pair, done = lost_and_found(pairs, tmp_path)
    pair.app.execute(
        "UPDATE item SET what = 'x' WHERE (booking, n) = (1, 1); DELETE FROM item WHERE (booking, n) = (2, 2)"
    )
    proof = again(pair, done)
    (table,) = proof.tables
    assert (proof.verdict, table.proved, proof.changed, proof.gone) == ("passed", 4, 1, 1)
    assert (table.changed.keys, table.gone.keys) == (("(1,1)",), ("(2,2)",))


@pytest.mark.parametrize("damage", ["UPDATE public.item SET what = 'x'", "DELETE FROM public.item"])
def test_a_row_of_ours_that_is_not_the_branchs_row_fails_the_proof(pairs: Pairs, tmp_path: Path, damage: str) -> None:
    pair, done = lost_and_found(pairs, tmp_path)
    pair.branch.execute(f"{damage} WHERE (booking, n) = (1, 1)".encode())
    proof = again(pair, done)
    assert proof.verdict == "failed"
    assert proof.tables[0].different.keys == ("(1,1)",)


def test_a_row_that_is_not_accounted_for_fails_the_proof(pairs: Pairs, tmp_path: Path) -> None:
    pair, done = lost_and_found(pairs, tmp_path)
    (result,) = done.applied.tables
    lied = done.applied.model_copy(update={"tables": (result.model_copy(update={"inserted": 7, "asked": 271}),)})
    assert prove_recovery(pair.production, pair.branch, done.plan, lied).verdict == "failed"


def test_the_undo_file_of_another_run_is_no_proof(pairs: Pairs, tmp_path: Path) -> None:
    pair, done = lost_and_found(pairs, tmp_path)
    with pytest.raises(LocalFault):
        again(pair, Recovery(done.plan, done.applied.model_copy(update={"run": "other"}), done.proof, done.undo))


def test_a_proof_on_another_database_is_refused(pairs: Pairs, tmp_path: Path) -> None:
    pair, done = lost_and_found(pairs, tmp_path)
    with pytest.raises(WrongTarget):
        prove_recovery(pair.branch, pair.production, done.plan, done.applied)
