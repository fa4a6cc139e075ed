"""Whatever the types, keys and foreign keys: delete rows, recover, and every row reads as it did; others untouched."""

from __future__ import annotations

import string
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from runbooks.rows.found import Request
from runbooks.rows.undo import apply_undo, survey_undo
from tests.rows.cluster import Pair, Pairs, recover, texts

TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'a "quoted" one', 'ok');
CREATE DOMAIN word AS text CHECK (value <> 'forbidden');
CREATE TYPE pair AS (a text, b numeric);
"""

TEXTS = st.text(
    st.one_of(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
        st.sampled_from("\t\n\r\\\"'{}(),.N \x01\x7f"),
    ),
    max_size=12,
)
SHORT = st.text(string.ascii_letters + " \\\t", max_size=5)


def quoted(item: str) -> str:
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'


def array(items: Sequence[str | None]) -> str:
    return "{" + ",".join("NULL" if item is None else quoted(item) for item in items) + "}"


NUMBERS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12).map(str),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "0", "0.00", "1.10", "-0", "1e-20"]),
)
FLOATS = st.one_of(
    st.floats(allow_nan=False).map(repr), st.sampled_from(["NaN", "-0", "Infinity", "-Infinity", "1e-323", "0.1"])
)
MOMENTS = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat(" ")),
    st.sampled_from(["infinity", "-infinity", "0044-03-15 12:00:00.000001 BC", "294276-12-31 23:59:59.999999"]),
)
DATES = st.one_of(st.dates().map(str), st.sampled_from(["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31"]))
WHOLE = st.integers(-(2**31), 2**31 - 1).map(str)

KEY_TYPES = {
    "int": WHOLE,
    "bigint": st.integers(-(2**63), 2**63 - 1).map(str),
    "text": TEXTS,
    'text COLLATE "C"': TEXTS,
    "char(5)": SHORT,
    "varchar(20)": TEXTS,
    "word": TEXTS,
    "numeric": NUMBERS,
    "float8": FLOATS,
    "timestamptz": MOMENTS,
    "date": DATES,
    "uuid": st.uuids().map(str),
    "bytea": st.binary(max_size=6).map(lambda octets: "\\x" + octets.hex()),
    "mood": st.sampled_from(["sad", 'a "quoted" one', "ok"]),
    "int[]": st.lists(st.one_of(st.none(), WHOLE), max_size=3).map(array),
    "int4range": st.tuples(st.integers(-50, 50), st.integers(0, 9)).map(lambda r: f"[{r[0]},{r[0] + r[1]})"),
    "inet": st.ip_addresses().map(str),
    "pair": st.tuples(TEXTS, NUMBERS).map(lambda p: f"({quoted(p[0])},{p[1]})"),
}
OTHER_TYPES = KEY_TYPES | {
    "real": st.floats(width=32, allow_nan=False).map(repr),
    "text[]": st.lists(st.one_of(st.none(), TEXTS), max_size=3).map(array),
    "int[][]": st.sampled_from(["{{1,2},{3,NULL}}", "[-1:0]={5,6}", "{}"]),
    "jsonb": st.sampled_from(["null", '{"a": [1.10, "\\u20ac", null]}', '"\\\\t"', "[]"]),
    "json": st.sampled_from([" null ", '{"a":1,  "a":2}', "1.0"]),
    "interval": st.sampled_from(["1 mon -2 days 03:04:05.000006", "-1 year", "0", "1 day -00:00:01"]),
    "tstzrange": st.sampled_from(["empty", "[-infinity,infinity]", '("2024-01-01 00:00:00+02",)']),
    "int4multirange": st.sampled_from(["{}", "{[1,3),[5,9)}"]),
    "bit varying": st.sampled_from(["", "1", "01010"]),
    "point": st.sampled_from(["(0.1,-0)", "(1e300,NaN)"]),
    "tsvector": st.sampled_from(["a:1 'b c':2A", ""]),
    "money": st.sampled_from(["12.34", "-0.01"]),
    '"char"': st.sampled_from(["x", ""]),
    "boolean": st.sampled_from(["t", "f"]),
    "time with time zone": st.sampled_from(["04:05:06.789+05:30", "24:00:00-12"]),
}


@dataclass(frozen=True)
class TableCase:
    key_types: tuple[str, ...]
    other_types: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    deleted: frozenset[int]


@st.composite
def table_cases(draw: st.DrawFn) -> TableCase:
    keys = tuple(draw(st.lists(st.sampled_from(sorted(KEY_TYPES)), min_size=1, max_size=3)))
    others = tuple(draw(st.lists(st.sampled_from(sorted(OTHER_TYPES)), min_size=1, max_size=6)))
    values = [KEY_TYPES[kind] for kind in keys] + [st.one_of(st.none(), OTHER_TYPES[kind]) for kind in others]
    rows = draw(st.lists(st.tuples(*values), min_size=1, max_size=8))
    deleted = draw(st.frozensets(st.integers(0, len(rows) - 1), min_size=1))
    return TableCase(keys, others, tuple(rows), deleted)


def fill(pair: Pair, case: TableCase) -> None:
    """The same rows in both databases; a row whose key is there already is left out of both."""
    kinds = (*case.key_types, *case.other_types)
    keys = ", ".join(f"c{number}" for number in range(len(case.key_types)))
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(kinds))
    holders = ", ".join("%s" for _ in kinds)
    for session in (pair.production, pair.branch):
        session.execute("DROP TABLE IF EXISTS public.t")
        # The columns' types are looked up where an application would find them.
        session.execute("SET search_path TO public")
        session.execute(f"CREATE TABLE public.t ({columns}, n int, PRIMARY KEY ({keys}))".encode())
        for n, row in enumerate(case.rows):
            session.execute(f"INSERT INTO public.t VALUES ({holders}, {n}) ON CONFLICT DO NOTHING".encode(), row)
        session.execute("SET search_path TO pg_catalog, pg_temp")


def check_table(pair: Pair, case: TableCase) -> None:
    fill(pair, case)
    pair.app.execute("DELETE FROM public.t WHERE n = ANY (%s)", (sorted(case.deleted),))
    whole = "(SELECT t.*, t.ctid, t.xmin FROM public.t)"
    left, left_text = texts(pair.production, whole), texts(pair.production, "public.t")
    lost = len(texts(pair.branch, "public.t")) - len(left)
    with tempfile.TemporaryDirectory() as folder:
        done = recover(pair, Path(folder), "t")
        assert texts(pair.production, "public.t") == texts(pair.branch, "public.t")
        assert set(left) <= set(texts(pair.production, whole))
        assert (done.applied.inserted, done.proof.proved, done.proof.verdict) == (lost, lost, "passed")
        if lost:
            undo = survey_undo(pair.production, done.undo)
            apply_undo(pair.production, undo, undo_path=done.undo, before_commit=lambda _: None)
            assert texts(pair.production, "public.t") == left_text


@dataclass(frozen=True)
class CopiesCase:
    """A table without a key: of each text, how many rows the past has and how many there are now."""

    types: tuple[str, ...]
    rows: tuple[tuple[tuple[str | None, ...], int, int], ...]


@st.composite
def copies_cases(draw: st.DrawFn) -> CopiesCase:
    types = tuple(draw(st.lists(st.sampled_from(sorted(OTHER_TYPES)), min_size=1, max_size=5)))
    values = st.tuples(*(st.one_of(st.none(), OTHER_TYPES[kind]) for kind in types))
    rows = st.tuples(values, st.integers(0, 4), st.integers(0, 4))
    return CopiesCase(types, tuple(draw(st.lists(rows, min_size=1, max_size=5))))


def check_copies(pair: Pair, case: CopiesCase) -> None:
    """What comes back is what the past has more of."""
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(case.types))
    holders = ", ".join("%s" for _ in case.types)
    for session, which in ((pair.branch, 1), (pair.production, 2)):
        session.execute("DROP TABLE IF EXISTS public.t; SET search_path TO public")
        session.execute(f"CREATE TABLE public.t ({columns})".encode())
        for row in case.rows:
            for _ in range(int(row[which])):
                session.execute(f"INSERT INTO public.t VALUES ({holders})".encode(), row[0])
        session.execute("SET search_path TO pg_catalog, pg_temp")
    past, before = (Counter(texts(session, "public.t")) for session in (pair.branch, pair.production))
    with tempfile.TemporaryDirectory() as folder:
        done = recover(pair, Path(folder), request=Request.parse(["t"], accept_keyless=["t"]))
        assert Counter(texts(pair.production, "public.t")) == past | before
        lost = (past - before).total()
        assert (done.applied.inserted, done.proof.proved, done.proof.verdict) == (lost, lost, "passed")
        if lost:
            undo = survey_undo(pair.production, done.undo)
            apply_undo(pair.production, undo, undo_path=done.undo, before_commit=lambda _: None)
            assert Counter(texts(pair.production, "public.t")) == before


@dataclass(frozen=True)
class GraphCase:
    """Tables t0, t1, ... with integer keys; `ties` are cascading foreign keys (child, parent)."""

    ties: tuple[tuple[int, int], ...]
    rows: tuple[tuple[tuple[int | None, ...], ...], ...]
    """For each table its rows, each a parent's id per tie."""
    start: int
    deleted: frozenset[int]

    def has_key(self, table: int) -> bool:
        """Those that nothing points at have none, and are full of equal rows."""
        return table == self.start or not self.ties or any(parent == table for _, parent in self.ties)


