"""A stack for all these tests, brought up by the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runbooks.sandbox import daemon
from tests.commands.operator import Operator
from tests.stack import stack_root


@pytest.fixture(scope="session")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """With a running stack and 100 clients in it. Each test breaks rows of its own, and leaves other tests' alone."""
    with stack_root() as root:
        one = Operator(root, tmp_path_factory.mktemp("runs"))
        try:
            assert one.invoke("sandbox.up").code == 0
            assert one.invoke("sandbox.seed", "--clients", "100").code == 0
            with one.api() as api:
                yield replace(one, open_api=api)
        finally:
            daemon.down(root)
        assert daemon.status(root).running is None


@pytest.fixture
def stranger(tmp_path: Path) -> Operator:
    """Nothing runs, and she has no run yet."""
    return Operator(tmp_path / "no-sandbox", tmp_path / "runs")


@pytest.fixture
def patient(operator: Operator, tmp_path: Path) -> Operator:
    """Waits for locks longer than any test takes."""
    return waiting(operator, tmp_path, "1m")


@pytest.fixture
def hasty(operator: Operator, tmp_path: Path) -> Operator:
    """Waits for a lock as shortly as the policy allows."""
    return waiting(operator, tmp_path, "1s")


def waiting(operator: Operator, folder: Path, lock_timeout: str) -> Operator:
    policy = folder / f"{lock_timeout}.toml"
    policy.write_text(
        'default_environment = "sandbox"\nlocal_timezone = "America/Mexico_City"\n'
        f'[environments.sandbox]\nsandbox = true\n[recovery]\nlock_timeout = "{lock_timeout}"\n'
    )
    return operator.having(BLOOM_DR_POLICY=str(policy))
