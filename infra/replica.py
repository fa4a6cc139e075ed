"""A second copy of the archive, in another region and, if wanted, in another account.

Whatever is written arrives there; what is deleted here stays there: delete markers are not copied, nor is the end of a
version. Its own rules end what is in it, the same as those here.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.keys import Statement, document
from infra.rights import Store, allow, through_s3
from infra.vault import Vault, VaultArgs, after, vault
from runbooks.model import policy_stack
from runbooks.model.aws_names import REPLICATION, AwsNames, Identity
from runbooks.model.policy_backup import BackupPolicy


@dataclass(frozen=True)
class ReplicaArgs:
    names: AwsNames
    backup: BackupPolicy
    account: str
    """Of the archive."""
    boundary_arn: pulumi.Input[str]
    where: policy_stack.Replica
    protect: bool
    source: Vault

    @property
    def owner(self) -> str:
        """The account that the replica is in."""
        return self.account if self.where.role is None else self.where.role.split(":")[4]

    @property
    def is_elsewhere(self) -> bool:
        return self.owner != self.account


class Replica(pulumi.ComponentResource):
    store: Store
    bucket: pulumi.Output[str]

    def __init__(self, name: str, args: ReplicaArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("bloom-dr:infra:Replica", name, None, opts)
        kept = pulumi.ResourceOptions(parent=self, protect=args.protect, retain_on_delete=args.protect)
        role = self._role(args, kept)
        place = args.names.bucket(args.backup.bucket, "replica")
        made = vault(
            VaultArgs(
                name=name,
                bucket=place,
                region=args.where.region,
                account=args.owner,
                key_alias=args.names.key_alias("archive"),
                backup=args.backup,
                protect=args.protect,
                may_also=_lets_in(args, place, role.arn) if args.is_elsewhere else (),
                key_also=_lets_seal(args, role.arn) if args.is_elsewhere else (),
            ),
            pulumi.ResourceOptions.merge(kept, self._there(name, args)),
        )
        self.store, self.bucket = made.store, made.bucket.bucket
        rights = aws.iam.RolePolicy(
            name,
            name="replication",
            role=role.name,
            policy=document(_copying(args.source.store, made.store)),
            opts=kept,
        )
        aws.s3.BucketReplicationConfig(
            name,
            bucket=args.source.bucket.bucket,
            role=role.arn,
            rules=[_everything(args, made)],
            opts=after(kept, rights, *args.source.ready, *made.ready),
        )
        self.register_outputs({"bucket": self.bucket})

    def _role(self, args: ReplicaArgs, opts: pulumi.ResourceOptions) -> aws.iam.Role:
        return aws.iam.Role(
            "replication",
            name=args.names.service_role("replication"),
            description="S3 copies the backups to their replica",
            assume_role_policy=document([_COPIER]),
            permissions_boundary=args.boundary_arn,
            opts=opts,
        )

    def _there(self, name: str, args: ReplicaArgs) -> pulumi.ResourceOptions:
        """Everything in the other region, and for another account as the role that the policy names."""
        opts = pulumi.ResourceOptions(transformations=[_in_region(args.where.region)])
        if args.where.role is not None:
            opts.provider = aws.Provider(
                name,
                region=args.where.region,
                assume_roles=[aws.ProviderAssumeRoleArgs(role_arn=args.where.role)],
                opts=pulumi.ResourceOptions(parent=self),
            )
        return opts


def _in_region(region: str) -> pulumi.ResourceTransformation:
    def there(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult:
        return pulumi.ResourceTransformationResult({**args.props, "region": region}, args.opts)

    return there


def _everything(args: ReplicaArgs, made: Vault) -> aws.s3.BucketReplicationConfigRuleArgs:
    """One rule for all objects. Sealed ones are copied only where it is said so: all of ours are."""
    kinds = aws.s3
    owner = kinds.BucketReplicationConfigRuleDestinationAccessControlTranslationArgs(owner="Destination")
    sealed = kinds.BucketReplicationConfigRuleSourceSelectionCriteriaSseKmsEncryptedObjectsArgs(status="Enabled")
    return kinds.BucketReplicationConfigRuleArgs(
        id=REPLICATION,
        status="Enabled",
        priority=0,
        filter=kinds.BucketReplicationConfigRuleFilterArgs(prefix=""),
        delete_marker_replication=kinds.BucketReplicationConfigRuleDeleteMarkerReplicationArgs(status="Disabled"),
        source_selection_criteria=kinds.BucketReplicationConfigRuleSourceSelectionCriteriaArgs(
            sse_kms_encrypted_objects=sealed
        ),
        destination=kinds.BucketReplicationConfigRuleDestinationArgs(
            bucket=made.bucket.arn,
            encryption_configuration=kinds.BucketReplicationConfigRuleDestinationEncryptionConfigurationArgs(
                replica_kms_key_id=made.key.arn
            ),
            # Without them nobody hears of a copy that fails.
            metrics=kinds.BucketReplicationConfigRuleDestinationMetricsArgs(status="Enabled"),
            account=args.owner if args.is_elsewhere else None,
            access_control_translation=owner if args.is_elsewhere else None,
        ),
    )


_COPIER: Statement = {
    "Sid": "Copies",
    "Effect": "Allow",
    "Action": "sts:AssumeRole",
    "Principal": {"Service": "s3.amazonaws.com"},
}
"""Without a condition on the bucket, which AWS does not show for replication: if S3 did not send it, every copy would
fail. Nobody else's bucket can name this role, as handing it on takes iam:PassRole in this account."""


