"""Whatever the schema, the incident and what the application did since: the outcome is the one decision 10 prescribes.

The oracle (tests/rows/oracle.py) works it out in plain Python from the rows of each moment; a world that fails is
printed as SQL that a person can replay.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, note, settings

from runbooks.clients.postgres import Connection, connect
from runbooks.model.dsn import Dsn
from runbooks.model.errors import Refused
from runbooks.rows.found import Request
from runbooks.rows.undo import apply_undo, survey_undo
from tests.rows.cluster import Pair, Pairs, Recovery, login, new_database, recover
from tests.rows.oracle import Counts, Key, Powers, Row, Ruling, State, States, by_key, rule
from tests.rows.world import OUTBOX, Table, Values, World, inserted
from tests.rows.worlds import worlds

TODAY = Powers(other_keys=True, pointers=True, changed=True, unseen=True)
"""What is built of decision 10. Whoever builds more of it, switches it on here."""
EVERYTHING = Powers(other_keys=True, pointers=True, changed=True, unseen=True)

_KEYLESS = "no primary key"

_EMPTY = """
DO $$
DECLARE found record;
BEGIN
    FOR found IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', found.nspname);
    END LOOP;
END $$;
CREATE SCHEMA public;
"""


@dataclass(frozen=True)
class Ground:
    """Production, a branch of the past, and a branch of the moment after the damage; and the application in each."""

    pair: Pair
    after: Connection
    apps: tuple[Connection, Connection, Connection]

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text("Ground(...)")

    def build(self, world: World) -> None:
        for app in self.apps:
            app.execute((_EMPTY + world.setup).encode())

    def strike(self, world: World) -> None:
        for app in (self.apps[0], self.apps[2]):
            _run(app, world.incident)

    def go_on(self, world: World) -> None:
        _run(self.apps[0], world.later)


def _run(app: Connection, statements: tuple[str, ...]) -> None:
    for statement in statements:
        try:
            app.execute(statement.encode())
        except psycopg.errors.IntegrityError:
            continue  # what a constraint forbids does not happen


@pytest.fixture(scope="session")
def until(cluster: Dsn) -> str:
    return new_database(cluster)


@pytest.fixture
def ground(pairs: Pairs, until: str) -> Iterator[Ground]:
    pair = pairs("")
    there = login(pair.cluster, until, "shop")
    after = connect(there, application_name="test")
    apps = (pair.app, connect(pair.dsn(1), application_name="app"), connect(there, application_name="app"))
    for app in apps:
        app.execute("SET client_min_messages TO warning; SET search_path TO public")
    yield Ground(pair, after, apps)
    for session in (*apps[1:], after):
        session.close()


def rows_of(session: Connection, table: Table, condition: str | None = None) -> tuple[Values, ...]:
    """Each field as its type's output function writes it."""
    query = (
        f"COPY (SELECT {table.named(range(len(table.columns)))} FROM {table.sql} WHERE {condition or 'true'}) TO STDOUT"
    )
    with session.cursor() as cursor, cursor.copy(query.encode()) as copy:
        return tuple(tuple(row) for row in copy.rows())


def snapshot(session: Connection, world: World) -> State:
    return tuple(rows_of(session, table) for table in world.tables)


def in_order(state: State) -> list[list[Values]]:
    return [sorted(rows, key=lambda row: [(text is None, text or "") for text in row]) for rows in state]


def beside(session: Connection) -> tuple[object, ...]:
    """What no recovery may touch: the outbox, and whether triggers are enabled."""
    lines = session.execute(f"SELECT n, what FROM public.{OUTBOX} ORDER BY n".encode()).fetchall()
    triggers = session.execute(
        "SELECT tgrelid, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2"
    ).fetchall()
    return tuple(lines), tuple(triggers)


def played(ground: Ground, world: World) -> States:
    """The world up to now."""
    note(world.script)
    production, branch = ground.pair.production, ground.pair.branch
    ground.build(world)
    past = snapshot(branch, world)
    picked = None if world.where is None else rows_of(branch, world.tables[world.asked[0]], world.condition)
    ground.strike(world)
    after = snapshot(ground.after, world)
    assert in_order(after) == in_order(snapshot(production, world)), "the same statements gave two states"
    ground.go_on(world)
    return States(past, after, snapshot(production, world), picked)


def check_world(ground: Ground, world: World) -> None:
    states, production = played(ground, world), ground.pair.production
    others = beside(production)
    ruling = rule(world, states, TODAY)
    if _KEYLESS in ruling.refused:
        return  # the oracle does not count rows yet: tests/rows/test_keyless.py does
    if not TODAY.unseen and {"taken unseen", "orphan"} <= set(ruling.conflicts.values()):
        return
    with tempfile.TemporaryDirectory() as folder:
        if ruling.refused:
            with pytest.raises(Refused, match="|".join(ruling.refused)):
                bring_back(ground, world, Path(folder))
            assert in_order(snapshot(production, world)) == in_order(states.now)
        else:
            check_outcome(ground, world, states, ruling, Path(folder))
    assert beside(production) == others


def check_outcome(ground: Ground, world: World, states: States, ruling: Ruling, folder: Path) -> None:
    done = bring_back(ground, world, folder)
    final = snapshot(ground.pair.production, world)
    assert in_order(final) == in_order(ruling.rows)
    assert done.proof.verdict == "passed"
    check_told(world, states.past, ruling, done)
    check_sequences(ground, world, ruling)
    if world.undone:
        check_undo(ground, world, done, states.now)
    else:
        check_again(ground, world, replace(states, now=final), folder)


