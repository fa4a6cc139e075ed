"""Rows that were changed, cut loose, replaced: set back where that is certain, decided by a person where it is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from runbooks.clients.postgres import Connection, connect
from runbooks.model.dsn import Dsn
from runbooks.model.errors import Refused, UsageFault
from runbooks.rows import contents
from runbooks.rows.apply import apply
from runbooks.rows.decisions import Decisions, conflicts_file
from runbooks.rows.found import Found, Request
from runbooks.rows.mapping import Mapping
from runbooks.rows.plan import make_plan
from runbooks.rows.survey import survey
from runbooks.rows.undo import apply_undo, survey_undo
from tests.rows.cluster import Pair, Pairs, Recovery, login, new_database, recover, texts, value

CLINIC = """
CREATE TABLE client (id int PRIMARY KEY, mail text UNIQUE, phone text, score numeric);
CREATE TABLE visit (id int PRIMARY KEY, client int REFERENCES client ON DELETE CASCADE, note text);
CREATE TABLE letter (id int PRIMARY KEY, client int DEFAULT 99 REFERENCES client ON DELETE SET NULL,
    copy_to int DEFAULT 99 REFERENCES client ON DELETE SET DEFAULT, touched int DEFAULT 0);
CREATE TABLE outbox (what text);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO public.outbox VALUES (TG_TABLE_NAME); NEW.touched := 1; RETURN NEW; END';
CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO public.outbox VALUES (TG_TABLE_NAME); RETURN NULL; END';
CREATE TRIGGER touch BEFORE UPDATE ON letter FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER told AFTER INSERT OR UPDATE ON client FOR EACH ROW EXECUTE FUNCTION told();
ALTER TABLE letter DISABLE TRIGGER touch; ALTER TABLE client DISABLE TRIGGER told;
INSERT INTO client SELECT g, 'm' || g, 'p' || g, 1.0 FROM generate_series(1, 9) AS g;
INSERT INTO client VALUES (99, 'nobody', '', 0);
INSERT INTO visit SELECT g, 1 + g % 9, 'v' || g FROM generate_series(1, 30) AS g;
INSERT INTO letter (id, client, copy_to) SELECT g, 1 + g % 9, 1 + (g + 1) % 9 FROM generate_series(1, 18) AS g;
ALTER TABLE letter ENABLE TRIGGER touch; ALTER TABLE client ENABLE TRIGGER told;
"""
NAMES = ("public.client", "public.visit", "public.letter", "public.outbox")


class After:
    """The state after the damage: a third database, a copy of production when it is asked for."""

    def __init__(self, cluster: Dsn, kept: ExitStack) -> None:
        self._cluster, self._kept = cluster, kept

    def __call__(self, pair: Pair) -> tuple[Pair, Connection]:
        """New sessions in production (a template may have nobody in it), and one in its copy."""
        pair.app.close()
        pair.production.close()
        copy = new_database(self._cluster, template=pair.names[0])
        dsns = [pair.dsn(0), login(self._cluster, copy, "shop")]
        production, later = (
            self._kept.enter_context(connect(dsn, application_name="test", lock_timeout="300ms")) for dsn in dsns
        )
        app = self._kept.enter_context(psycopg.connect(**dsns[0].keywords(), autocommit=True))
        return Pair(production, pair.branch, app, pair.cluster, pair.names), later


@pytest.fixture
def after(cluster: Dsn) -> Iterator[After]:
    with ExitStack() as kept:
        yield After(cluster, kept)


def lines(pair: Pair) -> dict[str, list[str]]:
    return {name: texts(pair.production, name) for name in NAMES}


def taken_back(pair: Pair, done: Recovery) -> None:
    plan = survey_undo(pair.production, done.undo)
    apply_undo(pair.production, plan, undo_path=done.undo, before_commit=lambda _: None)


def test_pointers_that_the_delete_cut_are_set_again_unless_they_were_set_to_something_else(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(CLINIC)
    pair.app.execute("DELETE FROM client WHERE id IN (1, 2); UPDATE letter SET client = 5 WHERE id = 9")
    before = lines(pair)
    assert value(pair.app, "SELECT count(*) FROM letter WHERE copy_to = 99") == 4
    done = recover(pair, tmp_path, "client")
    (loose,) = done.plan.found.loose
    assert (loose.count, loose.keys, loose.settled) == (1, ("(9)",), True)
    assert sorted((one.foreign_key, one.done) for one in done.applied.amended) == [
        ("letter_client_fkey", 3),
        ("letter_copy_to_fkey", 4),
    ]
    left = [row for row in texts(pair.branch, "public.letter") if not row.startswith("(9,")]
    now = [row for row in texts(pair.production, "public.letter") if not row.startswith("(9,")]
    assert [row.rsplit(",", 1)[0] for row in now] == [row.rsplit(",", 1)[0] for row in left]
    assert texts(pair.production, "public.outbox") == before["public.outbox"], "no trigger fired"
    assert (done.proof.verdict, done.proof.proved_set_back) == ("passed", 7)
    assert recover(pair, tmp_path, "client", run="again").applied.xid is None
    taken_back(pair, done)
    assert lines(pair) == before


def test_rows_that_the_damage_changed_are_set_back_and_later_edits_stay(
    pairs: Pairs, after: After, tmp_path: Path
) -> None:
    pair = pairs(CLINIC)
    pair.app.execute("UPDATE client SET phone = 'oops', score = 1.00 WHERE id <= 6; DELETE FROM client WHERE id = 7")
    pair, later = after(pair)
    pair.app.execute(
        "UPDATE client SET score = 5 WHERE id = 6; UPDATE client SET phone = 'new' WHERE id = 8;"
        "INSERT INTO client VALUES (7, 'other', 'x', 3)"
    )
    before = lines(pair)
    done = recover(pair, tmp_path, "client", request=Request.parse(["client"], changed=True), after=later)
    told = {(each.kind, each.count, each.keys) for each in done.plan.found.different}
    assert told == {("edited", 1, ("(6)",)), ("reused", 1, ("(7)",)), (None, 1, ("(8)",))}
    rows = {row.key[0]: row for row in done.plan.found.conflict_rows}
    assert dict(rows["6"].then) == {"id": "6", "mail": "m6", "phone": "p6", "score": "1.0"}
    assert rows["6"].now is not None
    assert dict(rows["6"].now)["score"] == "5"
    assert done.applied.set_back == 5
    assert done.proof.proved_set_back == 5
    assert [row for row in texts(pair.production, "public.client") if row[1] in "12345"] == [
        f"({n},m{n},p{n},1.0)" for n in range(1, 6)
    ]
    assert texts(pair.production, "public.outbox") == before["public.outbox"]
    taken_back(pair, done)
    assert lines(pair) == before


def test_what_a_person_decided_is_done_and_nothing_else(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(CLINIC)
    pair.app.execute(
        "DELETE FROM client WHERE id IN (1, 2); INSERT INTO client VALUES (100, 'm1', 'again', 1);"
        "UPDATE client SET phone = 'oops' WHERE id IN (4, 5)"
    )
    request = Request.parse(["client", "visit"], changed=True)
    found = survey(pair.production, pair.branch, request)
    kinds = {(row.table.name, row.kind, row.key) for row in found.conflict_rows}
    assert {("client", "taken", ("1",)), ("client", "changed", ("4",)), ("client", "changed", ("5",))} <= kinds
    text = json.loads(conflicts_file("run", found.conflict_rows, left_out=0))
    (taken,) = (each for each in text["conflicts"] if each["kind"] == "taken")
    assert (taken["then"]["phone"], taken["now"]["id"], taken["now"]["phone"]) == ("p1", "100", "again")
    for each in text["conflicts"]:
        if each["kind"] == "taken":
            each["set"] = {"mail": "m1-old"}
        elif each["kind"] == "changed":
            each["decision"] = {"4": "past", "5": "keep"}[each["key"][0]]
    decisions = Decisions.parse(json.dumps(text), where="the file")
    done = recover(pair, tmp_path, request=request.model_copy(update={"decisions": decisions}))
    assert texts(pair.production, "public.client")[:1] == ["(1,m1-old,p1,1.0)"]
    phones = "SELECT string_agg(phone, ',' ORDER BY id) FROM public.client WHERE id IN (4, 5)"
    assert value(pair.production, phones) == "p4,oops"
    assert texts(pair.production, "public.visit") == texts(pair.branch, "public.visit")
    assert not done.plan.found.conflicts
    assert [(each.kind, each.settled) for each in done.plan.found.different] == [("changed", True)]
    assert done.proof.verdict == "passed"


def test_a_decision_holds_only_for_the_row_as_it_was_when_it_was_decided(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(CLINIC)
    pair.app.execute("UPDATE client SET phone = 'oops' WHERE id = 4")
    request = Request.parse(["client"], changed=True)
    text = json.loads(conflicts_file("run", survey(pair.production, pair.branch, request).conflict_rows, left_out=0))
    text["conflicts"][0]["decision"] = "past"
    pair.app.execute("UPDATE client SET phone = 'edited' WHERE id = 4")
    decisions = Decisions.parse(json.dumps(text), where="the file")
    done = recover(pair, tmp_path, request=request.model_copy(update={"decisions": decisions}))
    assert done.applied.set_back == 0
    assert [(each.kind, each.settled) for each in done.plan.found.different] == [("changed", False)]
    rule = {"table": "public.client", "kind": "changed", "decision": "past"}
    rules = Decisions.parse(json.dumps({**text, "conflicts": [], "rules": [rule]}), where="the file")
    done = recover(pair, tmp_path, request=request.model_copy(update={"decisions": rules}), run="rules")
    assert (done.applied.set_back, done.proof.verdict) == (1, "passed")


def test_a_row_edited_between_plan_and_execution_is_not_set_back(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(CLINIC)
    pair.app.execute("UPDATE client SET phone = 'oops' WHERE id IN (4, 5)")
    rules = {"table": "public.client", "kind": "changed", "decision": "past"}
    decisions = Decisions.parse(
        json.dumps({"format": "bloom-dr conflicts 1", "rules": [rules], "conflicts": []}), where="the file"
    )
    request = Request.parse(["client"], changed=True, decisions=decisions)

    def edit() -> None:
        pair.app.execute("UPDATE client SET phone = 'mine' WHERE id = 5; DELETE FROM visit")

    done = recover(pair, tmp_path, request=request, between=edit)
    (amended,) = done.applied.amended
    assert (amended.done, amended.changed.keys) == (1, ("(5)",))
    assert value(pair.production, "SELECT phone FROM public.client WHERE id = 5") == "mine"


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("{", "the file as a whole"),
        ({"format": "else"}, "format"),
        ({"rules": [{"table": "public.client", "kind": "taken", "decision": "past"}]}, "only a decision on a row"),
        ({"conflicts": [{"table": "t", "key": ["1"], "kind": "changed", "set": {"a": "b"}}]}, "missing"),
        ({"conflicts": [{"table": "t", "key": ["1"], "kind": "changed", "decision": "yes"}]}, "conflicts.0.decision"),
    ],
)
def test_a_file_that_is_none_of_decisions_is_refused(file: object, why: str) -> None:
    text = file if isinstance(file, str) else json.dumps({"format": "bloom-dr conflicts 1", **file})  # type: ignore[dict-item]
    with pytest.raises(UsageFault, match=why):
        Decisions.parse(text, where="the file")


@pytest.mark.parametrize(
    "entry",
    [
        {"table": "public.client", "key": ["x"], "kind": "changed", "decision": "past"},
        {"table": "public.client", "key": ["1", "2"], "kind": "changed", "decision": "past"},
        {"table": "public.client", "key": ["1"], "kind": "taken", "set": {"nothing": "1"}},
        {"table": "public.client", "key": ["1"], "kind": "taken", "set": {"id": "7"}},
    ],
)
def test_a_decision_that_no_row_can_have_is_refused_before_anything(pairs: Pairs, entry: dict[str, object]) -> None:
    pair = pairs(CLINIC)
    text = json.dumps({"format": "bloom-dr conflicts 1", "conflicts": [entry]})
    request = Request.parse(["client"], changed=True, decisions=Decisions.parse(text, where="the file"))
    with pytest.raises(UsageFault, match=r"a decision on public\.client cannot be carried out"):
        survey(pair.production, pair.branch, request)


def test_a_big_table_is_narrowed_down_by_buckets_to_the_same_rows(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pair = pairs(
        'CREATE TABLE big (id numeric PRIMARY KEY, n float8, w text COLLATE "C", i interval, j jsonb, a int[]);'
        "INSERT INTO big SELECT g, 0, g, '1 month', '{\"a\": 1.0}', '{1}' FROM generate_series(1, 3000) AS g;"
        "ANALYZE big"
    )
    pair.app.execute(
        "DELETE FROM big WHERE id % 500 = 0; INSERT INTO big SELECT -g FROM generate_series(1, 5) AS g;"
        "UPDATE big SET n = '-0' WHERE id = 1; UPDATE big SET id = 2.00 WHERE id = 2;"
        "UPDATE big SET i = '30 days' WHERE id = 3; UPDATE big SET j = '{\"a\": 1.00}' WHERE id = 4;"
        "UPDATE big SET a = '[0:0]={1}' WHERE id = 5; UPDATE big SET w = 'x' WHERE id = 6; UPDATE big SET w = NULL"
        " WHERE id = 7"
    )
    seen: list[Found] = []
    for most in (contents.MOST, 10):
        monkeypatch.setattr(contents, "MOST", most)
        seen.append(survey(pair.production, pair.branch, Request.parse(["big"], changed=True)))
    for found in seen:
        assert [(table.asked, table.missing) for table in found.tables] == [(3000, 6)]
        assert [(each.count, each.keys) for each in found.different] == [(7, tuple(f"({n})" for n in range(1, 8)))]
    monkeypatch.setattr(contents, "MOST", 10)
    pair.app.execute("UPDATE big SET w = 'all'")  # far more than buckets are for
    found = survey(pair.production, pair.branch, Request.parse(["big"], changed=True))
    assert [each.count for each in found.different] == [2994]


def test_a_map_says_how_rows_fit_a_table_that_was_altered(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        """
        CREATE TYPE st AS ENUM ('new', 'void');
        CREATE TABLE o (id int PRIMARY KEY, s st, note text, legacy text, n int);
        INSERT INTO o VALUES (1, 'void', 'x', 'gone', 1), (2, 'new', 'y', NULL, 2), (3, 'new', 'z', NULL, 3);
        """
    )
    pair.app.execute(
        "DELETE FROM o WHERE id < 3; ALTER TYPE st RENAME VALUE 'void' TO 'cancelled';"
        "ALTER TABLE o RENAME note TO remark; ALTER TABLE o DROP legacy; ALTER TABLE o ALTER n TYPE bigint;"
        "ALTER TABLE o ADD k int; UPDATE o SET k = 3; ALTER TABLE o ALTER k SET NOT NULL"
    )
    with pytest.raises(Refused, match=r"public\.o\.legacy: text on the branch, missing in production"):
        survey(pair.production, pair.branch, Request.parse(["o"]))
    mapping = Mapping.parse(
        """
        ["public.o"]
        columns = { note = "remark", legacy = "", n = "n" }
        values = { s = { void = "cancelled" } }
        new = { k = "7" }
        """
    )
    done = recover(pair, tmp_path, request=Request.parse(["o"], mapping=mapping))
    assert texts(pair.production, "public.o") == ["(1,cancelled,x,1,7)", "(2,new,y,2,7)", "(3,new,z,3,3)"]
    assert (done.applied.inserted, done.proof.proved) == (2, 2)


@pytest.mark.parametrize(
    "text",
    [
        "[",
        'x = "y"',
        '["public.o"]\ncolumns = { nope = "n" }',
        '["public.o"]\ncolumns = { n = "nope" }',
        '["public.o"]\ncolumns = { id = "n" }',
        '["public.o"]\ncolumns = { a = "n" }',
        '["public.o"]\nnew = { nope = "1" }',
        '["public.o"]\nnew = { extra = "abc" }',
        '["public.o"]\nvalues = { n = { 1 = "x" } }',
    ],
)
def test_a_map_that_does_not_fit_is_refused(pairs: Pairs, text: str) -> None:
    pair = pairs("CREATE TABLE o (id int PRIMARY KEY, n int, a int)")
    pair.app.execute("ALTER TABLE o ADD extra int")
    with pytest.raises(UsageFault, match="the map does not fit"):
        survey(pair.production, pair.branch, Request.parse(["o"], mapping=Mapping.parse(text)))


def test_a_role_that_may_not_update_is_told_before_anything(pairs: Pairs) -> None:
    pair = pairs(CLINIC + "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO guest", role="guest")
    with pytest.raises(Refused, match="may not update"):
        survey(pair.production, pair.branch, Request.parse(["client"], changed=True))
    pair.app.execute("DELETE FROM client WHERE id = 3")
    found = survey(pair.production, pair.branch, Request.parse(["client"]))
    assert {(each.certain, each.settled) for each in found.loose} == {(True, False)}
    assert all("may not update" in each.why for each in found.loose)


def test_a_unique_value_that_is_in_use_by_now_keeps_a_damaged_row_as_it_is(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(CLINIC)
    pair.app.execute("UPDATE client SET mail = 'x' WHERE id = 1; UPDATE client SET mail = 'm1' WHERE id = 2")
    rule = {"table": "public.client", "kind": "changed", "decision": "past"}
    text = json.dumps({"format": "bloom-dr conflicts 1", "rules": [rule], "conflicts": []})
    request = Request.parse(["client"], changed=True, decisions=Decisions.parse(text, where="the file"))
    done = recover(pair, tmp_path, request=request)
    assert [(each.kind, each.keys) for each in done.plan.found.different] == [("taken", ("(1)",))]
    assert value(pair.production, "SELECT mail FROM public.client WHERE id = 2") == "m2"
    assert make_plan(done.plan.found).writes == 1


def test_a_row_whose_key_was_given_away_comes_back_with_what_the_delete_took_if_a_person_says_so(
    pairs: Pairs, after: After, tmp_path: Path
) -> None:
    pair = pairs(CLINIC)
    pair.app.execute("DELETE FROM client WHERE id = 1")
    pair, later = after(pair)
    pair.app.execute("INSERT INTO client VALUES (1, 'somebody', 'else', 3)")
    before = lines(pair)
    rule = {"table": "public.client", "kind": "reused", "decision": "past"}
    text = json.dumps({"format": "bloom-dr conflicts 1", "rules": [rule], "conflicts": []})
    request = Request.parse(["client"], changed=True)
    found = survey(pair.production, pair.branch, request, after=later)
    assert [(each.kind, each.count) for each in found.different] == [("reused", 1)]
    assert [(lost.table.name, lost.count) for lost in found.also_lost] == [("visit", 3)]
    assert {(loose.foreign_key, loose.count) for loose in found.loose} == {
        ("letter_client_fkey", 2),
        ("letter_copy_to_fkey", 2),
    }
    assert not found.missing + found.amended
    decided = request.model_copy(update={"decisions": Decisions.parse(text, where="the file")})
    done = recover(pair, tmp_path, request=decided, after=later)
    for table in NAMES[:2]:
        assert texts(pair.production, table) == texts(pair.branch, table)
    assert value(pair.production, "SELECT count(*) FROM public.letter WHERE 1 IN (client, copy_to)") == 4
    assert (done.applied.inserted, done.applied.set_back) == (3, 5)
    assert not done.plan.found.also_lost
    assert not done.plan.found.loose
    taken_back(pair, done)
    assert lines(pair) == before


def test_a_decision_that_fits_nothing_is_counted_and_a_misspelt_table_refused(pairs: Pairs) -> None:
    pair = pairs(CLINIC)
    pair.app.execute("UPDATE client SET phone = 'oops' WHERE id = 4; DELETE FROM client WHERE id = 5")
    entries = [
        {"table": "public.client", "key": ["3"], "kind": "changed", "decision": "past"},
        {"table": "public.visit", "key": ["1"], "kind": "orphan", "decision": "keep"},
        {"table": "public.client", "key": ["5"], "kind": "taken", "set": {"phone": "1"}},
        {"table": "public.client", "key": ["6"], "kind": "taken", "set": {"phone": "2"}},
    ]

    def found(*conflicts: object, rules: tuple[object, ...] = (), **more: object) -> Found:
        text = json.dumps({"format": "bloom-dr conflicts 1", "rules": rules, "conflicts": conflicts})
        request = Request.parse(["client"], changed=True, decisions=Decisions.parse(text, where="the file"))
        return survey(pair.production, pair.branch, request.model_copy(update=more))

    assert found(*entries).unfitting == 3
    with pytest.raises(UsageFault, match=r"on client, which is no table; near: public\.client"):
        found({"table": "client", "key": ["3"], "kind": "changed", "decision": "past"})
    with pytest.raises(UsageFault, match=r"on public\.clientt"):
        found(rules=({"table": "public.clientt", "kind": "changed", "decision": "past"},))
    with pytest.raises(UsageFault, match="on o, which is no table"):
        found(mapping=Mapping.parse("[o]\nnew = { k = '1' }"))


def test_a_value_that_other_rows_point_at_by_now_is_not_taken_from_them(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        "CREATE TABLE room (id int PRIMARY KEY, code text UNIQUE NOT NULL, size int);"
        "CREATE TABLE booked (id int PRIMARY KEY, room text REFERENCES room (code));"
        "INSERT INTO room VALUES (1, 'a', 1), (2, 'b', 2)"
    )
    pair.app.execute("UPDATE room SET code = code || '!', size = 0; INSERT INTO booked VALUES (1, 'a!')")
    rule = {"table": "public.room", "kind": "changed", "decision": "past"}
    text = json.dumps({"format": "bloom-dr conflicts 1", "rules": [rule], "conflicts": []})
    request = Request.parse(["room"], changed=True, decisions=Decisions.parse(text, where="the file"))
    done = recover(pair, tmp_path, request=request)
    assert texts(pair.production, "public.room") == ["(1,a!,0)", "(2,b,2)"]
    assert [one.changed.keys for one in done.applied.amended] == [("(1)",)]


def test_a_row_that_somebody_deleted_after_the_damage_comes_back_only_if_a_person_says_so(
    pairs: Pairs, after: After, tmp_path: Path
) -> None:
    pair = pairs(CLINIC)
    pair.app.execute("DELETE FROM client WHERE id = 1")
    pair, later = after(pair)
    pair.app.execute("DELETE FROM client WHERE id = 2")  # she asked to be forgotten
    request = Request.parse(["client"], changed=True)
    done = recover(pair, tmp_path, request=request, after=later)
    (conflict,) = done.plan.found.conflicts
    assert (conflict.kind, conflict.keys, conflict.settled) == ("deleted", ("(2)",), False)
    assert value(pair.production, "SELECT count(*) FROM public.client WHERE id = 2") == 0
    assert value(pair.production, "SELECT count(*) FROM public.visit WHERE client = 1") == 3
    rule = {"table": "public.client", "kind": "deleted", "decision": "past"}
    text = json.dumps({"format": "bloom-dr conflicts 1", "rules": [rule], "conflicts": []})
    decided = request.model_copy(update={"decisions": Decisions.parse(text, where="the file")})
    recover(pair, tmp_path, request=decided, after=later, run="decided")
    for table in NAMES[:2]:
        assert texts(pair.production, table) == texts(pair.branch, table)


def test_what_the_server_makes_of_a_mapped_or_set_value_is_not_held_against_it(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        "CREATE TABLE c (id int PRIMARY KEY, mail text UNIQUE, up text GENERATED ALWAYS AS (upper(mail)) STORED);"
        "INSERT INTO c VALUES (1, 'a'), (2, 'b')"
    )
    pair.app.execute("DELETE FROM c; INSERT INTO c VALUES (3, 'a')")
    entry = {"table": "public.c", "key": ["1"], "kind": "taken", "set": {"mail": "new"}}
    text = json.dumps({"format": "bloom-dr conflicts 1", "conflicts": [entry]})
    mapping = Mapping.parse('["public.c"]\nvalues = { mail = { b = "B" } }')
    with pytest.raises(UsageFault, match="cannot be mapped"):
        survey(pair.production, pair.branch, Request.parse(["c"], mapping=mapping))
    done = recover(pair, tmp_path, request=Request.parse(["c"], decisions=Decisions.parse(text, where="the file")))
    assert texts(pair.production, "public.c") == ["(1,new,NEW)", "(2,b,B)", "(3,a,A)"]
    assert (done.proof.verdict, done.proof.proved) == ("passed", 2)


def test_rows_that_another_run_brought_back_meanwhile_are_there_and_no_conflict(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(CLINIC + "CREATE UNIQUE INDEX ON visit (lower(note)) WHERE note <> ''")
    pair.app.execute("DELETE FROM client WHERE id IN (1, 2)")
    plan = make_plan(survey(pair.production, pair.branch, Request.parse(["client"])))
    recover(pair, tmp_path, "client")
    done = apply(
        pair.production, pair.branch, plan, run_id="late", undo_path=tmp_path / "late", before_commit=lambda _: None
    )
    assert (done.inserted, [table.in_conflict for table in done.tables]) == (0, [0, 0])
