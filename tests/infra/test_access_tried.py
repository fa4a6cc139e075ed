"""Who may do what, tried with single requests: some of ours, and all that the runbooks' own code makes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from infra.rights import BACKUPS, DRILLS, PROBES, PROOFS
from runbooks.backups.catalog import look_at
from runbooks.backups.thaw import ask
from runbooks.clients.archive import PROBE
from runbooks.clients.repository import Repository
from runbooks.model.aws_names import Identity
from runbooks.model.backup import Manifest, Tier
from runbooks.model.backup_id import BackupId
from runbooks.model.drill import drills_prefix
from runbooks.model.errors import ArchiveFault
from tests.backups.ground import read_again, taken, the_time
from tests.clients.dump_ground import Ground, ground  # noqa: F401
from tests.infra.applying import Stack
from tests.infra.archive_ground import (
    BUCKET,
    LOCKED,
    REPLICA,
    backup_policy,
    client_of_runbooks,
    lenient,
    repository_in,
    standing,
)
from tests.infra.cloud import Cloud
from tests.infra.identities import DATA, KEY, LOG, OWN, PROOF, REPORT, THE_BUCKET, World, seen
from tests.infra.judge import like

WRITER, VERIFIER, PRUNER = Identity.WRITER, Identity.VERIFIER, Identity.PRUNER
RESTORER, DRILL, AUDITS = Identity.RESTORER, Identity.DRILL, Identity.AUDITOR


@pytest.fixture(scope="module")
def account(_account: Cloud) -> Cloud:
    """All tests here share one."""
    _account.reset()
    return _account


@pytest.fixture(scope="module")
def stack(account: Cloud) -> Stack:
    return standing(account, backup=backup_policy(tiers=LOCKED))


@pytest.fixture(scope="module")
def world(account: Cloud, stack: Stack) -> World:
    return seen(account, stack)


# --- tried: some concrete requests, by other means ------------------------------------------------------------------


ALGORITHM, LOCK = "s3:x-amz-server-side-encryption", "s3:object-lock-remaining-retention-days"


@pytest.mark.parametrize(
    ("identity", "action", "resource", "context", "right"),
    [
        (WRITER, "s3:PutObject", DATA, {}, True),
        (WRITER, "s3:PutObject", f"{OWN}/.bloom-dr-probe-0123456789abcdef", {}, True),
        (WRITER, "s3:PutObject", f"{OWN}/2025/12/notes.txt", {}, False),
        (WRITER, "s3:PutObject", DATA.replace("production", "staging"), {}, False),
        (WRITER, "s3:PutObject", DATA, {ALGORITHM: "AES256"}, False),
        (WRITER, "s3:PutObject", DATA, {ALGORITHM: "aws:kms"}, True),
        (WRITER, "s3:DeleteObject", DATA, {}, False),
        (WRITER, "s3:DeleteObjectVersion", DATA, {}, False),
        (WRITER, "s3:PutObjectRetention", DATA, {LOCK: "30"}, True),
        (WRITER, "s3:PutObjectRetention", DATA, {LOCK: "36500"}, False),
        (WRITER, "s3:BypassGovernanceRetention", DATA, {}, False),
        (VERIFIER, "s3:GetObject", DATA, {}, True),
        (VERIFIER, "s3:PutObject", PROOF, {}, True),
        (VERIFIER, "s3:PutObject", DATA, {}, False),
        (VERIFIER, "s3:PutObject", PROOF.rpartition("/")[0] + "/manifest.json", {}, False),
        (PRUNER, "s3:DeleteObjectVersion", DATA, {}, True),
        (PRUNER, "s3:BypassGovernanceRetention", DATA, {}, False),
        (PRUNER, "s3:PutObject", DATA, {}, False),
        (RESTORER, "s3:RestoreObject", DATA, {}, True),
        (RESTORER, "s3:GetObject", DATA.replace(BUCKET, REPLICA), {}, True),
        (RESTORER, "s3:DeleteObjectVersion", DATA, {}, False),
        (DRILL, "s3:PutObject", REPORT, {}, True),
        (DRILL, "s3:PutObject", DATA, {}, False),
        (AUDITS, "s3:GetObject", LOG, {}, True),
        (AUDITS, "s3:PutObject", LOG, {}, False),
    ],
)
def test_concrete_requests(
    world: World, identity: Identity, action: str, resource: str, context: dict[str, str], right: bool
) -> None:
    assert world.may(identity, action, resource, context) is right


# --- what the runbooks' own code asks for ---------------------------------------------------------------------------


NEEDED = {
    "PutObject": ["s3:PutObject", "kms:GenerateDataKey"],
    "CreateMultipartUpload": ["s3:PutObject", "kms:GenerateDataKey"],
    "UploadPart": ["s3:PutObject", "kms:GenerateDataKey", "kms:Decrypt"],
    "CompleteMultipartUpload": ["s3:PutObject", "kms:Decrypt"],
    "AbortMultipartUpload": ["s3:AbortMultipartUpload"],
    "GetObject": ["s3:GetObject", "kms:Decrypt"],
    "HeadObject": ["s3:GetObject", "kms:Decrypt"],  # asked for the checksum, S3 opens a sealed object
    "GetObjectTagging": ["s3:GetObjectTagging"],
    "RestoreObject": ["s3:RestoreObject"],
    "DeleteObject": ["s3:DeleteObject"],
    "ListObjectsV2": ["s3:ListBucket"],
    "HeadBucket": ["s3:ListBucket"],
    "ListObjectVersions": ["s3:ListBucketVersions"],
    "ListMultipartUploads": ["s3:ListBucketMultipartUploads"],
    "GetBucketVersioning": ["s3:GetBucketVersioning"],
    "GetObjectLockConfiguration": ["s3:GetBucketObjectLockConfiguration"],
    "GetBucketEncryption": ["s3:GetEncryptionConfiguration"],
    "GetPublicAccessBlock": ["s3:GetBucketPublicAccessBlock"],
}
"""What AWS asks for, for each operation of S3's API. With a version's id it asks for the same action on versions."""
BESIDE = {"Tagging": "s3:PutObjectTagging", "ObjectLockMode": "s3:PutObjectRetention"}


def refused(world: World, identity: Identity, calls: list[tuple[str, dict[str, Any]]]) -> set[str]:
    """Which of these calls the identity could not have made."""
    found = set()
    for operation, params in calls:
        place = THE_BUCKET + (f"/{params['Key']}" if "Key" in params else "")
        actions = [*NEEDED[operation], *(action for name, action in BESIDE.items() if name in params)]
        for action in actions:
            versioned = "VersionId" in params and action in ("s3:GetObject", "s3:DeleteObject")
            asked = f"{action}Version" if versioned else action
            if not world.may(identity, asked, KEY if action.startswith("kms:") else place):
                found.add(f"{asked} {'probe' if PROBE in place else place}")
    return found


@pytest.fixture
def calls() -> list[tuple[str, dict[str, Any]]]:
    return []


@pytest.fixture
def repository(account: Cloud, calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Each call that it makes is noted in `calls`."""
    lenient(monkeypatch)
    client = client_of_runbooks(account)
    note = lambda params, model, **_: calls.append((model.name, dict(params)))  # noqa: E731
    client.meta.events.register("before-parameter-build.s3", note)
    return repository_in(account, lambda: client)


