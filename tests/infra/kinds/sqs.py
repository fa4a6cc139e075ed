"""Queues."""

from __future__ import annotations

import json

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind

_ATTRIBUTES = {
    "messageRetentionSeconds": "MessageRetentionPeriod",
    "sqsManagedSseEnabled": "SqsManagedSseEnabled",
    "kmsMasterKeyId": "KmsMasterKeyId",
    "visibilityTimeoutSeconds": "VisibilityTimeout",
}


def _attributes(inputs: Properties) -> dict[str, str]:
    given = {theirs: inputs[ours] for ours, theirs in _ATTRIBUTES.items() if inputs.get(ours) is not None}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}


def _create(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    sqs = cloud.client("sqs")
    url = sqs.create_queue(QueueName=inputs["name"], Attributes=_attributes(inputs), tags=inputs.get("tags") or {})[
        "QueueUrl"
    ]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return url, {"arn": arn, "url": url}


def _update(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    cloud.client("sqs").set_queue_attributes(QueueUrl=id_, Attributes=_attributes(inputs))
    return {}


def _read(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    sqs = cloud.client("sqs")
    try:
        found = sqs.get_queue_attributes(QueueUrl=id_, AttributeNames=["All"])["Attributes"]
    except sqs.exceptions.QueueDoesNotExist:
        return None
    days = int(found["MessageRetentionPeriod"])
    return {**known, "messageRetentionSeconds": known.get("messageRetentionSeconds") and days}


kind(
    "aws:sqs/queue:Queue",
    create=_create,
    update=_update,
    read=_read,
    delete=lambda cloud, id_, known: cloud.client("sqs").delete_queue(QueueUrl=id_) and None,
    replaced_by=frozenset({"name"}),
)


def _put_policy(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    policy = inputs["policy"]
    document = policy if isinstance(policy, str) else json.dumps(policy)
    cloud.client("sqs").set_queue_attributes(QueueUrl=inputs["queueUrl"], Attributes={"Policy": document})
    return {}


kind(
    "aws:sqs/queuePolicy:QueuePolicy",
    create=lambda cloud, inputs: (inputs["queueUrl"], _put_policy(cloud, "", inputs)),
    update=_put_policy,
    delete=lambda cloud, id_, known: (
        cloud.client("sqs").set_queue_attributes(QueueUrl=id_, Attributes={"Policy": ""}) and None
    ),
    replaced_by=frozenset({"queueUrl"}),
)
