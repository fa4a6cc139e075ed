"""backup.verify: every asked backup is proved or named, newest first, and a run that was stopped goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbooks import verify_backup
from runbooks.backups import ladder
from runbooks.backups.catalog import look_at
from runbooks.backups.prove import store
from runbooks.backups.workspace import MARK
from runbooks.clients.postgres import connect
from runbooks.clients.repository import Repository
from runbooks.clients.world import World
from runbooks.engine.consent import Consenting
from runbooks.engine.plan import Verdict
from runbooks.engine.runner import Engine
from runbooks.engine.runs import Runs
from runbooks.engine.step import Ended
from runbooks.model.backup import Manifest, ProofRecord, Rung, Tier
from runbooks.model.backup import Verdict as Proved
from runbooks.model.dsn import Dsn
from runbooks.model.errors import NotFound, UsageFault
from runbooks.model.policy import Policy, SandboxEnvironment
from runbooks.model.retention import Place
from runbooks.model.run_id import RunId
from runbooks.sandbox.s3 import S3Server
from runbooks.verify_backup import RUNBOOK, Outcome, Proofs, Request
from tests.backups.ground import repository, taken, the_time
from tests.backups.planted import in_archive, planted
from tests.clients.dump_ground import Ground
from tests.engine.toy import Silent
from tests.runbooks.ground import ROOT
from tests.stack import stack_root

RUN = RunId.parse("20251203-143000-k7qx")


@dataclass(frozen=True)
class Desk:
    """Who verifies backups of an environment of her own."""

    where: Repository
    dsn: Dsn
    folder: Path
    home: Path

    def taken(self) -> Manifest:
        return taken(self.where, self.dsn, self.folder)

    @property
    def engine(self) -> Engine:
        return Engine(Runs(self.folder / "runs"), Silent(), lambda: datetime.now(UTC), self.where.environment, "tester")

    def world(self) -> World:
        def no_neon() -> Any:
            raise AssertionError("a proof needs no Neon")

        return World(
            name=self.where.environment, environment=SandboxEnvironment(sandbox=True),
            policy=Policy.load(ROOT / "policy.toml"), operator="tester", now=the_time, open_neon=no_neon,
            connect=connect, open_repository=lambda: self.where,
        )  # fmt: skip

    def verify(self, *, last: int | None = 1, rung: Rung = Rung.DECODED, **how: Any) -> Ended:
        request = Request(**{"backup": None, "last": last, "rung": rung, "place": Place.ARCHIVE} | how)
        return self.engine.start(RUNBOOK, request, self.world(), Consenting("tester"), RUN if how else None)

    def resumed(self, run_id: RunId) -> Ended:
        return self.engine.resume(RUNBOOK, run_id, self.world(), Consenting("tester"))

    def flip(self, manifest: Manifest, s3: S3Server) -> None:
        key = manifest.id.file_key(manifest.files[0].stored_name)
        content = bytearray(self.where.archive.read(key))
        content[-1] ^= 1
        s3.client().put_object(Bucket=s3.bucket, Key=key, Body=bytes(content))

    def measured(self) -> list[tuple[str, float]]:
        return [(one.name, one.value) for one in self.where.metrics.metrics]  # type: ignore[attr-defined]


@pytest.fixture
def desk(
    s3: S3Server, environment: str, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    dsn = ground.database("CREATE TABLE t (i int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 9)")
    with stack_root() as home:
        home.chmod(0o711)
        monkeypatch.setenv("BLOOM_DR_SANDBOX", str(home / "sandbox"))
        yield Desk(repository(s3, environment=environment, local=tmp_path / "copies"), dsn, tmp_path, home)
        assert not list(home.glob(f"{MARK}*")), "readable rows were left behind"


def outcomes(ended: Ended) -> tuple[Outcome, ...]:
    proofs = ended.results["prove"]
    assert isinstance(proofs, Proofs)
    return proofs.outcomes


def test_the_newest_is_proved_to_the_top_and_its_proof_is_kept(desk: Desk) -> None:
    desk.taken()
    manifest = desk.taken()
    ended = desk.verify(rung=Rung.INTEGRAL)
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert [told for _, told in ended.ending.facts] == [f"{manifest.id}: rung 5 (integral), passed"]
    listed = look_at(desk.where, manifest.id)
    assert listed.verified(Rung.INTEGRAL)
    took = (manifest.finished.utc - manifest.started.utc).total_seconds()
    expected = {"VerifiedRung": 5, "VerifyFailure": 0, "BackupSuccess": 1, "BackupSize": manifest.stored_size}
    assert dict(desk.measured()) == expected | {"BackupDuration": took}


def test_a_size_is_compared_with_those_of_older_verified_backups_only(desk: Desk, s3: S3Server) -> None:
    manifest = desk.taken()
    start, environment = manifest.started.utc, desk.where.environment
    others: list[dict[str, Any]] = [
        {"proved": Rung.REREAD}, {"tier": Tier.WEEKLY}, {"failed": Rung.DECODED}, {"half": True}, {"proved": None}
    ]  # fmt: skip
    wishes = [{"times": 1}, {"times": 4, "proved": Rung.INTEGRAL}, {"times": 9}, *({"times": 99} | w for w in others)]
    older = [planted(environment, start - timedelta(days=9 - day), **wish) for day, wish in enumerate(wishes)]
    in_archive(s3, [*older, planted(environment, start + timedelta(seconds=1), times=99)])
    ended = desk.verify(backup=manifest.id, last=None)
    assert ended.ending.verdict is Verdict.PROVED
    usual = older[1].manifest.stored_size
    expected = 100 * abs(manifest.stored_size - usual) / usual
    assert dict(desk.measured())["BackupSizeDeviation"] == pytest.approx(expected)


def test_of_several_one_is_broken_and_the_others_are_proved(desk: Desk, s3: S3Server) -> None:
    oldest, middle, newest = desk.taken(), desk.taken(), desk.taken()
    desk.flip(middle, s3)
    ended = desk.verify(last=7)
    assert ended.ending.verdict is Verdict.FAILED
    assert [(one.backup, one.verdict) for one in outcomes(ended)] == [
        (newest.id, Proved.PASSED), (middle.id, Proved.FAILED), (oldest.id, Proved.PASSED),
    ]  # fmt: skip
    (told,) = ended.ending.left_open
    assert told.startswith(f"{middle.id} is BROKEN beyond rung 0 (uploaded): ")
    assert not look_at(desk.where, middle.id).usable
    assert ("VerifyFailure", 1) in desk.measured()


def test_half_a_backup_among_them_is_named_and_older_ones_are_not(desk: Desk, s3: S3Server) -> None:
    old_half, good, new_half = desk.taken(), desk.taken(), desk.taken()
    for half in (old_half, new_half):
        desk.where.archive.delete(half.id.manifest_key)
    ended = desk.verify()
    assert ended.ending.verdict is Verdict.COULD_NOT_VERIFY
    assert [one.backup for one in outcomes(ended)] == [good.id]
    (told,) = ended.ending.left_open
    assert told.startswith(f"{new_half.id} is half a backup")
    with pytest.raises(NotFound, match="is half a backup"):
        desk.verify(last=None, backup=new_half.id)


def test_one_whose_manifest_cannot_be_read_is_no_pass_and_no_failure(desk: Desk, s3: S3Server) -> None:
    manifest = desk.taken()
    s3.client().put_object(Bucket=s3.bucket, Key=manifest.id.manifest_key, Body=b"{}")
    ended = desk.verify()
    assert ended.ending.verdict is Verdict.COULD_NOT_VERIFY
    assert "its manifest or a proof beside it is not what this program writes" in ended.ending.left_open[0]


def test_a_proof_that_cannot_be_read_is_told_though_the_backup_passes(desk: Desk, s3: S3Server) -> None:
    manifest = desk.taken()
    s3.client().put_object(Bucket=s3.bucket, Key=manifest.id.proof_key(the_time()), Body=b"{}")
    ended = desk.verify()
    assert ended.ending.verdict is Verdict.COULD_NOT_VERIFY
    assert ended.ending.left_open[0].startswith(f"{manifest.id} passed, and yet its manifest or a proof")


def test_a_failure_of_a_higher_rung_is_not_forgotten_by_a_proof_of_a_lower_one(desk: Desk) -> None:
    manifest = desk.taken()
    failed = ProofRecord(
        backup=manifest.id, at=manifest.finished, rung=Rung.RESTORED, verdict=Proved.FAILED, by="t",
        details=("rows are missing",), seconds=1,
    )  # fmt: skip
    store(desk.where, manifest.tier, failed)
    ended = desk.verify()
    assert ended.ending.verdict is Verdict.FAILED
    assert "is known to be broken" in ended.ending.left_open[0]
    assert "rows are missing" in ended.ending.left_open[0]
    assert desk.verify(rung=Rung.EQUAL).ending.verdict is Verdict.PROVED


def test_c18_files_in_cold_storage_are_no_failure_and_the_wait_and_the_command_are_told(
    desk: Desk, s3: S3Server
) -> None:
    manifest = desk.taken()
    for file in manifest.files:
        key = manifest.id.file_key(file.stored_name)
        s3.client().copy_object(
            Bucket=s3.bucket, Key=key, CopySource={"Bucket": s3.bucket, "Key": key}, StorageClass="DEEP_ARCHIVE",
            MetadataDirective="REPLACE",
        )  # fmt: skip
    ended = desk.verify()
    assert ended.ending.verdict is Verdict.COULD_NOT_VERIFY
    told = ended.ending.left_open[0]
    assert "DEEP_ARCHIVE, and a thaw takes up to 12h" in told
    assert f"invoke backup.restore {manifest.id} --to" in told
    assert look_at(desk.where, manifest.id).proofs == ()


def test_a_local_copy_is_proved_beside_itself_and_tells_the_alarms_nothing(desk: Desk) -> None:
    manifest = desk.taken()
    ended = desk.verify(place=Place.LOCAL)
    assert ended.ending.verdict is Verdict.PROVED
    assert look_at(desk.where, manifest.id, Place.LOCAL).verified(Rung.DECODED)
    assert look_at(desk.where, manifest.id).proofs == ()
    assert desk.measured() == []


def test_without_a_private_key_the_run_is_no_pass(desk: Desk) -> None:
    manifest = desk.taken()
    ended = replace(desk, where=replace(desk.where, open_keys=lambda _: None)).verify()
    assert ended.ending.verdict is Verdict.COULD_NOT_VERIFY
    assert "no private key" in ended.ending.left_open[0]
    assert look_at(desk.where, manifest.id).standing.rung is Rung.REREAD


def test_c35_a_stopped_run_goes_on_with_what_is_not_proved_yet(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = desk.taken(), desk.taken()
    climb = ladder.climb

    def stopped(repository: Repository, manifest: Manifest, **how: Any) -> Any:
        if manifest.id == older.id:
            raise KeyboardInterrupt
        return climb(repository, manifest, **how)

    monkeypatch.setattr(verify_backup, "climb", stopped)
    with pytest.raises(KeyboardInterrupt):
        desk.verify(last=2, place=Place.ARCHIVE)
    monkeypatch.undo()
    monkeypatch.setenv("BLOOM_DR_SANDBOX", str(desk.home / "sandbox"))
    ended = desk.resumed(RUN)
    assert ended.ending.verdict is Verdict.PROVED
    assert [len(look_at(desk.where, one.id).proofs) for one in (newer, older)] == [1, 1]


def test_a_proof_that_is_gone_when_the_run_goes_on_is_made_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = desk.taken()

    def stopped(_: Any) -> Any:
        raise KeyboardInterrupt

    steps = tuple(replace(step, run=stopped) if step is verify_backup.MEASURE else step for step in RUNBOOK.steps)
    request = Request(backup=manifest.id, last=None, rung=Rung.REREAD, place=Place.ARCHIVE)
    with pytest.raises(KeyboardInterrupt):
        desk.engine.start(replace(RUNBOOK, steps=steps), request, desk.world(), Consenting("t"), RUN)
    (proof,) = look_at(desk.where, manifest.id).proofs
    desk.where.archive.delete(proof.key)
    ended = desk.resumed(RUN)
    assert ended.ending.verdict is Verdict.PROVED
    assert [each.key for each in look_at(desk.where, manifest.id).proofs] == list(outcomes(ended)[0].proofs)


def test_nothing_there_is_no_success(desk: Desk) -> None:
    with pytest.raises(NotFound, match="there is no whole backup in bucket"):
        desk.verify(last=7)


def test_a_backup_of_another_environment_is_refused_with_the_command_that_proves_it(desk: Desk) -> None:
    manifest = desk.taken()
    other = replace(desk, where=replace(desk.where, environment="other"))
    with pytest.raises(UsageFault, match="and this is other") as refused:
        other.verify(last=None, backup=manifest.id)
    assert refused.value.next_step == f"invoke backup.verify --id {manifest.id} --env {manifest.environment}"


@pytest.mark.parametrize(
    "given",
    [{}, {"latest": True, "last": "2"}, {"last": "0"}, {"last": "two"}, {"latest": True, "rung": "6"},
     {"latest": True, "rung": "0"}, {"backup": "../manifest"}, {"backup": "p/2025/12/x", "latest": True}],
)  # fmt: skip
def test_what_is_not_one_clear_wish_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageFault):
        Request.parse(**{"backup": "", "latest": False, "last": "", "rung": "", "local": False} | given)


def test_the_top_rung_is_the_default() -> None:
    wish = Request.parse("", latest=True, last="", rung="", local=True)
    assert wish == Request(backup=None, last=1, rung=Rung.INTEGRAL, place=Place.LOCAL)
