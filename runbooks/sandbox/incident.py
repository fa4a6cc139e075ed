"""The accident of a drill: clients made to be lost, a moment to go back to, the delete, and what must be true after."""

from __future__ import annotations

import secrets
from typing import LiteralString

from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.model.moment import Moment
from runbooks.model.record import Record
from runbooks.sandbox.seed import VICTIM_DOMAIN

CLIENTS, RESERVATIONS_EACH = 25, 3


class Print(Record):
    """How many rows of a table belong to the lost clients, and a hash over their whole text."""

    table: str
    rows: int
    md5: str


class Planted(Record):
    """What was there before the accident, and when."""

    tag: str
    """In the e-mail address of every client of this accident, and of no other."""
    last_commit: Moment
    """By then everything in `before` was committed."""
    moment: Moment
    """The moment to go back to: after `last_commit`, before anything else about these clients."""
    before: tuple[Print, ...]
    accident: Moment
    """Taken just before the delete."""


_PLANT: LiteralString = """
WITH lost AS (
    INSERT INTO public.clients (full_name, email, phone, city, birth_date, preferences, tags)
    SELECT 'Víctima Núñez ' || n, 'victim-' || n || %(tag)s, '+52 55 0000 ' || n, 'Oaxaca', DATE '1980-02-29' + n,
           jsonb_build_object('n', n, 'nada', NULL), ARRAY['drill', 'tab\t', NULL]
    FROM generate_series(1, %(clients)s) AS n RETURNING id),
booked AS (
    INSERT INTO public.reservations (client_id, service_id, professional_id, starts_at, ends_at, price, discount)
    SELECT lost.id, (SELECT min(id) FROM public.services), (SELECT min(id) FROM public.professionals),
           now() + n * interval '1 day', now() + n * interval '1 day 1 hour', 350 + n, 0.10
    FROM lost, generate_series(1, %(each)s) AS n RETURNING id),
paid AS (
    INSERT INTO public.payments (reservation_id, amount, method, receipt)
    SELECT id, 315.00, 'spei', 'drill-' || %(tag)s || id FROM booked RETURNING id),
noted AS (
    INSERT INTO public.clinical_notes (reservation_id, body, icd10)
    SELECT id, E'Paciente estable.\\nDolor: "leve" \\\\ N', ARRAY['Z00.0'] FROM booked)
INSERT INTO public."Invoice Items" ("Payment Id", "Description", "Amount MXN") SELECT id, 'Consulta', 315.00 FROM paid
"""

_BEFRIEND: LiteralString = """
INSERT INTO public.clients (full_name, email, city, referred_by)
SELECT 'Amiga Recomendada', %(friend)s, 'Oaxaca', min(id) FROM public.clients WHERE email LIKE %(victims)s
"""

_ONE_MORE: LiteralString = "INSERT INTO public.clients (full_name, email, city) VALUES (%s, %s, 'Oaxaca')"


def plant(conn: Connection) -> Planted:
    """Make the clients that will be lost, with triggers as an application would, then one more after the moment to go
    back to: that one must not come back. Each call makes others. The session needs `public` in its path."""
    tag = f"-{secrets.token_hex(4)}{VICTIM_DOMAIN}"
    conn.execute(_PLANT, {"tag": tag, "clients": CLIENTS, "each": RESERVATIONS_EACH})
    conn.execute(_BEFRIEND, {"friend": _friend(tag), "victims": f"victim-%{tag}"})
    last_commit = _clock(conn)
    before = prints(conn, tag)
    moment = _clock_after(conn, last_commit)
    conn.execute(_ONE_MORE, ("Demasiado Tarde", f"too-late{tag}"))
    return Planted(tag=tag, last_commit=last_commit, moment=moment, before=before, accident=_clock(conn))


def strike(conn: Connection, planted: Planted) -> int:
    """The accident: deletes the planted clients and all that hangs on them. How many clients went. Safe to repeat."""
    return conn.execute("DELETE FROM public.clients WHERE email LIKE %s", (f"%{planted.tag}",)).rowcount


def after(conn: Connection, planted: Planted) -> None:
    """Somebody goes on working: a client made after the accident, which a recovery must leave alone. Safe to repeat."""
    conn.execute(
        "INSERT INTO public.clients (full_name, email, city) VALUES ('Después', %s, 'Oaxaca') ON CONFLICT DO NOTHING",
        (_bystander(planted),),
    )


def is_struck(conn: Connection, planted: Planted) -> bool:
    """The accident has happened in this database, and nothing was recovered yet."""
    here = conn.execute("SELECT count(*) FROM public.clients WHERE email = %s", (_bystander(planted),)).fetchone()
    gone = conn.execute("SELECT count(*) FROM public.clients WHERE email LIKE %s", (f"%{planted.tag}",)).fetchone()
    return here == (1,) and gone == (0,)


