"""A stack: the Neon stand-in of one folder, in this process."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from runbooks.model.errors import SandboxFault
from runbooks.model.moment import Moment
from runbooks.model.secret import Secret
from runbooks.sandbox import answers, osuser, projects, timelines
from runbooks.sandbox.api import Api
from runbooks.sandbox.archive import PLACE, ArchiveFacts, SandboxArchive
from runbooks.sandbox.chores import Chores
from runbooks.sandbox.cluster import Toolbox
from runbooks.sandbox.jobs import Jobs
from runbooks.sandbox.osuser import Account
from runbooks.sandbox.place import FACTS, lock, make_root
from runbooks.sandbox.plane import Plane
from runbooks.sandbox.records import Branch, Endpoint, Operation, Project
from runbooks.sandbox.servers import Servers
from runbooks.sandbox.state import Ledger, State

Clock = Callable[[], Moment]

RETENTION_SECONDS = 7 * 86_400
"""Of the first project: what the example policy promises. Neon's own default is one day."""


def now() -> Moment:
    return Moment.of(datetime.now(UTC))


class Stack:
    """PostgreSQL servers, the API and the chores of one root folder, until `stop`. A context manager.

    Everything ends with this process, however it ends; the folder keeps all data and branches for the next start.
    fsync is off: no real data belongs here.
    """

    def __init__(self, root: Path, plane: Plane, api: Api, closing: ExitStack) -> None:
        self.root = root
        self.plane, self._api, self._closing = plane, api, closing

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
            closing.enter_context(lock(root))
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
            archive = SandboxArchive(root / PLACE)
            closing.callback(archive.stop)
            api = _listen(plane, archive)
            closing.callback(api.server_close)
            serving = threading.Thread(
                target=api.serve_forever, kwargs={"poll_interval": 0.05}, name="sandbox-api", daemon=True
            )
            serving.start()
            closing.callback(serving.join)
            closing.callback(api.shutdown)
            chores = Chores(plane)
            chores.start()
            closing.callback(chores.stop)
            stack = cls(root, plane, api, closing)
            stack._write_facts()
            closing.callback((root / FACTS).unlink, missing_ok=True)
            stack._closing = closing.pop_all()
            return stack

    @property
    def api_url(self) -> str:
        return self._api.url

    @property
    def api_key(self) -> Secret:
        return Secret(self.plane.ledger.state.api_key)

    def archive(self) -> ArchiveFacts:
        """The stack's own S3, started at the first call, which takes seconds. SandboxFault, ToolMissing."""
        return self._api.archive.start()

    @property
    def project_id(self) -> str:
        """The project that was made with the stack."""
        return self.plane.ledger.state.default_project or ""

    @property
    def default_branch_id(self) -> str:
        return self.plane.ledger.default_branch(self.project_id).id

    def uri(self, branch_id: str | None = None, *, pooled: bool = False) -> Secret:
        """A connection string of the branch's first role and database, as the API's `connection_uri` gives it."""
        branch = self.plane.ledger.get(Branch, branch_id or self.default_branch_id)
        endpoint = self.plane.ledger.endpoint_of(branch)
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
    there = plane.ledger.find(Project, plane.ledger.state.default_project)
    if there is not None and there.deleted_at is None:
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


def _listen(plane: Plane, archive: SandboxArchive) -> Api:
    """On the port of last time, so that an address somebody noted stays right; on another if that is taken."""
    key, last = plane.ledger.state.api_key, plane.ledger.state.api_port
    try:
        api = Api(last or 0, plane, archive, key)
    except OSError:
        api = Api(0, plane, archive, key)
    plane.ledger.configure(api_port=api.server_address[1])
    return api
