"""The archive's buckets, as S3 has them after `pulumi up`."""

from __future__ import annotations

import json
import re
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest
from botocore.exceptions import ClientError

from infra.bucket import LOG_DAYS
from infra.vault import close
from runbooks.clients.archive import Archive as ArchiveClient
from runbooks.clients.archive_types import Posture
from runbooks.model.errors import PolicyFault
from runbooks.model.policy_stack import Replica
from tests.backups.ground import the_time
from tests.infra import kinds
from tests.infra.applying import Stack, apply
from tests.infra.archive_ground import BUCKET, BUCKETS, LOCKED, LOGS, REPLICA, archived, backup_policy
from tests.infra.cloud import ACCOUNT, REGION, Cloud
from tests.infra.judge import Request, allowed

BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
OWNERSHIP = "aws:s3/bucketOwnershipControls:BucketOwnershipControls"
POLICY = "aws:s3/bucketPolicy:BucketPolicy"
REPLICATION = "aws:s3/bucketReplicationConfig:BucketReplicationConfig"
ELSEWHERE = Replica(region="us-west-2", role="arn:aws:iam::444455556666:role/backups")


@pytest.fixture(scope="module")
def account(_account: Cloud) -> Cloud:
    """For the tests that only look, and come first: the later ones begin with an empty account each."""
    _account.reset()
    return _account


@pytest.fixture(scope="module")
def stack(account: Cloud) -> Stack:
    return archived(account, backup_policy(tiers=LOCKED))


