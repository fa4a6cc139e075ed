"""Fixtures that start a real stack: PostgreSQL with point-in-time recovery behind the Neon API of the sandbox."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from runbooks.model.moment import Moment
from runbooks.sandbox import daemon
from runbooks.sandbox.daemon import Running
from runbooks.sandbox.stack import Stack

TIMEOUT = timedelta(seconds=60)


def until(condition: Callable[[], Any], *, limit: timedelta = TIMEOUT) -> Any:
    """What `condition` gives as soon as it is true; fails the test if it is not within `limit`."""
    end = time.monotonic() + limit.total_seconds()
    while not (found := condition()):
        assert time.monotonic() < end, f"still not true after {limit}"
        time.sleep(0.01)
    return found


@contextmanager
def stack_root() -> Iterator[Path]:
    """A folder for a stack, in memory if there is room: a cluster is a thousand small files.

    Not below pytest's own folder: as root that one is closed to the account PostgreSQL runs as.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 1024**3
    root = Path(tempfile.mkdtemp(prefix="bloom-dr-test-", dir=memory if roomy else None))
    try:
        yield root
    finally:
        daemon.down(root)  # what a test that failed has left running
        shutil.rmtree(root)


@dataclass(frozen=True)
class Api:
    """The API of a stack as a test speaks to it: raw answers, and waiting for operations."""

    client: httpx.Client
    project_id: str
    default_branch_id: str

    @property
    def project(self) -> str:
        return f"/projects/{self.project_id}"

    def branch(self, branch_id: str | None = None) -> str:
        return f"{self.project}/branches/{branch_id or self.default_branch_id}"

    def call(self, method: str, path: str, *, expect: int | None = None, **kw: Any) -> Any:
        """The body of an answer with the status `expect` (by default any that is a success)."""
        answer = self.client.request(method, path, **kw)
        wanted = expect == answer.status_code if expect else answer.is_success
        assert wanted, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def done(self, method: str, path: str, **kw: Any) -> Any:
        """As `call`, and then all its operations are finished."""
        body = self.call(method, path, **kw)
        for operation in body.get("operations", []):
            until(lambda operation=operation: self._over(operation))
        return body

    def _over(self, operation: dict[str, Any]) -> bool:
        path = f"/projects/{operation['project_id']}/operations/{operation['id']}"
        now = self.call("GET", path)["operation"]
        assert now["status"] not in ("failed", "cancelled"), now
        return bool(now["status"] == "finished")

    def uri(self, branch_id: str | None = None, *, database: str = "neondb", role: str = "neondb_owner") -> str:
        query = {"branch_id": branch_id or self.default_branch_id, "database_name": database, "role_name": role}
        return str(self.call("GET", f"{self.project}/connection_uri", params=query)["uri"])

    def branch_at(self, moment: str | None, *, parent: str | None = None, **fields: Any) -> dict[str, Any]:
        """A branch with a compute, ready to use, as the API shows it afterwards."""
        wish = {"parent_id": parent or self.default_branch_id, **fields}
        if moment:
            wish["parent_timestamp"] = moment
        body = {"branch": wish, "endpoints": [{"type": "read_write"}]}
        made = self.done("POST", f"{self.project}/branches", json=body, expect=201)
        shown: dict[str, Any] = self.call("GET", self.branch(made["branch"]["id"]))["branch"]
        return shown


@contextmanager
def speaking_to(stack: Stack | Running) -> Iterator[Api]:
    headers = {"Authorization": f"Bearer {stack.api_key.reveal()}"}
    with httpx.Client(base_url=stack.api_url, headers=headers, timeout=60, trust_env=False) as client:
        yield Api(client, stack.project_id, stack.default_branch_id)


@contextmanager
def session(uri: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(uri, autocommit=True) as connection:
        yield connection


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A stack of the test's own, new and empty."""
    with stack_root() as root, Stack.start(root) as running:
        yield running


@pytest.fixture
def api(stack: Stack) -> Iterator[Api]:
    with speaking_to(stack) as speaking:
        yield speaking


@pytest.fixture(scope="session")
def shared_stack() -> Iterator[Stack]:
    """One stack for all tests of a process that leave its first project as they found it, or make their own."""
    with stack_root() as root, Stack.start(root) as running:
        yield running


@pytest.fixture(scope="module")
def steady_api() -> Iterator[Api]:
    """The API of one stack for a whole file: its tests add what they need under names of their own."""
    with stack_root() as root, Stack.start(root) as running, speaking_to(running) as speaking:
        yield speaking


class Clock:
    """The time of a stack, moved by a test. PostgreSQL keeps to the real one."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> Moment:
        return Moment.of(datetime.now(UTC) + self.ahead)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def clocked_api(clock: Clock) -> Iterator[Api]:
    """The API of a new stack that takes the time from `clock`."""
    with stack_root() as root, Stack.start(root, clock=clock) as running, speaking_to(running) as speaking:
        yield speaking
