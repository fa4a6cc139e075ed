"""One S3 server and one PostgreSQL for all tests of backups of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runbooks.backups.workspace import MARK
from runbooks.sandbox.s3 import S3Server
from runbooks.sandbox.scratch import Scratch
from runbooks.sandbox.stack import Stack
from tests.backups.ground import repository
from tests.backups.restoring import Desk
from tests.clients.dump_ground import Ground, ground, run  # noqa: F401
from tests.stack import stack_root


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with stack_root() as root, S3Server(root / "s3") as server:
        yield server


@pytest.fixture
def environment(request: pytest.FixtureRequest) -> str:
    """A name that no other test of this process has."""
    return f"t{abs(hash(request.node.nodeid)) % 10**12}"


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[Ground]:
    """A cluster that knows none of the roles of `ground`, with an ordinary login `app`."""
    with Scratch(major=17) as scratch:
        run(scratch.dsn(), "CREATE ROLE app LOGIN PASSWORD 'app'")
        yield Ground(scratch)


@pytest.fixture(scope="module")
def neon_stack() -> Iterator[Stack]:
    with stack_root() as root, Stack.start(root) as stack:
        yield stack


@pytest.fixture
def desk(
    neon_stack: Stack, s3: S3Server, environment: str, elsewhere: Ground, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Desk]:  # fmt: skip
    with stack_root() as home:
        home.chmod(0o711)
        monkeypatch.setenv("BLOOM_DR_SANDBOX", str(home / "sandbox"))
        yield Desk.of(neon_stack, repository(s3, environment=environment), elsewhere, tmp_path / "runs")
        assert not list(home.glob(f"{MARK}*")), "readable rows were left behind"
