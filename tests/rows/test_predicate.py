"""What held before a loss: rows that are counted, or one question in SQL, asked without changing anything."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from runbooks.clients.postgres import Connection, connect
from runbooks.model.errors import NotFound, UsageFault
from runbooks.rows.predicate import Predicate, Reading
from tests.rows.cluster import Pair, Pairs, value

SETUP = """
CREATE TABLE "T t" (id int PRIMARY KEY, s text);
INSERT INTO "T t" VALUES (1, 'a'), (2, 'b'), (3, NULL);
CREATE TABLE keyless (k1 int);
INSERT INTO keyless VALUES (1), (1);
CREATE FUNCTION writes() RETURNS boolean LANGUAGE plpgsql STABLE AS
    'BEGIN PERFORM public.really_writes(); RETURN true; END';
CREATE FUNCTION really_writes() RETURNS int LANGUAGE sql VOLATILE AS 'DELETE FROM public."T t"; SELECT 1';
"""


@pytest.fixture
def pair(pairs: Pairs) -> Pair:
    return pairs(SETUP)


@pytest.fixture
def session(pair: Pair) -> Iterator[Connection]:
    """As a search opens it: everything in it is read-only unless it says otherwise."""
    with connect(pair.dsn(1), application_name="test", default_transaction_read_only="on") as conn:
        yield conn


def rows(session: Connection, table: str, where: str = "", dropped_by: str = "1") -> int | None:
    return Predicate.parse(table, where, dropped_by, "").read(session, None).rows


def said(session: Connection, question: str) -> bool | None:
    return Predicate.parse("", "", "", question).read(session, None).said


def test_rows_are_counted_all_of_them_or_those_that_fit(session: Connection) -> None:
    assert rows(session, '"T t"') == 3
    assert rows(session, '"T t"', "s IS NOT NULL") == 2
    assert rows(session, 'public."T t"', '"T t".id > 2 -- a remark') == 1
    assert rows(session, "keyless", "k1 = 1") == 2


def test_one_boolean_is_an_answer(session: Connection) -> None:
    assert said(session, 'SELECT count(*) > 2 FROM "T t"') is True
    assert said(session, 'WITH x AS (SELECT 4 AS n) SELECT n < (SELECT max(id) FROM "T t") FROM x; -- it ends') is False
    assert said(session, "SELECT to_regclass('gone') IS NOT NULL") is False
    assert said(session, "VALUES (true)") is True


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("SELECT NULL::boolean", "NULL"),
        ('SELECT id > 1 FROM "T t"', "exactly one row"),
        ('SELECT true FROM "T t" WHERE id > 7', "exactly one row"),
        ("SELECT true AS a, true AS b", "boolean, boolean instead of one boolean"),
        ("SELECT 1", "integer instead of one boolean"),
        ("SELECT", "column"),
        ("SELECT true; SELECT true", "multiple commands"),
        ("SELECT true; COMMIT; DROP TABLE keyless", "multiple commands"),
        ("DELETE FROM keyless RETURNING true", "syntax error"),
        ("WITH x AS (DELETE FROM keyless RETURNING 1) SELECT true", "data-modifying"),
        ("SELECT true INTO other", "SELECT INTO"),
        ("SELECT random() < 2", "random"),
        ("SELECT pg_sleep(60) IS NULL", "pg_sleep"),
        ("SELECT really_writes() = 1", "really_writes"),
        ("SELECT writes()", "read-only transaction"),
        ("SELECT true FROM keyless FOR UPDATE", "read-only transaction"),
        ("SELECT 1 / 0 = 1", "division by zero"),
        ("SELECT $1::boolean", "parameter"),
        ("SELECT nope", "nope"),
        ("TRUNCATE keyless", "syntax error"),
    ],
)
def test_anything_else_is_refused_and_has_no_effect(session: Connection, pair: Pair, question: str, why: str) -> None:
    with pytest.raises(UsageFault) as refused:
        said(session, question)
    assert why in refused.value.happened
    assert value(pair.branch, 'SELECT (SELECT count(*) FROM public.keyless) + (SELECT count(*) FROM public."T t")') == 5


def test_a_condition_that_is_none_is_refused_as_in_a_recovery(session: Connection) -> None:
    for where in ("id = 1) OR (1=1", "nope = 1", "random() < 2", "writes()", "1 / (id - 1) = 1"):
        with pytest.raises(UsageFault):
            rows(session, '"T t"', where)
    assert rows(session, '"T t"') == 3


def test_the_session_itself_refuses_to_write(session: Connection) -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        session.execute("DELETE FROM public.keyless")


def test_a_table_that_is_gone_has_no_rows_but_one_that_never_was_is_a_mistake(session: Connection, pair: Pair) -> None:
    predicate = Predicate.parse("keyless", "", "1", "")
    first = predicate.read(session, None)
    assert first == Reading(table="public.keyless", rows=2)
    pair.branch.execute("DROP TABLE public.keyless; CREATE SCHEMA other; CREATE TABLE other.keyless (k1 int)")
    assert predicate.read(session, first) == Reading(table="public.keyless", rows=0)
    with pytest.raises(NotFound, match="no table keyles"):
        rows(session, "keyles")


@pytest.mark.parametrize(
    ("dropped_by", "before", "now", "holds"),
    [
        ("", 3, 3, True), ("", 3, 4, True), ("", 3, 2, False), ("", 0, 0, False),
        ("2", 9, 8, True), ("2", 9, 7, False), ("2", 1, 1, False), ("2", 2, 0, False),
    ],
)  # fmt: skip
def test_it_holds_while_fewer_rows_are_gone_than_asked(dropped_by: str, before: int, now: int, holds: bool) -> None:
    predicate = Predicate.parse("t", "true", dropped_by, "")
    assert predicate.holds(Reading(rows=now), Reading(rows=before)) is holds


@pytest.mark.parametrize(
    ("tables", "where", "dropped_by", "sql"),
    [
        ("", "", "", ""), ("t", "", "", ""), ("t", "true", "", "SELECT true"), ("", "", "5", "SELECT true"),
        ("", "true", "", ""), ("t", "", "0", ""), ("t", "", "many", ""), ("t", "", "-1", ""), ("a,b", "true", "", ""),
        ("t", "", "٣", ""),
    ],
)  # fmt: skip
def test_a_search_takes_exactly_one_kind_of_predicate(tables: str, where: str, dropped_by: str, sql: str) -> None:
    with pytest.raises(UsageFault):
        Predicate.parse(tables, where, dropped_by, sql)
