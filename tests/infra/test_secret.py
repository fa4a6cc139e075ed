"""The secrets of an environment, and the rotation of one of them, as AWS has them after `pulumi up`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.awslambda_simple.models import LambdaSimpleBackend

from infra.boundary import limits
from infra.secret import LOG_DAYS
from runbooks.model.aws_names import AwsNames
from runbooks.model.errors import PolicyFault
from tests.infra import kinds
from tests.infra.applying import Stack
from tests.infra.cloud import ACCOUNT, REGION, Cloud
from tests.infra.judge import Request, allowed
from tests.infra.kinds import Properties
from tests.infra.rotation_ground import APP, BOUNDARY, NAMES, declared, secret_args

SECRET = "aws:secretsmanager/secret:Secret"
ROTATION = "aws:secretsmanager/secretRotation:SecretRotation"
FUNCTION = "aws:lambda/function:Function"
PERMISSION = "aws:lambda/permission:Permission"
CALLED = "bloom-dr-production-production-rotation"
ROTATOR = f"arn:aws:iam::{ACCOUNT}:role/{CALLED}"
TASKS = f"arn:aws:iam::{ACCOUNT}:role/{NAMES.service_role('execution')}"
OTHERS = {"neon-api-key": [TASKS], "backup-key": [TASKS]}
ALL = ("database-url", "database-admin", *OTHERS)
SEED = json.dumps({"DATABASE_URL": "postgresql://u:p@h-pooler/d", "DATABASE_URL_DIRECT": "postgresql://u:p@h/d"})


@pytest.fixture(scope="module")
def account(_account: Cloud) -> Cloud:
    """For the tests that only look, and come first: the later ones begin with an empty account each."""
    _account.reset()
    return _account


@pytest.fixture(scope="module")
def stack(account: Cloud) -> Stack:
    return declared(account, others=OTHERS)


def policy_of(cloud: Cloud, of: str) -> dict[str, Any]:
    name = NAMES.secret("production", of)
    found = cloud.client("secretsmanager").get_resource_policy(SecretId=name)["ResourcePolicy"]
    read: dict[str, Any] = json.loads(found)
    return read


def asking(who: str, action: str = "secretsmanager:GetSecretValue", **context: str) -> Request:
    arn = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:bloom-dr/production/database-url-AbCdEf"
    return Request(action, arn, {"aws:PrincipalArn": who, "aws:SecureTransport": "true", **context})


EVERYTHING = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
"""What an administrator may by himself."""


@pytest.mark.parametrize("of", ALL)
def test_each_is_sealed_with_the_key_of_its_environment_and_has_no_value(account: Cloud, stack: Stack, of: str) -> None:
    manager = account.client("secretsmanager")
    found = manager.describe_secret(SecretId=NAMES.secret("production", of))
    key = account.client("kms").describe_key(KeyId=NAMES.key_alias("production-database"))["KeyMetadata"]
    assert found["KmsKeyId"] == key["Arn"]
    assert not found.get("VersionIdsToStages"), "a value that Pulumi had put would be in its state"
    assert not found.get("RotationEnabled")


@pytest.mark.parametrize(
    ("of", "readers"),
    [
        ("database-url", {APP, ROTATOR}),
        ("database-admin", {ROTATOR}),
        ("neon-api-key", {TASKS}),
        ("backup-key", {TASKS}),
    ],
)
def test_only_its_readers_read_it(account: Cloud, stack: Stack, of: str, readers: set[str]) -> None:
    policy = policy_of(account, of)
    others = {APP, ROTATOR, TASKS, f"arn:aws:iam::{ACCOUNT}:root", f"arn:aws:iam::{ACCOUNT}:user/admin"} - readers
    assert all(allowed(asking(who), [EVERYTHING], None, policy) for who in readers)
    assert not any(allowed(asking(who), [EVERYTHING], None, policy) for who in others)
    put = "secretsmanager:PutResourcePolicy"
    assert allowed(asking(f"arn:aws:iam::{ACCOUNT}:user/admin", put), [EVERYTHING], None, policy), (
        "nobody is locked out"
    )


@pytest.mark.parametrize("action", ["GetSecretValue", "PutSecretValue", "DescribeSecret", "DeleteSecret"])
def test_nobody_is_answered_without_tls(account: Cloud, stack: Stack, action: str) -> None:
    plain = asking(APP, f"secretsmanager:{action}", **{"aws:SecureTransport": "false"})
    assert not allowed(plain, [EVERYTHING], None, policy_of(account, "database-url"))
    assert allowed(asking(APP, f"secretsmanager:{action}"), [EVERYTHING], None, policy_of(account, "database-url"))


def test_its_key_opens_nothing_except_through_secrets_manager(account: Cloud, stack: Stack) -> None:
    kms = account.client("kms")
    key = kms.describe_key(KeyId=NAMES.key_alias("production-database"))["KeyMetadata"]["Arn"]
    policy = json.loads(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    for action in ("kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom"):
        for service in ("secretsmanager.us-east-1.amazonaws.com", "s3.us-east-1.amazonaws.com", ""):
            context = {"kms:ViaService": service} if service else {}
            found = allowed(Request(action, key, context), [EVERYTHING], None, policy)
            assert found is service.startswith("secretsmanager")
    assert allowed(Request("kms:PutKeyPolicy", key, {}), [EVERYTHING], None, policy)
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]


def rights_of(cloud: Cloud) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the function's role: its own, and the most that any role of the stack may have."""
    found = cloud.client("iam").get_role_policy(RoleName=CALLED, PolicyName="rotation")["PolicyDocument"]
    boundary = {"Statement": limits(NAMES, "bloom-test", ACCOUNT)}
    return found if isinstance(found, dict) else json.loads(found), boundary


