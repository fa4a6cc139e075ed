"""[stacks.NAME]: who is told, who may do what, and which bucket is whose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runbooks.model.errors import PolicyFault
from runbooks.model.policy import Policy

HEAD = """
default_environment = "production"
local_timezone = "UTC"
[environments.production]
project = "example-production-00000001"
database = "neondb"
role = "neondb_owner"
promised_window = "7d"
[environments.staging]
project = "example-staging-00000002"
database = "neondb"
role = "neondb_owner"
promised_window = "1d"
[backup]
bucket = "bloom-backups"
region = "us-east-1"
"""
OPERATOR = "arn:aws:iam::111122223333:user/on-call"


def stack(name: str, **changed: str) -> str:
    values = {
        "environments": f'["{name}"]', "operators": f'["{OPERATOR}"]', "alerts.page": '{ kind = "pagerduty" }',
        "alerts.mail": '{ kind = "email", address = "incidents@bloom.com" }',
        "alerts.chat": '{ kind = "slack", workspace = "T0123ABCDE", channel = "C0123ABCDE" }',
    } | {key.replace("__", "."): value for key, value in changed.items()}  # fmt: skip
    return f"[stacks.{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items() if value)


def load(tmp_path: Path, *sections: str) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(HEAD + "".join(sections))
    return Policy.load(path)


def test_each_environment_has_the_bucket_of_its_stack(tmp_path: Path) -> None:
    policy = load(tmp_path, stack("production"), stack("staging", bucket='"bloom-backups-staging"'))
    found: dict[str, Any] = {name: policy.backup_of(name) for name in policy.environments}
    assert found["production"].bucket == "bloom-backups"
    assert found["staging"].bucket == "bloom-backups-staging"
    assert found["staging"].tiers == found["production"].tiers


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bucket": '"Bloom_Backups"'}, "stacks.staging.bucket"),
        ({}, "stacks.staging.bucket: is the bucket of the stack 'production' too"),
        ({"bucket": '"other"', "environments": '["production"]'}, "is in the stack 'production' already"),
        ({"bucket": '"other"', "environments": '["stagin"]'}, "did you mean"),
        ({"bucket": '"other"', "environments": "[]"}, "stacks.staging.environments: is empty"),
        ({"bucket": '"other"', "operators": "[]"}, "stacks.staging.operators: is empty"),
        ({"bucket": '"other"', "operators": '["*"]'}, "stacks.staging.operators"),
        ({"bucket": '"other"', "operators": '["arn:aws:iam::111122223333:root"]'}, "ARN of a user or role"),
        ({"bucket": '"other"', "alerts__chat": ""}, "stacks.staging.alerts.chat: is missing"),
        ({"bucket": '"other"', "alerts__mail": '{ kind = "email" }'}, "address: is missing"),
        ({"bucket": '"other"', "alerts__mail": '{ kind = "pigeon", address = "a@b.com" }'}, "alerts.mail"),
        ({"bucket": '"other"', "heartbeat_hours": "24"}, "heartbeat_hours"),
        ({"bucket": '"other"', "rotation_days": "0"}, "rotation_days"),
        ({"bucket": '"other"', "replica": '{ region = "mars" }'}, "replica.region"),
    ],
)
def test_what_cannot_be_provisioned_is_refused_with_its_field(
    tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    with pytest.raises(PolicyFault) as refusal:
        load(tmp_path, stack("production"), stack("staging", **changed))
    assert said in str(refusal.value)
