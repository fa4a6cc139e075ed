"""Who may do what, and who becomes whom: proved for every request there is, from what IAM and S3 have stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from infra.access import INLINE_LIMIT, check
from runbooks.model.aws_names import Identity
from runbooks.model.errors import PolicyFault
from runbooks.model.fleet import Job
from runbooks.model.metrics import NAMESPACE
from tests.infra.applying import Stack
from tests.infra.archive_ground import (
    AUDIT,
    AUDIT_KEY,
    AUDITOR,
    LOCKED,
    LOGS,
    NAMES,
    OPERATOR,
    REPLICA,
    backup_policy,
    section,
    standing,
)
from tests.infra.cloud import ACCOUNT, REGION, Cloud
from tests.infra.identities import (
    ACCESS_LOG,
    DATA,
    FOREIGN,
    KEY,
    LOG,
    OWN,
    PROOF,
    REPLICA_KEY,
    REPORT,
    THE_BUCKET,
    World,
    in_the_archive,
    seen,
)
from tests.infra.judge import Request, allowed

WRITER, VERIFIER, PRUNER = Identity.WRITER, Identity.VERIFIER, Identity.PRUNER
RESTORER, DRILL, AUDITS = Identity.RESTORER, Identity.DRILL, Identity.AUDITOR
ANYWHERE = "*"

MAY: Mapping[str, Mapping[Identity, tuple[str, ...]]] = {
    "s3:GetObject": {
        WRITER: (DATA, PROOF), VERIFIER: (DATA, PROOF, REPORT), PRUNER: (DATA, PROOF), RESTORER: (DATA, PROOF, REPORT),
        DRILL: (REPORT,), AUDITS: (LOG, ACCESS_LOG),
    },
    "s3:GetObjectVersion": {PRUNER: (DATA,), RESTORER: (DATA,), AUDITS: (LOG,)},
    "s3:GetObjectRetention": {
        WRITER: (DATA,), VERIFIER: (DATA,), PRUNER: (DATA,), RESTORER: (DATA,), DRILL: (REPORT,)
    },
    "s3:ListBucket": dict.fromkeys((WRITER, VERIFIER, PRUNER, RESTORER, DRILL), (THE_BUCKET,)) | {
        AUDITS: (f"arn:aws:s3:::{AUDIT}",)
    },
    "s3:ListBucketVersions": {PRUNER: (THE_BUCKET,), RESTORER: (THE_BUCKET,), AUDITS: (f"arn:aws:s3:::{LOGS}",)},
    "s3:PutObject": {WRITER: (DATA,), VERIFIER: (PROOF,), DRILL: (REPORT,)},
    "s3:PutObjectTagging": {WRITER: (DATA,), VERIFIER: (PROOF,), DRILL: (REPORT,)},
    "s3:PutObjectRetention": {WRITER: (DATA,)},
    "s3:AbortMultipartUpload": {WRITER: (DATA,)},
    "s3:RestoreObject": {RESTORER: (DATA,)},
    "s3:DeleteObjectVersion": {PRUNER: (DATA,)},
    "kms:Decrypt": dict.fromkeys((WRITER, VERIFIER, PRUNER, DRILL), (KEY,)) | {
        RESTORER: (KEY, REPLICA_KEY), AUDITS: (AUDIT_KEY,)
    },
    "kms:GenerateDataKey": dict.fromkeys((WRITER, VERIFIER, DRILL), (KEY,)),
    "cloudwatch:PutMetricData": dict.fromkeys((WRITER, VERIFIER, PRUNER, DRILL), (ANYWHERE,)),
}  # fmt: skip
"""Which actions are needed, by whom and on what. Whoever is not named never has them, on anything."""
NOBODY_MAY = (
    "s3:DeleteObject", "s3:BypassGovernanceRetention", "s3:PutObjectLegalHold", "s3:PutObjectAcl",
    "s3:DeleteObjectTagging", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy", "s3:PutLifecycleConfiguration",
    "s3:PutBucketVersioning", "s3:PutBucketObjectLockConfiguration", "s3:PutEncryptionConfiguration",
    "s3:PutReplicationConfiguration", "s3:PutBucketPublicAccessBlock", "s3:DeleteBucket", "s3:ReplicateDelete",
    "kms:ScheduleKeyDeletion", "kms:DisableKey", "kms:PutKeyPolicy", "kms:CreateGrant", "cloudtrail:StopLogging",
    "cloudtrail:DeleteTrail", "iam:CreateUser", "iam:CreateAccessKey", "iam:AttachRolePolicy", "iam:PutRolePolicy",
    "iam:UpdateAssumeRolePolicy", "iam:PassRole", "iam:DeleteRolePermissionsBoundary", "sts:AssumeRole",
    "secretsmanager:GetSecretValue",
)  # fmt: skip


@pytest.fixture(scope="module")
def account(_account: Cloud) -> Cloud:
    """For the tests that only look, and come first: the later ones begin with an empty account each."""
    _account.reset()
    return _account


@pytest.fixture(scope="module")
def stack(account: Cloud) -> Stack:
    return standing(account, backup=backup_policy(tiers=LOCKED))


@pytest.fixture(scope="module")
def world(account: Cloud, stack: Stack) -> World:
    return seen(account, stack)


# --- proved ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [*MAY, *NOBODY_MAY])
@pytest.mark.parametrize("identity", Identity)
def test_each_may_what_it_needs_and_nothing_else(world: World, identity: Identity, action: str) -> None:
    needed = MAY.get(action, {}).get(identity, ())
    if not needed:
        assert world.counterexample(identity, [action], ["*"]) is None
    for resource in needed:
        assert world.counterexample(identity, [action], [resource], {"aws:SecureTransport": "true"}) is not None
        assert world.may(identity, action, resource)
        if in_the_archive(resource):
            assert world.counterexample(identity, [action], [resource], {"aws:SecureTransport": "false"}) is None
            assert not world.may(identity, action, resource, {"aws:SecureTransport": "false"})


@pytest.mark.parametrize("identity", Identity)
def test_nobody_reaches_another_bucket_or_another_key(world: World, identity: Identity) -> None:
    foreign = [f"{THE_BUCKET}-staging", f"{THE_BUCKET}-staging/*", "arn:aws:s3:::elsewhere/*"]
    assert world.counterexample(identity, ["s3:*"], foreign) is None
    assert world.counterexample(identity, ["kms:*"], ["arn:aws:kms:us-east-1:*:key/another"]) is None


@pytest.mark.parametrize("identity", [WRITER, VERIFIER, PRUNER, DRILL, AUDITS])
def test_nobody_but_the_restorer_reaches_another_environment_or_what_is_not_ours(
    world: World, identity: Identity
) -> None:
    assert world.counterexample(identity, ["s3:*"], [f"{FOREIGN}/*", f"{THE_BUCKET}/evidence/2024.txt"]) is None
    assert world.counterexample(RESTORER, ["s3:GetObject"], [f"{THE_BUCKET}/evidence/2024.txt"]) is not None


def test_each_keeps_to_its_own_objects(world: World) -> None:
    assert world.counterexample(VERIFIER, ["s3:Put*"], [DATA, REPORT]) is None
    assert world.counterexample(DRILL, ["s3:Put*", "s3:Get*"], [f"{OWN}/2*", PROOF]) is None
    assert world.counterexample(WRITER, ["s3:Put*", "s3:Get*"], [REPORT]) is None
    assert world.counterexample(AUDITS, ["s3:*"], [f"{OWN}/*", f"arn:aws:s3:::{REPLICA}/*"]) is None
    assert world.counterexample(RESTORER, ["s3:Put*", "s3:Delete*"], ["*"]) is None


@pytest.mark.parametrize("identity", [WRITER, VERIFIER, PRUNER, RESTORER, DRILL])
def test_the_key_opens_only_by_way_of_s3(world: World, identity: Identity) -> None:
    for service in ("ec2.us-east-1.amazonaws.com", "s3.eu-central-1.amazonaws.com", ""):
        assert world.counterexample(identity, ["kms:*"], [KEY], {"kms:ViaService": service}) is None
    assert not world.may(identity, "kms:Decrypt", KEY, {"kms:ViaService": "ec2.us-east-1.amazonaws.com"})


@pytest.mark.parametrize("identity", [WRITER, VERIFIER, PRUNER, DRILL])
def test_numbers_go_into_our_namespace_only(world: World, identity: Identity) -> None:
    """Else one could be made to hide another's alarm."""
    assert (
        world.counterexample(identity, ["cloudwatch:PutMetricData"], ["*"], {"cloudwatch:namespace": "AWS/EC2"}) is None
    )
    assert (
        world.counterexample(identity, ["cloudwatch:PutMetricData"], ["*"], {"cloudwatch:namespace": NAMESPACE})
        is not None
    )