@pytest.mark.parametrize(
    ("action", "of", "may"),
    [
        ("DescribeSecret", "database-url", True), ("GetSecretValue", "database-url", True),
        ("PutSecretValue", "database-url", True), ("UpdateSecretVersionStage", "database-url", True),
        ("GetSecretValue", "database-admin", True), ("PutSecretValue", "database-admin", False),
        ("DeleteSecret", "database-url", False), ("PutResourcePolicy", "database-url", False),
        ("RotateSecret", "database-url", False), ("GetSecretValue", "neon-api-key", False),
        ("GetSecretValue", "backup-key", False),
    ],
)  # fmt: skip
def test_the_function_may_do_its_work_and_no_more(
    account: Cloud, stack: Stack, action: str, of: str, may: bool
) -> None:
    rights, boundary = rights_of(account)
    arn = account.client("secretsmanager").describe_secret(SecretId=NAMES.secret("production", of))["ARN"]
    context = {"aws:PrincipalArn": ROTATOR, "aws:SecureTransport": "true"}
    request = Request(f"secretsmanager:{action}", arn, context)
    assert allowed(request, [rights], boundary, policy_of(account, of)) is may


def test_the_function_opens_what_is_sealed_and_writes_its_log(account: Cloud, stack: Stack) -> None:
    rights, boundary = rights_of(account)
    key = account.client("kms").describe_key(KeyId=NAMES.key_alias("production-database"))["KeyMetadata"]["Arn"]
    for action in ("kms:Decrypt", "kms:GenerateDataKey"):
        through = Request(action, key, {"kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com"})
        assert allowed(through, [rights], boundary)
        assert not allowed(Request(action, key, {}), [rights], boundary)
    group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/{CALLED}:log-stream:x"
    for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
        assert allowed(Request(action, group, {}), [rights], boundary)
    (found,) = account.client("logs").describe_log_groups()["logGroups"]
    assert (found["logGroupName"], found["retentionInDays"]) == (f"/aws/lambda/{CALLED}", LOG_DAYS)
    role = account.client("iam").get_role(RoleName=CALLED)["Role"]
    assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == BOUNDARY


