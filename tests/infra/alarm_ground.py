"""A stack's alarms, applied to moto, and its policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

from infra.alarms import Alarms, AlarmsArgs
from infra.boundary import boundary
from infra.watches import Watched
from runbooks.model.policy import Environment, NeonEnvironment, Objectives
from tests.infra.applying import Stack, apply
from tests.infra.archive_ground import BUCKET, NAMES, backup_policy, section
from tests.infra.cloud import ACCOUNT, REGION, Cloud

PAGERDUTY = "https://events.pagerduty.com/integration/0123456789abcdef/enqueue"
SLACK = {"kind": "slack", "workspace": "T0123ABCDE", "channel": "C0123ABCDE"}
ALERTS = {
    "page": {"kind": "pagerduty"},
    "mail": {"kind": "email", "address": "incidents@bloom.com"},
    "chat": SLACK,
}


def neon(promised: str = "7d") -> NeonEnvironment:
    return NeonEnvironment.model_validate(
        {"project": "quiet-lake-12345678", "database": "neondb", "role": "owner", "promised_window": promised}
    )


def watched_of(
    environments: Mapping[str, Environment] | None = None, backup: Mapping[str, Any] | None = None, **settings: Any
) -> Watched:
    environments = environments or {"production": neon()}
    stack = section(**{"environments": list(environments), "alerts": ALERTS, **settings})
    return Watched(names=NAMES, section=stack, backup=backup_policy(**(backup or {})), environments=environments)


def alarmed(cloud: Cloud, of: Watched | None = None, *, protect: bool = True) -> Stack:
    def program() -> None:
        made = Alarms(
            "alarms",
            AlarmsArgs(
                watched=of or watched_of(),
                objectives=Objectives(),
                pagerduty_url=pulumi.Config("bloom-dr").require_secret("pagerdutyUrl"),
                account=ACCOUNT,
                region=REGION,
                boundary_arn=boundary(NAMES, BUCKET, ACCOUNT, protect=protect),
                protect=protect,
            ),
        )
        for severity, arn in made.topic_arns.items():
            pulumi.export(severity, arn)

    return apply(cloud, program, {"bloom-dr:pagerdutyUrl": PAGERDUTY}, secret=("bloom-dr:pagerdutyUrl",))


def alarms(cloud: Cloud) -> dict[str, dict[str, Any]]:
    """All alarms as CloudWatch has them, by name without the stack's prefix."""
    pages = cloud.client("cloudwatch").get_paginator("describe_alarms").paginate()
    return {each["AlarmName"].removeprefix(f"{NAMES.prefix}-"): each for page in pages for each in page["MetricAlarms"]}
