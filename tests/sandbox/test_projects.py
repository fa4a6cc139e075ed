"""Projects: made, listed, changed, deleted, and brought back within seven days."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from runbooks.sandbox.stack import Stack
from tests.sandbox.test_branch_at_a_moment import rows
from tests.stack import Api, Clock, session, speaking_to, stack_root, until


def make(api: Api, **wish: Any) -> dict[str, Any]:
    return dict(api.done("POST", "/projects", json={"project": wish}, expect=201))


def listed(api: Api, **query: Any) -> list[dict[str, Any]]:
    return list(api.call("GET", "/projects", params=query)["projects"])


def test_a_new_project_is_usable_by_what_its_answer_says(steady_api: Api) -> None:
    branch = {"name": "trunk", "database_name": "shop", "role_name": "keeper"}
    asked = {"org_id": "org-1", "history_retention_seconds": 3600, "region_id": "aws-us-east-1"}
    made = make(steady_api, name="shop", branch=branch, **asked)
    uri = made["connection_uris"][0]["connection_uri"]
    assert rows(uri, "select current_database(), current_user") == [("shop", "keeper")]
    project = made["project"]
    assert project["region_id"] == "aws-us-east-1"
    assert (project["name"], project["org_id"], project["history_retention_seconds"]) == ("shop", "org-1", 3600)
    assert "no real data" in project["sandbox_notice"]
    assert (made["branch"]["name"], made["branch"]["default"]) == ("trunk", True)
    assert [each["id"] for each in listed(steady_api, org_id="org-1")] == [project["id"]]
    assert [each["id"] for each in listed(steady_api, search="sho")] == [project["id"]]


def test_the_default_window_of_a_new_project_is_a_day_as_on_neon(steady_api: Api) -> None:
    assert make(steady_api, name="plain")["project"]["history_retention_seconds"] == 86_400


def test_settings_that_are_kept_are_shown_again(steady_api: Api) -> None:
    made = make(steady_api, name="before")
    path = f"/projects/{made['project']['id']}"
    allowed = {"ips": ["192.0.2.1"], "protected_branches_only": True}
    steady_api.call("PATCH", path, json={"project": {"name": "after", "settings": {"allowed_ips": allowed}}})
    project = steady_api.call("GET", path)["project"]
    assert (project["name"], project["settings"]["allowed_ips"]) == ("after", allowed)
    assert project["settings"]["enable_logical_replication"] is False


def test_a_project_with_another_postgresql_is_refused(steady_api: Api) -> None:
    steady_api.call("POST", "/projects", json={"project": {"pg_version": 15}}, expect=501)


def test_a_deleted_project_comes_back_whole_within_seven_days(clocked_api: Api, clock: Clock) -> None:
    api = clocked_api
    made = make(api, name="shop")
    id_, uri = made["project"]["id"], made["connection_uris"][0]["connection_uri"]
    with session(uri) as connection:
        connection.execute("create table stock as select 1 as i")
    api.call("POST", f"/projects/{id_}/recover", expect=422)
    api.call("DELETE", f"/projects/{id_}")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        rows(uri, "select 1")
    assert id_ not in {each["id"] for each in listed(api)}
    api.call("GET", f"/projects/{id_}", expect=404)
    api.call("GET", f"/projects/{id_}/branches", expect=404)
    (gone,) = listed(api, recoverable="true")
    assert gone["id"] == id_
    assert gone["recoverable_until"] > gone["deleted_at"]

    clock.ahead = timedelta(days=6, hours=23)
    back = api.call("POST", f"/projects/{id_}/recover")
    assert (back["project"]["id"], [each["name"] for each in back["branches"]]) == (id_, ["main"])
    until(lambda: api.call("GET", f"/projects/{id_}/endpoints")["endpoints"][0]["current_state"] == "active")
    assert rows(uri, "select count(*) from stock") == [(1,)]
    assert listed(api, recoverable="true") == []


def test_after_seven_days_a_deleted_project_is_gone_for_good(clock: Clock) -> None:
    with stack_root() as root, Stack.start(root, clock=clock) as stack, speaking_to(stack) as api:
        id_ = make(api, name="shop")["project"]["id"]
        api.call("DELETE", f"/projects/{id_}")
        clock.ahead = timedelta(days=7, seconds=60)
        assert listed(api, recoverable="true") == []
        until(lambda: not (root / "projects" / id_).exists())
        api.call("POST", f"/projects/{id_}/recover", expect=404)
        assert rows(api.uri(), "select 1") == [(1,)]


def test_a_deleted_project_stays_recoverable_across_a_restart() -> None:
    with stack_root() as root:
        with Stack.start(root) as stack, speaking_to(stack) as api:
            id_ = make(api, name="shop")["project"]["id"]
            api.call("DELETE", f"/projects/{id_}")
        with Stack.start(root) as stack, speaking_to(stack) as api:
            assert [each["id"] for each in listed(api, recoverable="true")] == [id_]
            api.call("POST", f"/projects/{id_}/recover")


def test_a_start_after_the_first_project_was_deleted_makes_another_one() -> None:
    with stack_root() as root:
        with Stack.start(root) as stack, speaking_to(stack) as api:
            first = stack.project_id
            api.call("DELETE", api.project)
        with Stack.start(root) as stack, speaking_to(stack) as api:
            assert stack.project_id != first
            assert [each["id"] for each in listed(api, recoverable="true")] == [first]
            assert rows(api.uri(), "select 1") == [(1,)]
