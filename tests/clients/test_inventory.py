"""The inventory: equal content gives an equal inventory however the rows lie, and any change of a value shows."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbooks.clients import inventory as module
from runbooks.clients.inventory import hold_snapshot, take_inventory
from runbooks.clients.inventory_snapshot import imported
from runbooks.model.errors import DatabaseFault, TableLocked
from runbooks.model.inventory import Inventory, TableInventory, compare
from tests.clients.dump_ground import SECOND, SHOP, Ground, inventory, lost, run, session, value
from tests.clients.dump_ground import ground as ground
from tests.rows.cluster import until


def table(found: Inventory, name: str) -> TableInventory:
    return next(one for one in found.tables if one.name == name)


def test_the_inventory_tells_what_the_database_holds(ground: Ground) -> None:
    found = inventory(ground.database(SHOP))
    assert {one.name: one.rows for one in found.tables} == {
        "public.client": 3000,
        '"Big Shop"."Order"': 5000,
        "public.visit": 0,
        "public.visit_24": 213,
        "public.visit_25": 287,
        "public.empty": 0,
        "public.doc": 1,
        "public.total": 1,
    }
    assert {one.name: (one.last_value, one.is_called) for one in found.sequences} == {
        "public.client_id_seq": (3000, True),
        '"Big Shop"."Order_id_seq"': (-5000, True),
    }
    assert {one.name for one in found.extensions} == {"citext", "hstore", "plpgsql"}
    assert found.large_objects.count == 1
    assert found.row_security == ("public.doc",)
    assert found.roles == ("cloud_admin",)
    assert found.unpopulated == ()
    assert (found.locale.encoding, found.locale.provider, found.locale.locale) == ("UTF8", "builtin", "C.UTF-8")
    counts = {one.name: one.count for one in found.objects}
    assert (counts["view"], counts["trigger"], counts["policy"], counts["foreign key"]) == (1, 1, 1, 1)


def test_it_does_not_matter_how_many_sessions_read(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    dsn = ground.database(SHOP)
    whole = inventory(dsn, jobs=1)
    monkeypatch.setattr(module, "_PIECE", 16 * 1024)
    assert inventory(dsn, jobs=1) == whole
    assert inventory(dsn, jobs=5) == whole


def test_order_of_rows_and_columns_does_not_matter(ground: Ground) -> None:
    one = ground.database("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (2, 'y'), (2, 'y')")
    other = ground.database(
        "CREATE TABLE t (gone int, b text, a int); ALTER TABLE t DROP COLUMN gone;"
        "INSERT INTO t (a, b) VALUES (2, 'y'), (1, 'x'), (2, 'y')"
    )
    assert compare(inventory(one), inventory(other)) == ()


CHANGES = {
    "a value": "UPDATE t SET b = 'X' WHERE a = 1",
    "the case of a citext": "UPDATE t SET c = 'Mail' WHERE a = 1",
    "an enum": "UPDATE t SET e = 'cross' WHERE a = 1",
    "an enum in an array": "UPDATE t SET es = '{cross}' WHERE a = 1",
    "a json": "UPDATE t SET j = '{\"a\": 2}' WHERE a = 1",
    "a NULL": "UPDATE t SET b = NULL WHERE a = 1",
    "a NULL that was one column further": "UPDATE t SET b = d, d = b WHERE a = 1",
    "values that changed places between rows": "UPDATE t SET b = CASE a WHEN 1 THEN 'y' ELSE 'x' END WHERE a < 3",
    "rows that changed places between tables": "INSERT INTO t SELECT * FROM t WHERE a = 3; DELETE FROM t WHERE a = 1",
    "one of two equal rows": "DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 3)",
    "the type of a column without rows in it": "ALTER TABLE none ALTER a TYPE bigint",
    "a column of an empty table": "ALTER TABLE none DROP COLUMN a",
    "a large object": "SELECT lo_put(424242, 1500000, '\\xff')",
    "a large object more": "SELECT lo_from_bytea(0, '\\x01')",
    "a sequence": "SELECT nextval('s')",
    "an index": "DROP INDEX i",
    "row-level security": "ALTER TABLE none ENABLE ROW LEVEL SECURITY",
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_shows(ground: Ground, change: str) -> None:
    dsn = ground.database(
        """
        CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('calm', 'cross'); CREATE SEQUENCE s;
        CREATE TABLE t (a int, b text, c citext, d text, e mood, es mood[], j json); CREATE INDEX i ON t (a);
        INSERT INTO t VALUES (1, 'x', 'mail', NULL, 'calm', '{calm}', '{"a": 1}'),
            (2, 'y', 'm', 'z', 'calm', NULL, NULL), (3, 'y', 'm', 'z', 'calm', NULL, NULL),
            (3, 'y', 'm', 'z', 'calm', NULL, NULL);
        CREATE TABLE none (a int); SELECT lo_from_bytea(424242, decode(repeat('00', 2000000), 'hex'))
        """
    )
    before = inventory(dsn)
    run(dsn, CHANGES[change])
    assert lost(before, inventory(dsn)), change


def test_a_large_object_beyond_one_piece_is_read_to_its_end(ground: Ground) -> None:
    script = "SELECT lo_from_bytea(1, decode(repeat('07', 3500000), 'hex'))"
    one, other = ground.database(script), ground.database(script)
    assert inventory(one).large_objects == inventory(other).large_objects
    run(other, "SELECT lo_put(1, 3499999, '\\x00')")
    assert inventory(one).large_objects != inventory(other).large_objects


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.text("ab\\\n", max_size=3)), max_size=8),
    others=st.lists(st.tuples(st.integers(0, 3), st.text("ab\\\n", max_size=3)), max_size=8),
)
def test_contents_are_equal_exactly_if_the_rows_are(
    ground: Ground, rows: list[tuple[int, str]], others: list[tuple[int, str]]
) -> None:
    dsn = ground.database("CREATE TABLE one (a int, b text); CREATE TABLE two (a int, b text)")
    with psycopg.connect(**dsn.keywords(), autocommit=True) as conn:
        conn.cursor().executemany("INSERT INTO one VALUES (%s, %s)", rows)
        conn.cursor().executemany("INSERT INTO two VALUES (%s, %s)", others)
    found = inventory(dsn, jobs=1)
    same = table(found, "public.one").content == table(found, "public.two").content
    assert same == (sorted(rows) == sorted(others))


def test_c35_what_is_committed_after_the_snapshot_does_not_count(ground: Ground) -> None:
    dsn = ground.database(SHOP)
    before = inventory(dsn)
    with session(dsn) as conn, hold_snapshot(conn, lock_wait=SECOND) as snapshot:
        run(
            dsn,
            "INSERT INTO empty VALUES (1), (2), (3); DELETE FROM doc;"
            "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
        )
        assert take_inventory(lambda: session(dsn), snapshot.id, 2) == before
    assert table(inventory(dsn), "public.empty").rows == 3


def test_no_truncate_gets_between_the_snapshot_and_its_end(ground: Ground) -> None:
    """TRUNCATE empties a table in older snapshots too: an inventory before it and a dump after it would differ."""
    dsn = ground.database("CREATE TABLE t AS SELECT generate_series(1, 10) AS i")
    with session(dsn) as conn, hold_snapshot(conn, lock_wait=SECOND) as snapshot:
        other = threading.Thread(target=run, args=(dsn, "TRUNCATE t"))
        other.start()
        until(lambda: value(dsn, "SELECT count(*) FROM pg_locks WHERE NOT granted") == 1)
        with session(dsn) as reader, imported(reader, snapshot.id):
            reader.execute("SET LOCAL lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                reader.execute("SELECT count(*) FROM public.t")  # queued behind the TRUNCATE, and so it cannot lie
    other.join()


def test_c10_a_locked_table_ends_the_wait_with_its_name_and_its_holder(ground: Ground) -> None:
    dsn = ground.database('CREATE TABLE "My Table" (i int)')
    with psycopg.connect(**dsn.keywords(), application_name="migration") as other:
        other.execute('LOCK TABLE "My Table" IN ACCESS EXCLUSIVE MODE')
        started = time.monotonic()
        with session(dsn) as conn, pytest.raises(TableLocked) as caught:
            with hold_snapshot(conn, lock_wait=timedelta(milliseconds=300)):
                pytest.fail("there is no snapshot without the locks")
        assert time.monotonic() - started < 5
        assert 'public."My Table"' in caught.value.happened
        assert f"process {other.info.backend_pid} (migration" in caught.value.happened


def test_the_snapshot_is_gone_with_its_holder(ground: Ground) -> None:
    dsn = ground.database("CREATE TABLE t (i int)")
    with session(dsn) as conn, hold_snapshot(conn, lock_wait=SECOND) as snapshot:
        pass
    with pytest.raises(DatabaseFault, match="snapshot"):
        take_inventory(lambda: session(dsn), snapshot.id, 1)


def test_a_table_that_cannot_be_read_ends_the_inventory_with_its_name(ground: Ground) -> None:
    dsn = ground.database(
        "CREATE FUNCTION bad(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1 / ($1 - 1)';"
        "CREATE TYPE pair AS (a int); CREATE TABLE t (p pair); INSERT INTO t VALUES (ROW(1));"
        "CREATE FUNCTION shown(pair) RETURNS text LANGUAGE sql AS 'SELECT public.bad($1.a)::text';"
        "CREATE CAST (pair AS text) WITH FUNCTION shown(pair)"
    )
    with pytest.raises(DatabaseFault, match=r"public\.t"):
        inventory(dsn, jobs=3)


def test_rows_that_an_extension_marks_as_configuration_are_counted_as_they_are_dumped(
    ground: Ground, tmp_path: Path
) -> None:
    """Only what its condition names: CREATE EXTENSION brings the rest."""
    dsn = ground.database("CREATE EXTENSION citext; CREATE TABLE own (i int); INSERT INTO own VALUES (1), (2), (3)")
    run(
        dsn,
        "ALTER EXTENSION citext ADD TABLE own;"
        "UPDATE pg_extension SET extconfig = ARRAY['own'::regclass::oid], extcondition = ARRAY['WHERE i > 1']"
        " WHERE extname = 'citext'",
    )
    assert table(inventory(dsn), "public.own").rows == 2


def test_tables_of_an_extension_are_left_to_it(ground: Ground) -> None:
    dsn = ground.database("CREATE EXTENSION citext; CREATE TABLE own (i int); ALTER EXTENSION citext ADD TABLE own")
    assert inventory(dsn).tables == ()


def test_an_ordinary_owner_can_take_it(ground: Ground) -> None:
    dsn = ground.database("CREATE TABLE t AS SELECT 1 AS i; SELECT lo_from_bytea(0, '\\x01')", owner="shop")
    found = inventory(dsn)
    assert (found.rows, found.large_objects.count, found.roles) == (1, 1, ("shop",))
