"""A bucket that cannot lose backups, with its key and all that belongs to it. The archive is one, and its replica."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra import lifecycle
from infra.bucket_policy import refusals
from infra.keys import Statement, customer_key, document
from infra.rights import Store
from runbooks.model.backup import Tier
from runbooks.model.policy_backup import BackupPolicy


@dataclass(frozen=True)
class VaultArgs:
    name: str
    """Of its resources. Renamed, it needs the old name as an alias, or Pulumi would make a new, empty one (C27)."""
    bucket: str
    region: str
    account: str
    key_alias: str
    backup: BackupPolicy
    protect: bool
    may_also: Sequence[Statement] = ()
    """More statements of the bucket's policy."""
    key_also: Sequence[Statement] = ()
    """More statements of the key's policy."""


@dataclass(frozen=True)
class Vault:
    store: Store
    bucket: aws.s3.Bucket
    key: aws.kms.Key
    ready: tuple[pulumi.Resource, ...]
    """What has to be there before it is written to."""


def vault(args: VaultArgs, opts: pulumi.ResourceOptions) -> Vault:
    """Declare it. `opts` hold for every resource; protect and retain belong in there."""
    key = customer_key(
        args.name,
        alias=args.key_alias,
        purpose=f"Seals the backups in {args.bucket}",
        account=args.account,
        also=args.key_also,
        deletion_days=30 if args.protect else 7,
        opts=opts,
    )
    # No default retention: what is locked, how and until when, is said by who writes it, for each tier (decision 7).
    bucket = aws.s3.Bucket(
        args.name, bucket=args.bucket, object_lock_enabled=True, force_destroy=not args.protect, opts=opts
    )
    store = Store(args.bucket, key.arn, args.region)
    versioning = aws.s3.BucketVersioning(
        args.name,
        bucket=bucket.bucket,
        versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
        opts=opts,
    )
    encryption = _sealed_by(args.name, bucket, key, opts)
    policy = close(args.name, bucket, [*refusals(store, _longest_lock(args.backup)), *args.may_also], opts)
    aws.s3.BucketLifecycleConfiguration(
        args.name,
        bucket=bucket.bucket,
        rules=[rule.arguments() for rule in lifecycle.rules(args.backup)],
        transition_default_minimum_object_size="all_storage_classes_128K",
        opts=after(opts, versioning),
    )
    return Vault(store, bucket, key, (versioning, encryption, policy))


def close(
    name: str, bucket: aws.s3.Bucket, statements: Sequence[Statement], opts: pulumi.ResourceOptions
) -> aws.s3.BucketPolicy:
    """To the public, and to everybody by these statements. One after the other: S3 refuses two such changes at a time
    (C27)."""
    block = aws.s3.BucketPublicAccessBlock(
        name,
        bucket=bucket.bucket,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
        opts=opts,
    )
    ownership = aws.s3.BucketOwnershipControls(
        name,
        bucket=bucket.bucket,
        rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
        opts=after(opts, block),
    )
    return aws.s3.BucketPolicy(
        name, bucket=bucket.bucket, policy=document(statements), opts=after(opts, block, ownership)
    )


def after(opts: pulumi.ResourceOptions, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
    """The same options, and only when these are there."""
    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(resources)))


def _sealed_by(
    name: str, bucket: aws.s3.Bucket, key: aws.kms.Key, opts: pulumi.ResourceOptions
) -> aws.s3.BucketServerSideEncryptionConfiguration:
    kinds = aws.s3
    default = kinds.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
        sse_algorithm="aws:kms", kms_master_key_id=key.arn
    )
    rule = kinds.BucketServerSideEncryptionConfigurationRuleArgs(
        apply_server_side_encryption_by_default=default, bucket_key_enabled=True
    )
    return kinds.BucketServerSideEncryptionConfiguration(name, bucket=bucket.bucket, rules=[rule], opts=opts)


def _longest_lock(backup: BackupPolicy) -> int:
    return max(backup.tiers[tier].lock_days or 0 for tier in Tier)
