"""Who may do what, as documents. Pure: names of buckets in, statements out.

Objects are told apart by how the runbooks name them (`runbooks.model.backup_id`); environments by one refusal for all
else, so that many of them fit into a role. Nobody may hide an object, bypass a lock, or change the bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from infra.keys import Statement
from runbooks.model.aws_names import AwsNames, Identity
from runbooks.model.fleet import Job
from runbooks.model.metrics import NAMESPACE

BACKUPS = "*/????/??/bloom_backup_*"
PROOFS = f"{BACKUPS}/proof-*.json"
PROBES = "*/.bloom-dr-probe-*"
"""What `runbooks.clients.archive` tries the bucket out with before its first upload."""
DRILLS = "*/drills/*"


@dataclass(frozen=True)
class Store:
    """A bucket with backups, and the key that seals it."""

    bucket: str
    key_arn: pulumi.Input[str]
    region: str

    @property
    def arn(self) -> str:
        return f"arn:aws:s3:::{self.bucket}"

    def objects(self, *patterns: str) -> list[str]:
        """The ARNs of these objects."""
        return [f"{self.arn}/{pattern}" for pattern in patterns]


def rights_of(
    identity: Identity, store: Store, replica: Store | None, environments: Sequence[str], *, locks: bool
) -> list[Statement]:
    """What the role of this identity is allowed. Of the auditor nothing: see `auditing`."""
    match identity:
        case Identity.WRITER:
            return [*_writing(store, locks), _only(store, environments)]
        case Identity.VERIFIER:
            return [*_verifying(store), _only(store, environments)]
        case Identity.PRUNER:
            return [*_pruning(store), _only(store, environments)]
        case Identity.RESTORER:
            return [*_restoring(store), *_of_the_replica(replica)]
        case Identity.DRILL:
            return _drilling(store, environments)
        case Identity.AUDITOR:
            return []


def submitting(names: AwsNames, account: str, region: str) -> list[Statement]:
    """`invoke backup.fleet`: starts the jobs that take backups, and follows them. No other jobs: some open backups."""
    batch = f"arn:aws:batch:{region}:{account}"
    take = f"{batch}:job-definition/{names.job_definition(Job.TAKE)}"
    return [
        allow("StartsFleet", ["batch:SubmitJob"], [f"{batch}:job-queue/{names.job_queue}", take, f"{take}:*"]),
        allow("FollowsFleet", ["batch:DescribeJobs"], ["*"]),
    ]


def _only(store: Store, environments: Sequence[str]) -> Statement:
    """Of this bucket, and nothing of any other."""
    own = store.objects(*(f"{environment}/*" for environment in environments))
    return {"Sid": "OnlyTheseEnvironments", "Effect": "Deny", "Action": ["s3:*"], "NotResource": [store.arn, *own]}


def _writing(store: Store, locks: bool) -> list[Statement]:
    """It reads back what it wrote (decision 7): what it reads is sealed to keys that it does not have."""
    own = store.objects(BACKUPS, PROBES)
    put = ["s3:PutObject", "s3:PutObjectTagging", "s3:AbortMultipartUpload"]
    lock = ["s3:PutObjectRetention"] if locks else []
    return [
        *_looking(store, "s3:ListBucketMultipartUploads"),
        allow("Puts", [*put, *lock], own),
        allow("ReadsBack", _READS, own),
        _sealing(store, "kms:GenerateDataKey", "kms:Decrypt"),
        _MEASURING,
    ]


def _verifying(store: Store) -> list[Statement]:
    return [
        *_looking(store),
        allow("Reads", _READS, store.objects(BACKUPS, PROBES, DRILLS)),
        allow("PutsProofs", ["s3:PutObject", "s3:PutObjectTagging"], store.objects(PROOFS, PROBES)),
        _sealing(store, "kms:GenerateDataKey", "kms:Decrypt"),
        _MEASURING,
    ]


def _pruning(store: Store) -> list[Statement]:
    """Versions, by their ids: S3 refuses those that are locked. It has no right to bypass that."""
    own = store.objects(BACKUPS, PROBES)
    return [
        *_looking(store, "s3:ListBucketVersions"),
        allow("Reads", [*_READS, "s3:GetObjectVersion", "s3:GetObjectLegalHold"], own),
        allow("DeletesWhatIsNotLocked", ["s3:DeleteObjectVersion"], own),
        _sealing(store, "kms:Decrypt"),
        _MEASURING,
    ]


def _restoring(store: Store) -> list[Statement]:
    """All there is in the bucket: old files and reports too. To read needs both, the object and the key (C17)."""
    return [
        *_looking(store, "s3:ListBucketVersions"),
        allow("ReadsAndThaws", [*_READS, "s3:GetObjectVersion", "s3:RestoreObject"], store.objects("*")),
        _sealing(store, "kms:Decrypt"),
    ]


def _of_the_replica(replica: Store | None) -> list[Statement]:
    """The same once more; no two statements of a policy have one name."""
    found = [] if replica is None else _restoring(replica)
    return [{**statement, "Sid": f"{statement['Sid']}OfTheReplica"} for statement in found]


def _drilling(store: Store, environments: Sequence[str]) -> list[Statement]:
    own = store.objects(*(f"{environment}/drills/*" for environment in environments))
    return [
        *_looking(store),
        allow("LeavesReports", ["s3:PutObject", "s3:PutObjectTagging", *_READS], own),
        _sealing(store, "kms:GenerateDataKey", "kms:Decrypt"),
        _MEASURING,
    ]


@dataclass(frozen=True)
class Log:
    """A bucket with what was logged."""

    bucket_arn: pulumi.Input[str]
    key_arn: pulumi.Input[str] | None
    """None: it is sealed with a key of S3 itself."""


def auditing(logs: Sequence[Log], region: str) -> list[Statement]:
    """Reads what was logged, and no backup."""
    statements = [
        allow("Lists", ["s3:ListBucket", "s3:ListBucketVersions"], [log.bucket_arn for log in logs]),
        allow(
            "Reads",
            ["s3:GetObject", "s3:GetObjectVersion"],
            [pulumi.Output.concat(log.bucket_arn, "/*") for log in logs],
        ),
    ]
    sealed = [log.key_arn for log in logs if log.key_arn is not None]
    return [*statements, *([through_s3(sealed, region, "kms:Decrypt")] if sealed else [])]


_READS = ["s3:GetObject", "s3:GetObjectTagging", "s3:GetObjectRetention"]
_MEASURING: Statement = {
    "Sid": "Measures",
    "Effect": "Allow",
    "Action": ["cloudwatch:PutMetricData"],
    "Resource": ["*"],
    "Condition": {"StringEquals": {"cloudwatch:namespace": NAMESPACE}},
}


def _looking(store: Store, *more: str) -> list[Statement]:
    """ListBucket goes without a prefix: with one, S3 would say 403 instead of 404 for an object that is not there."""
    how = ["s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration", "s3:GetEncryptionConfiguration"]
    return [allow("Lists", ["s3:ListBucket", *more, *how, "s3:GetBucketPublicAccessBlock"], [store.arn])]


def _sealing(store: Store, *actions: str) -> Statement:
    return through_s3([store.key_arn], store.region, *actions)


def through_s3(keys: Sequence[pulumi.Input[str]], region: str, *actions: str) -> Statement:
    """To use these keys, but only by way of S3. Not bound to objects: where a bucket has a key, S3 tells KMS the
    bucket's ARN and never an object's, and such a condition would match nothing (C17)."""
    through = {"StringEquals": {"kms:ViaService": f"s3.{region}.amazonaws.com"}}
    return {**allow("Seals", list(actions), list(keys)), "Condition": through}


def allow(sid: str, actions: Sequence[str], resources: Sequence[pulumi.Input[str]]) -> dict[str, Any]:
    """A statement. `sid` is unlike the others of its document."""
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
