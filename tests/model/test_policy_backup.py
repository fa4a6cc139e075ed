"""The section [backup] is understood completely, or refused with the place and the reason, and never quotes a value."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from runbooks.model import policy_file
from runbooks.model.backup import Rung, Tier
from runbooks.model.moment import Moment
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.section import Section

AGE = "age1" + "q" * 58
GPG = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEaSecretYAAA\n=x\n-----END PGP PUBLIC KEY BLOCK-----\n"
SMALLEST = f"""
bucket = "bloom-backups"
region = "eu-central-1"
encryption = {{ method = "age", recipients = ["{AGE}"] }}
"""
FULL = f"""
bucket = "bloom-backups"
region = "eu-central-1"
endpoint = "http://127.0.0.1:8333/"
checksums = "supported"
encryption = {{ method = "gpg", recipients = ['''
{GPG}'''] }}
local_folder = "./backups"
jobs = 4
lock_wait = "2m"
time_limit = "90m"
verified_rung = 5
keep_verified = 7
boot_command = ["npm", "run", "smoke"]
assertions = [{{ name = "clients are there", sql = "SELECT count(*) > 0\\nFROM clients" }}]
tolerated = [{{ message = 'role "neon_superuser" does not exist', reason = "Neon's own" }}]
[tiers.daily]
local_days = 30
s3_days = 90
storage_class = "STANDARD_IA"
lock_mode = "GOVERNANCE"
lock_days = 90
schedule = "0 2 * * *"
[tiers.pre-migration]
local_days = "forever"
s3_days = "forever"
storage_class = "DEEP_ARCHIVE"
"""


class File(Section):
    backup: BackupPolicy | None = None


def load(text: str) -> BackupPolicy:
    read = File.model_validate({"backup": tomllib.loads(text)}).backup
    assert read is not None
    return read


def refusal(changes: dict[str, Any], *, text: str = SMALLEST) -> str:
    """What is said, behind the name of the file."""
    with pytest.raises(ValidationError) as caught:
        File.model_validate({"backup": tomllib.loads(text) | changes})
    return policy_file.fault(Path("policy.toml"), caught.value).happened.removeprefix("policy.toml: ")


def test_bucket_region_and_recipients_are_enough_and_the_rest_is_the_strategy() -> None:
    policy = load(SMALLEST)
    kept = {tier: (policy.tiers[tier].local_days, policy.tiers[tier].s3_days) for tier in Tier}
    assert kept == {Tier.DAILY: (30, 90), Tier.WEEKLY: (60, 365), Tier.PRE_MIGRATION: (None, 3 * 365)}
    classes = [policy.tiers[tier].storage_class for tier in Tier]
    assert classes == ["STANDARD_IA", "GLACIER", "DEEP_ARCHIVE"]
    assert [str(policy.tiers[tier].cron) for tier in Tier] == ["0 2 * * *", "0 4 * * 0", "None"]
    assert policy.checksums == "required"
    assert policy.keep_verified >= 1
    assert policy.verified_rung >= Rung.REREAD


def test_every_key_is_read() -> None:
    policy = load(FULL)
    assert policy.endpoint == "http://127.0.0.1:8333"
    assert policy.encryption.recipients == (GPG,)
    assert (policy.lock_wait, policy.time_limit) == (timedelta(minutes=2), timedelta(minutes=90))
    assert policy.boot_command == ("npm", "run", "smoke")
    assert policy.assertions[0].sql == "SELECT count(*) > 0\nFROM clients"
    assert policy.tiers[Tier.PRE_MIGRATION].s3_days is None
    started = Moment(datetime(2025, 12, 3, 2, tzinfo=UTC))
    assert policy.tiers[Tier.DAILY].locked_until(started) == Moment(datetime(2026, 3, 3, 2, tzinfo=UTC))
    assert policy.tiers[Tier.WEEKLY].locked_until(started) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bucket": "s3://bloom-backups"}, "bucket: is not the name of a bucket (without s3://)"),
        ({"bucket": "Bloom"}, "bucket: is not the name of a bucket (without s3://)"),
        ({"bucket": "10.0.0.1"}, "bucket: is not the name of a bucket (without s3://)"),
        ({"bucket": "a..b"}, "bucket: is not the name of a bucket (without s3://)"),
        ({"region": "eu central"}, "region: is not a region such as eu-central-1"),
        (
            {"endpoint": "http://s3.example.com"},
            "endpoint: has to start with https://, or backups and credentials would cross the network unencrypted",
        ),
        ({"endpoint": "https://key:secret@s3.example.com"}, "endpoint: is not a URL such as https://s3.example.com"),
        ({"checksums": "when_required"}, 'checksums: is not one of "required", "supported"'),
        ({"jobs": True}, "jobs: Input should be a valid integer"),
        ({"jobs": 0}, "jobs: Input should be greater than or equal to 1"),
        ({"keep_verified": 0}, "keep_verified: Input should be greater than or equal to 1"),
        ({"verified_rung": 0}, "verified_rung: Input should be greater than or equal to 1"),
        ({"verified_rung": 6}, "verified_rung: Input should be less than or equal to 5"),
        ({"lock_wait": 180}, 'lock_wait: is a number without a unit; write "180s", "180m", "180h" or "180d"'),
        ({"boot_command": "npm run smoke"}, "boot_command: expected a list, found text"),
        ({"bukcet": "x"}, "bukcet: unknown key; did you mean 'bucket'?"),
        (
            {"assertions": [{"name": "a", "sql": " "}]},
            "assertions[entry 1].sql: is empty, or contains a character that",
        ),
        (
            {"assertions": [{"name": "a", "sql": "SELECT true"}, {"name": "a", "sql": "SELECT false"}]},
            "assertions: entry 2 has the name of an earlier one",
        ),
        (
            {"tolerated": [{"message": "error", "reason": "because"}]},
            "tolerated[entry 1].message: is so short that it would tolerate messages nobody has thought of",
        ),
        ({"tolerated": [{"message": "role does not exist"}]}, "tolerated[entry 1].reason: is missing"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(changes: dict[str, Any], told: str) -> None:
    assert refusal(changes).startswith(f"backup.{told}")


@pytest.mark.parametrize(
    ("encryption", "told"),
    [
        ({"method": "none", "recipients": [AGE]}, '.method: is not one of "age", "gpg"'),
        ({"method": "age", "recipients": []}, ": recipients is empty: nobody could open the backups"),
        ({"method": "age", "recipients": [AGE, AGE[:-1]]}, ": recipient 2 is not an age public key"),
        ({"method": "age", "recipients": [GPG]}, ": recipient 1 is not an age public key"),
        ({"method": "age", "recipients": [AGE, AGE]}, ": recipients names a key twice"),
        ({"method": "gpg", "recipients": [AGE]}, ": recipient 1 is not one armoured GPG public key"),
        ({"method": "gpg", "recipients": ["0123456789ABCDEF"]}, ": recipient 1 is not one armoured GPG public key"),
        ({"method": "gpg", "recipients": [GPG + GPG]}, ": recipient 1 is not one armoured GPG public key"),
        ({"method": "gpg", "recipients": [GPG[:-10]]}, ": recipient 1 is not one armoured GPG public key"),
        ("age", ": expected a table, found text"),
    ],
)
def test_backups_that_nobody_or_everybody_could_read_are_refused(encryption: Any, told: str) -> None:
    assert refusal({"encryption": encryption}).startswith(f"backup.encryption{told}")


def test_a_private_key_in_the_policy_is_refused_and_not_shown() -> None:
    key = "AGE-SECRET-KEY-1QQPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQ8ANYQ7"
    for private in (key, key.lower(), "-----BEGIN PGP PRIVATE KEY BLOCK-----", GPG + GPG.replace("PUBLIC", "PRIVATE")):
        told = refusal({"encryption": {"method": "gpg" if "PGP" in private else "age", "recipients": [private]}})
        assert told.startswith("backup.encryption: recipient 1 is a PRIVATE key")
        assert private not in told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"local_days": "for ever"}, '.local_days: is neither a whole number of days nor "forever"'),
        ({"s3_days": 0}, ".s3_days: Input should be greater than or equal to 1"),
        ({"s3_days": "90d"}, '.s3_days: is neither a whole number of days nor "forever"'),
        ({"storage_class": "ONEZONE_IA"}, '.storage_class: is not one of "STANDARD", "STANDARD_IA"'),
        ({"lock_days": 3}, ": lock_mode and lock_days belong together"),
        ({"lock_mode": "GOVERNANCE"}, ": lock_mode and lock_days belong together"),
        ({"lock_mode": "governance", "lock_days": 3}, '.lock_mode: is not one of "GOVERNANCE", "COMPLIANCE"'),
        ({"lock_mode": "GOVERNANCE", "lock_days": 91}, ": lock_days is longer than s3_days"),
        ({"schedule": "@daily"}, ".schedule: is not the five fields of cron"),
        ({"keep": 3}, ".keep: unknown key"),
    ],
)
def test_a_tier_that_contradicts_itself_is_refused(changes: dict[str, Any], told: str) -> None:
    daily = {"local_days": 30, "s3_days": 90, "storage_class": "STANDARD"}
    assert refusal({"tiers": {"daily": daily | changes}}).startswith(f"backup.tiers.daily{told}")


def test_a_tier_names_all_its_days_and_a_misspelt_tier_is_found() -> None:
    assert refusal({"tiers": {"daily": {"local_days": 3, "storage_class": "STANDARD"}}}) == (
        "backup.tiers.daily.s3_days: is missing"
    )
    assert refusal({"tiers": {"pre_migration": {}}}) == (
        "backup.tiers.pre_migration: unknown key; did you mean 'pre-migration'?"
    )
