"""The corpus: every way to damage a backup is caught at its rung, the original passes, and nobody uses the copy."""

# ruff: noqa: F811 - pytest gives fixtures by their names
from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.backups import ladder
from runbooks.backups.catalog import catalog, look_at, opening
from runbooks.backups.damage import CAUGHT_AT, How, damage, remove
from runbooks.backups.ladder import climb
from runbooks.backups.prove import prove_by_reading, store
from runbooks.backups.workspace import workspace
from runbooks.clients.postgres import connect
from runbooks.clients.repository import Repository
from runbooks.clients.world import World
from runbooks.model.backup import Manifest, ProofRecord, Rung, Verdict
from runbooks.model.backup_id import BackupId
from runbooks.model.errors import CouldNotVerify, LocalFault, NotFound, ProofFailed, Refused, UsageFault
from runbooks.model.policy import Environment, NeonEnvironment, Policy, SandboxEnvironment
from runbooks.model.retention import Place
from runbooks.report import damage as report
from runbooks.report.answer import Answer
from runbooks.report.damage import broken
from runbooks.sandbox.s3 import S3Server
from tests.backups.ground import PAIR, policy, read_again, repository, taken, the_time
from tests.backups.test_ladder import quick, root  # noqa: F401 - fixtures
from tests.clients.dump_ground import Ground
from tests.runbooks.ground import ROOT

SANDBOX = SandboxEnvironment(sandbox=True)
NEON = NeonEnvironment.model_validate(
    {"project": "quiet-lake-12345678", "database": "neondb", "role": "owner", "promised_window": "7d"}
)
TINY = """
CREATE TABLE p (i int PRIMARY KEY); INSERT INTO p SELECT generate_series(1, 9);
CREATE TABLE c (i int PRIMARY KEY, p int REFERENCES p); INSERT INTO c SELECT i, i FROM generate_series(1, 9) AS i;
"""
SMALL = '''
CREATE SCHEMA "Big, Shop";
CREATE TABLE "Big, Shop"."a ""p""" (note text, "the, key" int, also int, PRIMARY KEY (also, "the, key"));
INSERT INTO "Big, Shop"."a ""p""" SELECT repeat(E'tab\\t', i % 3), i, -i FROM generate_series(1, 50) AS i;
CREATE TABLE c (i int PRIMARY KEY, b int, a int, g int GENERATED ALWAYS AS (a + b) STORED,
  FOREIGN KEY (a, b) REFERENCES "Big, Shop"."a ""p""" ("the, key", also));
INSERT INTO c SELECT i, -i, CASE WHEN i > 5 THEN i END FROM generate_series(1, 50) AS i;
CREATE TABLE parted (i int PRIMARY KEY) PARTITION BY LIST (i);
CREATE TABLE part PARTITION OF parted FOR VALUES IN (7); INSERT INTO parted VALUES (7);
CREATE TABLE of_part (i int REFERENCES parted); INSERT INTO of_part VALUES (7);
CREATE TABLE empty (i int);
'''


@dataclass(frozen=True)
class Whole:
    where: Repository
    manifest: Manifest
    root: Path

    def climbed(self, manifest: Manifest) -> ProofRecord:
        """To the top; the last record, with all of them stored."""
        with workspace(self.root) as folder:
            records = climb(
                self.where, manifest, up_to=Rung.INTEGRAL, opener=PAIR.opener(), place=Place.ARCHIVE, workspace=folder,
                by="test", clock=the_time,
            )  # fmt: skip
        return [store(self.where, manifest.tier, record) for record in records][-1]

    def damaged(self, how: How, at: datetime | None = None) -> BackupId:
        at = at or self.manifest.started.utc + timedelta(days=1 + [*How].index(how))
        told: list[str] = []
        copy = damage(self.where, self.manifest, how, opener=PAIR.opener(), at=at, tell=told.append)
        assert len(told) == 1
        assert copy == BackupId.new(self.where.environment, at)
        return copy

    def stored(self, backup: BackupId) -> dict[str, bytes]:
        """Without the proofs."""
        archive = self.where.archive
        keys = [each.key.removeprefix(backup.prefix) for each in archive.objects(backup.prefix)]
        return {key: archive.open(backup.prefix + key).read() for key in keys if not key.startswith("proof-")}


def whole_backup(s3: S3Server, ground: Ground, sql: str, environment: str, root: Path, place: Path) -> Whole:
    where = repository(s3, environment=environment, endpoint=s3.endpoint)
    return Whole(where, taken(where, ground.database(sql), place), root)


