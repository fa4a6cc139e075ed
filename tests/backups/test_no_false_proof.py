"""No backup is proved, newest or removed that is not; and what a database may rightly hold stops none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from runbooks.backups import take as taking
from runbooks.backups.catalog import look_at
from runbooks.backups.choice import choose
from runbooks.backups.ladder import climb
from runbooks.backups.prove import store
from runbooks.backups.shipping import Shipping
from runbooks.backups.workspace import workspace
from runbooks.clients.dump_preflight import client_for, preflight
from runbooks.clients.inventory import _Piece, _query
from runbooks.clients.inventory_catalog import Shape
from runbooks.clients.postgres import connect
from runbooks.clients.repository import Repository
from runbooks.model.backup import Manifest, ProofRecord, Rung, Verdict
from runbooks.model.errors import Refused
from runbooks.model.inventory import Locale
from runbooks.model.retention import Place
from runbooks.sandbox.s3 import S3Server
from runbooks.verify_backup import _after
from tests.backups.ground import PAIR, order, read_again, repository, taken, the_time
from tests.backups.planted import ago, in_archive, keys, planted
from tests.clients.dump_ground import Ground, inventory, lost, run
from tests.stack import stack_root


@pytest.fixture
def place(s3: S3Server, environment: str) -> Repository:
    return repository(s3, environment=environment)


def climbed(place: Repository, manifest: Manifest, up_to: Rung = Rung.EQUAL) -> ProofRecord:
    with stack_root() as root:
        root.chmod(0o711)
        with workspace(root) as folder:
            return climb(
                place, manifest, up_to=up_to, opener=PAIR.opener(), place=Place.ARCHIVE, workspace=folder, by="test",
                clock=the_time,
            )[-1]  # fmt: skip


def test_a_backup_never_removes_what_another_one_of_the_same_second_has_stored(
    place: Repository, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = ground.database("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")
    at = ago(hours=1)
    first, second = (order(place, dsn, tmp_path / name, at=at) for name in ("first", "second"))
    close_up = Shipping.close_up

    def interrupted(shipping: Shipping, manifest: Manifest) -> None:
        if shipping._order is first:
            with pytest.raises(Refused, match="already holds something else"):
                taking.take(place, second, connect=connect, clock=the_time, tell=lambda text: None)
        close_up(shipping, manifest)

    monkeypatch.setattr(Shipping, "close_up", interrupted)
    manifest = taking.take(place, first, connect=connect, clock=the_time, tell=lambda text: None)
    assert read_again(place, manifest).verdict is Verdict.PASSED


def test_a_proof_is_none_of_the_backup_that_took_the_place_of_the_proved_one(
    place: Repository, ground: Ground, tmp_path: Path
) -> None:
    at = ago(hours=1)
    whole = taken(place, ground.database("CREATE TABLE t (i int); INSERT INTO t VALUES (1)"), tmp_path, at=at)
    assert read_again(place, whole).verdict is Verdict.PASSED
    for key in keys(place):
        if "/proof-" not in key:
            place.archive.delete(key)
    emptied = taken(place, ground.database("CREATE TABLE t (i int)"), tmp_path, at=at)
    assert emptied.id == whole.id
    listed = look_at(place, whole.id)
    assert not listed.usable
    assert listed.trouble is not None
    assert "took its place" in listed.trouble


def test_a_proof_survives_the_journey_of_its_manifest_through_text(
    place: Repository, ground: Ground, tmp_path: Path
) -> None:
    manifest = taken(place, ground.database("CREATE TABLE t (i int)"), tmp_path)
    assert Manifest.from_bytes(manifest.to_bytes()).digest == manifest.digest
    assert read_again(place, manifest).manifest == manifest.digest
    assert look_at(place, manifest.id).verified(Rung.DECODED)


def test_an_older_proof_does_not_refute_a_failure_that_a_clock_gone_back_dated_before_it(
    s3: S3Server, place: Repository
) -> None:
    one = planted(place.environment, ago(days=5), proved=Rung.INTEGRAL)
    in_archive(s3, [one])
    failed = ProofRecord(
        backup=one.id, at=one.id.started, rung=Rung.UPLOADED, verdict=Verdict.FAILED, by="test", seconds=1
    )
    store(place, one.tier, _after(look_at(place, one.id).proofs, failed))
    assert not look_at(place, one.id).usable


def test_a_backup_dated_in_the_future_is_not_the_newest(s3: S3Server, place: Repository) -> None:
    real = planted(place.environment, ago(hours=2), proved=Rung.INTEGRAL)
    future = planted(place.environment, datetime.now(UTC) + timedelta(days=300), proved=Rung.INTEGRAL)
    in_archive(s3, [real, future])
    choice = choose(place, None, before=None, place=Place.ARCHIVE, now=the_time())
    assert choice.found.id == real.id  # type: ignore[union-attr]
    (told,) = choice.passed_over
    assert told.startswith(f"{future.id} is dated in the future")
    named = choose(place, future.id, before=None, place=Place.ARCHIVE, now=the_time())
    assert named.found.id == future.id  # type: ignore[union-attr]


def test_the_content_of_a_table_is_compared_octet_by_octet_whatever_its_collation_takes_for_equal(
    ground: Ground,
) -> None:
    """With a collation that is not deterministic (ICU, which not every build has) 'Abc' and 'aBC' have one hash."""
    shape = Shape(
        oid=1, schema="s", table="t", name="s.t", kind="r", populated=True, row_security=False, heap=True, heap_bytes=0,
        bytes=0, condition="", definition=[], columns=[["c", "text"]],
    )  # fmt: skip
    with connect(ground.database(), application_name="test") as conn:
        assert 'ROW(t."c"::text COLLATE "C")' in _query(_Piece(shape, None, None, 0)).as_string(conn)


def test_the_only_view_of_a_database_is_missed(ground: Ground) -> None:
    """A side without any object has been counted nevertheless."""
    table, view = "CREATE TABLE t (i int);", "CREATE VIEW v AS SELECT 1 AS one;"
    without, along = inventory(ground.database(table)), inventory(ground.database(table + view))
    assert [str(one) for one in lost(along, without)] == ["view: 1 expected, 0 found"]
    assert [str(one) for one in lost(without, along)] == ["view: 0 expected, 1 found"]


def test_settings_of_the_database_that_no_restore_brings_are_told(ground: Ground) -> None:
    dsn = ground.database()
    run(dsn, f"ALTER DATABASE {dsn.database} SET search_path = app, public")
    run(dsn, f"ALTER ROLE shop IN DATABASE {dsn.database} SET app.token = 'secret'")
    with connect(dsn, application_name="test") as conn:
        notes = preflight(conn, client_for(conn)).notes
    told = (
        f"ALTER DATABASE {dsn.database} SET search_path",
        f"ALTER ROLE shop IN DATABASE {dsn.database} SET app.token",
    )
    assert [note.split(": ")[0] for note in notes] == [f"the dump does not hold {each}" for each in told]
    assert "secret" not in str(notes)


def test_an_empty_large_object_is_backed_up_and_restored(place: Repository, ground: Ground, tmp_path: Path) -> None:
    script = "SELECT lo_from_bytea(0, ''); SELECT lo_from_bytea(0, 'abc')"
    manifest = taken(place, ground.database(script), tmp_path)
    record = climbed(place, manifest)
    assert (record.verdict, record.rung) == (Verdict.PASSED, Rung.EQUAL), record.details


_SCHEDULER = """
CREATE EXTENSION hstore; CREATE SCHEMA cron; CREATE SEQUENCE cron.s;
CREATE TABLE cron.job (i int DEFAULT nextval('cron.s')); INSERT INTO cron.job DEFAULT VALUES;
ALTER EXTENSION hstore ADD SEQUENCE cron.s; ALTER EXTENSION hstore ADD TABLE cron.job;
UPDATE pg_extension SET extcondition = '{"",""}', extconfig = ARRAY['cron.s'::regclass::oid, 'cron.job'::regclass::oid]
WHERE extname = 'hstore'
"""


def test_a_sequence_that_an_extension_keeps_its_settings_in_stops_no_backup(
    place: Repository, ground: Ground, tmp_path: Path
) -> None:
    """pg_cron numbers its jobs with one."""
    manifest = taken(place, ground.database(_SCHEDULER), tmp_path)
    (sequence,) = manifest.inventory.sequences
    assert (sequence.name, sequence.last_value) == ("cron.s", 1)


def test_a_database_that_is_not_written_in_utf8_is_backed_up_and_restored(
    place: Repository, ground: Ground, tmp_path: Path
) -> None:
    latin = Locale(encoding="LATIN1", provider="libc", collate="C", ctype="C")
    dsn = ground.scratch.database("latin", latin).dsn
    with psycopg.connect(**dsn.keywords(), autocommit=True) as session:
        session.execute("CREATE TABLE \"é\" (i serial, t text DEFAULT 'ü'); INSERT INTO \"é\" (t) VALUES ('ñ'), ('b')")
    manifest = taken(place, dsn, tmp_path)
    record = climbed(place, manifest)
    assert (record.verdict, record.rung) == (Verdict.PASSED, Rung.EQUAL), record.details
