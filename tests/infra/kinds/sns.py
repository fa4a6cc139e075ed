"""Topics, who may publish to them, and who hears of it."""

from __future__ import annotations

import json
from typing import Any

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, tag_list

_TOPIC = {"kmsMasterKeyId": "KmsMasterKeyId", "displayName": "DisplayName", "deliveryPolicy": "DeliveryPolicy"}


def _attributes(inputs: Properties, names: dict[str, str]) -> dict[str, str]:
    return {theirs: str(inputs[ours]) for ours, theirs in names.items() if inputs.get(ours) is not None}


def _create_topic(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    sns = cloud.client("sns")
    arn = sns.create_topic(Name=inputs["name"], Attributes=_attributes(inputs, _TOPIC), Tags=tag_list(inputs))[
        "TopicArn"
    ]
    return arn, {"arn": arn, "owner": cloud.account}


def _update_topic(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    for name, value in _attributes(inputs, _TOPIC).items():
        cloud.client("sns").set_topic_attributes(TopicArn=id_, AttributeName=name, AttributeValue=value)
    return {}


def _topic(cloud: Cloud, arn: str) -> dict[str, Any] | None:
    sns = cloud.client("sns")
    try:
        found: dict[str, Any] = sns.get_topic_attributes(TopicArn=arn)["Attributes"]
    except sns.exceptions.NotFoundException:
        return None
    return found


def _read_topic(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    found = _topic(cloud, id_)
    return None if found is None else {**known, "kmsMasterKeyId": found.get("KmsMasterKeyId")}


kind(
    "aws:sns/topic:Topic",
    create=_create_topic,
    update=_update_topic,
    read=_read_topic,
    delete=lambda cloud, id_, known: cloud.client("sns").delete_topic(TopicArn=id_) and None,
    replaced_by=frozenset({"name"}),
)


def _put_policy(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    cloud.client("sns").set_topic_attributes(
        TopicArn=inputs["arn"], AttributeName="Policy", AttributeValue=inputs["policy"]
    )
    return {"owner": cloud.account}


def _read_policy(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    found = _topic(cloud, known["arn"])
    if found is None:
        return None
    same = json.loads(found["Policy"]) == json.loads(known["policy"])
    return {**known, "policy": known["policy"] if same else found["Policy"]}


kind(
    "aws:sns/topicPolicy:TopicPolicy",
    create=lambda cloud, inputs: (inputs["arn"], _put_policy(cloud, "", inputs)),
    update=_put_policy,
    read=_read_policy,
    replaced_by=frozenset({"arn"}),
)


def _subscribe(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    """Here every one is confirmed at once. At AWS one by e-mail waits for a click."""
    arn = cloud.client("sns").subscribe(
        TopicArn=inputs["topic"], Protocol=inputs["protocol"], Endpoint=inputs["endpoint"], ReturnSubscriptionArn=True
    )["SubscriptionArn"]
    return arn, {"arn": arn, "pendingConfirmation": False, "ownerId": cloud.account}


def _read_subscription(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    sns = cloud.client("sns")
    try:
        found = sns.get_subscription_attributes(SubscriptionArn=id_)["Attributes"]
    except sns.exceptions.NotFoundException:
        return None
    return {**known, "endpoint": found["Endpoint"], "protocol": found["Protocol"]}


kind(
    "aws:sns/topicSubscription:TopicSubscription",
    create=_subscribe,
    update=lambda cloud, id_, inputs: {},
    read=_read_subscription,
    delete=lambda cloud, id_, known: cloud.client("sns").unsubscribe(SubscriptionArn=id_) and None,
    replaced_by=frozenset({"topic", "protocol", "endpoint"}),
)