# --- who becomes whom -----------------------------------------------------------------------------------------------


GITHUB = "token.actions.githubusercontent.com"
TASKS, PROVIDER = "service:ecs-tasks.amazonaws.com", f"federated:arn:aws:iam::{ACCOUNT}:oidc-provider/{GITHUB}"
WEB = "sts:AssumeRoleWithWebIdentity"
RIGHT = {f"{GITHUB}:aud": "sts.amazonaws.com", f"{GITHUB}:sub": "repo:example/bloom-dr:environment:production"}
OURS = {"aws:SourceAccount": ACCOUNT}
MFA, NO_MFA = {"aws:MultiFactorAuthPresent": "true"}, {"aws:MultiFactorAuthPresent": "false"}


@pytest.mark.parametrize("identity", [RESTORER, PRUNER, WRITER, VERIFIER, DRILL])
def test_an_operator_needs_a_second_factor(world: World, identity: Identity) -> None:
    assert world.trusts(identity, OPERATOR, MFA)
    assert not world.trusts(identity, OPERATOR, NO_MFA)


def test_an_auditor_needs_a_second_factor_and_is_nobody_else(world: World) -> None:
    assert world.trusts(AUDITS, AUDITOR, MFA)
    assert not world.trusts(AUDITS, AUDITOR, NO_MFA)
    assert not world.trusts(AUDITS, OPERATOR, {})
    assert not any(world.trusts(identity, AUDITOR, {}) for identity in Identity if identity is not AUDITS)


