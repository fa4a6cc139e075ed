"""Connecting, proving where one is, and the recovery lock (field cases C11 and C33), on a real server."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from runbooks.clients.postgres import Expected, Outcome, connect, identity, outcome, prove, prove_apart
from runbooks.clients.postgres_faults import translated
from runbooks.clients.postgres_lock import hold_lock, require_lock, table_holders
from runbooks.model.dsn import Dsn
from runbooks.model.errors import (
    DatabaseFault,
    DatabaseUnreachable,
    DeadlinePassed,
    LockHeld,
    LoginRefused,
    NotFound,
    TableLocked,
    WrongTarget,
)
from tests.rows.cluster import cluster as cluster
from tests.rows.cluster import login, new_database, until

STARTING_UP = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0"


class Doorman:
    """A port that treats its first visitors badly and lets the others through to the real server."""

    def __init__(self, server: Dsn, first: list[bytes | None]) -> None:
        self._server = server
        self._first = first  # None: hang up; bytes: answer with this error message
        self.visits = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return
            self.visits += 1
            if self.visits <= len(self._first):
                self._turn_away(visitor, self._first[self.visits - 1])
            else:
                threading.Thread(target=self._lead_in, args=(visitor,), daemon=True).start()

    def _turn_away(self, visitor: socket.socket, answer: bytes | None) -> None:
        with visitor:
            if answer is not None:
                visitor.recv(4096)
                visitor.sendall(b"E" + (len(answer) + 4).to_bytes(4) + answer)

    def _lead_in(self, visitor: socket.socket) -> None:
        with visitor, socket.socket() as server:
            server.connect(("127.0.0.1", self._server.port))
            other = {visitor: server, server: visitor}
            while True:
                for ready in select.select(list(other), [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    other[ready].sendall(data)

    def dsn(self, password: str = "admin") -> Dsn:
        return Dsn.parse(f"postgresql://admin:{password}@127.0.0.1:{self.port}/postgres?sslmode=disable")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def doorman(cluster: Dsn, request: pytest.FixtureRequest) -> Iterator[Doorman]:
    made = Doorman(cluster, getattr(request, "param", []))
    yield made
    made.close()


@pytest.fixture
def database(cluster: Dsn) -> Dsn:
    return login(cluster, new_database(cluster), "shop")


@pytest.mark.parametrize("doorman", [[None], [None, None, STARTING_UP]], indirect=True, ids=["dropped", "starting"])
def test_c11_a_compute_that_drops_us_or_is_starting_up_is_tried_again(doorman: Doorman) -> None:
    told: list[str] = []
    with connect(doorman.dsn(), application_name="test", progress=told.append) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    assert doorman.visits == len(told) + 1
    assert all("another" in line and str(doorman.port) in line for line in told)


def test_c11_a_wrong_password_is_tried_once_and_shown_nowhere(doorman: Doorman) -> None:
    password = "wrong" * 3
    with pytest.raises(LoginRefused) as caught:
        connect(doorman.dsn(password), application_name="test")
    assert doorman.visits == 1
    assert password not in "".join(traceback.format_exception(caught.value))


def test_c11_a_wrong_password_is_not_repeated_at_every_address_of_the_host(
    doorman: Doorman, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", doorman.port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: [there, there, there])
    dsn = Dsn.parse(f"host=localhost port={doorman.port} user=admin password=wrong dbname=postgres sslmode=disable")
    with pytest.raises(LoginRefused):
        connect(dsn, application_name="test")
    assert doorman.visits == 1


def test_c11_the_pooler_is_left_for_the_direct_host(cluster: Dsn) -> None:
    dsn = Dsn.parse(
        f"postgresql://admin:admin@ep-quiet-lake-12345-pooler.example.test:{cluster.port}/postgres"
        "?sslmode=disable&hostaddr=127.0.0.1"
    )
    with connect(dsn, application_name="test") as conn:
        assert conn.info.host == "ep-quiet-lake-12345.example.test"


@pytest.mark.parametrize("doorman", [[None] * 1000], indirect=True)
def test_a_server_that_never_answers_ends_in_a_clear_error_after_the_wait(doorman: Doorman) -> None:
    began = time.monotonic()
    with pytest.raises(DatabaseUnreachable, match="within 1 s"):
        connect(doorman.dsn(), application_name="test", wait=timedelta(seconds=1))
    assert time.monotonic() - began < 5
    assert doorman.visits > 1


def test_a_server_that_accepts_and_says_nothing_is_given_up_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dsn = Dsn.parse(f"postgresql://a:b@127.0.0.1:{silent.getsockname()[1]}/x?sslmode=disable")
        with pytest.raises(DatabaseUnreachable, match="timeout"):
            connect(dsn, application_name="test", wait=timedelta(seconds=1))


def test_an_unknown_database_or_role_is_said_at_once(cluster: Dsn) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        connect(cluster.with_database("nowhere"), application_name="test")
    with pytest.raises(LoginRefused):
        connect(Dsn.parse(str(cluster).replace("admin", "nobody", 1)), application_name="test")


def test_an_unknown_host_is_said_at_once() -> None:
    dsn = Dsn.parse("postgresql://a:b@no-such-machine.invalid/x")
    with pytest.raises(DatabaseUnreachable, match=r"no-such-machine\.invalid"):
        connect(dsn, application_name="test", wait=timedelta(seconds=1))


def test_the_environment_cannot_send_us_to_another_server(cluster: Dsn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    monkeypatch.setenv("PGOPTIONS", "-c search_path=public -c DateStyle=SQL,DMY")
    with connect(cluster, application_name="test", wait=timedelta(seconds=3)) as conn:
        assert conn.execute("SHOW search_path").fetchone() == ("pg_catalog, pg_temp",)
        assert conn.execute("SELECT date '2025-12-03'::text, bytea 'a'::text, 0.1::float8::text").fetchone() == (
            "2025-12-03",
            "\\x61",
            "0.1",
        )


def test_a_setting_of_the_role_does_not_survive_and_one_of_the_caller_does(database: Dsn, cluster: Dsn) -> None:
    with psycopg.connect(**database.keywords(), autocommit=True) as app:
        app.execute("ALTER ROLE shop SET lock_timeout = 0; ALTER ROLE shop SET row_security = on")
    try:
        with connect(database, application_name="test", statement_timeout="7s") as conn:
            rows = conn.execute(
                "SELECT current_setting('lock_timeout'), current_setting('row_security'),"
                " current_setting('statement_timeout'), current_setting('client_connection_check_interval')"
            ).fetchall()
        assert rows == [("5s", "off", "7s", "2s")]
    finally:
        with psycopg.connect(**cluster.keywords(), autocommit=True) as admin:
            admin.execute("ALTER ROLE shop RESET ALL")


def test_a_bad_setting_is_an_error_and_leaves_no_session(database: Dsn, cluster: Dsn) -> None:
    with pytest.raises(DatabaseFault, match="statement_timeout"):
        connect(database, application_name="left over", statement_timeout="soon")
    with connect(cluster, application_name="test") as admin:
        question = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'left over'"
        until(lambda: admin.execute(question).fetchone() == (0,))


def test_the_identity_of_a_neon_branch_is_what_the_server_says(cluster: Dsn) -> None:
    on_neon = Dsn.parse(f"{cluster.reveal_url()}&options=-c%20neon.branch_id%3Dbr-one%20-c%20neon.project_id%3Dp")
    with connect(on_neon, application_name="test") as conn:
        found = identity(conn)
        assert (found.branch_id, found.project_id, found.timeline_id) == ("br-one", "p", None)
        assert (found.database, found.role, found.server_major) == ("postgres", "admin", found.server_version // 10000)
        assert prove(conn, found) == found
        assert prove(conn, Expected(project_id="p", database="postgres")) == found
        with pytest.raises(WrongTarget, match="branch_id is br-one, not br-two"):
            prove(conn, Expected(branch_id="br-two"))


def test_a_database_that_is_not_on_neon_is_not_taken_for_a_branch(cluster: Dsn) -> None:
    with connect(cluster, application_name="test") as conn, pytest.raises(WrongTarget, match="branch_id is None"):
        prove(conn, Expected(branch_id="br-one"))


def test_two_sessions_in_one_database_are_told_apart_from_two_databases(cluster: Dsn, database: Dsn) -> None:
    with (
        connect(database, application_name="one") as one,
        connect(database, application_name="two") as two,
        connect(cluster, application_name="three") as three,
    ):
        prove_apart(one, three)
        with pytest.raises(WrongTarget, match="same database"):
            prove_apart(one, two)


HOLDER = """
import sys
from runbooks.clients.postgres import connect
from runbooks.clients.postgres_lock import hold_lock
from runbooks.model.dsn import Dsn
conn = connect(Dsn.parse(sys.stdin.readline().strip()), application_name="x")
with hold_lock(conn, sys.argv[1], "ana"):
    print("held", flush=True)
    conn.execute("SELECT pg_sleep(600)")
