"""A branch at T holds exactly what was committed up to T: the property everything else rests on."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

import psycopg

from runbooks.model.moment import Moment
from tests.stack import Api, session

WRITERS = 4


def server_time(connection: psycopg.Connection[Any]) -> Moment:
    ((at,),) = connection.execute("select clock_timestamp()").fetchall()
    return Moment.of(at)


def quiet_moment(connection: psycopg.Connection[Any]) -> Moment:
    """A moment with nothing committed a few milliseconds around it."""
    connection.execute("select pg_sleep(0.02)")
    at = server_time(connection)
    connection.execute("select pg_sleep(0.02)")
    return at


def moment(text: str) -> Moment:
    return Moment.of(datetime.fromisoformat(text))


def shifted(moment: Moment, microseconds: int) -> str:
    return Moment.of(moment.utc + timedelta(microseconds=microseconds)).iso()


def rows(uri: str, query: str) -> list[Any]:
    with session(uri) as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload, no-any-return]


def count(api: Api, branch: dict[str, Any], table: str) -> int:
    return int(rows(api.uri(branch["id"]), f"select count(*) from {table}")[0][0])


def create(api: Api, point: str | None = None, **fields: Any) -> Any:
    """The raw answer to the wish for a branch at `point`."""
    wish = fields | ({"parent_timestamp": point} if point else {})
    return api.client.post(f"{api.project}/branches", json={"branch": wish})


def test_a_branch_is_exact_with_writers_at_work(api: Api) -> None:
    """Several moments, taken while four sessions insert and delete without pause."""
    uri = api.uri()
    with session(uri) as control:
        control.execute("create table ledger (writer int, number int, primary key (writer, number))")
        stop, turn = threading.Event(), threading.Lock()

        def write(writer: int) -> None:
            with session(uri) as connection:
                number = 0
                while not stop.is_set():
                    with turn:
                        connection.execute("insert into ledger values (%s, %s)", (writer, number))
                        connection.execute("delete from ledger where number %% 3 = 0 and number < %s", (number - 5,))
                    number += 1

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
        for thread in threads:
            thread.start()
        expected = {}
        for _ in range(3):
            control.execute("select pg_sleep(0.15)")
            with turn:  # a commit at the very same microsecond could be on either side
                at = quiet_moment(control)
                expected[at] = control.execute("select * from ledger order by 1, 2").fetchall()
        stop.set()
        for thread in threads:
            thread.join()
    assert len({tuple(found) for found in expected.values()}) == 3, "the writers did not get to write"
    for at, found in expected.items():
        branch = api.branch_at(at.iso())
        assert rows(api.uri(branch["id"]), "select * from ledger order by 1, 2") == found
        assert Moment.of(at.utc - timedelta(seconds=5)) < moment(branch["parent_timestamp"]) <= at


def test_a_commit_at_exactly_the_asked_microsecond_is_included(steady_api: Api) -> None:
    api = steady_api
    with session(api.uri()) as connection:
        connection.execute("create table edge (i int)")
        connection.execute("insert into edge values (1)")
        connection.execute("insert into edge values (2)")
        at = quiet_moment(connection)
    resolved = moment(api.branch_at(at.iso())["parent_timestamp"])
    assert resolved <= at
    assert count(api, api.branch_at(resolved.iso()), "edge") == 2
    assert count(api, api.branch_at(shifted(resolved, -1)), "edge") == 1


def test_an_idle_parent_can_be_branched_at_now_again_and_again(steady_api: Api) -> None:
    api = steady_api
    with session(api.uri()) as connection:
        connection.execute("create table idle as select 1 as i")
        at = server_time(connection)
    for _ in range(2):
        assert count(api, api.branch_at(at.iso()), "idle") == 1
    branch = api.branch_at(None)
    assert count(api, branch, "idle") == 1
    assert moment(branch["parent_timestamp"]) >= moment(api.branch_at(at.iso())["parent_timestamp"])


def test_a_branch_at_an_lsn_holds_what_was_written_before_it(steady_api: Api) -> None:
    api = steady_api
    with session(api.uri()) as connection:
        connection.execute("create table by_lsn (i int)")
        connection.execute("insert into by_lsn values (1)")
        ((lsn,),) = connection.execute("select pg_current_wal_insert_lsn()::text").fetchall()
        connection.execute("insert into by_lsn values (2)")
    branch = api.branch_at(None, parent_lsn=lsn)
    assert count(api, branch, "by_lsn") == 1
    assert branch["parent_lsn"] == lsn
    assert count(api, api.branch_at(None, parent_lsn=branch["parent_lsn"]), "by_lsn") == 1


def test_a_branch_of_a_branch_has_its_own_history(steady_api: Api) -> None:
    api = steady_api
    with session(api.uri()) as connection:
        connection.execute("create table nested as select 1 as i")
    child = api.branch_at(None)
    with session(api.uri(child["id"])) as connection:
        connection.execute("insert into nested values (2)")
        at = quiet_moment(connection)
        connection.execute("delete from nested")
    with session(api.uri()) as connection:
        connection.execute("drop table nested")
    grandchild = api.branch_at(at.iso(), parent=child["id"])
    assert count(api, grandchild, "nested") == 2
    assert grandchild["parent_id"] == child["id"]
    between = api.branch_at(shifted(moment(child["created_at"]), 1), parent=child["id"])
    assert count(api, between, "nested") == 1, "between a branch's point and its making there are no commits"


def test_a_child_has_no_history_from_before_its_point(steady_api: Api) -> None:
    """As measured on Neon: to go further back the parent has to be named."""
    api = steady_api
    with session(api.uri()) as connection:
        before = quiet_moment(connection)
        connection.execute("create table late (i int)")
    child = api.branch_at(None)
    answer = create(api, before.iso(), parent_id=child["id"])
    assert (answer.status_code, answer.json()["message"].count("outside of the history")) == (400, 1)


def test_a_parent_without_a_running_compute_can_be_branched(steady_api: Api) -> None:
    api = steady_api
    with session(api.uri()) as connection:
        connection.execute("create table asleep (i int)")
        connection.execute("insert into asleep values (1)")
        at = quiet_moment(connection)
        connection.execute("insert into asleep values (2)")
    endpoint = api.call("GET", f"{api.branch()}/endpoints")["endpoints"][0]
    api.done("POST", f"{api.project}/endpoints/{endpoint['id']}/suspend")
    assert count(api, api.branch_at(at.iso()), "asleep") == 1
    assert count(api, api.branch_at(None), "asleep") == 2
    api.done("POST", f"{api.project}/endpoints/{endpoint['id']}/start")


def test_a_branch_without_a_compute_has_nothing_to_connect_to(steady_api: Api) -> None:
    api = steady_api
    made = api.done("POST", f"{api.project}/branches", json={"branch": {"name": "bare"}}, expect=201)
    assert made["endpoints"] == []
    assert "connection_uris" not in made
    query = {"branch_id": made["branch"]["id"], "database_name": "neondb", "role_name": "neondb_owner"}
    api.call("GET", f"{api.project}/connection_uri", params=query, expect=404)
    body = {"endpoint": {"branch_id": made["branch"]["id"], "type": "read_write"}}
    api.done("POST", f"{api.project}/endpoints", json=body, expect=201)
    assert rows(api.uri(made["branch"]["id"]), "select 1") == [(1,)]


def test_a_branch_does_not_touch_its_parent(steady_api: Api) -> None:
    api = steady_api
    with session(api.uri()) as connection:
        connection.execute("create table kept as select generate_series(1, 1000) as i")
    child = api.branch_at(None)
    with session(api.uri(child["id"])) as connection:
        connection.execute("update kept set i = 0")
        connection.execute("vacuum full kept")
    assert rows(api.uri(), "select count(*) filter (where i > 0) from kept") == [(1000,)]
