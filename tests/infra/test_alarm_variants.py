"""Alarms of other policies: what is declared follows from what is written there."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.watches import LONGEST, longest_gap, watched
from runbooks.model.backup import Tier
from runbooks.model.cron import Cron
from tests.infra import kinds
from tests.infra.alarm_ground import ALERTS, SLACK, alarmed, neon, watched_of
from tests.infra.applying import Stack
from tests.infra.archive_ground import NAMES
from tests.infra.cloud import ACCOUNT, REGION, Cloud
from tests.infra.hearing import Graph, complaints

DAY = timedelta(days=1)
MAIL = {"kind": "email", "address": "incidents@bloom.com"}
TOPICS = ("-page", "-mail", "-chat")


@settings(deadline=None, max_examples=40)
@given(
    heartbeat=st.integers(25, 36),
    unverified=st.integers(1, 60),
    schedule=st.sampled_from(["0 2 * * *", "0 */6 * * *", "0 4 * * 0", "0 3 * * 1-5", "0 0 1 * *", None]),
    names=st.sets(st.sampled_from(["production", "billing", "daily"]), min_size=1),
    runner=st.sampled_from(["fargate", "elsewhere"]),
)
def test_no_policy_makes_an_alarm_that_aws_refuses(
    heartbeat: int, unverified: int, schedule: str | None, names: set[str], runner: str
) -> None:
    tier = {"local_days": 30, "s3_days": 90, "storage_class": "STANDARD_IA"} | (
        {"schedule": schedule} if schedule else {}
    )
    of = watched_of(
        {name: neon() for name in sorted(names)}, {"tiers": {"daily": tier}},
        heartbeat_hours=heartbeat, unverified_days=unverified, runner=runner,
    )  # fmt: skip
    watches = watched(of)
    assert watched(of) == watches, "a second up finds no change"
    assert len({watch.name(of.names) for watch in watches}) == len(watches)
    for watch in watches:
        assert watch.period * watch.periods <= (LONGEST if watch.period >= 3600 else 86_400)
    failed = [watch for watch in watches if watch.what == "BackupFailed" and watch.tier is Tier.DAILY]
    assert len(failed) == (len(names) if schedule else 0)
    for watch in failed:
        assert watch.silence == "breaching"
        assert 25 * 3600 <= watch.period * watch.periods <= 36 * 3600
        assert watch.severity == "page"
    assert ("DeadLetters" in {watch.what for watch in watches}) == (runner == "fargate")


@pytest.mark.parametrize(
    ("schedule", "days"),
    [("0 2 * * *", 1), ("0 */6 * * *", 1), ("0 4 * * 0", 7), ("0 3 * * 1-5", 3), ("0 3 1 * *", 31), ("0 0 1 1 *", 366)],
)
def test_the_longest_gap_of_a_schedule_is_known(schedule: str, days: int) -> None:
    assert longest_gap(Cron.parse(schedule)) == days * DAY


def test_a_sandbox_protects_nothing(cloud: Cloud) -> None:
    stack = alarmed(cloud, protect=False)
    assert not any(each.protect or each.retain for each in stack.declared.values())


def test_a_channel_for_several_severities_is_taken_once_with_all_its_topics(cloud: Cloud) -> None:
    stack = alarmed(cloud, watched_of(alerts=dict.fromkeys(ALERTS, SLACK)))
    (chat,) = stack.of("aws:chatbot/slackChannelConfiguration:SlackChannelConfiguration")
    assert chat.inputs["snsTopicArns"] == [
        f"arn:aws:sns:{REGION}:{ACCOUNT}:{NAMES.topic(severity)}" for severity in ("page", "mail", "chat")
    ]
    assert not stack.of("aws:sns/topicSubscription:TopicSubscription")
    assert complaints(Graph.read(cloud, stack), dict.fromkeys(TOPICS, ("slack", "C0123ABCDE"))) == []


def test_without_slack_there_is_no_chatbot(cloud: Cloud) -> None:
    stack = alarmed(cloud, watched_of(alerts=dict.fromkeys(ALERTS, MAIL)))
    assert [each for each in stack.declared.values() if "chatbot" in each.token or each.name == "chatbot"] == []
    assert complaints(Graph.read(cloud, stack), dict.fromkeys(TOPICS, ("email", "incidents@bloom.com"))) == []


def drifted(cloud: Cloud, stack: Stack) -> set[str]:
    """The names of what AWS has otherwise than declared, as a refresh would see it."""
    table = kinds.load()
    return {
        each.name
        for each in stack.declared.values()
        if (read := table[each.token].read) is not None and read(cloud, each.id, dict(each.outputs)) != each.outputs
    }


def test_what_is_changed_by_hand_is_seen_and_nothing_else(cloud: Cloud) -> None:
    stack = alarmed(cloud)
    assert drifted(cloud, stack) == set()
    silenced, topic = NAMES.alarm("DrillOverdue", "production"), stack.exported["page"]
    cloud.client("cloudwatch").disable_alarm_actions(AlarmNames=[silenced])
    everybody = (
        cloud.client("sns").get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"].replace("Deny", "Allow")
    )
    cloud.client("sns").set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=everybody)
    assert drifted(cloud, stack) == {silenced, "page"}
