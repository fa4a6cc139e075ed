"""C32: who read, deleted or changed what is written down where they cannot reach it, and the worst of it is counted."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Any

import pulumi
import pytest

from infra.audit import LOG_DAYS, Audit, AuditArgs
from infra.audit_bucket import KEPT_DAYS, LOCKED_DAYS
from infra.boundary import boundary
from infra.counted import LONGEST, MOST_FILTERS, check, counted, keys_disarmed
from infra.rights import Store
from runbooks.model.aws_names import AwsNames
from runbooks.model.errors import PolicyFault
from runbooks.model.metrics import DELETE_ATTEMPTED, RESTORER_ASSUMED, ROTATION_FAILED, TRAIL_CHANGED
from tests.infra import kinds
from tests.infra.applying import Stack, apply
from tests.infra.archive_ground import AUDIT, BUCKET, NAMES, REPLICA
from tests.infra.cloud import ACCOUNT, REGION, Cloud
from tests.infra.log_pattern import matches

KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
STORES = (Store(BUCKET, KEY, REGION), Store(REPLICA, KEY.replace("1111", "9999"), "us-west-2"))
TRAIL = f"arn:aws:cloudtrail:{REGION}:{ACCOUNT}:trail/{NAMES.trail}"
LOG_DAYS_OF_AWS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288)
ALL_COUNTED = {"DeleteAttempted", "RestorerAssumed", "TrailChanged", "RotationFailed"}


def audited(cloud: Cloud, *, protect: bool = True) -> Stack:
    def program() -> None:
        made = Audit(
            "audit",
            AuditArgs(
                names=NAMES,
                environments=("production", "billing"),
                stores=STORES,
                account=ACCOUNT,
                region=REGION,
                boundary_arn=boundary(NAMES, BUCKET, ACCOUNT, protect=protect),
                protect=protect,
            ),
        )
        for name in ("bucket_arn", "log_group_name", "trail_arn", "key_arn"):
            pulumi.export(name, getattr(made, name))

    return apply(cloud, program, {})


@pytest.fixture(scope="module")
def account(_account: Cloud) -> Cloud:
    """One for the whole file: its tests only look."""
    _account.reset()
    return _account


@pytest.fixture(scope="module")
def stack(account: Cloud) -> Stack:
    return audited(account)


# --- the trail --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stack")
def test_c32_the_trail_records_all_regions_and_proves_its_own_files(account: Cloud) -> None:
    trail = account.client("cloudtrail").get_trail(Name=NAMES.trail)["Trail"]
    assert trail["IsMultiRegionTrail"]
    assert trail["IncludeGlobalServiceEvents"], "or nobody would see who became restorer"
    assert trail["LogFileValidationEnabled"]
    assert trail["TrailARN"] == TRAIL
    assert account.client("cloudtrail").get_trail_status(Name=NAMES.trail)["IsLogging"]


def logged(selectors: list[dict[str, Any]], category: str, arn: str, *, read_only: str) -> bool:
    """Whether an event is recorded, by CloudTrail's rules for advanced selectors: all fields of one of them."""
    event = {"eventCategory": category, "resources.type": "AWS::S3::Object", "resources.ARN": arn,
             "readOnly": read_only}  # fmt: skip
    return any(
        all(
            event[field["Field"]] in field.get("Equals", [])
            or any(event[field["Field"]].startswith(start) for start in field.get("StartsWith", []))
            for field in selector["FieldSelectors"]
        )
        for selector in selectors
    )