@pytest.mark.parametrize("identity", Identity)
def test_a_stranger_becomes_nobody(world: World, identity: Identity) -> None:
    for who in (f"arn:aws:iam::{ACCOUNT}:user/intern", "arn:aws:iam::999999999999:root", "service:ec2.amazonaws.com"):
        assert not world.trusts(identity, who, {}, "sts:*")


@pytest.mark.parametrize("identity", Identity)
def test_a_task_becomes_writer_or_verifier_in_this_account_only(world: World, identity: Identity) -> None:
    assert world.trusts(identity, TASKS, OURS) is (identity in (WRITER, VERIFIER))
    assert not world.trusts(identity, TASKS, {"aws:SourceAccount": "999999999999"})


@pytest.mark.parametrize("identity", Identity)
def test_githubs_actions_in_the_stacks_environment_write_verify_and_drill(world: World, identity: Identity) -> None:
    assert world.trusts(identity, PROVIDER, RIGHT, WEB) is (identity in (WRITER, VERIFIER, DRILL))
    for name, wrong in (
        ("sub", "repo:example/bloom-dr:environment:staging"),
        ("sub", "repo:example/bloom-dr:ref:refs/heads/main"),
        ("sub", "repo:evil/bloom-dr:environment:production"),
        ("aud", "https://github.com/example"),
    ):
        assert not world.trusts(identity, PROVIDER, RIGHT | {f"{GITHUB}:{name}": wrong}, WEB)


def test_sessions_are_short_for_people_and_as_long_as_a_backup_for_machines(account: Cloud, stack: Stack) -> None:
    found = {
        identity: account.client("iam").get_role(RoleName=NAMES.role(identity))["Role"]["MaxSessionDuration"]
        for identity in Identity
    }
    hour = 3600
    assert found == {RESTORER: hour, PRUNER: hour, AUDITS: hour, DRILL: hour, WRITER: 5 * hour, VERIFIER: 5 * hour}


