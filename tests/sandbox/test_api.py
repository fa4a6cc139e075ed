"""The manners of the API: the key, refusals, operations that go on after the answer, one job at a time, pages."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from runbooks.sandbox.stack import Stack
from tests.stack import Api, session, speaking_to, stack_root, until


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eA=="}])
def test_a_request_without_the_right_key_is_refused(steady_api: Api, header: dict[str, str]) -> None:
    url = f"{steady_api.client.base_url}projects"
    answer = httpx.get(url, headers=header, trust_env=False)
    assert answer.status_code == 401
    assert set(answer.json()) == {"request_id", "code", "message"}


def test_the_key_is_in_no_repr(steady_api: Api) -> None:
    with stack_root() as root, Stack.start(root) as stack:
        assert stack.api_key.reveal() not in repr(stack) + repr(stack.api_key) + str(stack.api_key)
        assert stack.uri().reveal() not in repr(stack.uri())


def test_a_request_id_that_was_sent_comes_back(steady_api: Api) -> None:
    answer = steady_api.client.get("/projects/no-such-project-1", headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.json()["request_id"]) == (404, "mine")
    assert answer.headers["x-neon-ret-request-id"] == "mine"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/projects/none-12345678", 404),
        ("GET", "{project}/branches/br-none-123456", 404),
        ("GET", "{project}/endpoints/ep-none-123456", 404),
        ("GET", "{project}/operations/none", 404),
        ("POST", "{project}/endpoints/ep-none-123456/start", 404),
        ("PATCH", "{project}/branches/br-none-123456", 404),
        ("POST", "{project}/snapshots/snap-none/restore", 404),
        ("DELETE", "{project}/branches/br-none-123456", 204),
        ("DELETE", "{project}/endpoints/ep-none-123456", 204),
        ("DELETE", "/projects/none-12345678", 404),
    ],
)
def test_an_unknown_id_is_not_found(steady_api: Api, method: str, path: str, status: int) -> None:
    body = {"branch": {}} if method == "PATCH" else None
    answer = steady_api.client.request(method, path.format(project=steady_api.project), json=body)
    assert answer.status_code == status


def test_one_project_cannot_reach_into_another(api: Api) -> None:
    other = api.done("POST", "/projects", json={"project": {"name": "other"}}, expect=201)
    foreign = f"/projects/{other['project']['id']}/branches/{api.default_branch_id}"
    api.call("GET", foreign, expect=404)
    api.call("DELETE", foreign, expect=404)
    assert len(api.call("GET", "/projects")["projects"]) == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("branches", {"branch": {"nmae": "misspelt"}}),
        ("branches", {"branch": {"name": 7}}),
        ("branches", {"branch": {"protected": "yes"}}),
        ("branches", []),
        ("endpoints", {"endpoint": {"type": "read_write"}}),
    ],
)
def test_a_body_that_is_not_understood_is_refused(steady_api: Api, path: str, body: Any) -> None:
    steady_api.call("POST", f"{steady_api.project}/{path}", json=body, expect=400)


def test_a_body_that_is_not_json_is_refused_and_the_connection_stays_usable(steady_api: Api) -> None:
    path = f"{steady_api.project}/branches"
    assert steady_api.client.post(path, content=b"{").status_code == 400
    assert steady_api.client.get(path).status_code == 200


def test_a_query_parameter_that_neon_would_ignore_is_refused(steady_api: Api) -> None:
    steady_api.call("POST", f"{steady_api.branch()}/snapshot", params={"source_timestamp": "x"}, expect=400)


@pytest.mark.parametrize("wish", [{"init_source": "schema-only"}, {"archived": True}, {"init_source": "parent-schema"}])
def test_what_the_sandbox_cannot_do_it_says(steady_api: Api, wish: dict[str, Any]) -> None:
    refusal = steady_api.call("POST", f"{steady_api.project}/branches", json={"branch": wish}, expect=501)
    assert "not part of the sandbox" in refusal["message"]


def test_the_answer_comes_before_the_work_and_meanwhile_the_project_is_busy(api: Api, stack: Stack) -> None:
    wish = {"branch": {"name": "slow"}, "endpoints": [{"type": "read_write"}]}
    with stack.plane.jobs.at_rest(api.project_id):  # the work cannot begin yet
        made = api.call("POST", f"{api.project}/branches", json=wish, expect=201)
        assert made["branch"]["current_state"] == "init"
        assert made["endpoints"][0]["current_state"] == "init"
        assert [each["action"] for each in made["operations"]] == ["create_branch", "start_compute"]
        paths = [f"{api.project}/operations/{each['id']}" for each in made["operations"]]
        assert {api.call("GET", path)["operation"]["status"] for path in paths} == {"scheduling"}
        for method, path, body in (
            ("POST", f"{api.project}/branches", {"branch": {"name": "second"}}),
            ("PATCH", api.branch(), {"branch": {"name": "renamed"}}),
            ("PATCH", api.project, {"project": {"name": "renamed"}}),
            ("DELETE", api.project, None),
        ):
            assert "conflicting operations" in api.call(method, path, json=body, expect=423)["message"]
        names = {each["name"] for each in api.call("GET", f"{api.project}/branches")["branches"]}
        assert names == {"main", "slow"}, "reading is never refused, and nothing of the refused was done"
    for path in paths:
        until(lambda path=path: api.call("GET", path)["operation"]["status"] == "finished")
    branch = api.call("GET", api.branch(made["branch"]["id"]))["branch"]
    assert branch["current_state"] == "ready"
    assert "pending_state" not in branch
    api.call("PATCH", api.branch(), json={"branch": {"name": "renamed"}})


def test_of_several_wishes_at_the_same_time_one_wins(api: Api) -> None:
    statuses = []

    def wish() -> None:
        statuses.append(api.client.post(f"{api.project}/branches", json={"branch": {"name": "one"}}).status_code)

    threads = [threading.Thread(target=wish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.count(201) == 1
    assert set(statuses) == {201, 423}


def test_a_failed_operation_says_why_and_leaves_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from runbooks.model.errors import SandboxFault
    from runbooks.sandbox import fork

    def broken(*_: object) -> None:
        raise SandboxFault("the disk is full", safe="all", next_step="none")

    with monkeypatch.context() as patch:
        patch.setattr(fork, "copy_files", broken)
        body = {"branch": {"name": "doomed"}, "endpoints": [{"type": "read_write"}]}
        made = api.call("POST", f"{api.project}/branches", json=body, expect=201)
        paths = [f"{api.project}/operations/{each['id']}" for each in made["operations"]]
        until(lambda: api.call("GET", paths[1])["operation"]["status"] == "cancelled")
        failed = api.call("GET", paths[0])["operation"]
    assert (failed["status"], failed["error"], failed["failures_count"]) == ("failed", "the disk is full", 1)
    assert [each["name"] for each in api.call("GET", f"{api.project}/branches")["branches"]] == ["main"]
    assert len(api.call("GET", f"{api.project}/endpoints")["endpoints"]) == 1
    api.branch_at(None, name="doomed")


def test_a_name_that_is_taken_is_refused(steady_api: Api) -> None:
    api = steady_api
    api.done("POST", f"{api.project}/branches", json={"branch": {"name": "taken"}})
    api.call("POST", f"{api.project}/branches", json={"branch": {"name": "taken"}}, expect=409)
    api.call("PATCH", api.branch(), json={"branch": {"name": "taken"}}, expect=409)
    api.call("PATCH", api.branch(), json={"branch": {"name": "main"}})


def test_lists_come_in_pages(api: Api) -> None:
    for place in range(3):
        api.done("POST", f"{api.project}/branches", json={"branch": {"name": f"page {place}"}})
    query: dict[str, Any] = {"limit": 2, "sort_by": "name", "sort_order": "asc"}
    first = api.call("GET", f"{api.project}/branches", params=query)
    second = api.call("GET", f"{api.project}/branches", params=query | {"cursor": first["pagination"]["next"]})
    names = [[each["name"] for each in page["branches"]] for page in (first, second)]
    assert names == [["main", "page 0"], ["page 1", "page 2"]]
    assert "next" not in second["pagination"]

    api.done("POST", "/projects", json={"project": {"name": "newer"}})
    seen, cursor = [], None
    while page := api.call("GET", "/projects", params={"limit": 1} | ({"cursor": cursor} if cursor else {})):
        if not page["projects"]:
            break
        seen += [each["name"] for each in page["projects"]]
        cursor = page["pagination"]["cursor"]
    assert seen == ["newer", "sandbox"]
    operations = api.call("GET", f"{api.project}/operations", params={"limit": 1})
    assert len(operations["operations"]) == 1
    api.call("GET", "/projects", params={"limit": 0}, expect=400)


def test_a_branch_can_carry_a_note(steady_api: Api) -> None:
    api = steady_api
    body = {"branch": {"name": "noted"}, "annotation_value": {"incident": "2026-03"}}
    made = api.done("POST", f"{api.project}/branches", json=body)
    id_ = made["branch"]["id"]
    assert api.call("GET", api.branch(id_))["annotation"]["value"] == {"incident": "2026-03"}
    assert api.call("GET", f"{api.project}/branches")["annotations"][id_]["value"] == {"incident": "2026-03"}


def test_a_stack_that_has_stopped_answers_on_no_connection() -> None:
    with stack_root() as root:
        stack = Stack.start(root)
        with speaking_to(stack) as api:
            api.call("GET", "/projects")
            stack.stop()
            with pytest.raises(httpx.TransportError):
                api.client.get("/projects")
            with Stack.start(root) as again, session(again.uri().reveal()) as connection:
                assert again.api_url == stack.api_url
                assert connection.execute("select 1").fetchall() == [(1,)]
                api.call("GET", "/projects")
