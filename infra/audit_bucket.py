"""Where the audit trail is kept: a bucket of its own, which the trail may write to and nobody else."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.bucket_policy import tls_only
from infra.keys import Statement
from infra.rights import allow
from infra.vault import after, close

KEPT_DAYS = 400
"""A year, and some weeks to look back at it."""
LOCKED_DAYS = 365
"""Until then nobody deletes what was logged, except who may bypass the lock: no role of ours."""


def audit_bucket(
    bucket: str, trail_arn: str, account: str, protect: bool, opts: pulumi.ResourceOptions
) -> tuple[aws.s3.Bucket, aws.s3.BucketPolicy]:
    """The trail has to wait for the policy. Without `protect` it can be emptied and removed."""
    made = aws.s3.Bucket("audit", bucket=bucket, object_lock_enabled=protect, force_destroy=not protect, opts=opts)
    versioning = aws.s3.BucketVersioning(
        "audit",
        bucket=made.bucket,
        versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
        opts=opts,
    )
    policy = close("audit", made, _lets_in(f"arn:aws:s3:::{bucket}", trail_arn, account), opts)
    _seal(made, opts)
    if protect:
        _lock(made, after(opts, versioning))
    _end(made, after(opts, versioning))
    return made, policy


def _lets_in(bucket_arn: str, trail_arn: str, account: str) -> list[Statement]:
    trail = {"Principal": {"Service": "cloudtrail.amazonaws.com"}}
    source = {"aws:SourceArn": trail_arn}
    owned = {"s3:x-amz-acl": "bucket-owner-full-control"}
    return [
        tls_only(bucket_arn),
        {**allow("TrailLooks", ["s3:GetBucketAcl"], [bucket_arn]), **trail, "Condition": {"StringEquals": source}},
        {
            **allow("TrailWrites", ["s3:PutObject"], [f"{bucket_arn}/AWSLogs/{account}/*"]),
            **trail,
            "Condition": {"StringEquals": source | owned},
        },
    ]


def _seal(bucket: aws.s3.Bucket, opts: pulumi.ResourceOptions) -> None:
    """The trail seals its logs with our key by itself; this is for what it does not, such as digests."""
    default = aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
        sse_algorithm="AES256"
    )
    rule = aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(apply_server_side_encryption_by_default=default)
    aws.s3.BucketServerSideEncryptionConfiguration("audit", bucket=bucket.bucket, rules=[rule], opts=opts)


def _lock(bucket: aws.s3.Bucket, opts: pulumi.ResourceOptions) -> None:
    retention = aws.s3.BucketObjectLockConfigurationRuleDefaultRetentionArgs(mode="GOVERNANCE", days=LOCKED_DAYS)
    aws.s3.BucketObjectLockConfiguration(
        "audit",
        bucket=bucket.bucket,
        rule=aws.s3.BucketObjectLockConfigurationRuleArgs(default_retention=retention),
        opts=opts,
    )


def _end(bucket: aws.s3.Bucket, opts: pulumi.ResourceOptions) -> None:
    """In a bucket with versions an end is two: first a marker, then the version behind it."""
    kinds = aws.s3
    everything = kinds.BucketLifecycleConfigurationRuleFilterArgs(prefix="")
    logs = kinds.BucketLifecycleConfigurationRuleArgs(
        id="logs",
        status="Enabled",
        filter=everything,
        expiration=kinds.BucketLifecycleConfigurationRuleExpirationArgs(days=KEPT_DAYS),
        noncurrent_version_expiration=kinds.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
            noncurrent_days=1
        ),
    )
    markers = kinds.BucketLifecycleConfigurationRuleArgs(
        id="markers",
        status="Enabled",
        filter=everything,
        expiration=kinds.BucketLifecycleConfigurationRuleExpirationArgs(expired_object_delete_marker=True),
    )
    kinds.BucketLifecycleConfiguration("audit", bucket=bucket.bucket, rules=[logs, markers], opts=opts)
