"""C30, C31: what must not stay quiet rings, what is usual does not, and whoever is to hear it does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.topics import GUARDRAIL
from infra.watches import LONGEST, watched
from runbooks.clients.metrics import CloudWatch
from runbooks.model.backup import Rung, Tier
from runbooks.model.freshness import Freshness
from runbooks.model.metrics import (
    NAMESPACE,
    Metric,
    of_ages,
    of_drill,
    of_drill_age,
    of_failed_backup,
    of_proof,
    of_prune,
    of_sync,
    of_verified_age,
    of_window,
)
from runbooks.model.moment import Moment
from tests.infra.alarm_ground import PAGERDUTY, alarmed, alarms, watched_of
from tests.infra.alarm_state import state
from tests.infra.applying import Stack
from tests.infra.archive_ground import NAMES
from tests.infra.cloud import REGION, Cloud
from tests.infra.hearing import Graph, Topic, complaints
from tests.model.test_backup import START, manifest, proof
from tests.model.test_drill import report

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
T0 = datetime(2026, 3, 2, 2, 30, tzinfo=UTC)
"""When a daily backup was proved."""
FURTHER = (0, 2, 5)
"""Periods that CloudWatch may look back beyond those of an alarm."""


@pytest.fixture(scope="module")
def account(_account: Cloud) -> Cloud:
    """One for the whole file: its tests only look, but for the numbers that they send."""
    _account.reset()
    return _account


@pytest.fixture(scope="module")
def stack(account: Cloud) -> Stack:
    return alarmed(account)


@pytest.fixture(scope="module")
def known(account: Cloud, stack: Stack) -> dict[str, dict[str, Any]]:
    del stack
    return alarms(account)


# --- what is an alarm, by CloudWatch's rules on what it has stored ----------------------------------------------------


def rings(alarm: dict[str, Any], series: Iterable[tuple[datetime, float]], now: datetime) -> bool:
    """The same however far CloudWatch looks back, or the claim is about luck."""
    found = {state(alarm, list(series), now, further=further) for further in FURTHER}
    assert len(found) == 1, f"it depends: {found}"
    return found == {"ALARM"}


def always(start: datetime, end: datetime) -> Iterable[datetime]:
    """Whenever CloudWatch may look, aligned or not."""
    while start <= end:
        yield start
        start += timedelta(minutes=10)


def test_c30_a_backup_that_never_runs_pages_within_36_hours_and_one_success_ends_it(known: Any) -> None:
    alarm = known["production-daily-BackupFailed"]
    assert rings(alarm, [], T0), "never a success: silence is no excuse"
    proved = [(T0, 1.0)]
    assert all(state(alarm, proved, T0 + 36 * HOUR, further=further) == "ALARM" for further in FURTHER)
    assert rings(alarm, proved, T0 + 2 * DAY)
    assert not rings(alarm, [*proved, (T0 + 2 * DAY, 1.0)], T0 + 2 * DAY + HOUR)


def test_c30_failures_alone_do_not_pass_for_success(known: Any) -> None:
    assert rings(known["production-daily-BackupFailed"], [(T0, 0.0), (T0 + HOUR, 0.0)], T0 + 2 * HOUR)


@pytest.mark.parametrize("late", [timedelta(), timedelta(minutes=10), HOUR, timedelta(hours=1, minutes=50)])
def test_c30_a_late_run_within_26_hours_and_the_25_hour_day_do_not_page(known: Any, late: timedelta) -> None:
    alarm = known["production-daily-BackupFailed"]
    series = [(T0, 1.0), (T0 + DAY + late, 1.0)]
    for now in always(T0 + timedelta(minutes=1), T0 + 2 * DAY):
        assert state(alarm, [each for each in series if each[0] <= now], now, further=0) == "OK", now


def test_c30_the_shortcuts_are_caught(known: Any) -> None:
    """What the field's alarms look like: each is quiet when it must not be, or rings for nothing."""
    whole = known["production-daily-BackupFailed"]
    quiet = {**whole, "TreatMissingData": "notBreaching"}
    assert not rings(quiet, [], T0)
    on_errors = known["production-daily-BackupAttemptFailed"]
    assert not rings(on_errors, [], T0), "a job that is dead reports no error"
    exact = {**whole, "Period": 86_400, "EvaluationPeriods": 1, "DatapointsToAlarm": 1}
    late = [(T0, 1.0), (T0 + DAY + timedelta(minutes=10), 1.0)]
    assert state(exact, late, T0 + DAY + timedelta(minutes=5), further=0) == "ALARM"
    assert state(exact, [(T0, 1.0)], T0 + 3 * DAY, further=2) == "OK", "and of days it may look back several"


