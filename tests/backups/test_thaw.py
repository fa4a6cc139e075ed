"""C18: a backup in Glacier. Asked for once, told how long it takes, and nothing in the target is touched before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from moto.server import ThreadedMotoServer

from runbooks.backups import thaw
from runbooks.clients.archive import Archive
from runbooks.clients.archive_client import open_client
from runbooks.clients.repository import Repository
from runbooks.engine.consent import Consenting
from runbooks.engine.plan import Verdict
from runbooks.model.backup import Manifest
from runbooks.model.dsn import Dsn
from runbooks.model.errors import ConsentNeeded, StillCold, WrongTarget
from runbooks.model.secret import Secret
from tests.backups.ground import PAIR, START, Sent, policy, read_again, taken, the_time
from tests.backups.restoring import Desk, holds
from tests.clients.dump_ground import Ground
from tests.clients.dump_ground import ground as ground

REGION = "us-east-1"


@dataclass
class Glacier:
    """moto: the one S3 of our tests that has cold storage. A thaw takes as long as the test wants."""

    endpoint: str
    bucket: str
    asked: list[str]

    def client(self) -> Any:
        client = open_client(region=REGION, endpoint=self.endpoint, access_key="A", secret_key=Secret("B"))
        client.meta.events.register("before-call.s3.RestoreObject", lambda params, **_: self._asked(params))
        return client

    def _asked(self, params: Any) -> None:
        self.asked.append(params["url_path"].rpartition("/")[2].removesuffix("?restore"))

    def cool(self, manifest: Manifest, storage_class: str, names: set[str] | None = None) -> None:
        """As the bucket's lifecycle rule does: files of data only."""
        client = self.client()
        for file in manifest.files:
            key = manifest.id.file_key(file.stored_name)
            if names is None or file.name in names:
                client.copy_object(
                    Bucket=self.bucket, Key=key, CopySource=f"{self.bucket}/{key}", StorageClass=storage_class,
                    TaggingDirective="REPLACE",  # moto, unlike S3, does not tell the tags of a cold object
                )  # fmt: skip

    def under_way(self, manifest: Manifest, count: int | None = None) -> None:
        """The thaw that was asked for has begun, and takes its time."""
        self._looks(1)
        for file in manifest.files[:count]:
            assert self._restore(manifest, file.stored_name) == 'ongoing-request="true"'
        self._looks(10_000)

    def over(self, manifest: Manifest) -> None:
        """As hours later."""
        self._looks(1)
        for file in manifest.files:
            assert self._restore(manifest, file.stored_name).startswith('ongoing-request="false"')

    def _restore(self, manifest: Manifest, name: str) -> str:
        head = self.client().head_object(Bucket=self.bucket, Key=manifest.id.file_key(name))
        return str(head.get("Restore", ""))

    def _looks(self, times: int) -> None:
        """moto goes from asked to under way to over, each time after so many looks."""
        httpx.post(
            f"{self.endpoint}/moto-api/state-manager/set-transition",
            json={"model_name": "s3::keyrestore", "transition": {"progression": "manual", "times": times}},
        ).raise_for_status()

    def at_once(self) -> None:
        httpx.post(
            f"{self.endpoint}/moto-api/state-manager/set-transition",
            json={"model_name": "s3::keyrestore", "transition": {"progression": "immediate"}},
        ).raise_for_status()


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def glacier(moto: str, environment: str) -> Glacier:
    bucket = f"glacier-{environment}"
    found = Glacier(moto, bucket, [])
    found.client().create_bucket(Bucket=bucket)
    found.at_once()
    return found


@pytest.fixture
def cold_desk(desk: Desk, glacier: Glacier, environment: str) -> Desk:
    archive = Archive(  # moto computes no checksums
        glacier.bucket, region=REGION, endpoint=glacier.endpoint, clock=the_time, client=glacier.client,
        checksums="supported",
    )  # fmt: skip
    desk.place = Repository(environment, policy(), archive, None, Sent(), lambda _: PAIR.opener())
    return desk


@pytest.fixture(scope="module")
def source(ground: Ground) -> Dsn:
    return ground.database(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 20); CREATE TABLE u (id int)"
    )


