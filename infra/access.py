"""The identities: one role for each, none of which can do everything. No users, and no keys that live long."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import pulumi
import pulumi_aws as aws

from infra.keys import Statement, document
from infra.rights import Log, Store, auditing, rights_of, submitting
from infra.trust import GITHUB, trust_of
from runbooks.model.aws_names import AwsNames, Identity
from runbooks.model.backup import Tier
from runbooks.model.errors import PolicyFault
from runbooks.model.fleet import FEWEST
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.policy_stack import StackPolicy

INLINE_LIMIT = 10_240
"""Characters of all policies within one role. AWS's."""
_HOUR = timedelta(hours=1)
_DESCRIPTION = {
    Identity.WRITER: "Takes backups: puts, lists and reads back its own; deletes nothing",
    Identity.VERIFIER: "Reads and decrypts backups, and stores proofs",
    Identity.PRUNER: "Deletes backups that are not locked; a person",
    Identity.RESTORER: "Reads, decrypts and thaws backups; a person",
    Identity.DRILL: "Leaves reports of drills",
    Identity.AUDITOR: "Reads the audit log and no backup; a person",
}


@dataclass(frozen=True)
class AccessArgs:
    names: AwsNames
    section: StackPolicy
    backup: BackupPolicy
    account: str
    store: Store
    replica: Store | None
    logs: Sequence[Log]
    """What the auditor reads: the trail's bucket, and the archive's access log."""
    boundary_arn: pulumi.Input[str]
    protect: bool
    github_arn: pulumi.Input[str] | None = None
    """Of the account's identity provider for GitHub, if it is there already; None: it is made where the policy has
    `github`. An account can have only one."""


class Access(pulumi.ComponentResource):
    """PolicyFault if there are more environments than fit into a role, before anything is declared."""

    roles: Mapping[Identity, aws.iam.Role]
    """Without the auditor where the policy names none."""

    def __init__(self, name: str, args: AccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check(args.names, args.section, args.backup, args.account)
        super().__init__("bloom-dr:infra:Access", name, None, opts)
        kept = pulumi.ResourceOptions(parent=self, protect=args.protect, retain_on_delete=args.protect)
        github = _github(args, kept)
        self.roles = {}
        for identity in Identity:
            trusted = trust_of(identity, args.section, stack=args.names.stack, account=args.account, github_arn=github)
            if trusted:
                self.roles[identity] = _role(identity, args, trusted, kept)
        self.register_outputs({})


def _role(
    identity: Identity,
    args: AccessArgs,
    trusted: Sequence[Statement],
    opts: pulumi.ResourceOptions,
) -> aws.iam.Role:
    role = aws.iam.Role(
        identity.value,
        name=args.names.role(identity),
        description=_DESCRIPTION[identity],
        assume_role_policy=document(trusted),
        max_session_duration=_longest_session(identity, args.backup),
        permissions_boundary=args.boundary_arn,
        opts=opts,
    )
    aws.iam.RolePolicy(
        identity.value, name=identity.value, role=role.name, policy=document(_rights(identity, args)), opts=opts
    )
    return role


def _rights(identity: Identity, args: AccessArgs) -> list[Statement]:
    if identity is Identity.AUDITOR:
        return auditing(args.logs, args.store.region)
    rights = rights_of(identity, args.store, args.replica, args.section.environments, locks=_locks(args.backup))
    if identity is Identity.WRITER and args.section.runner == "fargate" and len(args.section.environments) >= FEWEST:
        rights += submitting(args.names, args.account, args.store.region)
    return rights


def _locks(backup: BackupPolicy) -> bool:
    return any(backup.tiers[tier].lock_mode for tier in Tier)


def _longest_session(identity: Identity, backup: BackupPolicy) -> int:
    """Seconds. An hour; for the machines as long as a backup may take and an hour more, as what GitHub hands out is not
    renewed. AWS takes from one to twelve hours."""
    if identity not in (Identity.WRITER, Identity.VERIFIER):
        return int(_HOUR.total_seconds())
    hours = min(math.ceil(backup.time_limit / _HOUR) + 1, 12)
    return int((hours * _HOUR).total_seconds())


def _github(args: AccessArgs, opts: pulumi.ResourceOptions) -> pulumi.Input[str] | None:
    """The ARN of who vouches for GitHub's Actions."""
    if args.section.github is None or args.github_arn is not None:
        return args.github_arn
    provider = aws.iam.OpenIdConnectProvider(
        "github", url=f"https://{GITHUB}", client_id_lists=["sts.amazonaws.com"], opts=opts
    )
    return provider.arn


def check(names: AwsNames, section: StackPolicy, backup: BackupPolicy, account: str) -> None:
    """PolicyFault if there are more environments than fit into a role. The ARNs of keys, known later, have one length;
    by AWS's rule white space does not count."""
    key = f"arn:aws:kms:{backup.region}:{account}:key/{'0' * 36}"
    store = Store(backup.bucket, key, backup.region)
    replica = Store(names.bucket(backup.bucket, "replica"), key, backup.region) if section.replica else None
    for identity in Identity:
        rights = rights_of(identity, store, replica, section.environments, locks=_locks(backup))
        rights += submitting(names, account, backup.region) if identity is Identity.WRITER else []
        size = len(json.dumps({"Version": "2012-10-17", "Statement": rights}, separators=(",", ":")))
        if size > INLINE_LIMIT:
            raise PolicyFault(
                f"stacks.{names.stack}.environments names {len(section.environments)}, and the rights of a role for so "
                f"many have {size} characters: AWS takes {INLINE_LIMIT}",
                safe="nothing was declared, and no cloud was called",
                next_step="divide them among several stacks, each with a bucket of its own",
            )
