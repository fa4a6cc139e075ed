"""How long backups stay in the bucket, and where: rules from the policy's tiers, by the tags that the runbooks write.

Pure. A rule without tags of ours would reach what others have put there (C19): the only one removes nothing that can
be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import pulumi_aws as aws

from runbooks.model.backup import Tier
from runbooks.model.errors import PolicyFault
from runbooks.model.policy_backup import BackupPolicy, TierPolicy

LEAST_STAY = {"STANDARD_IA": 30, "GLACIER_IR": 90, "GLACIER": 90, "DEEP_ARCHIVE": 180}
"""Days that AWS charges for in any case, for whatever has been there at all."""
COLD = ("GLACIER", "DEEP_ARCHIVE")
"""Uploaded to STANDARD and cooled by the bucket (decision 6); all other classes are uploaded as they are."""
COOLED_AFTER = 1
HIDDEN_DAYS = 30
"""In a bucket with versions the end of an object only hides it. So long can a hidden version be brought back."""
INCOMPLETE_DAYS = 7


@dataclass(frozen=True)
class Rule:
    """One rule, in days from the object's upload. With tags: for objects that have all of them."""

    id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    cools: tuple[int, str] | None = None
    """After so many days, into this storage class."""
    ends: int | None = None
    """After so many days it is hidden by a delete marker, and gone `HIDDEN_DAYS` later."""
    clears: bool = False
    """Takes away delete markers that hide nothing any more, and uploads that were never completed."""

    def arguments(self) -> aws.s3.BucketLifecycleConfigurationRuleArgs:
        """As Pulumi wants it."""
        rule = aws.s3.BucketLifecycleConfigurationRuleArgs(id=self.id, status="Enabled", filter=self._filter())
        if self.cools is not None:
            days, into = self.cools
            rule.transitions = [aws.s3.BucketLifecycleConfigurationRuleTransitionArgs(days=days, storage_class=into)]
        if self.ends is not None:
            rule.expiration = aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(days=self.ends)
            rule.noncurrent_version_expiration = aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
                noncurrent_days=HIDDEN_DAYS
            )
        if self.clears:
            rule.expiration = aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(expired_object_delete_marker=True)
            rule.abort_incomplete_multipart_upload = (
                aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
                    days_after_initiation=INCOMPLETE_DAYS
                )
            )
        return rule

    def _filter(self) -> aws.s3.BucketLifecycleConfigurationRuleFilterArgs:
        if not self.tags:
            return aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix="")
        both = aws.s3.BucketLifecycleConfigurationRuleFilterAndArgs(tags=dict(self.tags))
        return aws.s3.BucketLifecycleConfigurationRuleFilterArgs(and_=both)


def rules(backup: BackupPolicy) -> tuple[Rule, ...]:
    """All rules of the bucket, always in this order. PolicyFault as by `check`."""
    check(backup)
    found = [rule for tier in Tier for rule in _of_tier(tier, backup.tiers[tier], backup.time_limit)]
    return (*found, Rule("leftovers", clears=True))


def _of_tier(tier: Tier, policy: TierPolicy, time_limit: timedelta) -> list[Rule]:
    """The files of a backup end after its manifest, although they were uploaded before it: half a backup is never
    listed. Proofs end by themselves: what proves a backup is as old as that, or younger."""
    ends = policy.s3_days
    margin = math.ceil(time_limit / timedelta(days=1))
    cools = (COOLED_AFTER, policy.storage_class) if policy.storage_class in COLD else None
    data = Rule(f"{tier}-data", _tags(tier, "data"), cools, None if ends is None else ends + margin)
    beside = [Rule(f"{tier}-{part}", _tags(tier, part), ends=ends) for part in ("manifest", "proof")]
    return [rule for rule in (data, *beside) if rule.cools or rule.ends]


def _tags(tier: Tier, part: str) -> dict[str, str]:
    """Of those that `Repository.tags` writes."""
    return {"tier": tier.value, "part": part}


def check(backup: BackupPolicy) -> None:
    """PolicyFault names the tier that ends before the least time its storage class is paid for."""
    for tier in Tier:
        policy = backup.tiers[tier]
        least = LEAST_STAY.get(policy.storage_class, 0) + (COOLED_AFTER if policy.storage_class in COLD else 0)
        if policy.s3_days is not None and policy.s3_days < least:
            raise PolicyFault(
                f"backup.tiers.{tier}.s3_days is {policy.s3_days}, and a backup in {policy.storage_class} is paid for "
                f"until day {least} in any case",
                safe="nothing was declared, and no cloud was called",
                next_step=f"set it to {least} or more, or backup.tiers.{tier}.storage_class to a class without such a "
                "time: STANDARD or INTELLIGENT_TIERING",
            )
