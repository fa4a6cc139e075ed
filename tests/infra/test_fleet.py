"""Several databases: one array job, a child for each, whose command really takes the backup of its own database."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from infra.fargate import ROLES
from infra.fleet import AT_A_TIME, ATTEMPTS, SUBMIT_JOB, time_limit
from runbooks.model.container import KEY_TEXT, SCRATCH
from runbooks.model.errors import BloomError, every_error
from runbooks.model.fleet import Job, order
from tests.infra.applying import Stack
from tests.infra.cloud import ACCOUNT, REGION, Cloud
from tests.infra.schedule_ground import (
    IMAGE,
    NAMES,
    SECRETS,
    TICKING,
    applied,
    backup_policy,
    fire,
    job_definition,
    matches,
    neon,
    rights,
    schedules,
)

ENVIRONMENTS = {"one": neon("KEY_ONE"), "two": neon("KEY_TWO"), "three": neon("KEY_ONE")}


@pytest.fixture(scope="module")
def account(_account: Cloud) -> Cloud:
    """One for the whole file: its tests only look."""
    _account.reset()
    return _account


@pytest.fixture(scope="module")
def stack(account: Cloud) -> Stack:
    return applied(account, ENVIRONMENTS)


COMMANDS = {
    "take-daily": (Job.TAKE, ["--tier", "daily"]),
    "take-weekly": (Job.TAKE, ["--tier", "weekly"]),
    "fresh": (Job.JUDGE, ["--fresh"]),
    "verify": (Job.VERIFY, ["--verify", "7"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_when_it_fires_an_array_job_runs_with_one_child_for_each_database(
    account: Cloud, stack: Stack, name: str
) -> None:
    kind, flags = COMMANDS[name]
    schedule = schedules(account)[name]
    assert schedule["Target"]["Arn"] == SUBMIT_JOB
    job = fire(account, schedule)["jobId"]
    (parent,) = account.client("batch").describe_jobs(jobs=[job])["jobs"]
    assert parent["jobDefinition"] == job_definition(account, kind)["jobDefinitionArn"]
    assert parent["jobQueue"].endswith(f"job-queue/{NAMES.job_queue}")
    assert parent["arrayProperties"]["size"] == 3
    children = account.client("batch").describe_jobs(jobs=[f"{job}:{index}" for index in range(3)])["jobs"]
    assert [child["jobId"] for child in children] == [f"{job}:{index}" for index in range(3)]
    known = ["--stack", "production", "--order", order(["one", "two", "three"])]
    assert children[0]["container"]["command"] == ["backup.fleet", "--child", *known, *flags]


def test_names_are_spelled_as_universal_targets_want_them(account: Cloud, stack: Stack) -> None:
    asked = json.loads(schedules(account)["take-daily"]["Target"]["Input"])
    assert set(asked) == {"JobName", "JobQueue", "JobDefinition", "ArrayProperties", "ContainerOverrides"}
    assert asked["ArrayProperties"] == {"Size": 3}


# --- retries ----------------------------------------------------------------------------------------------------------


def decision(strategy: dict[str, Any], exit_code: int | None) -> str:
    """As AWS documents it: the first rule that fits; without one the job is tried again."""
    for rule in strategy["evaluateOnExit"]:
        wanted = rule["onExitCode"]
        if exit_code is not None and (wanted == "*" or str(exit_code) == wanted):
            return str(rule["action"]).upper()
    return "RETRY"


@pytest.mark.parametrize("job", Job)
def test_only_what_may_be_over_in_a_moment_is_tried_again(account: Cloud, stack: Stack, job: Job) -> None:
    strategy = job_definition(account, job)["retryStrategy"]
    assert strategy["attempts"] == ATTEMPTS
    assert len(strategy["evaluateOnExit"]) <= 5, "AWS takes no more"
    kinds: list[type[BloomError]] = [kind for kind in every_error() if decision(strategy, kind.exit_code) == "RETRY"]
    assert [kind.__name__ for kind in kinds] == ["NeonFault", "DatabaseUnreachable", "ArchiveFault"]
    assert decision(strategy, 130) == "RETRY", "Fargate ends tasks to mend its own machines"
    assert decision(strategy, None) == "RETRY", "no container came up"
    assert {decision(strategy, code) for code in (1, 2, 30, 137, 200, 210)} == {"EXIT"}


def test_an_attempt_is_ended_when_it_should_long_have_ended_itself(account: Cloud, stack: Stack) -> None:
    limits = {one: job_definition(account, one)["timeout"]["attemptDurationSeconds"] for one in Job}
    usual = (5 * 60 + 10) * 60
    assert limits == {Job.TAKE: usual, Job.JUDGE: usual, Job.VERIFY: (7 * 4 * 60 + 70) * 60}
    assert time_limit(Job.VERIFY, backup_policy(time_limit="7d")) == timedelta(days=14), "Fargate's own"


# --- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", Job)
def test_a_child_is_shut_in_as_a_task_is(account: Cloud, stack: Stack, job: Job) -> None:
    found = job_definition(account, job)
    assert found["platformCapabilities"] == ["FARGATE"]
    container = found["containerProperties"]
    assert (container["image"], container["readonlyRootFilesystem"]) == (IMAGE, True)
    assert [mount["containerPath"] for mount in container["mountPoints"]] == [SCRATCH]
    assert container["networkConfiguration"] == {"assignPublicIp": "ENABLED"}
    assert container["jobRoleArn"].endswith(f"role/{NAMES.role(ROLES[job])}")
    assert container["executionRoleArn"].endswith(f"role/{NAMES.service_role('execution')}")
    assert 21 <= container["ephemeralStorage"]["sizeInGiB"] <= 200


def test_children_share_a_neon_key_where_their_environments_do(account: Cloud, stack: Stack) -> None:
    held = {
        job: {one["name"]: one["valueFrom"] for one in job_definition(account, job)["containerProperties"]["secrets"]}
        for job in Job
    }
    keys = {"KEY_ONE": f"{SECRETS}/one/neon-api-key-AbCdEf", "KEY_TWO": f"{SECRETS}/two/neon-api-key-AbCdEf"}
    assert held == {
        Job.TAKE: keys,
        Job.JUDGE: keys,
        Job.VERIFY: {KEY_TEXT: f"{SECRETS}/one/backup-key-AbCdEf"},
    }


def test_so_many_run_at_once_in_the_stacks_own_network(account: Cloud, stack: Stack) -> None:
    (found,) = account.client("batch").describe_compute_environments()["computeEnvironments"]
    resources = found["computeResources"]
    assert (resources["type"], found["type"], found["state"]) == ("FARGATE", "MANAGED", "ENABLED")
    assert resources["maxvCpus"] == 2 * AT_A_TIME
    assert sorted(resources["subnets"]) == sorted(each.id for each in stack.of("aws:ec2/subnet:Subnet"))


# --- rights and failures ----------------------------------------------------------------------------------------------


def test_scheduler_may_submit_these_jobs_to_this_queue(account: Cloud, stack: Stack) -> None:
    found = {statement["Action"][0]: statement for statement in rights(account, NAMES.service_role("scheduler"))}
    assert set(found) == {"batch:SubmitJob", "sqs:SendMessage"}
    batch = f"arn:aws:batch:{REGION}:{ACCOUNT}"
    kinds = [f"{batch}:job-definition/{NAMES.job_definition(job)}" for job in Job]
    assert found["batch:SubmitJob"]["Resource"] == [
        f"{batch}:job-queue/{NAMES.job_queue}",
        *(f"{kind}{revision}" for kind in kinds for revision in ("", ":*")),
    ]


def test_a_child_that_failed_is_a_dead_letter(account: Cloud, stack: Stack) -> None:
    pattern = json.loads(account.client("events").describe_rule(Name=NAMES.stopped_rule)["EventPattern"])
    queue = f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/{NAMES.job_queue}"
    for status, where, dead in (
        ("FAILED", queue, True),
        ("SUCCEEDED", queue, False),
        ("RUNNING", queue, False),
        ("FAILED", f"{queue}-of-others", False),
    ):
        detail = {"status": status, "jobQueue": where, "jobName": "take-daily"}
        event = {"source": "aws.batch", "detail-type": "Batch Job State Change", "detail": detail}
        assert matches(pattern, event) is dead, detail
    (target,) = account.client("events").list_targets_by_rule(Rule=NAMES.stopped_rule)["Targets"]
    assert target["Arn"] == stack.exported["deadLetters"]


def test_a_destroy_by_mistake_stops_no_backup(stack: Stack) -> None:
    own = [one for one in stack.declared.values() if not one.name.startswith("role-")]
    assert {one.token for one in own if not one.retain} == TICKING
    replaced = {"ComputeEnvironment", "JobQueue", "JobDefinition"}
    assert {one.token.rsplit(":", 1)[1] for one in own if not one.protect} == replaced
