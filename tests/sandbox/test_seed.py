"""The seed: what is in it, that it is always the same, and that it never writes over anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from runbooks.model.dsn import Dsn
from runbooks.model.errors import DatabaseFault, LoginRefused, Refused, UsageFault
from runbooks.model.secret import Secret
from runbooks.sandbox.seed import TABLES, VICTIM_DOMAIN, Seeded, seed
from tests.sandbox.databases import connect, empty_database


def contents(conn: psycopg.Connection) -> dict[str, str]:
    """A hash of every row of every table, in no order."""
    found = {}
    for table in TABLES:
        query = sql.SQL("select md5(string_agg(t::text, '|' order by t::text collate \"C\")) from {} as t")
        row = conn.execute(query.format(sql.Identifier(table))).fetchone()
        assert row
        found[table] = row[0]
    return found


def one(conn: psycopg.Connection, query: str) -> object:
    row = conn.execute(query).fetchone()
    assert row
    return row[0]


def test_it_says_what_it_made(database: Dsn) -> None:
    said: list[str] = []
    seeded = seed(database, clients=200, progress=said.append)
    with connect(database) as conn:
        for table, rows in seeded.rows:
            counted = conn.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table))).fetchone()
            assert counted == (rows,), table
            assert rows > 0
    assert [table for table, _ in seeded.rows] == list(TABLES)
    assert seeded.clients == dict(seeded.rows)["clients"] == 200
    assert dict(seeded.rows)["reservations"] == 600
    assert seeded.total == sum(rows for _, rows in seeded.rows)
    assert seeded.bytes > 500_000
    assert seeded.fresh
    assert "reservations: 600 rows" in said


def test_two_databases_of_one_size_are_equal_in_every_row(admin: Dsn, plain: Dsn, database: Dsn) -> None:
    with empty_database(admin, plain) as second:
        with connect(second) as there:
            # Neither the zone nor the search path that a database prescribes may change the rows.
            name = sql.Identifier(second.database)
            there.execute(sql.SQL("alter database {} set timezone = 'Australia/Lord_Howe'").format(name))
            there.execute(sql.SQL("alter database {} set search_path = pg_catalog").format(name))
        seed(database, clients=150)
        seed(second, clients=150)
        with connect(database) as here, connect(second) as there:
            for conn in (here, there):
                conn.execute("set timezone = 'UTC'; set search_path = public")
            assert contents(here) == contents(there)


def test_a_second_time_changes_nothing_and_says_so(database: Dsn) -> None:
    first = seed(database, clients=100)
    said: list[str] = []
    second = seed(database, clients=100, progress=said.append)
    assert not second.fresh
    assert (second.clients, second.rows) == (first.clients, first.rows)
    assert said[-1] == "already seeded with 100 clients; nothing to do"


def test_another_size_over_a_seeded_database_is_refused(database: Dsn) -> None:
    seed(database, clients=100)
    with pytest.raises(Refused, match="seeded with 100 clients, and 101 were asked for"):
        seed(database, clients=101)


def test_a_seeded_database_that_has_changed_is_refused(database: Dsn) -> None:
    seed(database, clients=100)
    with connect(database) as conn:
        conn.execute("delete from clients where id = 7")
    with pytest.raises(Refused, match="rows were added or removed"):
        seed(database, clients=100)


@pytest.mark.parametrize("own", [["clients"], list(TABLES)])
def test_tables_that_the_seed_did_not_make_are_not_touched(database: Dsn, own: list[str]) -> None:
    with connect(database) as conn:
        for table in own:
            conn.execute(sql.SQL("create table {} (v text)").format(sql.Identifier(table)))
            conn.execute(sql.SQL("insert into {} values ('precious')").format(sql.Identifier(table)))
        with pytest.raises(Refused, match="tables"):
            seed(database, clients=100)
        for table in own:
            assert conn.execute(sql.SQL("select v from {}").format(sql.Identifier(table))).fetchall() == [("precious",)]


def test_a_seed_that_fails_halfway_leaves_nothing(database: Dsn) -> None:
    with connect(database) as conn:
        conn.execute("create function queue_mail() returns int language sql return 1")
        with pytest.raises(DatabaseFault, match="queue_mail"):
            seed(database, clients=100)
        assert one(conn, "select count(*) from pg_class where relnamespace = 'public'::regnamespace") == 0


@pytest.mark.parametrize("clients", [-1, 0, 99, 500_001])
def test_a_size_it_cannot_make_is_refused_before_connecting(clients: int) -> None:
    nowhere = Dsn.parse("postgresql://bloom:bloom@127.0.0.1:1/none?sslmode=disable")
    with pytest.raises(UsageFault, match="100 to 500,000"):
        seed(nowhere, clients=clients)


@pytest.fixture(scope="module")
def seeded(admin: Dsn, plain: Dsn) -> Iterator[tuple[Dsn, Seeded]]:
    with empty_database(admin, plain) as dsn:
        yield dsn, seed(dsn, clients=300)


def test_it_was_loaded_by_a_role_without_any_special_right(seeded: tuple[Dsn, Seeded]) -> None:
    with connect(seeded[0]) as conn:
        assert (
            one(conn, "select rolsuper or rolreplication or rolbypassrls from pg_roles where rolname = user") is False
        )
        others = "select count(*) from pg_class where relnamespace = 'public'::regnamespace"
        assert one(conn, f"{others} and relowner <> (select oid from pg_roles where rolname = user)") == 0
        assert one(conn, "select count(*) from pg_extension where extname <> 'plpgsql'") == 0


def test_every_shape_that_a_recovery_must_handle_is_there(seeded: tuple[Dsn, Seeded]) -> None:
    with connect(seeded[0]) as conn:
        kinds = conn.execute(
            "select distinct attidentity::text, attgenerated::text"
            " from pg_attribute join pg_class c on c.oid = attrelid"
            " where relnamespace = 'public'::regnamespace and attnum > 0"
        ).fetchall()
        assert {identity for identity, _ in kinds} == {"", "a", "d"}
        assert {generated for _, generated in kinds} == {"", "s"}
        actions = conn.execute("select distinct confdeltype::text from pg_constraint where contype = 'f'").fetchall()
        assert {action for (action,) in actions} == {"a", "c", "n"}
        without_key = (
            "select array_agg(relname::text) from pg_class c where relnamespace = 'public'::regnamespace"
            " and relkind = 'r' and not exists (select from pg_index where indrelid = c.oid and indisprimary)"
        )
        assert one(conn, without_key) == ["web_hits"]
        assert one(conn, "select count(*) - count(distinct w) from web_hits as w") == 100
        referred = "select count(*) from clients as c join clients as by on by.id = c.referred_by where by.id < c.id"
        assert one(conn, referred) > 20


def test_its_audit_log_spans_partitions_and_the_rest_is_caught(seeded: tuple[Dsn, Seeded]) -> None:
    with connect(seeded[0]) as conn:
        spread = dict(conn.execute("select tableoid::regclass::text, count(*) from audit_log group by 1").fetchall())
        assert len(spread) == 4
        assert "audit_log_rest" not in spread
        with conn.transaction(force_rollback=True):
            conn.execute("update clients set city = 'La Paz' where id = 3")
            newest = "select tableoid::regclass::text from audit_log order by id desc limit 1"
            assert one(conn, newest) == "audit_log_rest"


def test_nobody_in_it_is_a_victim(seeded: tuple[Dsn, Seeded]) -> None:
    with connect(seeded[0]) as conn:
        assert conn.execute("select id from clients where email like %s", ["%" + VICTIM_DOMAIN]).fetchall() == []


def test_c09_every_sequence_stands_behind_the_rows(seeded: tuple[Dsn, Seeded]) -> None:
    """A plain insert works in every table, and its id is new."""
    inserts = (
        "insert into clients (full_name, email, city) values ('a', 'a@b.example', 'c') returning id",
        "insert into professionals (full_name, specialty, license_number, hourly_rate)"
        " values ('a', 'b', 'c', 1) returning id",
        "insert into services (code, name, duration_minutes, price) values ('a', 'b', 30, 1) returning id",
        "insert into reservations (client_id, service_id, starts_at, ends_at, price)"
        " values (1, 1, now(), now() + interval '1 h', 10) returning id",
        "insert into payments (reservation_id, amount, method, receipt) values (1, 1, 'spei', 'r') returning id",
        """insert into "Invoice Items" ("Payment Id", "Description", "Amount MXN")"""
        """ values (1, 'a', 1) returning "Id" """,
        "insert into notification_outbox (reservation_id, template, recipient) values (1, 'a', 'b') returning id",
        "insert into audit_log (table_name, action, row_id) values ('a', 'INSERT', 1) returning id",
    )
    with connect(seeded[0]) as conn, conn.transaction(force_rollback=True):
        for insert in inserts:
            one(conn, insert)


def test_c20_generated_and_default_columns_hold_values_of_the_past(seeded: tuple[Dsn, Seeded]) -> None:
    with connect(seeded[0]) as conn:
        assert one(conn, "select bool_and(total = round(price * (1 - discount), 2)) from reservations") is True
        assert one(conn, "select max(greatest(created_at, updated_at)) < '2025-12-05' from reservations") is True


def test_c21_its_triggers_queue_mail_and_overwrite_dates(seeded: tuple[Dsn, Seeded]) -> None:
    """What a recovery has to keep from happening does happen here."""
    with connect(seeded[0]) as conn, conn.transaction(force_rollback=True):
        mails = one(conn, "select count(*) from notification_outbox")
        conn.execute(
            "insert into reservations (client_id, service_id, starts_at, ends_at, price, updated_at)"
            " values (1, 1, now(), now() + interval '1 h', 10, '2024-01-01')"
        )
        assert one(conn, "select count(*) from notification_outbox") == mails + 1
        assert one(conn, "select updated_at = now() from reservations order by id desc limit 1") is True


def test_deleting_a_client_takes_reservations_payments_notes_and_invoices_along(seeded: tuple[Dsn, Seeded]) -> None:
    below = ("reservations", "payments", "clinical_notes", "Invoice Items")
    with connect(seeded[0]) as conn, conn.transaction(force_rollback=True):
        counts = {table: one(conn, f'select count(*) from "{table}"') for table in below}
        referred = one(conn, "select count(*) from clients where referred_by between 1 and 50 and id > 50")
        conn.execute("delete from clients where id between 1 and 50")
        for table in below:
            assert one(conn, f'select count(*) from "{table}"') < counts[table], table
        assert referred > 0
        assert one(conn, "select count(*) from clients where referred_by between 1 and 50") == 0


def test_a_refused_login_is_told_as_such(database: Dsn) -> None:
    wrong = replace(database, password=Secret("wrong"))
    with pytest.raises(LoginRefused):
        seed(wrong, clients=100)
