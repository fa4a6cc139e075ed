"""A manifest agrees with itself, and what is proved of a backup does not depend on hope."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runbooks.model.backup import (
    BackupId,
    Encryption,
    Manifest,
    ProofRecord,
    Rung,
    StoredFile,
    Tier,
    Verdict,
    standing,
    verdict_of,
)
from runbooks.model.inventory import Difference, Inventory, Locale, Weight
from runbooks.model.moment import Moment

START = datetime(2025, 12, 3, 2, 0, 0, 250_000, tzinfo=UTC)
ID = BackupId.new("production", START)


def stored(name: str, /, **changes: Any) -> StoredFile:
    file = {"name": name, "size": 10, "sha256": "0" * 64, "stored_name": f"{name}.age", "stored_size": 30}
    return StoredFile.model_validate(file | {"stored_sha256": "f" * 64} | changes)


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "id": ID,
        "environment": "production",
        "database": "neondb",
        "tier": Tier.DAILY,
        "started": Moment(START),
        "finished": Moment(START + timedelta(minutes=4)),
        "lsn": "16/B374D848",
        "server_version": 170_010,
        "client_version": "17.10",
        "tool_version": "0.1.0",
        "encryption": Encryption(method="age", recipients=("age1x",)),
        "inventory": Inventory(tables=(), locale=Locale(encoding="UTF8", provider="libc", collate="C", ctype="C")),
        "files": (stored("toc.dat"), stored("3345.dat.zst", table="public.clients")),
    }
    return Manifest.model_validate(values | changes)


def proof(rung: int, verdict: Verdict = Verdict.PASSED, minute: int = 0) -> ProofRecord:
    at = Moment(START + timedelta(minutes=minute))
    return ProofRecord(backup=ID, at=at, rung=Rung(rung), verdict=verdict, by="test", seconds=1.5)


# Manifest


def test_a_manifest_is_read_back_equal_and_readable_by_people() -> None:
    whole = manifest()
    assert Manifest.from_bytes(whole.to_bytes()) == whole
    assert json.loads(whole.to_bytes())["id"] == str(ID)
    assert (whole.size, whole.stored_size) == (20, 60)
    assert whole.file("3345.dat.zst") == whole.files[1]
    assert whole.file("3345.dat.zst.age") is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"files": (stored("1.dat"),)}, "no toc.dat"),
        ({"files": (stored("toc.dat"), stored("toc.dat", stored_name="x"))}, "same name"),
        ({"files": (stored("toc.dat"), stored("x", stored_name="toc.dat.age"))}, "same name"),
        ({"environment": "staging"}, "does not belong"),
        ({"started": Moment(START + timedelta(seconds=1))}, "does not belong"),
        ({"finished": Moment(START - timedelta(seconds=1))}, "finished before it was started"),
        ({"format": 2}, "format"),
        ({"lsn": "0/16b"}, "lsn"),
        ({"encryption": {"method": "none", "recipients": ["x"]}}, "encryption"),
        ({"encryption": {"method": "age", "recipients": []}}, "encryption"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        manifest(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../toc.dat"},
        {"stored_name": "manifest.json"},
        {"stored_name": "proof-x"},
        {"size": -1},
        {"sha256": "0" * 63},
        {"stored_sha256": "F" * 64},
    ],
)
def test_a_file_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        stored("toc.dat", **changes)


@given(st.integers(min_value=0, max_value=4000))
def test_a_cut_manifest_is_no_manifest(kept: int) -> None:
    content = manifest().to_bytes().rstrip()
    if kept < len(content):
        with pytest.raises(ValueError, match="Invalid JSON"):
            Manifest.from_bytes(content[:kept])


# Proofs


def test_a_backup_without_a_proof_is_uploaded_and_no_more() -> None:
    nothing = standing([])
    assert nothing.rung is Rung.UPLOADED
    assert nothing.proved(Rung.UPLOADED)
    assert not nothing.proved(Rung.REREAD)


def test_what_could_not_be_verified_never_counts() -> None:
    unknown = standing([proof(1), proof(4, Verdict.COULD_NOT_VERIFY, 1)])
    assert unknown.rung is Rung.REREAD
    assert unknown.proved(Rung.REREAD)
    assert not unknown.proved(Rung.DECODED)


def test_a_failure_stands_until_a_later_proof_goes_beyond_it() -> None:
    failed = proof(2, Verdict.FAILED, 1)
    assert not standing([proof(5), failed]).proved(Rung.UPLOADED)
    assert standing([proof(5), failed, proof(2, minute=2)]).failure == failed
    assert standing([proof(5), failed, proof(5, Verdict.COULD_NOT_VERIFY, 2)]).failure == failed
    assert standing([failed, proof(3, minute=2)]).proved(Rung.RESTORED)


def test_of_several_failures_the_one_that_is_hardest_to_refute_stands() -> None:
    both = [proof(1, Verdict.FAILED), proof(3, Verdict.FAILED, 1)]
    assert standing([*both, proof(2, minute=2)]).failure == both[1]
    assert standing([*both, proof(4, minute=2)]).failure is None


def test_a_proof_of_the_same_instant_does_not_refute_a_failure() -> None:
    assert standing([proof(0, Verdict.FAILED), proof(5)]).failure is not None


def test_a_proof_goes_through_json_and_lies_beside_its_backup() -> None:
    record = proof(2)
    assert ProofRecord.from_bytes(record.to_bytes()) == record
    assert record.key == ID.proof_key(record.at)
    with pytest.raises(ValidationError, match="has not failed"):
        proof(5, Verdict.FAILED)
    with pytest.raises(ValidationError):
        ProofRecord.model_validate(record.as_json() | {"seconds": float("nan")})


def test_proofs_of_several_backups_are_not_mixed() -> None:
    other = proof(1).model_copy(update={"backup": BackupId.new("staging", START)})
    with pytest.raises(ValueError, match="several backups"):
        standing([proof(1), other])


proofs = st.lists(
    st.builds(proof, st.integers(0, 4), st.sampled_from(Verdict), st.integers(0, 5)), min_size=1, max_size=6
)


@given(proofs, st.randoms())
def test_standing_does_not_depend_on_the_order_of_the_listing(several: list[ProofRecord], random: Any) -> None:
    shuffled = random.sample(several, len(several))
    one, other = standing(several), standing(shuffled)
    assert (one.rung, one.failure is None) == (other.rung, other.failure is None)


@given(proofs)
def test_whoever_counts_as_proved_has_passed_and_was_not_failed_beyond_recall(several: list[ProofRecord]) -> None:
    outcome = standing(several)
    passed = [each for each in several if each.verdict is Verdict.PASSED]
    assert outcome.rung == max((each.rung for each in passed), default=Rung.UPLOADED)
    for failed in (each for each in several if each.verdict is Verdict.FAILED):
        refuted = any(each.at > failed.at and each.rung > failed.rung for each in passed)
        assert refuted or outcome.failure is not None


@pytest.mark.parametrize(
    ("weights", "verdict"),
    [
        ([], Verdict.PASSED),
        ([Weight.SURROUNDINGS], Verdict.PASSED),
        ([Weight.SURROUNDINGS, Weight.UNCOMPARED], Verdict.COULD_NOT_VERIFY),
        ([Weight.UNCOMPARED, Weight.DATA], Verdict.FAILED),
    ],
)
def test_only_equal_data_passes(weights: list[Weight], verdict: Verdict) -> None:
    found = [Difference(weight=weight, what="table", name="x", expected="1", found="2") for weight in weights]
    assert verdict_of(found) is verdict
