"""Queues, computers and kinds of jobs of AWS Batch."""

from __future__ import annotations

import json
from typing import Any

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, picked

_RESOURCES = {
    "type": "type", "maxVcpus": "maxvCpus", "subnets": "subnets", "securityGroupIds": "securityGroupIds",
}  # fmt: skip


def _service_role(cloud: Cloud) -> str:
    """The one that AWS makes in the account with its first compute environment; moto asks for it."""
    iam = cloud.client("iam")
    if not (found := iam.list_roles(PathPrefix="/aws-service-role/batch.amazonaws.com/")["Roles"]):
        found = [iam.create_service_linked_role(AWSServiceName="batch.amazonaws.com")["Role"]]
    return str(found[0]["Arn"])


def _create_computers(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    made = cloud.client("batch").create_compute_environment(
        computeEnvironmentName=inputs["name"], type=inputs["type"], state=inputs.get("state", "ENABLED"),
        computeResources=picked(inputs["computeResources"], _RESOURCES),
        serviceRole=inputs.get("serviceRole") or _service_role(cloud),
    )  # fmt: skip
    arn = made["computeEnvironmentArn"]
    return inputs["name"], {"arn": arn, "serviceRole": _service_role(cloud), "status": "VALID"}


def _update_computers(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    cloud.client("batch").update_compute_environment(computeEnvironment=id_, state=inputs.get("state", "ENABLED"))
    return {}


kind(
    "aws:batch/computeEnvironment:ComputeEnvironment",
    create=_create_computers,
    update=_update_computers,
    delete=lambda cloud, id_, known: cloud.client("batch").delete_compute_environment(computeEnvironment=id_) and None,
    replaced_by=frozenset({"name", "type"}),
)


def _order(inputs: Properties) -> list[dict[str, Any]]:
    return list(inputs["computeEnvironmentOrders"])


def _create_queue(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    made = cloud.client("batch").create_job_queue(
        jobQueueName=inputs["name"], state=inputs["state"], priority=inputs["priority"],
        computeEnvironmentOrder=_order(inputs),
    )  # fmt: skip
    return made["jobQueueArn"], {"arn": made["jobQueueArn"]}


def _update_queue(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    cloud.client("batch").update_job_queue(
        jobQueue=id_, state=inputs["state"], priority=inputs["priority"], computeEnvironmentOrder=_order(inputs)
    )
    return {}


kind(
    "aws:batch/jobQueue:JobQueue",
    create=_create_queue,
    update=_update_queue,
    delete=lambda cloud, id_, known: cloud.client("batch").delete_job_queue(jobQueue=id_) and None,
    replaced_by=frozenset({"name"}),
)


def _create_definition(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    retry = dict(inputs.get("retryStrategy") or {})
    if rules := retry.pop("evaluateOnExits", None):
        retry["evaluateOnExit"] = rules
    made = cloud.client("batch").register_job_definition(
        jobDefinitionName=inputs["name"], type=inputs["type"], retryStrategy=retry,
        containerProperties=json.loads(inputs["containerProperties"]),
        **picked(inputs, {"platformCapabilities": "platformCapabilities", "timeout": "timeout"}),
    )  # fmt: skip
    arn = made["jobDefinitionArn"]
    return arn, {"arn": arn, "arnPrefix": arn.rsplit(":", 1)[0], "revision": made["revision"]}


def _update_definition(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    """As the provider does: a new revision, and the old one goes."""
    _, added = _create_definition(cloud, inputs)
    cloud.client("batch").deregister_job_definition(jobDefinition=id_)
    return added


kind(
    "aws:batch/jobDefinition:JobDefinition",
    create=_create_definition,
    update=_update_definition,
    delete=lambda cloud, id_, known: (
        cloud.client("batch").deregister_job_definition(jobDefinition=known["arn"]) and None
    ),
    replaced_by=frozenset({"name", "type"}),
)