@pytest.mark.usefixtures("stack")
def test_c32_reads_and_writes_of_backups_are_recorded_and_the_trails_own_bucket_is_not(account: Cloud) -> None:
    selectors = account.client("cloudtrail").get_event_selectors(TrailName=NAMES.trail)["AdvancedEventSelectors"]
    for read_only in ("true", "false"):
        for bucket in (BUCKET, REPLICA):
            assert logged(selectors, "Data", f"arn:aws:s3:::{bucket}/production/x", read_only=read_only)
        assert logged(selectors, "Management", "", read_only=read_only)
        assert not logged(selectors, "Data", f"arn:aws:s3:::{AUDIT}/AWSLogs/x", read_only=read_only)
        assert not logged(selectors, "Data", f"arn:aws:s3:::{BUCKET}-of-others/x", read_only=read_only)
    writes_only = [*selectors[:1], {"FieldSelectors": [*selectors[1]["FieldSelectors"],
                                                       {"Field": "readOnly", "Equals": ["false"]}]}]  # fmt: skip
    assert not logged(writes_only, "Data", f"arn:aws:s3:::{BUCKET}/production/x", read_only="true")


def test_the_trail_waits_for_what_lets_it_write(stack: Stack) -> None:
    trail = stack["aws:cloudtrail/trail:Trail", "trail"]
    for token, name in (
        ("aws:s3/bucketPolicy:BucketPolicy", "audit"),
        ("aws:iam/rolePolicy:RolePolicy", "trail"),
        ("aws:kms/key:Key", "audit"),
    ):
        assert stack.needs(trail, stack[token, name])


# --- where it goes ----------------------------------------------------------------------------------------------------


def allowed(statements: list[dict[str, Any]], action: str) -> list[dict[str, Any]]:
    return [each for each in statements if each["Effect"] == "Allow" and action in each["Action"]]


@pytest.mark.usefixtures("stack")
def test_c32_only_this_trail_may_write_to_its_bucket(account: Cloud) -> None:
    s3 = account.client("s3")
    statements = json.loads(s3.get_bucket_policy(Bucket=AUDIT)["Policy"])["Statement"]
    (write,), (look,) = allowed(statements, "s3:PutObject"), allowed(statements, "s3:GetBucketAcl")
    for each in (write, look):
        assert each["Principal"] == {"Service": "cloudtrail.amazonaws.com"}
        assert each["Condition"]["StringEquals"]["aws:SourceArn"] == TRAIL
    assert write["Resource"] == [f"arn:aws:s3:::{AUDIT}/AWSLogs/{ACCOUNT}/*"]
    assert [each["Sid"] for each in statements if each["Effect"] == "Deny"] == ["TlsOnly"]
    assert len(statements) == 3
    assert all(s3.get_public_access_block(Bucket=AUDIT)["PublicAccessBlockConfiguration"].values())


@pytest.mark.usefixtures("stack")
def test_c32_what_was_logged_is_locked_and_then_really_ends(account: Cloud) -> None:
    s3 = account.client("s3")
    assert s3.get_bucket_versioning(Bucket=AUDIT)["Status"] == "Enabled"
    lock = s3.get_object_lock_configuration(Bucket=AUDIT)["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert (lock["Mode"], lock["Days"]) == ("GOVERNANCE", LOCKED_DAYS)
    logs, markers = s3.get_bucket_lifecycle_configuration(Bucket=AUDIT)["Rules"]
    assert logs["Expiration"]["Days"] == KEPT_DAYS > LOCKED_DAYS
    assert logs["NoncurrentVersionExpiration"]["NoncurrentDays"] == 1
    assert markers["Expiration"] == {"ExpiredObjectDeleteMarker": True}
    assert logs["Filter"] == markers["Filter"] == {"Prefix": ""}, "AWS takes no marker rule with a tag"


def test_the_key_seals_for_this_trail_and_this_log_only(account: Cloud, stack: Stack) -> None:
    kms = account.client("kms")
    key = kms.describe_key(KeyId=NAMES.key_alias("audit"))["KeyMetadata"]["KeyId"]
    policy = kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]
    by_sid = {each["Sid"]: each for each in json.loads(policy)["Statement"]}
    assert by_sid["TrailSeals"]["Condition"]["StringEquals"] == {"aws:SourceArn": TRAIL}
    group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{NAMES.trail_log_group}"
    assert by_sid["LogSeals"]["Condition"]["ArnEquals"] == {"kms:EncryptionContext:aws:logs:arn": group}
    assert by_sid["LogSeals"]["Principal"] == {"Service": f"logs.{REGION}.amazonaws.com"}
    assert account.client("cloudtrail").get_trail(Name=NAMES.trail)["Trail"]["KmsKeyId"] == stack.exported["key_arn"]


