"""Trails."""

from __future__ import annotations

import json
from typing import Any

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, picked

_TRAIL = {
    "s3BucketName": "S3BucketName", "s3KeyPrefix": "S3KeyPrefix", "snsTopicName": "SnsTopicName",
    "includeGlobalServiceEvents": "IncludeGlobalServiceEvents", "isMultiRegionTrail": "IsMultiRegionTrail",
    "enableLogFileValidation": "EnableLogFileValidation", "cloudWatchLogsGroupArn": "CloudWatchLogsLogGroupArn",
    "cloudWatchLogsRoleArn": "CloudWatchLogsRoleArn", "kmsKeyId": "KmsKeyId",
}  # fmt: skip
_READ = {"enableLogFileValidation": "LogFileValidationEnabled"}
"""What AWS calls otherwise when it is read."""
_OPERATORS = {
    "field": "Field", "equals": "Equals", "startsWiths": "StartsWith", "endsWiths": "EndsWith",
    "notEquals": "NotEquals", "notStartsWiths": "NotStartsWith", "notEndsWiths": "NotEndsWith",
}  # fmt: skip


def _create(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    trails = cloud.client("cloudtrail")
    tags = [{"Key": key, "Value": value} for key, value in (inputs.get("tags") or {}).items()]
    arn = trails.create_trail(Name=inputs["name"], TagsList=tags, **picked(inputs, _TRAIL))["TrailARN"]
    _select(cloud, inputs)
    return arn, {"arn": arn, "homeRegion": cloud.region}


def _select(cloud: Cloud, inputs: Properties) -> None:
    """What it records, and whether it does."""
    trails = cloud.client("cloudtrail")
    if inputs.get("advancedEventSelectors"):
        selectors = [_selector(each) for each in inputs["advancedEventSelectors"]]
        trails.put_event_selectors(TrailName=inputs["name"], AdvancedEventSelectors=selectors)
    on = inputs.get("enableLogging", True)
    (trails.start_logging if on else trails.stop_logging)(Name=inputs["name"])


def _selector(given: Properties) -> dict[str, Any]:
    fields = [picked(field, _OPERATORS) for field in given["fieldSelectors"]]
    return {"FieldSelectors": fields, **picked(given, {"name": "Name"})}


def _update(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    cloud.client("cloudtrail").update_trail(Name=inputs["name"], **picked(inputs, _TRAIL))
    _select(cloud, inputs)
    return {}


def _read(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    trails = cloud.client("cloudtrail")
    try:
        found = trails.get_trail(Name=known["name"])["Trail"]
    except trails.exceptions.TrailNotFoundException:
        return None
    now = {ours: found.get(_READ.get(ours, theirs)) for ours, theirs in _TRAIL.items() if ours in known}
    now["enableLogging"] = trails.get_trail_status(Name=known["name"])["IsLogging"]
    wanted = [_selector(each) for each in known.get("advancedEventSelectors") or []]
    selectors = trails.get_event_selectors(TrailName=known["name"]).get("AdvancedEventSelectors", [])
    if json.dumps(wanted, sort_keys=True) != json.dumps(selectors, sort_keys=True):
        now["advancedEventSelectors"] = []
    return {**known, **now}


kind(
    "aws:cloudtrail/trail:Trail",
    create=_create,
    update=_update,
    read=_read,
    delete=lambda cloud, id_, known: cloud.client("cloudtrail").delete_trail(Name=known["name"]) and None,
    replaced_by=frozenset({"name"}),
)
