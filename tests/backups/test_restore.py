"""Restoring a backup: proved, or told exactly what is missing; refused before anything could be mixed or lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbooks.engine.plan import Verdict
from runbooks.model.dsn import Dsn
from tests.backups.ground import read_again, taken
from tests.backups.restoring import Desk
from tests.clients.dump_ground import SHOP, Ground, inventory, lost, value
from tests.clients.dump_ground import ground as ground

SMALL = """
CREATE TABLE t (id serial PRIMARY KEY, name text); INSERT INTO t (name) SELECT 'n' || i FROM generate_series(1, 50) AS i
"""


@pytest.fixture(scope="module")
def shop(ground: Ground) -> Dsn:
    return ground.database(SHOP)


@pytest.fixture(scope="module")
def small(ground: Ground) -> Dsn:
    return ground.database(SMALL)


def test_c05_a_whole_backup_comes_back_proved_for_an_ordinary_login_elsewhere(
    desk: Desk, shop: Dsn, tmp_path: Path
) -> None:
    manifest = taken(desk.place, shop, tmp_path)
    read_again(desk.place, manifest)
    target = desk.target()
    ended = desk.restore(manifest.id)
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert ended.ending.left_open == ()
    assert not lost(manifest.inventory, inventory(target))
    assert value(target, "SELECT mail FROM client WHERE mail = 'MAIL7@X'") == "Mail7@x"
    assert value(target, "SELECT lo_get(o) FROM doc") == b"\x01\x02"
    assert value(target, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == "app"
    assert "geheim" not in desk.written()
