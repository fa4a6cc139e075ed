"""The bucket's rules: they keep what the policy promises, and reach nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from infra.lifecycle import COLD, COOLED_AFTER, HIDDEN_DAYS, LEAST_STAY, Rule, check, rules
from runbooks.model.backup import Tier
from runbooks.model.errors import PolicyFault
from runbooks.model.policy_backup import BackupPolicy
from tests.backups.ground import read_again, taken, the_time
from tests.clients.dump_ground import Ground, ground  # noqa: F401
from tests.infra.archive_ground import (
    BUCKET,
    LOCKED,
    archived,
    backup_policy,
    client_of_runbooks,
    lenient,
    repository_in,
)
from tests.infra.clockwork import DAY, due, fate, refused_by_aws
from tests.infra.cloud import Cloud

PARTS = ("data", "manifest", "proof")
CLASSES = ("STANDARD", "STANDARD_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE")
UPLOADED = datetime(2025, 12, 3, 2, 10, tzinfo=UTC)


def tagged(tier: str, part: str) -> dict[str, str]:
    return {"tier": tier, "environment": "production", "part": part}


@some.composite
def policies(draw: some.DrawFn) -> BackupPolicy:
    tiers = {}
    for tier in Tier:
        kept = draw(some.sampled_from(CLASSES))
        least = LEAST_STAY.get(kept, 1) + (COOLED_AFTER if kept in COLD else 0)
        days = draw(some.one_of(some.just("forever"), some.integers(least, 4000)))
        tiers[tier.value] = {"local_days": 30, "s3_days": days, "storage_class": kept}
    limit = draw(some.integers(1, 7 * 24))
    return backup_policy(tiers=tiers, time_limit=f"{limit}h")


moments = some.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=some.just(UTC))  # noqa: DTZ001


@given(policies(), moments, some.sampled_from(list(Tier)), some.sampled_from(PARTS))
def test_nothing_ends_before_the_policy_says_nor_long_after(
    backup: BackupPolicy, uploaded: datetime, tier: Tier, part: str
) -> None:
    found, days = fate(rules(backup), tagged(tier.value, part), uploaded), backup.tiers[tier].s3_days
    if days is None:
        assert (found.hidden, found.gone) == (None, None)
        return
    assert found.hidden is not None
    assert found.gone is not None
    assert found.hidden - uploaded >= days * DAY
    late = DAY if part != "data" else DAY + backup.time_limit + DAY
    assert found.hidden - uploaded < days * DAY + late
    assert HIDDEN_DAYS * DAY <= found.gone - found.hidden < (HIDDEN_DAYS + 1) * DAY, "a hidden version ends as well"


@given(policies(), moments, some.sampled_from(list(Tier)), some.floats(0, 1))
def test_the_files_of_a_backup_are_there_as_long_as_its_manifest(
    backup: BackupPolicy, uploaded: datetime, tier: Tier, share: float
) -> None:
    found, manifest_at = rules(backup), uploaded + backup.time_limit * share
    data = fate(found, tagged(tier.value, "data"), uploaded)
    manifest = fate(found, tagged(tier.value, "manifest"), manifest_at)
    assert not_before(data.hidden, manifest.hidden)


def not_before(one: datetime | None, other: datetime | None) -> bool:
    return one is None or (other is not None and one >= other)


def test_without_the_margin_half_a_backup_would_be_listed() -> None:
    """The property above can fail: a backup taken around midnight shows it."""
    even = [replace(rule, ends=90 if rule.ends else None) for rule in rules(backup_policy())]
    before, after = datetime(2025, 12, 3, 23, 50, tzinfo=UTC), datetime(2025, 12, 4, 0, 10, tzinfo=UTC)
    assert not not_before(
        fate(even, tagged("daily", "data"), before).hidden, fate(even, tagged("daily", "manifest"), after).hidden
    )


@given(policies(), moments, some.sampled_from(list(Tier)), some.sampled_from(PARTS))
def test_only_files_of_cold_tiers_cool_and_not_before_they_can_be_proved(
    backup: BackupPolicy, uploaded: datetime, tier: Tier, part: str
) -> None:
    found, kept = fate(rules(backup), tagged(tier.value, part), uploaded), backup.tiers[tier].storage_class
    if part != "data" or kept not in COLD:
        assert (found.cools, found.into) == (None, None)
        return
    assert found.cools is not None
    assert found.into == kept
    assert DAY <= found.cools - uploaded < 2 * DAY
    assert found.hidden is None or found.hidden - found.cools >= (LEAST_STAY[kept] - 1) * DAY


words = some.text("abcdefghijklmnopqrstuvwxyz-", max_size=12)
strange = some.dictionaries(some.sampled_from(["tier", "part", "environment", "owner"]), words, max_size=4)


@given(policies(), moments, strange)
def test_c19_what_does_not_carry_our_tags_stays_as_it_is(
    backup: BackupPolicy, uploaded: datetime, tags: dict[str, str]
) -> None:
    ours = {(tier.value, part) for tier in Tier for part in PARTS}
    if (tags.get("tier"), tags.get("part")) not in ours:
        found = fate(rules(backup), tags, uploaded)
        assert (found.cools, found.hidden) == (None, None)


def test_c19_reports_of_drills_and_evidence_are_reached_by_no_rule() -> None:
    for tags in ({}, {"environment": "production", "part": "report"}, {"tier": "daily"}, {"part": "data"}):
        assert fate(rules(backup_policy()), tags, UPLOADED).hidden is None
    wide = Rule("wide", ends=90)
    assert fate([wide], {}, UPLOADED).hidden is not None, "a rule without tags would be seen here"


def test_the_strategys_own_numbers() -> None:
    found = rules(backup_policy())
    assert [(rule.id, rule.cools, rule.ends) for rule in found] == [
        ("daily-data", None, 91), ("daily-manifest", None, 90), ("daily-proof", None, 90),
        ("weekly-data", (1, "GLACIER"), 366), ("weekly-manifest", None, 365), ("weekly-proof", None, 365),
        ("pre-migration-data", (1, "DEEP_ARCHIVE"), 1096), ("pre-migration-manifest", None, 1095),
        ("pre-migration-proof", None, 1095), ("leftovers", None, None),
    ]  # fmt: skip
    assert due(UPLOADED, 90) == datetime(2026, 3, 4, tzinfo=UTC), "S3 rounds up to midnight"


@pytest.mark.parametrize(
    ("tier", "kept", "days", "least"),
    [
        ("daily", "STANDARD_IA", 29, 30),
        ("daily", "GLACIER_IR", 89, 90),
        ("weekly", "GLACIER", 90, 91),
        ("pre-migration", "DEEP_ARCHIVE", 180, 181),
    ],
)
def test_a_tier_that_ends_before_its_class_is_paid_for_is_refused(tier: str, kept: str, days: int, least: int) -> None:
    wanted: dict[str, Any] = {"local_days": 30, "s3_days": days, "storage_class": kept}
    with pytest.raises(PolicyFault, match=rf"backup\.tiers\.{tier}\.s3_days is {days}.*until day {least}"):
        check(backup_policy(tiers={tier: wanted}))
    check(backup_policy(tiers={tier: wanted | {"s3_days": least}}))


def test_aws_would_take_the_rules_as_they_are_stored(cloud: Cloud) -> None:
    """What S3 keeps is what was meant, rule by rule; and S3 would have taken it, which moto does not tell."""
    archived(cloud)
    stored = cloud.client("s3").get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert [read(rule) for rule in stored] == list(rules(backup_policy()))
    assert all(rule["Status"] == "Enabled" for rule in stored)
    assert refused_by_aws(stored) == []


def read(rule: dict[str, Any]) -> Rule:
    move = rule.get("Transitions", [])
    end = rule.get("Expiration", {})
    hidden = rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays")
    assert hidden == (HIDDEN_DAYS if "Days" in end else None)
    clears = end.get("ExpiredObjectDeleteMarker", False) and "AbortIncompleteMultipartUpload" in rule
    return Rule(
        rule["ID"], {tag["Key"]: tag["Value"] for tag in rule["Filter"].get("And", {}).get("Tags", [])},
        (move[0]["Days"], move[0]["StorageClass"]) if move else None, end.get("Days"), clears,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"Transitions": [{"Days": 29, "StorageClass": "STANDARD_IA"}]}, "before day 30"),
        ({"Transitions": [{"Days": 90, "StorageClass": "GLACIER"}]}, "ends before it moves"),
        ({"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}, "not with tags"),
        ({"Expiration": {}}, "no action"),
    ],
)
def test_rules_that_aws_refuses_would_be_seen(broken: dict[str, Any], why: str) -> None:
    good = {"ID": "x", "Filter": {"And": {"Tags": [{"Key": "tier", "Value": "daily"}]}}, "Expiration": {"Days": 90}}
    assert refused_by_aws([good]) == []
    assert why in refused_by_aws([good | broken])[0]
    assert "second rule" in refused_by_aws([good, good])[0]


@pytest.fixture(scope="module")
def backed_up(
    _account: Cloud,
    ground: Ground,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, Any]]:
    """A backup of each tier, taken and proved by the runbooks' own code into the bucket that infra has declared: the
    answers of S3, by key."""
    _account.reset()
    archived(_account, backup_policy(tiers=LOCKED))
    with pytest.MonkeyPatch.context() as patch:
        lenient(patch)
        s3, dsn = (
            _account.client("s3"),
            ground.database("CREATE TABLE clients (id int); INSERT INTO clients VALUES (1)"),
        )
        s3.put_object(Bucket=BUCKET, Key="evidence/2024.txt", Body=b"somebody else's")
        repository = repository_in(_account, lambda: client_of_runbooks(_account))
        start = the_time().utc
        for number, tier in enumerate(Tier, start=1):
            at = start - timedelta(seconds=number)
            read_again(repository, taken(repository, dsn, tmp_path_factory.mktemp(tier), tier=tier, at=at))
        return {each["Key"]: _seen(s3, each["Key"]) for each in s3.list_objects_v2(Bucket=BUCKET)["Contents"]}


def _seen(s3: Any, key: str) -> dict[str, Any]:
    tags = s3.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"]
    return {"tags": {tag["Key"]: tag["Value"] for tag in tags}, **s3.head_object(Bucket=BUCKET, Key=key)}


def test_a_backup_by_the_runbooks_carries_the_tags_that_the_rules_match(
    backed_up: dict[str, dict[str, Any]],
) -> None:
    found = rules(backup_policy(tiers=LOCKED))
    seen = set()
    for key, answer in backed_up.items():
        end = fate(found, answer["tags"], UPLOADED)
        if key.startswith("evidence/"):
            assert (end.hidden, end.cools) == (None, None), "C19"
            continue
        assert end.hidden is not None, f"{key} would stay for ever"
        seen.add((answer["tags"]["tier"], answer["tags"]["part"], end.into))
        assert answer["ServerSideEncryption"] == "aws:kms"
        # A class that can be read at once, whatever it becomes later.
        direct = "STANDARD_IA" if (answer["tags"]["tier"], answer["tags"]["part"]) == ("daily", "data") else None
        if ".bloom-dr-probe" not in key:
            assert answer.get("StorageClass") == direct, key
    into = {"daily": None, "weekly": "GLACIER", "pre-migration": "DEEP_ARCHIVE"}
    assert seen == {(tier, part, into[tier] if part == "data" else None) for tier in into for part in PARTS}


def test_what_the_policy_locks_is_locked_and_ends_after_its_lock(backed_up: dict[str, dict[str, Any]]) -> None:
    found = rules(backup_policy(tiers=LOCKED))
    for key, answer in backed_up.items():
        tags = answer["tags"]
        locked = tags.get("tier") == "daily" and tags["part"] in ("data", "manifest") and "probe" not in key
        assert ("ObjectLockRetainUntilDate" in answer) is locked, key
        if locked:
            hidden = fate(found, tags, answer["LastModified"]).hidden
            assert hidden is not None
            assert answer["ObjectLockRetainUntilDate"] < hidden
