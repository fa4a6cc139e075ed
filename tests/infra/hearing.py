"""C31: from each alarm to somebody who hears it, by what AWS has stored of the way: topic, its policy, its key and its
policy, and a subscription of a kind that the receiver understands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.infra.applying import Stack
from tests.infra.cloud import Cloud

_CHAT = "aws:chatbot/slackChannelConfiguration:SlackChannelConfiguration"
_CLOUDWATCH = "cloudwatch.amazonaws.com"
_KEY_RIGHTS = ("kms:Decrypt", "kms:GenerateDataKey*")


@dataclass(frozen=True)
class Topic:
    policy: Mapping[str, Any]
    key: str | None
    """None: it is not sealed."""
    key_policy: Mapping[str, Any] | None
    """None: a key of AWS's own, whose policy nobody can change."""
    heard_by: Sequence[tuple[str, str]]
    """Protocol and endpoint of each confirmed subscription; `slack` for a channel by way of AWS Chatbot."""


@dataclass(frozen=True)
class Graph:
    alarms: Mapping[str, Mapping[str, Any]]
    """By name, as describe_alarms has them."""
    topics: Mapping[str, Topic]
    """By ARN."""

    @classmethod
    def read(cls, cloud: Cloud, stack: Stack) -> Graph:
        """Out of the account; Slack's channels out of the program, as moto has none."""
        found = cloud.client("cloudwatch").get_paginator("describe_alarms").paginate()
        alarms = {each["AlarmName"]: each for page in found for each in page["MetricAlarms"]}
        arns = {each["TopicArn"] for each in cloud.client("sns").list_topics()["Topics"]}
        chats = [each.inputs for each in stack.of(_CHAT)]
        return cls(alarms, {arn: _topic(cloud, arn, chats) for arn in arns})


def _topic(cloud: Cloud, arn: str, chats: Sequence[Mapping[str, Any]]) -> Topic:
    sns, kms = cloud.client("sns"), cloud.client("kms")
    attributes = sns.get_topic_attributes(TopicArn=arn)["Attributes"]
    key, policy = attributes.get("KmsMasterKeyId"), None
    if key is not None and not key.startswith("alias/aws/"):
        found = kms.describe_key(KeyId=key)["KeyMetadata"]["KeyId"]
        policy = json.loads(kms.get_key_policy(KeyId=found, PolicyName="default")["Policy"])
    heard = [
        (each["Protocol"], each["Endpoint"])
        for each in sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"]
        if each["SubscriptionArn"] != "PendingConfirmation"
    ]
    heard += [("slack", chat["slackChannelId"]) for chat in chats if arn in chat["snsTopicArns"]]
    return Topic(json.loads(attributes["Policy"]), key, policy, heard)


def complaints(graph: Graph, receivers: Mapping[str, tuple[str, str]]) -> list[str]:
    """Why somebody would not hear something. `receivers`: the end of a topic's ARN to protocol and endpoint."""
    return [f"{name}: {why}" for name, alarm in graph.alarms.items() for why in _unheard(alarm, graph, receivers)]


def _unheard(alarm: Mapping[str, Any], graph: Graph, receivers: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    if not alarm.get("ActionsEnabled", True):
        yield "its actions are off"
    for when in ("AlarmActions", "OKActions"):
        actions = alarm.get(when, [])
        if not actions:
            yield f"it has no {when}"
        for action in actions:
            if action not in graph.topics:
                yield f"{action} is no topic"
                continue
            wanted = [receiver for end, receiver in receivers.items() if action.endswith(end)]
            yield from _deaf(graph.topics[action], alarm["AlarmArn"], wanted)


def _deaf(topic: Topic, alarm_arn: str, wanted: Sequence[tuple[str, str]]) -> Iterator[str]:
    if not _lets(topic.policy, "sns:Publish", alarm_arn):
        yield "its topic does not let CloudWatch publish"
    if topic.key is not None and topic.key_policy is None:
        yield "its topic is sealed with AWS's own key, which CloudWatch may not use"
    if topic.key_policy is not None and not all(_lets(topic.key_policy, right, None) for right in _KEY_RIGHTS):
        yield "the key of its topic does not let CloudWatch seal"
    if not wanted or not set(wanted) <= set(topic.heard_by):
        yield f"its topic does not reach {list(wanted)}, only {list(topic.heard_by)}"


def _lets(policy: Mapping[str, Any], action: str, alarm_arn: str | None) -> bool:
    """Whether CloudWatch is allowed it, for this alarm."""
    for each in policy["Statement"]:
        services = each["Principal"].get("Service", []) if isinstance(each["Principal"], dict) else []
        services = [services] if isinstance(services, str) else services
        if each["Effect"] != "Allow" or _CLOUDWATCH not in services or action not in each["Action"]:
            continue
        condition = each.get("Condition", {})
        if not condition:
            return True
        wanted = condition.get("ArnLike", {}).get("aws:SourceArn", "")
        if alarm_arn is not None and list(condition) == ["ArnLike"] and alarm_arn.startswith(wanted.rstrip("*")):
            return True
    return False
