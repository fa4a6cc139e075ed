"""Local copies that the archive lacks: sent whole and proved, or named; never half, and never one that is damaged."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbooks.backups.catalog import Listed, catalog
from runbooks.backups.clearing import remove
from runbooks.clients.archive import Archive
from runbooks.clients.repository import Repository
from runbooks.engine.plan import Verdict
from runbooks.model.backup import Rung, Tier
from runbooks.model.backup_id import MANIFEST
from runbooks.model.errors import ArchiveFault, BloomError, NotFound
from runbooks.model.retention import Place
from runbooks.sandbox.s3 import S3Server
from runbooks.sync_backups import RUNBOOK, Request
from tests.backups.desk import Desk
from tests.backups.ground import repository, taken, the_time
from tests.backups.planted import Planted, ago, in_archive, in_folder, keys, planted
from tests.clients.dump_ground import SHOP, Ground
from tests.fakes.s3_proxy import FAULTS, S3Proxy, error

READ = {"verified_rung": 1}
"""Where no private key is, what was read again counts."""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "runs")


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    return tmp_path / "copies"


def keyless(s3: S3Server, environment: str, copies: Path, archive: Archive | None = None, **rules: Any) -> Repository:
    """Of a machine that writes backups, and can open none."""
    where = repository(s3, environment=environment, local=copies, archive=archive, **READ | rules)
    return replace(where, open_keys=lambda _: None)


@pytest.fixture
def where(s3: S3Server, environment: str, copies: Path) -> Repository:
    return keyless(s3, environment, copies)


def there(where: Repository, place: Place = Place.ARCHIVE) -> dict[str, Listed]:
    return {str(one.id): one for one in catalog(where, place).backups}


def measured(where: Repository) -> list[tuple[str, float]]:
    return [(metric.name, metric.value) for metric in where.metrics.metrics]  # type: ignore[attr-defined]


def unproved(environment: str, at: datetime, **wishes: Any) -> Planted:
    return planted(environment, at, proved=None, **wishes)


# --- what is sent --------------------------------------------------------------------------------------------------


def test_a_copy_that_the_archive_lacks_arrives_octet_by_octet_and_is_proved_in_both_places(
    environment: str, where: Repository, desk: Desk, copies: Path
) -> None:
    one = unproved(environment, ago(hours=3))
    in_folder(copies, [one])
    ended = desk.start(RUNBOOK, Request(), where)
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    for key, content in one.objects.items():
        assert where.archive.read(key) == content
    for place in Place:
        (listed,) = there(where, place).values()
        assert listed.verified(Rung.REREAD), place
    head = where.archive.head(one.id.file_key("toc.dat.age"))
    assert head.tags == {"tier": "daily", "environment": environment, "part": "data"}
    assert head.storage_class == "STANDARD_IA"
    assert where.archive.head(one.id.manifest_key).tags["part"] == "manifest"
    assert measured(where)[0] == ("S3SyncErrors", 0)
    assert ("BackupSuccess", 1) in measured(where)


def test_the_size_of_what_arrived_is_compared_with_those_before_it(
    s3: S3Server, environment: str, where: Repository, desk: Desk, copies: Path
) -> None:
    in_archive(s3, [planted(environment, ago(days=day), times=times) for day, times in ((4, 6), (3, 6), (2, 99))])
    in_folder(copies, [unproved(environment, ago(hours=3))])
    assert desk.start(RUNBOOK, Request(), where).ending.verdict is Verdict.PROVED
    assert ("BackupSizeDeviation", 50) in measured(where)


def test_with_a_private_key_what_arrived_is_decrypted(
    s3: S3Server, environment: str, ground: Ground, desk: Desk, copies: Path, tmp_path: Path
) -> None:
    """As after a take whose upload failed; here the archive has lost it all."""
    where = repository(s3, environment=environment, local=copies)
    manifest = taken(where, ground.database(SHOP), tmp_path / "work", at=ago(hours=3))
    remove(where, manifest.id, Place.ARCHIVE)
    assert not keys(where)
    assert desk.start(RUNBOOK, Request(), where).ending.verdict is Verdict.PROVED
    for place in Place:
        (listed,) = there(where, place).values()
        assert listed.verified(Rung.DECODED), place


def test_without_a_private_key_it_is_not_called_proved_where_more_is_asked_for(
    s3: S3Server, environment: str, desk: Desk, copies: Path
) -> None:
    where = keyless(s3, environment, copies, verified_rung=2)
    one = unproved(environment, ago(hours=3))
    in_folder(copies, [one])
    ended = desk.start(RUNBOOK, Request(), where)
    assert ended.ending.verdict is Verdict.COULD_NOT_VERIFY
    assert f"invoke backup.verify --id {one.id}" in ended.ending.left_open[0]
    assert there(where)[str(one.id)].standing.rung is Rung.REREAD
    assert "BackupSuccess" not in dict(measured(where))


def test_only_what_is_missing_of_a_part_is_sent(s3: S3Server, environment: str, desk: Desk, copies: Path) -> None:
    one = unproved(environment, ago(hours=3))
    in_folder(copies, [one])
    in_archive(s3, [replace(one, half=True)])
    with S3Proxy(s3) as proxy:
        where = keyless(s3, environment, copies, archive=behind(proxy, s3))
        assert desk.start(RUNBOOK, Request(), where).ending.verdict is Verdict.PROVED
        assert proxy.seen.count("put_object") == 3, "a probe, the manifest and a proof"


def test_files_that_are_gone_from_the_archive_are_sent_again(
    s3: S3Server, environment: str, where: Repository, desk: Desk, copies: Path
) -> None:
    one = unproved(environment, ago(hours=3))
    in_folder(copies, [one])
    in_archive(s3, [one])
    where.archive.delete(one.id.file_key("toc.dat.age"))
    assert there(where)[str(one.id)].trouble
    assert desk.start(RUNBOOK, Request(), where).ending.verdict is Verdict.PROVED
    assert there(where)[str(one.id)].usable


def test_where_nothing_is_behind_nothing_is_done(
    s3: S3Server, environment: str, where: Repository, desk: Desk, copies: Path
) -> None:
    one = planted(environment, ago(hours=3))
    in_folder(copies, [one, planted(environment, ago(hours=2), half=True)])
    in_archive(s3, [one])
    before = keys(where)
    assert desk.start(RUNBOOK, Request(), where).ending.verdict is Verdict.NOTHING_MISSING
    assert keys(where) == before
    assert measured(where) == [("S3SyncErrors", 0)]


def test_without_local_copies_it_says_so(s3: S3Server, environment: str, desk: Desk) -> None:
    with pytest.raises(NotFound, match="keeps no local copies"):
        desk.start(RUNBOOK, Request(), repository(s3, environment=environment))


def test_what_a_clean_up_removed_after_its_time_is_not_sent_again(
    environment: str, where: Repository, desk: Desk, copies: Path
) -> None:
    """A local pre-migration backup stays for ever; the archive's goes after three years."""
    in_folder(copies, [planted(environment, ago(days=1100), tier=Tier.PRE_MIGRATION)])
    assert desk.start(RUNBOOK, Request(), where).ending.verdict is Verdict.NOTHING_MISSING
    assert not keys(where)


