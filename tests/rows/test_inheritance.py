"""Old-style inheritance: a query for the parent shows the rows of its children, which are rows of their own tables."""

from __future__ import annotations

from pathlib import Path

from runbooks.rows.found import Request
from runbooks.rows.undo import apply_undo, survey_undo
from tests.rows.cluster import Pair, Pairs, Recovery, recover, texts, value

PLACES = """
CREATE TABLE country (id int PRIMARY KEY);
CREATE TABLE place (id serial PRIMARY KEY, name text, country int REFERENCES country ON DELETE CASCADE);
CREATE TABLE capital (of text, PRIMARY KEY (id)) INHERITS (place);
CREATE TABLE old (since int) INHERITS (place);
CREATE TABLE visit (id int PRIMARY KEY, place int REFERENCES place ON DELETE CASCADE);
INSERT INTO country VALUES (1), (2);
INSERT INTO place (name, country) SELECT 'p' || g, 1 + g % 2 FROM generate_series(1, 6) AS g;
INSERT INTO capital (id, name, country, of) SELECT g, 'c' || g, 1 + g % 2, 'x' FROM generate_series(3, 8) AS g;
INSERT INTO old (id, name) VALUES (1, 'o'), (1, 'o'), (50, 'p');
INSERT INTO visit SELECT g, 1 + g % 6 FROM generate_series(1, 12) AS g;
"""
NAMES = ("ONLY public.place", "public.capital", "public.old", "public.visit")


def lines(pair: Pair, *names: str) -> list[list[str]]:
    return [texts(pair.production, name) for name in names or NAMES]


def take_back(pair: Pair, done: Recovery) -> int:
    plan = survey_undo(pair.production, done.undo)
    return apply_undo(pair.production, plan, undo_path=done.undo, before_commit=lambda _: None).deleted


def test_rows_of_the_parent_come_back_although_children_have_rows_with_the_same_keys(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(PLACES)
    pair.app.execute("DELETE FROM ONLY place WHERE id <= 4; DELETE FROM capital WHERE id = 3; TRUNCATE old")
    pair.app.execute("SELECT setval('place_id_seq', 1)")
    before = lines(pair)
    done = recover(pair, tmp_path, "place")
    assert {result.name.name: result.inserted for result in done.applied.tables} == {"place": 4, "visit": 8}
    (note,) = done.plan.found.tables[0].notes
    assert "public.capital, public.old" in note
    for name in ("ONLY public.place", "public.visit"):
        assert texts(pair.production, name) == texts(pair.branch, name)
    assert lines(pair, *NAMES[1:3]) == before[1:3]
    assert done.proof.verdict == "passed"
    assert [need.move_to for need in done.plan.found.tables[0].sequences] == [8]
    assert value(pair.app, "SELECT nextval('place_id_seq')") == 9, "past the greatest id of the children, too"
    assert take_back(pair, done) == 12
    assert lines(pair) == before


def test_a_child_is_a_table_like_any_other_and_its_parent_is_left_alone(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(PLACES)
    pair.app.execute("DELETE FROM place")
    request = Request.parse(["capital", "old"], accept_keyless=["old"])
    done = recover(pair, tmp_path, request=request)
    assert lines(pair, *NAMES[1:3]) == [texts(pair.branch, name) for name in NAMES[1:3]]
    assert value(pair.app, "SELECT count(*) FROM ONLY place") == 0
    assert done.proof.proved == 9


def test_a_cascade_ends_at_the_parents_own_rows_as_foreign_keys_do(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(PLACES)
    pair.app.execute("DELETE FROM country WHERE id = 1")
    left = lines(pair, "public.capital")
    done = recover(pair, tmp_path, "country")
    assert {result.name.name: result.inserted for result in done.applied.tables} == {
        "country": 1,
        "place": 3,
        "visit": 6,
    }
    assert lines(pair, "public.capital") == left == [texts(pair.branch, "public.capital")]


def test_a_condition_and_a_comparison_of_contents_mean_the_parents_own_rows(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(PLACES)
    pair.app.execute("DELETE FROM ONLY place WHERE id = 1")
    pair.app.execute("UPDATE capital SET name = 'edited'; UPDATE ONLY place SET name = 'edited' WHERE id = 4")
    done = recover(pair, tmp_path, "place", where="id IN (1, 3, 4, 50)")
    (table, *_) = done.plan.found.tables
    assert (table.asked, table.missing) == (3, 1)
    assert [(one.count, one.keys) for one in done.plan.found.different] == [(1, ("(4)",))]
    assert (done.applied.inserted, done.proof.verdict) == (3, "passed")
