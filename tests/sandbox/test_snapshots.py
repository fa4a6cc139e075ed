"""Snapshots: a copy at a point, restored beside its branch or in its place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.sandbox.test_branch_at_a_moment import create, rows
from tests.sandbox.test_restore_in_place import damage
from tests.stack import Api, Clock, until


def take(api: Api, **query: str) -> dict[str, Any]:
    answer = api.done("POST", f"{api.branch()}/snapshot", params=query, expect=200)
    (shown,) = (each for each in listed(api) if each["id"] == answer["snapshot"]["id"])
    return shown


def listed(api: Api) -> list[dict[str, Any]]:
    return list(api.call("GET", f"{api.project}/snapshots")["snapshots"])


def compute_for(api: Api, branch_id: str) -> str:
    api.done("POST", f"{api.project}/endpoints", json={"endpoint": {"branch_id": branch_id, "type": "read_write"}})
    return api.uri(branch_id)


def test_a_snapshot_of_the_past_is_restored_beside_its_branch(api: Api) -> None:
    at = damage(api, "goods")
    snapshot = take(api, timestamp=at.iso(), name="before the accident")
    assert (snapshot["name"], snapshot["source_branch_id"]) == ("before the accident", api.default_branch_id)
    assert snapshot["timestamp"] <= at.iso()
    assert snapshot["manual"] is True
    wish = {"name": "preview", "target_branch_id": api.default_branch_id}
    branch = api.done("POST", f"{api.project}/snapshots/{snapshot['id']}/restore", json=wish, expect=200)["branch"]
    assert (branch["name"], branch["restored_from"]) == ("preview", snapshot["id"])
    uri = compute_for(api, branch["id"])
    assert rows(uri, "select count(*) from goods") == [(5,)]
    assert rows(api.uri(), "select count(*) from goods") == [(0,)]
    assert create(api, at.iso(), parent_id=branch["id"]).status_code == 400, "it has no history from before"
    again = api.done("POST", f"{api.project}/snapshots/{snapshot['id']}/restore", json={"name": "again"})["branch"]
    api.done("DELETE", api.branch(again["id"]))


def test_a_finalized_restore_takes_name_address_and_protection_but_has_another_id(api: Api) -> None:
    main, uri = api.default_branch_id, api.uri()
    at = damage(api, "goods")
    snapshot = take(api, timestamp=at.iso())
    api.call("PATCH", api.branch(), json={"branch": {"protected": True}})
    wish = {"target_branch_id": main, "finalize_restore": True}
    new = api.done("POST", f"{api.project}/snapshots/{snapshot['id']}/restore", json=wish)["branch"]["id"]
    assert new != main
    assert rows(uri, "select count(*) from goods") == [(5,)]
    assert rows(uri, "select current_setting('neon.branch_id')") == [(new,)]
    after, old = (api.call("GET", api.branch(id_))["branch"] for id_ in (new, main))
    assert (after["name"], after["default"], after["protected"]) == ("main", True, True)
    assert (old["default"], old["protected"]) == (False, False)
    assert old["name"].startswith("main_old_")
    assert api.call("GET", f"{api.branch(main)}/endpoints")["endpoints"] == []
    api.call("POST", f"{api.branch(new)}/finalize_restore", json={}, expect=422)


def test_a_previewed_restore_can_be_finalized_later(api: Api) -> None:
    uri, at = api.uri(), damage(api, "goods")
    snapshot = take(api, timestamp=at.iso())
    branch = api.done("POST", f"{api.project}/snapshots/{snapshot['id']}/restore", json={})["branch"]
    compute_for(api, branch["id"])
    api.done("POST", f"{api.branch(branch['id'])}/finalize_restore", json={"name": "replaced"})
    assert rows(uri, "select count(*) from goods") == [(5,)]
    assert len(api.call("GET", f"{api.project}/endpoints")["endpoints"]) == 1
    assert api.call("GET", api.branch())["branch"]["name"] == "replaced"


def test_snapshots_are_renamed_deleted_and_expire(clocked_api: Api, clock: Clock) -> None:
    api = clocked_api
    soon = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    kept, brief = take(api), take(api, expires_at=soon)
    path = f"{api.project}/snapshots/{kept['id']}"
    assert api.call("PATCH", path, json={"snapshot": {"name": "keep me"}})["snapshot"]["name"] == "keep me"
    assert brief["expires_at"][:19] == soon[:19]
    clock.ahead = timedelta(hours=2)
    until(lambda: [each["id"] for each in listed(api)] == [kept["id"]])
    until(lambda: api.client.patch(path, json={"snapshot": {"name": "idle again"}}).status_code == 200)
    api.done("DELETE", path, expect=202)
    assert listed(api) == []


def test_a_snapshot_outside_the_window_is_refused(steady_api: Api) -> None:
    for query in ({"timestamp": "2020-01-01T00:00:00Z"}, {"lsn": "0/0"}, {"expires_at": "2020-01-01T00:00:00Z"}):
        steady_api.call("POST", f"{steady_api.branch()}/snapshot", params=query, expect=400)
    assert listed(steady_api) == []


def test_a_schedule_is_kept_and_can_be_turned_off(steady_api: Api) -> None:
    path = f"{steady_api.branch()}/backup_schedule"
    assert steady_api.call("GET", path) == {"schedule": []}
    schedule = {"schedule": [{"frequency": "daily", "hour": 3, "retention_seconds": 604_800}]}
    steady_api.call("PUT", path, json=schedule)
    assert steady_api.call("GET", path) == schedule
    steady_api.call("PUT", path, json={"schedule": []})
    assert steady_api.call("GET", path) == {"schedule": []}


@pytest.mark.parametrize(
    "item",
    [{"frequency": "hourly"}, {"frequency": "daily", "hour": 24}, {"frequency": "daily", "retention_seconds": 1}],
)
def test_a_schedule_that_neon_does_not_know_is_refused(steady_api: Api, item: dict[str, Any]) -> None:
    steady_api.call("PUT", f"{steady_api.branch()}/backup_schedule", json={"schedule": [item]}, expect=400)
