"""The story on stderr: what a run does, what it waits for, how it ended. stdout stays free for the answer."""

from __future__ import annotations

import io
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console as Terminal
from rich.status import Status
from rich.table import Table as Grid
from rich.text import Text

from runbooks.engine.plan import Ending, Preview, Previewed, Table, Verdict
from runbooks.engine.step import Effect, Step
from runbooks.model.duration import spell
from runbooks.model.errors import BloomError, ConsentNeeded, LockHeld, NotFound, PolicyFault, UsageFault
from runbooks.model.policy import Contact
from runbooks.model.run_id import RunId

_COLOUR = {
    Effect.READS: "cyan",
    Effect.CREATES: "green",
    Effect.REPLACES: "yellow",
    Effect.DESTROYS: "red",
}
_QUIET_SECONDS = 2.0
_NOBODY_TO_CALL = (ConsentNeeded, LockHeld, NotFound, PolicyFault, UsageFault)
"""What the person at the keyboard can cure alone."""


def printable(text: str) -> str:
    """Text in which nothing but line breaks moves the cursor, or hides or reorders what stands beside it: previews show
    what the application's users have typed.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)


class _Screen(Terminal):
    """A terminal that may go away. The journal is the truth: a lost screen must not end a recovery half-way."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Console:
    """Speaks on stderr. On a terminal progress is one line, rewritten; elsewhere at most one line in two seconds."""

    def __init__(
        self,
        contacts: Sequence[Contact] = (),
        *,
        terminal: Terminal | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = terminal or _Screen(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 160)
        self._contacts = contacts
        self._clock = clock
        self._status: Status | None = None
        self._last_said = float("-inf")
        self.environment = ""
        """Where this process works; said at the opening of each run."""
        self.run_id: RunId | None = None
        """The run that this process opened; with nested runs, the outermost."""

    def say(self, text: str) -> None:
        if self._status is not None and self._out.is_terminal:
            self._status.update(Text(printable(text)))
        elif self._clock() - self._last_said >= _QUIET_SECONDS:
            self._last_said = self._clock()
            self._line(f"      {text}", "dim")

    def opened(self, runbook: str, run_id: RunId, folder: Path) -> None:
        self.run_id = self.run_id or run_id
        self._line(f"run {run_id}  {runbook}  environment {self.environment}", "bold")
        self._line(f"      journal: {folder}", "dim")
        self._watch()

    def preview(self, preview: Preview, digest: str, page: Path | None = None) -> None:
        """`page`: where the same lies as a file that can be sent to whoever has to approve."""
        self._rest()
        self._line("")
        self._line(preview.title, "bold underline")
        self._line(preview.target, "bold")
        for name, value in preview.facts:
            self._fact(name, value)
        for table in preview.tables:
            self._grid(table)
        for warning in preview.warnings:
            self._line(f"  ! {warning}", "yellow")
        self._fact("undo", preview.undo)
        self._fact("plan", digest)
        if page is not None:
            self._fact("as a page, to be sent", str(page))
        self._line("")

    def step_started(self, number: int, of: int, step: Step[Any, Any, Any]) -> None:
        self._rest()
        self._out.print(
            Text.assemble(
                (f"{number:>2}/{of} ", "dim"),
                (f"{step.effect:<9}", _COLOUR[step.effect]),
                step.name,
                (f"  (at most {spell(step.deadline)})", "dim"),
            ),
            soft_wrap=True,
        )
        self._watch()

    def step_ended(self, number: int, of: int, step: Step[Any, Any, Any], seconds: float, remark: str) -> None:
        self._rest()
        self._line(f"      {remark or 'done'}, {seconds:.1f} s", "dim")

    def ended(self, ending: Ending) -> None:
        self._rest()
        proved = ending.verdict in (Verdict.PROVED, Verdict.NOTHING_MISSING)
        self._line(f"{ending.verdict.upper()}  {ending.summary}", "bold green" if proved else "bold red")
        for name, value in ending.facts:
            self._fact(name, value)
        for item in ending.left_open:
            self._line(f"  open: {item}", "yellow")
        if not proved:
            self._call()

    def error(self, error: BloomError) -> None:
        """What a person needs when it stopped: what happened, what is safe, which run it was, what to do next."""
        self._rest()
        if isinstance(error, ConsentNeeded):
            self._line(f"stopped: {error.happened}", "bold yellow")
        else:
            self._line(f"error: {error.happened}", "bold red")
        for note in getattr(error, "__notes__", ()):
            self._line(f"  also:  {note}", "red")
        self._line(f"  safe:  {error.safe}")
        if isinstance(error, ConsentNeeded) and error.page is not None:
            self._line(f"  page:  {error.page} (for whoever has to approve)")
        if self.run_id is not None and str(self.run_id) not in error.next_step:
            self._line(f"  run:   {self.run_id} (its story: invoke run.show {self.run_id})")
        self._line(f"  next:  {error.next_step}")
        if self.run_id is not None and not isinstance(error, _NOBODY_TO_CALL):
            self._call()

    def interrupted(self, notes: Sequence[str] = ()) -> None:
        """Ctrl-C, or a signal that asks to stop. `notes` say what did not come about with it."""
        self._rest()
        self._line("")
        self._line("interrupted", "bold red")
        for note in notes:
            self._line(f"  also:  {note}", "red")
        if self.run_id is not None:
            self._line("  safe:  the journal holds every step that was begun; resuming looks first at what it did")
            self._line(f"  next:  invoke run.resume {self.run_id}")

    def ask(self, wanted: str) -> str:
        """Ask the person at the terminal to type the value of the plan; an empty line means no."""
        self._rest()
        if sys.stdin.isatty():
            termios.tcflush(sys.stdin, termios.TCIFLUSH)  # what was typed before the question is no answer to it
        question = Text.assemble("to go on, type ", (printable(wanted), "bold"), " (anything else stops here): ")
        self._out.print(question, end="", soft_wrap=True)
        line = sys.stdin.readline()
        if not line.endswith("\n"):
            self._line("")
        return line.strip()

    def _call(self) -> None:
        for number, contact in enumerate(self._contacts):
            self._line(f"{'  call:  ' if number == 0 else '         '}{contact.name}, {contact.how} ({contact.role})")

    def _line(self, text: str, style: str = "") -> None:
        self._out.print(Text(printable(text), style=style), soft_wrap=True)

    def _fact(self, name: str, value: str) -> None:
        self._out.print(Text.assemble((f"  {name:<26}", "dim"), printable(value)), soft_wrap=True)

    def _grid(self, table: Table) -> None:
        self._line(table.title)
        grid = Grid(box=None, pad_edge=True, header_style="dim")
        rows = [[Text(printable(" ".join(cell.splitlines()))) for cell in row] for row in table.rows]
        for column in range(len(table.head)):
            _add_column(grid, table, column)
        for row in rows:
            grid.add_row(*row)
        self._out.print(grid)

    def _watch(self) -> None:
        if self._out.is_terminal:
            self._status = self._out.status("")
            self._status.start()

    def _rest(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def as_text(previewed: Previewed, width: int) -> str:
    """A preview as a terminal of that width shows it, without its colours."""
    paper = io.StringIO()
    terminal = Terminal(file=paper, width=width, highlight=False, force_terminal=False)
    Console(terminal=terminal).preview(previewed.preview, previewed.digest)
    return paper.getvalue().strip("\n")


def _add_column(grid: Grid, table: Table, column: int) -> None:
    """On a narrow terminal a name goes on in the next line and a number is never cut: consent is given to them. Only a
    sample may lose its end.
    """
    head = table.head[column]
    if table.is_sample:
        grid.add_column(Text(head), no_wrap=True, overflow="ellipsis")
    elif table.is_numeric(column):
        longest = max((len(row[column]) for row in table.rows), default=0)
        grid.add_column(Text(head.replace(" ", "\n")), justify="right", min_width=longest, overflow="fold")
    else:
        grid.add_column(Text(head), overflow="fold")