def answer(cloud: Cloud, operation: str, bucket: str, region: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = getattr(cloud.client("s3", region), operation)(Bucket=bucket)
    return found


def policy_of(cloud: Cloud, bucket: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer(cloud, "get_bucket_policy", bucket)["Policy"])
    return found


@pytest.mark.parametrize("bucket", [BUCKET, REPLICA])
def test_the_runbooks_find_the_bucket_as_they_want_it(account: Cloud, stack: Stack, bucket: str) -> None:
    archive = ArchiveClient(
        bucket, region=REGION, endpoint=account.endpoint, clock=the_time, client=lambda: account.client("s3")
    )
    # No default lock: it would lock probes, proofs and reports, and every tier as long as the longest.
    assert archive.posture() == Posture(
        versioned=True, object_lock=True, default_lock=None, encryption="aws:kms", public_access_blocked=True
    )


@pytest.mark.parametrize(("bucket", "region"), [(BUCKET, "us-east-1"), (REPLICA, "us-west-2")])
def test_each_is_sealed_with_a_customer_key_of_its_own_region(
    account: Cloud, stack: Stack, bucket: str, region: str
) -> None:
    found = answer(account, "get_bucket_encryption", bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    key = found[0]["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    assert found[0]["BucketKeyEnabled"]
    about = account.client("kms", region).describe_key(KeyId=key)["KeyMetadata"]
    assert about["KeyManager"] == "CUSTOMER"
    assert account.client("kms", region).get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
    assert account.client("kms", region).describe_key(KeyId="alias/bloom-dr-production-archive")["KeyMetadata"] == about


@pytest.mark.parametrize("bucket", [BUCKET, REPLICA, LOGS])
def test_nobody_but_the_owner_owns_anything_in_it(account: Cloud, stack: Stack, bucket: str) -> None:
    rules = answer(account, "get_bucket_ownership_controls", bucket)["OwnershipControls"]["Rules"]
    assert rules == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    block = answer(account, "get_public_access_block", bucket)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}


@pytest.mark.parametrize("name", ["archive", "replica", "archive-logs"])
def test_c27_policy_block_and_ownership_come_one_after_the_other(stack: Stack, name: str) -> None:
    block, ownership, policy = stack[BLOCK, name], stack[OWNERSHIP, name], stack[POLICY, name]
    assert stack.needs(ownership, block)
    assert stack.needs(policy, ownership)


def test_everything_is_protected_and_outlives_its_stack(stack: Stack) -> None:
    """A destroy takes the unprotected first, and what a recovery needs must not be among these."""
    assert [one.name for one in stack.declared.values() if not (one.protect and one.retain)] == []
    assert not any(one.inputs.get("forceDestroy") for one in stack.of(BUCKETS))


def test_c27_a_renamed_resource_needs_an_alias(stack: Stack) -> None:
    """Under another name Pulumi makes a second one. Change a name here only together with an alias for the old one."""
    kept = [BUCKETS, "aws:kms/key:Key", "aws:kms/alias:Alias"]
    names = {(token, one.name, one.urn.split("::")[-2].split("$")[-2]) for token in kept for one in stack.of(token)}
    archive, replica = "bloom-dr:infra:Archive", "bloom-dr:infra:Replica"
    assert names == {
        (BUCKETS, "archive", archive), (BUCKETS, "archive-logs", archive), (BUCKETS, "replica", replica),
        ("aws:kms/key:Key", "archive", archive), ("aws:kms/key:Key", "replica", replica),
        ("aws:kms/alias:Alias", "archive", archive), ("aws:kms/alias:Alias", "replica", replica),
    }  # fmt: skip


def test_nothing_is_declared_in_the_deprecated_way(stack: Stack) -> None:
    assert [one.token for one in stack.declared.values() if one.token.endswith("V2")] == []
    allowed_inputs = {"bucket", "objectLockEnabled", "forceDestroy", "region", "tags"}
    for one in stack.of(BUCKETS):
        assert one.inputs.keys() <= allowed_inputs, "the companions and these would undo each other"


def texts(stack: Stack) -> set[str]:
    uuid = r"[0-9a-f]{8}-[0-9a-f-]{27}"
    return {
        re.sub(uuid, "KEY", json.dumps([one.token, one.name, one.inputs], sort_keys=True))
        for one in stack.declared.values()
    }


# --- the log of who reached for it ----------------------------------------------------------------------------------


def test_the_access_log_goes_to_a_bucket_of_its_own_that_ends_by_itself(account: Cloud, stack: Stack) -> None:
    to = answer(account, "get_bucket_logging", BUCKET)["LoggingEnabled"]
    assert (to["TargetBucket"], to["TargetPrefix"]) == (LOGS, "access/")
    assert "LoggingEnabled" not in answer(account, "get_bucket_logging", LOGS), "into itself it would never end"
    rules = answer(account, "get_bucket_lifecycle_configuration", LOGS)["Rules"]
    assert [rule["Expiration"]["Days"] for rule in rules] == [LOG_DAYS]
    sealed = answer(account, "get_bucket_encryption", LOGS)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert sealed["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    with pytest.raises(ClientError, match="ObjectLockConfigurationNotFound"):
        answer(account, "get_object_lock_configuration", LOGS)  # S3 delivers no logs into one with a default lock
    takes = [each for each in policy_of(account, LOGS)["Statement"] if each["Effect"] == "Allow"]
    assert [each["Principal"] for each in takes] == [{"Service": "logging.s3.amazonaws.com"}]
    assert takes[0]["Condition"] == {
        "ArnLike": {"aws:SourceArn": f"arn:aws:s3:::{BUCKET}"}, "StringEquals": {"aws:SourceAccount": ACCOUNT}
    }  # fmt: skip


# --- what it refuses ------------------------------------------------------------------------------------------------


ALGORITHM, KEY = "s3:x-amz-server-side-encryption", "s3:x-amz-server-side-encryption-aws-kms-key-id"
OWN_KEY, LOCK = "s3:x-amz-server-side-encryption-customer-algorithm", "s3:object-lock-remaining-retention-days"
ALMIGHTY = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@pytest.mark.parametrize(
    ("action", "context", "right"),
    [
        ("s3:PutObject", {}, True),
        ("s3:PutObject", {"aws:SecureTransport": "false"}, False),
        ("s3:GetObject", {"aws:SecureTransport": "false"}, False),
        ("s3:PutObject", {ALGORITHM: "aws:kms"}, True),
        ("s3:PutObject", {ALGORITHM: "AES256"}, False),
        ("s3:PutObject", {ALGORITHM: "aws:kms", KEY: "THE KEY"}, True),
        ("s3:PutObject", {ALGORITHM: "aws:kms", KEY: "arn:aws:kms:us-east-1:999999999999:key/theirs"}, False),
        ("s3:PutObject", {OWN_KEY: "AES256"}, False),
        ("s3:PutObjectRetention", {LOCK: "30"}, True),
        ("s3:PutObjectRetention", {LOCK: "31"}, False),
        ("s3:PutObjectRetention", {LOCK: "36500"}, False),
    ],
)
def test_the_bucket_refuses_even_the_almighty(
    account: Cloud, stack: Stack, action: str, context: dict[str, str], right: bool
) -> None:
    usual = {"aws:SecureTransport": "true"}
    told = {name: stack.exported["key"] if value == "THE KEY" else value for name, value in context.items()}
    request = Request(action, f"arn:aws:s3:::{BUCKET}/production/x", usual | told)
    assert allowed(request, [ALMIGHTY], None, policy_of(account, BUCKET)) is right


# --- the replica ----------------------------------------------------------------------------------------------------


def test_the_replica_is_sealed_there_and_keeps_what_is_deleted_here(account: Cloud, stack: Stack) -> None:
    assert answer(account, "get_bucket_location", REPLICA)["LocationConstraint"] == "us-west-2"
    declared = stack[REPLICATION, "replica"]
    (rule,) = declared.inputs["rules"]
    # moto forgets this, and without it S3 would copy none of our objects, as all of them are sealed with a key.
    assert rule["sourceSelectionCriteria"] == {"sseKmsEncryptedObjects": {"status": "Enabled"}}
    sealed = answer(account, "get_bucket_encryption", REPLICA)["ServerSideEncryptionConfiguration"]["Rules"][0]
    key = sealed["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    assert rule["destination"]["encryptionConfiguration"] == {"replicaKmsKeyId": key}
    (stored,) = answer(account, "get_bucket_replication", BUCKET)["ReplicationConfiguration"]["Rules"]
    assert stored["Status"] == "Enabled"
    assert stored["DeleteMarkerReplication"] == {"Status": "Disabled"}
    assert stored["Destination"]["Bucket"] == f"arn:aws:s3:::{REPLICA}"


def test_replication_begins_when_both_sides_are_ready(stack: Stack) -> None:
    replication, versions = stack[REPLICATION, "replica"], "aws:s3/bucketVersioning:BucketVersioning"
    for needed in (
        stack[versions, "archive"], stack[versions, "replica"], stack[POLICY, "replica"],
        stack["aws:iam/rolePolicy:RolePolicy", "replica"],
    ):  # fmt: skip
        assert stack.needs(replication, needed)


def test_the_copier_opens_here_seals_there_and_deletes_nothing(account: Cloud, stack: Stack) -> None:
    role = account.client("iam").get_role(RoleName="bloom-dr-production-replication")["Role"]
    assert role["PermissionsBoundary"]["PermissionsBoundaryArn"].endswith("policy/bloom-dr-production-boundary")
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "s3.amazonaws.com"}
    assert "Condition" not in trust, "AWS shows none for replication: what S3 does not send would stop every copy"
    (rule,) = stack[REPLICATION, "replica"].inputs["rules"]
    assert rule["destination"]["metrics"] == {"status": "Enabled"}, "or nobody hears of a copy that failed"
    rights = account.client("iam").get_role_policy(RoleName=role["RoleName"], PolicyName="replication")[
        "PolicyDocument"
    ]
    here, there = stack.exported["key"], stack["aws:kms/key:Key", "replica"].outputs["arn"]

    def may(action: str, resource: str, region: str = "us-east-1") -> bool:
        # With a bucket key the context that S3 names to KMS is the bucket (C17).
        context = {"kms:ViaService": f"s3.{region}.amazonaws.com", "kms:EncryptionContext:aws:s3:arn": "bucket"}
        return allowed(Request(action, resource, context), [rights], None)

    assert may("kms:Decrypt", here)
    assert may("kms:Encrypt", there, "us-west-2")
    assert not may("kms:Encrypt", there, "us-east-1")
    assert not may("kms:Decrypt", there, "us-west-2")
    assert may("s3:ReplicateObject", f"arn:aws:s3:::{REPLICA}/a")
    for action in ("s3:ReplicateDelete", "s3:DeleteObject", "s3:PutObject", "s3:GetObject"):
        assert not may(action, f"arn:aws:s3:::{REPLICA}/a")
        assert not may(action, f"arn:aws:s3:::{BUCKET}/a")


def test_what_aws_has_is_what_was_declared(account: Cloud, stack: Stack) -> None:
    """So that a refresh finds no change: read back as the engine's provider does."""
    table = kinds.load()
    for one in stack.declared.values():
        if (read := table[one.token].read) is not None:
            assert read(account, one.id, one.outputs) == one.outputs, one.name


# --- from here on each test begins with an empty account -----------------------------------------------------------


def test_c27_a_policy_beside_the_block_would_be_seen(cloud: Cloud) -> None:
    def program() -> None:
        bucket = aws.s3.Bucket("x", bucket="bloom-x")
        close("x", bucket, [], pulumi.ResourceOptions())
        aws.s3.BucketPolicy("loose", bucket=bucket.bucket, policy='{"Statement": []}')

    stack = apply(cloud, program, {})
    assert not stack.needs(stack[POLICY, "loose"], stack[BLOCK, "x"])


def test_the_sandbox_can_be_thrown_away(cloud: Cloud) -> None:
    stack = archived(cloud, protect=False, replica=None)
    assert [one.name for one in stack.declared.values() if one.protect and one.name != "boundary"] == []
    assert [one.inputs["forceDestroy"] for one in stack.of(BUCKETS)] == [True, True]


def test_a_second_run_declares_the_very_same(cloud: Cloud) -> None:
    """In the same order too: rules and statements that change places are a change to Pulumi."""
    one = texts(archived(cloud, backup_policy(tiers=LOCKED)))
    cloud.reset()
    assert texts(archived(cloud, backup_policy(tiers=LOCKED))) == one


def test_in_another_account_the_copier_and_the_restorer_are_let_in_and_the_copies_belong_there(cloud: Cloud) -> None:
    stack = archived(cloud, replica=ELSEWHERE)
    (rule,) = stack[REPLICATION, "replica"].inputs["rules"]
    assert rule["destination"]["account"] == "444455556666"
    assert rule["destination"]["accessControlTranslation"] == {"owner": "Destination"}
    provider = stack["pulumi:providers:aws", "replica"]
    assert json.loads(provider.inputs["assumeRoles"]) == [{"roleArn": ELSEWHERE.role}]
    let_in = [each for each in policy_of(cloud, REPLICA)["Statement"] if each["Effect"] == "Allow"]
    copier = f"arn:aws:iam::{ACCOUNT}:role/bloom-dr-production-replication"
    assert [each["Principal"]["AWS"] for each in let_in] == [copier, copier, f"arn:aws:iam::{ACCOUNT}:root"]
    restorer = {"ArnEquals": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/bloom-dr-production-restorer"}}
    assert let_in[2]["Condition"] == restorer
    key = json.loads(stack["aws:kms/key:Key", "replica"].inputs["policy"])["Statement"]
    assert key[0]["Principal"] == {"AWS": "arn:aws:iam::444455556666:root"}
    assert [each["Action"] for each in key[1:]] == [["kms:Encrypt", "kms:GenerateDataKey"], ["kms:Decrypt"]]
    assert key[2]["Condition"] == restorer


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"replica": Replica(region=REGION)}, r"stacks\.production\.replica\.region is us-east-1"),
        ({"region": "eu-central-1"}, r"backup\.region is us-east-1, and Pulumi provisions in eu-central-1"),
        ({"backup": backup_policy(bucket="b" * 56)}, "no more than 63"),
        (
            {"backup": backup_policy(tiers={"weekly": {"local_days": 1, "s3_days": 7, "storage_class": "GLACIER"}})},
            r"backup\.tiers\.weekly\.s3_days is 7",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_there(cloud: Cloud, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(PolicyFault, match=why):
        archived(cloud, **changed)
    assert cloud.client("s3").list_buckets()["Buckets"] == []
    assert cloud.client("kms").list_keys()["Keys"] == []


def test_the_longest_name_that_is_taken_fits(cloud: Cloud) -> None:
    archived(cloud, backup_policy(bucket="b" * 55))
    assert {len(each["Name"]) for each in cloud.client("s3").list_buckets()["Buckets"]} == {55, 60, 63}


def test_what_somebody_changes_by_hand_is_seen(cloud: Cloud) -> None:
    stack, s3, table = archived(cloud), cloud.client("s3"), kinds.load()
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    s3.put_bucket_policy(Bucket=BUCKET, Policy='{"Version": "2012-10-17", "Statement": []}')
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=PLAIN)
    s3.delete_bucket_lifecycle(Bucket=BUCKET)
    s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration={"BlockPublicAcls": True})
    seen = {
        one.token.rpartition(":")[2]
        for one in stack.declared.values()
        if (read := table[one.token].read) is not None and read(cloud, one.id, one.outputs) != one.outputs
    }
    assert seen == {
        "BucketVersioning", "BucketPolicy", "BucketServerSideEncryptionConfiguration", "BucketLifecycleConfiguration",
        "BucketPublicAccessBlock",
    }  # fmt: skip


PLAIN = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
