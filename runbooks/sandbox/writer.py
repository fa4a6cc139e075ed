"""An application that keeps booking while a database is broken and brought back, and remembers what was committed."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Condition, Event
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import errors

from runbooks.clients import postgres
from runbooks.model.dsn import Dsn
from runbooks.model.errors import DatabaseFault, DeadlinePassed, NotFound
from runbooks.sandbox.seed import VICTIM_DOMAIN

_PASSING = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
)
"""The transaction was rolled back for a reason that goes away by itself."""


@dataclass(frozen=True)
class Booking:
    """A reservation with its payment, committed."""

    reservation_id: int
    payment_id: int
    client_id: int
    receipt: str
    amount: Decimal
    at: datetime
    """When the commit was acknowledged, by this machine's clock."""


@dataclass(frozen=True)
class PhoneChange:
    """A client's new phone number, committed."""

    client_id: int
    phone: str
    at: datetime


Acknowledged = Booking | PhoneChange


class Writer:
    """Books for clients of a seeded database in a thread of its own, from `with` to its end.

    It never touches a client whose e-mail address ends with VICTIM_DOMAIN. A lock that stands in its way is waited
    for as long as `patience`; any other error stops it and is raised when the `with` block ends, or noted on the
    error that ended the block: DatabaseFault, or NotFound if there is no client to book for. Connecting raises at once.
    """

    def __init__(
        self,
        dsn: Dsn,
        *,
        per_second: float = 20.0,
        patience: timedelta = timedelta(seconds=60),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._dsn = dsn
        self._pause = 1 / per_second
        self._patience = patience.total_seconds()
        self._clock = clock
        self._name = secrets.token_hex(4)
        self._acknowledged: list[Acknowledged] = []
        self._under_way: PhoneChange | None = None
        self._stop = Event()
        self._news = Condition()

    def __enter__(self) -> Self:
        # An application's search path: Bloom's triggers name their tables without the schema.
        self._conn = postgres.connect(
            self._dsn, application_name="bloom-dr writer", search_path="public", lock_timeout="1s"
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bloom-dr writer")
        self._run_ended: Future[None] = self._thread.submit(self._run)
        self._run_ended.add_done_callback(self._wake)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.shutdown(wait=True)
        self._conn.close()
        failure = self._run_ended.exception()
        if failure is None or failure is error:
            return
        if error is None:
            raise failure
        error.add_note(f"besides: {failure}")

    @property
    def acknowledged(self) -> tuple[Acknowledged, ...]:
        """What the server has acknowledged so far, in order."""
        return tuple(self._acknowledged)

    def wait_for(self, count: int, *, within: timedelta = timedelta(seconds=30)) -> None:
        """Return when `count` transactions in all are acknowledged; raises DeadlinePassed or what stopped it."""
        with self._news:
            self._news.wait_for(
                lambda: len(self._acknowledged) >= count or self._run_ended.done(), within.total_seconds()
            )
            if len(self._acknowledged) >= count:
                return
        if self._run_ended.done():
            self._run_ended.result()
        raise DeadlinePassed(
            f"the background writer had {len(self._acknowledged)} of {count} transactions acknowledged after {within}",
            safe="it only adds bookings and changes phone numbers",
            next_step="look for what blocks it: select * from pg_locks where not granted",
        )

    def verify(self, conn: psycopg.Connection, *, until: datetime | None = None) -> tuple[str, ...]:
        """The acknowledged writes that are not in the database of `conn`, a line each; empty means none is lost.

        With `until`, only those acknowledged by then: what a branch at that moment has to hold. Reads only.
        """
        due = [done for done in self.acknowledged if until is None or done.at <= until]
        changes = {done.client_id: done for done in due if isinstance(done, PhoneChange)}
        lost = _lost_bookings(conn, [done for done in due if isinstance(done, Booking)])
        phones = _phones(conn, list(changes))
        # What came after may be there too: the change under way, and all that were made while we were reading.
        since = [self._under_way, *self.acknowledged[len(due) :]]
        newer = {(done.client_id, done.phone) for done in since if isinstance(done, PhoneChange)}
        for client_id, change in changes.items():
            phone = phones.get(client_id)
            if phone != change.phone and (client_id, phone) not in newer:
                lost.append(f"client {client_id}: phone {change.phone} of {change.at.isoformat()} is not there")
        return tuple(lost)

    def _run(self) -> None:
        try:
            self._keep_writing()
        except psycopg.Error as error:
            raise DatabaseFault(
                f"the background writer stopped after {len(self._acknowledged)} acknowledged transactions: {error}",
                safe="its last transaction is in the database as a whole or not at all",
                next_step="read the database's log for the moment it happened",
            ) from error

    def _keep_writing(self) -> None:
        last_success = time.monotonic()
        turn = 0
        while not self._stop.wait(self._pause):
            turn += 1
            try:
                done = self._change_phone() if turn % 4 == 0 else self._book(turn)
            except _PASSING:
                if time.monotonic() - last_success > self._patience:
                    raise
                continue
            last_success = time.monotonic()
            with self._news:
                self._acknowledged.append(done)
                self._news.notify_all()

    def _wake(self, _: Future[None]) -> None:
        with self._news:
            self._news.notify_all()

    def _book(self, turn: int) -> Booking:
        receipt = f"W-{self._name}-{turn}"
        with self._conn.transaction():
            client_id = self._some_client()
            reservation_id, amount = _one(
                self._conn.execute(
                    "insert into public.reservations"
                    " (client_id, service_id, status, starts_at, ends_at, price, discount, details)"
                    " select %s, id, 'confirmed', now() + interval '72 hours', now() + interval '73 hours',"
                    """ price, 0.10, '{"canal": "app"}' from public.services order by id limit 1"""
                    " returning id, total",
                    [client_id],
                )
            )
            (payment_id,) = _one(
                self._conn.execute(
                    "insert into public.payments (reservation_id, amount, method, receipt)"
                    " values (%s, %s, 'card', %s) returning id",
                    [reservation_id, amount, receipt],
                )
            )
        return Booking(reservation_id, payment_id, client_id, receipt, amount, self._clock())

    def _change_phone(self) -> PhoneChange:
        phone = f"+52 55 0{random.randrange(10**7):07}"
        with self._conn.transaction():
            client_id = self._some_client()
            self._conn.execute("update public.clients set phone = %s where id = %s", [phone, client_id])
            self._under_way = PhoneChange(client_id, phone, self._clock())
        return PhoneChange(client_id, phone, self._clock())

    def _some_client(self) -> int:
        """A client who is no victim, kept from being deleted or renamed until the transaction ends."""
        (greatest,) = _one(self._conn.execute("select coalesce(max(id), 1) from public.clients"))
        for start in (random.randint(1, greatest), 1):
            row = self._conn.execute(
                "select id from public.clients where id >= %s and email not like %s order by id limit 1 for key share",
                [start, f"%{VICTIM_DOMAIN}"],
            ).fetchone()
            if row:
                return int(row[0])
        raise NotFound(
            "the background writer found no client to book for",
            safe="nothing was written",
            next_step="seed the database first",
        )


def _lost_bookings(conn: psycopg.Connection, bookings: list[Booking]) -> list[str]:
    missing = conn.execute(
        """
        select due.receipt, due.reservation_id, r.id is null, p.id is null
        from unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::numeric[])
             as due (reservation_id, payment_id, client_id, receipt, amount)
        left join public.reservations as r on r.id = due.reservation_id and r.client_id = due.client_id
        left join public.payments as p on p.id = due.payment_id and p.reservation_id = due.reservation_id
             and p.receipt = due.receipt and p.amount = due.amount
        where r.id is null or p.id is null
        order by due.reservation_id
        """,
        [
            [done.reservation_id for done in bookings],
            [done.payment_id for done in bookings],
            [done.client_id for done in bookings],
            [done.receipt for done in bookings],
            [done.amount for done in bookings],
        ],
    ).fetchall()
    lines = []
    for receipt, reservation_id, no_reservation, no_payment in missing:
        parts = ["reservation"] * no_reservation + ["payment"] * no_payment
        lines.append(f"booking {receipt} (reservation {reservation_id}): {' and '.join(parts)} not there")
    return lines


def _phones(conn: psycopg.Connection, client_ids: list[int]) -> dict[int, str | None]:
    return dict(conn.execute("select id, phone from public.clients where id = any(%s)", [client_ids]).fetchall())


def _one(cursor: psycopg.Cursor[tuple[Any, ...]]) -> tuple[Any, ...]:
    row = cursor.fetchone()
    assert row is not None
    return row