@pytest.mark.usefixtures("stack")
def test_the_log_in_cloudwatch_is_sealed_ends_and_can_be_written_by_the_trail_alone(account: Cloud) -> None:
    (group,) = account.client("logs").describe_log_groups(logGroupNamePrefix=NAMES.trail_log_group)["logGroups"]
    assert group["retentionInDays"] == LOG_DAYS
    assert LOG_DAYS in LOG_DAYS_OF_AWS, "AWS takes no other number"
    assert group["kmsKeyId"]
    trail = account.client("cloudtrail").get_trail(Name=NAMES.trail)["Trail"]
    assert trail["CloudWatchLogsLogGroupArn"] == f"{group['arn'].removesuffix(':*')}:*"
    iam = account.client("iam")
    role = iam.get_role(RoleName=NAMES.service_role("trail"))["Role"]
    assert role["Arn"] == trail["CloudWatchLogsRoleArn"]
    assert role["PermissionsBoundary"]["PermissionsBoundaryArn"].endswith(NAMES.boundary)
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert (trust["Principal"], trust["Action"]) == ({"Service": "cloudtrail.amazonaws.com"}, "sts:AssumeRole")
    assert "Condition" not in trust, "CloudTrail supports none here, and would refuse the trail"
    rights = iam.get_role_policy(RoleName=role["RoleName"], PolicyName="log")["PolicyDocument"]["Statement"]
    assert [each["Action"] for each in rights] == [["logs:CreateLogStream", "logs:PutLogEvents"]]
    assert [each["Resource"] for each in rights] == [[f"{group['arn'].removesuffix(':*')}:log-stream:*"]]


def test_all_of_it_is_protected(stack: Stack) -> None:
    assert [each.name for each in stack.declared.values() if not each.protect] == []
    filters = {each.urn for each in stack.of("aws:cloudwatch/logMetricFilter:LogMetricFilter")}
    assert {each.urn for each in stack.declared.values() if not each.retain} == filters


# --- what is counted --------------------------------------------------------------------------------------------------


def count(cloud: Cloud, event: dict[str, Any]) -> dict[str, int]:
    """What the filters would count of an event, by series."""
    filters = cloud.client("logs").describe_metric_filters(logGroupName=NAMES.trail_log_group)["metricFilters"]
    found = dict.fromkeys(ALL_COUNTED, 0)
    for each in filters:
        (to,) = each["metricTransformations"]
        found[to["metricName"]] += matches(each["filterPattern"], event) * int(to["metricValue"])
    return {name: number for name, number in found.items() if number}


def role_session(name: str) -> dict[str, Any]:
    return {"type": "AssumedRole", "sessionContext": {"sessionIssuer": {"type": "Role", "userName": name}}}


def kms(name: str, key: str = KEY) -> dict[str, Any]:
    return {"eventSource": "kms.amazonaws.com", "eventName": name, "resources": [{"ARN": key}]}


