"""Rules of EventBridge, and what they send events to."""

from __future__ import annotations

import json
from typing import Any

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, pascal, picked, tag_list


def _put_rule(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    answer = cloud.client("events").put_rule(
        Tags=tag_list(inputs),
        **picked(inputs, {
            "name": "Name", "description": "Description", "eventPattern": "EventPattern", "state": "State",
            "scheduleExpression": "ScheduleExpression", "roleArn": "RoleArn",
        }),
    )  # fmt: skip
    return {"arn": answer["RuleArn"]}


def _read_rule(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    events = cloud.client("events")
    try:
        found = events.describe_rule(Name=known["name"])
    except events.exceptions.ResourceNotFoundException:
        return None
    pattern, now = known.get("eventPattern"), found.get("EventPattern")
    same = pattern is not None and now is not None and json.loads(pattern) == json.loads(now)
    return {**known, "eventPattern": pattern if same else now, "description": found.get("Description")}


def _delete_rule(cloud: Cloud, id_: str, known: Properties) -> None:
    cloud.client("events").delete_rule(Name=known["name"])


kind(
    "aws:cloudwatch/eventRule:EventRule",
    create=lambda cloud, inputs: (inputs["name"], _put_rule(cloud, "", inputs)),
    update=_put_rule,
    read=_read_rule,
    delete=_delete_rule,
    replaced_by=frozenset({"name"}),
)


def _put_target(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    target: dict[str, Any] = {"Id": inputs["targetId"], "Arn": inputs["arn"]}
    target |= picked(inputs, {"roleArn": "RoleArn", "input": "Input"})
    for name in ("deadLetterConfig", "retryPolicy"):
        if inputs.get(name):
            target |= pascal({name: inputs[name]})
    answer = cloud.client("events").put_targets(Rule=inputs["rule"], Targets=[target])
    assert not answer["FailedEntryCount"], answer["FailedEntries"]
    return {}


def _read_target(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    events = cloud.client("events")
    try:
        targets = events.list_targets_by_rule(Rule=known["rule"])["Targets"]
    except events.exceptions.ResourceNotFoundException:
        return None
    found = next((each for each in targets if each["Id"] == known["targetId"]), None)
    return None if found is None else {**known, "arn": found["Arn"]}


kind(
    "aws:cloudwatch/eventTarget:EventTarget",
    create=lambda cloud, inputs: (f"{inputs['rule']}-{inputs['targetId']}", _put_target(cloud, "", inputs)),
    update=_put_target,
    read=_read_target,
    delete=lambda cloud, id_, known: (
        cloud.client("events").remove_targets(Rule=known["rule"], Ids=[known["targetId"]]) and None
    ),
    replaced_by=frozenset({"rule", "targetId"}),
)