@st.composite
def graph_cases(draw: st.DrawFn) -> GraphCase:
    tables = draw(st.integers(1, 4))
    table = st.integers(0, tables - 1)
    ties = tuple(draw(st.lists(st.tuples(table, table), max_size=5)))
    sizes = [draw(st.integers(1, 6)) for _ in range(tables)]
    rows = tuple(
        tuple(
            tuple(
                draw(st.one_of(st.none(), st.integers(1, sizes[parent]))) if child == number else None
                for child, parent in ties
            )
            for _ in range(sizes[number])
        )
        for number in range(tables)
    )
    start = draw(table)
    return GraphCase(ties, rows, start, draw(st.frozensets(st.integers(1, sizes[start]), min_size=1)))


def build(pair: Pair, case: GraphCase) -> None:
    for session in (pair.production, pair.branch):
        for number in range(4):
            session.execute(f"DROP TABLE IF EXISTS public.t{number} CASCADE".encode())
        for number, rows in enumerate(case.rows):
            keys = ["id int PRIMARY KEY"] if case.has_key(number) else []
            columns = ", ".join([*keys, *(f"p{tie} int" for tie in range(len(case.ties)))])
            session.execute(f"CREATE TABLE public.t{number} ({columns})".encode())
            for key, row in enumerate(rows, 1):
                values = sql.SQL(", ").join(map(sql.Literal, (*([key] if keys else []), *row)))
                session.execute(
                    sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier("public", f"t{number}"), values)
                )
        for tie, (child, parent) in enumerate(case.ties):
            session.execute(
                f"ALTER TABLE public.t{child} ADD FOREIGN KEY (p{tie}) REFERENCES public.t{parent}"
                " ON DELETE CASCADE".encode()
            )


