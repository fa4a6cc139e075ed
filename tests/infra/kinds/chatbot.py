"""Slack channels. moto knows none: they are taken as they come."""

from __future__ import annotations

from tests.infra.kinds import kind

kind(
    "aws:chatbot/slackChannelConfiguration:SlackChannelConfiguration",
    create=lambda cloud, inputs: (
        arn := f"arn:aws:chatbot::{cloud.account}:chat-configuration/slack-channel/{inputs['configurationName']}",
        {"chatConfigurationArn": arn, "slackChannelName": "incidents", "slackTeamName": "Bloom"},
    ),
    update=lambda cloud, id_, inputs: {},
    replaced_by=frozenset({"configurationName"}),
)
