"""Customer keys (KMS). Each belongs to one purpose, and says itself who may use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
import pulumi_aws as aws

Statement = Mapping[str, Any]
"""One statement of a policy document, in AWS's words. Values may be Outputs."""


def document(statements: Sequence[Statement]) -> pulumi.Output[str]:
    """A policy document. The order is kept, so that a second `up` finds no change."""
    whole = {"Version": "2012-10-17", "Statement": list(statements)}
    return pulumi.Output.json_dumps(whole, sort_keys=True)


def customer_key(
    name: str,
    *,
    alias: str,
    purpose: str,
    account: str,
    also: Sequence[Statement] = (),
    deletion_days: int = 30,
    opts: pulumi.ResourceOptions,
) -> aws.kms.Key:
    """A key that rotates every year and waits `deletion_days` before it is gone, with its alias.

    Its policy leaves who may use it to the account's identities, plus `also` (for services, which have none). `opts`
    hold for both; protect belongs in there, as whatever is sealed with the key is lost with it (C17).
    """
    owner = {
        "Sid": "OwnedByTheAccount",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
    key = aws.kms.Key(
        name,
        description=purpose,
        enable_key_rotation=True,
        deletion_window_in_days=deletion_days,
        policy=document([owner, *also]),
        opts=opts,
    )
    aws.kms.Alias(name, name=alias, target_key_id=key.key_id, opts=opts)
    return key
