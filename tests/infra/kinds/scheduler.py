"""Schedules of EventBridge Scheduler."""

from __future__ import annotations

from typing import Any

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, pascal, picked

_AWS = {"subnets": "Subnets", "securityGroups": "SecurityGroups"}


def _create_group(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    arn = cloud.client("scheduler").create_schedule_group(Name=inputs["name"])["ScheduleGroupArn"]
    return inputs["name"], {"arn": arn}


kind(
    "aws:scheduler/scheduleGroup:ScheduleGroup",
    create=_create_group,
    delete=lambda cloud, id_, known: cloud.client("scheduler").delete_schedule_group(Name=id_) and None,
    replaced_by=frozenset({"name"}),
)


def _target(given: Properties) -> dict[str, Any]:
    """As the interface of AWS spells it, where it is not plain PascalCase."""
    target: dict[str, Any] = pascal(given)
    if (ecs := target.get("EcsParameters")) is not None:
        network = ecs.pop("NetworkConfiguration")
        public = "ENABLED" if network.pop("AssignPublicIp", False) else "DISABLED"
        ecs["NetworkConfiguration"] = {"awsvpcConfiguration": {**network, "AssignPublicIp": public}}
    return target


def _words(inputs: Properties) -> dict[str, Any]:
    return {
        "Name": inputs["name"],
        "FlexibleTimeWindow": pascal(inputs["flexibleTimeWindow"]),
        "Target": _target(inputs["target"]),
        **picked(inputs, {
            "groupName": "GroupName", "scheduleExpression": "ScheduleExpression", "state": "State",
            "scheduleExpressionTimezone": "ScheduleExpressionTimezone", "description": "Description",
        }),
    }  # fmt: skip


def _create(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    arn = cloud.client("scheduler").create_schedule(**_words(inputs))["ScheduleArn"]
    return f"{inputs['groupName']}/{inputs['name']}", {"arn": arn}


def _update(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    cloud.client("scheduler").update_schedule(**_words(inputs))
    return {}


def _read(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    scheduler = cloud.client("scheduler")
    try:
        found = scheduler.get_schedule(GroupName=known["groupName"], Name=known["name"])
    except scheduler.exceptions.ResourceNotFoundException:
        return None
    return {**known, "scheduleExpression": found["ScheduleExpression"], "state": found["State"]}


kind(
    "aws:scheduler/schedule:Schedule",
    create=_create,
    update=_update,
    read=_read,
    delete=lambda cloud, id_, known: (
        cloud.client("scheduler").delete_schedule(GroupName=known["groupName"], Name=known["name"]) and None
    ),
    replaced_by=frozenset({"name", "groupName"}),
)
