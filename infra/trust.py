"""Who may become which identity. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi

from infra.keys import Statement
from runbooks.model.aws_names import Identity
from runbooks.model.policy_stack import StackPolicy

GITHUB = "token.actions.githubusercontent.com"


def trust_of(
    identity: Identity, section: StackPolicy, *, stack: str, account: str, github_arn: pulumi.Input[str] | None
) -> list[Statement]:
    """Who may assume the role of this identity; none: nobody, and then there is no role."""
    if identity is Identity.AUDITOR:
        return _people(section.auditors, section)
    people = _people(section.operators, section)
    if identity in (Identity.PRUNER, Identity.RESTORER):
        return people
    machines = [] if identity is Identity.DRILL else [_tasks(account)]
    if github_arn is not None and section.github is not None:
        machines.append(_actions(github_arn, section.github, stack))
    if hosts := {Identity.WRITER: section.writer_hosts, Identity.VERIFIER: section.verifier_hosts}.get(identity):
        machines.append(_hosts(hosts))
    return [*machines, *people]


def _people(principals: Sequence[str], section: StackPolicy) -> list[Statement]:
    """With a second factor, except where AWS does not tell of it: a session of Identity Center says nothing of one."""
    if not principals:
        return []
    statement: dict[str, Any] = {
        "Sid": "People",
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"AWS": list(principals)},
    }
    if section.login == "mfa":
        statement["Condition"] = {"Bool": {"aws:MultiFactorAuthPresent": "true"}}
    return [statement]


def _hosts(roles: Sequence[str]) -> Statement:
    """Machines elsewhere have no second factor; they come as a role that only they have."""
    return {"Sid": "Hosts", "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": list(roles)}}


def _tasks(account: str) -> Statement:
    """ECS, and Batch on Fargate, which has ECS start its jobs: on behalf of this account only."""
    return {
        "Sid": "Tasks",
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"Service": "ecs-tasks.amazonaws.com"},
        "Condition": {"StringEquals": {"aws:SourceAccount": account}},
    }


def _actions(provider: pulumi.Input[str], repository: str, stack: str) -> Statement:
    return {
        "Sid": "Actions",
        "Effect": "Allow",
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Principal": {"Federated": provider},
        "Condition": {
            "StringEquals": {
                f"{GITHUB}:aud": "sts.amazonaws.com",
                f"{GITHUB}:sub": f"repo:{repository}:environment:{stack}",
            }
        },
    }