def test_c30_a_weekly_backup_pages_by_its_age_and_by_silence(known: Any) -> None:
    alarm = known["production-weekly-BackupFailed"]
    assert alarm["MetricName"] == "BackupAge"
    judged, young = HOUR * 3, 3 * 3600.0
    # Judged each day three hours after the weekly one is due, when that may still be running.
    daily = [(T0 + day * DAY + judged, day * 86_400 + young) for day in range(8)]
    for day in range(8):
        assert not rings(alarm, daily[: day + 1], daily[day][0] + 9 * HOUR)
    missed = [*daily, (T0 + 8 * DAY + judged, 8 * 86_400 + young)]
    assert rings(alarm, missed, missed[-1][0] + 9 * HOUR)
    assert rings(alarm, daily[:3], T0 + 5 * DAY), "nobody says how old it is"
    again = [*missed, (T0 + 9 * DAY, 3600.0)]
    assert not rings(alarm, again, T0 + 9 * DAY + HOUR)


@pytest.mark.parametrize(
    ("percent", "rang"),
    [(0.0, False), (49.0, False), (50.0, True), (100.0, True)],
    ids=["same", "near", "half", "double"],
)
def test_a_backup_of_half_the_size_or_twice_is_told_by_mail(known: Any, percent: float, rang: bool) -> None:
    for tier in Tier:
        alarm = known[f"production-{tier}-BackupSizeAnomaly"]
        assert alarm["AlarmActions"][0].endswith("-mail")
        assert (alarm["Period"], alarm["EvaluationPeriods"]) == (86_400, 1), "the strategy's day"
        assert rings(alarm, [(T0, percent)], T0 + HOUR) is rang
        assert not rings(alarm, [], T0)


@pytest.mark.parametrize(
    ("name", "value", "rang"),
    [
        ("production-NotVerified", 7.9 * 86_400, False),
        ("production-NotVerified", 8.1 * 86_400, True),
        ("production-DrillOverdue", 99.0 * 86_400, False),
        ("production-DrillOverdue", 101.0 * 86_400, True),
        ("production-RestoreWindowShrunk", 7.0 * 86_400, False),
        ("production-RestoreWindowShrunk", 6.0 * 86_400, True),
        ("production-RestoreWindowShrunk", 0.0, True),
    ],
)
def test_what_is_judged_daily_rings_by_its_value_and_by_silence(
    known: Any, name: str, value: float, rang: bool
) -> None:
    daily = [(T0 + day * DAY, value) for day in range(3)]
    for now in always(T0 + timedelta(minutes=1), T0 + 2 * DAY + HOUR):
        sent = [each for each in daily if each[0] < now]
        assert all((state(known[name], sent, now, further=further) == "ALARM") is rang for further in FURTHER), now
    assert rings(known[name], daily, T0 + 4 * DAY), "silence"