@pytest.mark.parametrize(("storage_class", "takes"), [("GLACIER", "5h"), ("DEEP_ARCHIVE", "12h")])
def test_c18_a_cold_backup_is_asked_for_once_and_restored_when_it_is_there(
    cold_desk: Desk, glacier: Glacier, source: Dsn, tmp_path: Path, storage_class: str, takes: str
) -> None:
    manifest = taken(cold_desk.place, source, tmp_path)
    glacier.cool(manifest, storage_class)
    target = cold_desk.target()
    plan = cold_desk.plan(manifest.id)
    assert plan.confirmation() == f"thaw/{str(manifest.id).rpartition('/')[2]}/{len(manifest.files)}"
    assert f"up to {takes}" in dict(plan.preview().facts)["takes"]
    assert not glacier.asked, "a preview costs nothing"
    with pytest.raises(StillCold, match=f"are being thawed; that takes up to {takes}") as told:
        cold_desk.resume(consenting=Consenting("tester", value=plan.confirmation()))
    assert f"invoke backup.restore {manifest.id} --to rds" in told.value.next_step
    assert sorted(glacier.asked) == sorted(file.stored_name for file in manifest.files)
    glacier.under_way(manifest)
    for again in (cold_desk.resume, lambda: cold_desk.restore(manifest.id)):
        with pytest.raises(StillCold):
            again()
    assert len(glacier.asked) == len(manifest.files), "it was asked for twice"
    assert holds(target) == ()
    glacier.over(manifest)
    with pytest.raises(ConsentNeeded, match="consent to their thaw only"):
        cold_desk.resume(cold_desk.started[0])
    assert holds(target) == ()
    ended = cold_desk.restore(manifest.id)
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert len(glacier.asked) == len(manifest.files)


def test_c18_a_class_that_is_readable_at_once_needs_no_thaw(
    cold_desk: Desk, glacier: Glacier, source: Dsn, tmp_path: Path
) -> None:
    manifest = taken(cold_desk.place, source, tmp_path)
    glacier.cool(manifest, "GLACIER_IR")
    cold_desk.target()
    assert cold_desk.restore(manifest.id).ending.verdict is Verdict.PROVED
    assert not glacier.asked


def test_c18_of_a_half_thawed_backup_only_the_rest_is_asked_for(
    cold_desk: Desk, glacier: Glacier, source: Dsn, tmp_path: Path
) -> None:
    manifest = taken(cold_desk.place, source, tmp_path)
    glacier.cool(manifest, "GLACIER")
    first = manifest.files[0]
    cold_desk.place.archive.thaw(manifest.id.file_key(first.stored_name), thaw.DAYS)
    glacier.under_way(manifest, 1)
    cold_desk.target()
    plan = cold_desk.plan(manifest.id)
    assert str(plan.confirmation()).endswith(f"/{len(manifest.files) - 1}")
    with pytest.raises(StillCold):
        cold_desk.resume(consenting=Consenting("tester", value=plan.confirmation()))
    assert sorted(glacier.asked) == sorted(file.stored_name for file in manifest.files)


def test_c18_single_tables_thaw_their_own_files_only(
    cold_desk: Desk, glacier: Glacier, source: Dsn, tmp_path: Path
) -> None:
    manifest = taken(cold_desk.place, source, tmp_path)
    glacier.cool(manifest, "GLACIER")
    target = cold_desk.target()
    with pytest.raises(StillCold):
        cold_desk.restore(manifest.id, tables=("t",))
    assert len(glacier.asked) == 2
    ended = cold_desk.restore(manifest.id, tables=("t",))
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert holds(target) == ("table public.t",)


def test_c18_consent_to_a_restore_is_no_consent_to_a_thaw(
    cold_desk: Desk, glacier: Glacier, source: Dsn, tmp_path: Path
) -> None:
    manifest = taken(cold_desk.place, source, tmp_path)
    target = cold_desk.target()
    value = cold_desk.plan(manifest.id).confirmation()
    glacier.cool(manifest, "GLACIER")
    with pytest.raises(WrongTarget):
        cold_desk.restore(manifest.id, consenting=Consenting("tester", value=value))
    assert not glacier.asked
    assert holds(target) == ()


def test_c18_a_wrong_target_is_told_before_anybody_pays_for_a_thaw(
    cold_desk: Desk, glacier: Glacier, source: Dsn, tmp_path: Path
) -> None:
    manifest = taken(cold_desk.place, source, tmp_path)
    glacier.cool(manifest, "DEEP_ARCHIVE")
    cold_desk.name(cold_desk.facts.dsn())
    with pytest.raises(WrongTarget):
        cold_desk.restore(manifest.id)
    assert not glacier.asked


def test_c18_latest_prefers_a_readable_backup_and_says_what_is_lost_by_it(
    cold_desk: Desk, glacier: Glacier, source: Dsn, tmp_path: Path
) -> None:
    older, newer = (taken(cold_desk.place, source, tmp_path, at=START + timedelta(days=day)) for day in (0, 2))
    for one in (older, newer):
        read_again(cold_desk.place, one)
    glacier.cool(newer, "DEEP_ARCHIVE")
    cold_desk.target()
    plan = cold_desk.plan("latest")
    assert plan.about.source.key == str(older.id)
    assert any(
        f"passed over: {newer.id}, 2d newer, lies in DEEP_ARCHIVE, where a thaw takes up to 12h" in text
        for text in plan.preview().warnings
    )
    glacier.cool(older, "GLACIER")
    assert cold_desk.plan("latest").thaws