def s3(name: str, bucket: str = BUCKET, who: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    who = who or {"type": "IAMUser", "userName": "somebody"}
    key = more.pop("key", None)
    parameters = {"bucketName": bucket, **({"key": key} if key else {})}
    return {"eventSource": "s3.amazonaws.com", "eventName": name, "userIdentity": who,
            "requestParameters": parameters, **more}  # fmt: skip


BACKUP = "production/2025/12/bloom_backup_20251203_020000/data.age"
PROBE = "production/.bloom-dr-probe-0123456789abcdef"
DRILLS_PROBE = "production/drills/.bloom-dr-probe-0123456789abcdef"
UP = {"type": "IAMUser", "userName": "pulumi"}
PRUNER, WRITER = role_session("bloom-dr-production-pruner"), role_session("bloom-dr-production-writer")
REFUSED = {"errorCode": "AccessDenied"}


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize(
    ("event", "counts"),
    [
        (s3("DeleteObject", key=BACKUP), 1),
        (s3("DeleteObject", key=BACKUP, **REFUSED), 1),
        (s3("DeleteObject", key=BACKUP, who=WRITER, **REFUSED), 1),
        (s3("DeleteObject", key=BACKUP, who=PRUNER), 0),
        (s3("DeleteObject", key=BACKUP, who=PRUNER, **REFUSED), 1),
        (s3("DeleteObject", key=BACKUP, bucket=REPLICA), 1),
        (s3("DeleteObject", key=BACKUP, bucket="of-others"), 0),
        (s3("DeleteObject", key=PROBE, who=WRITER, **REFUSED), 0),
        (s3("DeleteObject", key=DRILLS_PROBE, who=role_session("bloom-dr-production-drill"), **REFUSED), 0),
        (s3("DeleteObject", key=BACKUP + "/.bloom-dr-prob"), 1),
        (s3("DeleteObjects"), 1),
        (s3("DeleteBucket"), 1),
        (s3("DeleteBucketPolicy"), 1),
        (s3("DeleteBucketReplication"), 1),
        (s3("PutBucketLifecycle"), 1),
        (s3("PutBucketPolicy"), 1),
        (s3("PutBucketPolicy", who=PRUNER), 1),
        (s3("PutBucketPolicy", who=UP, **REFUSED), 1),
        (s3("PutBucketPolicy", bucket=REPLICA), 1),
        (s3("PutBucketPolicy", bucket="of-others"), 0),
        (s3("PutBucketReplication"), 1),
        (s3("PutBucketEncryption"), 1),
        (s3("PutBucketPublicAccessBlock"), 1),
        (s3("PutBucketObjectLockConfiguration"), 1),
        (s3("PutObjectLockConfiguration"), 1),
        (s3("PutBucketVersioning"), 1),
        (s3("PutBucketAcl"), 1),
        (s3("PutBucketTagging"), 0),
        (s3("GetBucketPolicy"), 0),
        (s3("PutObject", key=BACKUP, who=WRITER), 0),
        (s3("GetObject", key=BACKUP), 0),
        (kms("ScheduleKeyDeletion"), 1),
        (kms("DisableKey"), 1),
        (kms("DisableKeyRotation"), 1),
        (kms("PutKeyPolicy"), 1),
        (kms("PutKeyPolicy", STORES[1].key_arn), 1),
        (kms("Decrypt"), 0),
        (kms("EnableKeyRotation"), 0),
        (kms("DisableKey", KEY + "0"), 0),
    ],
)
def test_c32_who_tries_to_delete_backups_or_disarms_what_keeps_them_is_counted(
    account: Cloud, event: dict[str, Any], counts: int
) -> None:
    assert count(account, event) == ({DELETE_ATTEMPTED.name: counts} if counts else {})


@pytest.mark.parametrize("name", ["ScheduleKeyDeletion", "DisableKey", "DisableKeyRotation", "PutKeyPolicy"])
def test_c32_who_disarms_the_key_of_the_audit_trail_is_counted(account: Cloud, stack: Stack, name: str) -> None:
    assert count(account, kms(name, stack.exported["key_arn"])) == {DELETE_ATTEMPTED.name: 1}


def trail(event: str, /, **parameters: Any) -> dict[str, Any]:
    return {"eventSource": "cloudtrail.amazonaws.com", "eventName": event, "requestParameters": parameters}


def logs(name: str, group: str = NAMES.trail_log_group) -> dict[str, Any]:
    return {"eventSource": "logs.amazonaws.com", "eventName": name, "requestParameters": {"logGroupName": group}}


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize(
    ("event", "counts"),
    [
        (trail("StopLogging", name=NAMES.trail), 1),
        (trail("StopLogging", name=TRAIL), 1),
        (trail("DeleteTrail", name=TRAIL), 1),
        (trail("UpdateTrail", name=NAMES.trail), 1),
        (trail("PutEventSelectors", trailName=TRAIL), 1),
        (trail("GetTrail", name=NAMES.trail), 0),
        (trail("StopLogging", name="of-others"), 0),
        (logs("DeleteLogGroup"), 1),
        (logs("DeleteMetricFilter"), 1),
        (logs("PutRetentionPolicy"), 1),
        (logs("CreateLogStream"), 0),
        (logs("DeleteLogGroup", "/of/others"), 0),
        (s3("DeleteBucketPolicy", bucket=AUDIT), 1),
        (s3("PutBucketLifecycle", bucket=AUDIT), 1),
        (s3("PutBucketPolicy", bucket=AUDIT), 1),
        (s3("PutBucketObjectLockConfiguration", bucket=AUDIT), 1),
        (s3("PutBucketTagging", bucket=AUDIT), 0),
        (s3("GetBucketPolicy", bucket=AUDIT), 0),
    ],
)
def test_c32_who_silences_the_trail_is_counted(account: Cloud, event: dict[str, Any], counts: int) -> None:
    assert count(account, event) == ({TRAIL_CHANGED.name: counts} if counts else {})


def assumed(role: str, source: str = "sts.amazonaws.com") -> dict[str, Any]:
    arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    return {"eventSource": source, "eventName": "AssumeRole", "requestParameters": {"roleArn": arn}}


def rotation(name: str, environment: str) -> dict[str, Any]:
    secret = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{NAMES.secret(environment, 'database-url')}-AbCdEf"
    return {"eventSource": "secretsmanager.amazonaws.com", "eventName": name, "requestParameters": None,
            "additionalEventData": {"SecretId": secret}}  # fmt: skip


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize(
    ("event", "found"),
    [
        (assumed("bloom-dr-production-restorer"), {RESTORER_ASSUMED.name: 1}),
        (assumed("bloom-dr-production-writer"), {}),
        (assumed("bloom-dr-production-restorer", "iam.amazonaws.com"), {}),
        (rotation("RotationFailed", "production"), {ROTATION_FAILED.name: 1}),
        (rotation("RotationFailed", "billing"), {ROTATION_FAILED.name: 1}),
        (rotation("RotationFailed", "of-others"), {}),
        (rotation("RotationSucceeded", "production"), {}),
    ],
)
def test_a_restorer_and_a_failed_rotation_are_counted(account: Cloud, event: dict[str, Any], found: Any) -> None:
    assert count(account, event) == found


@pytest.mark.usefixtures("stack")
def test_each_filter_counts_for_one_series_in_the_namespace_of_its_stack(account: Cloud) -> None:
    filters = account.client("logs").describe_metric_filters(logGroupName=NAMES.trail_log_group)["metricFilters"]
    for each in filters:
        assert len(each["filterPattern"]) <= LONGEST
        (to,) = each["metricTransformations"]
        assert (to["metricNamespace"], to["metricValue"]) == ("BloomDR/Audit/production", "1")
        assert not to.get("dimensions")
    assert {each["metricTransformations"][0]["metricName"] for each in filters} == ALL_COUNTED


# --- of any policy: the longest names, and a fleet --------------------------------------------------------------------

LONG = AwsNames("s" * 31, secret_suffix="9" * 12)
LONGEST_BUCKETS = ("b" * 55, "b" * 55 + "-replica")


def patterns(names: AwsNames, environments: list[str]) -> list[str]:
    of_buckets = counted(names, environments, LONGEST_BUCKETS, "b" * 55 + "-audit", ACCOUNT, "ap-southeast-2")
    key = f"arn:aws:kms:ap-southeast-2:{ACCOUNT}:key/mrk-{'0' * 32}"
    return [*(each.pattern for each in of_buckets), keys_disarmed([key] * 3)]


def stars_inside(pattern: str) -> list[str]:
    """Values that CloudWatch would take literally: a `*` stands for anything at the ends only."""
    return [value for value in re.findall(r'"([^"]*)"', pattern) if "*" in value[1:-1]]


def test_a_star_stands_only_at_the_ends_of_a_value_and_no_pattern_is_too_long() -> None:
    assert stars_inside('{ ($.a = "*/*/.probe-*") }')
    assert stars_inside('{ ($.a = "x*y") }')
    assert not stars_inside('{ (($.a = "*/.probe-*") || ($.a = "*") || ($.a = "x*")) }')
    for pattern in patterns(LONG, [f"{'e' * 27}-{each:03}" for each in range(12)]):
        assert stars_inside(pattern) == []
        assert len(pattern) <= LONGEST


def test_a_fleets_rotations_are_counted_with_few_filters_and_each_once() -> None:
    fleet = [f"tenant-{each:03}" for each in range(180)]
    check(NAMES, fleet, ACCOUNT, REGION)
    found = counted(NAMES, fleet, [BUCKET, REPLICA], AUDIT, ACCOUNT, REGION)
    assert len({each.name for each in found}) == len(found) < MOST_FILTERS
    assert all(len(each.pattern) <= LONGEST for each in found)
    for environment in fleet:
        hits = [each for each in found if matches(each.pattern, rotation("RotationFailed", environment))]
        assert [each.series for each in hits] == [ROTATION_FAILED]
    assert (
        counted(NAMES, fleet, [BUCKET], AUDIT, ACCOUNT, REGION)[:5]
        == counted(NAMES, fleet[:1], [BUCKET], AUDIT, ACCOUNT, REGION)[:5]
    )


def test_a_fleet_with_more_filters_than_a_log_group_takes_is_refused_by_its_field() -> None:
    fleet = [f"tenant-{each:04}" for each in range(2000)]

    def filters(number: int) -> int:
        return len(counted(NAMES, fleet[:number], [BUCKET], AUDIT, ACCOUNT, REGION)) + 1

    most = bisect_right(range(800), MOST_FILTERS, key=filters) - 1
    assert most > 400
    check(NAMES, fleet[:most], ACCOUNT, REGION)
    with pytest.raises(PolicyFault, match=r"stacks\.production\.environments names \d+.* 101 filters") as caught:
        check(NAMES, fleet[: most + 1], ACCOUNT, REGION)
    assert caught.value.next_step


def test_a_field_that_is_not_there_is_neither_equal_nor_unequal() -> None:
    event = {"a": {"b": ["x", {"c": "yes"}]}, "none": None}
    assert matches('{ ($.a.b[1].c = "y*") }', event)
    assert matches('{ ($.a.b[1].c != "n*") }', event)
    assert not matches('{ ($.a.d != "n") }', event)
    assert matches('{ (($.a.d NOT EXISTS) || ($.a.d != "n")) }', event)
    assert not matches('{ (($.a.b[0] = "x") && ($.a.b[2] = "*")) }', event)
    assert not matches('{ ($.none.c = "*") }', event)
    with pytest.raises(AssertionError):
        matches('{ ($.a.d ~ "n") }', event)


# --- other accounts: these empty the one that the tests above look at -------------------------------------------------


def test_a_sandbox_is_gone_when_it_is_destroyed(cloud: Cloud) -> None:
    stack = audited(cloud, protect=False)
    assert not any(each.protect or each.retain for each in stack.declared.values())
    assert stack["aws:s3/bucket:Bucket", "audit"].inputs["forceDestroy"]
    assert not stack.of("aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration")


def test_a_trail_that_is_stopped_or_looks_away_is_seen_by_a_refresh(cloud: Cloud) -> None:
    declared = audited(cloud)["aws:cloudtrail/trail:Trail", "trail"]
    read, trails = kinds.load()[declared.token].read, cloud.client("cloudtrail")
    assert read is not None
    assert read(cloud, declared.id, declared.outputs) == declared.outputs
    trails.stop_logging(Name=NAMES.trail)
    assert (read(cloud, declared.id, declared.outputs) or {})["enableLogging"] is False
    management = {"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]}
    trails.put_event_selectors(TrailName=NAMES.trail, AdvancedEventSelectors=[management])
    assert (read(cloud, declared.id, declared.outputs) or {})["advancedEventSelectors"] == []
