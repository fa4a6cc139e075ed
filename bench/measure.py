"""Whole processes, timed side by side: wall time and peak memory of everything a command starts on the client."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile

from runbooks.sandbox.osuser import Account


@dataclass(frozen=True)
class Command:
    what: str
    """Who does the work: "bloom-dr", "psql pipe"."""
    shown: str
    """What a person would type instead."""
    argv: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to ours."""
    folder: Path | None = None
    account: Account = field(default_factory=Account)
    """Who runs it; PostgreSQL's own programs refuse to be root's."""
    counts_memory: bool = True
    """False if the process starts servers: they are not the client."""
    prepare: Callable[[], object] = lambda: None
    """Done before every run, outside the clock."""
    check: Callable[[str], None] = lambda _: None
    """Given what the run printed; raises AssertionError if the answer is wrong. A fast wrong answer is no result."""


@dataclass(frozen=True)
class Measured:
    what: str
    shown: str
    seconds: tuple[float, ...]
    peak_mib: float | None
    """The greatest sum of the high-water marks of all processes that ran at one time."""

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)


def side_by_side(commands: Sequence[Command], *, runs: int, say: Callable[[str], None]) -> tuple[Measured, ...]:
    """Every command once to warm up and then `runs` times, in turns, so that all of them meet the same weather."""
    seconds: dict[str, list[float]] = {command.what: [] for command in commands}
    peaks: dict[str, list[float]] = {command.what: [] for command in commands}
    for number in range(runs + 1):
        for command in commands:
            wall, peak = once(command)
            say(f"{command.what}: {'warm-up' if number == 0 else f'run {number} of {runs}'}: {wall:.2f} s")
            if number:
                seconds[command.what].append(wall)
                peaks[command.what].extend([] if peak is None else [peak])
    return tuple(
        Measured(command.what, command.shown, tuple(seconds[command.what]), max(peaks[command.what], default=None))
        for command in commands
    )


def once(command: Command) -> tuple[float, float | None]:
    """Run it once; its wall time in seconds and its peak memory in MiB (None without /proc)."""
    command.prepare()
    with TemporaryFile() as output, TemporaryFile() as complaints:
        start = time.perf_counter()
        with subprocess.Popen(
            command.argv,
            stdout=output,
            stderr=complaints,
            stdin=subprocess.DEVNULL,
            cwd=command.folder,
            env=os.environ | command.environment,
            user=command.account.uid,
            group=command.account.gid,
            extra_groups=None if command.account.uid is None else [],
        ) as process:
            with Watch(process.pid if command.counts_memory else None) as watch:
                code = process.wait()
                wall = time.perf_counter() - start
        output.seek(0)
        complaints.seek(0)
        if code != 0:
            raise RuntimeError(f"{command.what} ended with {code}: {complaints.read()[-2000:].decode()}")
        command.check(output.read().decode())
    return wall, watch.peak_mib


class Watch:
    """Reads the high-water mark of a process and of all its descendants, 20 times a second, until it is closed."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._peak_kib = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        if self._pid is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._pid is not None:
            self._thread.join()

    @property
    def peak_mib(self) -> float | None:
        return self._peak_kib / 1024 or None

    def _run(self) -> None:
        assert self._pid is not None
        while True:
            self._peak_kib = max(self._peak_kib, sum(map(_high_water_kib, _family(self._pid))))
            if self._stop.wait(0.05):
                return


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            found.extend(int(child) for child in _read(children).split())
    return found


def _high_water_kib(pid: int) -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB", _read(Path(f"/proc/{pid}/status")), re.MULTILINE)
    return int(found[1]) if found else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:  # the process has ended
        return ""