@pytest.mark.parametrize(
    ("name", "bad", "good", "severity"),
    [
        ("production-S3SyncFailed", 1.0, 0.0, "chat"),
        ("production-daily-BackupAttemptFailed", 1.0, 0.0, "chat"),
        ("production-daily-VerifyFailed", 1.0, 0.0, "mail"),
        ("production-PruneFailed", 1.0, 0.0, "mail"),
        ("production-DrillFailed", 0.0, 1.0, "mail"),
        ("production-RotationErrors", 1.0, 0.0, "mail"),
        ("RotationFailed", 1.0, 0.0, "mail"),
        ("RestorerAssumed", 1.0, 0.0, "chat"),
        ("DeleteAttempted", 1.0, 0.0, "page"),
        ("TrailChanged", 1.0, 0.0, "page"),
        ("DeadLetters", 1.0, 0.0, "page"),
    ],
)
def test_an_event_rings_once_and_silence_is_fine(known: Any, name: str, bad: float, good: float, severity: str) -> None:
    alarm = known[name]
    assert [action.rsplit("-", 1)[1] for action in alarm["AlarmActions"]] == [severity]
    assert not rings(alarm, [], T0)
    assert not rings(alarm, [(T0, good)], T0 + timedelta(minutes=1))
    assert rings(alarm, [(T0, bad)], T0 + timedelta(minutes=1))
    assert not rings(alarm, [(T0, bad)], T0 + DAY), "it is over"


def test_a_dead_letter_that_nobody_removes_does_not_hide_the_next(known: Any) -> None:
    alarm = known["DeadLetters"]
    assert (alarm["MetricName"], alarm["Statistic"]) == ("NumberOfMessagesSent", "Sum"), "not how many lie there"
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": NAMES.dead_letters}]
    assert alarm["Period"] > 15 * 60, "so late may the metric of a queue that was idle be"
    twice = [(T0, 1.0), (T0 + DAY, 1.0)]
    assert rings(alarm, twice[:1], T0 + timedelta(minutes=15))
    assert not rings(alarm, twice[:1], T0 + 23 * HOUR)
    assert rings(alarm, twice, T0 + DAY + timedelta(minutes=15))
    assert all(each in alarm["AlarmDescription"] for each in (NAMES.dead_letters, "receive-message", "purge-queue"))


def test_c32_a_trail_that_writes_nothing_pages_too(known: Any) -> None:
    alarm = known["TrailSilent"]
    assert alarm["Namespace"] == "AWS/Logs"
    assert alarm["Dimensions"] == [{"Name": "LogGroupName", "Value": NAMES.trail_log_group}]
    assert rings(alarm, [(T0, 400.0)], T0 + 2 * DAY)
    assert not rings(alarm, [(T0, 400.0)], T0 + DAY)


# --- all of them ------------------------------------------------------------------------------------------------------


def test_every_alarm_tells_both_ways_and_keeps_to_what_aws_takes(known: Any, stack: Stack) -> None:
    assert known.keys() == {watch.name(NAMES).removeprefix(f"{NAMES.prefix}-") for watch in watched(watched_of())}
    assert len(known) == len(stack.of("aws:cloudwatch/metricAlarm:MetricAlarm"))
    for name, alarm in known.items():
        assert alarm["AlarmActions"] == alarm["OKActions"] != []
        assert alarm["ActionsEnabled"]
        assert alarm["TreatMissingData"] in ("breaching", "notBreaching"), name
        assert alarm["DatapointsToAlarm"] == alarm["EvaluationPeriods"]
        looks = alarm["Period"] * alarm["EvaluationPeriods"]
        assert looks <= (LONGEST if alarm["Period"] >= 3600 else 86_400), name
        assert alarm["Period"] % 60 == 0
        assert len(alarm["AlarmName"]) <= 255
        assert len(alarm["AlarmDescription"]) <= 1024
        assert "Unit" not in alarm, "an alarm of another unit than what is sent sees nothing"


def test_all_that_tells_is_protected(stack: Stack) -> None:
    loose = {each.token.rsplit(":", 1)[1] for each in stack.declared.values() if not each.protect}
    assert loose == set()


def test_what_the_policy_no_longer_wants_can_go_and_hears_nothing_more(stack: Stack) -> None:
    goes = {each.token.rsplit(":", 1)[1] for each in stack.declared.values() if not each.retain}
    assert goes == {"Dashboard", "MetricAlarm", "TopicSubscription", "SlackChannelConfiguration"}


# --- C31: who hears it ------------------------------------------------------------------------------------------------

HEARD = {
    "-page": ("https", PAGERDUTY),
    "-mail": ("email", "incidents@bloom.com"),
    "-chat": ("slack", "C0123ABCDE"),
}


