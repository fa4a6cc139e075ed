"""Alarms, whom they reach, and the dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.dashboard import body
from infra.topics import Topics, TopicsArgs
from infra.watches import Severity, Watch, Watched, watched
from runbooks.model.policy import Objectives


@dataclass(frozen=True)
class AlarmsArgs:
    watched: Watched
    objectives: Objectives
    pagerduty_url: pulumi.Input[str] | None
    """A secret; there if one of the receivers is PagerDuty."""
    account: str
    region: str
    boundary_arn: pulumi.Input[str]
    protect: bool


class Alarms(pulumi.ComponentResource):
    """Each alarm tells when it is over, too."""

    topic_arns: Mapping[Severity, pulumi.Output[str]]

    def __init__(self, name: str, args: AlarmsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("bloom-dr:infra:Alarms", name, None, opts)
        of = args.watched
        topics = Topics(
            name,
            TopicsArgs(
                names=of.names,
                alerts=of.section.alerts,
                pagerduty_url=args.pagerduty_url,
                account=args.account,
                region=args.region,
                boundary_arn=args.boundary_arn,
                protect=args.protect,
            ),
            pulumi.ResourceOptions(parent=self),
        )
        self.topic_arns = topics.arns
        watches = watched(of)
        # Protected, as a destroy removes first what is not; but not retained: what the policy no longer wants is gone
        # once its protection is lifted by hand.
        alone = pulumi.ResourceOptions(parent=self, protect=args.protect)
        for watch in watches:
            _alarm(watch, watch.name(of.names), topics.arns[watch.severity], alone)
        aws.cloudwatch.Dashboard(
            name,
            dashboard_name=of.names.dashboard,
            dashboard_body=body(of, watches, args.objectives, args.account, args.region),
            opts=alone,
        )
        self.register_outputs({})


def _alarm(watch: Watch, name: str, topic: pulumi.Input[str], opts: pulumi.ResourceOptions) -> None:
    aws.cloudwatch.MetricAlarm(
        name,
        name=name,
        alarm_description=watch.why,
        namespace=watch.source.namespace,
        metric_name=watch.source.name,
        dimensions=dict(watch.source.dimensions),
        statistic=watch.statistic,
        comparison_operator=watch.comparison,
        threshold=watch.threshold,
        period=watch.period,
        evaluation_periods=watch.periods,
        datapoints_to_alarm=watch.periods,
        treat_missing_data=watch.silence,
        actions_enabled=True,
        alarm_actions=[topic],
        ok_actions=[topic],
        opts=opts,
    )
