"""One S3 server and one PostgreSQL for all tests of backups of one process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbooks.sandbox.s3 import S3Server
from tests.clients.dump_ground import Ground, ground  # noqa: F401
from tests.stack import stack_root


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with stack_root() as root, S3Server(root / "s3") as server:
        yield server


@pytest.fixture
def environment(request: pytest.FixtureRequest) -> str:
    """A name that no other test of this process has."""
    return f"t{abs(hash(request.node.nodeid)) % 10**12}"
