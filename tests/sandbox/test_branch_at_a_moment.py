"""A branch at T holds exactly what was committed up to T: the property everything else rests on."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

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


def rows(uri: str, query: str) -> list[Any]:
    with session(uri) as connection:
        return connection.execute(query).fetchall()  # type: ignore[arg-type]


def test_a_branch_is_exact_with_writers_at_work(api: Api) -> None:
    """Several moments, taken while four sessions insert and delete without pause."""
    uri = api.uri()
    with session(uri) as control:
        control.execute("create table ledger (writer int, number int, primary key (writer, number))")
        stop, pause = threading.Event(), threading.Lock()

        def write(writer: int) -> None:
            with session(uri) as connection:
                number = 0
                while not stop.is_set():
                    with pause:
                        connection.execute("insert into ledger values (%s, %s)", (writer, number))
                        if number % 3 == 0:
                            connection.execute(
                                "delete from ledger where writer = %s and number = %s", (writer, number - 2)
                            )
                    number += 1

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
        for thread in threads:
            thread.start()
        expected = {}
        for _ in range(3):
            control.execute("select pg_sleep(0.15)")
            with pause:  # commits at the very same microsecond could be on either side
                at = quiet_moment(control)
                expected[at] = control.execute("select * from ledger order by 1, 2").fetchall()
        stop.set()
        for thread in threads:
            thread.join()
    assert len({len(found) for found in expected.values()}) == 3, "the writers did not get to write"
    for at, found in expected.items():
        branch = api.branch_at(at.iso())
        assert rows(api.uri(branch["id"]), "select * from ledger order by 1, 2") == found
