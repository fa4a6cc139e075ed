"""The runner: preview before consent, consent that names the target, and a journal to go on from after any kill."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runbooks.engine.consent import Consenting
from runbooks.engine.journal import FILE_NAME, Journal, read
from runbooks.engine.plan import Ending, Verdict
from runbooks.engine.runs import Runs
from runbooks.engine.step import Effect, Runbook
from runbooks.model.errors import ConsentNeeded, DeadlinePassed, LocalFault, NotFound, Refused, WrongTarget
from runbooks.model.run_id import RunId
from tests.engine.toy import FIRST, SECOND, TOY, Done, Request, Shelf, Silent, engine, step

RUN = RunId.parse("20251203-143000-k7qx")
YES = Consenting("tester", value="shelf/book")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "shelf").mkdir()
    return Shelf(tmp_path / "shelf")


def events(root: Path, run_id: RunId = RUN) -> list[str]:
    return [e.event for e in read(root / str(run_id) / FILE_NAME).entries]


def start(root: Path, shelf: Shelf, consenting: Consenting, runbook: Runbook[Any, Any, Any, Any] = TOY) -> Any:
    return engine(root).start(runbook, Request(name="book"), shelf, consenting, RUN)


def test_without_consent_the_run_stops_at_the_preview_and_nothing_is_changed(tmp_path: Path, shelf: Shelf) -> None:
    with pytest.raises(ConsentNeeded) as stopped:
        start(tmp_path, shelf, Consenting("tester"))
    assert shelf.log() == []
    assert f"invoke run.resume {RUN} --confirm shelf/book" in stopped.value.next_step
    assert "executing" not in events(tmp_path)


@pytest.mark.parametrize("value", ["yes", "shelf/books", "shelf/boo", "SHELF/BOOK", "y"])
def test_any_other_value_is_not_consent(tmp_path: Path, shelf: Shelf, value: str) -> None:
    with pytest.raises(WrongTarget):
        start(tmp_path, shelf, Consenting("tester", value=value))
    assert shelf.log() == []


def test_an_empty_value_is_not_consent(tmp_path: Path, shelf: Shelf) -> None:
    with pytest.raises(ConsentNeeded):
        start(tmp_path, shelf, Consenting("tester", value=""))


def test_the_plan_that_was_previewed_is_the_one_that_is_executed(tmp_path: Path, shelf: Shelf) -> None:
    voice = Silent()
    with pytest.raises(ConsentNeeded):
        engine(tmp_path, voice).start(TOY, Request(name="book"), shelf, Consenting("tester"), RUN)
    shelf.put("something-new")  # the world moves on; the plan does not
    engine(tmp_path, voice).resume(TOY, RUN, shelf, YES)
    entries = {e.event: e.data for e in read(tmp_path / str(RUN) / FILE_NAME).entries}
    assert set(voice.previews) == {entries["planned"]["digest"]}
    assert entries["consented"]["digest"] == entries["executing"]["digest"] == entries["planned"]["digest"]
    assert entries["planned"]["plan"]["there"] == []


def test_a_finished_run_is_told_again_and_not_run_again(tmp_path: Path, shelf: Shelf) -> None:
    first = start(tmp_path, shelf, YES)
    before = events(tmp_path)
    again = engine(tmp_path).resume(TOY, RUN, shelf, Consenting("tester"))
    assert again.ending == first.ending
    assert again.last_hash == first.last_hash
    assert events(tmp_path) == before
    assert shelf.log() == ["book.1", "book.2", "book.3"]


def test_a_failed_step_stops_the_run_and_the_next_steps_do_not_run(tmp_path: Path, shelf: Shelf) -> None:
    def fail(running: Any) -> Done:
        raise LocalFault("the shelf is full", safe="the rest", next_step="invoke run.list")

    broken = dataclasses.replace(TOY, steps=(FIRST, dataclasses.replace(SECOND, run=fail), step("third", ".3")))
    with pytest.raises(LocalFault):
        start(tmp_path, shelf, YES, broken)
    assert shelf.log() == ["book.1"]
    assert events(tmp_path)[-2:] == ["step-failed", "failed"]
    ended = engine(tmp_path).resume(TOY, RUN, shelf, Consenting("tester"))  # consent is in the journal
    assert ended.ending.verdict is Verdict.PROVED
    assert shelf.log() == ["book.1", "book.2", "book.3"]


def test_a_finished_step_whose_effect_is_gone_is_not_silently_done_again(tmp_path: Path, shelf: Shelf) -> None:
    def fail(running: Any) -> Done:
        raise LocalFault("no", safe="the rest", next_step="invoke run.list")

    with pytest.raises(LocalFault):
        start(tmp_path, shelf, YES, dataclasses.replace(TOY, steps=(FIRST, dataclasses.replace(SECOND, run=fail))))
    (shelf.folder / "book.1").unlink()
    with pytest.raises(Refused, match="'first'"):
        engine(tmp_path).resume(TOY, RUN, shelf, Consenting("tester"))
    assert shelf.log() == ["book.1"]


def test_a_step_past_its_deadline_is_ended_and_said_so(tmp_path: Path, shelf: Shelf) -> None:
    def hang(running: Any) -> Done:
        signal.pause()
        raise AssertionError("not reached")

    slow = dataclasses.replace(TOY, steps=(dataclasses.replace(FIRST, run=hang, deadline=timedelta(seconds=0.05)),))
    with pytest.raises(DeadlinePassed, match="'first'"):
        start(tmp_path, shelf, YES, slow)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_ending_cannot_say_proved_and_leave_something_open(tmp_path: Path, shelf: Shelf) -> None:
    lying = dataclasses.replace(
        TOY, ending=lambda plan, results: Ending(verdict=Verdict.PROVED, summary="ok", left_open=("one row",))
    )
    with pytest.raises(AssertionError):
        start(tmp_path, shelf, YES, lying)
    assert "finished" not in events(tmp_path)


def test_a_run_that_does_not_exist_is_not_found(tmp_path: Path, shelf: Shelf) -> None:
    with pytest.raises(NotFound):
        engine(tmp_path).resume(TOY, RUN, shelf, YES)


def test_runs_are_listed_newest_first_and_a_broken_one_is_not_left_out(tmp_path: Path, shelf: Shelf) -> None:
    start(tmp_path, shelf, YES)
    later = RunId.parse("20251204-000000-aaaa")
    with pytest.raises(ConsentNeeded):
        engine(tmp_path).start(TOY, Request(name="book"), shelf, Consenting("tester"), later)
    path = tmp_path / str(RUN) / FILE_NAME
    path.write_bytes(path.read_bytes().replace(b"tester", b"nobody", 1))
    listed = [(s.run_id, s.state) for s in Runs(tmp_path).summaries()]
    assert listed == [(str(later), "unfinished: awaiting consent"), (str(RUN), "broken")]


def journal_lines() -> int:
    """What a run of the toy writes: opened to executing (5), three steps with a note each, executed, finished."""
    return 16


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("line", range(1, 17))
def test_killed_at_any_line_of_the_journal_and_resumed_it_ends_the_same(
    tmp_path: Path, shelf: Shelf, line: int, side: str
) -> None:
    _killed_at(line, side, lambda: start(tmp_path, shelf, YES))
    if Runs(tmp_path).exists(RUN) and events(tmp_path):
        ended = engine(tmp_path).resume(TOY, RUN, shelf, YES)
        assert ended.ending.verdict is Verdict.PROVED
        assert shelf.log() == ["book.1", "book.2", "book.3"]  # each exactly once
    else:
        assert (line, side) == (1, "before")
        assert shelf.log() == []
    if side == "after" and line == journal_lines():
        assert events(tmp_path).count("finished") == 1


def _killed_at(line: int, side: str, work: Any) -> None:
    pid = os.fork()
    if pid == 0:
        append, count = Journal.append, itertools.count(1)

        def killing(self: Journal, event: str, data: Any = None) -> Any:
            number = next(count)
            if (number, side) == (line, "before"):
                os.kill(os.getpid(), signal.SIGKILL)
            entry = append(self, event, data)
            if (number, side) == (line, "after"):
                os.kill(os.getpid(), signal.SIGKILL)
            return entry

        Journal.append = killing  # type: ignore[method-assign]
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_what_a_finished_reading_found_stands_when_its_source_is_gone(tmp_path: Path, shelf: Shelf) -> None:
    (shelf.folder / "source").write_text("then")

    def look(running: Any) -> Done:
        return Done(name=(shelf.folder / "source").read_text())

    def fail(running: Any) -> Done:
        raise LocalFault("no", safe="the rest", next_step="invoke run.list")

    reading = dataclasses.replace(FIRST, effect=Effect.READS, run=look, done=lambda running: None)
    with pytest.raises(LocalFault):
        start(tmp_path, shelf, YES, dataclasses.replace(TOY, steps=(reading, dataclasses.replace(SECOND, run=fail))))
    (shelf.folder / "source").unlink()
    ended = engine(tmp_path).resume(dataclasses.replace(TOY, steps=(reading, SECOND)), RUN, shelf, Consenting("tester"))
    assert ended.results["first"] == Done(name="then")
