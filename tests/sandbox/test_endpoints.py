"""Computes: they say where they are, stop when they shall, and keep their address."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.sandbox.test_branch_at_a_moment import rows
from tests.stack import Api, session

WHO = """select current_setting('neon.project_id'), current_setting('neon.branch_id'),
    current_setting('neon.endpoint_id'), current_setting('neon.timeline_id')"""


def endpoint_of(api: Api, branch_id: str | None = None) -> dict[str, Any]:
    (found,) = api.call("GET", f"{api.branch(branch_id)}/endpoints")["endpoints"]
    return dict(found)


def act(api: Api, endpoint: dict[str, Any], what: str) -> dict[str, Any]:
    return dict(api.done("POST", f"{api.project}/endpoints/{endpoint['id']}/{what}"))


def state(api: Api, endpoint: dict[str, Any]) -> str:
    return str(api.call("GET", f"{api.project}/endpoints/{endpoint['id']}")["endpoint"]["current_state"])


def test_a_session_can_ask_where_it_is(steady_api: Api) -> None:
    api = steady_api
    child = api.branch_at(None, name="elsewhere")
    here, there = rows(api.uri(), WHO)[0], rows(api.uri(child["id"]), WHO)[0]
    assert here[:3] == (api.project_id, api.default_branch_id, endpoint_of(api)["id"])
    assert there[:3] == (api.project_id, child["id"], endpoint_of(api, child["id"])["id"])
    assert here[3] != there[3]
    system = "select system_identifier from pg_control_system()"
    assert rows(api.uri(), system) == rows(api.uri(child["id"]), system), "as on Neon: it does not tell branches apart"


def test_an_address_looks_like_neon_s_and_reaches_this_machine(steady_api: Api) -> None:
    api = steady_api
    endpoint = endpoint_of(api)
    assert endpoint["host"] == f"{endpoint['id']}.sandbox.localhost"
    query = {"database_name": "neondb", "role_name": "neondb_owner", "pooled": "true"}
    pooled = api.call("GET", f"{api.project}/connection_uri", params=query)["uri"]
    assert f"@{endpoint['id']}-pooler.sandbox.localhost:" in pooled
    assert "hostaddr=127.0.0.1" in pooled
    assert "sslmode=disable" in pooled
    assert rows(pooled, WHO) == rows(api.uri(), WHO)
    by_endpoint = {"database_name": "neondb", "role_name": "neondb_owner", "endpoint_id": endpoint["id"]}
    assert api.call("GET", f"{api.project}/connection_uri", params=by_endpoint)["uri"] == api.uri()


def test_a_suspended_compute_stays_down_until_it_is_started(steady_api: Api) -> None:
    """No proxy here: on Neon the next connection would wake it."""
    api, endpoint = steady_api, endpoint_of(steady_api)
    uri = api.uri()
    assert state(api, endpoint) == "active"
    with session(uri) as open_session:
        act(api, endpoint, "suspend")
        with pytest.raises(psycopg.OperationalError):
            open_session.execute("select 1")
    assert state(api, endpoint) == "idle"
    with pytest.raises(psycopg.OperationalError, match="refused"):
        rows(uri, "select 1")
    act(api, endpoint, "start")
    assert rows(uri, "select 1") == [(1,)]
    act(api, endpoint, "suspend")
    act(api, endpoint, "restart")
    assert state(api, endpoint) == "active"
    assert api.uri() == uri


def test_a_disabled_compute_cannot_be_started(steady_api: Api) -> None:
    api, endpoint = steady_api, endpoint_of(steady_api)
    path = f"{api.project}/endpoints/{endpoint['id']}"
    answer = api.done("PATCH", path, json={"endpoint": {"disabled": True}})
    assert answer["endpoint"]["disabled"] is True
    assert [each["action"] for each in answer["operations"]] == ["suspend_compute"]
    assert "disabled" in api.call("POST", f"{path}/start", expect=422)["message"]
    assert "disabled" in api.call("POST", f"{path}/restart", expect=422)["message"]
    with pytest.raises(psycopg.OperationalError, match="refused"):
        rows(api.uri(), "select 1")
    api.done("PATCH", path, json={"endpoint": {"disabled": False}})
    assert rows(api.uri(), "select 1") == [(1,)]


def test_a_restart_drops_sessions(steady_api: Api) -> None:
    api = steady_api
    with session(api.uri()) as open_session:
        act(api, endpoint_of(api), "restart")
        with pytest.raises(psycopg.OperationalError):
            open_session.execute("select 1")


def test_a_branch_has_one_read_write_compute(steady_api: Api) -> None:
    api = steady_api
    body = {"endpoint": {"branch_id": api.default_branch_id, "type": "read_write"}}
    api.call("POST", f"{api.project}/endpoints", json=body, expect=422)
    body["endpoint"]["type"] = "read_only"
    child = api.done("POST", f"{api.project}/branches", json={"branch": {"name": "no compute"}})["branch"]
    body["endpoint"]["branch_id"] = child["id"]
    api.call("POST", f"{api.project}/endpoints", json=body, expect=501)


def test_a_deleted_compute_leaves_its_branch_and_the_data(steady_api: Api) -> None:
    api = steady_api
    with session(api.uri()) as connection:
        connection.execute("create table without_compute as select 1 as i")
    child = api.branch_at(None, name="loses its compute")
    path = f"{api.project}/endpoints/{endpoint_of(api, child['id'])['id']}"
    api.done("DELETE", path)
    api.call("DELETE", path, expect=204)
    assert api.call("GET", f"{api.branch(child['id'])}/endpoints")["endpoints"] == []
    body = {"endpoint": {"branch_id": child["id"], "type": "read_write", "name": "again"}}
    assert api.done("POST", f"{api.project}/endpoints", json=body)["endpoint"]["name"] == "again"
    assert rows(api.uri(child["id"]), "select count(*) from without_compute") == [(1,)]


def test_logical_replication_is_turned_on_for_good_and_restarts_the_computes(api: Api) -> None:
    child = api.branch_at(None)
    assert rows(api.uri(), "show wal_level") == [("replica",)]
    body = {"project": {"settings": {"enable_logical_replication": True}}}
    answer = api.done("PATCH", api.project, json=body)
    assert answer["project"]["settings"]["enable_logical_replication"] is True
    assert len(answer["operations"]) == 2
    for uri in (api.uri(), api.uri(child["id"])):
        assert rows(uri, "show wal_level") == [("logical",)]
    assert api.call("PATCH", api.project, json=body)["operations"] == []
    body["project"]["settings"]["enable_logical_replication"] = False
    api.call("PATCH", api.project, json=body, expect=422)
    with session(api.uri()) as connection:
        connection.execute("create table stream (i int primary key)")
        connection.execute("create publication p for table stream")
        connection.execute("select pg_create_logical_replication_slot('s', 'pgoutput')")
        connection.execute("insert into stream values (1)")
        changes = connection.execute(
            "select count(*) from pg_logical_slot_peek_binary_changes("
            "'s', null, null, 'proto_version', '1', 'publication_names', 'p')"
        ).fetchall()
    assert changes[0][0] >= 3
