"""A stack's schedule applied to moto, and what AWS would do when it fires."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.keys import document
from infra.schedule import Schedule, ScheduleArgs
from runbooks.model.aws_names import AwsNames, Identity
from runbooks.model.fleet import Job
from runbooks.model.policy import Environment, NeonEnvironment
from runbooks.model.policy_backup import BackupPolicy
from tests.infra.applying import Stack, apply
from tests.infra.cloud import ACCOUNT, REGION, Cloud

NAMES = AwsNames("production")
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/bloom-dr@sha256:{'ab' * 32}"
RECIPIENT = "age1" + "q" * 58
SECRETS = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:bloom-dr"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
TICKING = {
    "aws:scheduler/schedule:Schedule", "aws:cloudwatch/eventRule:EventRule", "aws:cloudwatch/eventTarget:EventTarget",
}  # fmt: skip
"""Would go on for ever if they were retained when the policy drops them."""
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/{NAMES.prefix}-boundary"


def backup_policy(**settings: Any) -> BackupPolicy:
    encryption = {"method": "age", "recipients": [RECIPIENT]}
    return BackupPolicy.model_validate({"bucket": "bloom-test", "region": REGION, "encryption": encryption} | settings)


def neon(variable: str = "NEON_API_KEY") -> NeonEnvironment:
    return NeonEnvironment.model_validate({
        "project": "quiet-lake-12345678", "database": "neondb", "role": "owner", "promised_window": "1d",
        "api_key_env": variable,
    })  # fmt: skip


def applied(
    cloud: Cloud,
    environments: Mapping[str, Environment],
    *,
    backup: BackupPolicy | None = None,
    image: str = IMAGE,
    names: AwsNames = NAMES,
    protect: bool = True,
) -> Stack:
    """The component alone, with roles as the access component makes them."""
    _boundary(cloud)

    def program() -> None:
        trust = document([{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"},
                           "Action": "sts:AssumeRole"}])  # fmt: skip
        roles = {
            identity: aws.iam.Role(f"role-{identity}", name=names.role(identity), assume_role_policy=trust)
            for identity in (Identity.WRITER, Identity.VERIFIER)
        }
        made = Schedule(
            "schedule",
            ScheduleArgs(
                names=names,
                environments=environments,
                backup=backup or backup_policy(),
                image=image,
                roles=roles,
                boundary_arn=BOUNDARY,
                neon_keys={name: f"{SECRETS}/{name}/neon-api-key-AbCdEf" for name in environments},
                backup_key=f"{SECRETS}/{next(iter(environments))}/backup-key-AbCdEf",
                secret_key_arns=[KEY],
                account=ACCOUNT,
                region=REGION,
                zones=[f"{REGION}a", f"{REGION}b", f"{REGION}c"],
                protect=protect,
            ),
        )
        pulumi.export("deadLetters", made.dead_letters_arn)

    return apply(cloud, program, {})


def _boundary(cloud: Cloud) -> None:
    """moto asks for it when a role names it."""
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    cloud.client("iam").create_policy(PolicyName=BOUNDARY.rsplit("/", 1)[1], PolicyDocument=json.dumps(everything))


def schedules(cloud: Cloud, names: AwsNames = NAMES) -> dict[str, Any]:
    """Name to all that AWS stores of it."""
    scheduler, group = cloud.client("scheduler"), names.schedule_group
    found = scheduler.list_schedules(GroupName=group)["Schedules"]
    return {one["Name"]: scheduler.get_schedule(GroupName=group, Name=one["Name"]) for one in found}


def fire(cloud: Cloud, schedule: Mapping[str, Any]) -> Any:
    """Do what Scheduler does: the answer of ecs.run_task, or of batch.submit_job."""
    target = schedule["Target"]
    asked = json.loads(target["Input"])
    if target["Arn"] == "arn:aws:scheduler:::aws-sdk:batch:submitJob":
        return cloud.client("batch").submit_job(**camel(asked))
    ecs = target["EcsParameters"]
    return cloud.client("ecs").run_task(
        cluster=target["Arn"],
        taskDefinition=ecs["TaskDefinitionArn"],
        count=ecs["TaskCount"],
        launchType=ecs["LaunchType"],
        platformVersion=ecs["PlatformVersion"],
        networkConfiguration=camel(ecs["NetworkConfiguration"]),
        overrides=asked,
    )


def camel(value: Any) -> Any:
    """The keys of a universal target's words, which are PascalCase, as boto3 has them."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: camel(item) for key, item in value.items()}
    return [camel(item) for item in value] if isinstance(value, list) else value


def rights(cloud: Cloud, role: str) -> list[dict[str, Any]]:
    """The statements of a role's policies."""
    iam = cloud.client("iam")
    found = iam.list_role_policies(RoleName=role)["PolicyNames"]
    documents = [iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in found]
    return [statement for each in documents for statement in each["Statement"]]


def task_definition(cloud: Cloud, job: Job) -> dict[str, Any]:
    """The newest, as ECS has it."""
    found = cloud.client("ecs").describe_task_definition(taskDefinition=NAMES.job_definition(job))
    described: dict[str, Any] = found["taskDefinition"]
    return described


def job_definition(cloud: Cloud, job: Job) -> dict[str, Any]:
    """The only active one, as Batch has it."""
    (found,) = cloud.client("batch").describe_job_definitions(
        jobDefinitionName=NAMES.job_definition(job), status="ACTIVE"
    )["jobDefinitions"]
    described: dict[str, Any] = found
    return described


def matches(pattern: dict[str, Any], event: Any) -> bool:
    """As EventBridge documents it: every field, any of its values; of a list of objects any one."""
    if isinstance(event, list):
        return any(matches(pattern, each) for each in event)
    for name, wanted in pattern.items():
        if name == "$or":
            if not any(matches(each, event) for each in wanted):
                return False
        elif name not in event or not _fits(wanted, event[name]):
            return False
    return True


def _fits(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, dict):
        return matches(wanted, value)
    return any(value not in each["anything-but"] if isinstance(each, dict) else value == each for each in wanted)
