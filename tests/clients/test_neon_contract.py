"""What the client sends, and what the fake answers, against Neon's own specification, where a copy of it is at hand.

The copy lies beside the repository and is not part of it. Stricter than the specification on purpose: a field or query
parameter that it does not list counts as a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import pytest
import yaml

from runbooks.clients.neon_types import SnapshotTime
from runbooks.model.moment import Moment
from tests.fakes.neon_http import FakeNeon, Seen, cut_after
from tests.fakes.neon_memory import MAIN, MAIN_ENDPOINT, NOON, PROJECT

SPECIFICATION = Path(__file__).resolve().parents[3] / "shared" / "neon-openapi.yaml"
_COPIED = ("type", "enum", "pattern", "required", "minimum", "maximum", "minLength", "maxLength", "maxProperties")
EXPIRES = Moment.of(NOON + timedelta(days=1))


class Specification:
    def __init__(self, text: str) -> None:
        self.root = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe

    def operation(self, method: str, path: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The operation that a request hits, and its parameters with the path's."""
        for pattern, item in self.root["paths"].items():
            if method.lower() in item and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path):
                operation = item[method.lower()]
                listed = [*item.get("parameters", []), *operation.get("parameters", [])]
                return operation, [self.follow(each) for each in listed]
        raise AssertionError(f"Neon has no {method} {path}")

    def follow(self, node: Any) -> Any:
        while isinstance(node, dict) and "$ref" in node:
            target = self.root
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def schema(self, node: Any, *, closed: bool, part: bool = False) -> dict[str, Any]:
        """JSON schema of an OpenAPI 3.0 node: references resolved, `nullable` and `allOf` folded in.

        `closed` forbids what is not listed, here and below; a `part` of an `allOf` leaves that to the whole.
        """
        node = self.follow(node)
        made = {name: value for name, value in node.items() if name in (*_COPIED, "additionalProperties")}
        for each in (self.schema(one, closed=closed, part=True) for one in node.get("allOf", [])):
            made["properties"] = made.get("properties", {}) | each.get("properties", {})
            made["required"] = made.get("required", []) + each.get("required", [])
            made |= {name: value for name, value in each.items() if name not in ("properties", "required")}
        for name, value in node.get("properties", {}).items():
            made.setdefault("properties", {})[name] = self.schema(value, closed=closed)
        if "items" in node:
            made["items"] = self.schema(node["items"], closed=closed)
        if closed and not part and made.get("properties"):
            made["additionalProperties"] = False
        return {"anyOf": [made, {"type": "null"}]} if node.get("nullable") else made

    def check_request(self, seen: Seen) -> None:
        operation, parameters = self.operation(seen.method, seen.path)
        known = {each["name"]: each for each in parameters if each["in"] == "query"}
        assert set(seen.query) <= set(known), f"{seen.method} {seen.path} does not know {set(seen.query) - set(known)}"
        for name, each in known.items():
            assert name in seen.query or not each.get("required"), f"{seen.method} {seen.path} needs {name}"
            if name in seen.query:
                jsonschema.validate(_typed(seen.query[name], each["schema"]), self.schema(each["schema"], closed=True))
        content = self.follow(operation.get("requestBody", {})).get("content")
        assert content or seen.body is None, f"{seen.method} {seen.path} takes no body"
        if content:
            jsonschema.validate(seen.body, self.schema(content["application/json"]["schema"], closed=True))

    def check_answer(self, seen: Seen) -> None:
        operation, _ = self.operation(seen.method, seen.path)
        answer = self.follow(operation["responses"][seen.status])
        if "content" in answer:
            jsonschema.validate(seen.reply, self.schema(answer["content"]["application/json"]["schema"], closed=False))


def _typed(text: str, schema: dict[str, Any]) -> Any:
    if schema.get("type") == "integer":
        return int(text)
    if schema.get("type") == "boolean":
        return {"true": True, "false": False}[text]
    return unquote(text)


@pytest.fixture(scope="module")
def specification() -> Specification:
    if not SPECIFICATION.is_file():
        pytest.skip("no copy of Neon's OpenAPI specification lies beside the repository (../shared/neon-openapi.yaml)")
    return Specification(SPECIFICATION.read_text())


@pytest.fixture
def fake() -> Iterator[FakeNeon]:
    with FakeNeon(polls=1, page_size=1) as fake:
        yield fake


def every_call(fake: FakeNeon) -> None:
    """Each public method of the clients once."""
    neon, account = fake.neon(), fake.account(org_id="org-1")
    main, endpoint = neon.default_branch(), neon.endpoint(MAIN_ENDPOINT)
    hour_ago = Moment.of(NOON - timedelta(hours=1))
    fake.fail("POST", "/branches", cut_after)
    made = neon.branch_at(parent=main, moment=hour_ago, name="recovery", expires_at=EXPIRES, annotation={"run": "1"})
    neon.connection(branch=made.branch, database="shop", role="shop_owner")
    neon.databases(MAIN)
    neon.roles(MAIN)
    neon.reveal_password(branch_id=MAIN, role="shop_owner")
    neon.reset_password(branch_id=MAIN, role="shop_owner")
    neon.remove_branch(made.branch.id, name="recovery")
    neon.set_protected(main, True)
    with neon.unprotected(main):
        neon.restore_branch(branch=main, source=main, moment=hour_ago, preserve_under="before")
    neon.set_history_retention(timedelta(days=7))
    neon.enable_logical_replication()
    neon.set_snapshot_schedule(main, [SnapshotTime(frequency="daily", hour=3, retention_seconds=604800)])
    neon.enable_endpoint(neon.disable_endpoint(endpoint))
    neon.suspend_endpoint(endpoint)
    neon.restart_endpoint(endpoint)
    snapshot = neon.create_snapshot(branch=main, name="forensic", moment=hour_ago, expires_at=EXPIRES)
    neon.delete_snapshot(snapshot.id, name="forensic")
    project = account.create_project(
        name="rebuilt",
        region_id="aws-eu-central-1",
        pg_version=17,
        database="shop",
        role="shop_owner",
        history_retention=timedelta(days=7),
    )
    account.delete_project(project.id, name="rebuilt")
    account.recoverable_projects()
    account.recover_project(project.id)


def test_every_request_is_one_that_neon_specifies(specification: Specification, fake: FakeNeon) -> None:
    every_call(fake)
    for seen in fake.seen:
        specification.check_request(seen)
    assert len({(seen.method, re.sub(r"/(\w+-)+\d+", "", seen.path)) for seen in fake.seen}) > 15


def test_every_answer_of_the_fake_is_one_that_neon_specifies(specification: Specification, fake: FakeNeon) -> None:
    every_call(fake)
    for seen in fake.seen:
        if 200 <= seen.status < 300:
            specification.check_answer(seen)


@pytest.mark.parametrize(
    ("query", "body"),
    [({}, {"branch": {"nmae": "x"}}), ({}, {"branch": {"name": 7}}), ({"speed": "high"}, {"branch": {"name": "x"}})],
)
def test_a_request_that_is_not_specified_would_be_noticed(specification: Specification, query: Any, body: Any) -> None:
    wrong = Seen("POST", f"/projects/{PROJECT}/branches", query, body, None, 201, {})
    with pytest.raises((jsonschema.ValidationError, AssertionError)):
        specification.check_request(wrong)