_VERSIONS = [
    "s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging",
    "s3:GetObjectRetention", "s3:GetObjectLegalHold",
]  # fmt: skip
_ARRIVAL = ["s3:ReplicateObject", "s3:ReplicateTags", "s3:ObjectOwnerOverrideToBucketOwner"]


def _copying(source: Store, replica: Store) -> list[Statement]:
    """Never s3:ReplicateDelete."""
    return [
        allow("ReadsTheRule", ["s3:GetReplicationConfiguration", "s3:ListBucket"], [source.arn]),
        allow("ReadsVersions", _VERSIONS, [f"{source.arn}/*"]),
        allow("Writes", _ARRIVAL, [f"{replica.arn}/*"]),
        {**through_s3([source.key_arn], source.region, "kms:Decrypt"), "Sid": "Opens"},
        through_s3([replica.key_arn], replica.region, "kms:Encrypt", "kms:GenerateDataKey"),
    ]


# --- in another account, where no role of ours has rights by itself --------------------------------------------------


def _lets_in(args: ReplicaArgs, bucket: str, role: pulumi.Input[str]) -> list[Statement]:
    arn = f"arn:aws:s3:::{bucket}"
    return [
        {**allow("Arrival", _ARRIVAL, [f"{arn}/*"]), "Principal": {"AWS": role}},
        {**allow("ArrivalLooks", ["s3:GetBucketVersioning", "s3:ListBucket"], [arn]), "Principal": {"AWS": role}},
        {
            **allow("RestorerReads", ["s3:Get*", "s3:List*", "s3:RestoreObject"], [arn, f"{arn}/*"]),
            **_the_restorer(args),
        },
    ]


def _lets_seal(args: ReplicaArgs, role: pulumi.Input[str]) -> list[Statement]:
    return [
        {**allow("Arrival", ["kms:Encrypt", "kms:GenerateDataKey"], ["*"]), "Principal": {"AWS": role}},
        {**allow("RestorerReads", ["kms:Decrypt"], ["*"]), **_the_restorer(args)},
    ]


def _the_restorer(args: ReplicaArgs) -> Statement:
    """By its name, as it is made after this: AWS takes no principal that is not there yet."""
    arn = f"arn:aws:iam::{args.account}:role/{args.names.role(Identity.RESTORER)}"
    return {
        "Principal": {"AWS": f"arn:aws:iam::{args.account}:root"},
        "Condition": {"ArnEquals": {"aws:PrincipalArn": arn}},
    }
