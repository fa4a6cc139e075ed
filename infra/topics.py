"""Three topics, by how much it matters; and whoever is told of each, in a way that they understand (C31)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.keys import Statement, customer_key, document
from infra.rights import allow
from infra.watches import Severity
from runbooks.model.aws_names import AwsNames
from runbooks.model.policy_stack import Alerts, Email, PagerDuty, Slack

SEVERITIES: tuple[Severity, ...] = ("page", "mail", "chat")
GUARDRAIL = "arn:aws:iam::aws:policy/CloudWatchReadOnlyAccess"
"""The most that anybody can do from the channel. Without one it would be AdministratorAccess."""


@dataclass(frozen=True)
class TopicsArgs:
    names: AwsNames
    alerts: Alerts
    pagerduty_url: pulumi.Input[str] | None
    """A secret; there if one of the receivers is PagerDuty."""
    account: str
    region: str
    boundary_arn: pulumi.Input[str]
    protect: bool


class Topics(pulumi.ComponentResource):
    arns: Mapping[Severity, pulumi.Output[str]]

    def __init__(self, name: str, args: TopicsArgs, opts: pulumi.ResourceOptions) -> None:
        super().__init__("bloom-dr:infra:Topics", name, None, opts)
        self._args = args
        self._kept = pulumi.ResourceOptions(parent=self, protect=args.protect, retain_on_delete=args.protect)
        # Protected, as a destroy removes first what is not. But not retained: a receiver that the policy no longer has,
        # and whose protection was lifted by hand, must not go on hearing.
        self._receiver = pulumi.ResourceOptions(parent=self, protect=args.protect)
        key = self._key()
        topics = {severity: self._topic(severity, key) for severity in SEVERITIES}
        self.arns = {severity: topic.arn for severity, topic in topics.items()}
        chats: dict[Slack, list[pulumi.Output[str]]] = {}
        for severity, arn in self.arns.items():
            receiver = getattr(args.alerts, severity)
            if isinstance(receiver, Slack):
                chats.setdefault(receiver, []).append(arn)
            else:
                self._subscribe(severity, arn, receiver)
        if chats:
            self._chat(chats)
        self.register_outputs({})

    def _key(self) -> aws.kms.Key:
        """CloudWatch has to be able to use it, or its alarms are lost without a word. EventBridge may as well."""
        services: Statement = {
            **allow("ServicesSeal", ["kms:Decrypt", "kms:GenerateDataKey*"], ["*"]),
            "Principal": {"Service": ["cloudwatch.amazonaws.com", "events.amazonaws.com"]},
        }
        return customer_key(
            "alerts",
            alias=self._args.names.key_alias("alerts"),
            purpose="Seals alarms on their way",
            account=self._args.account,
            also=[services],
            deletion_days=30 if self._args.protect else 7,
            opts=self._kept,
        )

    def _topic(self, severity: Severity, key: aws.kms.Key) -> aws.sns.Topic:
        topic = aws.sns.Topic(
            severity, name=self._args.names.topic(severity), kms_master_key_id=key.arn, opts=self._kept
        )
        statements = document(_publishers(topic.arn, self._args.account, self._args.region))
        aws.sns.TopicPolicy(severity, arn=topic.arn, policy=statements, opts=self._kept)
        return topic

    def _subscribe(self, severity: Severity, arn: pulumi.Output[str], receiver: PagerDuty | Email) -> None:
        if isinstance(receiver, Email):
            aws.sns.TopicSubscription(
                severity, topic=arn, protocol="email", endpoint=receiver.address, opts=self._receiver
            )  # fmt: skip
            return
        assert self._args.pagerduty_url is not None  # Settings sees to it
        aws.sns.TopicSubscription(
            severity,
            topic=arn,
            protocol="https",
            endpoint=self._args.pagerduty_url,
            endpoint_auto_confirms=True,
            opts=self._receiver,
        )

    def _chat(self, chats: Mapping[Slack, list[pulumi.Output[str]]]) -> None:
        """Slack does not understand SNS: AWS Chatbot subscribes by itself, and translates. AWS takes a channel only
        once in an account, so it gets all its topics together."""
        names = self._args.names
        role = self._translator()
        for receiver, arns in chats.items():
            aws.chatbot.SlackChannelConfiguration(
                receiver.channel,
                configuration_name=names.chat(receiver.channel),
                slack_team_id=receiver.workspace,
                slack_channel_id=receiver.channel,
                iam_role_arn=role.arn,
                sns_topic_arns=arns,
                guardrail_policy_arns=[GUARDRAIL],
                logging_level="ERROR",
                opts=self._receiver,
            )

    def _translator(self) -> aws.iam.Role:
        trust: Statement = {
            "Effect": "Allow",
            "Principal": {"Service": "chatbot.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
        role = aws.iam.Role(
            "chatbot",
            name=self._args.names.service_role("chatbot"),
            description="AWS Chatbot shows what an alarm has seen",
            assume_role_policy=document([trust]),
            permissions_boundary=self._args.boundary_arn,
            opts=self._kept,
        )
        looks = allow("Looks", ["cloudwatch:Describe*", "cloudwatch:Get*", "cloudwatch:List*"], ["*"])
        aws.iam.RolePolicy("chatbot", name="look", role=role.name, policy=document([looks]), opts=self._kept)
        return role


def _publishers(topic: pulumi.Input[str], account: str, region: str) -> list[Statement]:
    """The alarms of this account. People by their own rights, and nobody in clear text."""
    return [
        {
            **allow("AlarmsPublish", ["sns:Publish"], [topic]),
            "Principal": {"Service": "cloudwatch.amazonaws.com"},
            "Condition": {"ArnLike": {"aws:SourceArn": f"arn:aws:cloudwatch:{region}:{account}:alarm:*"}},
        },
        {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": {"AWS": "*"},
            "Action": ["sns:Publish"],
            "Resource": [topic],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
    ]
