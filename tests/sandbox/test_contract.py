"""Every answer has the shape that Neon's own specification gives it, for every route the sandbox has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml

from runbooks.sandbox.routes import ROUTES
from runbooks.sandbox.stack import Stack
from tests.sandbox.test_branch_at_a_moment import quiet_moment
from tests.stack import Api, session, speaking_to, until

SPECIFICATION = Path(__file__).resolve().parents[3] / "shared" / "neon-openapi.yaml"

pytestmark = pytest.mark.skipif(not SPECIFICATION.exists(), reason=f"{SPECIFICATION.name} is not beside the project")


@cache
def specification() -> dict[str, Any]:
    return dict(yaml.load(SPECIFICATION.read_text(), Loader=yaml.CSafeLoader))


def template_of(path: str) -> str:
    for known in specification()["paths"]:
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", known), path) and ("{" in known or known == path):
            return str(known)
    raise AssertionError(f"{path} is not in the specification")


def check(answer: httpx.Response, seen: set[tuple[str, str, int]]) -> None:
    """The answer's status is one that Neon gives there, and its body fits the schema."""
    answer.read()
    path = answer.request.url.path.removeprefix("/api/v2")
    template = template_of(path)
    responses = specification()["paths"][template][answer.request.method.lower()]["responses"]
    seen.add((answer.request.method, template, answer.status_code))
    if answer.is_success:
        assert answer.status_code in responses, f"{answer.request.method} {template} gave {answer.status_code}"
    response = responses.get(answer.status_code, responses["default"])
    if "$ref" in response:
        response = specification()["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    if "content" not in response:
        assert answer.content == b""
        return
    schema = response["content"]["application/json"]["schema"] | {"components": specification()["components"]}
    jsonschema.Draft4Validator(schema).validate(answer.json())
    for moment in re.findall(r'"\w+_at": "([^"]*)"', answer.text):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", moment)


@pytest.fixture
def checked(stack: Stack) -> Iterator[tuple[Api, set[tuple[str, str, int]]]]:
    seen: set[tuple[str, str, int]] = set()
    with speaking_to(stack) as api:
        api.client.event_hooks["response"].append(lambda answer: check(answer, seen))
        yield api, seen


def test_every_answer_fits_the_specification(checked: tuple[Api, set[tuple[str, str, int]]]) -> None:
    api, seen = checked
    with session(api.uri()) as connection:
        at = quiet_moment(connection).iso()
    roles_and_databases(api)
    branch = api.branch_at(at, name="child", protected=True)
    branches(api, branch["id"])
    endpoints(api, branch["id"])
    wish = {"source_branch_id": api.default_branch_id, "source_timestamp": at, "preserve_under_name": "kept"}
    api.done("POST", f"{api.branch()}/restore", json=wish)
    snapshots(api)
    projects(api)
    refusals(api)
    walked = {(method, template) for method, template, _ in seen}
    assert walked == {(route.method, route.path) for route in ROUTES}, "a route was left out"


def roles_and_databases(api: Api) -> None:
    api.done("POST", f"{api.branch()}/roles", json={"role": {"name": "app"}})
    api.done("POST", f"{api.branch()}/databases", json={"database": {"name": "extra", "owner_name": "app"}})
    for path in ("roles", "roles/app", "roles/app/reveal_password", "databases", "databases/extra"):
        api.call("GET", f"{api.branch()}/{path}")
    api.done("POST", f"{api.branch()}/roles/app/reset_password")
    for path in ("databases/extra", "roles/app"):
        api.done("DELETE", f"{api.branch()}/{path}", expect=200)
        api.call("DELETE", f"{api.branch()}/{path}", expect=204)


def branches(api: Api, child: str) -> None:
    api.call("GET", f"{api.project}/branches")
    api.call("PATCH", api.branch(child), json={"branch": {"protected": False}})
    made = api.done("POST", f"{api.project}/branches", json={"annotation_value": {"why": "test"}})["branch"]
    api.done("DELETE", api.branch(made["id"]), expect=200)
    api.call("DELETE", api.branch(made["id"]), expect=204)
    api.call("GET", f"{api.project}/operations")


def endpoints(api: Api, child: str) -> None:
    api.call("GET", f"{api.project}/endpoints")
    (endpoint,) = api.call("GET", f"{api.branch(child)}/endpoints")["endpoints"]
    path = f"{api.project}/endpoints/{endpoint['id']}"
    api.call("GET", path)
    for what in ("suspend", "start", "restart"):
        api.done("POST", f"{path}/{what}")
    api.done("PATCH", path, json={"endpoint": {"disabled": True}})
    api.done("DELETE", path, expect=200)
    api.call("DELETE", path, expect=204)
    api.done("POST", f"{api.project}/endpoints", json={"endpoint": {"branch_id": child, "type": "read_write"}})


def snapshots(api: Api) -> None:
    snapshot = api.done("POST", f"{api.branch()}/snapshot", params={"name": "one"})["snapshot"]
    path = f"{api.project}/snapshots/{snapshot['id']}"
    api.call("GET", f"{api.project}/snapshots")
    api.call("PATCH", path, json={"snapshot": {"name": "two"}})
    restored = api.done("POST", f"{path}/restore", json={"target_branch_id": api.default_branch_id})["branch"]
    api.done("POST", f"{api.branch(restored['id'])}/finalize_restore", json={})
    api.done("DELETE", path, expect=202)
    schedule = f"{api.branch(restored['id'])}/backup_schedule"
    api.call("PUT", schedule, json={"schedule": [{"frequency": "weekly", "day": 1, "hour": 2}]})
    api.call("GET", schedule)


def projects(api: Api) -> None:
    made = api.done("POST", "/projects", json={"project": {"name": "second"}}, expect=201)
    path = f"/projects/{made['project']['id']}"
    api.call("GET", "/projects")
    api.call("GET", path)
    api.call("PATCH", path, json={"project": {"history_retention_seconds": 7200}})
    api.call("DELETE", path)
    api.call("GET", "/projects", params={"recoverable": "true"})
    api.call("POST", f"{path}/recover")
    until(lambda: api.call("GET", f"{path}/operations")["operations"][0]["status"] == "finished")


def refusals(api: Api) -> None:
    api.call("GET", "/projects/none-12345678", expect=404)
    api.call("POST", f"{api.project}/branches", json={"branch": {"parent_timestamp": "soon"}}, expect=400)
    api.call("GET", "/projects", headers={"Authorization": "Bearer wrong"}, expect=401)
