"""A stack: the Neon stand-in of one folder, in this process."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from runbooks.model.errors import SandboxFault
from runbooks.model.moment import Moment
from runbooks.model.secret import Secret
from runbooks.sandbox import answers, osuser, projects, timelines
from runbooks.sandbox.api import Api
from runbooks.sandbox.chores import Chores
from runbooks.sandbox.cluster import Toolbox
from runbooks.sandbox.jobs import Jobs
from runbooks.sandbox.osuser import Account
from runbooks.sandbox.plane import Plane
from runbooks.sandbox.records import Branch, Endpoint, Operation
from runbooks.sandbox.servers import Servers
from runbooks.sandbox.state import Ledger, State

Clock = Callable[[], Moment]

FACTS = "stack.json"
LOCK = "sandbox.lock"
"""Also what tells a folder of ours from any other."""
RETENTION_SECONDS = 7 * 86_400
"""Of the first project: what the example policy promises. Neon's own default is one day."""


def now() -> Moment:
    return Moment.of(datetime.now(UTC))


class Stack:
    """PostgreSQL servers, the API and the chores of one root folder, until `stop`. A context manager.

    Everything ends with this process, however it ends; the folder keeps all data and branches for the next start.
    fsync is off: no real data belongs here.
    """

    def __init__(self, root: Path, plane: Plane, api: Api, chores: Chores, closing: ExitStack) -> None:
        self.root = root
        self._plane, self._api, self._chores, self._closing = plane, api, chores, closing

    @classmethod
    def start(cls, root: Path, *, clock: Clock = now) -> Stack:
        """The stack in `root` (made 0700 if missing): a new one with a project that can be used, or what was there.

        Returns when every server that shall run does. Raises SandboxFault, also if another process runs this stack,
        and ToolMissing.
        """
        root = root.absolute()
        account = Account.choose()
        make_root(root, account)
        with ExitStack() as closing:
            closing.enter_context(_lock(root))
            (root / FACTS).unlink(missing_ok=True)  # from here on its being there means that the stack answers
            program = osuser.prepare(root, account)
            ledger = Ledger.open(root / "state.json", _fresh())
            tools = Toolbox(program, account, ledger.state.superuser_password)
            servers = Servers(root, tools, ledger)
            closing.callback(servers.stop_all)
            jobs = Jobs(ledger, clock)
            closing.callback(jobs.close)
            plane = Plane(ledger, servers, jobs, clock)
            _recover(plane)
            _ensure_project(plane)
            api = _listen(plane)
            closing.callback(api.server_close)
            serving = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.05}, name="sandbox-api")
            serving.start()
            closing.callback(serving.join)
            closing.callback(api.shutdown)
            chores = Chores(plane)
            chores.start()
            closing.callback(chores.stop)
            stack = cls(root, plane, api, chores, closing)
            stack._write_facts()
            closing.callback((root / FACTS).unlink, missing_ok=True)
            stack._closing = closing.pop_all()
            return stack

    @property
    def api_url(self) -> str:
        return self._api.url

    @property
    def api_key(self) -> Secret:
        return Secret(self._plane.ledger.state.api_key)

    @property
    def project_id(self) -> str:
        """The project that was made with the stack."""
        return self._plane.ledger.state.default_project or ""

    @property
    def default_branch_id(self) -> str:
        return self._plane.ledger.default_branch(self.project_id).id

    def uri(self, branch_id: str | None = None, *, pooled: bool = False) -> Secret:
        """A connection string of the branch's first role and database, as the API's `connection_uri` gives it."""
        branch = self._plane.ledger.get(Branch, branch_id or self.default_branch_id)
        endpoint = self._plane.ledger.endpoint_of(branch)
        if endpoint is None:
            raise SandboxFault(
                f"branch {branch.name} has no compute", safe="nothing was changed", next_step="make one by the API"
            )
        role = branch.roles[0]
        return Secret(
            answers.uri(
                endpoint, role=role.name, password=role.password or "", database=branch.databases[0].name, pooled=pooled
            )
        )

    def stop(self) -> None:
        """Stop everything and wait for it. Safe to repeat."""
        self._closing.close()

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _write_facts(self) -> None:
        path = self.root / FACTS
        facts = {
            "api_url": self.api_url,
            "api_key": self.api_key.reveal(),
            "project_id": self.project_id,
            "default_branch_id": self.default_branch_id,
            "pid": os.getpid(),
            "root": str(self.root),
            "notice": answers.NOTICE,
        }
        beside = path.with_name(path.name + ".new")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(facts, file, indent=1)
        beside.replace(path)