@pytest.fixture(scope="module")
def weekly(account: Cloud, stack: Stack, ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Manifest:  # noqa: F811
    """A backup that lies there, not locked."""
    with pytest.MonkeyPatch.context() as patch:
        lenient(patch)
        plain = repository_in(account, lambda: client_of_runbooks(account))
        dsn = ground.database("CREATE TABLE clients (id int)")
        at = the_time().utc - timedelta(minutes=5)
        manifest = taken(plain, dsn, tmp_path_factory.mktemp("weekly"), tier=Tier.WEEKLY, at=at)
        read_again(plain, manifest)
        return manifest


def test_the_writer_may_do_all_that_taking_and_proving_a_backup_asks_for(
    world: World,
    repository: Repository,
    calls: list[Any],
    ground: Ground,  # noqa: F811
    tmp_path: Path,
) -> None:
    repository.archive.posture()
    manifest = taken(repository, ground.database("CREATE TABLE clients (id int)"), tmp_path, at=the_time().utc)
    read_again(repository, manifest)
    large, tags = bytes(17 * 1024 * 1024), repository.tags(Tier.WEEKLY, "data")
    key = manifest.id.file_key("1.dat.age")
    with pytest.raises(ArchiveFault, match="not in the archive as it was sent"):  # moto's sum of parts is not S3's
        repository.archive.put(key, large, tags=tags, storage_class="STANDARD")
    assert {"PutObject", "CreateMultipartUpload", "ListMultipartUploads", "HeadBucket"} <= {name for name, _ in calls}
    # Its probe stays: it has the tags of the first file, and ends with it. So does what arrived otherwise than sent.
    assert refused(world, WRITER, calls) == {
        "s3:DeleteObjectVersion probe", f"s3:DeleteObjectVersion {THE_BUCKET}/{key}"
    }  # fmt: skip


def test_the_verifier_may_do_all_that_a_proof_asks_for(
    world: World, repository: Repository, calls: list[Any], weekly: Manifest
) -> None:
    assert look_at(repository, weekly.id).usable
    read_again(repository, weekly)
    assert refused(world, VERIFIER, calls) == {"s3:DeleteObjectVersion probe"}


def test_the_restorer_may_do_all_that_reading_and_thawing_ask_for(
    world: World, repository: Repository, calls: list[Any], weekly: Manifest, account: Cloud
) -> None:
    cold = f"{weekly.id.prefix}cold.dat.age"
    account.client("s3").put_object(Bucket=BUCKET, Key=cold, Body=b"x", StorageClass="GLACIER")
    try:
        assert look_at(repository, weekly.id).manifest == weekly
        ask(repository, [cold], lambda text: None)
        with repository.archive.open(weekly.id.manifest_key) as stream:
            stream.read()
    finally:
        account.client("s3").delete_object(Bucket=BUCKET, Key=cold)
    assert "RestoreObject" in {name for name, _ in calls}
    assert refused(world, RESTORER, calls) == set()


def test_the_drill_may_do_all_that_a_report_asks_for(world: World, repository: Repository, calls: list[Any]) -> None:
    home = drills_prefix("production")
    tags = {"environment": "production", "part": "report"}
    repository.archive.put(f"{home}x/drill.json", b"{}", tags=tags, storage_class="STANDARD", home=home)
    list(repository.archive.objects(home))
    assert refused(world, DRILL, calls) == {"s3:DeleteObjectVersion probe"}


def test_the_pruner_may_do_all_that_removing_a_backup_asks_for(
    world: World, repository: Repository, calls: list[Any], weekly: Manifest
) -> None:
    """The last of those that use the backup."""
    assert look_at(repository, weekly.id).usable
    for each in list(repository.archive.objects(weekly.id.prefix)):
        repository.archive.require_unlocked(each.key)
        repository.archive.delete(each.key)
    assert {"ListObjectVersions", "DeleteObject"} <= {name for name, _ in calls}
    assert refused(world, PRUNER, calls) == set()
    assert "s3:DeleteObjectVersion" in " ".join(refused(world, RESTORER, calls)), "of another it would be seen"


# --- names ----------------------------------------------------------------------------------------------------------


@given(some.datetimes(timezones=some.just(UTC)))
def test_the_patterns_fit_what_the_runbooks_call_their_objects(started: datetime) -> None:
    backup = BackupId.new("production", started)
    for key in (backup.manifest_key, backup.file_key("toc.dat.age"), f"{backup}.sql.gz"):
        assert like(BACKUPS, key)
        assert not like(PROOFS, key)
    assert like(PROOFS, backup.proof_key(backup.started))
    home = drills_prefix("production")
    for key in (f"{home}x/drill.json", f"{home}{PROBE}0123"):
        assert like(DRILLS, key)
        assert not like(BACKUPS, key)
    assert like(PROBES, f"production/{PROBE}0123")
