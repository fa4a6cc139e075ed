"""Taking a backup: whole and proved, or none; whatever fails, and wherever."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runbooks.backups.catalog import catalog
from runbooks.clients import programs
from runbooks.clients.archive import Archive
from runbooks.clients.postgres import connect
from runbooks.clients.repository import Repository
from runbooks.clients.seal import KeyPair
from runbooks.model.backup import Rung, Tier, Verdict
from runbooks.model.backup_id import MANIFEST
from runbooks.model.dsn import Dsn
from runbooks.model.errors import ArchiveFault, BloomError, DatabaseFault, ProofFailed, Refused, TableLocked
from runbooks.model.moment import Moment
from runbooks.model.retention import Place
from runbooks.sandbox.s3 import S3Server
from tests.backups.ground import read_again, repository, taken, the_time
from tests.clients.dump_ground import SHOP, Ground, fake, run
from tests.fakes.s3_proxy import FAULTS, S3Proxy, error
from tests.fakes.s3_small import BUCKET, SmallS3

VERSION = '[ "$1" = --version ] && { echo "pg_dump (PostgreSQL) 17.10"; exit 0; }\n'
FOLDER = "for a; do case $a in --file=*) out=${a#--file=};; esac; done\n"
REAL = f'"{programs.find("pg_dump", at_least=17).path}" "$@"'


@pytest.fixture(scope="module")
def shop(ground: Ground) -> Dsn:
    return ground.database(SHOP)


@pytest.fixture
def place(s3: S3Server, environment: str) -> Repository:
    return repository(s3, environment=environment)


def keys(s3: S3Server, environment: str) -> list[str]:
    listed = s3.client().list_objects_v2(Bucket=s3.bucket, Prefix=f"{environment}/")
    return [each["Key"] for each in listed.get("Contents", [])]


def test_what_was_taken_can_be_read_again_to_the_last_block(place: Repository, shop: Dsn, tmp_path: Path) -> None:
    manifest = taken(place, shop, tmp_path)
    record = read_again(place, manifest)
    assert (record.verdict, record.rung) == (Verdict.PASSED, Rung.DECODED), record
    (listed,) = catalog(place).backups
    assert listed.manifest == manifest
    assert listed.verified(Rung.DECODED)
    assert {"toc.dat", "globals.sql"} < {file.name for file in manifest.files}
    assert not list(tmp_path.iterdir()), "readable rows stayed on the disk"


def test_tags_class_and_lock_are_those_of_the_tier(s3: S3Server, environment: str, shop: Dsn, tmp_path: Path) -> None:
    tiers = {
        "weekly": {
            "local_days": 60,
            "s3_days": 365,
            "storage_class": "GLACIER",
            "lock_mode": "GOVERNANCE",
            "lock_days": 30,
        }
    }
    place = repository(s3, environment=environment, tiers=tiers)
    at = datetime.now(UTC)
    manifest = taken(place, shop, tmp_path, tier=Tier.WEEKLY, at=at)
    for key in keys(s3, environment):
        head = place.archive.head(key)
        part = "manifest" if key.endswith(MANIFEST) else "data"
        assert head.tags == {"tier": "weekly", "environment": environment, "part": part}
        assert head.storage_class == "STANDARD", "a file that is cold cannot be proved"
        assert head.locked_until is not None
        assert head.locked_until.utc >= manifest.id.started.utc + timedelta(days=30)
    with pytest.raises(Refused, match="is locked"):
        place.archive.delete(manifest.id.manifest_key)


def test_two_backups_of_one_second_do_not_mix(place: Repository, shop: Dsn, tmp_path: Path) -> None:
    first = taken(place, shop, tmp_path)
    before = keys_and_sizes(place)
    with pytest.raises(Refused, match="already is a backup"):
        taken(place, shop, tmp_path, at=first.id.started.utc)
    assert keys_and_sizes(place) == before


def keys_and_sizes(place: Repository) -> dict[str, int]:
    return {each.key: each.size for each in place.archive.objects(f"{place.environment}/")}


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("exit 1", DatabaseFault),
        ('mkdir -p "$out"; head -c 1024 /dev/urandom > "$out/toc.dat"; exit 1', DatabaseFault),
        ("exit 0", ProofFailed),
        ("kill -9 $$", DatabaseFault),
        (f"exec {REAL} --exclude-table-data=public.client", ProofFailed),
        (f"{REAL} || exit; exit 3", DatabaseFault),
    ],
    ids=[
        "fails at once",
        "fails after 1 KB",
        "writes nothing",
        "is killed",
        "leaves out rows",
        "fails after all of it",
    ],
)
def test_c12_a_dump_that_failed_leaves_nothing_and_touches_nothing(
    s3: S3Server, place: Repository, shop: Dsn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    script: str, kind: type[BloomError],
) -> None:  # fmt: skip
    earlier = taken(place, shop, tmp_path)
    before = keys_and_sizes(place)
    fake(tmp_path / "bin", "pg_dump", VERSION + FOLDER + script)
    fake(tmp_path / "bin", "pg_dumpall", f'exec "{programs.find("pg_dump", at_least=17).sibling("pg_dumpall")}" "$@"')
    monkeypatch.setenv(programs.SETTING, str(tmp_path / "bin"))
    with pytest.raises(kind):
        taken(place, shop, tmp_path)
    assert keys_and_sizes(place) == before
    assert not (tmp_path / "work").exists()
    monkeypatch.undo()
    assert read_again(place, earlier).verdict is Verdict.PASSED


def test_c10_a_locked_table_ends_the_backup_and_is_named(
    s3: S3Server, environment: str, ground: Ground, tmp_path: Path
) -> None:
    place = repository(s3, environment=environment, lock_wait=timedelta(seconds=1))
    dsn = ground.database("CREATE TABLE t (id int); CREATE TABLE u (id int)")
    with connect(dsn, application_name="migration") as other, other.transaction():
        other.execute("LOCK TABLE public.t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TableLocked, match=r"table public\.t is locked by process \d+ \(migration"):
            taken(place, dsn, tmp_path)
    assert not keys(s3, environment)


def test_c14_a_store_that_keeps_the_framing_gets_no_backup(environment: str, shop: Dsn, tmp_path: Path) -> None:
    with SmallS3(frames=True) as store:
        archive = Archive(
            BUCKET,
            region="us-east-1",
            clock=the_time,
            client=store.client,
            checksums="supported",
        )
        place = replace(repository_without_server(environment), archive=archive)
        with pytest.raises(ArchiveFault, match="does not give back what it was given"):
            taken(place, shop, tmp_path)
        assert not [key for key in store.objects if "bloom_backup" in key]


def repository_without_server(environment: str) -> Repository:
    class Nowhere:
        bucket, region, endpoint, client = "nowhere", "us-east-1", "http://127.0.0.1:9", None

    return repository(Nowhere(), environment=environment, archive=object())  # type: ignore[arg-type]


def test_a_database_that_changes_meanwhile_is_backed_up_as_it_was(
    s3: S3Server, environment: str, ground: Ground, tmp_path: Path
) -> None:
    """C35: what is compared later is what the dump's own snapshot saw."""
    dsn = ground.database("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 50)")
    place = repository(s3, environment=environment)
    manifest = taken(place, dsn, tmp_path)
    run(dsn, "INSERT INTO t SELECT generate_series(51, 60)")
    assert [(table.name, table.rows) for table in manifest.inventory.tables] == [("public.t", 50)]