@pytest.fixture(scope="module")
def graph(account: Cloud, stack: Stack) -> Graph:
    return Graph.read(account, stack)


def test_c31_every_alarm_reaches_whoever_the_policy_names(graph: Graph, known: Any) -> None:
    assert complaints(graph, HEARD) == []
    assert len(graph.alarms) == len(known)
    assert len(graph.topics) == 3


def broken(graph: Graph, **changes: Any) -> Graph:
    return replace(graph, topics={arn: replace(topic, **changes) for arn, topic in graph.topics.items()})


def without(policy: Any, sid: str) -> dict[str, Any]:
    return {**policy, "Statement": [each for each in policy["Statement"] if each["Sid"] != sid]}


def variants(topic: Topic) -> list[tuple[str, dict[str, Any]]]:
    """What is complained of, and the change that breaks the way."""
    policy, key = topic.policy, topic.key_policy
    assert key is not None
    lets, seals = policy["Statement"][0], key["Statement"][1]
    elsewhere = {"ArnLike": {"aws:SourceArn": "arn:aws:cloudwatch:eu-west-1:1:alarm:*"}}
    webhook = ("https", "https://hooks.slack.com/services/T0/B0/x")
    return [
        ("does not let CloudWatch publish", {"policy": without(policy, "AlarmsPublish")}),
        ("does not let CloudWatch publish", {"policy": {"Statement": [{**lets, "Condition": elsewhere}]}}),
        ("does not let CloudWatch seal", {"key_policy": without(key, "ServicesSeal")}),
        ("does not let CloudWatch seal", {"key_policy": {"Statement": [{**seals, "Action": ["kms:Decrypt"]}]}}),
        ("AWS's own key", {"key": "alias/aws/sns", "key_policy": None}),
        ("does not reach", {"heard_by": []}),
        ("does not reach", {"heard_by": [webhook]}),
        ("does not reach", {"heard_by": [("email", PAGERDUTY)]}),
    ]


def test_c31_whatever_breaks_on_the_way_is_found(graph: Graph) -> None:
    for why, changes in variants(next(iter(graph.topics.values()))):
        found = complaints(broken(graph, **changes), HEARD)
        assert all(why in complaint for complaint in found), changes
        assert len(found) == 2 * len(graph.alarms), changes


@pytest.mark.parametrize("when", ["AlarmActions", "OKActions"])
def test_c31_an_alarm_without_an_action_or_with_one_that_leads_nowhere_is_found(graph: Graph, when: str) -> None:
    for actions, why in (([], f"it has no {when}"), (["arn:aws:sns:us-east-1:1:gone"], "is no topic")):
        mute = {**graph.alarms, "x": {**next(iter(graph.alarms.values())), when: actions}}
        (complaint,) = complaints(replace(graph, alarms=mute), HEARD)
        assert why in complaint
    off = {name: {**alarm, "ActionsEnabled": False} for name, alarm in graph.alarms.items()}
    assert len(complaints(replace(graph, alarms=off), HEARD)) == len(graph.alarms)


def test_the_pagers_address_is_a_secret_and_confirms_itself(stack: Stack) -> None:
    pager = stack["aws:sns/topicSubscription:TopicSubscription", "page"]
    assert pager.secrets == {"endpoint"}
    assert pager.inputs["endpointAutoConfirms"]
    texts = [str(each.inputs) for each in stack.declared.values() if each is not pager]
    assert not any(PAGERDUTY in text for text in texts)


def test_nobody_in_the_channel_can_do_more_than_look(account: Cloud, stack: Stack) -> None:
    (chat,) = stack.of("aws:chatbot/slackChannelConfiguration:SlackChannelConfiguration")
    assert chat.inputs["guardrailPolicyArns"] == [GUARDRAIL], "left out, it is AdministratorAccess"
    iam = account.client("iam")
    role = iam.get_role(RoleName=NAMES.service_role("chatbot"))["Role"]
    assert chat.inputs["iamRoleArn"] == role["Arn"]
    assert role["PermissionsBoundary"]["PermissionsBoundaryArn"].endswith(NAMES.boundary)
    rights = iam.get_role_policy(RoleName=role["RoleName"], PolicyName="look")["PolicyDocument"]["Statement"]
    verbs = [verb for each in rights for verb in each["Action"]]
    assert all(verb.startswith(("cloudwatch:Describe", "cloudwatch:Get", "cloudwatch:List")) for verb in verbs)