def friend_is_referred(conn: Connection, planted: Planted) -> bool:
    """The client who stayed, and whom one of the lost had recommended, has that pointer: the delete had cleared it."""
    row = conn.execute(
        "SELECT count(*) FROM public.clients AS c JOIN public.clients AS v ON v.id = c.referred_by"
        " WHERE c.email = %s AND v.email LIKE %s",
        (_friend(planted.tag), f"victim-%{planted.tag}"),
    ).fetchone()
    return row == (1,)


def bystander_is_there(conn: Connection, planted: Planted) -> bool:
    row = conn.execute("SELECT count(*) FROM public.clients WHERE email = %s", (_bystander(planted),)).fetchone()
    return row == (1,)


def too_late_is_there(conn: Connection, planted: Planted) -> bool:
    row = conn.execute("SELECT count(*) FROM public.clients WHERE email = %s", (f"too-late{planted.tag}",)).fetchone()
    return row == (1,)


def mails(conn: Connection, planted: Planted) -> int:
    """Mails queued for the planted clients, ever: a recovery must not queue them a second time."""
    row = conn.execute(
        "SELECT count(*) FROM public.notification_outbox WHERE recipient LIKE %s", (f"%{planted.tag}",)
    ).fetchone()
    assert row is not None
    return int(row[0])


_OF_LOST: dict[str, LiteralString] = {
    "clients": "SELECT t FROM public.clients t WHERE t.id IN (SELECT id FROM lost)",
    "reservations": "SELECT t FROM public.reservations t WHERE t.client_id IN (SELECT id FROM lost)",
    "payments": "SELECT t FROM public.payments t JOIN public.reservations r ON r.id = t.reservation_id"
    " WHERE r.client_id IN (SELECT id FROM lost)",
    "clinical_notes": "SELECT t FROM public.clinical_notes t JOIN public.reservations r ON r.id = t.reservation_id"
    " WHERE r.client_id IN (SELECT id FROM lost)",
    "Invoice Items": 'SELECT t FROM public."Invoice Items" t JOIN public.payments p ON p.id = t."Payment Id"'
    " JOIN public.reservations r ON r.id = p.reservation_id WHERE r.client_id IN (SELECT id FROM lost)",
}


def prints(conn: Connection, tag: str) -> tuple[Print, ...]:
    """The rows of the planted clients (without the one that came too late), table by table, every column of them."""
    found = []
    for table, rows in _OF_LOST.items():
        query = sql.SQL(
            "WITH lost AS (SELECT id FROM public.clients WHERE email LIKE 'victim-%%' || %s), picked AS ({rows})"
            " SELECT count(*), md5(coalesce(string_agg(t::text, chr(10) ORDER BY t::text COLLATE \"C\"), ''))"
            " FROM picked"
        ).format(rows=sql.SQL(rows))
        row = conn.execute(query, (tag,)).fetchone()
        assert row is not None
        found.append(Print(table=table, rows=row[0], md5=row[1]))
    return tuple(found)


_TABLES: LiteralString = """
SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
ORDER BY c.relname
"""


def all_prints(conn: Connection) -> tuple[Print, ...]:
    """Every row of every table in schema public."""
    found = []
    for (table,) in conn.execute(_TABLES).fetchall():
        query = sql.SQL(
            "SELECT count(*), md5(coalesce(string_agg(t::text, chr(10) ORDER BY t::text COLLATE \"C\"), ''))"
            " FROM ONLY {} AS t"
        ).format(sql.Identifier("public", table))
        row = conn.execute(query).fetchone()
        assert row is not None
        found.append(Print(table=table, rows=row[0], md5=row[1]))
    return tuple(found)


_CORRUPT: LiteralString = """
DROP TABLE public.payments CASCADE;
UPDATE public.reservations SET price = price * 10;
"""


def corrupt(conn: Connection) -> None:
    """The accident of scenario 2: a table is gone and the prices of another are nonsense. Safe to repeat."""
    with conn.transaction():
        if not is_corrupt(conn):
            conn.execute("ALTER TABLE public.reservations DISABLE TRIGGER USER")
            conn.execute(_CORRUPT)


def is_corrupt(conn: Connection) -> bool:
    return conn.execute("SELECT to_regclass('public.payments')").fetchone() == (None,)


def now(conn: Connection) -> Moment:
    """The server's clock."""
    return _clock(conn)


def _bystander(planted: Planted) -> str:
    """Not below the victims' tag: it is no victim."""
    return "bystander" + planted.tag.replace("@", ".after@")


def _friend(tag: str) -> str:
    return "friend" + tag.replace("@", ".of@")


def _clock(conn: Connection) -> Moment:
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return Moment.of(row[0])


def _clock_after(conn: Connection, earlier: Moment) -> Moment:
    """A moment that is also later in whole milliseconds, which is what Neon takes."""
    while (now := _clock(conn)).neon() <= earlier.neon():
        pass
    return Moment.parse(now.neon(), now=now.utc)