def test_there_are_no_users_and_no_keys_that_live_long(world: World, stack: Stack) -> None:
    assert world.gaad["UserDetailList"] == []
    assert not [one for one in stack.declared.values() if "accessKey" in one.token or "user" in one.token.lower()]


# --- the boundary ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", Identity)
def test_with_every_right_there_is_a_role_does_not_go_beyond_the_boundary(world: World, identity: Identity) -> None:
    almighty = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    given = world.given(identity, [almighty])
    never = [
        "s3:DeleteObject", "s3:BypassGovernanceRetention", "s3:PutBucket*", "s3:DeleteBucket*", "s3:PutLifecycle*",
        "s3:PutEncryption*", "s3:PutReplication*", "kms:ScheduleKeyDeletion", "kms:Disable*", "kms:PutKeyPolicy",
        "iam:Create*", "iam:Put*", "iam:Attach*", "iam:Delete*", "iam:Update*", "cloudtrail:*", "sts:*",
        "secretsmanager:Delete*", "logs:Delete*",
    ]  # fmt: skip
    assert given.counterexample(identity, never, ["*"]) is None
    assert given.counterexample(identity, ["s3:*"], [f"{THE_BUCKET}-staging/*"]) is None
    assert given.counterexample(identity, ["iam:PassRole"], [f"arn:aws:iam::{ACCOUNT}:role/admin"]) is None
    assert given.counterexample(identity, ["s3:GetObject"], [DATA]) is not None
    free = replace(given, gaad=json.loads(json.dumps(given.gaad).replace("PermissionsBoundary", "Forgotten")))
    assert free.counterexample(identity, ["iam:CreateUser"], ["*"]) is not None, "without a boundary this is seen"


def test_every_role_has_the_boundary(world: World) -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:policy/{NAMES.boundary}"
    assert {each["PermissionsBoundary"]["PermissionsBoundaryArn"] for each in world.gaad["RoleDetailList"]} == {arn}


# --- C17: who may read also has the key -----------------------------------------------------------------------------


CONTEXT = "kms:EncryptionContext:aws:s3:arn"


def can_open(world: World, identity: Identity) -> bool:
    """As S3 asks: for the object, and KMS for the key; where a bucket has a key, it names the bucket and no object."""
    context = {
        "aws:SecureTransport": "true", "kms:ViaService": f"s3.{REGION}.amazonaws.com", CONTEXT: THE_BUCKET
    }  # fmt: skip
    rights = world.rights(identity)
    asked = (Request("s3:GetObject", DATA, context), Request("kms:Decrypt", world.keys[KEY], context))
    return all(allowed(each, rights, world.boundary, None) for each in asked)


def test_c17_who_may_read_can_also_decrypt(world: World) -> None:
    assert [identity for identity in Identity if can_open(world, identity)] == [WRITER, VERIFIER, PRUNER, RESTORER]


def test_c17_a_restorer_without_the_key_is_caught(world: World) -> None:
    (document,) = world.rights(RESTORER)
    left = [each for each in document["Statement"] if "kms:Decrypt" not in each["Action"]]
    assert not can_open(world.given(RESTORER, [{**document, "Statement": left}]), RESTORER)


@pytest.mark.parametrize(("pinned", "right"), [(f"{THE_BUCKET}/*", False), (THE_BUCKET, True)])
def test_c17_a_condition_on_the_objects_arn_is_caught(world: World, pinned: str, right: bool) -> None:
    (document,) = json.loads(json.dumps(world.rights(RESTORER)))
    for each in document["Statement"]:
        if "kms:Decrypt" in each["Action"]:
            each["Condition"]["StringLike"] = {CONTEXT: pinned}
    assert can_open(world.given(RESTORER, [document]), RESTORER) is right


# --- from here on each test begins with an empty account ------------------------------------------------------------


