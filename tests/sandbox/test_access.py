"""Roles and databases, and what the owner of a project may and may not do."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.sandbox.roles import fits
from tests.sandbox.test_branch_at_a_moment import rows
from tests.stack import Api, session, until

RIGHTS = """select rolsuper, rolcanlogin, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls
    from pg_roles where rolname = %s"""


def test_the_owner_is_no_superuser_but_has_what_neon_gives(steady_api: Api) -> None:
    with session(steady_api.uri()) as owner:
        assert owner.execute(RIGHTS, ("neondb_owner",)).fetchall() == [(False, True, True, True, True, True)]
        assert owner.execute(RIGHTS, ("neon_superuser",)).fetchall() == [(False, False, True, True, True, True)]
        for group in ("neon_superuser", "pg_read_all_data", "pg_write_all_data", "pg_monitor", "pg_signal_backend"):
            assert owner.execute("select pg_has_role(%s, 'usage')", (group,)).fetchall() == [(True,)], group
        owner.execute("create role reader login password 'a-b-c'")
        owner.execute("grant pg_read_all_data to reader")
        owner.execute("create schema mine")
        owner.execute("create table in_public (i int)")
        owner.execute("create extension pgcrypto")
        owner.execute("alter database neondb set default_transaction_read_only = off")
        for forbidden in (
            "copy in_public from program 'true'",
            "alter system set fsync = on",
            "select pg_read_file('/etc/passwd')",
            "create role boss superuser",
            "alter role cloud_admin password 'x'",
            "set session_replication_role = replica",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(forbidden)


def test_the_database_is_utf8_with_the_builtin_locale(steady_api: Api) -> None:
    query = """select pg_encoding_to_char(encoding), datlocprovider::text, datlocale, pg_get_userbyid(datdba)
        from pg_database where datname = 'neondb'"""
    assert rows(steady_api.uri(), query) == [("UTF8", "b", "C.UTF-8", "neondb_owner")]


def test_every_database_carries_the_grants_that_make_a_dump_fail_elsewhere(steady_api: Api) -> None:
    query = """select pg_get_userbyid(defaclrole), defaclobjtype::text from pg_default_acl order by 2"""
    assert rows(steady_api.uri(), query) == [("cloud_admin", "S"), ("cloud_admin", "r")]


def test_nobody_gets_in_without_a_password(steady_api: Api) -> None:
    uri = steady_api.uri()
    before, _, after = uri.partition("@")
    user = before.rpartition("//")[2].partition(":")[0]
    for login in (user, f"{user}:wrong", "cloud_admin", "cloud_admin:"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            rows(f"postgresql://{login}@{after}", "select 1")


def test_a_role_made_by_the_api_can_log_in_and_one_made_by_sql_is_listed(steady_api: Api) -> None:
    api = steady_api
    made = api.done("POST", f"{api.branch()}/roles", json={"role": {"name": "App User"}}, expect=201)
    password = api.call("GET", f"{api.branch()}/roles/App%20User/reveal_password")["password"]
    assert made["role"]["password"] == password
    uri = api.uri(role="App User")
    assert rows(uri, "select session_user, pg_has_role('neon_superuser', 'usage')") == [("App User", True)]
    with session(api.uri()) as owner:
        owner.execute("create role by_sql login password 'secret-one'")
    names = {role["name"] for role in api.call("GET", f"{api.branch()}/roles")["roles"]}
    assert {"neondb_owner", "App User", "by_sql"} <= names
    assert not names & {"cloud_admin", "neon_superuser", "pg_monitor"}
    api.call("GET", f"{api.branch()}/roles/by_sql/reveal_password", expect=412)
    api.call("POST", f"{api.branch()}/roles", json={"role": {"name": "by_sql"}}, expect=409)
    api.call("GET", f"{api.branch()}/roles/nobody", expect=404)
    api.done("DELETE", f"{api.branch()}/roles/App%20User")
    api.call("DELETE", f"{api.branch()}/roles/App%20User", expect=204)


def test_a_reset_password_ends_sessions_and_locks_the_old_one_out(api: Api) -> None:
    old = api.uri()
    with session(old) as open_session:
        api.done("POST", f"{api.branch()}/roles/neondb_owner/reset_password")
        with pytest.raises(psycopg.OperationalError):
            open_session.execute("select 1")
    with pytest.raises(psycopg.OperationalError, match="password"):
        rows(old, "select 1")
    assert rows(api.uri(), "select 1") == [(1,)]
    assert "password" not in api.call("GET", f"{api.branch()}/roles/neondb_owner")["role"]


def test_databases_are_made_listed_and_dropped(steady_api: Api) -> None:
    api = steady_api
    body = {"database": {"name": 'odd "name"', "owner_name": "neondb_owner"}}
    api.done("POST", f"{api.branch()}/databases", json=body, expect=201)
    api.call("POST", f"{api.branch()}/databases", json=body, expect=409)
    assert rows(api.uri(database='odd "name"'), "select current_database()") == [('odd "name"',)]
    listed = {each["name"]: each for each in api.call("GET", f"{api.branch()}/databases")["databases"]}
    assert set(listed) == {"neondb", 'odd "name"'}
    assert listed['odd "name"']["id"] > 0
    child = api.done("POST", f"{api.project}/branches", json={"branch": {}, "endpoints": [{"type": "read_write"}]})
    assert "connection_uris" not in child, "more than one database: the client has to ask for the one it wants"
    path = f"{api.branch()}/databases/odd%20%22name%22"
    assert api.call("GET", path)["database"]["owner_name"] == "neondb_owner"
    api.done("DELETE", path)
    api.call("DELETE", path, expect=204)
    body["database"]["owner_name"] = "nobody"
    api.call("POST", f"{api.branch()}/databases", json=body, expect=404)


def test_a_connection_string_for_what_does_not_exist_is_refused(steady_api: Api) -> None:
    path = f"{steady_api.project}/connection_uri"
    good = {"database_name": "neondb", "role_name": "neondb_owner"}
    for change, status in (({"database_name": "none"}, 404), ({"role_name": "none"}, 404), ({"role_name": ""}, 400)):
        steady_api.call("GET", path, params=good | change, expect=status)
    steady_api.call("GET", path, params=good | {"pooled": "maybe"}, expect=400)


def test_a_role_or_database_that_the_server_refuses_is_not_recorded(steady_api: Api) -> None:
    api = steady_api
    made = api.call("POST", f"{api.branch()}/roles", json={"role": {"name": "pg_forbidden"}}, expect=201)
    path = f"{api.project}/operations/{made['operations'][0]['id']}"
    failed = until(lambda: (now := api.call("GET", path)["operation"])["status"] == "failed" and now)
    assert "reserved" in failed["error"]
    assert "pg_forbidden" not in {role["name"] for role in api.call("GET", f"{api.branch()}/roles")["roles"]}


@settings(max_examples=15, deadline=None)
@given(password=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40))
def test_a_verifier_fits_the_password_it_was_made_from_and_no_other(steady_api: Api, password: str) -> None:
    with session(steady_api.uri()) as connection:
        verifier = connection.pgconn.encrypt_password(password.encode(), b"any", b"scram-sha-256").decode()
    assert fits(password, verifier)
    assert not fits(password + "x", verifier)
    assert not fits(password, "md5" + "0" * 32)
