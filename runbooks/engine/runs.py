"""The folder of runs: one folder a run, 0700, outside any temporary place. Lists, opens and summarises them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from runbooks.engine.journal import FILE_NAME, Entry, Journal, Reading, read
from runbooks.model.errors import JournalBroken, LocalFault, NotFound, UsageFault
from runbooks.model.record import Record
from runbooks.model.run_id import RunId


def default_root() -> Path:
    """BLOOM_DR_RUNS, or the user's state folder. Never a temporary folder: a reboot must not forget a recovery."""
    if explicit := os.environ.get("BLOOM_DR_RUNS"):
        return Path(explicit).absolute()
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "bloom-dr" / "runs"


class Summary(Record):
    """One line of `run.list`."""

    run_id: str
    runbook: str
    environment: str
    operator: str
    opened: datetime
    state: str
    """A verdict; or `unfinished: surveying | awaiting consent | executing`; or `broken`."""
    detail: str


@dataclass(frozen=True)
class Runs:
    root: Path

    def folder(self, run_id: RunId) -> Path:
        return self.root / str(run_id)

    def create(self, run_id: RunId, *, now: Callable[[], datetime]) -> Journal:
        """A new run's folder and journal. Raises LocalFault.

        A journal without a single whole line is what a process killed at its very start leaves; it is begun again.
        """
        folder = self.folder(run_id)
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(mode=0o700, exist_ok=True)
            if self.exists(run_id) and not self.reading(run_id).entries:
                (folder / FILE_NAME).unlink()
        except OSError as trouble:
            raise LocalFault(
                f"cannot make the run's folder {folder}: {trouble.strerror}",
                safe="nothing was started",
                next_step="set BLOOM_DR_RUNS to a folder that can be written, and start again",
            ) from trouble
        return Journal.create(folder, now=now)

    def exists(self, run_id: RunId) -> bool:
        return (self.folder(run_id) / FILE_NAME).exists()

    def reading(self, run_id: RunId) -> Reading:
        """The journal of a run, checked. Raises NotFound, JournalBroken."""
        if not self.exists(run_id):
            raise NotFound(
                f"there is no run {run_id} in {self.root}",
                safe="nothing was changed",
                next_step="invoke run.list (BLOOM_DR_RUNS names the folder, if the run was made elsewhere)",
            )
        return read(self.folder(run_id) / FILE_NAME)

    def summaries(self) -> Iterator[Summary]:
        """All runs, newest first. A broken journal is listed as broken, never left out."""
        folders = sorted((p for p in self.root.glob("*") if (p / FILE_NAME).is_file()), reverse=True)
        for folder in folders:
            try:
                yield summary(RunId.parse(folder.name), read(folder / FILE_NAME))
            except UsageFault:
                continue  # a folder that somebody else put here
            except JournalBroken as broken:
                changed = datetime.fromtimestamp((folder / FILE_NAME).stat().st_mtime).astimezone()
                yield Summary(
                    run_id=folder.name,
                    runbook="?",
                    environment="?",
                    operator="?",
                    opened=changed,
                    state="broken",
                    detail=broken.happened,
                )


def summary(run_id: RunId, reading: Reading) -> Summary:
    """One run's state, from its journal alone."""
    if not reading.entries:
        never = datetime.fromtimestamp(0).astimezone()
        return Summary(
            run_id=str(run_id),
            runbook="?",
            environment="?",
            operator="?",
            opened=never,
            state="unfinished: nothing recorded",
            detail="",
        )
    first, events = reading.entries[0], {e.event: e for e in reading.entries}
    state, detail = _state(events, reading.entries)
    return Summary(
        run_id=str(run_id),
        runbook=first.data["runbook"],
        environment=first.data["environment"],
        operator=first.data["operator"],
        opened=first.at,
        state=state,
        detail=detail,
    )


def _state(events: dict[str, Entry], entries: tuple[Entry, ...]) -> tuple[str, str]:
    if "finished" in events:
        data: dict[str, Any] = events["finished"].data
        return data["verdict"], data["summary"]
    failed = entries[-1].data.get("happened", "") if entries[-1].event in ("failed", "step-failed") else ""
    if "planned" not in events:
        return "unfinished: surveying", failed
    if "executing" not in events:
        return "unfinished: awaiting consent", failed
    return "unfinished: executing", failed
