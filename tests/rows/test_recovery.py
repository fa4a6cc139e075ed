"""Rows deleted in production come back from the branch as they were, and nothing else changes."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest

from runbooks.model.errors import NotFound, ProofFailed, Refused, UsageFault, WrongTarget
from runbooks.rows.applied import Applied
from runbooks.rows.apply import apply
from runbooks.rows.found import Found, Request
from runbooks.rows.names import TableName
from runbooks.rows.plan import make_plan
from runbooks.rows.survey import survey
from runbooks.rows.undo import apply_undo, survey_undo
from tests.rows.cluster import CommitsWhenWaitedFor, Pair, Pairs, recover, texts, until, value

SHOP = """
CREATE TABLE customer (id int PRIMARY KEY, mail text UNIQUE, boss int REFERENCES customer ON DELETE CASCADE);
CREATE TABLE booking (id int PRIMARY KEY, customer int NOT NULL REFERENCES customer ON DELETE CASCADE, net numeric);
CREATE TABLE item (booking int REFERENCES booking ON DELETE CASCADE, n int, what text, PRIMARY KEY (booking, n));
CREATE TABLE note (id int PRIMARY KEY, booking int REFERENCES booking ON DELETE SET NULL);
CREATE TABLE payment (id int PRIMARY KEY, booking int REFERENCES booking);
INSERT INTO customer SELECT g, 'm' || g, CASE WHEN g > 10 THEN g - 10 END FROM generate_series(1, 30) AS g;
INSERT INTO booking SELECT g, 1 + g % 30, g / 3.0 FROM generate_series(1, 90) AS g;
INSERT INTO item SELECT b, n, E'what\\t' || n FROM generate_series(1, 90) AS b, generate_series(1, 3) AS n;
INSERT INTO note SELECT g, g FROM generate_series(1, 90) AS g;
INSERT INTO payment SELECT g, g FROM generate_series(1, 90, 2) AS g;
"""
TABLES = ("public.customer", "public.booking", "public.item", "public.note", "public.payment")


def find(pair: Pair, *tables: str, where: str | None = None) -> Found:
    return survey(pair.production, pair.branch, Request.parse(tables, where))


def counts(found: Found) -> dict[str, tuple[int, int, int, int]]:
    return {
        table.name.name: (table.asked, table.already_there, table.missing, table.in_conflict) for table in found.tables
    }


def test_cascaded_children_of_any_depth_come_back_and_cleared_pointers_are_counted(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM payment WHERE booking % 30 = 0")  # customer 1
    pair.app.execute("DELETE FROM payment WHERE booking % 10 = 0")  # and those below: 11, 21
    pair.app.execute("DELETE FROM customer WHERE id = 1")
    done = recover(pair, tmp_path, "customer", where="id <= 2")
    assert {result.name.name: (result.asked, result.inserted) for result in done.applied.tables} == {
        "customer": (4, 3),  # asked: 1 and 2; 11 and 21 were below 1
        "booking": (9, 9),
        "item": (27, 27),
    }
    for table in TABLES[:3]:
        assert texts(pair.production, table) == texts(pair.branch, table)
    assert not done.plan.found.loose
    (pointer,) = done.applied.amended
    assert (pointer.name.name, pointer.foreign_key, pointer.done) == ("note", "note_booking_fkey", 9)
    assert texts(pair.production, "public.note") == texts(pair.branch, "public.note")
    assert done.proof.verdict == "passed"
    assert done.proof.proved == done.applied.inserted == 39


def test_rows_that_pointed_without_a_cascade_are_named_as_lost_too(pairs: Pairs) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM payment; DELETE FROM booking WHERE id <= 10")
    (lost,) = find(pair, "booking").also_lost
    assert (lost.table.name, lost.count, lost.certain) == ("payment", 5, True)


def test_a_second_recovery_finds_everything_there_and_inserts_nothing(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM payment; DELETE FROM customer WHERE id = 3")
    recover(pair, tmp_path, "customer", "payment")
    again = recover(pair, tmp_path, "customer", "payment", run="again")
    assert again.applied.xid is None
    assert counts(again.plan.found) == {"customer": (30, 30, 0, 0), "payment": (45, 45, 0, 0)}
    assert again.proof.verdict == "passed"
    assert not again.undo.exists()


def test_a_plan_carried_out_twice_inserts_once(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE booking = 7")
    plan = make_plan(find(pair, "item"))
    for number, inserted in ((1, 3), (2, 0)):
        done = apply(
            pair.production,
            pair.branch,
            plan,
            run_id="r",
            undo_path=tmp_path / str(number),
            before_commit=lambda _: None,
        )
        assert done.inserted == inserted
        assert all(result.adds_up for result in done.tables)


def test_rows_of_a_condition_only_and_the_rest_stays_lost(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE booking <= 20")
    done = recover(pair, tmp_path, "item", where="booking BETWEEN 15 AND 25")
    assert (done.applied.tables[0].asked, done.applied.inserted) == (33, 18)
    assert value(pair.production, "SELECT count(*) FROM public.item WHERE booking <= 20") == 18


def test_a_unique_value_in_use_and_a_missing_parent_are_conflicts_and_take_their_children_along(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM payment; DELETE FROM customer WHERE id IN (1, 2)")
    pair.app.execute("INSERT INTO customer VALUES (100, 'm1')")
    done = recover(pair, tmp_path, "customer")
    told = {(conflict.table.name, conflict.count, conflict.keys) for conflict in done.plan.found.conflicts}
    assert told == {
        ("customer", 1, ("(1)",)),
        ("customer", 2, ("(11)", "(21)")),
        ("booking", 9, ("(10)", "(20)", "(30)", "(40)", "(50)", "(60)", "(70)", "(80)", "(90)")),
        ("item", 27, done.plan.found.conflicts_of(TableName("public", "item"))[0].keys),
    }
    assert done.applied.inserted == 3 + 9 + 27
    assert all(result.adds_up for result in done.applied.tables)
    assert done.proof.verdict == "passed"


def test_rows_whose_parent_was_not_asked_for_are_conflicts(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM payment WHERE booking = 9; DELETE FROM booking WHERE id = 9")
    done = recover(pair, tmp_path, "item", "payment")
    assert counts(done.plan.found) == {"item": (270, 267, 0, 3), "payment": (45, 44, 0, 1)}
    assert all("public.booking" in conflict.why for conflict in done.plan.found.conflicts)
    assert done.applied.inserted == 0


def test_what_happens_between_plan_and_execution_is_accounted_for(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP + "CREATE UNIQUE INDEX ON booking (lower(net::text)) WHERE net > 20")
    pair.app.execute("DELETE FROM payment; DELETE FROM booking WHERE id > 80")
    plan = make_plan(find(pair, "booking"))
    assert plan.table(TableName("public", "booking")).unchecked == ("booking_lower_idx",)
    pair.app.execute(
        "INSERT INTO booking SELECT 81, 1, 1;"  # by the same key
        "INSERT INTO booking VALUES (1000, 1, 82 / 3.0);"  # the unique value of 82
        "INSERT INTO item VALUES (81, 2, 'new')"
    )
    done = apply(pair.production, pair.branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=lambda _: None)
    booking, item = done.tables
    # Somebody else's row under our key is not our row: a conflict, as another unique value is.
    assert (booking.asked, booking.inserted, booking.already_there) == (90, 8, 80)
    assert {(conflict.count, conflict.keys) for conflict in booking.conflicts} == {(1, ("(81)",)), (1, ("(82)",))}
    assert (item.asked, item.inserted, item.already_there) == (30, 26, 0)
    assert {(conflict.count, conflict.keys[0]) for conflict in item.conflicts} == {(1, "(81,2)"), (3, "(82,1)")}
    assert value(pair.production, "SELECT what FROM public.item WHERE booking = 81 AND n = 2") == "new"


def test_a_key_that_another_session_is_inserting_is_waited_for_and_then_a_conflict(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE booking = 1")
    plan = make_plan(find(pair, "item"))
    pair.production.execute("SET lock_timeout = '20s'")
    with psycopg.connect(**pair.dsn(0).keywords()) as other:
        other.execute("INSERT INTO item VALUES (1, 1, 'theirs')")
        rival = CommitsWhenWaitedFor(other, pair)
        done = apply(
            pair.production, pair.branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=lambda _: None
        )
        rival.join()
    assert (done.tables[0].inserted, done.tables[0].already_there, done.tables[0].in_conflict) == (2, 267, 1)
    assert value(pair.production, "SELECT what FROM public.item WHERE booking = 1 AND n = 1") == "theirs"


def test_self_references_and_circles_come_back_whatever_their_order(pairs: Pairs, tmp_path: Path) -> None:
    """No key is deferrable here, and rows of both tables point at each other."""
    pair = pairs(
        """
        CREATE TABLE node (id int PRIMARY KEY, next int REFERENCES node);
        CREATE TABLE dept (id int PRIMARY KEY, boss int);
        CREATE TABLE emp (id int PRIMARY KEY, dept int REFERENCES dept ON DELETE CASCADE);
        ALTER TABLE dept ADD CONSTRAINT led FOREIGN KEY (boss) REFERENCES emp ON DELETE CASCADE;
        INSERT INTO node VALUES (1, 3), (2, 1), (3, 2), (4, 4);
        INSERT INTO dept VALUES (1, NULL), (2, NULL); INSERT INTO emp VALUES (1, 2), (2, 1); UPDATE dept SET boss = id;
        """
    )
    pair.app.execute("DELETE FROM node; DELETE FROM dept WHERE id = 1")
    assert value(pair.production, "SELECT count(*) FROM public.emp") == 0
    done = recover(pair, tmp_path, "node", "dept", where="id = 1")
    # node 1 comes only with 3, and that only with 2: they were not asked for.
    assert counts(done.plan.found) == {"node": (1, 0, 0, 1), "dept": (2, 0, 2, 0), "emp": (2, 0, 2, 0)}
    assert texts(pair.production, "public.emp") == texts(pair.branch, "public.emp")
    recover(pair, tmp_path, "node", run="all")
    assert texts(pair.production, "public.node") == texts(pair.branch, "public.node")


def test_deferred_foreign_keys_are_checked_before_commit(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        """
        CREATE TABLE p (id int PRIMARY KEY);
        CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p DEFERRABLE INITIALLY DEFERRED);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER t AFTER INSERT ON c FOR EACH ROW EXECUTE FUNCTION f();
        INSERT INTO p VALUES (1); INSERT INTO c VALUES (1, 1);
        """
    )
    pair.app.execute("DELETE FROM c")
    assert recover(pair, tmp_path, "c").proof.proved == 1


def test_partitioned_tables_quoted_names_and_several_schemas_come_back(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        """
        CREATE SCHEMA "My Schema";
        CREATE TABLE "My Schema"."Invoice ""Items"" 1" (
            "Line-No" int, region text COLLATE "C", "select" text, PRIMARY KEY (region, "Line-No")
        ) PARTITION BY LIST (region);
        CREATE TABLE "My Schema".eu PARTITION OF "My Schema"."Invoice ""Items"" 1" FOR VALUES IN ('eu')
            PARTITION BY RANGE ("Line-No");
        CREATE TABLE eu1 PARTITION OF "My Schema".eu FOR VALUES FROM (1) TO (100);
        CREATE TABLE other PARTITION OF "My Schema"."Invoice ""Items"" 1" DEFAULT;
        CREATE TABLE child (id int PRIMARY KEY, r text, n int,
            FOREIGN KEY (r, n) REFERENCES "My Schema"."Invoice ""Items"" 1" ON DELETE CASCADE);
        INSERT INTO "My Schema"."Invoice ""Items"" 1" SELECT g, CASE WHEN g < 50 THEN 'eu' ELSE 'us' END, 'x'
            FROM generate_series(1, 99) AS g;
        INSERT INTO child VALUES (1, 'eu', 10), (2, 'us', 60), (3, 'us', 61);
        """
    )
    table = '"My Schema"."Invoice ""Items"" 1"'
    pair.app.execute(f'DELETE FROM {table} WHERE "Line-No" BETWEEN 10 AND 60'.encode())
    done = recover(pair, tmp_path, table)
    assert {str(result.name): result.inserted for result in done.applied.tables} == {table: 51, "public.child": 2}
    for name in (table, "public.child", "public.eu1"):
        assert texts(pair.production, name) == texts(pair.branch, name)
    assert done.proof.proved == 53


def test_c20_identity_generated_and_default_columns_come_back_as_they_were(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        """
        CREATE TABLE o (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, net numeric,
            gross numeric GENERATED ALWAYS AS (net*1.2) STORED, created_at timestamptz DEFAULT now());
        INSERT INTO o (net, created_at) VALUES (10, '2024-02-03 04:05:06+00');
        """
    )
    pair.app.execute("DELETE FROM o")
    recover(pair, tmp_path, "o")
    assert texts(pair.production, "public.o") == ['(1,10,12.0,"2024-02-03 04:05:06+00")']


def test_c06_a_check_that_reads_other_tables_by_the_applications_search_path_lets_rows_in(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(
        """
        CREATE TABLE zcat (code text PRIMARY KEY); INSERT INTO zcat VALUES ('x');
        CREATE FUNCTION ok(text) RETURNS boolean LANGUAGE plpgsql STABLE AS
            'BEGIN RETURN EXISTS (SELECT 1 FROM zcat WHERE code = $1); END';
        CREATE TABLE aitem (id int PRIMARY KEY, code text CHECK (ok(code))); INSERT INTO aitem VALUES (1, 'x');
        """
    )
    pair.app.execute("DELETE FROM aitem")
    assert recover(pair, tmp_path, "aitem").proof.proved == 1
    assert value(pair.production, "SHOW search_path") == "pg_catalog, pg_temp"


def test_c09_sequences_stand_at_or_past_the_greatest_id_and_never_move_back(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        """
        CREATE TABLE o (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v int,
            down int DEFAULT NULL);
        CREATE SEQUENCE down INCREMENT -2 MINVALUE -1000 MAXVALUE 100 START 100 OWNED BY o.down;
        CREATE SEQUENCE "Sh""ared" INCREMENT 3 START 5; ALTER TABLE o ALTER v SET DEFAULT nextval('"Sh""ared"');
        INSERT INTO o (id, v, down) SELECT g, g, -g FROM generate_series(1, 50) AS g;
        CREATE TABLE far (id serial PRIMARY KEY);
        INSERT INTO far SELECT nextval('far_id_seq') FROM generate_series(1, 9);
        """
    )
    pair.app.execute("DELETE FROM o WHERE id > 3; DELETE FROM far WHERE id < 5")
    pair.app.execute("SELECT setval('o_id_seq', 4), nextval('down'), nextval('\"Sh\"\"ared\"')")
    done = recover(pair, tmp_path, "o", "far")
    moves = {str(move.sequence): (move.was, move.now) for move in done.applied.moves}
    assert moves == {"public.o_id_seq": (4, 50), "public.down": (100, -50), 'public."Sh""ared"': (5, 50)}
    planned = {str(need.sequence.name): need.move_to for table in done.plan.found.tables for need in table.sequences}
    assert planned == {name: now for name, (_, now) in moves.items()} | {"public.far_id_seq": None}
    assert value(pair.app, "INSERT INTO o (down) VALUES (nextval('down')) RETURNING id") == 51
    assert value(pair.app, "SELECT down FROM o WHERE id = 51") == -52
    assert value(pair.app, "INSERT INTO far DEFAULT VALUES RETURNING id") == 10


def test_c09_a_sequence_moves_back_with_the_transaction_if_that_is_rolled_back(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("CREATE TABLE o (id serial PRIMARY KEY); INSERT INTO o SELECT generate_series(1, 50)")
    pair.app.execute("DELETE FROM o")
    plan = make_plan(find(pair, "o"))

    def stumble(_: Applied) -> None:
        assert value(pair.production, "SELECT last_value FROM public.o_id_seq") == 50
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(pair.production, pair.branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=stumble)
    assert value(pair.app, "SELECT nextval('o_id_seq')") == 1
    assert value(pair.app, "SELECT count(*) FROM o") == 0


def test_c09_a_nextval_of_another_session_waits_and_then_gets_a_number_past_ours(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("CREATE TABLE o (id serial PRIMARY KEY); INSERT INTO o SELECT generate_series(1, 50)")
    pair.app.execute("DELETE FROM o")
    plan = make_plan(find(pair, "o"))
    drawn: list[object] = []
    other = threading.Thread(target=lambda: drawn.append(value(pair.app, "SELECT nextval('o_id_seq')")))

    def draw(_: Applied) -> None:
        other.start()
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        until(lambda: value(pair.production, blocked) == 1)

    apply(pair.production, pair.branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=draw)
    other.join()
    assert drawn == [51]


def test_a_role_that_may_not_make_temporary_tables_is_told_before_consent(pairs: Pairs) -> None:
    revoke = "REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC, guest"
    pair = pairs(SHOP, after=f"DO $$ BEGIN EXECUTE format('{revoke}', current_database()); END $$", role="guest")
    with pytest.raises(Refused, match="temporary"):
        find(pair, "item")


def test_two_names_of_one_database_are_refused(pairs: Pairs) -> None:
    pair = pairs(SHOP)
    with pytest.raises(WrongTarget):
        survey(pair.production, pair.production, Request.parse(["item"]))


def test_an_unknown_table_is_an_error_with_the_nearest_names(pairs: Pairs) -> None:
    pair = pairs(SHOP + 'CREATE SCHEMA old; CREATE TABLE old.item (id int PRIMARY KEY); CREATE TABLE "Big" (i int)')
    with pytest.raises(NotFound, match=r"bookings; the nearest names are booking, public\.booking"):
        find(pair, "bookings")
    with pytest.raises(NotFound, match='"Big"'):
        find(pair, "Big")
    with pytest.raises(UsageFault, match=r"item means 2 tables: old\.item, public\.item"):
        find(pair, "item")
    with pytest.raises(NotFound):
        find(pair, "pg_class")


@pytest.mark.parametrize(
    ("setup", "table", "why"),
    [
        ("CREATE TABLE t ()", "t", "no columns"),
        ("CREATE VIEW t AS SELECT 1 AS id", "t", "a view"),
        ("CREATE UNLOGGED TABLE t (id int PRIMARY KEY)", "t", "unlogged"),
        ("CREATE TABLE t (id int PRIMARY KEY, n int UNIQUE DEFERRABLE)", "t", "deferrable"),
        (
            "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY HASH (id);"
            "CREATE TABLE u PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
            "u",
            "name the partitioned table",
        ),
        ("CREATE TABLE t (id int PRIMARY KEY); CREATE RULE r AS ON INSERT TO t DO ALSO SELECT 1", "t", "rules"),
        (
            "CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "t",
            "row level security",
        ),
    ],
)
def test_tables_that_cannot_be_recovered_exactly_are_refused_with_the_reason(
    pairs: Pairs, setup: str, table: str, why: str
) -> None:
    pair = pairs(setup)
    with pytest.raises(Refused, match=why):
        find(pair, table)


def test_a_cascaded_child_without_a_primary_key_is_searched_only_if_it_lost_rows(pairs: Pairs) -> None:
    pair = pairs(
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE log (p int REFERENCES p ON DELETE CASCADE);"
        "INSERT INTO p VALUES (1), (2); INSERT INTO log VALUES (2)"
    )
    pair.app.execute("DELETE FROM p WHERE id = 1")
    assert counts(find(pair, "p")) == {"p": (2, 1, 1, 0)}
    pair.app.execute("DELETE FROM p")
    assert counts(find(pair, "p")) == {"p": (2, 0, 2, 0), "log": (1, 0, 1, 0)}


def test_a_table_that_production_has_not_any_more_is_refused(pairs: Pairs) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DROP TABLE item")
    with pytest.raises(Refused, match=r"public\.item is not in production"):
        find(pair, "item")


def test_c22_a_schema_that_changed_is_shown_column_by_column_before_any_write(pairs: Pairs) -> None:
    pair = pairs(
        """
        CREATE TYPE st AS ENUM ('new', 'void'); CREATE TYPE addr AS (street text);
        CREATE TABLE o (id int PRIMARY KEY, s st, a addr[], note text, n int, g int GENERATED ALWAYS AS (n * 2) STORED);
        INSERT INTO o VALUES (1, 'void', NULL, 'x', 1);
        """
    )
    pair.app.execute(
        "DELETE FROM o; ALTER TYPE st RENAME VALUE 'void' TO 'cancelled'; ALTER TABLE o DROP COLUMN note;"
        "ALTER TABLE o ADD k int NOT NULL; ALTER TYPE addr ADD ATTRIBUTE town text;"
        "ALTER TABLE o DROP g; ALTER TABLE o ADD g int; ALTER TABLE o ALTER n TYPE bigint"
    )
    with pytest.raises(Refused) as caught:
        find(pair, "o")
    for said in (
        "public.o.s: label 'void' of public.st on the branch, no such thing (label 'cancelled' of public.st)",
        "public.o.a: public.addr as a record of (street text)",
        "public.o.note: text on the branch, missing in production",
        "public.o.k: missing on the branch, integer not null in production",
        "public.o.n: integer on the branch, bigint in production",
        "public.o.g: generated as (n * 2) on the branch, not generated in production",
    ):
        assert said in caught.value.happened


def test_c22_harmless_changes_go_through_and_are_named(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        "CREATE TYPE st AS ENUM ('new'); CREATE TABLE o (id int PRIMARY KEY, s st); INSERT INTO o VALUES (1, 'new')"
    )
    pair.app.execute(
        "DELETE FROM o; ALTER TYPE st ADD VALUE 'old' BEFORE 'new'; ALTER TABLE o ADD k int NOT NULL DEFAULT 7;"
        "ALTER TABLE o ADD maybe text; ALTER TABLE o ADD i int GENERATED ALWAYS AS IDENTITY"
    )
    done = recover(pair, tmp_path, "o")
    assert texts(pair.production, "public.o") == ["(1,new,7,,1)"]
    assert [difference.column for difference in done.plan.found.tables[0].differences] == ["k", "maybe", "i"]


def test_a_table_altered_after_the_plan_is_refused(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE n = 1")
    plan = make_plan(find(pair, "item"))
    pair.app.execute("ALTER TABLE item ADD extra int")
    with pytest.raises(Refused, match=r"public\.item was altered after the plan"):
        apply(pair.production, pair.branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=lambda _: None)
    assert value(pair.app, "SELECT count(*) FROM item WHERE n = 1") == 0


def test_keys_on_the_branch_that_are_not_the_planned_ones_are_refused(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE n = 1")
    plan = make_plan(find(pair, "item"))
    pair.app.execute("DELETE FROM item WHERE n = 2")
    find(pair, "item")  # another survey on the same branch
    with pytest.raises(Refused, match="not those of the plan"):
        apply(pair.production, pair.branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=lambda _: None)


def test_a_row_on_the_branch_that_is_not_as_planned_fails_the_proof(pairs: Pairs, tmp_path: Path) -> None:
    """The number of rows is proved too: a key whose row has vanished from the branch is not passed over."""
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE n = 1")
    plan = make_plan(find(pair, "item"))
    pair.branch.execute("DELETE FROM public.item WHERE booking = 1")
    with pytest.raises(ProofFailed, match="the plan has 90 rows"):
        apply(pair.production, pair.branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=lambda _: None)


def test_a_schema_of_our_name_that_is_not_ours_is_left_alone(pairs: Pairs) -> None:
    pair = pairs(SHOP)
    pair.branch.execute("CREATE SCHEMA bloom_dr; CREATE TABLE bloom_dr.theirs (i int)")
    with pytest.raises(Refused, match="bloom_dr"):
        find(pair, "item")
    assert value(pair.branch, "SELECT count(*) FROM bloom_dr.theirs") == 0


def test_a_branch_taken_while_production_was_frozen_can_be_searched(pairs: Pairs, tmp_path: Path) -> None:
    freeze = "ALTER DATABASE %I SET default_transaction_read_only = on"
    pair = pairs(SHOP, after=f"DO $$ BEGIN EXECUTE format('{freeze}', current_database()); END $$")
    pair.app.execute("BEGIN READ WRITE; DELETE FROM item WHERE booking = 5; COMMIT")
    assert recover(pair, tmp_path, "item").proof.proved == 3


def test_a_table_without_primary_key_is_recovered_by_a_unique_key_that_no_null_gets_around(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(
        "CREATE TABLE p (id int PRIMARY KEY);"
        "CREATE TABLE tag (p int NOT NULL REFERENCES p ON DELETE CASCADE, word text NOT NULL, at date UNIQUE,"
        " UNIQUE (word, p)); INSERT INTO p VALUES (1), (2); INSERT INTO tag VALUES (1, 'a'), (1, 'b'), (2, 'a')"
    )
    pair.app.execute("DELETE FROM p WHERE id = 1; INSERT INTO p VALUES (3); INSERT INTO tag VALUES (3, 'a')")
    done = recover(pair, tmp_path, "p")
    assert texts(pair.production, "public.tag") == ["(1,a,)", "(1,b,)", "(2,a,)", "(3,a,)"]
    assert done.proof.proved == 3
    undo = survey_undo(pair.production, done.undo)
    apply_undo(pair.production, undo, undo_path=done.undo, before_commit=lambda _: None)
    assert texts(pair.production, "public.tag") == ["(2,a,)", "(3,a,)"]
