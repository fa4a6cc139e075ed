"""Other stacks than the usual two: a sandbox, one that grows, an image from elsewhere, the largest there may be."""

from __future__ import annotations

import json

import pytest

from runbooks.model.errors import PolicyFault
from runbooks.model.fleet import Job
from runbooks.model.policy import SandboxEnvironment
from tests.infra.cloud import Cloud
from tests.infra.schedule_ground import (
    NAMES,
    applied,
    backup_policy,
    job_definition,
    neon,
    rights,
    task_definition,
)

ONE = {"one": neon()}
TWO = {**ONE, "two": neon()}


def test_an_image_from_elsewhere_gives_no_rights_at_aws(cloud: Cloud) -> None:
    applied(cloud, ONE, image=f"registry.example.com/bloom-dr@sha256:{'ab' * 32}")
    actions = [action for one in rights(cloud, NAMES.service_role("execution")) for action in one["Action"]]
    assert not [action for action in actions if action.startswith("ecr:")]


def test_a_sandbox_can_be_taken_down(cloud: Cloud) -> None:
    stack = applied(cloud, {"sandbox": SandboxEnvironment(sandbox=True)}, protect=False)
    assert not [one.name for one in stack.declared.values() if one.protect or one.retain]
    assert task_definition(cloud, Job.TAKE)["containerDefinitions"][0]["secrets"] == []


def test_what_fargate_cannot_do_is_refused_before_anything_is_declared(cloud: Cloud) -> None:
    with pytest.raises(PolicyFault, match="local_folder"):
        applied(cloud, ONE, backup=backup_policy(local_folder="backups"))
    assert cloud.client("ec2").describe_vpc_endpoints()["VpcEndpoints"] == []
    assert cloud.client("logs").describe_log_groups()["logGroups"] == []


def test_the_largest_job_definition_stays_within_what_batch_takes(cloud: Cloud) -> None:
    """24 KiB. A hundred keys is what `timetable.check` lets through."""
    applied(cloud, {f"environment-{n:021}": neon(f"{'K' * 60}_{n}") for n in range(100)})
    found = job_definition(cloud, Job.TAKE)["containerProperties"]
    assert len(found["secrets"]) == 100
    assert len(json.dumps(found)) < 24 * 1024


def test_one_database_makes_no_array_and_two_do(cloud: Cloud) -> None:
    """AWS knows no array of one, and moto would take it."""
    one = applied(cloud, ONE)
    assert (len(one.of("aws:batch/jobQueue:JobQueue")), len(one.of("aws:ecs/cluster:Cluster"))) == (0, 1)
    cloud.reset()
    two = applied(cloud, TWO)
    assert (len(two.of("aws:batch/jobQueue:JobQueue")), len(two.of("aws:ecs/cluster:Cluster"))) == (1, 0)


def test_a_second_database_changes_the_schedules_and_replaces_none(cloud: Cloud) -> None:
    """They are protected: a replacement would be refused, and the stack could not grow."""
    one = applied(cloud, ONE)
    cloud.reset()
    two = applied(cloud, TWO)
    kept = {(each.token, each.name) for each in one.declared.values() if each.protect}
    assert kept == {(each.token, each.name) for each in two.declared.values() if each.protect}
    for each in one.of("aws:scheduler/schedule:Schedule"):
        later = two["aws:scheduler/schedule:Schedule", each.name]
        assert (each.inputs["name"], each.inputs["groupName"]) == (later.inputs["name"], later.inputs["groupName"])
