"""What is counted in the audit trail: patterns of CloudWatch Logs over the events that CloudTrail writes. Pure.

`!=` is false for a field that is not there, so each stands beside a NOT EXISTS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from infra.rights import PROBES
from runbooks.model.aws_names import AwsNames, Identity
from runbooks.model.errors import PolicyFault
from runbooks.model.metrics import DELETE_ATTEMPTED, RESTORER_ASSUMED, ROTATION_FAILED, TRAIL_CHANGED, Series

LONGEST = 1024
"""Characters of a pattern. AWS's."""
MOST_FILTERS = 100
"""Of a log group. AWS's."""
_DISARMS = (
    "PutBucketAcl", "PutBucketEncryption", "PutBucketLifecycle*", "PutBucketObjectLock*", "PutBucketOwnershipControls",
    "PutBucketPolicy", "PutBucketPublicAccessBlock", "PutBucketReplication", "PutBucketVersioning", "PutObjectLock*",
    "PutPublicAccessBlock",
)  # fmt: skip
"""Who sets one of these takes away what keeps a bucket's objects, or may. Two of them CloudTrail does not call as S3's
interface does, so both names are here. What `Delete*` takes away is counted with the deletions."""
_KEY_DISARMS = ("ScheduleKeyDeletion", "DisableKey", "DisableKeyRotation", "PutKeyPolicy")


@dataclass(frozen=True)
class Counted:
    name: str
    """Of the filter. Several may count for one series."""
    series: Series
    pattern: str


def counted(
    names: AwsNames, environments: Sequence[str], buckets: Sequence[str], audit: str, account: str, region: str
) -> tuple[Counted, ...]:
    """`buckets` with backups; `audit` is the bucket of the trail. Of their keys see `keys_disarmed`."""
    return (
        Counted("delete-attempted", DELETE_ATTEMPTED, _pattern(_deletion(names, buckets))),
        Counted("archive-disarmed", DELETE_ATTEMPTED, _pattern(_disarming(buckets))),
        Counted("restorer-assumed", RESTORER_ASSUMED, _pattern(_restorer(names, account))),
        Counted("trail-changed", TRAIL_CHANGED, _pattern(_trail(names))),
        Counted("trail-log-changed", TRAIL_CHANGED, _pattern(_trail_log(names))),
        Counted("trail-bucket-changed", TRAIL_CHANGED, _pattern(_trail_bucket(audit))),
        *(
            Counted(f"rotation-failed-{number}", ROTATION_FAILED, pattern)
            for number, pattern in enumerate(_rotations(names, environments, account, region), start=1)
        ),
    )


def check(names: AwsNames, environments: Sequence[str], account: str, region: str) -> None:
    """PolicyFault if the trail's log group cannot have as many filters as these environments need."""
    found = len(counted(names, environments, [], "", account, region)) + 1  # that of the keys
    if found > MOST_FILTERS:
        raise PolicyFault(
            f"stacks.{names.stack}.environments names {len(environments)}, and to count their failed rotations the "
            f"audit log would need {found} filters: AWS takes {MOST_FILTERS}",
            safe="nothing was declared, and no cloud was called",
            next_step="divide them among several stacks, each with a bucket of its own",
        )


def keys_disarmed(arns: Sequence[str]) -> str:
    """The pattern for DELETE_ATTEMPTED, once their keys are known: who deletes a bucket's key deletes all that is in
    it, and who changes its policy may do so next."""
    return _pattern(
        _all(
            _is("eventSource", "kms.amazonaws.com"),
            _is("eventName", *_KEY_DISARMS),
            _is("resources[0].ARN", *arns),
        )
    )


def _deletion(names: AwsNames, buckets: Sequence[str]) -> str:
    """By anybody, refused or not: of objects, of the bucket and what protects it.

    Not the pruner's own work, as long as it is let do it. And not the probes, which each backup and each drill tries to
    take away again without the right to.
    """
    pruner = "userIdentity.sessionContext.sessionIssuer.userName"
    return _all(
        _is("eventSource", "s3.amazonaws.com"),
        _is("requestParameters.bucketName", *buckets),
        _is("eventName", "Delete*"),
        _is_not("requestParameters.key", PROBES),
        _any(_is_not(pruner, names.role(Identity.PRUNER)), _is("errorCode", "*")),
    )


def _disarming(buckets: Sequence[str]) -> str:
    """By anybody, refused or not; `pulumi up` too, when it makes or changes them."""
    return _all(
        _is("eventSource", "s3.amazonaws.com"),
        _is("requestParameters.bucketName", *buckets),
        _is("eventName", *_DISARMS),
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
        _is("eventName", "Delete*", *_DISARMS),
    )


def _rotations(names: AwsNames, environments: Sequence[str], account: str, region: str) -> Iterator[str]:
    """As few patterns as hold all environments: a filter for each would be too many for a fleet."""
    place = f"arn:aws:secretsmanager:{region}:{account}:secret"
    secrets = [f"{place}:{names.secret(each, 'database-url')}-*" for each in environments]
    while secrets:
        fits = 1
        while fits < len(secrets) and len(_rotation(secrets[: fits + 1])) <= LONGEST:
            fits += 1
        yield _rotation(secrets[:fits])
        secrets = secrets[fits:]


def _rotation(secrets: Sequence[str]) -> str:
    return _pattern(
        _all(
            _is("eventSource", "secretsmanager.amazonaws.com"),
            _is("eventName", "RotationFailed"),
            _is("additionalEventData.SecretId", *secrets),
        )
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
