"""What the buckets refuse, whoever asks: the owner of the account too, as long as the policy stands. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

from infra.keys import Statement
from infra.rights import Store


def refusals(store: Store, longest_lock: int) -> list[Statement]:
    """Of a bucket with backups: clear text on the way, another key, and a lock longer than the policy's longest.

    That lock is days; 0 refuses every one. A lock in COMPLIANCE cannot be lifted by anybody: one of a hundred years,
    set by who means harm, would be paid for a hundred years.
    """
    return [
        tls_only(store.arn),
        _refuse_puts(store, "KmsOnly", "s3:x-amz-server-side-encryption", "aws:kms"),
        _refuse_puts(store, "OurKeyOnly", "s3:x-amz-server-side-encryption-aws-kms-key-id", store.key_arn),
        _refuse(
            "NoKeyOfTheCaller",
            "s3:PutObject",
            [f"{store.arn}/*"],
            {"Null": {"s3:x-amz-server-side-encryption-customer-algorithm": "false"}},
        ),
        _refuse(
            "NoLockBeyondThePolicy",
            "s3:PutObjectRetention",
            [f"{store.arn}/*"],
            {"NumericGreaterThan": {"s3:object-lock-remaining-retention-days": str(longest_lock)}},
        ),
    ]


def tls_only(bucket_arn: str) -> Statement:
    return _refuse(
        "TlsOnly", "s3:*", [bucket_arn, f"{bucket_arn}/*"], {"Bool": {"aws:SecureTransport": "false"}}
    )  # fmt: skip


def access_logs(bucket_arn: str, of: str, account: str) -> list[Statement]:
    """Of the bucket that takes the access log of the bucket with the ARN `of`."""
    return [
        tls_only(bucket_arn),
        {
            "Sid": "TakesTheLog",
            "Effect": "Allow",
            "Principal": {"Service": "logging.s3.amazonaws.com"},
            "Action": "s3:PutObject",
            "Resource": f"{bucket_arn}/*",
            "Condition": {"ArnLike": {"aws:SourceArn": of}, "StringEquals": {"aws:SourceAccount": account}},
        },
    ]


def _refuse_puts(store: Store, sid: str, header: str, wanted: pulumi.Input[str]) -> Statement:
    """A put that names something else. One that names nothing gets the bucket's default, which is what we want: so
    `Null` has to ask first, as StringNotEquals is true, too, for what is not there."""
    condition = {"Null": {header: "false"}, "StringNotEquals": {header: wanted}}
    return _refuse(sid, "s3:PutObject", [f"{store.arn}/*"], condition)


def _refuse(sid: str, action: str, resources: Sequence[str], condition: Statement) -> Statement:
    return {
        "Sid": sid,
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Action": [action],
        "Resource": list(resources),
        "Condition": condition,
    }