def test_c29_only_secrets_manager_on_behalf_of_this_secret_may_call_it(account: Cloud, stack: Stack) -> None:
    found = json.loads(account.client("lambda").get_policy(FunctionName=CALLED)["Policy"])["Statement"]
    secret = stack[SECRET, "production-database-url"].outputs["arn"]
    assert len(found) == 1
    assert found[0]["Principal"] == {"Service": "secretsmanager.amazonaws.com"}
    assert found[0]["Action"] == "lambda:InvokeFunction"
    assert found[0]["Condition"] == {
        "StringEquals": {"AWS:SourceAccount": ACCOUNT}, "ArnLike": {"AWS:SourceArn": secret},
    }  # fmt: skip


def test_it_has_time_enough_and_reserves_nothing_of_a_small_quota(account: Cloud, stack: Stack) -> None:
    """Of the 10 executions that a new account has, AWS lets nothing be reserved."""
    found = account.client("lambda").get_function(FunctionName=CALLED)
    assert "Concurrency" not in found
    assert found["Configuration"]["Timeout"] >= 5 * 30, "an admin's login and two tests, each with its answers"
    assert found["Configuration"]["Runtime"] == "python3.12"
    assert stack.needs(
        stack[FUNCTION, "production-rotation"], stack["aws:iam/rolePolicy:RolePolicy", "production-rotation"]
    )


def test_everything_is_protected_and_outlives_its_stack(stack: Stack) -> None:
    assert [one.name for one in stack.declared.values() if not (one.protect and one.retain)] == []
    assert {one.inputs["recoveryWindowInDays"] for one in stack.of(SECRET)} == {30}


def test_no_input_holds_a_value(stack: Stack) -> None:
    assert not [one for one in stack.declared.values() if "SecretVersion" in one.token]
    assert all(not key.lower().startswith("secretstring") for one in stack.declared.values() for key in one.inputs)


