"""The secrets of one environment, and the rotation of the one that applications log in with.

Their values are put by hand, once: a value that Pulumi knew would be in its state, write-only or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from infra import function_code
from infra.keys import Statement, customer_key, document
from infra.rights import allow
from runbooks.model.aws_names import AwsNames
from runbooks.model.errors import PolicyFault

LOG_DAYS = 400
SECONDS = 180
"""Two logins, each of which may have to wait for a compute that sleeps."""
LONGEST_NAME = 64
"""Of a function, and of a role."""


@dataclass(frozen=True)
class DatabaseSecretArgs:
    names: AwsNames
    environment: str
    account: str
    region: str
    boundary_arn: pulumi.Input[str]
    readers: Sequence[str]
    """ARNs of the roles and users that may read DATABASE_URL, besides the rotation. They need not exist yet."""
    rotates: bool
    """Only once the secret has a value: AWS tries the rotation out when it is set up."""
    rotation_days: int
    protect: bool
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """More secrets, that nothing rotates: `neon-api-key` or `backup-key` to who may read it (at least one)."""
    recovery_days: int = 30
    """So long a deleted secret can be restored, and its name is taken (C28). 0: it is gone at once."""
    group: str = "bloom_app"
    """The SQL role with the application's rights (`rotation/group.sql`). Its members GROUP_a and GROUP_b take turns."""


