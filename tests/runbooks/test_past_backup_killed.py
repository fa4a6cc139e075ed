"""A recovery from a backup, killed wherever it touches the machine, goes on to the one right end and leaves nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbooks.sandbox.seed import seed
from tests.runbooks.ground import Facts
from tests.runbooks.past_scenario import RowsFromBackup
from tests.runbooks.test_every_runbook import killed, resumed_well
from tests.stack import Stack, stack_root


@pytest.fixture(scope="module")
def seeded() -> Iterator[Stack]:
    with stack_root() as root, Stack.start(root) as stack:
        seed(Facts.of(stack, root).dsn(), clients=100)
        yield stack


@pytest.mark.long
@pytest.mark.parametrize(("kind", "stride", "least"), [("server", 1, 11), ("journal", RowsFromBackup.every, 12)])
def test_c25_killed_at_any_point_a_recovery_from_a_backup_is_gone_on_with_and_leaves_no_readable_row(
    kind: str, stride: int, least: int, seeded: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after one point is killed before the next."""
    scenario = RowsFromBackup()
    for point in itertools.count(1, stride):
        with stack_root() as home:
            home.chmod(0o711)
            monkeypatch.setenv("BLOOM_DR_SANDBOX", str(home / "sandbox"))
            facts = Facts.of(seeded, tmp_path / str(point), archive=True)
            if not killed(facts, scenario, kind, point, "after"):
                break
            resumed_well(facts, scenario)
    assert point >= least, "the points were not counted where the run touches the world"
