"""The folder of a run for readable rows: its own, closed, and gone at last, whatever became of the run."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runbooks.model.moment import Moment
from runbooks.model.run_id import RunId
from runbooks.past.folder import MARK, folder_of, fresh, in_use, remove

NOW = Moment.of(datetime(2025, 12, 3, 14, 30, tzinfo=UTC))
ONE, OTHER = RunId.parse("20251203-143000-k7qx"), RunId.parse("20251203-143000-abcd")


def after(hours: int) -> Moment:
    return Moment.of(NOW.utc + timedelta(hours=hours))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOOM_DR_SANDBOX", str(tmp_path / "place" / "sandbox"))
    return tmp_path / "place"


def leave(run: RunId, expires: Moment) -> Path:
    """As a process that is killed leaves it."""
    folder = folder_of(run)
    with fresh(folder, expires, NOW):
        (folder / "rows").write_text("readable")
    return folder


def test_it_is_closed_to_others_and_another_runs_is_let_be() -> None:
    one = leave(ONE, after(2))
    other = leave(OTHER, after(1))
    assert one.stat().st_mode & 0o777 == 0o700
    assert (one / "rows").exists()
    assert (other / "rows").exists()


def test_what_an_earlier_attempt_of_the_run_left_is_not_taken_for_this_ones() -> None:
    folder = leave(ONE, after(2))
    with fresh(folder, after(2), NOW):
        assert not (folder / "rows").exists()


def test_the_next_one_removes_what_has_expired_and_nothing_else() -> None:
    gone, kept = leave(ONE, after(1)), folder_of(RunId.parse("20251203-143000-zzzz"))
    with fresh(kept, after(5), NOW):
        pass
    with fresh(folder_of(OTHER), after(9), after(1)):
        assert not gone.exists()
        assert kept.exists()


def test_an_expired_one_that_is_in_use_stays() -> None:
    used = leave(ONE, after(1))
    with ExitStack() as stack:
        assert stack.enter_context(in_use(used))
        stack.enter_context(fresh(folder_of(OTHER), after(9), after(2)))
        assert (used / "rows").exists()


@pytest.mark.parametrize("said", ["", "2025-12-"])
def test_one_whose_maker_was_killed_before_it_said_its_time_is_removed(said: str, home: Path) -> None:
    home.mkdir()
    torn = home / f"{MARK}{ONE}"
    torn.mkdir()
    (torn / "expires").write_text(said)
    with fresh(folder_of(OTHER), after(1), NOW):
        assert not torn.exists()


def test_removing_it_twice_is_as_good_as_once() -> None:
    folder = leave(ONE, after(1))
    remove(folder)
    remove(folder)
    with in_use(folder) as there:
        assert not there
