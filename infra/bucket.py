"""The archive: the bucket with the backups, the log of who reached for it, and a replica far away."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra import lifecycle
from infra.bucket_policy import access_logs
from infra.replica import Replica, ReplicaArgs
from infra.rights import Store
from infra.vault import VaultArgs, after, close, vault
from runbooks.model import policy_stack
from runbooks.model.aws_names import AwsNames
from runbooks.model.errors import PolicyFault
from runbooks.model.policy_backup import BackupPolicy

LOG_DAYS = 400
"""A year, and some weeks to look back at it."""
_LONGEST_NAME = 63
"""Of a bucket."""


@dataclass(frozen=True)
class ArchiveArgs:
    names: AwsNames
    backup: BackupPolicy
    account: str
    region: str
    """Where Pulumi provisions: the policy's `backup.region`."""
    boundary_arn: pulumi.Input[str]
    replica: policy_stack.Replica | None
    protect: bool


class Archive(pulumi.ComponentResource):
    """PolicyFault for what `check` refuses, before anything is declared."""

    bucket: pulumi.Output[str]
    bucket_arn: pulumi.Output[str]
    key_arn: pulumi.Output[str]
    log_bucket: pulumi.Output[str]
    replica_bucket: pulumi.Output[str] | None
    store: Store
    """Bucket and key for `Access`."""
    replica: Store | None
    log_bucket_arn: str

    def __init__(self, name: str, args: ArchiveArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check(args)
        super().__init__("bloom-dr:infra:Archive", name, None, opts)
        kept = pulumi.ResourceOptions(parent=self, protect=args.protect, retain_on_delete=args.protect)
        made = vault(
            VaultArgs(
                name=name,
                bucket=args.backup.bucket,
                region=args.region,
                account=args.account,
                key_alias=args.names.key_alias("archive"),
                backup=args.backup,
                protect=args.protect,
            ),
            kept,
        )
        log = self._log(name, args, made.bucket, kept)
        self.store, self.log_bucket, self.replica, self.replica_bucket = made.store, log.bucket, None, None
        self.log_bucket_arn = _arn(args.names.bucket(args.backup.bucket, "logs"))
        self.bucket, self.bucket_arn, self.key_arn = made.bucket.bucket, made.bucket.arn, made.key.arn
        if args.replica is not None:
            wanted = ReplicaArgs(
                args.names, args.backup, args.account, args.boundary_arn, args.replica, args.protect, made
            )
            replica = Replica("replica", wanted, pulumi.ResourceOptions(parent=self))
            self.replica, self.replica_bucket = replica.store, replica.bucket
        self.register_outputs({"bucket": self.bucket, "log_bucket": self.log_bucket})

    def _log(self, name: str, args: ArchiveArgs, bucket: aws.s3.Bucket, opts: pulumi.ResourceOptions) -> aws.s3.Bucket:
        """Sealed by S3 itself: to the service that writes it a customer's key is of no use."""
        place, beside = args.names.bucket(args.backup.bucket, "logs"), f"{name}-logs"
        logs = aws.s3.Bucket(beside, bucket=place, force_destroy=not args.protect, opts=opts)
        policy = close(beside, logs, access_logs(_arn(place), _arn(args.backup.bucket), args.account), opts)
        _sealed_by_s3(beside, logs, opts)
        _ended(beside, logs, opts)
        aws.s3.BucketLogging(
            name, bucket=bucket.bucket, target_bucket=logs.bucket, target_prefix="access/", opts=after(opts, policy)
        )
        return logs


def _sealed_by_s3(name: str, bucket: aws.s3.Bucket, opts: pulumi.ResourceOptions) -> None:
    default = aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
        sse_algorithm="AES256"
    )
    rule = aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(apply_server_side_encryption_by_default=default)
    aws.s3.BucketServerSideEncryptionConfiguration(name, bucket=bucket.bucket, rules=[rule], opts=opts)


def _ended(name: str, bucket: aws.s3.Bucket, opts: pulumi.ResourceOptions) -> None:
    rule = aws.s3.BucketLifecycleConfigurationRuleArgs(
        id="logs",
        status="Enabled",
        filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
        expiration=aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(days=LOG_DAYS),
    )
    aws.s3.BucketLifecycleConfiguration(name, bucket=bucket.bucket, rules=[rule], opts=opts)


def check(args: ArchiveArgs) -> None:
    """PolicyFault for a wrong day number, a bucket's name too long for those beside it, or the wrong region."""
    lifecycle.check(args.backup)
    longest = max((args.names.bucket(args.backup.bucket, of) for of in ("logs", "replica", "audit")), key=len)
    if len(longest) > _LONGEST_NAME:
        raise _fault(
            f"the bucket {args.backup.bucket} has {len(args.backup.bucket)} characters, and those beside it have names "
            f"such as {longest}: AWS takes no more than {_LONGEST_NAME}",
            f"shorten stacks.{args.names.stack}.bucket or backup.bucket by {len(longest) - _LONGEST_NAME}",
        )
    if args.region != args.backup.region:
        raise _fault(
            f"backup.region is {args.backup.region}, and Pulumi provisions in {args.region}",
            f"pulumi config set aws:region {args.backup.region}",
        )
    if args.replica is not None and args.replica.region == args.region:
        raise _fault(
            f"stacks.{args.names.stack}.replica.region is {args.region}, where the bucket itself is",
            "choose another region for the replica: it is for the day when this one is gone",
        )


def _arn(bucket: str) -> str:
    return f"arn:aws:s3:::{bucket}"


def _fault(happened: str, next_step: str) -> PolicyFault:
    return PolicyFault(happened, safe="nothing was declared, and no cloud was called", next_step=next_step)