# --- local copies --------------------------------------------------------------------------------------------------


def test_a_local_copy_is_the_archives_octet_by_octet_and_closed_to_others(
    s3: S3Server, environment: str, shop: Dsn, tmp_path: Path
) -> None:
    place = repository(s3, environment=environment, local=tmp_path / "copies")
    manifest = taken(place, shop, tmp_path)
    folder = tmp_path / "copies" / str(manifest.id)
    assert {path.name for path in folder.iterdir()} == {MANIFEST, *(file.stored_name for file in manifest.files)}
    for path in folder.iterdir():
        assert path.read_bytes() == place.archive.read(manifest.id.prefix + path.name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    inside = (tmp_path / "copies").rglob("*")
    assert {stat.S_IMODE(path.stat().st_mode) for path in inside if path.is_dir()} == {0o700}
    assert read_again(place, manifest, Place.LOCAL).rung is Rung.DECODED


def test_an_archive_that_fails_leaves_the_local_copy_whole_and_says_so(
    s3: S3Server, environment: str, shop: Dsn, tmp_path: Path
) -> None:
    with S3Proxy(s3) as proxy:
        proxy.fail_from(12, error)
        place = behind(proxy, s3, environment, local=tmp_path / "copies")
        with pytest.raises(ArchiveFault) as failed:
            taken(place, shop, tmp_path)
        assert "is whole" in failed.value.safe
        assert "backup.sync" in failed.value.next_step
        proxy.heal()
    assert (
        not catalog(repository(s3, environment=environment)).backups
        or not catalog(repository(s3, environment=environment)).backups[0].complete
    )
    place = repository(s3, environment=environment, local=tmp_path / "copies")
    (copy,) = catalog(place, Place.LOCAL).backups
    assert copy.manifest is not None
    assert read_again(place, copy.manifest, Place.LOCAL).rung is Rung.DECODED


# --- faults --------------------------------------------------------------------------------------------------------


def behind(proxy: S3Proxy, s3: S3Server, environment: str, *, local: Path | None = None) -> Repository:
    archive = Archive(s3.bucket, region=s3.region, clock=the_time, client=proxy.client, sleep=lambda _: None)
    return repository(s3, environment=environment, archive=archive, local=local)


def all_or_nothing(s3: S3Server, environment: str, faulty: Repository, dsn: Dsn, tmp_path: Path) -> bool:
    """Whether there is a backup after one was tried. If there is, it is whole; if it was reported, it is there."""
    place = repository(s3, environment=environment)
    try:
        taken(faulty, dsn, tmp_path)
        reported = True
    except BloomError:
        reported = False
    found = [one for one in catalog(place).backups if one.complete]
    for one in found:
        assert one.manifest is not None
        record = read_again(place, one.manifest)
        assert (record.verdict, record.rung) == (Verdict.PASSED, Rung.DECODED), "half a backup has a manifest"
    assert not (reported and not found), "a backup was reported, and there is none"
    uploads = s3.client().list_multipart_uploads(Bucket=s3.bucket, Prefix=f"{environment}/")
    assert not uploads.get("Uploads")
    return bool(found)


def test_one_lost_answer_anywhere_does_not_stop_a_backup(s3: S3Server, ground: Ground, tmp_path: Path) -> None:
    dsn = ground.database("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    assert_every_call(s3, dsn, tmp_path, "lost", single=True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "single"),
    # An archive that is slow for good costs minutes of waiting here; single uploads are tried with that.
    [(name, single) for name in FAULTS for single in (True, False) if (name, single) != ("slow", False)],
)
def test_a_fault_at_every_call_leaves_a_whole_backup_or_none(
    s3: S3Server, ground: Ground, tmp_path: Path, name: str, single: bool
) -> None:
    dsn = ground.database("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    assert_every_call(s3, dsn, tmp_path, name, single=single)


_environments: Iterator[int] = itertools.count()


def assert_every_call(s3: S3Server, dsn: Dsn, tmp_path: Path, name: str, *, single: bool) -> None:
    for number in itertools.count():
        environment = f"fault{next(_environments)}"
        with S3Proxy(s3) as proxy:
            if single:
                proxy.fail_call(number, FAULTS[name])
            else:
                proxy.fail_from(number, FAULTS[name])
            there = all_or_nothing(s3, environment, behind(proxy, s3, environment), dsn, tmp_path)
            calls = len(proxy.seen)
        if single:
            assert there, f"one fault at call {number} was too much"
        if calls <= number:
            break
    assert number > 10, "the calls were not counted"


# --- keys ----------------------------------------------------------------------------------------------------------


def test_who_writes_cannot_read_but_can_prove_what_it_wrote(
    s3: S3Server, environment: str, shop: Dsn, tmp_path: Path
) -> None:
    """A backup sealed besides to a key of the run opens with it and with the policy's, and names only the policy's."""
    own = KeyPair.new("age")
    place = replace(repository(s3, environment=environment), open_keys=lambda _: own.opener())
    with_own = replace(place, policy=place.policy)
    manifest = taken(with_own, shop, tmp_path)
    record = read_again(place, manifest)
    assert record.verdict is Verdict.PASSED
    assert record.rung is Rung.REREAD, "what cannot be opened here is proved as far as its bytes"


def test_the_manifests_times_are_those_of_the_backup(place: Repository, shop: Dsn, tmp_path: Path) -> None:
    at = datetime.now(UTC)
    manifest = taken(place, shop, tmp_path, at=at)
    assert manifest.started == Moment.of(at.replace(microsecond=0))
    assert manifest.started < manifest.finished
