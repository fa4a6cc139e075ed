"""The background writer: it keeps booking, survives locks, keeps off victims, and finds every write that is gone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from runbooks.model.dsn import Dsn
from runbooks.model.errors import DatabaseFault, DeadlinePassed, NotFound, Refused
from runbooks.sandbox.seed import VICTIM_DOMAIN, seed
from runbooks.sandbox.writer import Booking, PhoneChange, Writer
from tests.sandbox.databases import connect

FAST = 500.0


@pytest.fixture
def seeded(database: Dsn) -> Dsn:
    seed(database, clients=100)
    return database


def terminate_writer(conn: psycopg.Connection) -> None:
    conn.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'bloom-dr writer' and datname = current_database()"
    )


def test_everything_it_says_was_acknowledged_is_in_the_database(seeded: Dsn) -> None:
    with Writer(seeded, per_second=FAST) as writer:
        writer.wait_for(40)
    bookings = [done for done in writer.acknowledged if isinstance(done, Booking)]
    changes = [done for done in writer.acknowledged if isinstance(done, PhoneChange)]
    assert len(bookings) >= 25
    assert len(changes) >= 8
    with connect(seeded) as conn:
        assert writer.verify(conn) == ()
        for booking in bookings:
            found = conn.execute(
                "select r.client_id, p.amount, p.receipt, r.total from reservations as r"
                " join payments as p on p.reservation_id = r.id where r.id = %s and p.id = %s",
                [booking.reservation_id, booking.payment_id],
            ).fetchall()
            assert found == [(booking.client_id, booking.amount, booking.receipt, booking.amount)]


def test_nothing_is_written_after_the_block(seeded: Dsn) -> None:
    with Writer(seeded, per_second=FAST) as writer:
        writer.wait_for(5)
    with connect(seeded) as conn:
        after = conn.execute("select count(*) from reservations where id > 300").fetchone()
        gone = conn.execute(
            "select count(*) from pg_stat_activity"
            " where application_name = 'bloom-dr writer' and datname = current_database()"
        ).fetchone()
    assert after == (sum(isinstance(done, Booking) for done in writer.acknowledged),)
    assert gone == (0,)


def test_a_deleted_reservation_and_its_payment_are_told(seeded: Dsn) -> None:
    with Writer(seeded, per_second=FAST) as writer:
        writer.wait_for(8)
    victim = next(done for done in writer.acknowledged if isinstance(done, Booking))
    with connect(seeded) as conn:
        conn.execute("delete from reservations where id = %s", [victim.reservation_id])
        assert writer.verify(conn) == (
            f"booking {victim.receipt} (reservation {victim.reservation_id}): reservation and payment not there",
        )


@pytest.mark.parametrize(
    "damage",
    ["delete from payments where id = %s", "update payments set amount = amount + 0.01 where id = %s"],
)
def test_a_payment_that_is_gone_or_altered_is_told(seeded: Dsn, damage: str) -> None:
    with Writer(seeded, per_second=FAST) as writer:
        writer.wait_for(8)
    victim = [done for done in writer.acknowledged if isinstance(done, Booking)][-1]
    with connect(seeded) as conn:
        conn.execute(damage, [victim.payment_id])
        (told,) = writer.verify(conn)
    assert victim.receipt in told
    assert told.endswith(": payment not there")


@pytest.mark.parametrize(
    "damage", ["update clients set phone = 'old' where id = %s", "update clients set phone = null where id = %s"]
)
def test_a_phone_number_that_fell_back_is_told(seeded: Dsn, damage: str) -> None:
    with Writer(seeded, per_second=FAST) as writer:
        writer.wait_for(8)
    victim = [done for done in writer.acknowledged if isinstance(done, PhoneChange)][-1]
    with connect(seeded) as conn:
        conn.execute(damage, [victim.client_id])
        (told,) = writer.verify(conn)
    assert told.startswith(f"client {victim.client_id}: phone {victim.phone}")


def test_it_can_be_verified_while_it_writes(seeded: Dsn) -> None:
    with connect(seeded) as conn:
        # One client only, so that the phone number read is often newer than the one that was asked for.
        conn.execute("delete from clients where id > 1")
    with Writer(seeded, per_second=5000) as writer, connect(seeded) as conn:
        for count in range(20, 400, 20):
            writer.wait_for(count)
            assert writer.verify(conn) == ()


def test_only_writes_of_the_time_before_are_asked_of_a_copy_at_a_moment(seeded: Dsn) -> None:
    with Writer(seeded, per_second=FAST) as writer:
        writer.wait_for(12)
    moment = datetime.now(UTC)
    last = [done for done in writer.acknowledged if isinstance(done, Booking)][-1]
    with connect(seeded) as conn:
        assert writer.verify(conn, until=moment) == ()
        conn.execute("delete from reservations where id = %s", [last.reservation_id])
        assert len(writer.verify(conn, until=moment)) == 1
        assert len(writer.verify(conn, until=last.at)) == 1
        assert writer.verify(conn, until=last.at - timedelta(microseconds=1)) == ()


def test_victims_are_never_touched_even_if_they_are_nearly_everyone(seeded: Dsn) -> None:
    with connect(seeded) as conn:
        conn.execute("update clients set email = 'v' || id || %s where id <> 50", [VICTIM_DOMAIN])
        with Writer(seeded, per_second=FAST) as writer:
            writer.wait_for(20)
    assert {done.client_id for done in writer.acknowledged} == {50}


def test_clients_that_vanish_meanwhile_do_not_stop_it(seeded: Dsn) -> None:
    with Writer(seeded, per_second=FAST) as writer, connect(seeded) as conn:
        writer.wait_for(5)
        conn.execute("delete from clients where id > 3")
        writer.wait_for(len(writer.acknowledged) + 20)
    assert {done.client_id for done in writer.acknowledged[-15:]} <= {1, 2, 3}


def test_without_a_client_left_it_says_so(seeded: Dsn) -> None:
    with connect(seeded) as conn:
        conn.execute("delete from clients")
    with pytest.raises(NotFound, match="no client"), Writer(seeded, per_second=FAST) as writer:
        writer.wait_for(1)


def test_a_lock_is_waited_for(seeded: Dsn) -> None:
    with Writer(seeded, per_second=FAST) as writer, connect(seeded) as conn:
        writer.wait_for(5)
        with conn.transaction():
            conn.execute("lock table clients in access exclusive mode")
            before = len(writer.acknowledged)
            with pytest.raises(DeadlinePassed, match=f"{before} of {before + 1}"):
                # Longer than the writer's own lock_timeout, so that it has to try again.
                writer.wait_for(before + 1, within=timedelta(seconds=1.3))
        writer.wait_for(before + 5)
        assert writer.verify(conn) == ()


def test_a_lock_beyond_its_patience_stops_it(seeded: Dsn) -> None:
    with connect(seeded) as conn, conn.transaction():
        conn.execute("lock table clients in access exclusive mode")
        with (
            pytest.raises(DatabaseFault, match="stopped after 0 acknowledged"),
            Writer(seeded, per_second=FAST, patience=timedelta(seconds=0.1)) as writer,
        ):
            writer.wait_for(1)


def lose_the_connection(dsn: Dsn, writer: Writer) -> None:
    with writer, connect(dsn) as conn:
        writer.wait_for(3)
        terminate_writer(conn)
        writer.wait_for(10**9)


def lose_the_connection_unseen(dsn: Dsn, writer: Writer) -> None:
    with writer, connect(dsn) as conn:
        terminate_writer(conn)
        with pytest.raises(DatabaseFault):
            writer.wait_for(10**9)


def lose_the_connection_and_fail(dsn: Dsn, writer: Writer) -> None:
    with writer, connect(dsn) as conn:
        terminate_writer(conn)
        with pytest.raises(DatabaseFault):
            writer.wait_for(10**9)
        raise Refused("the drill's own", safe="all", next_step="none")


@pytest.mark.parametrize("lose", [lose_the_connection, lose_the_connection_unseen])
def test_a_lost_connection_is_raised_once_and_loses_nothing(seeded: Dsn, lose: Callable[[Dsn, Writer], None]) -> None:
    writer = Writer(seeded, per_second=FAST)
    with pytest.raises(DatabaseFault, match="stopped after") as caught:
        lose(seeded, writer)
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert not hasattr(caught.value, "__notes__")
    with connect(seeded) as conn:
        assert writer.verify(conn) == ()


def test_its_trouble_never_replaces_the_error_of_the_block(seeded: Dsn) -> None:
    with pytest.raises(Refused, match="the drill's own") as caught:
        lose_the_connection_and_fail(seeded, Writer(seeded, per_second=FAST))
    assert "besides: the background writer stopped" in caught.value.__notes__[0]


def test_a_database_without_the_seed_is_told(database: Dsn) -> None:
    with pytest.raises(DatabaseFault, match="clients"), Writer(database, per_second=FAST) as writer:
        writer.wait_for(1)
