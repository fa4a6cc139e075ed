"""A stack of a module's own, brought up and down by the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runbooks.sandbox import daemon
from tests.commands.operator import Operator
from tests.stack import stack_root


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """With a running stack and 100 clients in it."""
    with stack_root() as root:
        one = Operator(root, tmp_path_factory.mktemp("runs"))
        try:
            assert one.invoke("sandbox.up").code == 0
            assert one.invoke("sandbox.seed", "--clients", "100").code == 0
            yield one
        finally:
            daemon.down(root)
        assert daemon.status(root).running is None


@pytest.fixture
def stranger(tmp_path: Path) -> Operator:
    """Nothing runs, and she has no run yet."""
    return Operator(tmp_path / "no-sandbox", tmp_path / "runs")
