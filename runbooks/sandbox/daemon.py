"""A stack as a process of its own: `up`, `down`, `status`; and that process, `python -m runbooks.sandbox.daemon`."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runbooks.model.errors import SandboxFault, ToolMissing
from runbooks.model.secret import Secret
from runbooks.sandbox.archive import ROUTE, ArchiveFacts
from runbooks.sandbox.osuser import Account
from runbooks.sandbox.place import FACTS, is_held, make_root
from runbooks.sandbox.processes import command_line

SETTING = "BLOOM_DR_SANDBOX"
MODULE = "runbooks.sandbox.daemon"
LOG = "supervisor.log"
UP_LIMIT = timedelta(minutes=2)
LOOK_LIMIT = timedelta(seconds=5)
DOWN_LIMIT = timedelta(seconds=60)


@dataclass(frozen=True)
class Running:
    """A stack that answers."""

    root: Path
    api_url: str
    api_key: Secret
    project_id: str
    default_branch_id: str
    pid: int
    already: bool = False
    """It was up before this call."""


@dataclass(frozen=True)
class Status:
    """`running` is None if no process runs the stack; `exists` tells whether its data is there."""

    root: Path
    exists: bool
    running: Running | None
    archive: ArchiveFacts | None = None
    """None while it does not run: it is started when something needs it."""


def default_root() -> Path:
    """BLOOM_DR_SANDBOX, else a place per user. Root's own home is closed to the account PostgreSQL runs as."""
    if wish := os.environ.get(SETTING):
        return Path(wish).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/bloom-dr-sandbox")
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "bloom-dr" / "sandbox"


def status(root: Path) -> Status:
    root = root.absolute()
    running = _facts(root) if is_held(root) else None
    return Status(root, (root / "state.json").exists(), running)


def look(root: Path) -> Status:
    """As `status`, and with the archive, which the stack is asked for. Starts nothing. Raises SandboxFault."""
    found = status(root)
    return replace(found, archive=_ask(found.running, "GET")) if found.running else found


def up(root: Path) -> Running:
    """Start the stack in a process that outlives this one, and wait until it answers. Safe to repeat.

    Raises SandboxFault with the process's last words, and what `Stack.start` raises about the folder.
    """
    root = root.absolute()
    make_root(root, Account.choose())
    log = root / LOG
    child = None if is_held(root) else _spawn(root, log)
    until = time.monotonic() + UP_LIMIT.total_seconds()
    while True:
        if is_held(root) and (facts := _facts(root, already=child is None)):
            return facts
        if child is not None and os.waitpid(child, os.WNOHANG)[0]:
            child = None
            if not is_held(root):  # otherwise another `up` at the same moment was quicker
                raise _failed("ended", log)
        if time.monotonic() > until:
            raise _failed(f"did not answer within {UP_LIMIT}", log)
        time.sleep(0.02)


def down(root: Path, *, delete: bool = False) -> None:
    """Stop the stack, if it runs; with `delete` remove its folder too. Safe to repeat. Raises SandboxFault."""
    root = root.absolute()
    until = time.monotonic() + DOWN_LIMIT.total_seconds()
    told: int | None = None
    while is_held(root) or (told is not None and _is_supervisor(told, root)):
        facts = _facts(root)
        if facts and facts.pid != told:
            _end(facts)
            told = facts.pid
        if time.monotonic() > until:
            raise SandboxFault(
                f"the sandbox in {root} does not stop",
                safe="its data is complete on disk",
                next_step=f"read {root / 'supervisor.log'}, end process {told} by hand, then repeat this",
            )
        time.sleep(0.02)
    if delete and root.exists():
        make_root(root, Account.choose())  # refuses a folder that is no sandbox
        shutil.rmtree(root)


def archive(root: Path) -> ArchiveFacts:
    """The running stack's own S3, which it starts at the first call; that takes seconds. Safe to repeat.

    Raises SandboxFault, also if no stack runs; ToolMissing if the stack finds no S3 server on its machine.
    """
    running = status(root).running
    if running is None:
        raise SandboxFault(
            "the local stack is not running",
            safe="nothing was started",
            next_step="invoke sandbox.up (or name another environment with --env)",
        )
    facts = _ask(running, "POST")
    if facts is None:
        raise _unasked(running, "says that it has none")
    return facts


def _ask(running: Running, method: str) -> ArchiveFacts | None:
    """What the stack says about its archive: GET looks, POST starts it first."""
    from http.client import HTTPConnection, HTTPException  # only where it is needed: `sandbox.status` is typed often

    limit = (UP_LIMIT if method == "POST" else LOOK_LIMIT).total_seconds()
    with closing(HTTPConnection(urlsplit(running.api_url).netloc, timeout=limit)) as connection:
        try:
            connection.request(method, ROUTE, headers={"Authorization": f"Bearer {running.api_key.reveal()}"})
            answer = connection.getresponse()
            told: dict[str, Any] = json.loads(answer.read())
        except (OSError, HTTPException, ValueError) as error:
            raise _unasked(running, f"gave no answer ({type(error).__name__})") from error
    if answer.status == 200:
        return ArchiveFacts.of(told["archive"]) if told["archive"] else None
    if answer.status == 503:
        why = told["error"]
        kind = ToolMissing if why["kind"] == ToolMissing.__name__ else SandboxFault
        raise kind(why["happened"], safe=why["safe"], next_step=why["next"])
    raise _unasked(running, f"answered {answer.status}: {told.get('message')}")


def _unasked(running: Running, how: str) -> SandboxFault:
    return SandboxFault(
        f"the local stack was asked for its archive and {how}",
        safe="its databases were not touched",
        next_step=f"read {running.root / LOG}; `invoke sandbox.down` and `invoke sandbox.up` start it anew",
    )


def _facts(root: Path, *, already: bool = False) -> Running | None:
    """What the process that holds the stack wrote when it was ready; None before."""
    try:
        facts = json.loads((root / FACTS).read_text())
    except FileNotFoundError:
        return None
    return Running(
        root=root,
        api_url=facts["api_url"],
        api_key=Secret(facts["api_key"]),
        project_id=facts["project_id"],
        default_branch_id=facts["default_branch_id"],
        pid=facts["pid"],
        already=already,
    )


def _spawn(root: Path, log: Path) -> int:
    """The supervisor in a session of its own, so that Ctrl-C here does not reach it. Returns its process id."""
    write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", MODULE, str(root)],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), write, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _end(facts: Running) -> None:
    if not _is_supervisor(facts.pid, facts.root):
        raise SandboxFault(
            f"the sandbox runs inside another program (process {facts.pid})",
            safe="nothing was changed",
            next_step="let that program end, then `invoke sandbox.status` shows what is left",
        )
    os.kill(facts.pid, signal.SIGTERM)


def _is_supervisor(pid: int, root: Path) -> bool:
    command = command_line(pid)
    return MODULE in command and str(root) in command


def _failed(how: str, log: Path) -> SandboxFault:
    words = "\n".join(log.read_text(errors="replace").splitlines()[-6:])
    return SandboxFault(
        f"the process of the sandbox {how}: {words}",
        safe="what was in the sandbox before is still there",
        next_step=f"read {log}, cure it, then `invoke sandbox.up`",
    )


def main() -> None:
    """Run the stack of the folder given until SIGTERM or SIGINT."""
    from runbooks.sandbox.stack import Stack

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    with Stack.start(Path(sys.argv[1])) as stack:
        logging.info("answers at %s", stack.api_url)
        ending.wait()
    logging.info("stopped")


if __name__ == "__main__":
    main()
