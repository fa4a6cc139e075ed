"""Tables without a key: of each text as many rows come back as are missing, if it is certain that they were lost."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from runbooks.model.errors import ProofFailed, Refused, UsageFault
from runbooks.rows import presence
from runbooks.rows.applied import Applied
from runbooks.rows.apply import apply
from runbooks.rows.decisions import Decisions, conflicts_file
from runbooks.rows.found import Found, Request
from runbooks.rows.mapping import Mapping
from runbooks.rows.plan import make_plan
from runbooks.rows.survey import survey
from runbooks.rows.undo import Undone, UndoPlan, apply_undo, survey_undo
from tests.rows.cluster import CommitsWhenWaitedFor, Pair, Pairs, Recovery, login, recover, texts, value

LOG = """
CREATE TABLE client (id int PRIMARY KEY, name text);
CREATE TABLE log (client int REFERENCES client ON DELETE CASCADE, what text, doc json, at timestamptz, code int UNIQUE);
INSERT INTO client SELECT g, 'c' || g FROM generate_series(1, 5) AS g;
INSERT INTO log SELECT 1 + g % 5, 'w' || g % 2, '{"a": 1}', '2025-01-01Z' FROM generate_series(1, 40) AS g;
INSERT INTO log VALUES (NULL), (NULL), (NULL), (1); INSERT INTO log (client, what, code) VALUES (2, 'once', 7);
"""
NAMES = ("public.client", "public.log")


def find(pair: Pair, *tables: str, where: str | None = None, accept: tuple[str, ...] = ()) -> Found:
    return survey(pair.production, pair.branch, Request.parse(tables, where, accept_keyless=accept))


def accepting(
    pair: Pair, folder: Path, table: str, where: str | None = None, run: str = "run", **how: object
) -> Recovery:
    request = Request.parse([table], where, accept_keyless=[table])
    return recover(pair, folder, request=request, run=run, **how)  # type: ignore[arg-type]


def numbers(found: Found) -> dict[str, tuple[int, int, int, int]]:
    return {
        table.name.name: (table.asked, table.already_there, table.missing, table.in_conflict) for table in found.tables
    }


def take_back(pair: Pair, undo: Path) -> Undone:
    plan = UndoPlan.model_validate_json(survey_undo(pair.production, undo).model_dump_json())
    return apply_undo(pair.production, plan, undo_path=undo, before_commit=lambda _: None)


def test_all_copies_that_a_cascade_deleted_come_back_with_their_parent_and_go_with_the_undo(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(LOG)
    pair.app.execute("DELETE FROM client WHERE id <= 2; UPDATE log SET what = 'edited' WHERE client = 3")
    before = {name: texts(pair.production, name) for name in NAMES}
    done = recover(pair, tmp_path, "client")
    assert numbers(done.plan.found) == {"client": (5, 3, 2, 0), "log": (18, 0, 18, 0)}
    assert not done.plan.found.conflicts
    for client in (1, 2):
        rows = f"(SELECT * FROM public.log WHERE client = {client})"
        assert texts(pair.production, rows) == texts(pair.branch, rows)
    assert value(pair.app, "SELECT count(*) FROM log") == 45
    assert (done.proof.verdict, done.proof.proved) == ("passed", 20)
    again = recover(pair, tmp_path, "client", run="again")
    assert again.applied.xid is None
    assert take_back(pair, done.undo).deleted == 20
    assert {name: texts(pair.production, name) for name in NAMES} == before


def test_rows_that_went_with_their_parent_are_certain_also_if_their_table_is_named(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(LOG)
    pair.app.execute("DELETE FROM client WHERE id = 1; DELETE FROM log WHERE client = 2")
    done = recover(pair, tmp_path, "client", "log")
    assert numbers(done.plan.found) == {"client": (5, 4, 1, 0), "log": (45, 27, 9, 9)}
    (conflict,) = done.plan.found.conflicts
    assert (conflict.kind, conflict.count, conflict.settled) == ("keyless", 9, False)
    assert conflict.keys[-1] in ('(2,w1,"{""a"": 1}","2025-01-01 00:00:00+00",)', "(2,once,,,7)")
    assert done.applied.inserted == 10
    assert done.proof.verdict == "passed"


def test_an_edited_row_looks_lost_and_so_is_reported_and_comes_back_only_if_the_table_is_accepted(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(LOG)
    pair.app.execute("UPDATE log SET what = 'edited' WHERE code = 7; DELETE FROM log WHERE client IS NULL")
    careful = recover(pair, tmp_path, "log")
    assert careful.applied.xid is None
    assert numbers(careful.plan.found) == {"log": (45, 41, 0, 4)}
    assert {row.kind for row in careful.plan.found.conflict_rows} == {"keyless"}
    accepted = accepting(pair, tmp_path, "log", run="accepted")
    assert [table.accepted for table in accepted.plan.found.tables] == [True]
    # The edited one holds the unique value of the one it was.
    (conflict,) = accepted.plan.found.conflicts
    assert (conflict.kind, conflict.keys) == ("taken", ("(2,once,,,7)",))
    assert (accepted.applied.inserted, accepted.proof.proved, accepted.proof.verdict) == (3, 3, "passed")
    assert value(pair.app, "SELECT count(*) FROM log WHERE client IS NULL AND what IS NULL") == 3


def test_a_name_that_is_no_table_without_a_key_cannot_be_accepted(pairs: Pairs) -> None:
    pair = pairs(LOG)
    with pytest.raises(UsageFault, match=r"client is none .* concerned") as caught:
        find(pair, "client", "log", accept=("client",))
    assert "public.log" in caught.value.next_step
    with pytest.raises(UsageFault):
        find(pair, "client", accept=("log",))  # nothing of it was lost
    with pytest.raises(UsageFault):
        Request.parse(["log"], accept_keyless=["a b"])


@pytest.mark.parametrize("few", [presence.FEW, 0])
def test_only_the_missing_copies_come_back_and_additional_ones_stay(
    pairs: Pairs, tmp_path: Path, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "FEW", few)
    pair = pairs("CREATE TABLE t (a int, b text); INSERT INTO t SELECT g % 3, NULL FROM generate_series(0, 29) AS g")
    pair.app.execute(
        "DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE a = 0 LIMIT 4);"
        "INSERT INTO t VALUES (1, NULL), (1, NULL), (9, NULL)"
    )
    done = accepting(pair, tmp_path, "t")
    assert numbers(done.plan.found) == {"t": (30, 26, 4, 0)}
    assert [value(pair.app, f"SELECT count(*) FROM t WHERE a = {a}") for a in (0, 1, 2, 9)] == [10, 12, 10, 1]
    assert done.proof.proved == 4
    assert accepting(pair, tmp_path, "t", run="again").applied.xid is None


def test_a_condition_picks_rows_by_their_content(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(LOG)
    pair.app.execute("DELETE FROM log WHERE client IN (1, 2)")
    done = accepting(pair, tmp_path, "log", "client = 1 OR client = 3")
    assert numbers(done.plan.found) == {"log": (17, 8, 9, 0)}
    assert value(pair.app, "SELECT count(*) FROM log WHERE client = 1") == 9
    assert value(pair.app, "SELECT count(*) FROM log WHERE client = 2") == 0


def test_a_row_that_a_condition_picked_and_a_cascade_took_is_brought_back_once(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(LOG + "ALTER TABLE log ADD id int; UPDATE log SET id = CASE WHEN what = 'w1' THEN 2 END")
    pair.app.execute("DELETE FROM client WHERE id = 2; DELETE FROM log WHERE client = 3")
    done = recover(pair, tmp_path, "client", "log", where="id = 2")
    assert numbers(done.plan.found) == {"client": (1, 0, 1, 0), "log": (25, 12, 9, 4)}
    left = [row for row in texts(pair.branch, "public.log") if not row.startswith("(3,")]
    assert texts(pair.production, "public.log") == left
    assert done.proof.proved == 10


def test_a_plan_carried_out_twice_inserts_once_and_what_came_back_meanwhile_is_not_doubled(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(LOG)
    pair.app.execute("DELETE FROM log WHERE client IS NULL")
    plan = make_plan(find(pair, "log", accept=("log",)))
    pair.app.execute("INSERT INTO log DEFAULT VALUES; INSERT INTO log VALUES (NULL, 'new')")
    for number, inserted in ((1, 2), (2, 0)):
        done = apply(
            pair.production,
            pair.branch,
            plan,
            run_id="r",
            undo_path=tmp_path / str(number),
            before_commit=lambda _: None,
        )
        assert (done.inserted, done.tables[0].already_there) == (inserted, 45 - inserted)
        assert value(pair.app, "SELECT count(*) FROM log WHERE client IS NULL AND what IS NULL") == 3


def test_a_copy_that_another_session_is_inserting_is_waited_for_and_counted(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(LOG)
    pair.app.execute("DELETE FROM log WHERE client IS NULL")
    plan = make_plan(find(pair, "log", accept=("log",)))
    pair.production.execute("SET lock_timeout = '20s'")
    with psycopg.connect(**pair.dsn(0).keywords()) as other:
        other.execute("INSERT INTO log DEFAULT VALUES")
        rival = CommitsWhenWaitedFor(other, pair)
        done = apply(
            pair.production, pair.branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=lambda _: None
        )
        rival.join()
    assert (done.inserted, done.tables[0].already_there) == (2, 43)
    assert value(pair.app, "SELECT count(*) FROM log WHERE client IS NULL") == 3


def test_what_a_copy_points_at_or_its_unique_value_may_be_gone_by_the_time_of_the_insert(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(LOG)
    pair.app.execute("DELETE FROM log WHERE client IN (2, 3)")
    plan = make_plan(find(pair, "log", accept=("log",)))
    pair.app.execute("DELETE FROM client WHERE id = 3; INSERT INTO log VALUES (1, 'theirs', NULL, NULL, 7)")
    done = apply(pair.production, pair.branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=lambda _: None)
    assert done.inserted == 8
    assert {(one.kind, one.count) for one in done.tables[0].conflicts} == {("orphan", 8), ("taken", 1)}


def test_triggers_stay_off_and_generated_default_and_identity_columns_come_back_as_they_were(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(
        """
        CREATE TABLE e (n int GENERATED ALWAYS AS IDENTITY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED,
            at timestamptz DEFAULT now(), kind regclass DEFAULT 'public.e'::regclass);
        INSERT INTO e (n, v, at) OVERRIDING SYSTEM VALUE SELECT 1 + g % 2, 7, '2025-01-01Z'
            FROM generate_series(1, 6) AS g;
        CREATE TABLE out (what text);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO public.out VALUES (TG_OP); NEW.at := now(); RETURN NEW; END';
        CREATE TRIGGER t BEFORE INSERT ON e FOR EACH ROW EXECUTE FUNCTION f();
        """
    )
    pair.app.execute("DELETE FROM e")
    done = accepting(pair, tmp_path, "e")
    assert texts(pair.production, "public.e") == texts(pair.branch, "public.e")
    assert value(pair.app, "SELECT count(*) FROM out") == 0
    assert (done.proof.proved, [move.now for move in done.applied.moves]) == (6, [2])
    assert take_back(pair, done.undo).deleted == 6
    assert texts(pair.production, "public.e") == []


def test_a_trigger_that_changes_a_copy_makes_it_roll_back(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        "CREATE TABLE e (v int); INSERT INTO e VALUES (1), (1);"
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := 5; RETURN NEW; END';"
        "CREATE TRIGGER t BEFORE INSERT ON e FOR EACH ROW EXECUTE FUNCTION f(); GRANT ALL ON e TO guest",
        role="guest",
    )
    pair.app.execute("DELETE FROM e")
    with psycopg.connect(**login(pair.cluster, pair.names[1], "admin").keywords(), autocommit=True) as admin:
        admin.execute(f"GRANT CREATE ON DATABASE {pair.names[1]} TO guest".encode())
    plan = make_plan(find(pair, "e", accept=("e",)), accept_triggers=["t"])
    with pytest.raises(ProofFailed, match=r"public\.e, without a key"):
        apply(pair.production, pair.branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=lambda _: None)
    assert value(pair.app, "SELECT count(*) FROM e") == 0


def test_a_role_that_may_only_insert_cannot_keep_others_from_writing_and_is_refused(pairs: Pairs) -> None:
    pair = pairs("CREATE TABLE e (v int); GRANT SELECT, INSERT ON e TO guest", role="guest")
    with pytest.raises(Refused, match="may not lock it"):
        find(pair, "e")


def test_partitioned_tables_come_back_and_equal_rows_of_two_partitions_are_equal_rows(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(
        """
        CREATE TABLE m (at date, v int) PARTITION BY RANGE (at);
        CREATE TABLE m1 PARTITION OF m FOR VALUES FROM ('2025-01-01') TO ('2025-02-01');
        CREATE TABLE m2 PARTITION OF m DEFAULT;
        INSERT INTO m SELECT '2025-01-30'::date + g % 4, 1 FROM generate_series(1, 20) AS g;
        """
    )
    pair.app.execute("DELETE FROM m WHERE at >= '2025-01-31'")
    done = accepting(pair, tmp_path, "m", "at <> '2025-02-02'")
    assert numbers(done.plan.found) == {"m": (15, 5, 10, 0)}
    assert value(pair.app, "SELECT count(*) FROM m1") == 10
    pair.app.execute("UPDATE m2 SET at = '2025-03-03' WHERE ctid = (SELECT min(ctid) FROM m2)")
    (undone,) = take_back(pair, done.undo).tables
    assert (undone.rows, undone.gone.count, undone.changed.count) == (9, 1, 0)
    assert texts(pair.production, "public.m2") == ["(2025-03-03,1)"]


def test_the_undo_leaves_copies_that_were_changed_and_those_that_were_there_before(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs("CREATE TABLE t (a int, b text); INSERT INTO t SELECT 1, 'x' FROM generate_series(1, 6)")
    pair.app.execute("DELETE FROM t WHERE ctid IN (SELECT ctid FROM t LIMIT 4)")
    done = accepting(pair, tmp_path, "t")
    ours = f"(SELECT ctid FROM t WHERE xmin = '{done.applied.xid}'::xid LIMIT 1)"
    pair.app.execute(f"UPDATE t SET b = 'newer' WHERE ctid = {ours}".encode())
    pair.app.execute("INSERT INTO t VALUES (1, 'x')")
    (undone,) = take_back(pair, done.undo).tables
    assert (undone.rows, undone.gone.count) == (3, 1)
    assert texts(pair.production, "public.t") == ["(1,newer)", "(1,x)", "(1,x)", "(1,x)"]
    again = take_back(pair, done.undo)
    assert (again.xid, again.tables[0].gone.count) == (None, 4)


def test_a_proof_tells_of_copies_that_others_changed_since_and_of_rows_lost_since(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("CREATE TABLE t (a int); INSERT INTO t SELECT g % 2 FROM generate_series(1, 8) AS g")
    pair.app.execute("DELETE FROM t WHERE a = 1")
    done = accepting(pair, tmp_path, "t", between=lambda: pair.app.execute("DELETE FROM t WHERE a = 0"))
    (table,) = done.proof.tables
    assert (table.proved, table.gone.count, table.lost_since.count) == (4, 0, 4)


def test_a_child_of_a_table_without_a_key_comes_back_with_it(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        "CREATE TABLE p (id int UNIQUE, v text); CREATE TABLE c (p int REFERENCES p (id) ON DELETE CASCADE, w int);"
        "CREATE TABLE k (id int PRIMARY KEY, p int REFERENCES p (id) ON DELETE SET NULL);"
        "INSERT INTO p VALUES (1, 'a'), (2, 'b'), (NULL, 'c'), (NULL, 'c');"
        "INSERT INTO c VALUES (1, 1), (1, 1), (2, 2); INSERT INTO k VALUES (1, 1), (2, 2)"
    )
    pair.app.execute("DELETE FROM p")
    careful = find(pair, "p")
    assert {(one.table.name, one.kind, one.count) for one in careful.conflicts} == {
        ("p", "keyless", 4),
        ("c", "orphan", 3),
    }
    done = accepting(pair, tmp_path, "p")
    for name in ("public.p", "public.c", "public.k"):
        assert texts(pair.production, name) == texts(pair.branch, name)
    assert take_back(pair, done.undo).deleted == 7


def test_a_pointer_of_a_table_without_a_key_is_named_and_left(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p ON DELETE SET NULL, w int);"
        "INSERT INTO p VALUES (1); INSERT INTO c VALUES (1, 1), (1, 1)"
    )
    pair.app.execute("DELETE FROM p")
    (loose,) = recover(pair, tmp_path, "p").plan.found.loose
    assert (loose.count, loose.certain) == (2, False)
    assert "no primary key" in loose.why


def test_a_parent_that_is_something_else_now_brings_back_only_the_copies_that_its_new_life_lacks(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(LOG)
    pair.app.execute("DELETE FROM client WHERE id = 1; INSERT INTO client VALUES (1, 'other')")
    pair.app.execute("INSERT INTO log VALUES (1, NULL)")
    text = '{"format": "bloom-dr conflicts 1", "rules": [{"table": "public.client", "kind": "changed", "decision": '
    decisions = Decisions.parse(text + '"past"}]}', where="x")
    done = recover(pair, tmp_path, request=Request.parse(["client"], changed=True, decisions=decisions))
    assert done.plan.found.amended == 1
    assert {(lost.table.name, lost.count, lost.certain) for lost in done.plan.found.also_lost} == {("log", 9, False)}


def test_a_decision_to_keep_settles_and_other_values_are_refused(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(LOG)
    pair.app.execute("DELETE FROM log WHERE code = 7")
    file = conflicts_file("run", find(pair, "log").conflict_rows, left_out=0)
    assert '"set"' not in file.split('"conflicts"')[1]
    keep = Decisions.parse(file.replace('"decision": null', '"decision": "keep"'), where="x")
    (conflict,) = survey(pair.production, pair.branch, Request.parse(["log"], decisions=keep)).conflicts
    assert (conflict.settled, conflict.count) == (True, 1)
    with pytest.raises(UsageFault, match="accept the table"):
        Decisions.parse(file.replace('"decision": null', '"decision": "past"'), where="x")


def test_changed_rows_cannot_be_recognised_and_are_told_as_missing(pairs: Pairs) -> None:
    pair = pairs(LOG)
    pair.app.execute("UPDATE log SET what = 'edited' WHERE code = 7")
    found = survey(pair.production, pair.branch, Request.parse(["log"], changed=True))
    assert numbers(found) == {"log": (45, 44, 0, 1)}
    assert (found.amended, found.different, found.conflicts[0].kind) == (0, (), "keyless")


def test_a_map_holds_for_a_table_without_a_key(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(LOG)
    pair.app.execute(
        "DELETE FROM client WHERE id = 1; ALTER TABLE log RENAME what TO event; ALTER TABLE log ADD how text;"
    )
    mapping = Mapping.parse(
        '["public.log"]\ncolumns = { what = "event" }\nvalues = { what = { w1 = "w0" } }\nnew = { how = "by hand" }'
    )
    done = recover(pair, tmp_path, request=Request.parse(["client"], mapping=mapping))
    rows = "SELECT string_agg(DISTINCT concat(event, '/', how), ' ') FROM log WHERE client = 1"
    assert value(pair.app, rows) == "/by hand w0/by hand"
    assert (done.applied.inserted, done.proof.proved, done.proof.verdict) == (10, 10, "passed")


def test_a_table_that_got_a_key_since_is_refused(pairs: Pairs) -> None:
    pair = pairs(LOG)
    pair.app.execute("ALTER TABLE log ADD id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
    with pytest.raises(Refused, match=r"is none on the branch and \(id\) in production"):
        find(pair, "log")


def test_killed_before_commit_nothing_is_there_and_the_same_plan_does_it_then(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(LOG)
    pair.app.execute("DELETE FROM client WHERE id = 1")
    plan = make_plan(find(pair, "client"))

    def die(_: Applied) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(pair.production, pair.branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=die)
    assert value(pair.app, "SELECT count(*) FROM log WHERE client = 1") == 0
    done = apply(pair.production, pair.branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=lambda _: None)
    assert done.inserted == 10


def test_rows_that_a_map_makes_equal_are_counted_together_whichever_way_they_were_found(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(LOG + "ALTER TABLE client ADD what text DEFAULT 'w1'")
    pair.app.execute("DELETE FROM client WHERE id = 2")
    mapping = Mapping.parse('["public.log"]\nvalues = { what = { w1 = "w0" } }')
    request = Request.parse(["client", "log"], "what = 'w1'", mapping=mapping)
    done = recover(pair, tmp_path, request=request)
    assert value(pair.app, "SELECT count(*) FROM log WHERE client = 2 AND what = 'w0'") == 8
    assert value(pair.app, "SELECT count(*) FROM log WHERE client = 2") == 9
    assert done.proof.verdict == "passed"


def test_a_copy_on_the_branch_that_is_not_as_planned_fails_the_proof(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(LOG)
    pair.app.execute("DELETE FROM client WHERE id = 1")
    plan = make_plan(find(pair, "client"))
    copies = plan.found.tables[1].past.as_string(pair.branch)
    pair.branch.execute(f"UPDATE {copies} SET what = 'forged' WHERE what = 'w0'".encode())
    with pytest.raises(ProofFailed, match=r"public\.log, without a key"):
        apply(pair.production, pair.branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=lambda _: None)
    assert value(pair.app, "SELECT count(*) FROM log WHERE client = 1") == 0


def test_of_copies_that_exclude_each_other_by_now_one_comes_back(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (1, 'x'), (1, 'x'), (2, NULL)")
    pair.app.execute("DELETE FROM t; CREATE UNIQUE INDEX ON t (lower(b))")
    done = accepting(pair, tmp_path, "t")
    assert texts(pair.production, "public.t") == ["(1,x)", "(2,)"]
    (conflict,) = done.applied.tables[0].conflicts
    assert (done.applied.inserted, conflict.kind, conflict.count, done.proof.verdict) == (2, "taken", 2, "passed")


def test_a_row_without_a_key_cannot_come_back_with_other_values(pairs: Pairs) -> None:
    pair = pairs(LOG)
    pair.app.execute("DELETE FROM log WHERE code = 7; INSERT INTO log (code) VALUES (7)")
    file = conflicts_file("run", find(pair, "log", accept=("log",)).conflict_rows, left_out=0)
    decisions = Decisions.parse(file.replace('"set": {}', '"set": {"code": "8"}'), where="x")
    with pytest.raises(UsageFault, match="no key, so none of them can come back with other values"):
        survey(pair.production, pair.branch, Request.parse(["log"], decisions=decisions, accept_keyless=["log"]))