def check_graph(pair: Pair, case: GraphCase) -> None:
    build(pair, case)
    names = [f"public.t{number}" for number in range(len(case.rows))]
    pair.app.execute(f"DELETE FROM public.t{case.start} WHERE id = ANY (%s)".encode(), (sorted(case.deleted),))
    before = {name: texts(pair.production, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        wanted = ", ".join(map(str, sorted(case.deleted)))
        done = recover(pair, Path(folder), f"t{case.start}", where=f"id IN ({wanted})")
        assert {name: texts(pair.production, name) for name in names} == {
            name: texts(pair.branch, name) for name in names
        }
        assert done.proof.verdict == "passed"
        assert done.proof.proved == sum(len(texts(pair.branch, name)) - len(before[name]) for name in names)
        undo = survey_undo(pair.production, done.undo)
        apply_undo(pair.production, undo, undo_path=done.undo, before_commit=lambda _: None)
        assert {name: texts(pair.production, name) for name in names} == before


def modest(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@pytest.fixture
def typed(pairs: Pairs) -> Pair:
    """One pair of databases for all examples of a test."""
    return pairs(TYPES)


@given(case=table_cases())
@modest(8)
def test_rows_of_many_types_come_back_as_they_were(typed: Pair, case: TableCase) -> None:
    check_table(typed, case)


@given(case=graph_cases())
@modest(8)
def test_cascades_over_any_graph_of_foreign_keys_come_back(typed: Pair, case: GraphCase) -> None:
    check_graph(typed, case)


@given(case=copies_cases())
@modest(8)
def test_copies_without_a_key_come_back_as_many_as_are_missing(typed: Pair, case: CopiesCase) -> None:
    check_copies(typed, case)


@pytest.mark.long
@given(case=copies_cases())
@modest(300)
def test_very_many_copies_without_a_key_come_back(typed: Pair, case: CopiesCase) -> None:
    check_copies(typed, case)


@pytest.mark.long
@given(case=table_cases())
@modest(300)
def test_rows_of_very_many_types_come_back_as_they_were(typed: Pair, case: TableCase) -> None:
    check_table(typed, case)


@pytest.mark.long
@given(case=graph_cases())
@modest(300)
def test_cascades_over_very_many_graphs_come_back(typed: Pair, case: GraphCase) -> None:
    check_graph(typed, case)


NASTY: dict[str, str] = {
    "text": 'tab\t newline\n return\r backslash\\ quote" \\N \\. zwölf €',
    "char(5)": "a ",
    "word": "",
    "numeric": "1.10",
    "float8": "-0",
    "real": "NaN",
    "timestamptz": "0044-03-15 12:00:00.000001 BC",
    "timestamp": "infinity",
    "date": "4713-01-01 BC",
    "interval": "1 mon -2 days 03:04:05.000006",
    "bytea": "\\x00ff5c",
    "mood": 'a "quoted" one',
    "int[]": "[-1:0]={5,NULL}",
    "text[]": '{"NULL",NULL,"a\\\\b\\"c"}',
    "int4range": "[1,5)",
    "tstzrange": "empty",
    "int4multirange": "{[1,3),[5,9)}",
    "jsonb": "null",
    "json": '{"a":1,  "a":1.0}',
    "pair": '("a,b","1.20")',
    "pair[]": '{"(x,1)",NULL}',
    "bit varying": "01010",
    "inet": "::1/64",
    "point": "(0.1,-0)",
    "tsvector": "a:1 'b c':2A",
    "money": "-1234.56",
    '"char"': "",
    "uuid": "00000000-0000-0000-0000-000000000001",
    "regclass": "pg_class",
}


def test_the_worst_value_of_every_type_comes_back_as_it_was(typed: Pair) -> None:
    kinds = tuple(NASTY)
    row = tuple(NASTY.values())
    check_table(typed, TableCase(("text", "int"), kinds, (("a\tb", "1", *row), ("x", "2", *row)), frozenset({0})))
    check_table(typed, TableCase(("numeric", "pair"), kinds, (("NaN", "(,)", *[None] * len(kinds)),), frozenset({0})))