def test_identity_center_tells_of_no_second_factor_so_none_is_asked_for(cloud: Cloud) -> None:
    there = section(login="identity-center", github=None, auditors=[])
    stack = standing(cloud, there)
    found = seen(cloud, stack)
    assert found.trusts(RESTORER, OPERATOR, {})
    assert "Condition" not in found.role(RESTORER)["AssumeRolePolicyDocument"]["Statement"][0]
    assert not stack.of("aws:iam/openIdConnectProvider:OpenIdConnectProvider")
    assert not [each for each in found.gaad["RoleDetailList"] if each["RoleName"] == NAMES.role(AUDITS)]
    assert not found.trusts(WRITER, PROVIDER, {}, WEB)


def test_a_provider_that_the_account_has_is_not_made_twice(cloud: Cloud) -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{GITHUB}"
    stack = standing(cloud, github_arn=arn)
    assert not stack.of("aws:iam/openIdConnectProvider:OpenIdConnectProvider")
    assert seen(cloud, stack).trusts(WRITER, PROVIDER, RIGHT, WEB)


def test_where_nothing_is_locked_nobody_may_lock(cloud: Cloud) -> None:
    found = seen(cloud, standing(cloud))
    for identity in Identity:
        assert found.counterexample(identity, ["s3:PutObjectRetention"], ["*"]) is None


@pytest.mark.parametrize(("count", "right"), [(150, True), (400, False)])
def test_more_environments_than_fit_into_a_role_are_refused_by_their_field(count: int, right: bool) -> None:
    fleet = section(environments=[f"database-{number:03}" for number in range(count)])
    if right:
        check(NAMES, fleet, backup_policy(), ACCOUNT)
        return
    with pytest.raises(PolicyFault, match=rf"stacks\.production\.environments names 400.*{INLINE_LIMIT}"):
        check(NAMES, fleet, backup_policy(), ACCOUNT)


def test_a_fleet_that_is_taken_fits(cloud: Cloud) -> None:
    """What is counted before is what is stored in the end."""
    found = seen(cloud, standing(cloud, section(environments=[f"database-{number:03}" for number in range(150)])))
    sizes = {
        identity: sum(len(json.dumps(each, separators=(",", ":"))) for each in found.rights(identity))
        for identity in Identity
    }
    assert INLINE_LIMIT / 2 < max(sizes.values()) <= INLINE_LIMIT


def test_a_small_fleet_has_one_writer_for_all_of_it(cloud: Cloud) -> None:
    found = seen(cloud, standing(cloud, section(environments=["production", "staging"])))
    assert found.may(WRITER, "s3:PutObject", DATA)
    assert found.may(WRITER, "s3:PutObject", DATA.replace("production", "staging"))
    assert not found.may(WRITER, "s3:PutObject", DATA.replace("production", "development"))


def test_who_writes_starts_a_fleets_backups_and_no_job_that_opens_them(cloud: Cloud) -> None:
    found = seen(cloud, standing(cloud, section(environments=["production", "staging"])))
    batch = f"arn:aws:batch:us-east-1:{ACCOUNT}"
    queue, take, verify = (
        f"{batch}:{what}" for what in (
            f"job-queue/{NAMES.job_queue}", f"job-definition/{NAMES.job_definition(Job.TAKE)}:3",
            f"job-definition/{NAMES.job_definition(Job.VERIFY)}:3",
        )
    )  # fmt: skip
    assert found.may(WRITER, "batch:SubmitJob", queue)
    assert found.may(WRITER, "batch:SubmitJob", take)
    assert found.may(WRITER, "batch:DescribeJobs", "*")
    assert not found.may(WRITER, "batch:SubmitJob", verify)
    for other in set(Identity) - {WRITER}:
        assert not found.may(other, "batch:SubmitJob", queue)
    cloud.reset()
    alone = seen(cloud, standing(cloud, section(environments=["production"])))
    assert not alone.may(WRITER, "batch:SubmitJob", queue), "one database has no fleet"


def test_everything_of_the_identities_is_protected(cloud: Cloud) -> None:
    stack = standing(cloud)
    assert [one.name for one in stack.declared.values() if not (one.protect and one.retain)] == []
