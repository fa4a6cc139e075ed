"""The most that any role of a stack can ever do."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.keys import Statement, document
from infra.rights import allow
from runbooks.model.aws_names import AwsNames


def boundary(names: AwsNames, archive: str, account: str, *, protect: bool) -> pulumi.Output[str]:
    """The ARN of the permission boundary, which every role of the stack has to have."""
    policy = aws.iam.Policy(
        "boundary",
        name=names.boundary,
        description="The most that a role of Bloom DR can do, whatever is attached to it",
        policy=document(limits(names, archive, account)),
        opts=pulumi.ResourceOptions(protect=protect, retain_on_delete=protect),
    )
    return policy.arn


def limits(names: AwsNames, archive: str, account: str) -> list[Statement]:
    """The most that any role of the stack can ever do, whatever is attached to it: AWS services' roles too.

    No IAM but handing on our own roles; of a bucket, a key, a trail or a secret nothing that changes or removes it.
    """
    buckets = [f"arn:aws:s3:::{archive}", *(f"arn:aws:s3:::{names.bucket(archive, of)}" for of in _BESIDE)]
    objects = [f"{bucket}/*" for bucket in buckets]
    return [
        allow("Buckets", _BUCKET_VERBS, [*buckets, *objects]),
        allow("Secrets", _SECRET_VERBS, [f"arn:aws:secretsmanager:*:{account}:secret:bloom-dr/*"]),
        allow("Work", _WORK_VERBS, ["*"]),
        allow("HandsOnOurRoles", ["iam:PassRole"], [f"arn:aws:iam::{account}:role/{names.prefix}-*"]),
    ]


_BESIDE = ("logs", "replica", "audit")
_BUCKET_VERBS = [
    "s3:Get*", "s3:List*", "s3:PutObject", "s3:PutObjectTagging", "s3:PutObjectRetention", "s3:AbortMultipartUpload",
    "s3:DeleteObjectVersion", "s3:RestoreObject", "s3:ReplicateObject", "s3:ReplicateTags",
    "s3:ObjectOwnerOverrideToBucketOwner",
]  # fmt: skip
_SECRET_VERBS = [
    "secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue",
    "secretsmanager:UpdateSecretVersionStage",
]  # fmt: skip
_WORK_VERBS = [
    "batch:DescribeJobs", "batch:ListJobs", "batch:SubmitJob", "cloudwatch:Describe*", "cloudwatch:Get*",
    "cloudwatch:List*", "cloudwatch:PutMetricData", "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage",
    "ecr:GetAuthorizationToken", "ecr:GetDownloadUrlForLayer", "ecs:DescribeTasks", "ecs:RunTask", "ecs:TagResource",
    "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "logs:CreateLogStream",
    "logs:Describe*", "logs:FilterLogEvents", "logs:Get*", "logs:PutLogEvents", "secretsmanager:GetRandomPassword",
    "sns:Publish", "sqs:SendMessage",
]  # fmt: skip
