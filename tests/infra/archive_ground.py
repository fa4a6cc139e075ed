"""A stack's archive and identities, applied to moto, for the tests of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pulumi
import pytest
from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket

from infra.access import Access, AccessArgs
from infra.boundary import boundary
from infra.bucket import Archive, ArchiveArgs
from infra.rights import Log
from runbooks.clients.archive import Archive as ArchiveClient
from runbooks.clients.archive_client import open_client
from runbooks.clients.repository import Repository
from runbooks.model.aws_names import AwsNames
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.policy_stack import Replica, StackPolicy
from runbooks.model.secret import Secret
from tests.backups.ground import PAIR, Sent, policy, the_time
from tests.infra.applying import Stack, apply
from tests.infra.cloud import ACCOUNT, REGION, Cloud

NAMES = AwsNames("production")
BUCKET, REPLICA, LOGS, AUDIT = "bloom-test", "bloom-test-replica", "bloom-test-logs", "bloom-test-audit"
OPERATOR, AUDITOR = f"arn:aws:iam::{ACCOUNT}:user/on-call", f"arn:aws:iam::{ACCOUNT}:user/auditor"
AUDIT_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
BUCKETS = "aws:s3/bucket:Bucket"
LOCKED = {"daily": {"local_days": 30, "s3_days": 90, "storage_class": "STANDARD_IA",
                    "lock_mode": "GOVERNANCE", "lock_days": 30}}  # fmt: skip


def backup_policy(**settings: Any) -> BackupPolicy:
    return BackupPolicy.model_validate({"bucket": BUCKET, "region": REGION} | settings)


def section(**settings: Any) -> StackPolicy:
    mail = {"kind": "email", "address": "incidents@bloom.com"}
    usual: Mapping[str, Any] = {
        "environments": ["production"],
        "alerts": {"page": mail, "mail": mail, "chat": mail},
        "operators": [OPERATOR],
        "auditors": [AUDITOR],
        "github": "example/bloom-dr",
    }
    return StackPolicy.model_validate(usual | settings)


def archive_args(backup: BackupPolicy | None = None, **settings: Any) -> ArchiveArgs:
    usual: dict[str, Any] = {
        "names": NAMES, "backup": backup or backup_policy(), "account": ACCOUNT, "region": REGION,
        "boundary_arn": f"arn:aws:iam::{ACCOUNT}:policy/{NAMES.boundary}",
        "replica": Replica(region="us-west-2"), "protect": True,
    }  # fmt: skip
    return ArchiveArgs(**usual | settings)


def archived(cloud: Cloud, backup: BackupPolicy | None = None, **settings: Any) -> Stack:
    """Only the archive."""

    def program() -> None:
        limit = boundary(NAMES, BUCKET, ACCOUNT, protect=True)
        made = Archive("archive", archive_args(backup, **{"boundary_arn": limit, **settings}))
        pulumi.export("bucket", made.bucket)
        pulumi.export("log_bucket", made.log_bucket)
        pulumi.export("replica_bucket", made.replica_bucket)
        pulumi.export("key", made.key_arn)

    return apply(cloud, program, {})


def standing(
    cloud: Cloud, stack: StackPolicy | None = None, backup: BackupPolicy | None = None, **settings: Any
) -> Stack:
    """The archive with its identities."""

    def program() -> None:
        limit = boundary(NAMES, BUCKET, ACCOUNT, protect=True)
        made = Archive("archive", archive_args(backup, boundary_arn=limit))
        usual: dict[str, Any] = {
            "names": NAMES, "section": stack or section(), "backup": backup or backup_policy(), "account": ACCOUNT,
            "store": made.store, "replica": made.replica, "boundary_arn": limit, "protect": True,
            "logs": [Log(f"arn:aws:s3:::{AUDIT}", AUDIT_KEY), Log(made.log_bucket_arn, None)],
        }  # fmt: skip
        Access("access", AccessArgs(**usual | settings))
        pulumi.export("key", made.store.key_arn)
        pulumi.export("replica_key", made.replica and made.replica.key_arn)

    return apply(cloud, program, {})


def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """moto takes every condition but StringEquals for fulfilled, so that each of our refusals would hit everybody."""
    monkeypatch.setattr(FakeBucket, "get_permission", lambda *_: PermissionResult.NEUTRAL)


def client_of_runbooks(cloud: Cloud) -> Any:
    """moto wants the name of a checksum's algorithm beside a lock; to S3 the checksum itself is enough."""
    found = open_client(region=REGION, endpoint=cloud.endpoint, access_key="test", secret_key=Secret("test"))
    name = {"x-amz-sdk-checksum-algorithm": "SHA256"}
    found.meta.events.register("before-call.s3.PutObject", lambda params, **_: params["headers"].update(name))
    return found


def repository_in(cloud: Cloud, client: Callable[[], Any]) -> Repository:
    """What the runbooks write to and read from: the bucket that was declared, with its locked daily tier."""
    return Repository(
        environment="production", policy=policy(bucket=BUCKET, tiers=LOCKED), local=None, metrics=Sent(),
        archive=ArchiveClient(BUCKET, region=REGION, endpoint=cloud.endpoint, clock=the_time, client=client),
        open_keys=lambda _: PAIR.opener(),
    )  # fmt: skip
