"""Log groups, and what is counted in them."""

from __future__ import annotations

from typing import Any

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, picked

# --- groups -----------------------------------------------------------------------------------------------------------


def _create_group(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    name, logs = inputs["name"], cloud.client("logs", inputs.get("region"))
    logs.create_log_group(logGroupName=name, tags=inputs.get("tags") or {}, **picked(inputs, {"kmsKeyId": "kmsKeyId"}))
    _update_group(cloud, name, inputs)
    found = _group(cloud, name, inputs)
    assert found is not None
    return name, {"arn": found["arn"].removesuffix(":*")}


def _update_group(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    logs = cloud.client("logs", inputs.get("region"))
    if days := inputs.get("retentionInDays"):
        logs.put_retention_policy(logGroupName=id_, retentionInDays=days)
    return {}


def _group(cloud: Cloud, name: str, known: Properties) -> dict[str, Any] | None:
    logs = cloud.client("logs", known.get("region"))
    groups = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return next((group for group in groups if group["logGroupName"] == name), None)


def _read_group(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    found = _group(cloud, id_, known)
    if found is None:
        return None
    return {**known, "retentionInDays": found.get("retentionInDays", 0), "kmsKeyId": found.get("kmsKeyId")}


kind(
    "aws:cloudwatch/logGroup:LogGroup",
    create=_create_group,
    update=_update_group,
    read=_read_group,
    delete=lambda cloud, id_, known: (
        cloud.client("logs", known.get("region")).delete_log_group(logGroupName=id_) and None
    ),
    replaced_by=frozenset({"name", "region"}),
)


# --- metric filters ---------------------------------------------------------------------------------------------------


def _put_filter(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    to = inputs["metricTransformation"]
    names = {"name": "metricName", "namespace": "metricNamespace", "value": "metricValue", "unit": "unit"}
    # The provider takes a text here, and AWS a number.
    default = {"defaultValue": float(to["defaultValue"])} if to.get("defaultValue") is not None else {}
    cloud.client("logs").put_metric_filter(
        logGroupName=inputs["logGroupName"], filterName=inputs["name"], filterPattern=inputs["pattern"],
        metricTransformations=[picked(to, names) | default],
    )  # fmt: skip
    return {}


def _read_filter(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    logs = cloud.client("logs")
    filters = logs.describe_metric_filters(logGroupName=known["logGroupName"])["metricFilters"]
    found = next((each for each in filters if each["filterName"] == known["name"]), None)
    return None if found is None else {**known, "pattern": found["filterPattern"]}


kind(
    "aws:cloudwatch/logMetricFilter:LogMetricFilter",
    create=lambda cloud, inputs: (inputs["name"], _put_filter(cloud, "", inputs)),
    update=_put_filter,
    read=_read_filter,
    delete=lambda cloud, id_, known: (
        cloud.client("logs").delete_metric_filter(logGroupName=known["logGroupName"], filterName=known["name"]) and None
    ),
    replaced_by=frozenset({"name", "logGroupName"}),
)