"""


@pytest.fixture
def holder(database: Dsn) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, with a statement under way."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, "20251203-143000-aaaa"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(database.reveal_url() + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_c33_the_second_recovery_stops_at_once_and_names_the_first(
    database: Dsn, holder: subprocess.Popen[str]
) -> None:
    began = time.monotonic()
    with connect(database, application_name="test") as conn, pytest.raises(LockHeld) as caught:
        with hold_lock(conn, "20251203-143500-bbbb", "bob", zone="America/Mexico_City"):
            pass
    assert time.monotonic() - began < 1
    assert "bloom-dr 20251203-143000-aaaa ana" in caught.value.happened
    assert "CST (" in caught.value.happened
    assert "UTC)" in caught.value.happened


def test_c33_after_kill_9_of_the_holder_the_next_run_gets_the_lock_without_hand_work(
    database: Dsn, holder: subprocess.Popen[str]
) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    told: list[str] = []
    with connect(database, application_name="test") as conn:
        # The same run, resumed: it waits until the server has noticed that its predecessor is dead.
        with hold_lock(conn, "20251203-143000-aaaa", "ana", progress=told.append):
            require_lock(conn)
    assert len(told) <= 5


def test_c33_a_run_that_is_still_alive_is_waited_for_only_until_the_deadline(
    database: Dsn, holder: subprocess.Popen[str]
) -> None:
    with connect(database, application_name="test") as conn, pytest.raises(LockHeld):
        with hold_lock(conn, "20251203-143000-aaaa", "ana", wait=timedelta(0)):
            pass


def test_the_lock_is_free_after_the_block_even_if_the_block_left_a_failed_transaction(database: Dsn) -> None:
    with connect(database, application_name="one") as one, connect(database, application_name="two") as two:
        with pytest.raises(psycopg.errors.UndefinedTable), hold_lock(one, "a", "ana"), one.cursor() as cursor:
            cursor.execute("BEGIN; SELECT FROM nowhere")
        with pytest.raises(DatabaseUnreachable):
            require_lock(one)
        with hold_lock(two, "b", "bob"):
            require_lock(two)


def test_the_end_of_a_transaction_can_be_asked_for_later(database: Dsn) -> None:
    with connect(database, application_name="one") as one, connect(database, application_name="two") as two:

        def begin() -> int:
            one.execute("BEGIN")
            row = one.execute("SELECT pg_current_xact_id()::text").fetchone()
            return int(row[0]) if row else 0

        kept = begin()
        assert outcome(two, kept) is Outcome.IN_PROGRESS
        one.execute("COMMIT")
        lost = begin()
        one.execute("ROLLBACK")
        assert outcome(two, kept) is Outcome.COMMITTED
        assert outcome(two, lost) is Outcome.ABORTED
        assert outcome(two, lost + 10_000_000) is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("statement", "error", "says"),
    [
        ("INSERT INTO public.t VALUES (1, 'x')", DatabaseFault, r"t_pkey.*SQLSTATE 23505, table public\.t"),
        ("SELECT pg_sleep(10)", DeadlinePassed, "statement timeout"),
        ("SELECT * FROM pg_authid", LoginRefused, "permission denied"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", DatabaseUnreachable, "terminating connection"),
    ],
)
def test_what_the_server_says_becomes_one_of_our_errors(
    database: Dsn, statement: str, error: type[Exception], says: str
) -> None:
    with psycopg.connect(**database.keywords(), autocommit=True) as app:
        app.execute("CREATE TABLE t (id int PRIMARY KEY, secret text CHECK (secret <> 'topsecret'))")
        app.execute("INSERT INTO t VALUES (1, '')")
    with connect(database, application_name="test", statement_timeout="100ms") as conn:
        with pytest.raises(error, match=says), translated("try"):
            conn.execute(statement.encode())


def test_a_failing_row_is_not_quoted_in_the_error(database: Dsn) -> None:
    with connect(database, application_name="test") as conn:
        conn.execute("CREATE TABLE public.t (secret text CHECK (secret <> 'topsecret'))")
        with pytest.raises(DatabaseFault, match="t_secret_check") as caught, translated("try"):
            conn.execute("INSERT INTO public.t VALUES ('topsecret')")
    assert "topsecret" not in caught.value.happened


def test_a_mistake_in_our_own_code_is_not_called_a_database_fault(database: Dsn) -> None:
    with connect(database, application_name="test") as conn, pytest.raises(psycopg.ProgrammingError):
        with translated("try"):
            conn.execute("SELECT %s", ())


def test_c10_a_lock_time_out_has_an_error_of_its_own_and_the_blocker_can_be_named(database: Dsn) -> None:
    with psycopg.connect(**database.keywords()) as app:
        app.execute("CREATE TABLE t (id int)")
        app.commit()
        app.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with connect(database, application_name="test", lock_timeout="50ms") as conn:
            with pytest.raises(TableLocked), translated("read public.t"):
                conn.execute("SELECT FROM public.t")
            row = conn.execute("SELECT oid::int FROM pg_class WHERE relname = 't'").fetchone()
            assert row
            assert [holder.pid for holder in table_holders(conn, [row[0]])] == [app.info.backend_pid]


def test_pgoptions_of_the_environment_changes_nothing(database: Dsn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c default_transaction_read_only=on")
    with connect(database, application_name="t") as conn:
        assert conn.execute("SHOW default_transaction_read_only").fetchone() == ("off",)