@pytest.fixture(scope="module")
def whole(s3: S3Server, ground: Ground, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return whole_backup(s3, ground, SMALL, "whole", root, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("how", How)
def test_each_damage_is_caught_at_its_rung_and_the_original_reaches_the_top(
    whole: Whole, quick: None, how: How
) -> None:
    before = whole.stored(whole.manifest.id)
    copy = whole.damaged(how)
    manifest = Manifest.from_bytes(whole.where.archive.read(copy.manifest_key))

    caught = whole.climbed(manifest)
    assert (caught.verdict, caught.rung) == (Verdict.FAILED, CAUGHT_AT[how]), caught.details
    assert not look_at(whole.where, copy).usable

    assert whole.stored(whole.manifest.id) == before
    passed = whole.climbed(whole.manifest)
    assert (passed.verdict, passed.rung) == (Verdict.PASSED, Rung.INTEGRAL), passed.details
    assert catalog(whole.where).newest(lambda one: one.verified(Rung.REREAD)) == look_at(whole.where, whole.manifest.id)


# --- the command ---------------------------------------------------------------------------------------------------


def world(where: Repository, environment: Environment = SANDBOX) -> World:
    def no_neon() -> Any:
        raise AssertionError("nothing of this needs Neon")

    return World(
        name=where.environment, environment=environment, policy=Policy.load(ROOT / "policy.toml"), operator="tester",
        now=the_time, open_neon=no_neon, connect=connect, open_repository=lambda: where,
    )  # fmt: skip


@pytest.fixture
def own(
    s3: S3Server, environment: str, ground: Ground, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> Whole:  # fmt: skip
    """A backup that a test may add copies to."""
    monkeypatch.setenv("BLOOM_DR_SANDBOX", str(root / "sandbox"))
    return whole_backup(s3, ground, TINY, environment, root, tmp_path)


def broke(own: Whole, how: How) -> Answer:
    return broken(world(own.where), own.manifest.id, how, tell=lambda text: None)


def ids(own: Whole) -> list[BackupId]:
    return [one.id for one in catalog(own.where).backups]


def test_the_command_tells_the_rung_with_its_words_and_nobody_takes_the_copy(own: Whole, quick: None) -> None:
    answer = broke(own, How.LOST_ROWS)
    assert (answer.exit_code, answer.data["caught_at"], answer.data["how"]) == (0, 3, "lost-rows")
    assert answer.data["damage"] == ["public.p lacks a row that public.c points to"]
    for told in (answer.text, "\n".join(answer.data["details"])):
        assert "violates foreign key constraint" in told
        assert "table public.p: 9 rows expected, 8 rows found" in told
    copy = look_at(own.where, BackupId.parse(answer.data["copy"]))
    assert (copy.usable, copy.proofs[-1].key) == (False, answer.data["proof"])
    assert look_at(own.where, own.manifest.id).proofs == ()


def test_damage_that_is_not_caught_is_a_failure_and_leaves_no_copy(
    own: Whole,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ladder is made blind for what a restore lost; it is blamed, and what nobody marked as broken is gone."""
    monkeypatch.setattr(ladder, "compare", lambda *_: ())
    with pytest.raises(ProofFailed, match=r"public\.c is left without its rows: that was not caught, and rung 4"):
        broke(own, How.TRUNCATE_TABLE)
    assert ids(own) == [own.manifest.id]


def test_damage_that_is_caught_at_another_rung_is_a_failure(own: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "CAUGHT_AT", {How.FLIP: Rung.REREAD})
    with pytest.raises(ProofFailed, match=r"caught at rung 1 \(reread\), and rung 2 \(decoded\) has to catch it"):
        broke(own, How.FLIP)
    assert ids(own) == [own.manifest.id]


def test_a_machine_that_cannot_tell_is_no_catch_and_leaves_no_copy(own: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, *, major: int, place: Path) -> None: ...

        def __enter__(self) -> Full:
            raise LocalFault("no room", safe="nothing", next_step="make room")

        def close(self) -> None: ...

    monkeypatch.setattr(ladder, "Scratch", Full)
    with pytest.raises(CouldNotVerify, match="no room"):
        broke(own, How.TRUNCATE_TABLE)
    assert ids(own) == [own.manifest.id]


def test_a_proof_that_cannot_be_kept_leaves_no_copy(own: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "store", interrupted)
    with pytest.raises(KeyboardInterrupt):
        broke(own, How.FLIP)
    assert ids(own) == [own.manifest.id]


# --- what is refused -----------------------------------------------------------------------------------------------


def test_an_environment_that_is_no_sandbox_is_refused_even_with_a_local_bucket(whole: Whole) -> None:
    with pytest.raises(Refused, match="whole is no sandbox"):
        broken(world(whole.where, NEON), whole.manifest.id, How.FLIP, tell=lambda text: None)


@pytest.mark.parametrize("endpoint", [None, "https://storage.example.com"])
def test_a_bucket_that_is_not_on_this_machine_is_refused(whole: Whole, endpoint: str | None) -> None:
    elsewhere = replace(whole, where=replace(whole.where, policy=policy(endpoint=endpoint)))
    for act in (lambda: elsewhere.damaged(How.FLIP), lambda: remove(elsewhere.where, whole.manifest.id)):
        with pytest.raises(Refused, match="is not on this machine"):
            act()
    assert look_at(whole.where, whole.manifest.id).usable


def test_an_id_that_is_taken_and_a_backup_that_is_broken_are_refused(own: Whole) -> None:
    with pytest.raises(Refused, match="already something"):
        own.damaged(How.FLIP, own.manifest.started.utc)
    flipped = own.damaged(How.FLIP)
    own.climbed(Manifest.from_bytes(own.where.archive.read(flipped.manifest_key)))
    with pytest.raises(Refused, match="broken or not whole already"):
        broken(world(own.where), flipped, How.CUT, tell=lambda text: None)


def test_an_original_that_is_damaged_is_told_and_nothing_is_stored(own: Whole) -> None:
    flipped = own.damaged(How.FLIP)
    manifest = Manifest.from_bytes(own.where.archive.read(flipped.manifest_key))
    with pytest.raises(Refused, match=f"of {flipped} is damaged already"):
        replace(own, manifest=manifest).damaged(How.CUT)
    assert ids(own) == [own.manifest.id, flipped]
    remove(own.where, flipped)
    remove(own.where, flipped)
    assert ids(own) == [own.manifest.id]


@pytest.mark.parametrize(
    ("how", "sql", "told"),
    [
        (How.LOST_ROWS, "CREATE TABLE p (i int PRIMARY KEY, p int REFERENCES p); INSERT INTO p VALUES (1, 1)", "key"),
        (
            How.LOST_ROWS,
            "CREATE TABLE p (i int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p);"
            "INSERT INTO p VALUES (1); INSERT INTO c VALUES (NULL)",
            "foreign key between two tables",
        ),
        (How.TRUNCATE_TABLE, "CREATE TABLE e (i int)", "a table with rows"),
    ],
)
def test_a_database_without_a_table_to_damage_is_told(
    s3: S3Server,
    environment: str,
    ground: Ground,
    root: Path,
    tmp_path: Path,
    how: How,
    sql: str,
    told: str,
) -> None:
    own = whole_backup(s3, ground, sql, environment, root, tmp_path)
    with pytest.raises(NotFound, match=told):
        own.damaged(how)
    assert ids(own) == [own.manifest.id]


def test_an_unknown_way_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UsageFault, match="'crush' is no way") as refused:
        How.parse("crush")
    assert refused.value.next_step.count(",") == len(How) - 1
    assert {*CAUGHT_AT} == {*How}


# --- any bit -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proved(s3: S3Server, ground: Ground, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    found = whole_backup(s3, ground, TINY, "proved", root, tmp_path_factory.mktemp("proved"))
    assert read_again(found.where, found.manifest).rung is Rung.DECODED
    return found


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_no_bit_of_a_backup_can_change_unnoticed(s3: S3Server, proved: Whole, data: st.DataObject) -> None:
    """As a disk does it: what was noted beside the object stays. Of files, manifest and proof."""
    client, where = s3.client(), proved.where
    key = data.draw(st.sampled_from([each.key for each in where.archive.objects(proved.manifest.id.prefix)]))
    found = client.get_object(Bucket=s3.bucket, Key=key)
    good, noted = found["Body"].read(), found["Metadata"]
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    spoiled = client.put_object(Bucket=s3.bucket, Key=key, Body=bytes(bad), Metadata=noted)
    try:
        assert noticed(proved), f"bit {bit} of {key}"
    finally:
        client.delete_object(Bucket=s3.bucket, Key=key, VersionId=spoiled["VersionId"])
    assert not noticed(proved)


def noticed(backup: Whole) -> bool:
    listed = look_at(backup.where, backup.manifest.id)
    if not listed.usable or listed.manifest is None:
        return True
    stored = opening(backup.where, listed.id, Place.ARCHIVE)
    record = prove_by_reading(stored, listed.manifest, PAIR.opener(), by="test", clock=the_time)
    return (record.verdict, record.rung) != (Verdict.PASSED, Rung.DECODED)
