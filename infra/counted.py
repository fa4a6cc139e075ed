"""What is counted in the audit trail: patterns of CloudWatch Logs over the events that CloudTrail writes. Pure.

`!=` is false for a field that is not there, so each stands beside a NOT EXISTS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infra.rights import PROBES
from runbooks.model.aws_names import AwsNames, Identity
from runbooks.model.metrics import DELETE_ATTEMPTED, RESTORER_ASSUMED, ROTATION_FAILED, TRAIL_CHANGED, Series

LONGEST = 1024
"""Characters of a pattern. AWS's."""
_PROBES = f"*/{PROBES}"
"""Each backup tries to take its probe away again, and has no right to."""


@dataclass(frozen=True)
class Counted:
    name: str
    """Of the filter. Several may count for one series."""
    series: Series
    pattern: str


def counted(
    names: AwsNames, environments: Sequence[str], buckets: Sequence[str], audit: str, account: str, region: str
) -> tuple[Counted, ...]:
    """`buckets` with backups; `audit` is the bucket of the trail. Of their keys see `keys_deleted`."""
    return (
        Counted("delete-attempted", DELETE_ATTEMPTED, _pattern(_deletion(names, buckets))),
        Counted("restorer-assumed", RESTORER_ASSUMED, _pattern(_restorer(names, account))),
        Counted("trail-changed", TRAIL_CHANGED, _pattern(_trail(names))),
        Counted("trail-log-changed", TRAIL_CHANGED, _pattern(_trail_log(names))),
        Counted("trail-bucket-changed", TRAIL_CHANGED, _pattern(_trail_bucket(audit))),
        *(
            Counted(f"rotation-failed-{each}", ROTATION_FAILED, _pattern(_rotation(names, each, account, region)))
            for each in environments
        ),
    )


def keys_deleted(arns: Sequence[str]) -> str:
    """The pattern for DELETE_ATTEMPTED, once their keys are known: who deletes a bucket's key deletes all that is in
    it."""
    return _pattern(
        _all(
            _is("eventSource", "kms.amazonaws.com"),
            _is("eventName", "ScheduleKeyDeletion", "DisableKey"),
            _is("resources[0].ARN", *arns),
        )
    )


def _deletion(names: AwsNames, buckets: Sequence[str]) -> str:
    """By anybody, refused or not: of objects, of the bucket and what protects it; and a lifecycle that ends them.

    Not the pruner's own work, as long as it is let do it, and not the probes.
    """
    pruner = "userIdentity.sessionContext.sessionIssuer.userName"
    return _all(
        _is("eventSource", "s3.amazonaws.com"),
        _is("requestParameters.bucketName", *buckets),
        _is("eventName", "Delete*", "PutBucketLifecycle*"),
        _is_not("requestParameters.key", _PROBES),
        _any(_is_not(pruner, names.role(Identity.PRUNER)), _is("errorCode", "*")),
    )


def _restorer(names: AwsNames, account: str) -> str:
    role = f"arn:aws:iam::{account}:role/{names.role(Identity.RESTORER)}"
    return _all(
        _is("eventSource", "sts.amazonaws.com"),
        _is("eventName", "AssumeRole*"),
        _is("requestParameters.roleArn", role),
    )


def _trail(names: AwsNames) -> str:
    """By its name or its ARN: CloudTrail takes either."""
    return _all(
        _is("eventSource", "cloudtrail.amazonaws.com"),
        _is("eventName", "StopLogging", "DeleteTrail", "UpdateTrail", "PutEventSelectors"),
        _any(_is("requestParameters.name", f"*{names.trail}"), _is("requestParameters.trailName", f"*{names.trail}")),
    )


def _trail_log(names: AwsNames) -> str:
    """Where these patterns themselves stand."""
    return _all(
        _is("eventSource", "logs.amazonaws.com"),
        _is("eventName", "Delete*", "PutRetentionPolicy"),
        _is("requestParameters.logGroupName", names.trail_log_group),
    )


def _trail_bucket(audit: str) -> str:
    """The bucket and its settings. Its objects are not logged, as each log would be logged again: they are locked."""
    return _all(
        _is("eventSource", "s3.amazonaws.com"),
        _is("requestParameters.bucketName", audit),
        _is("eventName", "Delete*", "PutBucketPolicy", "PutBucketLifecycle*", "PutBucketObjectLockConfiguration"),
    )


def _rotation(names: AwsNames, environment: str, account: str, region: str) -> str:
    secret = names.secret(environment, "database-url")
    return _all(
        _is("eventSource", "secretsmanager.amazonaws.com"),
        _is("eventName", "RotationFailed"),
        _is("additionalEventData.SecretId", f"arn:aws:secretsmanager:{region}:{account}:secret:{secret}-*"),
    )


# --- the language -----------------------------------------------------------------------------------------------------


def _pattern(expression: str) -> str:
    return f"{{ {expression} }}"


def _is(field: str, *values: str) -> str:
    """One of them; a `*` at an end of a value stands for anything."""
    return _any(*(f'($.{field} = "{value}")' for value in values))


def _is_not(field: str, value: str) -> str:
    return _any(f"($.{field} NOT EXISTS)", f'($.{field} != "{value}")')


def _any(*expressions: str) -> str:
    return expressions[0] if len(expressions) == 1 else f"({' || '.join(expressions)})"


def _all(*expressions: str) -> str:
    return f"({' && '.join(expressions)})"