@pytest.mark.parametrize(("days", "locked"), [(1, True), (9, False)])
def test_the_lock_counts_from_the_start_of_the_backup(
    s3: S3Server, environment: str, desk: Desk, copies: Path, days: int, locked: bool
) -> None:
    rule = {"local_days": 60, "s3_days": 365, "storage_class": "GLACIER", "lock_mode": "GOVERNANCE", "lock_days": 7}
    where = keyless(s3, environment, copies, tiers={"weekly": rule})
    one = unproved(environment, ago(days=days), tier=Tier.WEEKLY)
    in_folder(copies, [one])
    assert desk.start(RUNBOOK, Request(), where).ending.verdict is Verdict.PROVED
    for key in (one.id.manifest_key, one.id.file_key("toc.dat.age")):
        head = where.archive.head(key)
        until = one.id.started.utc + timedelta(days=7)
        assert (head.locked_until and head.locked_until.utc) == (until if locked else None)
        assert head.storage_class == "STANDARD"


# --- what is not sent ----------------------------------------------------------------------------------------------


def _flip(folder: Path) -> None:
    content = bytearray((folder / "toc.dat.age").read_bytes())
    content[3] ^= 1
    (folder / "toc.dat.age").write_bytes(content)


def _cut(folder: Path) -> None:
    (folder / "toc.dat.age").write_bytes(b"short")


