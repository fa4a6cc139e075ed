"""The state file is replaced whole, and what could not be written did not happen."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.model.moment import Moment
from runbooks.sandbox import names
from runbooks.sandbox.faults import ApiFault
from runbooks.sandbox.records import Endpoint, Operation, Project
from runbooks.sandbox.state import OPERATIONS_KEPT, Ledger, State

NOW = Moment.of(datetime(2026, 3, 1, tzinfo=UTC))
FRESH = State(api_key="k", superuser_password="s")


def project(name: str) -> Project:
    return Project(id=name, name=name, created_at=NOW, updated_at=NOW, history_retention_seconds=60, pg_version=17)


def operation(number: int) -> Operation:
    return Operation(id=f"{number}", project_id="p", action="start_compute", created_at=NOW, updated_at=NOW)


def test_what_was_committed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    ledger = Ledger.open(path, FRESH)
    ledger.commit(project("one"), project("two"))
    ledger.commit(drop=[project("one")])
    again = Ledger.open(path, State(api_key="other", superuser_password="other"))
    assert again.state == ledger.state
    assert set(again.state.projects) == {"two"}
    assert again.state.api_key == "k"


def test_a_change_that_cannot_be_written_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger.open(tmp_path / "state.json", FRESH)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space"):
            ledger.commit(project("one"))
    assert ledger.state.projects == {}
    assert Ledger.open(tmp_path / "state.json", FRESH).state.projects == {}


def test_only_the_newest_operations_are_kept(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "state.json", FRESH)
    ledger.commit(*(operation(number) for number in range(OPERATIONS_KEPT + 5)))
    kept = list(ledger.state.operations)
    assert (len(kept), kept[0], kept[-1]) == (OPERATIONS_KEPT, "5", str(OPERATIONS_KEPT + 4))


def test_a_record_of_another_project_is_not_found(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "state.json", FRESH)
    endpoint = Endpoint(id="ep", project_id="a", branch_id="br", port=1, created_at=NOW, updated_at=NOW)
    ledger.commit(endpoint)
    assert ledger.owned(Endpoint, "a", "ep") == endpoint
    with pytest.raises(ApiFault) as caught:
        ledger.owned(Endpoint, "b", "ep")
    assert caught.value.status == 404


def test_secrets_are_in_no_repr() -> None:
    assert "hidden" not in repr(State(api_key="hidden", superuser_password="hidden"))


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_an_lsn_is_read_back_as_it_was_written(value: int) -> None:
    assert names.read_lsn(names.lsn(value)) == value


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "0/123456789", "g/0", "1/2/3", "+1/1", " 1/1", "1_0/1"])
def test_a_text_that_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an LSN"):
        names.read_lsn(text)