# --- C30: who sends and who watches mean the same ---------------------------------------------------------------------

NOW = Moment(START + timedelta(hours=1))


def sent() -> list[Metric]:
    """One of all that the runbooks send, by their own code."""
    size = manifest().stored_size
    return [
        *of_proof(manifest(), proof(2, minute=5), [], Rung.DECODED, [2 * size] * 3),
        *of_failed_backup("production", Tier.DAILY, NOW),
        *of_ages("production", [Freshness(tier=Tier.WEEKLY, fresh=True, newest=Moment(START), due=None, at=NOW)]),
        *of_sync("production", 2, NOW),
        *of_prune("production", NOW, done=True),
        *of_verified_age("production", Moment(START), NOW),
        *of_drill_age("production", report(), NOW),
        *of_window("production", timedelta(days=1), NOW),
        *of_drill(report()),
    ]


@pytest.fixture(scope="module")
def published(account: Cloud) -> Cloud:
    """The runbooks have sent one of all they send."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "test")
        CloudWatch(REGION, endpoint=account.endpoint).send(sent())
    return account


def of_ours(known: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those that watch what the runbooks send, of tiers that `sent` is about."""
    other = {"production-daily-BackupFailed": "weekly", "production-weekly-BackupFailed": "daily"}
    return {
        name: alarm
        for name, alarm in known.items()
        if alarm["Namespace"] == NAMESPACE
        and ("Tier" not in str(alarm["Dimensions"]) or "-daily-" in name or name in other)
    }


def test_c30_what_an_alarm_watches_is_what_the_runbooks_have_sent(published: Cloud, known: Any) -> None:
    cloudwatch, watching = published.client("cloudwatch"), of_ours(known)
    assert len(watching) == 11
    for name, alarm in watching.items():
        found = cloudwatch.list_metrics(Namespace=alarm["Namespace"], MetricName=alarm["MetricName"])["Metrics"]
        sets = [sorted((each["Name"], each["Value"]) for each in metric["Dimensions"]) for metric in found]
        assert sorted((each["Name"], each["Value"]) for each in alarm["Dimensions"]) in sets, name


def series(cloud: Cloud, alarm: dict[str, Any]) -> list[tuple[datetime, float]]:
    """What CloudWatch has of just the metric that an alarm watches."""
    statistic = alarm["Statistic"]
    found = cloud.client("cloudwatch").get_metric_statistics(
        Namespace=alarm["Namespace"], MetricName=alarm["MetricName"], Dimensions=alarm["Dimensions"], Period=60,
        StartTime=START - DAY, EndTime=START + DAY, Statistics=[statistic],
    )["Datapoints"]  # fmt: skip
    return [(point["Timestamp"], point[statistic]) for point in found]


@pytest.mark.parametrize(
    ("name", "rang"),
    [
        ("production-daily-BackupFailed", False),
        ("production-weekly-BackupFailed", False),
        ("production-daily-BackupSizeAnomaly", True),
        ("production-daily-BackupAttemptFailed", True),
        ("production-daily-VerifyFailed", False),
        ("production-S3SyncFailed", True),
        ("production-PruneFailed", False),
        ("production-NotVerified", False),
        ("production-DrillOverdue", False),
        ("production-DrillFailed", False),
        ("production-RestoreWindowShrunk", True),
    ],
)
def test_c30_what_the_runbooks_send_rings_the_alarm_that_infra_declared(
    published: Cloud, known: Any, name: str, rang: bool
) -> None:
    numbers = series(published, known[name])
    assert numbers, "the alarm is deaf"
    assert rings(known[name], numbers, START + HOUR + timedelta(minutes=10)) is rang