def _drop(folder: Path) -> None:
    (folder / "toc.dat.age").unlink()


@pytest.mark.parametrize("damage", [_flip, _cut, _drop])
def test_a_damaged_copy_is_named_and_nothing_of_it_is_sent_while_the_others_are(
    environment: str, where: Repository, desk: Desk, copies: Path, damage: Any
) -> None:
    bad, good = unproved(environment, ago(hours=30)), unproved(environment, ago(hours=3))
    in_folder(copies, [bad, good])
    damage(copies / str(bad.id))
    ended = desk.start(RUNBOOK, Request(), where)
    assert ended.ending.verdict is Verdict.INCOMPLETE
    assert str(bad.id) in ended.ending.left_open[0]
    assert "toc.dat.age" in ended.ending.left_open[0]
    assert there(where).keys() == {str(good.id)}
    assert ("S3SyncErrors", 1) in measured(where)
    assert not there(where, Place.LOCAL)[str(bad.id)].usable


def test_a_copy_that_a_proof_calls_broken_is_not_sent(
    environment: str, where: Repository, desk: Desk, copies: Path
) -> None:
    in_folder(copies, [planted(environment, ago(hours=30), failed=Rung.DECODED)])
    ended = desk.start(RUNBOOK, Request(), where)
    assert ended.ending.verdict is Verdict.INCOMPLETE
    assert "it is broken, says " in ended.ending.left_open[0]
    assert not keys(where)


def test_what_the_archive_holds_under_its_name_is_never_replaced(
    s3: S3Server, environment: str, where: Repository, desk: Desk, copies: Path
) -> None:
    one = unproved(environment, ago(hours=30))
    in_folder(copies, [one])
    s3.client().put_object(Bucket=s3.bucket, Key=one.id.file_key("toc.dat.age"), Body=b"of somebody else")
    ended = desk.start(RUNBOOK, Request(), where)
    assert ended.ending.verdict is Verdict.INCOMPLETE
    assert "holds something else" in ended.ending.left_open[0]
    assert where.archive.read(one.id.file_key("toc.dat.age")) == b"of somebody else"
    assert one.id.manifest_key not in keys(where)


def test_another_backup_of_the_same_name_is_told(
    s3: S3Server, environment: str, where: Repository, desk: Desk, copies: Path
) -> None:
    one = unproved(environment, ago(hours=30))
    in_folder(copies, [one])
    told = json.loads(one.manifest.to_bytes()) | {"lsn": "0/1"}
    s3.client().put_object(Bucket=s3.bucket, Key=one.id.manifest_key, Body=json.dumps(told).encode())
    ended = desk.start(RUNBOOK, Request(), where)
    assert "another backup under the same name" in ended.ending.left_open[0]


