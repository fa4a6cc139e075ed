"""One database: a task of ECS in Fargate. And what ECS and AWS Batch have in common: one container with our image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.keys import Statement
from infra.network import Network
from runbooks.model.aws_names import AwsNames, Identity
from runbooks.model.container import SCRATCH, USER
from runbooks.model.fleet import Job, Routine

CONTAINER = "runbook"


@dataclass(frozen=True)
class Size:
    """Fargate knows certain pairs only."""

    cpu: int
    """1024 are one processor."""
    memory: int
    """MB."""
    disk: int
    """GB below /scratch: 21 to 200."""


SIZES: Mapping[Job, Size] = {
    Job.TAKE: Size(cpu=1024, memory=4096, disk=100),
    Job.JUDGE: Size(cpu=1024, memory=2048, disk=21),
    Job.VERIFY: Size(cpu=2048, memory=8192, disk=200),
}
"""Files of a dump go as soon as they are uploaded; a proof holds a whole decrypted backup and a server."""
ROLES: Mapping[Job, Identity] = {
    Job.TAKE: Identity.WRITER,
    Job.JUDGE: Identity.VERIFIER,
    Job.VERIFY: Identity.VERIFIER,
}


@dataclass(frozen=True)
class Work:
    """What one kind of container is made of."""

    job: Job
    names: AwsNames
    image: str
    region: str
    task_role_arn: pulumi.Input[str]
    execution_role_arn: pulumi.Input[str]
    log_group: pulumi.Input[str]
    secrets: Mapping[str, pulumi.Input[str]]
    """Variable to the ARN of the secret that is in it."""
    command: Sequence[str]
    """What it does when it is started without words: something that only reads."""

    @property
    def size(self) -> Size:
        return SIZES[self.job]

    def container(self) -> dict[str, Any]:
        """What ECS and Batch spell alike."""
        return {
            "image": self.image,
            "command": list(self.command),
            "user": f"{USER}:{USER}",
            "readonlyRootFilesystem": True,
            "mountPoints": [{"sourceVolume": "scratch", "containerPath": SCRATCH, "readOnly": False}],
            "environment": [
                {"name": "AWS_REGION", "value": self.region},
                {"name": "BLOOM_DR_OPERATOR", "value": self.names.job_definition(self.job)},
            ],
            "secrets": [{"name": name, "valueFrom": arn} for name, arn in sorted(self.secrets.items())],
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": self.log_group,
                    "awslogs-region": self.region,
                    "awslogs-stream-prefix": str(self.job),
                },
            },
        }


@dataclass(frozen=True)
class Call:
    """What a schedule asks of AWS."""

    arn: pulumi.Input[str]
    input: Mapping[str, Any]
    ecs: aws.scheduler.ScheduleTargetEcsParametersArgs | None = None


@dataclass(frozen=True)
class Runner:
    """What schedules start."""

    call: Callable[[Routine], Call]
    rights: Sequence[Statement]
    """What whoever starts it has to be allowed."""
    failures: Mapping[str, Any]
    """EventBridge's pattern of what ended badly, or never began."""


def tasks(
    name: str,
    names: AwsNames,
    environment: str,
    works: Mapping[Job, Work],
    network: Network,
    opts: pulumi.ResourceOptions,
) -> Runner:
    """A cluster, and a kind of task for each job."""
    cluster = aws.ecs.Cluster(name, name=names.cluster, opts=opts)
    definitions = {job: _definition(work, opts) for job, work in works.items()}

    def call(routine: Routine) -> Call:
        words = [*routine.of(environment)]
        return Call(
            arn=cluster.arn,
            input={"containerOverrides": [{"name": CONTAINER, "command": words}]},
            ecs=_parameters(definitions[routine.job], network),
        )

    ended_badly = [{"containers": {"exitCode": [{"anything-but": [0]}]}}, {"stopCode": ["TaskFailedToStart"]}]
    return Runner(
        call,
        _rights(cluster, definitions, works),
        {
            "source": ["aws.ecs"],
            "detail-type": ["ECS Task State Change"],
            "detail": {"clusterArn": [cluster.arn], "lastStatus": ["STOPPED"], "$or": ended_badly},
        },
    )


def _rights(
    cluster: aws.ecs.Cluster, definitions: Mapping[Job, aws.ecs.TaskDefinition], works: Mapping[Job, Work]
) -> list[Statement]:
    kinds = [any_revision(each.arn_without_revision) for each in definitions.values()]
    roles = [works[job].task_role_arn for job in (Job.TAKE, Job.VERIFY)]
    executing = works[Job.TAKE].execution_role_arn
    return [
        allow(["ecs:RunTask"], kinds, {"ArnEquals": {"ecs:cluster": cluster.arn}}),
        allow(
            ["iam:PassRole"],
            [*roles, executing],
            {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
        ),
    ]


def _parameters(definition: aws.ecs.TaskDefinition, network: Network) -> aws.scheduler.ScheduleTargetEcsParametersArgs:
    return aws.scheduler.ScheduleTargetEcsParametersArgs(
        task_definition_arn=definition.arn,
        launch_type="FARGATE",
        platform_version="LATEST",
        task_count=1,
        network_configuration=aws.scheduler.ScheduleTargetEcsParametersNetworkConfigurationArgs(
            assign_public_ip=True,
            subnets=list(network.subnet_ids),
            security_groups=[network.security_group_id],
        ),
    )


def _definition(work: Work, opts: pulumi.ResourceOptions) -> aws.ecs.TaskDefinition:
    """Each change is a new revision; the old ones stay."""
    container = {
        **work.container(),
        "name": CONTAINER,
        "essential": True,
        "memory": work.size.memory,
        "stopTimeout": 120,
        "linuxParameters": {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}},
    }
    return aws.ecs.TaskDefinition(
        str(work.job),
        family=work.names.job_definition(work.job),
        requires_compatibilities=["FARGATE"],
        network_mode="awsvpc",
        cpu=str(work.size.cpu),
        memory=str(work.size.memory),
        ephemeral_storage={"size_in_gib": work.size.disk},
        volumes=[{"name": "scratch"}],
        task_role_arn=work.task_role_arn,
        execution_role_arn=work.execution_role_arn,
        container_definitions=pulumi.Output.json_dumps([container], sort_keys=True),
        skip_destroy=True,
        opts=opts,
    )


def allow(
    actions: Sequence[str], resources: Sequence[pulumi.Input[str]], only: Mapping[str, Any] | None = None
) -> Statement:
    """A statement of a policy; `only` under a condition."""
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return statement if only is None else {**statement, "Condition": only}


def any_revision(arn: pulumi.Output[str]) -> pulumi.Output[str]:
    return pulumi.Output.concat(arn, ":*")
