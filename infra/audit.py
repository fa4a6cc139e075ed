"""Who read, deleted or changed what: a trail of all regions, with every read and write of a backup (C32)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.audit_bucket import audit_bucket
from infra.counted import counted, keys_disarmed
from infra.keys import Statement, customer_key, document
from infra.rights import Store, allow
from infra.vault import after
from runbooks.model.aws_names import AwsNames
from runbooks.model.metrics import DELETE_ATTEMPTED, Series

LOG_DAYS = 90
"""In CloudWatch, where it is counted and searched. One of those that CloudWatch knows."""


@dataclass(frozen=True)
class AuditArgs:
    names: AwsNames
    environments: Sequence[str]
    stores: Sequence[Store]
    """The archive, then its replica if there is one."""
    account: str
    region: str
    boundary_arn: pulumi.Input[str]
    protect: bool


class Audit(pulumi.ComponentResource):
    """Trail, bucket, key, and the log in CloudWatch with what is counted in it."""

    bucket_arn: pulumi.Output[str]
    log_group_name: pulumi.Output[str]
    trail_arn: pulumi.Output[str]
    key_arn: pulumi.Output[str]

    def __init__(self, name: str, args: AuditArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("bloom-dr:infra:Audit", name, None, opts)
        self._args = args
        self._kept = pulumi.ResourceOptions(parent=self, protect=args.protect, retain_on_delete=args.protect)
        self._place = args.names.bucket(args.stores[0].bucket, "audit")
        # By name, as the bucket has to let the trail in before there is one.
        self._trail_arn = f"arn:aws:cloudtrail:{args.region}:{args.account}:trail/{args.names.trail}"
        key = self._key()
        bucket, policy = audit_bucket(self._place, self._trail_arn, args.account, args.protect, self._kept)
        log = aws.cloudwatch.LogGroup(
            "trail",
            name=args.names.trail_log_group,
            retention_in_days=LOG_DAYS,
            kms_key_id=key.arn,
            opts=self._kept,
        )
        trail = self._trail(bucket, policy, key, log)
        self._count(log, key)
        self.bucket_arn, self.log_group_name, self.trail_arn, self.key_arn = bucket.arn, log.name, trail.arn, key.arn
        self.register_outputs({"bucket_arn": bucket.arn, "trail_arn": trail.arn})

    def _key(self) -> aws.kms.Key:
        args = self._args
        trails = f"arn:aws:cloudtrail:*:{args.account}:trail/*"
        group = f"arn:aws:logs:{args.region}:{args.account}:log-group:{args.names.trail_log_group}"
        seals: Statement = {
            **allow("TrailSeals", ["kms:GenerateDataKey*"], ["*"]),
            "Principal": {"Service": "cloudtrail.amazonaws.com"},
            "Condition": {
                "StringEquals": {"aws:SourceArn": self._trail_arn},
                "StringLike": {"kms:EncryptionContext:aws:cloudtrail:arn": trails},
            },
        }
        looks: Statement = {
            **allow("TrailLooks", ["kms:DescribeKey"], ["*"]),
            "Principal": {"Service": "cloudtrail.amazonaws.com"},
        }
        logs: Statement = {
            **allow("LogSeals", ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt*", "kms:GenerateDataKey*",
                                 "kms:ReEncrypt*"], ["*"]),
            "Principal": {"Service": f"logs.{args.region}.amazonaws.com"},
            "Condition": {"ArnEquals": {"kms:EncryptionContext:aws:logs:arn": group}},
        }  # fmt: skip
        return customer_key(
            "audit",
            alias=args.names.key_alias("audit"),
            purpose="Seals the audit trail",
            account=args.account,
            also=[seals, looks, logs],
            deletion_days=30 if args.protect else 7,
            opts=self._kept,
        )

    def _trail(
        self, bucket: aws.s3.Bucket, policy: aws.s3.BucketPolicy, key: aws.kms.Key, log: aws.cloudwatch.LogGroup
    ) -> aws.cloudtrail.Trail:
        role, rights = self._delivery(log)
        return aws.cloudtrail.Trail(
            "trail",
            name=self._args.names.trail,
            s3_bucket_name=bucket.bucket,
            kms_key_id=key.arn,
            is_multi_region_trail=True,
            include_global_service_events=True,
            enable_log_file_validation=True,
            enable_logging=True,
            cloud_watch_logs_group_arn=pulumi.Output.concat(log.arn, ":*"),
            cloud_watch_logs_role_arn=role.arn,
            advanced_event_selectors=_watched(self._args.stores),
            opts=after(self._kept, policy, rights),
        )

    def _delivery(self, log: aws.cloudwatch.LogGroup) -> tuple[aws.iam.Role, aws.iam.RolePolicy]:
        """What CloudTrail becomes to write into the log.

        Not bound to this trail: AWS supports neither aws:SourceArn nor aws:SourceAccount in this role, and would refuse
        the trail (its user guide, "Role policy document for CloudTrail to use CloudWatch Logs for monitoring").
        """
        args = self._args
        trust: Statement = {
            "Effect": "Allow",
            "Principal": {"Service": "cloudtrail.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
        role = aws.iam.Role(
            "trail",
            name=args.names.service_role("trail"),
            description="CloudTrail writes the audit log",
            assume_role_policy=document([trust]),
            permissions_boundary=args.boundary_arn,
            opts=self._kept,
        )
        streams = pulumi.Output.concat(log.arn, ":log-stream:*")
        rights = aws.iam.RolePolicy(
            "trail",
            name="log",
            role=role.name,
            policy=document([allow("Writes", ["logs:CreateLogStream", "logs:PutLogEvents"], [streams])]),
            opts=self._kept,
        )
        return role, rights

    def _count(self, log: aws.cloudwatch.LogGroup, key: aws.kms.Key) -> None:
        args = self._args
        buckets = [store.bucket for store in args.stores]
        for each in counted(args.names, args.environments, buckets, self._place, args.account, args.region):
            self._filter(log, each.name, each.series, each.pattern)
        keys = pulumi.Output.all(*[store.key_arn for store in args.stores], key.arn)
        self._filter(log, "key-disarmed", DELETE_ATTEMPTED, keys.apply(keys_disarmed))

    def _filter(self, log: aws.cloudwatch.LogGroup, name: str, series: Series, pattern: pulumi.Input[str]) -> None:
        """Not retained: what the policy no longer wants is gone, once its protection is lifted by hand."""
        aws.cloudwatch.LogMetricFilter(
            name,
            name=name,
            log_group_name=log.name,
            pattern=pattern,
            metric_transformation=aws.cloudwatch.LogMetricFilterMetricTransformationArgs(
                name=series.name, namespace=series.namespace(self._args.names.stack), value="1"
            ),
            opts=pulumi.ResourceOptions(parent=self, protect=self._args.protect),
        )


def _watched(stores: Sequence[Store]) -> list[aws.cloudtrail.TrailAdvancedEventSelectorArgs]:
    """All that is managed, and of these buckets' objects each read and each write."""
    kinds = aws.cloudtrail

    field = kinds.TrailAdvancedEventSelectorFieldSelectorArgs
    managed = [field(field="eventCategory", equals=["Management"])]
    objects = [
        field(field="eventCategory", equals=["Data"]),
        field(field="resources.type", equals=["AWS::S3::Object"]),
        field(field="resources.ARN", starts_withs=[f"{store.arn}/" for store in stores]),
    ]
    return [
        kinds.TrailAdvancedEventSelectorArgs(name="management", field_selectors=managed),
        kinds.TrailAdvancedEventSelectorArgs(name="backups", field_selectors=objects),
    ]
