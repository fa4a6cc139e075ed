"""The whole stack, as the policy of this project describes it: applied to moto, and refused where it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pulumi
import pytest

from infra.program import provision
from infra.settings import Settings
from runbooks.model.errors import PolicyFault
from tests.infra.applying import Stack, apply
from tests.infra.cloud import Cloud

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/bloom-dr@sha256:" + "0" * 64
URL = "https://events.pagerduty.com/integration/0123456789abcdef/enqueue"
CONFIG = {"bloom-dr:image": IMAGE, "bloom-dr:pagerdutyUrl": URL}


ROOT = Path(__file__).resolve().parents[2]
KEYS = """
[backup.encryption]
method = "age"
recipients = ["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"]
"""


def program() -> None:
    provision(Settings.read(pulumi.Config("bloom-dr"), pulumi.get_stack()))


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """The example, with somebody who can open the backups."""
    path = tmp_path / "policy.toml"
    path.write_text((ROOT / "policy.toml").read_text() + KEYS)
    return path


def up(cloud: Cloud, policy: Path, stack: str = "production", config: Mapping[str, str] = CONFIG) -> Stack:
    config = {**config, "bloom-dr:policy": str(policy)}
    return apply(cloud, program, config, secret=("bloom-dr:pagerdutyUrl",), stack=stack)


@pytest.mark.parametrize("name", ["production", "staging", "development"])
def test_each_stack_of_the_policy_is_provisioned_whole(cloud: Cloud, policy: Path, name: str) -> None:
    stack = up(cloud, policy, name)
    buckets = {each["Name"] for each in cloud.client("s3").list_buckets()["Buckets"]}
    assert stack.exported["bucket"] in buckets
    assert set(stack.exported["roles"]) >= {"writer", "verifier", "pruner", "restorer", "drill"}
    assert cloud.client("cloudtrail").describe_trails()["trailList"]
    scheduled = cloud.client("scheduler").list_schedules()["Schedules"]
    assert bool(scheduled) is (name == "production")


def test_what_a_recovery_needs_is_protected_and_stays_when_pulumi_lets_it_go(cloud: Cloud, policy: Path) -> None:
    """Destroy takes what is not protected first, and only then fails."""
    stack = up(cloud, policy)
    held = {
        "aws:s3/bucket:Bucket", "aws:kms/key:Key", "aws:iam/role:Role", "aws:cloudtrail/trail:Trail",
        "aws:sns/topic:Topic", "aws:secretsmanager/secret:Secret", "aws:iam/policy:Policy", "aws:sqs/queue:Queue",
        "aws:s3/bucketPolicy:BucketPolicy", "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        "pulumi-python:dynamic/neon:Posture",
    }  # fmt: skip
    for token in held:
        assert stack.of(token), token
        for each in stack.of(token):
            assert each.protect, f"{token} {each.name}"
            assert each.retain, f"{token} {each.name}"
    schedules = stack.of("aws:scheduler/schedule:Schedule")
    assert schedules
    assert all(each.protect and not each.retain for each in schedules), "one that the policy drops has to stop"


def test_c28_secrets_get_other_names_where_the_old_ones_wait_for_deletion(cloud: Cloud, policy: Path) -> None:
    up(cloud, policy, config=CONFIG | {"bloom-dr:secretSuffix": "2"})
    names = {each["Name"] for each in cloud.client("secretsmanager").list_secrets()["SecretList"]}
    assert names
    assert all(name.endswith("-2") for name in names)


def test_what_is_secret_is_a_secret_in_the_state(cloud: Cloud, policy: Path) -> None:
    stack = up(cloud, policy)
    told = [each for each in stack.declared.values() if URL in str(each.inputs)]
    assert told
    assert all("endpoint" in each.secrets for each in told)


def test_c27_a_second_declaration_is_the_first_again(cloud: Cloud, policy: Path) -> None:
    def inputs(stack: Stack) -> dict[str, str]:
        return {each.urn: str(each.inputs) for each in stack.declared.values()}

    first = inputs(up(cloud, policy))
    cloud.reset()
    again = inputs(up(cloud, policy))
    # moto gives keys, networks and roles new ids each time.
    assert first.keys() == again.keys()
    assert [urn for urn in first if len(first[urn]) != len(again[urn])] == []


@pytest.mark.parametrize(
    ("changed", "config", "said"),
    [
        (("s3_days = 365", "s3_days = 30"), {}, "backup.tiers.weekly.s3_days"),
        (("s3_days = 90", 's3_days = "90"'), {}, "backup.tiers.daily.s3_days"),
        (("[backup.tiers.weekly]", "[backup.tiers.wekly]"), {}, "backup.tiers.wekly"),
        (('bucket = "bloom-backups"', 'bucket = "Bloom_Backups"'), {}, "backup.bucket"),
        (('page = { kind = "pagerduty" }', 'page = { kind = "email" }'), {}, "stacks.production.alerts.page"),
        (('region = "us-west-2"', 'region = "us-east-1"'), {}, "stacks.production.replica.region"),
        (('region = "us-east-1"', 'region = "eu-west-1"'), {}, "backup.region"),
        ((KEYS, ""), {}, "backup.encryption"),
        (("", ""), {"bloom-dr:image": "bloom-dr:latest"}, "bloom-dr:image"),
        (("", ""), {"bloom-dr:image": ""}, "bloom-dr:image"),
        (("", ""), {"bloom-dr:pagerdutyUrl": "http://pager"}, "bloom-dr:pagerdutyUrl"),
        (("", ""), {"bloom-dr:rotate": "yes"}, "bloom-dr:rotate"),
        (("", ""), {"bloom-dr:githubProvider": "github"}, "bloom-dr:githubProvider"),
        (("", ""), {"bloom-dr:secretSuffix": "-2"}, "bloom-dr:secretSuffix"),
    ],
)
def test_what_is_wrong_is_refused_with_its_field_and_nothing_is_declared(
    cloud: Cloud, policy: Path, changed: tuple[str, str], config: dict[str, str], said: str
) -> None:
    text = policy.read_text()
    assert changed[0] in text
    policy.write_text(text.replace(*changed, 1))
    with pytest.raises(PolicyFault) as refusal:
        up(cloud, policy, config=CONFIG | config)
    assert said in f"{refusal.value} {refusal.value.next_step}"
    assert "was called" in refusal.value.safe or "nothing" in refusal.value.safe
    assert cloud.client("iam").list_policies(Scope="Local")["Policies"] == []


def test_a_stack_that_the_policy_does_not_know_is_refused_with_those_it_knows(cloud: Cloud, policy: Path) -> None:
    with pytest.raises(PolicyFault, match=r"stacks.prodution.*did you mean"):
        up(cloud, policy, "prodution")


def test_a_machine_elsewhere_writes_or_verifies_and_never_both(cloud: Cloud, policy: Path) -> None:
    hosts = {of: f"arn:aws:iam::111122223333:role/{of}" for of in ("writer", "verifier")}
    lines = "".join(f'{of}_hosts = ["{arn}"]\n' for of, arn in hosts.items())
    policy.write_text(policy.read_text().replace("[stacks.production]\n", f"[stacks.production]\n{lines}"))
    up(cloud, policy)
    iam = cloud.client("iam")
    for role in iam.list_roles()["Roles"]:
        trust = str(iam.get_role(RoleName=role["RoleName"])["Role"]["AssumeRolePolicyDocument"])
        for of, arn in hosts.items():
            assert (arn in trust) is (role["RoleName"] == f"bloom-dr-production-{of}")
