"""An operator: she types `invoke …`, looks into her databases and at her branches, and has folders of her own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from runbooks.sandbox import daemon
from tests.stack import Api, session, speaking_to

ROOT = Path(__file__).resolve().parents[2]
INVOKE = (sys.executable, "-m", "invoke")
LIMIT = 120
CODES = {
    name: int(code)
    for code, name in re.findall(r"^\| (\d+) \| (\w+) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
}
"""Exit codes by name, as docs/errors.md promises them."""
NEXT = re.compile(r"(invoke run\.resume .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """stdout as JSON: the whole of it, or the test fails."""
        return json.loads(self.out)

    @property
    def run_id(self) -> str:
        return re.findall(r"^run (\S+)", self.err, re.MULTILINE)[0]

    @property
    def pasted(self) -> str:
        """The last command that it told the operator to type."""
        return NEXT.findall(self.err)[-1].strip()

    @property
    def confirm(self) -> str:
        return self.pasted.split("--confirm ")[1]

    def stopped(self, name: str, *words: str) -> None:
        """It ended with the exit code of that name, told all three parts and these words, and gave no answer."""
        assert (self.code, self.out) == (CODES[name], ""), self
        for word in ("\n  safe:  ", "\n  next:  ", *words):
            assert word in self.err, f"{word!r} is missing in {self.err}"
        assert "Traceback" not in self.err


@dataclass(frozen=True)
class Operator:
    sandbox: Path
    runs: Path
    settings: tuple[tuple[str, str], ...] = ()
    open_api: Api | None = None
    """Kept open while many questions are asked: opening one costs more than the question."""

    def having(self, **settings: str) -> Operator:
        """The same operator with more environment variables."""
        return replace(self, settings=(*self.settings, *settings.items()))

    @property
    def environ(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("BLOOM_DR_", "NEON_", "PG"))}
        own = {"BLOOM_DR_SANDBOX": str(self.sandbox), "BLOOM_DR_RUNS": str(self.runs), "TERM": "xterm"}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return inherited | own | {"PATH": path} | dict(self.settings)

    def start(self, *words: str, **how: Any) -> subprocess.Popen[str]:
        """`invoke WORDS` in a process group of its own, without a terminal."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
        return subprocess.Popen(
            [*INVOKE, *words], cwd=ROOT, env=self.environ, text=True, start_new_session=True, **streams
        )

    def invoke(self, *words: str, stdin: str = "", **how: Any) -> Said:
        done = subprocess.run(
            [*INVOKE, *words], cwd=ROOT, env=self.environ, text=True, input=stdin, capture_output=True,
            timeout=LIMIT, check=False, **how,
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)

    def json(self, *words: str) -> Any:
        """The answer of a command that has to succeed, from `--json`."""
        said = self.invoke(*words, "--json")
        assert said.code == 0, said
        return said.data

    def paste(self, command: str) -> Said:
        """A command line into a shell, as it was printed."""
        done = subprocess.run(
            ["sh", "-c", command], cwd=ROOT, env=self.environ, text=True, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)

    def at_terminal(self, *words: str, answers: dict[str, str] | None = None) -> Said:
        """`invoke WORDS` at a terminal; whenever one of `answers` appears on it, its keys are typed (once each).

        THE VALUE among the keys stands for the value that the question just asked for.
        """
        ours, theirs = pty.openpty()

        def take_over() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(
            [*INVOKE, *words], cwd=ROOT, env=self.environ, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=take_over,
        )  # fmt: skip
        os.close(theirs)
        try:
            shown = _converse(ours, dict(answers or {}))
            return Said(process.wait(LIMIT), "", shown)
        finally:
            os.close(ours)
            process.kill()
            process.wait()

    # What is there, seen past the program under test

    @contextmanager
    def api(self) -> Iterator[Api]:
        if self.open_api:
            yield self.open_api
            return
        running = daemon.status(self.sandbox).running
        assert running is not None
        with speaking_to(running) as api:
            yield api

    @contextmanager
    def database(self, branch_id: str | None = None) -> Iterator[psycopg.Connection[Any]]:
        """A session on production, in autocommit mode."""
        with self.api() as api:
            uri = api.uri(branch_id)
        with session(uri) as conn:
            conn.execute("set search_path to public")
            yield conn

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.database() as conn:
            done = conn.execute(statement.encode(), values or None)
            return done.fetchall() if done.description else []

    def branches(self) -> set[str]:
        with self.api() as api:
            return {branch["name"] for branch in api.call("GET", f"{api.project}/branches")["branches"]}

    def checksums(self) -> dict[str, str]:
        """Of the rows of every table and the state of every sequence in production."""
        with self.database() as conn:
            names = conn.execute(
                "select relname from pg_class"
                " where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'S')"
            ).fetchall()
            found = {}
            for (name,) in names:
                query = sql.SQL("select md5(string_agg(t::text, '|' order by t::text)) from (select * from {}) as t")
                found[name] = conn.execute(query.format(sql.Identifier(name))).fetchone()
        assert len(found) > 20
        return {name: str(row) for name, row in found.items()}

    @contextmanager
    def nothing_changes(self, *, but_branch: str = "") -> Iterator[None]:
        """Inside the block no row, no sequence and no branch of production changes, except that one may go."""
        before, branches = self.checksums(), self.branches()
        yield
        assert self.checksums() == before
        assert self.branches() == branches - {but_branch}

    def written(self) -> str:
        """Everything in the folder of runs."""
        return "\n".join(path.read_text() for path in sorted(self.runs.rglob("*")) if path.is_file())


def now() -> str:
    """This moment, later than every commit so far and earlier than every commit from now on."""
    time.sleep(0.002)  # Neon takes milliseconds, and cuts off the rest
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    time.sleep(0.002)
    return moment


def interrupt(process: subprocess.Popen[str], how: signal.Signals) -> Said:
    os.kill(process.pid, how)
    out, err = process.communicate(timeout=LIMIT)
    return Said(process.returncode, out, err)


def lines_until(process: subprocess.Popen[str], word: str) -> str:
    """What stderr says up to the line with `word`; reads no further."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if word in line:
            return seen
    raise AssertionError(f"{word!r} never came: {seen}")


def _converse(terminal: int, answers: dict[str, str]) -> str:
    shown, read, end = b"", 0, time.monotonic() + LIMIT
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            more = os.read(terminal, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not more:
            break
        shown += more
        for word in [w for w in answers if w.encode() in shown[read:]]:
            asked = re.findall(rb"type \S*?(br-[\w/-]+)", shown)
            os.write(terminal, answers.pop(word).encode().replace(b"THE VALUE", asked[-1] if asked else b""))
            read = len(shown)
    return shown.decode(errors="replace").replace("\r\n", "\n")
