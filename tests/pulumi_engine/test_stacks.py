"""The whole program on the real engine, by the ordinary command line: what `pulumi up` does, and what it refuses."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra import guard
from runbooks.model.errors import Refused, UsageFault
from tests.infra import kinds
from tests.pulumi_engine.ground import IMAGE, Ground, changes_of

LIFECYCLE = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
ACCESS_BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
BUCKET, ROLE, TOPIC = "aws:s3/bucket:Bucket", "aws:iam/role:Role", "aws:sns/topic:Topic"
POSTURE, PROJECT = "pulumi-python:dynamic/neon:Posture", "neon:resource:Project"
TASK, SCHEDULE = "aws:ecs/taskDefinition:TaskDefinition", "aws:scheduler/schedule:Schedule"
SUBSCRIPTION, ALARM = "aws:sns/topicSubscription:TopicSubscription", "aws:cloudwatch/metricAlarm:MetricAlarm"
STORED = "production/daily/a-backup"


def buckets(ground: Ground) -> set[str]:
    return {each["Name"] for each in ground.cloud.client("s3").list_buckets()["Buckets"]}


def daily_days(ground: Ground) -> int:
    rules = ground.cloud.client("s3").get_bucket_lifecycle_configuration(Bucket="bloom-backups")["Rules"]
    return int(next(rule for rule in rules if rule["ID"] == "daily-manifest")["Expiration"]["Days"])


# --- a laptop, without an account ------------------------------------------------------------------------------------


def test_the_sandbox_is_deployed_by_the_ordinary_command_and_a_second_time_nothing_changes(ground: Ground) -> None:
    ground.pulumi("stack", "init", "sandbox")
    planned = ground.changes("sandbox")
    assert set(planned.values()) == {"create"}
    assert buckets(ground) == set(), "a preview makes nothing"
    ground.up("sandbox")
    state = ground.state("sandbox")
    assert planned.keys() <= {(each["type"], each["urn"].split("::")[-1]) for each in state}
    assert "bloom-sandbox-stack" in buckets(ground)
    assert ground.neon.default_branch().protected
    assert ground.environ["NEON_API_KEY"] not in json.dumps(state), "the key is in the environment and nowhere else"
    assert ground.changes("sandbox", "--refresh") == {}
    ground.pulumi("destroy", "--yes", "--skip-preview", "--stack", "sandbox")
    assert buckets(ground) == set(), "nothing of it is protected"
    assert ground.neon.default_branch().protected, "Neon stays as it is"


# --- production ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def production(ground: Ground) -> Ground:
    """Deployed, with a backup in its bucket. Tests leave settings of it changed, and rely on none."""
    ground.pulumi("stack", "init", "production")
    ground.pulumi("config", "set", "--stack", "production", "image", IMAGE)
    ground.pulumi("config", "set", "--stack", "production", "--secret", "pagerdutyUrl", "https://events.example/x")
    ground.up("production")
    ground.cloud.client("s3").put_object(Bucket="bloom-backups", Key=STORED, Body=b"data")
    return ground


def test_a_retention_is_changed_where_it_is_and_nothing_is_replaced(production: Ground, tmp_path: Path) -> None:
    with production.policy("s3_days = 90\n", "s3_days = 120\n"):
        preview = production.preview("production")
        changes = changes_of(preview)
        assert set(changes.values()) == {"update"}
        assert (LIFECYCLE, "archive") in changes
        (tmp_path / "preview.json").write_text(json.dumps(preview))
        assert production.guard(str(tmp_path / "preview.json")).returncode == 0
        production.up("production")
        assert daily_days(production) == 120


def test_what_was_changed_by_hand_is_seen_by_a_refresh_and_put_back(production: Ground) -> None:
    s3, neon = production.cloud.client("s3"), production.neon
    opened = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), False)
    s3.put_public_access_block(Bucket="bloom-backups", PublicAccessBlockConfiguration=opened)
    s3.delete_bucket_lifecycle(Bucket="bloom-backups")
    neon.set_history_retention(timedelta(days=1))
    neon.set_protected(neon.default_branch(), False)
    changes = production.changes("production", "--refresh")
    assert (changes[ACCESS_BLOCK, "archive"], changes[POSTURE, "production"]) == ("update", "update")
    assert changes[LIFECYCLE, "archive"] == "create"
    assert set(changes.values()) == {"create", "update"}
    production.up("production", "--refresh")
    block = s3.get_public_access_block(Bucket="bloom-backups")["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    assert daily_days(production) == 90
    assert neon.project().history_retention == timedelta(days=7)
    assert neon.default_branch().protected


def scheduled(ground: Ground) -> dict[str, str]:
    """Name to the task that it starts."""
    scheduler = ground.cloud.client("scheduler")
    found = [
        scheduler.get_schedule(GroupName=each["GroupName"], Name=each["Name"])
        for each in scheduler.list_schedules()["Schedules"]
    ]
    return {each["Name"]: each["Target"]["EcsParameters"]["TaskDefinitionArn"] for each in found}


def test_a_new_image_passes_the_guard_and_the_schedules_start_it(production: Ground, tmp_path: Path) -> None:
    old = scheduled(production)
    production.pulumi("config", "set", "--stack", "production", "image", IMAGE.replace("ab", "cd"))
    preview = production.preview("production")
    revised = {op for (token, _), op in changes_of(preview).items() if token == TASK}
    assert revised
    assert revised <= guard.REPLACED
    (tmp_path / "preview.json").write_text(json.dumps(preview))
    judged = production.guard(str(tmp_path / "preview.json"))
    assert judged.returncode == 0, judged.stderr
    production.up("production")
    ecs, new = production.cloud.client("ecs"), scheduled(production)
    for name, arn in new.items():
        (container,) = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]["containerDefinitions"]
        assert container["image"].endswith("cd" * 32), name
        before = ecs.describe_task_definition(taskDefinition=old[name])["taskDefinition"]
        assert before["status"] == "ACTIVE", "what a run may have been started of"


def mailed(ground: Ground) -> set[str]:
    """Who hears what production sends by mail."""
    found = ground.cloud.client("sns").list_subscriptions()["Subscriptions"]
    return {each["Endpoint"] for each in found if each["TopicArn"].endswith("production-mail")}


def of_state(ground: Ground, token: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in ground.state("production") if each["urn"].endswith(f"{token}::{name}"))
    return found


def unprotect(ground: Ground, token: str, name: str) -> None:
    ground.pulumi("state", "unprotect", of_state(ground, token, name)["urn"], "--yes", "--stack", "production")


@pytest.mark.long
def test_a_receiver_is_changed_once_it_is_unprotected_and_the_former_hears_no_more(production: Ground) -> None:
    former = '[stacks.production.alerts]\npage = { kind = "pagerduty" }\nmail = { kind = "email", address = "incidents@'
    with production.policy(former, former.replace("incidents@", "night@")):
        assert f"{SUBSCRIPTION}::mail" in production.guard("--stack", "production").stderr
        assert mailed(production) == {"incidents@bloom.com"}
        unprotect(production, SUBSCRIPTION, "mail")
        judged = production.guard("--stack", "production")
        assert judged.returncode == 0, judged.stderr
        production.up("production")
        assert mailed(production) == {"night@bloom.com"}
        assert of_state(production, SUBSCRIPTION, "mail")["protect"]
        unprotect(production, SUBSCRIPTION, "mail")
    production.up("production")
    assert mailed(production) == {"incidents@bloom.com"}


@pytest.mark.long
def test_a_tier_that_the_policy_drops_is_taken_no_more_once_it_is_unprotected(production: Ground) -> None:
    with production.policy('schedule = "0 4 * * 0"\n', ""):
        production.up("production", fails=True)
        assert "take-weekly" in scheduled(production)
        unprotect(production, SCHEDULE, "take-weekly")
        unprotect(production, ALARM, "bloom-dr-production-production-weekly-BackupFailed")
        production.up("production")
        assert scheduled(production).keys() == {"take-daily", "fresh", "verify"}


def standing(ground: Ground, resource: dict[str, Any]) -> bool:
    """Whether the cloud still has it, by the table of kinds."""
    read = kinds.load()[resource["type"]].read
    assert read is not None, f"nobody can tell whether a {resource['type']} is there: its kind has no read"
    return read(ground.cloud, resource["id"], resource["outputs"]) is not None


def stateful(ground: Ground, stack: str) -> list[dict[str, Any]]:
    """Of AWS."""
    found = [each for each in ground.state(stack) if each["type"] in guard.STATEFUL and each["type"].startswith("aws:")]
    assert {BUCKET, "aws:kms/key:Key", "aws:secretsmanager/secret:Secret"} <= {each["type"] for each in found}
    return found


def test_destroy_is_refused_and_nothing_is_lost(production: Ground) -> None:
    """The engine deletes what is not protected before it fails on what is: a later recovery needs that too."""
    before = production.state("production")
    said = production.pulumi("destroy", "--yes", "--skip-preview", "--stack", "production", fails=True)
    assert "because it is protected" in said
    left = {each["urn"] for each in production.state("production")}
    gone = [each for each in before if each["urn"] not in left]
    assert [each["urn"] for each in gone] == []
    assert all(standing(production, each) for each in stateful(production, "production"))
    assert production.cloud.client("s3").get_object(Bucket="bloom-backups", Key=STORED)["Body"].read() == b"data"


def test_c27_another_name_for_the_bucket_ends_the_preview_and_with_it_the_guard(production: Ground) -> None:
    with production.policy('bucket = "bloom-backups"\nregion', 'bucket = "bloom-renamed"\nregion'):
        stopped = production.guard("--stack", "production")
        assert stopped.returncode == UsageFault.exit_code
        # Which of the protected ones it comes to first is not certain: the name is part of other resources, too.
        assert "unable to replace resource" in stopped.stderr


# --- what goes wrong on the way --------------------------------------------------------------------------------------


def test_a_deployment_that_broke_off_is_completed_by_the_next_one(ground: Ground) -> None:
    ground.pulumi("stack", "init", "staging")
    ground.fault.write_text(f"fails {ROLE}")
    assert "AWS does not answer" in ground.up("staging", fails=True)
    some = len(ground.state("staging"))
    ground.fault.write_text(f"dies {TOPIC}")
    ground.up("staging", fails=True)
    assert not ground.fault.exists(), "the provider ended in the middle of its work"
    more = len(ground.state("staging"))
    assert 0 < some < more
    ground.up("staging")
    assert len(ground.state("staging")) > more
    assert ground.changes("staging") == {}


# --- a project that is made, and a stack whose protection somebody lifted --------------------------------------------


def test_c26_what_holds_data_outlives_even_a_stack_whose_protection_was_lifted(ground: Ground) -> None:
    made = f'new_project = {{ name = "Made", region = "aws-us-east-1", pg_version = {ground.pg_version} }}'
    section = '[stacks.development]\nenvironments = ["development"]\n'
    ground.pulumi("stack", "init", "development")
    with ground.policy(section, f"{section}{made}\n"):
        ground.up("development")
        (project,) = (each for each in ground.state("development") if each["type"] == PROJECT)
        neon = ground.account.open(project["id"])
        assert neon.default_branch().protected
        password = neon.reveal_password(branch_id=neon.default_branch().id, role="neondb_owner").reveal()
        assert password not in json.dumps(ground.state("development")), "the provider does not say that it is secret"
        with ground.policy('name = "Made"', 'name = "Renamed"'):
            assert ground.changes("development") == {}, "to this provider another name is another project"
        ground.pulumi("state", "unprotect", "--all", "--yes", "--stack", "development")
        kept = stateful(ground, "development")
    stopped = ground.guard("--stack", "development")
    assert stopped.returncode == Refused.exit_code, stopped.stderr
    assert f"would delete {project['urn']}" in stopped.stderr
    ground.pulumi("destroy", "--yes", "--skip-preview", "--stack", "development")
    assert ground.state("development") == []
    assert all(standing(ground, each) for each in kept)
    assert neon.project().name == "Made", "a project that is deleted is not found"