class DatabaseSecret(pulumi.ComponentResource):
    """PolicyFault for names that AWS does not take, before anything is declared."""

    secret_arn: pulumi.Output[str]
    """A JSON object with DATABASE_URL (pooled) and DATABASE_URL_DIRECT."""
    admin_arn: pulumi.Output[str]
    """The direct URL of the role that owns the database. For the rotation alone."""
    other_arns: Mapping[str, pulumi.Output[str]]
    """Of `others`."""
    key_arn: pulumi.Output[str]
    function_name: pulumi.Output[str]

    def __init__(self, name: str, args: DatabaseSecretArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check(args)
        super().__init__("bloom-dr:infra:DatabaseSecret", name, None, opts)
        self._name, self._args = name, args
        self._kept = pulumi.ResourceOptions(parent=self, protect=args.protect, retain_on_delete=args.protect)
        self._key = customer_key(
            f"{name}-secrets",
            alias=args.names.key_alias(f"{args.environment}-database"),
            purpose=f"Seals the secrets of {args.environment}",
            account=args.account,
            also=[_only_through(args.region)],
            deletion_days=30 if args.protect else 7,
            opts=self._kept,
        )
        # By its name, and not its id, so that the policies can be there before it.
        rotator = f"arn:aws:iam::{args.account}:role/{args.names.rotation_function(args.environment)}"
        secret = self._secret("database-url", "What applications log in with", [*args.readers, rotator])
        admin = self._secret("database-admin", "Makes and changes the roles of the application", [rotator])
        others = {of: self._secret(of, "Put by hand", readers) for of, readers in args.others.items()}
        function, ready = self._function(secret, admin)
        if args.rotates:
            self._rotation(secret, function, ready)
        self.secret_arn, self.admin_arn, self.key_arn = secret.arn, admin.arn, self._key.arn
        self.other_arns = {of: each.arn for of, each in others.items()}
        self.function_name = function.name
        self.register_outputs({"secret_arn": secret.arn, "function_name": function.name})

    def _secret(self, of: str, description: str, readers: Sequence[str]) -> aws.secretsmanager.Secret:
        args, name = self._args, f"{self._name}-{of}"
        secret = aws.secretsmanager.Secret(
            name,
            name=args.names.secret(args.environment, of),
            description=description,
            kms_key_id=self._key.arn,
            recovery_window_in_days=args.recovery_days,
            opts=self._kept,
        )
        aws.secretsmanager.SecretPolicy(
            name,
            secret_arn=secret.arn,
            policy=document(refusals(readers)),
            block_public_policy=True,
            opts=self._kept,
        )
        return secret

    def _function(
        self, secret: aws.secretsmanager.Secret, admin: aws.secretsmanager.Secret
    ) -> tuple[aws.lambda_.Function, list[pulumi.Resource]]:
        """It, and what has to be there before it is called."""
        args, name = self._args, f"{self._name}-rotation"
        called = args.names.rotation_function(args.environment)
        logs = aws.cloudwatch.LogGroup(
            name, name=args.names.rotation_log_group(args.environment), retention_in_days=LOG_DAYS, opts=self._kept
        )
        role = aws.iam.Role(
            name,
            name=called,
            description=f"Rotates the password of {args.environment}",
            assume_role_policy=document([_RUNS]),
            permissions_boundary=args.boundary_arn,
            opts=self._kept,
        )
        rights = aws.iam.RolePolicy(
            name,
            name="rotation",
            role=role.name,
            policy=document(_rights(secret.arn, admin.arn, self._key.arn, logs.arn, args.region)),
            opts=self._kept,
        )
        function = aws.lambda_.Function(
            name,
            name=called,
            description=f"Gives DATABASE_URL of {args.environment} a new password",
            runtime="python3.12",
            handler=function_code.ENTRY,
            code=function_code.archive(),
            role=role.arn,
            timeout=SECONDS,
            memory_size=256,
            environment=aws.lambda_.FunctionEnvironmentArgs(
                variables={"ADMIN_SECRET": admin.arn, "ROLE_GROUP": args.group}
            ),
            opts=pulumi.ResourceOptions.merge(self._kept, pulumi.ResourceOptions(depends_on=[logs, rights])),
        )
        allowed = aws.lambda_.Permission(
            name,
            statement_id="SecretsManager",
            action="lambda:InvokeFunction",
            function=function.name,
            principal="secretsmanager.amazonaws.com",
            source_account=args.account,
            source_arn=secret.arn,
            opts=self._kept,
        )
        return function, [rights, allowed]

    def _rotation(
        self, secret: aws.secretsmanager.Secret, function: aws.lambda_.Function, ready: Sequence[pulumi.Resource]
    ) -> None:
        """Not at once, as AWS would by default: the first time is an hour that people choose (C29)."""
        days = aws.secretsmanager.SecretRotationRotationRulesArgs(automatically_after_days=self._args.rotation_days)
        aws.secretsmanager.SecretRotation(
            f"{self._name}-rotation",
            secret_id=secret.id,
            rotation_lambda_arn=function.arn,
            rotation_rules=days,
            rotate_immediately=False,
            opts=pulumi.ResourceOptions.merge(self._kept, pulumi.ResourceOptions(depends_on=list(ready))),
        )


def refusals(readers: Sequence[str]) -> list[Statement]:
    """What a secret refuses, whatever somebody's own policies allow: its value to all but these ARNs of roles and
    users, and everything to who comes without TLS. Its policy can be changed, so that nobody is locked out for ever."""
    return [
        _deny("ReadBy", "secretsmanager:GetSecretValue", {"StringNotEquals": {"aws:PrincipalArn": list(readers)}}),
        _deny("EncryptedOnly", "secretsmanager:*", {"Bool": {"aws:SecureTransport": "false"}}),
    ]


def check(args: DatabaseSecretArgs) -> None:
    """PolicyFault for what AWS would refuse in the middle of things."""
    called = args.names.rotation_function(args.environment)
    if len(called) > LONGEST_NAME:
        raise _fault(
            f"the rotation of stacks.{args.names.stack}, environment {args.environment}, would be called {called}: "
            f"AWS takes {LONGEST_NAME} characters, and these are {len(called)}",
            "shorten the name of the stack or of the environment",
        )
    if args.recovery_days and not 7 <= args.recovery_days <= 30:
        raise _fault(
            f"a secret of stacks.{args.names.stack} would be restorable for {args.recovery_days} days: "
            "AWS takes 7 to 30, or 0",
            "take 30",
        )
    unread = [of for of, readers in args.others.items() if not readers]
    if unread:
        raise _fault(f"nobody may read the secret {unread[0]} of {args.environment}", "name a reader, or leave it out")


def _rights(
    secret: pulumi.Input[str], admin: pulumi.Input[str], key: pulumi.Input[str], logs: pulumi.Input[str], region: str
) -> list[Statement]:
    through = {"StringEquals": {"kms:ViaService": f"secretsmanager.{region}.amazonaws.com"}}
    rotates = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue",
               "secretsmanager:UpdateSecretVersionStage"]  # fmt: skip
    return [
        allow("Rotates", rotates, [secret]),
        allow("LogsInAsAdmin", ["secretsmanager:GetSecretValue"], [admin]),
        {**allow("Seals", ["kms:Decrypt", "kms:GenerateDataKey"], [key]), "Condition": through},
        allow("Logs", ["logs:CreateLogStream", "logs:PutLogEvents"], [pulumi.Output.concat(logs, ":*")]),
    ]


_RUNS: Statement = {
    "Sid": "Runs",
    "Effect": "Allow",
    "Action": "sts:AssumeRole",
    "Principal": {"Service": "lambda.amazonaws.com"},
}


def _only_through(region: str) -> Statement:
    """Nobody opens with the key what is sealed with it, except by asking Secrets Manager, and so by its policies."""
    return {
        "Sid": "ThroughSecretsManagerOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"],
        "Resource": "*",
        "Condition": {"StringNotEquals": {"kms:ViaService": f"secretsmanager.{region}.amazonaws.com"}},
    }


def _deny(sid: str, action: str, condition: Mapping[str, Any]) -> Statement:
    return {
        "Sid": sid,
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": "*",
        "Condition": condition,
    }


def _fault(happened: str, next_step: str) -> PolicyFault:
    return PolicyFault(happened, safe="nothing was declared, and no cloud was called", next_step=next_step)
