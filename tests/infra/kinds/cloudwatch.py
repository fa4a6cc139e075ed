"""Alarms and dashboards."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, picked, tag_list

_ALARM = {
    "name": "AlarmName", "alarmDescription": "AlarmDescription", "actionsEnabled": "ActionsEnabled",
    "alarmActions": "AlarmActions", "okActions": "OKActions", "insufficientDataActions": "InsufficientDataActions",
    "namespace": "Namespace", "metricName": "MetricName", "statistic": "Statistic", "period": "Period",
    "evaluationPeriods": "EvaluationPeriods", "datapointsToAlarm": "DatapointsToAlarm", "threshold": "Threshold",
    "comparisonOperator": "ComparisonOperator", "treatMissingData": "TreatMissingData", "unit": "Unit",
}  # fmt: skip


def _put_alarm(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    dimensions = [{"Name": name, "Value": value} for name, value in (inputs.get("dimensions") or {}).items()]
    cloud.client("cloudwatch").put_metric_alarm(Dimensions=dimensions, Tags=tag_list(inputs), **picked(inputs, _ALARM))
    found = _alarm(cloud, inputs["name"])
    assert found is not None
    return {"arn": found["AlarmArn"]}


def _alarm(cloud: Cloud, name: str) -> dict[str, Any] | None:
    found = cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return found[0] if found else None


def _read_alarm(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    found = _alarm(cloud, known["name"])
    if found is None:
        return None
    now = {ours: found.get(theirs) for ours, theirs in _ALARM.items() if ours in known}
    dimensions = {each["Name"]: each["Value"] for each in found.get("Dimensions", [])}
    return {**known, **now, **({"dimensions": dimensions} if "dimensions" in known else {})}


kind(
    "aws:cloudwatch/metricAlarm:MetricAlarm",
    create=lambda cloud, inputs: (inputs["name"], _put_alarm(cloud, "", inputs)),
    update=_put_alarm,
    read=_read_alarm,
    delete=lambda cloud, id_, known: cloud.client("cloudwatch").delete_alarms(AlarmNames=[known["name"]]) and None,
    replaced_by=frozenset({"name"}),
)


def _put_dashboard(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    name = inputs["dashboardName"]
    cloud.client("cloudwatch").put_dashboard(DashboardName=name, DashboardBody=inputs["dashboardBody"])
    return {"dashboardArn": f"arn:aws:cloudwatch::{cloud.account}:dashboard/{name}"}


def _read_dashboard(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    cloudwatch = cloud.client("cloudwatch")
    try:
        body = cloudwatch.get_dashboard(DashboardName=known["dashboardName"])["DashboardBody"]
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return None
        raise
    same = json.loads(body) == json.loads(known["dashboardBody"])
    return {**known, "dashboardBody": known["dashboardBody"] if same else body}


kind(
    "aws:cloudwatch/dashboard:Dashboard",
    create=lambda cloud, inputs: (inputs["dashboardName"], _put_dashboard(cloud, "", inputs)),
    update=_put_dashboard,
    read=_read_dashboard,
    delete=lambda cloud, id_, known: (
        cloud.client("cloudwatch").delete_dashboards(DashboardNames=[known["dashboardName"]]) and None
    ),
    replaced_by=frozenset({"dashboardName"}),
)
