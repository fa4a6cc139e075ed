"""Several databases: an array job of AWS Batch on Fargate, one child for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.fargate import SIZES, Call, Runner, Work, allow, any_revision
from infra.network import Network
from runbooks.model.aws_names import AwsNames
from runbooks.model.errors import INTERRUPTED, ArchiveFault, DatabaseUnreachable, NeonFault
from runbooks.model.fleet import Job, Routine
from runbooks.model.freshness import PROVING
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.timetable import VERIFIED

SUBMIT_JOB = "arn:aws:scheduler:::aws-sdk:batch:submitJob"
"""One of Scheduler's universal targets."""
AT_A_TIME = 16
"""So many children run at once; the others wait in the queue."""
ATTEMPTS = 3
TRANSIENT = (NeonFault.exit_code, DatabaseUnreachable.exit_code, ArchiveFault.exit_code, INTERRUPTED)
"""What may be over a moment later. Everything else would only fail again, or is a finding (a proof that failed).

A container that never came to an exit code is tried again, too: that is Batch's own rule.
"""
_SPARE = PROVING + timedelta(minutes=10)
"""For a run to end by itself before it is ended."""
_FARGATE_LIMIT = timedelta(days=14)


def time_limit(job: Job, backup: BackupPolicy) -> timedelta:
    """How long one attempt may take."""
    backups = VERIFIED if job is Job.VERIFY else 1
    return min(backups * backup.time_limit + _SPARE, _FARGATE_LIMIT)


def jobs(
    name: str,
    names: AwsNames,
    environments: Sequence[str],
    works: Mapping[Job, Work],
    network: Network,
    backup: BackupPolicy,
    opts: pulumi.ResourceOptions,
) -> Runner:
    """A queue with its computers, and a kind of job for each job."""
    queue = _queue(name, names, network, opts)
    definitions = {job: _definition(work, backup, opts) for job, work in works.items()}

    def call(routine: Routine) -> Call:
        """In the spelling of AWS's interface, as Scheduler's universal targets want it."""
        return Call(
            arn=SUBMIT_JOB,
            input={
                "JobName": routine.name,
                "JobQueue": queue.arn,
                "JobDefinition": definitions[routine.job].arn,
                "ArrayProperties": {"Size": len(environments)},
                "ContainerOverrides": {"Command": [*routine.child(names.stack, environments)]},
            },
        )

    kinds = [arn for each in definitions.values() for arn in (each.arn_prefix, any_revision(each.arn_prefix))]
    return Runner(
        call,
        [allow(["batch:SubmitJob"], [queue.arn, *kinds])],
        {
            "source": ["aws.batch"],
            "detail-type": ["Batch Job State Change"],
            "detail": {"status": ["FAILED"], "jobQueue": [queue.arn]},
        },
    )


def _queue(name: str, names: AwsNames, network: Network, opts: pulumi.ResourceOptions) -> aws.batch.JobQueue:
    computers = aws.batch.ComputeEnvironment(
        name,
        name=names.job_queue,
        type="MANAGED",
        state="ENABLED",
        compute_resources={
            "type": "FARGATE",
            "max_vcpus": AT_A_TIME * max(size.cpu for size in SIZES.values()) // 1024,
            "subnets": list(network.subnet_ids),
            "security_group_ids": [network.security_group_id],
        },
        opts=opts,
    )
    return aws.batch.JobQueue(
        name,
        name=names.job_queue,
        state="ENABLED",
        priority=1,
        compute_environment_orders=[{"order": 1, "compute_environment": computers.arn}],
        opts=opts,
    )


def _definition(work: Work, backup: BackupPolicy, opts: pulumi.ResourceOptions) -> aws.batch.JobDefinition:
    rule = aws.batch.JobDefinitionRetryStrategyEvaluateOnExitArgs
    again = [rule(action="RETRY", on_exit_code=str(code)) for code in TRANSIENT]
    return aws.batch.JobDefinition(
        str(work.job),
        name=work.names.job_definition(work.job),
        type="container",
        platform_capabilities=["FARGATE"],
        container_properties=pulumi.Output.json_dumps(_container(work), sort_keys=True),
        retry_strategy=aws.batch.JobDefinitionRetryStrategyArgs(
            attempts=ATTEMPTS, evaluate_on_exits=[*again, rule(action="EXIT", on_exit_code="*")]
        ),
        timeout={"attempt_duration_seconds": int(time_limit(work.job, backup).total_seconds())},
        opts=opts,
    )


def _container(work: Work) -> dict[str, Any]:
    return {
        **work.container(),
        "jobRoleArn": work.task_role_arn,
        "executionRoleArn": work.execution_role_arn,
        "resourceRequirements": [
            {"type": "VCPU", "value": str(work.size.cpu // 1024)},
            {"type": "MEMORY", "value": str(work.size.memory)},
        ],
        "ephemeralStorage": {"sizeInGiB": work.size.disk},
        "volumes": [{"name": "scratch"}],
        "networkConfiguration": {"assignPublicIp": "ENABLED"},
        "fargatePlatformConfiguration": {"platformVersion": "LATEST"},
        "linuxParameters": {"initProcessEnabled": True},
    }