# --- the rotation


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Steps that the function is asked for, instead of running it; and secrets are as if somebody had put a value."""
    found: list[str] = []

    def invoke(_: object, function_name: str, qualifier: object, body: str, *__: object, **___: object) -> bytes:
        found.append(json.loads(body)["Step"])
        return b"null"

    def seeded(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
        made = kind.create(cloud, inputs)
        cloud.client("secretsmanager").put_secret_value(SecretId=made[0], SecretString=SEED)
        return made

    kind = kinds.load()[SECRET]
    monkeypatch.setitem(kinds.TABLE, SECRET, replace(kind, create=seeded))
    monkeypatch.setattr(LambdaSimpleBackend, "invoke", invoke)
    return found


def test_c29_before_the_secret_has_a_value_nothing_rotates(cloud: Cloud, asked: list[str]) -> None:
    stack = declared(cloud, rotates=False)
    assert stack.of(ROTATION) == []
    assert stack[PERMISSION, "production-rotation"], "but all is ready"
    assert asked == []


@pytest.mark.parametrize("days", [90, 30])
def test_c29_the_rotation_is_set_up_and_does_not_begin(cloud: Cloud, asked: list[str], days: int) -> None:
    declared(cloud, rotates=True, rotation_days=days)
    assert asked == ["testSecret"], "AWS only tries it out"
    name = NAMES.secret("production", "database-url")
    found = cloud.client("secretsmanager").describe_secret(SecretId=name)
    assert (found["RotationEnabled"], found["RotationRules"]["AutomaticallyAfterDays"]) == (True, days)
    assert found["RotationLambdaARN"].endswith(f":function:{CALLED}")
    now = cloud.client("secretsmanager").get_secret_value(SecretId=name, VersionStage="AWSCURRENT")
    assert now["SecretString"] == SEED


def test_c29_left_to_its_default_it_would_rotate_at_once(
    cloud: Cloud, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above would notice."""

    def forgotten(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
        return kind.create(cloud, {name: value for name, value in inputs.items() if name != "rotateImmediately"})

    kind = kinds.load()[ROTATION]
    monkeypatch.setitem(kinds.TABLE, ROTATION, replace(kind, create=forgotten))
    declared(cloud, rotates=True)
    assert asked == ["createSecret", "setSecret", "testSecret", "finishSecret"]


def test_c29_it_is_set_up_after_all_that_it_needs(cloud: Cloud, asked: list[str]) -> None:
    stack = declared(cloud, rotates=True)
    rotation = stack[ROTATION, "production-rotation"]
    for token, name in [
        (PERMISSION, "production-rotation"), (FUNCTION, "production-rotation"),
        ("aws:iam/rolePolicy:RolePolicy", "production-rotation"), (SECRET, "production-database-url"),
        (SECRET, "production-database-admin"), ("aws:cloudwatch/logGroup:LogGroup", "production-rotation"),
    ]:  # fmt: skip
        assert stack.needs(rotation, stack[token, name]), f"{token} {name} may come too late"
    assert (rotation.protect, rotation.retain) == (True, True)


# --- names that AWS does not take


LONG = "x" * 31


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"names": AwsNames(LONG), "environment": LONG}, rf"stacks\.{LONG}, environment {LONG}, .* 64 characters"),
        ({"recovery_days": 5}, "restorable for 5 days"),
        ({"recovery_days": 31}, "restorable for 31 days"),
        ({"others": {"backup-key": []}}, "nobody may read the secret backup-key of production"),
    ],
)
def test_what_aws_would_refuse_half_way_is_refused_before_any_call(
    cloud: Cloud, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(PolicyFault, match=told):
        declared(cloud, **settings)
    assert cloud.client("secretsmanager").list_secrets()["SecretList"] == []
    assert cloud.client("kms").list_keys()["Keys"] == []


# --- C28: the name of a deleted secret


def deleted(cloud: Cloud) -> str:
    """As a destroy leaves it, in an account without anything else of the stack."""
    days = secret_args().recovery_days
    inputs = {"name": NAMES.secret("production", "database-url"), "recoveryWindowInDays": days}
    kind = kinds.load()[SECRET]
    arn, _ = kind.create(cloud, inputs)
    cloud.client("secretsmanager").put_secret_value(SecretId=arn, SecretString=SEED)
    kind.delete(cloud, arn, inputs)
    return arn


def test_c28_a_name_that_waits_for_deletion_is_found_and_refused(cloud: Cloud) -> None:
    arn = deleted(cloud)
    manager = cloud.client("secretsmanager")
    assert manager.list_secrets()["SecretList"] == []
    (waiting,) = manager.list_secrets(IncludePlannedDeletion=True)["SecretList"]
    assert (waiting["ARN"], "DeletedDate" in waiting) == (arn, True)
    with pytest.raises(ClientError, match="database-url already exists"):
        declared(cloud)


def test_c28_another_suffix_does_not_wait(cloud: Cloud) -> None:
    deleted(cloud)
    names = AwsNames("production", secret_suffix="2")
    stack = declared(cloud, names=names, others=OTHERS)
    assert {one.inputs["name"] for one in stack.of(SECRET)} == {f"bloom-dr/production/{of}-2" for of in ALL}
    arn = stack[SECRET, "production-database-url"].outputs["arn"]
    (reach,) = [each for each in limits(names, "bloom-test", ACCOUNT) if each["Sid"] == "Secrets"]
    assert allowed(Request("secretsmanager:PutSecretValue", arn, {}), [{"Statement": [reach]}], None)


def test_c28_a_restored_one_still_has_its_value(cloud: Cloud) -> None:
    arn = deleted(cloud)
    manager = cloud.client("secretsmanager")
    manager.restore_secret(SecretId=arn)
    assert manager.get_secret_value(SecretId=arn, VersionStage="AWSCURRENT")["SecretString"] == SEED
    found = kinds.load()[SECRET].read
    assert found is not None
    assert found(cloud, arn, {"name": NAMES.secret("production", "database-url")}) is not None, "pulumi import finds it"


def test_c28_in_the_sandbox_a_name_is_free_at_once(cloud: Cloud) -> None:
    stack = declared(cloud, protect=False, recovery_days=0)
    assert not any(one.protect or one.retain for one in stack.declared.values())
    secret = stack[SECRET, "production-database-url"]
    kind = kinds.load()[SECRET]
    kind.delete(cloud, secret.id, secret.inputs)
    assert kind.create(cloud, secret.inputs)
