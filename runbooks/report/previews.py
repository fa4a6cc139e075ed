"""Answer of `run.preview`: what a run showed before consent, as text, as data, or as a page that can be sent."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from runbooks.engine.console import as_text
from runbooks.engine.preview_page import page
from runbooks.engine.readback import previewed
from runbooks.engine.runs import Runs
from runbooks.engine.step import AnyRunbook
from runbooks.model.errors import LocalFault, Refused, UsageFault
from runbooks.model.run_id import RunId
from runbooks.report.answer import Answer

STDOUT = "-"


def shown_again(runs: Runs, run_id: RunId, runbook: AnyRunbook, zone: str, html: str, *, as_json: bool) -> Answer:
    """The preview, from the run's journal alone. With `html` the page goes to that new file, or with `-` to stdout.

    Raises NotFound if the run came to no plan, JournalBroken, and for the file LocalFault and Refused. Safe to repeat.
    """
    if html == STDOUT and as_json:
        raise UsageFault(
            "--html - and --json both want stdout",
            safe="nothing was written",
            next_step="give the page a file, or leave one of them out",
        )
    shown = previewed(runs.reading(run_id).entries, runbook, run_id)
    if not html:
        return Answer(as_text(shown, _width()), shown.as_json())
    text = page(shown, zone)
    if html == STDOUT:
        return Answer(text, None)
    path = Path(html).absolute()
    _write_new(path, text + "\n")
    told = f"{path}\nit contains rows of the database; handle it accordingly"
    return Answer(told, shown.as_json() | {"page": str(path)})


def _width() -> int:
    """Of the terminal that reads it; as wide as the story is where there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 160


def _write_new(path: Path, text: str) -> None:
    """A file that is there already is left alone: it is fine if it is the same, and Refused if it is not."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(file, "w", encoding="utf-8") as stream:
                stream.write(text)
        except OSError:
            path.unlink()
            raise
    except FileExistsError:
        _require_same(path, text)
    except OSError as trouble:
        raise _unusable(path, trouble) from trouble


def _require_same(path: Path, text: str) -> None:
    try:
        same = path.is_file() and path.read_bytes() == text.encode()
    except OSError as trouble:
        raise _unusable(path, trouble) from trouble
    if not same:
        raise Refused(
            f"{path} is there already, and is something else",
            safe="it was left as it is",
            next_step="give another name with --html, or remove that file first",
        )


def _unusable(path: Path, trouble: OSError) -> LocalFault:
    return LocalFault(
        f"the preview cannot be written to {path}: {trouble.strerror}",
        safe="the run and its preview are untouched",
        next_step="give another name with --html FILE; invoke run.preview without it prints the same",
    )