def bring_back(ground: Ground, world: World, folder: Path, run: str = "run") -> Recovery:
    names = (world.tables[number].sql for number in world.asked)
    request = Request.parse(names, world.condition, changed=world.changed)
    return recover(ground.pair, folder, request=request, after=ground.after if world.until else None, run=run)


def check_told(world: World, past: State, ruling: Ruling, done: Recovery) -> None:
    """The numbers and the lists."""
    places = {(table.schema, table.name): number for number, table in enumerate(world.tables)}
    told = {places[result.name.schema, result.name.name]: result for result in done.applied.tables}
    counts = {
        number: Counts(result.asked, result.inserted, result.already_there, result.in_conflict)
        for number, result in told.items()
    }
    assert counts == dict(ruling.counts)
    records = [by_key(*pair) for pair in zip(world.tables, past, strict=True)]

    def shown(number: int, key: Key) -> str:
        return record(records[number][key][place] for place in world.tables[number].key)

    def listed(rows: Iterator[Row]) -> set[tuple[int, str]]:
        return {(number, shown(number, key)) for number, key in rows}

    found = done.plan.found
    others = {
        (places[each.table.schema, each.table.name], key, each.kind is not None)
        for each in found.different
        for key in each.keys
    }
    missing = {
        (number, key) for number, result in told.items() for conflict in result.conflicts for key in conflict.keys
    }
    assert missing | {(number, key) for number, key, conflict in others if conflict} == listed(iter(ruling.conflicts))
    assert {(number, key) for number, key, conflict in others if not conflict} == listed(iter(ruling.different))
    if "taken unseen" in ruling.conflicts.values():
        return  # the survey could not know of those, so what it says of the rows beside them goes too far
    loose = {each.foreign_key: set(each.keys) for each in found.loose if each.certain}
    lost = {each.foreign_key: each.count for each in found.also_lost}
    for number, tie in enumerate(world.ties):
        named = loose.get(tie.name, set())
        sure, perhaps = (
            {shown(tie.child, key) for key in keys.get(number, ())} for keys in (ruling.loose, ruling.perhaps)
        )
        assert sure <= named <= sure | perhaps, tie
        assert lost.get(tie.name, 0) == ruling.also_lost.get(number, 0), tie


def record(values: Iterator[str | None]) -> str:
    """As PostgreSQL writes a row."""
    return "(" + ",".join(map(_field, values)) + ")"


def _field(text: str | None) -> str:
    if text is None:
        return ""
    if text and not set(text) & set('"\\(), \t\n\r\v\f'):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '""') + '"'


def check_sequences(ground: Ground, world: World, ruling: Ruling) -> None:
    """A plain insert works, wherever we inserted."""
    for number, counts in ruling.counts.items():
        table = world.tables[number]
        if counts.inserted and any(column.sequence for column in table.columns):
            plain = inserted(table, [tuple(None for _ in table.columns)], leaving_out=table.key)
            with ground.pair.app.transaction(force_rollback=True):
                ground.pair.app.execute(plain.encode())


def check_undo(ground: Ground, world: World, done: Recovery, before: State) -> None:
    if done.applied.xid is None:
        return
    production = ground.pair.production
    plan = survey_undo(production, done.undo)
    apply_undo(production, plan, undo_path=done.undo, before_commit=lambda _: None)
    assert in_order(snapshot(production, world)) == in_order(before)


def check_again(ground: Ground, world: World, states: States, folder: Path) -> None:
    """The same request once more changes nothing."""
    ruling = rule(world, states, TODAY)
    again = bring_back(ground, world, folder, run="again")
    assert again.applied.inserted == 0
    assert in_order(snapshot(ground.pair.production, world)) == in_order(states.now)
    check_told(world, states.past, ruling, again)


def many(examples: int, *, always_the_same: bool = False) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=always_the_same,
        suppress_health_check=list(HealthCheck),
    )


@given(world=worlds(TODAY))
@many(8, always_the_same=True)
def test_a_random_world_gets_what_the_decision_prescribes(ground: Ground, world: World) -> None:
    check_world(ground, world)


def check_ruling(ground: Ground, world: World) -> None:
    """The rows that the oracle prescribes are accepted by a database with the world's constraints, whatever it is asked
    of decision 10: it does not prescribe what no program could do. And once that is done, nothing is left to do.
    """
    states = played(ground, world)
    ruling = rule(world, states, EVERYTHING)
    if not ruling.refused:
        tables = zip(world.tables, ruling.rows, strict=True)
        wanted = replace(world, tables=tuple(replace(table, rows=rows) for table, rows in tables))
        ground.build(wanted)
        assert in_order(snapshot(ground.pair.branch, world)) == in_order(ruling.rows)
        again = rule(world, replace(states, now=ruling.rows), EVERYTHING)
        assert in_order(again.rows) == in_order(ruling.rows)


@given(world=worlds(EVERYTHING))
@many(8, always_the_same=True)
def test_what_the_oracle_prescribes_is_possible(ground: Ground, world: World) -> None:
    check_ruling(ground, world)


@pytest.mark.long
@given(world=worlds(EVERYTHING))
@many(100)
def test_what_the_oracle_prescribes_is_possible_in_a_hundred_worlds(ground: Ground, world: World) -> None:
    check_ruling(ground, world)


@pytest.mark.long
@pytest.mark.parametrize("_part", range(10))
@given(world=worlds(TODAY))
@many(50)
def test_five_hundred_random_worlds_get_what_the_decision_prescribes(ground: Ground, _part: int, world: World) -> None:
    check_world(ground, world)
