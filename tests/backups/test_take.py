"""Taking a backup: whole or not at all."""

from __future__ import annotations

from pathlib import Path

from runbooks.backups.catalog import catalog
from runbooks.model.backup import Rung, Verdict
from runbooks.sandbox.s3 import S3Server
from tests.backups.ground import read_again, repository, taken
from tests.clients.dump_ground import Ground

SHOP = """
CREATE TABLE client (id int PRIMARY KEY, name text);
INSERT INTO client SELECT n, 'client ' || n FROM generate_series(1, 1000) AS n;
CREATE TABLE empty (id int);
"""


def test_what_was_taken_can_be_read_again_to_the_last_block(
    ground: Ground, s3: S3Server, environment: str, tmp_path: Path
) -> None:
    place = repository(s3, environment=environment)
    manifest = taken(place, ground.database(SHOP), tmp_path)
    record = read_again(place, manifest)
    assert (record.verdict, record.rung) == (Verdict.PASSED, Rung.DECODED), record
    (listed,) = catalog(place).backups
    assert listed.id == manifest.id
    assert listed.manifest == manifest
    assert listed.verified(Rung.DECODED)
    assert not (tmp_path / "work").exists()
