"""Run pg_dump, pg_dumpall or pg_restore: where the password goes, how its story is heard, and what its end means."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from psycopg.conninfo import make_conninfo

from runbooks.model.dsn import Dsn
from runbooks.model.errors import (
    BloomError,
    DatabaseFault,
    DatabaseUnreachable,
    DeadlinePassed,
    LocalFault,
    LoginRefused,
    TableLocked,
)

_TAIL = 200
"""Lines of a program's story that are kept for the error."""
_ENDING = 20.0
"""Seconds that a program has to end itself and its workers before it is killed."""


@dataclass(frozen=True)
class Login:
    """How a PostgreSQL program reaches a database: nothing secret in the command line."""

    conninfo: str
    environment: dict[str, str]


@contextmanager
def login(dsn: Dsn, application_name: str) -> Iterator[Login]:
    """The direct host of `dsn`; the password in a file of its own (0600) for as long as the block runs."""
    keywords = dsn.direct().keywords()
    password = keywords.pop("password", None)
    environment = clean_environment()
    with tempfile.TemporaryDirectory(prefix="bloom-dr-") as folder:
        passfile = Path(folder) / "pass"
        passfile.touch(mode=0o600)
        if password is not None:
            passfile.write_text("*:*:*:*:" + re.sub(r"([\\:])", r"\\\1", password) + "\n")
        conninfo = make_conninfo(**keywords | {"application_name": application_name})
        yield Login(conninfo, environment | {"PGPASSFILE": str(passfile)})


def clean_environment() -> dict[str, str]:
    """Ours without the variables that would lead a program elsewhere or change its language."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C", "PGCONNECT_TIMEOUT": "30"}


@dataclass
class Story:
    """What a program said on stderr."""

    program: str
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """With the lines that belong to them, each as one text."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL))
    _last: list[str] | None = None

    def hear(self, line: str) -> str:
        """Take in a line; answers it without the program's name in front."""
        self.tail.append(line)
        ours = line.removeprefix(f"{self.program}: ")
        told = ours is not line and ours != line
        kind, _, rest = ours.partition(": ")
        if told and kind in ("warning", "error"):
            self._last = self.warnings if kind == "warning" else self.errors
            self._last.append(rest)
        elif told and kind not in ("detail", "hint"):
            self._last = None
        elif self._last:
            self._last[-1] += f"\n{ours}"
        return ours

    def worst(self) -> str:
        """The errors in one line, or the last words where none was marked as one."""
        told = self.errors or list(self.tail)[-3:]
        return without_rows("; ".join(told))[:2000] or "it said nothing"


def without_rows(text: str) -> str:
    """In one line, without the parts in which the server quotes rows of a table."""
    kept = [
        line for line in text.splitlines() if not re.match(r"\s*(DETAIL:  (Failing row|Key \()|CONTEXT:  COPY )", line)
    ]
    return " ".join(" ".join(kept).split())


def run(
    command: Sequence[str | Path],
    environment: dict[str, str],
    *,
    deadline: float | None,
    on_line: Callable[[str], None] = lambda line: None,
    on_tick: Callable[[], None] = lambda: None,
    tick: timedelta = timedelta(seconds=0.5),
    stdout: int = subprocess.DEVNULL,
    on_output: Callable[[bytes], None] = lambda octets: None,
) -> tuple[int, Story]:
    """Run to the end; the exit code (negative: the signal that killed it) and the story.

    `on_line` hears each line of stderr, `on_tick` is called about every `tick`; what they raise ends the program and
    its workers first. DeadlinePassed if `deadline` (of time.monotonic) passes. With `stdout` PIPE, `on_output` gets it.
    """
    story = Story(Path(command[0]).name)
    process = _start(command, environment, stdout)
    try:
        with selectors.DefaultSelector() as pipes:
            buffers = {"stderr": b""}
            assert process.stderr is not None
            pipes.register(process.stderr, selectors.EVENT_READ, "stderr")
            if process.stdout is not None:
                pipes.register(process.stdout, selectors.EVENT_READ, "stdout")
            next_tick = time.monotonic() + tick.total_seconds()
            while pipes.get_map():
                for key, _ in pipes.select(max(0.0, next_tick - time.monotonic())):
                    octets = os.read(key.fd, 1 << 20)
                    if not octets:
                        pipes.unregister(key.fileobj)
                    elif key.data == "stdout":
                        on_output(octets)
                    else:
                        *lines, buffers["stderr"] = (buffers["stderr"] + octets).split(b"\n")
                        for line in lines:
                            on_line(story.hear(line.decode(errors="replace")))
                if time.monotonic() >= next_tick:
                    on_tick()
                    next_tick = time.monotonic() + tick.total_seconds()
                if deadline is not None and time.monotonic() > deadline:
                    raise _too_late(story)
            if buffers["stderr"]:
                on_line(story.hear(buffers["stderr"].decode(errors="replace")))
        return process.wait(), story
    finally:
        _end(process)


def _start(command: Sequence[str | Path], environment: dict[str, str], stdout: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, umask=0o077
        )
    except OSError as error:
        raise LocalFault(
            f"{command[0]} cannot be started: {error.strerror}",
            safe="no database was touched",
            next_step="look at that program, or set BLOOM_DR_PG_BIN to the folder of another installation",
        ) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """On SIGTERM these programs cancel what their sessions run, and end their workers."""
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def how_it_ended(code: int) -> str:
    """`ended with exit code 1`, `was killed by SIGKILL`."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


_KINDS: tuple[tuple[str, type[BloomError], str], ...] = (
    (r"No space left on device|Disk quota exceeded|Read-only file system|Permission denied$", LocalFault,
     "make room, or name another folder, and run the same command again"),
    (r"could not obtain lock|lock timeout|LOCK TABLE", TableLocked,
     "wait for the session that holds the table, then run the same command again"),
    (r"permission denied|password authentication failed|must be owner|row-level security", LoginRefused,
     "give the role the right that the message names, then run the same command again"),
    (r"could not connect|connection to server|server closed the connection|terminating connection", DatabaseUnreachable,
     "check that the server runs, then run the same command again"),
)  # fmt: skip


def failure(doing: str, code: int, story: Story, *, safe: str) -> BloomError:
    """The error of a program that ended badly."""
    said = story.worst()
    kind, cure = next(
        ((kind, cure) for pattern, kind, cure in _KINDS if re.search(pattern, said, re.MULTILINE)),
        (DatabaseFault, "cure what the message names, then run the same command again"),
    )
    return kind(f"could not {doing}: {story.program} {how_it_ended(code)}: {said}", safe=safe, next_step=cure)


def _too_late(story: Story) -> DeadlinePassed:
    last = without_rows(story.tail[-1]) if story.tail else "nothing"
    return DeadlinePassed(
        f"{story.program} was still at work when its time was over (it last said: {last[:300]})",
        safe="the program was ended; what it wrote counts for nothing",
        next_step="look at what slows it down, or raise time_limit in the [backup] section of the policy",
    )
