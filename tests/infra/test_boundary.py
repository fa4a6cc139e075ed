"""The boundary lets through what the roles of the whole stack are given, and no more than a stack needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.boundary import limits
from runbooks.model.aws_names import AwsNames
from tests.infra.archive_ground import BUCKET
from tests.infra.cloud import ACCOUNT, Cloud
from tests.infra.judge import like
from tests.infra.test_program import policy, up  # noqa: F401

LIMIT = 6_144
"""Characters of a managed policy. AWS's."""


@pytest.mark.parametrize("name", ["production", "staging"])
def test_no_role_is_given_what_its_boundary_takes_away(cloud: Cloud, policy: Path, name: str) -> None:  # noqa: F811
    """It would be a right on paper, and a refusal on the day it is needed."""
    up(cloud, policy, name)
    gaad = cloud.client("iam").get_account_authorization_details()
    arn = f"arn:aws:iam::{ACCOUNT}:policy/bloom-dr-{name}-boundary"
    managed = {each["Arn"]: each["PolicyVersionList"][0]["Document"] for each in gaad["Policies"]}
    checked = 0
    for role in gaad["RoleDetailList"]:
        assert role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn") == arn, role["RoleName"]
        documents = [each["PolicyDocument"] for each in role["RolePolicyList"]]
        documents += [managed[each["PolicyArn"]] for each in role["AttachedManagedPolicies"]]
        for document in documents:
            assert taken_away(document, managed[arn]) == [], role["RoleName"]
            checked += 1
    assert checked >= 7


def taken_away(document: Any, boundary: Any) -> list[tuple[str, str]]:
    """Action and resource of what is allowed and not within the boundary."""
    return [
        (action, resource)
        for statement in document["Statement"]
        if statement["Effect"] == "Allow"
        for action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
        if not any(
            any(like(each, action, ignore_case=True) for each in limit["Action"])
            and any(like(each, resource) for each in limit["Resource"])
            for limit in boundary["Statement"]
        )
    ]


def test_what_is_taken_away_is_seen() -> None:
    boundary = {"Statement": limits(AwsNames("production"), BUCKET, ACCOUNT)}
    for action, resource in (("s3:DeleteObject", f"arn:aws:s3:::{BUCKET}/a"), ("s3:GetObject", "arn:aws:s3:::other/a")):
        statement = {"Effect": "Allow", "Action": action, "Resource": resource}
        assert taken_away({"Statement": [statement]}, boundary) == [(action, resource)]


def test_it_fits_into_a_managed_policy() -> None:
    assert len(str(limits(AwsNames("s" * 31), "b" * 55, ACCOUNT))) < LIMIT


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
