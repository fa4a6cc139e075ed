"""What IAM and S3 have stored of a stack's identities: to be proved (every request) and to be tried (one request)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from tempfile import NamedTemporaryFile
from typing import Any

import z3
from iamprover.engine.context import Context
from iamprover.engine.encoder import allowed as allowed_by_any
from iamprover.engine.patterns import globs_intersect, matches_any
from iamprover.model import Policy, Principal
from iamprover.parsers.aws import load_gaad
from iamprover.parsers.iam import parse_policy_document

from runbooks.model.aws_names import Identity
from runbooks.model.metrics import NAMESPACE
from tests.infra.applying import Stack
from tests.infra.archive_ground import AUDIT, BUCKET, LOGS, NAMES
from tests.infra.cloud import REGION, Cloud
from tests.infra.judge import Document, Request, allowed

THE_BUCKET = f"arn:aws:s3:::{BUCKET}"
OWN, FOREIGN = f"{THE_BUCKET}/production", f"{THE_BUCKET}/staging"
DATA = f"{OWN}/2025/12/bloom_backup_20251203_020000/toc.dat.age"
PROOF = f"{OWN}/2025/12/bloom_backup_20251203_020000/proof-20251203T021500Z.json"
REPORT = f"{OWN}/drills/20251203T020000Z-abc/drill.json"
LOG, ACCESS_LOG = f"arn:aws:s3:::{AUDIT}/AWSLogs/1.json.gz", f"arn:aws:s3:::{LOGS}/access/1"
KEY, REPLICA_KEY = "the key", "the replica's key"
PATIENCE = 20_000
"""Milliseconds for one proof. All of ours take less than a second."""


@dataclass(frozen=True)
class World:
    gaad: Mapping[str, Any]
    """IAM's account authorization details."""
    bucket_policy: Document
    keys: Mapping[str, str]

    def role(self, identity: Identity) -> dict[str, Any]:
        found: dict[str, Any] = next(
            each for each in self.gaad["RoleDetailList"] if each["RoleName"] == NAMES.role(identity)
        )
        return found

    def rights(self, identity: Identity) -> list[Document]:
        return [each["PolicyDocument"] for each in self.role(identity)["RolePolicyList"]]

    @property
    def boundary(self) -> Document:
        (policy,) = (each for each in self.gaad["Policies"] if each["Arn"].endswith(f"/{NAMES.boundary}"))
        found: Document = policy["PolicyVersionList"][0]["Document"]
        return found

    def given(self, identity: Identity, documents: list[Document]) -> World:
        """The same, where the identity's rights are these."""
        gaad = json.loads(json.dumps(self.gaad))
        for role in gaad["RoleDetailList"]:
            if role["RoleName"] == NAMES.role(identity):
                role["RolePolicyList"] = [
                    {"PolicyName": f"p{count}", "PolicyDocument": each} for count, each in enumerate(documents)
                ]
        return replace(self, gaad=gaad)

    def may(self, identity: Identity, action: str, resource: str, context: Mapping[str, str] | None = None) -> bool:
        """Tried: one request, as the identity makes it; `context` adds to it and changes it."""
        place = self.keys.get(resource, resource)
        region = place.split(":")[3] if place.startswith("arn:aws:kms:") else REGION
        usual = {
            "aws:SecureTransport": "true", "kms:ViaService": f"s3.{region}.amazonaws.com",
            "cloudwatch:namespace": NAMESPACE,
        }  # fmt: skip
        policy = self.bucket_policy if in_the_archive(place) else None
        request = Request(action, place, usual | dict(context or {}))
        return allowed(request, self.rights(identity), self.boundary, policy)

    def counterexample(
        self, identity: Identity, actions: list[str], resources: list[str], where: Mapping[str, str] | None = None
    ) -> tuple[str, str] | None:
        """Action and resource of a request that is allowed, whatever else is in its context; None: it is proved that
        there is none. `where` pins parts of the context."""
        with NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(self.gaad, file)
            file.flush()
            principal = load_gaad(file.name).principal(self.role(identity)["Arn"])
        places = [self.keys.get(each, each) for each in resources]
        policies = [parse_policy_document("bucket", dict(self.bucket_policy))]
        if not any(_may_meet(policy, actions, places) for policy in principal.policies):
            return None
        return _solved(principal, policies, actions, places, where or {})

    def trusts(self, identity: Identity, who: str, where: Mapping[str, str], action: str = "sts:AssumeRole") -> bool:
        """Whether there is a request, with this in its context, in which `who` becomes the identity: the document that
        a role trusts by works as a policy of the role."""
        trust = parse_policy_document("trust", self.role(identity)["AssumeRolePolicyDocument"])
        return _solved(Principal(who, []), [trust], [action], ["*"], where) is not None


def seen(cloud: Cloud, stack: Stack) -> World:
    gaad = cloud.client("iam").get_account_authorization_details()
    policy = json.loads(cloud.client("s3").get_bucket_policy(Bucket=BUCKET)["Policy"])
    keys = {KEY: stack.exported["key"], REPLICA_KEY: stack.exported["replica_key"]}
    return World(json.loads(json.dumps(gaad, default=str)), policy, keys)


def in_the_archive(place: str) -> bool:
    return place == THE_BUCKET or place.startswith(f"{THE_BUCKET}/")


def _may_meet(policy: Policy, actions: list[str], resources: list[str]) -> bool:
    """Whether any allow has an action and a resource in common with these; else there is nothing to solve."""
    return any(
        any(globs_intersect(mine.lower(), each.lower()) for mine in statement.actions for each in actions)
        and any(globs_intersect(mine, each) for mine in statement.resources for each in resources)
        for statement in policy.statements
        if statement.effect == "Allow"
    )


def _solved(
    principal: Principal, policies: list[Policy], actions: list[str], resources: list[str], where: Mapping[str, str]
) -> tuple[str, str] | None:
    """With iamprover's encoding of IAM, but not its answer: it takes "I do not know" for a proof."""
    solver, context = z3.Solver(), Context()
    solver.set("timeout", PATIENCE)
    action, resource = z3.String("action"), z3.String("resource")
    solver.add(matches_any(action, actions, case_insensitive=True), matches_any(resource, resources))
    solver.add(*(context.constrain(key, value) for key, value in where.items()))
    solver.add(allowed_by_any(principal, action, resource, context, policies))
    verdict = solver.check()
    assert verdict != z3.unknown, f"neither proved nor refuted: {actions} on {resources}"
    if verdict == z3.unsat:
        return None
    model = solver.model()
    return model.eval(action, True).as_string(), model.eval(resource, True).as_string()
