"""docs/adopt.md names things that are there: secrets, roles, alarms, configuration, files."""

from __future__ import annotations

import re
from pathlib import Path

import pulumi
import pytest

from infra.program import provision
from infra.settings import Settings
from tests.infra.applying import apply
from tests.infra.cloud import Cloud
from tests.infra.test_program import CONFIG, KEYS, ROOT

PAGE = (ROOT / "docs" / "adopt.md").read_text()


@pytest.fixture
def production(cloud: Cloud, tmp_path: Path) -> Cloud:
    """As the page leaves it after its step 4."""
    policy = tmp_path / "policy.toml"
    policy.write_text((ROOT / "policy.toml").read_text() + KEYS)

    def program() -> None:
        provision(Settings.read(pulumi.Config("bloom-dr"), pulumi.get_stack()))

    config = {**CONFIG, "bloom-dr:policy": str(policy)}
    apply(cloud, program, config, secret=("bloom-dr:pagerdutyUrl",), stack="production")
    return cloud


def test_what_the_page_names_at_aws_is_there_after_its_fourth_step(production: Cloud) -> None:
    secrets = {each["Name"] for each in production.client("secretsmanager").list_secrets()["SecretList"]}
    named = set(re.findall(r"--secret-id (\S+)", PAGE))
    assert named
    assert named <= secrets
    alarms = production.client("cloudwatch").get_paginator("describe_alarms").paginate()
    known = {each["AlarmName"] for page in alarms for each in page["MetricAlarms"]}
    rung = re.findall(r"--alarm-name (\S+)", PAGE)
    assert rung
    assert set(rung) <= known
    for word in re.findall(r"alarm ([A-Z]\w+)", PAGE):
        assert any(name.endswith(f"-{word}") for name in known), word
    roles = {each["RoleName"] for each in production.client("iam").list_roles()["Roles"]}
    assert set(re.findall(r"`(bloom-dr-production-\w+)`", PAGE)) <= roles


def test_every_secret_that_tasks_need_has_its_command_on_the_page(production: Cloud) -> None:
    secrets = {each["Name"] for each in production.client("secretsmanager").list_secrets()["SecretList"]}
    assert {name for name in secrets if "/production/" in name} == set(
        re.findall(r"put-secret-value --secret-id (\S+)", PAGE)
    )


def test_the_configuration_that_the_page_sets_is_read() -> None:
    source = (ROOT / "infra" / "settings.py").read_text()
    keys = set(re.findall(r"pulumi config set (?:--secret )?([a-zA-Z]\w+)", PAGE))
    assert keys >= {"pagerdutyUrl", "image", "rotate"}
    for key in keys:
        assert f'"{key}"' in source, key


def test_the_files_and_keys_of_the_policy_that_the_page_names_exist() -> None:
    for path in re.findall(r"\b(infra/[\w/]+\.\w+)", PAGE):
        assert (ROOT / path).is_file(), path
    policy = (ROOT / "policy.toml").read_text()
    for key in re.findall(r"`(?:\[)?([a-z_]+)(?:\]| = [^`]*)?`", PAGE):
        if "_" in key and not key.startswith("bloom"):
            assert key in policy or key in ("retain_on_delete",), key
