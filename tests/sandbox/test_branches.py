"""Rules of branches: deleting, protecting (C24), expiring."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbooks.model.moment import Moment
from runbooks.sandbox.stack import Stack
from tests.sandbox.test_branch_at_a_moment import quiet_moment, rows
from tests.stack import Api, Clock, session, speaking_to, stack_root, until


def ahead(**span: float) -> str:
    return (datetime.now(UTC) + timedelta(**span)).strftime("%Y-%m-%dT%H:%M:%SZ")


def make(api: Api, **wish: Any) -> dict[str, Any]:
    return dict(api.done("POST", f"{api.project}/branches", json={"branch": wish}, expect=201)["branch"])


def names(api: Api) -> set[str]:
    return {each["name"] for each in api.call("GET", f"{api.project}/branches")["branches"]}


def homes(root: Path) -> int:
    return sum(1 for _ in root.glob("projects/*/*"))


def test_a_deleted_branch_is_gone_with_its_server_and_its_files() -> None:
    with stack_root() as root, Stack.start(root) as stack, speaking_to(stack) as api:
        branch = api.branch_at(None, name="short")
        uri = api.uri(branch["id"])
        assert homes(root) == 2
        answer = api.done("DELETE", api.branch(branch["id"]), expect=200)
        assert [each["action"] for each in answer["operations"]] == ["suspend_compute", "delete_timeline"]
        assert homes(root) == 1
        api.call("GET", api.branch(branch["id"]), expect=404)
        assert len(api.call("GET", f"{api.project}/endpoints")["endpoints"]) == 1
        with pytest.raises(psycopg.OperationalError, match="refused"):
            rows(uri, "select 1")
        api.call("DELETE", api.branch(branch["id"]), expect=204)


def test_branches_that_others_need_are_not_deleted(steady_api: Api) -> None:
    api = steady_api
    assert "default" in api.call("DELETE", api.branch(), expect=422)["message"]
    parent = make(api, name="parent")
    child = make(api, name="its child", parent_id=parent["id"])
    assert "children" in api.call("DELETE", api.branch(parent["id"]), expect=422)["message"]
    api.done("DELETE", api.branch(child["id"]))
    api.done("DELETE", api.branch(parent["id"]))


def test_c24_a_protected_branch_and_what_hangs_on_it_cannot_be_deleted(steady_api: Api) -> None:
    api = steady_api
    branch = api.branch_at(None, name="protected", protected=True)
    assert branch["protected"] is True
    assert api.call("DELETE", api.branch(branch["id"]), expect=422)["message"] == "cannot delete protected branch"
    (endpoint,) = api.call("GET", f"{api.branch(branch['id'])}/endpoints")["endpoints"]
    api.call("DELETE", f"{api.project}/endpoints/{endpoint['id']}", expect=422)
    api.call("DELETE", api.project, expect=422)
    api.call("PATCH", api.branch(branch["id"]), json={"branch": {"protected": False}})
    assert api.call("GET", api.branch(branch["id"]))["branch"]["protected"] is False
    api.done("DELETE", api.branch(branch["id"]))


def test_c24_a_child_of_a_protected_branch_has_other_passwords_from_the_first_answer_on(api: Api) -> None:
    main = api.call("GET", f"{api.branch()}/roles/neondb_owner/reveal_password")["password"]
    with session(api.uri()) as connection:
        at = quiet_moment(connection)
    api.call("PATCH", api.branch(), json={"branch": {"protected": True}})
    wish = {"branch": {"parent_timestamp": at.iso()}, "endpoints": [{"type": "read_write"}]}
    made = api.done("POST", f"{api.project}/branches", json=wish, expect=201)
    first = made["connection_uris"][0]["connection_uri"]
    assert main not in first
    assert api.uri(made["branch"]["id"]) == first
    assert rows(first, "select 1") == [(1,)]
    own = made["connection_uris"][0]["connection_parameters"]["password"]
    with pytest.raises(psycopg.OperationalError, match="password"):
        rows(first.replace(own, main), "select 1")
    assert rows(api.uri(), "select 1") == [(1,)], "the parent's is as it was"


def test_c24_a_child_of_an_unprotected_branch_has_the_password_of_that_time(api: Api) -> None:
    old = api.call("GET", f"{api.branch()}/roles/neondb_owner/reveal_password")["password"]
    with session(api.uri()) as connection:
        at = quiet_moment(connection)
    new = api.done("POST", f"{api.branch()}/roles/neondb_owner/reset_password")["role"]["password"]
    for moment, password in ((at.iso(), old), (None, new)):
        wish = {"parent_timestamp": moment} if moment else {}
        body = {"branch": wish, "endpoints": [{"type": "read_write"}]}
        made = api.done("POST", f"{api.project}/branches", json=body, expect=201)
        uri = made["connection_uris"][0]["connection_uri"]
        assert f":{password}@" in uri
        assert api.uri(made["branch"]["id"]) == uri
        assert rows(uri, "select 1") == [(1,)]


def test_a_branch_past_its_time_is_really_deleted(clock: Clock) -> None:
    with stack_root() as root, Stack.start(root, clock=clock) as stack, speaking_to(stack) as api:
        wish = {"name": "brief", "expires_at": ahead(hours=1)}
        made = api.done("POST", f"{api.project}/branches", json={"branch": wish, "endpoints": [{"type": "read_write"}]})
        assert Moment.of(datetime.fromisoformat(made["branch"]["expires_at"])).iso()[:19] == wish["expires_at"][:19]
        assert 3590 <= made["branch"]["ttl_interval_seconds"] <= 3600
        assert "brief" in names(api)
        clock.ahead = timedelta(hours=2)
        assert "brief" not in names(api)
        until(lambda: homes(root) == 1)
        api.call("GET", api.branch(made["branch"]["id"]), expect=404)


@pytest.mark.parametrize(
    ("expires_at", "status"),
    [
        (timedelta(days=29), 200),
        (timedelta(days=31), 400),
        (timedelta(seconds=-5), 400),
        ("2026-12-01", 400),
        ("2099-01-01T00:00:00", 400),
        ("soon", 400),
        (None, 200),
    ],
)
def test_an_expiry_lies_within_thirty_days_and_has_a_zone(
    steady_api: Api, expires_at: timedelta | str | None, status: int
) -> None:
    api = steady_api
    if isinstance(expires_at, timedelta):
        expires_at = ahead(seconds=expires_at.total_seconds())
    branch = next(
        (each for each in api.call("GET", f"{api.project}/branches")["branches"] if each["name"] == "aging"), None
    ) or make(api, name="aging")
    body = {"branch": {"expires_at": expires_at}}
    answer = api.call("PATCH", api.branch(branch["id"]), json=body, expect=status)
    if status == 200:
        assert ("expires_at" in answer["branch"]) is (expires_at is not None)


def test_branches_that_must_stay_cannot_expire(steady_api: Api) -> None:
    api, expiry = steady_api, {"expires_at": ahead(hours=1)}
    assert "default" in api.call("PATCH", api.branch(), json={"branch": expiry}, expect=422)["message"]
    refusal = api.call("POST", f"{api.project}/branches", json={"branch": expiry | {"protected": True}}, expect=422)
    assert "protected" in refusal["message"]
    fading = make(api, name="fading", **expiry)
    wish = {"branch": {"parent_id": fading["id"]}}
    assert "children" in api.call("POST", f"{api.project}/branches", json=wish, expect=422)["message"]
    api.call("PATCH", api.branch(fading["id"]), json={"branch": {"protected": True}}, expect=422)
    parent = make(api, name="has a child")
    make(api, name="the child", parent_id=parent["id"])
    assert "parent" in api.call("PATCH", api.branch(parent["id"]), json={"branch": expiry}, expect=422)["message"]
