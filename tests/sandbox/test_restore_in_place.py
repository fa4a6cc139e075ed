"""Restore in place: same address, same password, the old state kept as a branch; refused where Neon refuses it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from runbooks.model.moment import Moment
from tests.sandbox.test_branch_at_a_moment import count, create, quiet_moment, rows
from tests.stack import Api, session


def restore(api: Api, branch_id: str, **wish: Any) -> Any:
    return api.done("POST", f"{api.branch(branch_id)}/restore", json=wish)


def refused(api: Api, branch_id: str, status: int, **wish: Any) -> str:
    path = f"{api.branch(branch_id)}/restore"
    return str(api.call("POST", path, json=wish, expect=status)["message"])


def branch_named(api: Api, name: str) -> dict[str, Any]:
    (found,) = (each for each in api.call("GET", f"{api.project}/branches")["branches"] if each["name"] == name)
    return dict(found)


def damage(api: Api, table: str) -> Moment:
    """A table with five rows, all deleted after the moment that is returned."""
    with session(api.uri()) as connection:
        connection.execute(f"create table {table} as select generate_series(1, 5) as i")
        at = quiet_moment(connection)
        connection.execute(f"delete from {table}")
    return at


def test_the_address_stays_the_data_goes_back_and_the_old_state_is_kept(api: Api) -> None:
    main = api.default_branch_id
    uri, before = api.uri(), api.call("GET", api.branch())["branch"]
    with session(uri) as connection:
        connection.execute("create database other")
    at = damage(api, "goods")
    child = api.branch_at(None, name="child")
    with session(uri) as doomed:
        identity = "select current_setting('neon.branch_id'), current_setting('neon.timeline_id')"
        branch_before, timeline_before = doomed.execute(identity).fetchall()[0]
        answer = restore(api, main, source_branch_id=main, source_timestamp=at.iso(), preserve_under_name="kept")
        with pytest.raises(psycopg.OperationalError):
            doomed.execute("select 1")
    assert answer["branch"]["current_state"] == "resetting"
    assert api.uri() == uri
    assert rows(uri, "select count(*) from goods") == [(5,)]
    assert rows(uri, "select 1 from pg_database where datname = 'other'") == [(1,)]
    ((branch_after, timeline_after),) = rows(uri, identity)
    assert branch_after == branch_before == main
    assert timeline_after != timeline_before

    after, kept = api.call("GET", api.branch())["branch"], branch_named(api, "kept")
    assert {"id", "name", "created_at"} <= {name for name in before if before[name] == after[name]}
    assert after["current_state"] == "ready"
    assert "parent_id" not in after
    assert after["last_reset_at"] > before["created_at"]
    assert after["parent_timestamp"] <= at.iso()
    assert ("parent_id" in kept, kept["default"], kept["protected"]) == (False, False, False)
    assert api.call("GET", f"{api.branch(kept['id'])}/endpoints")["endpoints"] == []
    assert api.call("GET", api.branch(child["id"]))["branch"]["parent_id"] == kept["id"], "children move along"

    body = {"endpoint": {"branch_id": kept["id"], "type": "read_write"}}
    api.done("POST", f"{api.project}/endpoints", json=body)
    assert count(api, kept, "goods") == 0
    api.call("DELETE", api.branch(kept["id"]), expect=422)  # it has a child now
    api.done("DELETE", api.branch(child["id"]))
    api.done("DELETE", api.branch(kept["id"]))


def test_history_reaches_back_across_a_restore(api: Api) -> None:
    main = api.default_branch_id
    with session(api.uri()) as connection:
        connection.execute("create table story (i int)")
        connection.execute("insert into story values (1)")
        first = quiet_moment(connection)
        connection.execute("insert into story values (2)")
        second = quiet_moment(connection)
        connection.execute("insert into story values (3)")
        third = quiet_moment(connection)
    restore(api, main, source_branch_id=main, source_timestamp=second.iso(), preserve_under_name="kept")
    with session(api.uri()) as connection:
        connection.execute("insert into story values (4)")
        fourth = quiet_moment(connection)
        connection.execute("delete from story")
    story = "select array_agg(i order by i) from story"
    for at, expected in ((first, [1]), (second, [1, 2]), (third, [1, 2]), (fourth, [1, 2, 4])):
        branch = api.branch_at(at.iso())
        assert rows(api.uri(branch["id"]), story) == [(expected,)], at
    kept = branch_named(api, "kept")
    branch = api.branch_at(third.iso(), parent=kept["id"])
    assert rows(api.uri(branch["id"]), story) == [([1, 2, 3],)]

    restore(api, main, source_branch_id=main, source_timestamp=first.iso(), preserve_under_name="kept too")
    assert rows(api.uri(), story) == [([1],)]
    restore(api, main, source_branch_id=kept["id"], preserve_under_name="undone")
    assert rows(api.uri(), story) == [([1, 2, 3],)]
    undone = branch_named(api, "undone")
    assert "root" in api.call("DELETE", api.branch(undone["id"]), expect=422)["message"]


def test_the_history_from_before_a_restore_survives_the_deletion_of_the_preserved_branch(api: Api) -> None:
    main = api.default_branch_id
    with session(api.uri()) as connection:
        connection.execute("create table early as select 1 as i")
        first = quiet_moment(connection)
        connection.execute("insert into early values (2)")
        second = quiet_moment(connection)
    restore(api, main, source_branch_id=main, source_timestamp=second.iso(), preserve_under_name="kept")
    api.done("DELETE", api.branch(branch_named(api, "kept")["id"]))
    assert count(api, api.branch_at(first.iso()), "early") == 1


def test_a_restore_that_neon_refuses_is_refused(steady_api: Api) -> None:
    api, main = steady_api, steady_api.default_branch_id
    at = damage(api, "any_goods").iso()
    own = {"source_branch_id": main, "source_timestamp": at}
    child = api.branch_at(None, name="child of main")
    assert "point" not in refused(api, main, 400, source_branch_id=main, preserve_under_name="x")
    assert "preserve_under_name" in refused(api, main, 422, **own)
    assert "exists" in refused(api, main, 409, **own, preserve_under_name="child of main")
    assert "root" in refused(api, child["id"], 422, **own)
    assert "root" in refused(api, main, 422, source_branch_id=child["id"], preserve_under_name="x")
    refused(api, main, 404, source_branch_id="br-not-there-123456")
    refused(api, main, 400, **own | {"source_timestamp": "2099-01-01T00:00:00Z"}, preserve_under_name="x")
    refused(api, main, 400, **own, source_lsn="0/1", preserve_under_name="x")
    assert child["restricted_actions"][0]["name"] == "restore"
    assert "restricted_actions" not in api.call("GET", api.branch())["branch"]
    assert create(api, at, name="still possible").status_code == 201


def test_c24_a_protected_branch_is_not_restored_until_protection_is_lifted(api: Api) -> None:
    main = api.default_branch_id
    at = damage(api, "precious")
    wish = {"source_branch_id": main, "source_timestamp": at.iso(), "preserve_under_name": "kept"}
    api.call("PATCH", api.branch(), json={"branch": {"protected": True}})
    assert refused(api, main, 422, **wish) == "cannot reset protected branch"
    api.call("PATCH", api.branch(), json={"branch": {"protected": False}})
    restore(api, main, **wish)
    assert rows(api.uri(), "select count(*) from precious") == [(5,)]


def test_what_was_set_after_the_moment_is_rewound_too(api: Api) -> None:
    """Roles, passwords set by SQL, flags of the database, replication slots: all are as they were, or gone."""
    main = api.default_branch_id
    api.done("PATCH", api.project, json={"project": {"settings": {"enable_logical_replication": True}}})
    with session(api.uri()) as connection:
        connection.execute("select pg_create_logical_replication_slot('stream', 'pgoutput')")
        at = quiet_moment(connection)
        connection.execute("alter database neondb set default_transaction_read_only = on")
        connection.execute("create role late login password 'x'")
    restore(api, main, source_branch_id=main, source_timestamp=at.iso(), preserve_under_name="kept")
    assert rows(api.uri(), "show default_transaction_read_only") == [("off",)]
    assert rows(api.uri(), "select 1 from pg_roles where rolname = 'late'") == []
    assert rows(api.uri(), "select slot_name from pg_replication_slots where slot_type = 'logical'") == []
    names = {role["name"] for role in api.call("GET", f"{api.branch()}/roles")["roles"]}
    assert names == {"neondb_owner"}


def test_a_password_reset_after_the_moment_is_not_in_force_any_more_and_the_api_knows(api: Api) -> None:
    main, old = api.default_branch_id, api.uri()
    with session(old) as connection:
        at = quiet_moment(connection)
    new = api.done("POST", f"{api.branch()}/roles/neondb_owner/reset_password")["role"]["password"]
    assert f":{new}@" in api.uri()
    with pytest.raises(psycopg.OperationalError, match="password"):
        rows(old, "select 1")
    restore(api, main, source_branch_id=main, source_timestamp=at.iso(), preserve_under_name="kept")
    assert api.uri() == old
    assert rows(old, "select 1") == [(1,)]