def make_root(root: Path, account: Account) -> None:
    """Make the folder, or accept one that is ours (or our server account's) and closed to others."""
    try:
        root.mkdir(mode=0o700, parents=True)
        account.own(root)
    except FileExistsError:
        pass
    entries = {entry.name for entry in root.iterdir()}
    if entries and LOCK not in entries:
        raise _unusable(root, "is not empty, and what is in it is no sandbox")
    about = root.stat()
    if about.st_uid == os.geteuid() and about.st_uid != account.uid:
        account.own(root)
    elif about.st_uid not in (os.geteuid(), account.uid):
        raise _unusable(root, "belongs to another account")
    if about.st_mode & 0o077:
        raise _unusable(root, "is open to other accounts")
    (root / LOCK).touch(mode=0o600)


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Held while a process runs the stack; the system lets go of it when the process ends, however it ends."""
    file = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # `is_held` takes it for a moment, so one refusal proves nothing.
        until = time.monotonic() + 1
        while not _take(file):
            if time.monotonic() > until:
                raise SandboxFault(
                    f"another process runs the sandbox in {root}",
                    safe="nothing was changed",
                    next_step="use it (`invoke sandbox.status` shows it), or end it with `invoke sandbox.down`",
                )
            time.sleep(0.01)
        yield
    finally:
        os.close(file)


def is_held(root: Path) -> bool:
    """Whether a process runs the stack in `root`."""
    try:
        file = os.open(root / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _take(file)
    finally:
        os.close(file)


def _take(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _fresh() -> State:
    return State(api_key=f"sandbox_{secrets.token_urlsafe(32)}", superuser_password=secrets.token_urlsafe(24))


def _recover(plane: Plane) -> None:
    """After whatever end the last run had: undo what was half made, start what shall run."""
    plane.jobs.fail_unfinished()
    ledger = plane.ledger
    for branch in list(ledger.state.branches.values()):
        if branch.current_state == "init":
            computes = [each for each in ledger.of(Endpoint, branch.project_id) if each.branch_id == branch.id]
            ledger.commit(drop=[branch, *computes])
        elif branch.current_state == "resetting":
            ledger.change(branch, current_state="ready", state_changed_at=plane.clock())
    for snapshot in list(ledger.state.snapshots.values()):
        if not snapshot.ready:
            ledger.commit(drop=[snapshot])
    for project in list(ledger.state.projects.values()):
        if not any(ledger.of(Branch, project.id)):
            projects.purge(plane, project.id)
        else:
            timelines.clear(plane, project.id)
    for endpoint in list(ledger.state.endpoints.values()):
        if endpoint.wanted and ledger.state.projects[endpoint.project_id].deleted_at is None:
            plane.servers.start(ledger.get(Branch, endpoint.branch_id), endpoint)


def _ensure_project(plane: Plane) -> None:
    if plane.ledger.state.default_project in plane.ledger.state.projects:
        return
    wish = projects.NewProject(name="sandbox", history_retention_seconds=RETENTION_SECONDS)
    made = projects.start(plane, wish)
    id_ = made["project"]["id"]
    plane.jobs.settle(id_)
    failed = [each.error for each in plane.ledger.of(Operation, id_) if each.status == "failed"]
    if failed:
        raise SandboxFault(
            f"the first project could not be made: {failed[0]}",
            safe="nothing but the sandbox's own folder was touched",
            next_step="cure what the message names, then `invoke sandbox.up`",
        )
    plane.ledger.configure(default_project=id_)


def _listen(plane: Plane) -> Api:
    """On the port of last time, so that an address somebody noted stays right; on another if that is taken."""
    key, last = plane.ledger.state.api_key, plane.ledger.state.api_port
    try:
        api = Api(last or 0, plane, key)
    except OSError:
        api = Api(0, plane, key)
    plane.ledger.configure(api_port=api.server_address[1])
    return api


def _unusable(root: Path, why: str) -> SandboxFault:
    return SandboxFault(
        f"the folder {root} {why}",
        safe="nothing was changed",
        next_step="set BLOOM_DR_SANDBOX to a folder of your own",
    )
