"""`--where` is one condition on the rows of one table, and nothing else gets through."""

from __future__ import annotations

import pytest
from psycopg import sql

from runbooks.model.errors import UsageFault
from runbooks.rows.catalog import describe
from runbooks.rows.filters import select_matching
from runbooks.rows.names import TableName
from tests.rows.cluster import Pair, Pairs, value

SETUP = """
CREATE TABLE "T t" (id int PRIMARY KEY, s text);
INSERT INTO "T t" VALUES (1, 'a'), (2, 'b;'), (3, NULL);
CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN PERFORM public.really_writes(); RETURN 1; END';
CREATE FUNCTION really_writes() RETURNS int LANGUAGE sql VOLATILE AS 'DELETE FROM public."T t"; SELECT 1';
"""


def matching(pair: Pair, where: str) -> int:
    table = describe(pair.branch, TableName("public", "T t"))
    assert table
    pair.branch.execute("DROP TABLE IF EXISTS public.asked")
    many = select_matching(
        pair.branch, table, where, sql.Identifier("public", "asked"), sql.Identifier("public", "asked_view")
    )
    assert value(pair.branch, "SELECT count(*) FROM public.asked") == many
    return many


def test_a_condition_is_one_as_it_would_stand_after_where(pairs: Pairs) -> None:
    pair = pairs(SETUP)
    for where, count in {
        "id = 1": 1,
        "s = 'b;'": 1,
        "s IS NULL OR id = 1": 2,
        "s LIKE '%b%' -- a remark": 1,
        '"T t".id IN (SELECT 1)': 1,
        "now() > '2020-01-01' AND id < 3": 2,
        "s > 'z'": 0,
    }.items():
        assert matching(pair, where) == count


@pytest.mark.parametrize(
    "where",
    [
        "id=1) OR (1=1",
        "1=1; DROP TABLE x",
        "id = 1) --",
        "true THEN true END OR CASE WHEN true",
        'true THEN true END; COMMIT; DELETE FROM public."T t"; SELECT 1 WHERE CASE WHEN true',
        "SELECT true",
        "true GROUP BY 1",
        "id=1 UNION SELECT 2",
        "1=1) WITH CHECK OPTION --",
        "id=1 /*",
        "nope = 1",
        "id",
        "id = $1",
        "count(*) > 1",
        "random() < 2",
        "pg_sleep(60) IS NULL",
        "id = ANY (ARRAY(SELECT really_writes()))",
        "writes() = 1",
        "1 / (id - 1) = 1",
        "",
    ],
)
def test_anything_else_is_refused_and_has_no_effect(pairs: Pairs, where: str) -> None:
    pair = pairs(SETUP)
    with pytest.raises(UsageFault):
        matching(pair, where)
    assert value(pair.branch, 'SELECT count(*) FROM public."T t"') == 3


def test_a_function_of_the_application_finds_its_tables_by_the_applications_search_path(pairs: Pairs) -> None:
    pair = pairs(
        SETUP
        + """CREATE FUNCTION known(int) RETURNS boolean LANGUAGE plpgsql STABLE AS
                'BEGIN RETURN EXISTS (SELECT FROM "T t" WHERE id = $1 AND s IS NOT NULL); END'"""
    )
    assert matching(pair, "known(id)") == 2


def test_a_condition_means_what_it_means_to_the_application(pairs: Pairs) -> None:
    """citext's = is found through the search path; under an empty one the condition would compare letter by letter."""
    pair = pairs(
        """
        CREATE TABLE "T t" (id int PRIMARY KEY, s text);
        INSERT INTO "T t" VALUES (1, 'A@x'), (2, 'b');
        ALTER TABLE "T t" ADD mail citext; UPDATE "T t" SET mail = s;
        """,
        before="CREATE EXTENSION citext",
    )
    assert matching(pair, "mail = 'a@X'") == 1
