"""A recovery can be taken back: the rows it inserted and nobody has touched since, and no others."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import psycopg
import pytest

from runbooks.clients.postgres import connect
from runbooks.model.errors import CouldNotVerify, LocalFault, ProofFailed, Refused, WrongTarget
from runbooks.rows import undo_file
from runbooks.rows.undo import Undone, UndoPlan, apply_undo, survey_undo
from runbooks.rows.undo_file import UndoHeader
from tests.rows.cluster import CommitsWhenWaitedFor, Pair, Pairs, recover, texts, value
from tests.rows.test_recovery import SHOP, TABLES

KEYS = """
CREATE TABLE "t ""1" (a text, b timestamptz, c numeric, v int, PRIMARY KEY (a, b, c));
INSERT INTO "t ""1" VALUES (E'tab\\t"q"\\\\ \\n', '2024-01-01 00:00:00.000001Z', 1.10, 1), ('', 'infinity', 'NaN', 2),
    ('\\N', '0044-03-15 BC', 0, 3), ('zwölf', '-infinity', -5, 4);
"""


def take_back(pair: Pair, undo: Path) -> Undone:
    plan = UndoPlan.model_validate_json(survey_undo(pair.production, undo).model_dump_json())
    return apply_undo(pair.production, plan, undo_path=undo, before_commit=lambda _: None)


def test_a_recovery_taken_back_leaves_what_was_before_it(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM payment; DELETE FROM customer WHERE id <= 3")
    before = {table: texts(pair.production, table) for table in TABLES}
    done = recover(pair, tmp_path, "customer", "payment")
    assert done.applied.inserted > 100
    undone = take_back(pair, done.undo)
    assert undone.deleted == done.applied.inserted
    assert {table: texts(pair.production, table) for table in TABLES} == before
    again = take_back(pair, done.undo)
    assert (again.deleted, again.xid) == (0, None)
    assert all(
        table.gone.count == result.inserted for table, result in zip(again.tables, done.applied.tables, strict=True)
    )


def test_keys_of_any_type_find_their_rows_again(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(KEYS)
    pair.app.execute('DELETE FROM "t ""1"')
    done = recover(pair, tmp_path, '"t ""1"')
    assert texts(pair.production, '"t ""1"'.replace('"t', 'public."t', 1)) == texts(pair.branch, 'public."t ""1"')
    assert take_back(pair, done.undo).deleted == 4


def test_rows_changed_since_stay_and_are_listed_and_rows_deleted_since_are_told(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE booking = 1; DELETE FROM item WHERE booking = 2")
    done = recover(pair, tmp_path, "item")
    pair.app.execute(
        "UPDATE item SET what = 'newer' WHERE (booking, n) = (1, 2); DELETE FROM item WHERE (booking, n) = (2, 3)"
    )
    (table,) = take_back(pair, done.undo).tables
    assert (table.rows, table.changed.keys, table.gone.keys) == (4, ("(1,2)",), ("(2,3)",))
    assert texts(pair.production, "(SELECT * FROM public.item WHERE booking <= 2)") == ["(1,2,newer)"]


def test_a_row_written_again_with_the_same_content_is_not_ours_any_more(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE booking = 1")
    done = recover(pair, tmp_path, "item")
    pair.app.execute("UPDATE item SET what = what WHERE booking = 1 AND n = 1")
    assert survey_undo(pair.production, done.undo).tables[0].changed.keys == ("(1,1)",)


def test_newer_rows_that_point_at_ours_stop_the_undo_and_are_named(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM payment; DELETE FROM booking WHERE id = 1")
    done = recover(pair, tmp_path, "booking")
    plan = survey_undo(pair.production, done.undo)
    pair.app.execute("INSERT INTO item VALUES (1, 99, 'newer'); UPDATE item SET what = 'x' WHERE booking = 1 AND n = 1")
    for attempt in (
        lambda: survey_undo(pair.production, done.undo),
        lambda: apply_undo(pair.production, plan, undo_path=done.undo, before_commit=lambda _: None),
    ):
        with pytest.raises(Refused, match=r"2 rows of public\.item through foreign key item_booking_fkey"):
            attempt()
    assert value(pair.app, "SELECT count(*) FROM item WHERE booking = 1") == 4
    assert value(pair.app, "SELECT count(*) FROM booking WHERE id = 1") == 1


def test_a_row_that_is_being_changed_while_we_delete_stays(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE booking = 1")
    done = recover(pair, tmp_path, "item")
    pair.production.execute("SET lock_timeout = '20s'")
    with psycopg.connect(**pair.dsn(0).keywords()) as other:
        other.execute("UPDATE item SET what = 'newer' WHERE booking = 1 AND n = 1")
        rival = CommitsWhenWaitedFor(other, pair)
        undone = take_back(pair, done.undo)
        rival.join()
    assert (undone.deleted, undone.tables[0].changed.keys) == (2, ("(1,1)",))
    assert texts(pair.production, "(SELECT * FROM public.item WHERE booking = 1)") == ["(1,1,newer)"]


def test_circles_are_taken_back_and_delete_triggers_do_not_fire(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        """
        CREATE TABLE dept (id int PRIMARY KEY, boss int); CREATE TABLE log (what text);
        CREATE TABLE emp (id int PRIMARY KEY, dept int REFERENCES dept ON DELETE RESTRICT);
        ALTER TABLE dept ADD CONSTRAINT led FOREIGN KEY (boss) REFERENCES emp;
        INSERT INTO dept VALUES (1, NULL); INSERT INTO emp VALUES (1, 1); UPDATE dept SET boss = 1;
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO public.log VALUES (OLD::text); RETURN OLD; END';
        CREATE TRIGGER t BEFORE DELETE ON emp FOR EACH ROW EXECUTE FUNCTION f();
        """
    )
    pair.app.execute("WITH d AS (DELETE FROM dept), e AS (DELETE FROM emp) SELECT; TRUNCATE log")
    done = recover(pair, tmp_path, "emp", "dept")
    plan = survey_undo(pair.production, done.undo)
    assert [trigger.name for trigger in plan.suppressed] == ["t"]
    assert take_back(pair, done.undo).deleted == 2
    assert value(pair.app, "SELECT count(*) FROM log") == 0
    assert value(pair.app, "SELECT tgenabled FROM pg_trigger WHERE tgname = 't'") == "O"


def test_the_undo_of_another_database_is_refused(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE booking = 1")
    done = recover(pair, tmp_path, "item")
    with pytest.raises(WrongTarget):
        survey_undo(pair.branch, done.undo)


def test_the_undo_of_a_transaction_that_was_not_committed_is_refused(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE booking = 1")
    done = recover(pair, tmp_path, "item")
    header = undo_file.read_header(done.undo)
    pair.production.execute("BEGIN")
    lost = value(pair.production, "SELECT pg_current_xact_id()::text")
    pair.production.execute("ROLLBACK")
    for xid, error in ((lost, ProofFailed), (header.xid + 10_000_000, CouldNotVerify)):
        undo_file.write(tmp_path / "other", header.model_copy(update={"xid": int(str(xid))}), [(0, ("1", "1"))])
        with pytest.raises(error):
            survey_undo(pair.production, tmp_path / "other")


def test_the_undo_file_is_private_whole_and_readable_by_eye(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(KEYS)
    pair.app.execute('DELETE FROM "t ""1" WHERE v <= 2')
    done = recover(pair, tmp_path, '"t ""1"')
    assert stat.S_IMODE(done.undo.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in done.undo.read_text().splitlines()]
    assert lines[0]["xid"] == done.applied.xid
    assert sorted(lines[1:-1]) == [
        [0, "", "infinity", "NaN"],
        [0, 'tab\t"q"\\ \n', "2024-01-01 00:00:00.000001+00", "1.10"],
    ]
    assert lines[-1] == {"rows": 2}
    assert sorted(tmp_path.iterdir()) == [done.undo]


@pytest.mark.parametrize("damage", ["cut", "dropped line", "no end", "other format", "not json", "more"])
def test_an_undo_file_that_is_not_whole_is_refused(pairs: Pairs, tmp_path: Path, damage: str) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE booking = 1")
    undo = recover(pair, tmp_path, "item").undo
    lines = undo.read_text().splitlines(keepends=True)
    undo.write_text(
        {
            "cut": undo.read_text()[:-30],
            "dropped line": "".join(lines[:2] + lines[3:]),
            "no end": "".join(lines[:-1]),
            "other format": undo.read_text().replace(undo_file.FORMAT, "bloom-dr undo 2"),
            "not json": "".join([lines[0], "x\n", *lines[2:]]),
            "more": "".join([*lines, lines[1]]),
        }[damage]
    )
    with pytest.raises(LocalFault):
        survey_undo(pair.production, undo)


def test_a_header_goes_through_json_unchanged(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE booking = 1")
    header = undo_file.read_header(recover(pair, tmp_path, "item").undo)
    assert UndoHeader.model_validate_json(header.model_dump_json()) == header
    assert header.xmin == value(pair.production, "SELECT xmin::text FROM public.item WHERE booking = 1 LIMIT 1")


def test_rows_of_several_sessions_are_left_alone_by_the_undo_of_one(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SHOP)
    pair.app.execute("DELETE FROM item WHERE booking <= 2")
    first = recover(pair, tmp_path, "item", where="booking = 1", run="first")
    second = recover(pair, tmp_path, "item", run="second")
    assert take_back(pair, first.undo).deleted == 3
    assert value(pair.app, "SELECT count(*) FROM item WHERE booking = 2") == 3
    with connect(pair.dsn(0), application_name="fresh") as fresh:
        plan = survey_undo(fresh, second.undo)
        assert plan.rows == 3
