"""Clusters and kinds of tasks."""

from __future__ import annotations

import json

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, picked


def _create_cluster(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    arn = cloud.client("ecs").create_cluster(clusterName=inputs["name"])["cluster"]["clusterArn"]
    return arn, {"arn": arn}


kind(
    "aws:ecs/cluster:Cluster",
    create=_create_cluster,
    delete=lambda cloud, id_, known: cloud.client("ecs").delete_cluster(cluster=id_) and None,
    replaced_by=frozenset({"name"}),
)


def _create_definition(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    disk = inputs.get("ephemeralStorage")
    made = cloud.client("ecs").register_task_definition(
        **({"ephemeralStorage": {"sizeInGiB": disk["sizeInGib"]}} if disk else {}),
        containerDefinitions=json.loads(inputs["containerDefinitions"]),
        **picked(inputs, {
            "family": "family", "cpu": "cpu", "memory": "memory", "networkMode": "networkMode",
            "requiresCompatibilities": "requiresCompatibilities", "taskRoleArn": "taskRoleArn",
            "executionRoleArn": "executionRoleArn", "volumes": "volumes",
        }),
    )["taskDefinition"]  # fmt: skip
    arn = made["taskDefinitionArn"]
    return inputs["family"], {
        "arn": arn,
        "revision": made["revision"],
        "arnWithoutRevision": arn.rsplit(":", 1)[0],
    }


def _delete_definition(cloud: Cloud, id_: str, known: Properties) -> None:
    if not known.get("skipDestroy"):
        cloud.client("ecs").deregister_task_definition(taskDefinition=known["arn"])


kind(  # no update: each change is a new revision
    "aws:ecs/taskDefinition:TaskDefinition",
    create=_create_definition,
    delete=_delete_definition,
)
