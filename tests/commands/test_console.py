"""The story on stderr: not too much of it, and what a person needs when it ends badly."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console as Terminal

from runbooks.engine.console import Console
from runbooks.engine.plan import Ending, Preview, Table, Verdict
from runbooks.model.errors import BloomError, ConsentNeeded, DatabaseFault, UsageFault
from runbooks.model.policy import Contact
from runbooks.model.run_id import RunId

RUN = RunId("20251203-143000-k7qx")
DBA = Contact(name="Ana", how="+52 55 0000 0000", role="decides what is restored")


class Screen:
    """A console that writes into a text, 80 signs wide, at a time that the test sets."""

    def __init__(self, width: int = 80) -> None:
        self.time = 0.0
        self._text = io.StringIO()
        terminal = Terminal(file=self._text, width=width, highlight=False)
        self.console = Console((DBA,), terminal=terminal, clock=lambda: self.time)

    @property
    def shown(self) -> str:
        return self._text.getvalue()


def failure(kind: type[BloomError]) -> BloomError:
    return kind("it broke", safe="all is as it was", next_step="invoke run.list")


def test_progress_without_a_terminal_is_a_line_in_two_seconds_at_most() -> None:
    screen = Screen()
    for tenth in range(50):
        screen.time = tenth / 10
        screen.console.say(f"row {tenth}")
    assert screen.shown.split() == ["row", "0", "row", "20", "row", "40"]


def test_what_is_to_be_pasted_stands_in_one_line_however_narrow_the_terminal() -> None:
    screen, command = Screen(), f"invoke run.resume {RUN} --confirm {'br-' + 'x' * 60}/neondb/12"
    screen.console.error(ConsentNeeded("stopped", safe="all is as it was", next_step=command))
    assert command in screen.shown.splitlines()[-1]


def test_whom_to_call_is_told_when_a_run_fails_and_not_when_the_operator_can_cure_it() -> None:
    for kind, called in ((DatabaseFault, True), (UsageFault, False), (ConsentNeeded, False)):
        screen = Screen()
        screen.console.opened("recover.accidental-delete", RUN, Path("/runs"))
        screen.console.error(failure(kind))
        assert ("call:  Ana, +52 55 0000 0000 (decides what is restored)" in screen.shown) == called, kind


def test_an_error_before_any_run_names_no_run_and_nobody_to_call() -> None:
    screen = Screen()
    screen.console.error(failure(DatabaseFault))
    assert screen.shown.splitlines() == ["error: it broke", "  safe:  all is as it was", "  next:  invoke run.list"]


def test_an_error_in_a_run_names_the_run_unless_the_next_step_does() -> None:
    screen = Screen()
    screen.console.opened("drill.quarterly", RUN, Path("/runs"))
    screen.console.opened("recover.accidental-delete", RUN.nested(1), Path("/runs"))
    screen.console.error(failure(DatabaseFault))
    assert f"run:   {RUN} (its story: invoke run.show {RUN})" in screen.shown
    screen = Screen()
    screen.console.opened("recover.accidental-delete", RUN, Path("/runs"))
    screen.console.error(UsageFault("no", safe="all is as it was", next_step=f"invoke run.resume {RUN}"))
    assert "its story" not in screen.shown


def test_an_ending_that_is_not_proved_lists_what_is_open_and_whom_to_call() -> None:
    screen = Screen()
    screen.console.ended(Ending(verdict=Verdict.INCOMPLETE, summary="3 rows", left_open=("1 row in conflict",)))
    assert screen.shown.splitlines()[:2] == ["INCOMPLETE  3 rows", "  open: 1 row in conflict"]
    assert "Ana" in screen.shown
    screen = Screen()
    screen.console.ended(Ending(verdict=Verdict.PROVED, summary="3 rows"))
    assert screen.shown == "PROVED  3 rows\n"


@pytest.mark.parametrize("width", [60, 80, 160])
def test_no_name_and_no_number_of_a_preview_is_cut_however_narrow_the_terminal(width: int) -> None:
    screen = Screen(width)
    head = ("table", "come back", "already there", "in conflict", "about", "why")
    long = "public.reservations_of_the_year_2025"
    rows = ((long, "1,234,567", "89,012,345", "6,789", "1234.5 MB", "the delete cascaded to it"),)
    preview = Preview(
        title="t", target="t", facts=(), tables=(Table(title="rows", head=head, rows=rows),), warnings=(), undo="u"
    )
    screen.console.preview(preview, "sha")
    assert "…" not in screen.shown
    lines = [line for line in screen.shown.splitlines() if line.strip()]
    assert max(len(line) for line in lines if "sha" not in line) <= width
    (row,) = [line for line in lines if "1,234,567" in line]
    assert all(number in row for number in ("89,012,345", "6,789", "1234.5 MB"))
    first_column = "".join(line[1:].split("  ")[0].strip() for line in lines[lines.index(row) :])
    assert long in first_column


def test_nothing_in_the_data_can_act_on_the_screen() -> None:
    """A preview shows what the application's users have typed: markup, line breaks, commands to the terminal."""
    screen = Screen()
    rows = Table(title="sample [bold]", head=("row",), rows=(("(1,[red]x,\nDELETED,\x1b[2J,\u202e,\x9b1A,\t\r)",),))
    preview = Preview(
        title="t", target="[link=x]\x1b[8m", facts=(("a", "[b]\x07"),), tables=(rows,), warnings=("[w]",), undo="ñ"
    )
    screen.console.preview(preview, "sha")
    for text in (
        "sample [bold]",
        r"(1,[red]x, DELETED,\x1b[2J,\u202e,\x9b1A,\t )",
        r"[link=x]\x1b[8m",
        r"[b]\x07",
        "[w]",
        "ñ",
    ):
        assert text in screen.shown, (text, screen.shown)
    assert all(sign.isprintable() or sign == "\n" for sign in screen.shown)