def test_what_arrived_otherwise_than_it_is_here_is_a_failure(
    s3: S3Server, environment: str, where: Repository, desk: Desk, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive changes a file behind our back, between upload and proof."""
    one = unproved(environment, ago(hours=3))
    in_folder(copies, [one])
    key, put = one.id.file_key("toc.dat.age"), Archive.put

    def tampering(self: Archive, name: str, *args: Any, **how: Any) -> Any:
        stored = put(self, name, *args, **how)
        if name.endswith(MANIFEST):
            s3.client().put_object(Bucket=s3.bucket, Key=key, Body=b"x" * len(one.files["toc.dat.age"]))
        return stored

    monkeypatch.setattr(Archive, "put", tampering)
    ended = desk.start(RUNBOOK, Request(), where)
    assert ended.ending.verdict is Verdict.FAILED
    assert "toc.dat.age has other content" in ended.ending.left_open[0]
    assert ("S3SyncErrors", 1) in measured(where)
    assert not there(where)[str(one.id)].usable


# --- faults --------------------------------------------------------------------------------------------------------


def behind(proxy: S3Proxy, s3: S3Server) -> Archive:
    return Archive(s3.bucket, region=s3.region, clock=the_time, client=proxy.client, sleep=lambda _: None)


def test_an_archive_that_does_not_answer_is_an_error_and_measured(
    s3: S3Server, environment: str, desk: Desk, copies: Path
) -> None:
    in_folder(copies, [unproved(environment, ago(hours=3))])
    with S3Proxy(s3) as proxy:
        where = keyless(s3, environment, copies, archive=behind(proxy, s3))
        proxy.fail_from(0, error)
        with pytest.raises(ArchiveFault):
            desk.start(RUNBOOK, Request(), where)
    assert measured(where) == [("S3SyncErrors", 1)]


_environments: Iterator[int] = itertools.count()


def faults_from(s3: S3Server, tmp_path: Path, name: str, step: int) -> None:
    """From a call on the archive fails: whole there, or without a manifest. Resumed, it comes to its end."""
    for number in itertools.count(0, step):
        environment = f"syncfault{next(_environments)}"
        copies, desk = tmp_path / environment / "copies", Desk(tmp_path / environment / "runs")
        one = unproved(environment, ago(hours=3))
        in_folder(copies, [one])
        where = keyless(s3, environment, copies)
        with S3Proxy(s3) as proxy:
            proxy.fail_from(number, FAULTS[name])
            try:
                faulty = keyless(s3, environment, copies, archive=behind(proxy, s3))
                ended = desk.start(RUNBOOK, Request(), faulty)
                failed = False
            except BloomError:
                failed = True
            # Answers that break off are taken up again where they broke off, so that may well come to an end.
            assert failed or len(proxy.seen) <= number or name == "half"
        found = there(where).get(str(one.id))
        assert found is None or not found.complete or found.trouble is None, "half a backup has a manifest"
        if not failed:
            assert ended.ending.verdict is Verdict.PROVED
            assert there(where)[str(one.id)].verified(Rung.REREAD)
            if len(proxy.seen) <= number:
                break
            continue
        assert desk.resume(RUNBOOK, where).ending.verdict is Verdict.PROVED
        assert there(where)[str(one.id)].verified(Rung.REREAD)
        assert len(there(where, Place.LOCAL)[str(one.id)].proofs) == 1
    assert number > 10, "the calls were not counted"


def test_an_archive_that_fails_on_the_way_gets_no_half_backup(s3: S3Server, tmp_path: Path) -> None:
    faults_from(s3, tmp_path, "error", 6)


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_at_any_call_leaves_a_whole_backup_or_none(s3: S3Server, tmp_path: Path, name: str) -> None:
    faults_from(s3, tmp_path, name, 4 if name == "slow" else 1)  # slow ones are waited for


def test_proofs_of_an_earlier_attempt_are_not_made_twice(
    s3: S3Server, environment: str, desk: Desk, copies: Path
) -> None:
    class Deaf:
        def send(self, metrics: Any) -> None:
            raise ArchiveFault("nobody hears", safe="all", next_step="none")

    one = unproved(environment, datetime.now(UTC) - timedelta(hours=3))
    in_folder(copies, [one])
    where = keyless(s3, environment, copies)
    with pytest.raises(ArchiveFault, match="nobody hears"):
        desk.start(RUNBOOK, Request(), replace(where, metrics=Deaf()))
    assert desk.resume(RUNBOOK, where).ending.verdict is Verdict.PROVED
    for place in Place:
        assert len(there(where, place)[str(one.id)].proofs) == 1
