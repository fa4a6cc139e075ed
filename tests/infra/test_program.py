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


def program() -> None:
    provision(Settings.read(pulumi.Config("bloom-dr"), pulumi.get_stack()))


def up(cloud: Cloud, stack: str = "production", config: Mapping[str, str] = CONFIG) -> Stack:
    return apply(cloud, program, config, secret=("bloom-dr:pagerdutyUrl",), stack=stack)


@pytest.mark.parametrize("name", ["production", "staging", "development"])
def test_each_stack_of_the_policy_is_provisioned_whole(cloud: Cloud, name: str) -> None:
    stack = up(cloud, name)
    buckets = {each["Name"] for each in cloud.client("s3").list_buckets()["Buckets"]}
    assert stack.exported["bucket"] in buckets
    assert set(stack.exported["roles"]) >= {"writer", "verifier", "pruner", "restorer", "drill"}
    assert cloud.client("cloudtrail").describe_trails()["trailList"]
    assert len({each.urn for each in stack.declared.values()}) == len(stack.declared)
    scheduled = cloud.client("scheduler").list_schedules()["Schedules"]
    assert bool(scheduled) is (name == "production")
