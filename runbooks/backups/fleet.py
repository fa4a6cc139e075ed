"""A fleet on this machine: one process for each database, some at a time, and what each of them came to."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from runbooks.model.fleet import Outcome, Routine


def invoking(words: Sequence[str], root: Path) -> list[str]:
    """`invoke WORDS` of the project in `root`, with this Python."""
    return [sys.executable, "-m", "invoke", "--search-root", str(root), *words, "--json"]


def fan_out(
    routine: Routine,
    environments: Sequence[str],
    *,
    together: int,
    root: Path,
    environ: Mapping[str, str],
    tell: Callable[[str], None],
) -> tuple[Outcome, ...]:
    """Do it for each environment, `together` at a time, and tell what each came to, in the given order.

    One that fails stops no other. Whoever interrupts this interrupts them all, and waits until they have ended.
    """
    crew = _Crew(root, environ)
    with ThreadPoolExecutor(max_workers=together) as pool:
        begun = {pool.submit(crew.run, routine, each): each for each in environments}
        try:
            _watch(begun, tell)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            crew.stop()
            raise
    return tuple(future.result() for future in begun)


def _watch(begun: Mapping[Future[Outcome], str], tell: Callable[[str], None]) -> None:
    running, over = set(begun), 0
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            over += 1
            outcome = future.result()
            tell(f"{outcome.environment}: {outcome.said} (exit code {outcome.exit_code}; {over} of {len(begun)})")


class _Crew:
    """The processes that run. In groups of their own: a Ctrl-C at the terminal reaches them through us, and once."""

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self._root, self._environ = root, environ
        self._lock, self._stopping = threading.Lock(), False
        self._running: set[subprocess.Popen[str]] = set()

    def run(self, routine: Routine, environment: str) -> Outcome:
        with self._lock:
            if self._stopping:
                return Outcome.read(environment, -signal.SIGTERM, "")
            process = subprocess.Popen(
                invoking(routine.of(environment), self._root),
                cwd=self._root,
                env=dict(self._environ),
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._running.add(process)
        try:
            answer, story = process.communicate()
        finally:
            with self._lock:
                self._running.discard(process)
        return Outcome.read(environment, process.returncode, answer, story)

    def stop(self) -> None:
        """Ask all to end, as Ctrl-C does. None begins after that."""
        with self._lock:
            self._stopping = True
            for process in self._running:
                process.terminate()
