"""Random worlds: schemas with every kind of key and foreign key, rows, an incident, and an application that goes on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from hypothesis import strategies as st

from tests.rows.oracle import Powers, values_of
from tests.rows.test_property import KEY_TYPES, OTHER_TYPES
from tests.rows.world import (
    TOUCHED,
    Action,
    Column,
    Places,
    Table,
    Tie,
    Unique,
    Values,
    World,
    inserted,
    literal,
    quoted,
    same_keys,
)

KEYS = (
    *("int", "bigint", "uuid", "text", 'text COLLATE "C"'),
    *("numeric", "float8", "char(5)", "varchar(20)", "word", "date", "mood", "bytea", "inet"),
)
"""Types whose equal spellings the oracle knows."""
TEXT_LIKE = ("text", 'text COLLATE "C"', "varchar(20)", "word")
ACTIONS: tuple[Action, ...] = (
    *("cascade", "cascade", "cascade", "set null", "set null", "set null", "set default", "set default"),
    *("no action", "restrict"),
)
BINDING: tuple[Action, ...] = ("cascade", "cascade", "no action", "restrict")
"""What a pointer that is part of a key can do."""
NAMES = (
    *("order", "User", 'we"ird', "it's", "a.b", "50%", "%s", "%(x)s", "sp ace", "ünï", "k1", "c1", "t", "f", "s", "p"),
    *("state", "why", "round", "cascaded", "fate", "{}", "{0}", "$1", "back\\slash", "plain", "x" * 63, "select", "v"),
)
SCHEMAS = ("public", "public", "public", 'My "Sch.%s')
PLACES = st.integers(0, 2**16)
"""Taken modulo the number of whatever is chosen from, which is not known before."""
Gone: TypeAlias = list[tuple[int, int]]
"""Rows that the incident means to delete: the table, and the row's place in its past."""
SOMETIMES_NONE = st.one_of(PLACES, PLACES, PLACES, st.none())


@dataclass
class Draft:
    """A table in the making; `cells` are its rows, column by column filled."""

    number: int
    schema: str
    name: str
    names: Iterator[str]
    cells: list[list[str | None]]
    columns: list[Column] = field(default_factory=list)
    key: Places = ()
    primary: bool = True
    uniques: list[Unique] = field(default_factory=list)
    partition: str | None = None
    partitions: tuple[str, ...] = ()
    audited: bool = False

    def add(self, column: Column, values: Sequence[str | None]) -> int:
        self.columns.append(column)
        for row, value in zip(self.cells, values, strict=True):
            row.append(value)
        return len(self.columns) - 1

    def table(self) -> Table:
        return Table(
            schema=self.schema,
            name=self.name,
            columns=tuple(self.columns),
            key=self.key,
            primary=self.primary,
            uniques=tuple(self.uniques),
            partition=self.partition,
            partitions=self.partitions,
            audited=self.audited,
            rows=tuple(tuple(row) for row in self.cells),
        )

    def without_repeats(self, places: Places) -> None:
        """Keep the first row of each key."""
        kept = {values_of(self.table(), places, tuple(row)): row for row in reversed(self.cells)}
        self.cells = list(kept.values())[::-1]


@st.composite
def worlds(draw: st.DrawFn, powers: Powers) -> World:
    many = draw(st.sampled_from([1, 2, 2, 3, 3, 4, 5]))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=many, max_size=many, unique=True))
    drafts: list[Draft] = []
    ties: list[Tie] = []
    for name in names:
        drafts.append(_draft(draw, drafts, ties, name, powers))
    for draft in drafts:
        _fill(draw, draft)
    for _ in range(draw(st.sampled_from([1, 2, 3, 4, 0]))):
        _tie(draw, drafts, ties)
    tables = tuple(draft.table() for draft in drafts)
    return _story(draw, World(tables, tuple(ties), (), (), (0,), None, False, False, draw(st.booleans())), powers)


def _rarely(draw: st.DrawFn, one_in: int) -> bool:
    """Not the bounds: hypothesis likes to draw those."""
    return draw(st.integers(0, one_in - 1)) == one_in // 2


# --- tables


def _draft(draw: st.DrawFn, drafts: list[Draft], ties: list[Tie], name: str, powers: Powers) -> Draft:
    start = draw(st.integers(0, len(NAMES) - 1))
    names = itertools.chain(NAMES[start:], NAMES[:start])
    many = draw(st.sampled_from([1, 2, 3, 4, 5, 6]))
    draft = Draft(len(drafts), draw(st.sampled_from(SCHEMAS)), name, names, [[] for _ in range(many)])
    kinds = ["sequence", "single", "single", "double", "child", "child", "none"]
    kind = draw(st.sampled_from(kinds))
    if kind == "none" and _rarely(draw, 9):
        draft.add(Column(next(names), "int"), [draw(st.sampled_from(["1", "2", None])) for _ in range(many)])
        return draft
    draft.primary = not _rarely(draw, 3 if powers.other_keys else 25)
    parents = [other for other in drafts if other.key]
    if kind == "child" and parents:
        _below(draw, draft, draw(st.sampled_from(parents)), ties)
    elif kind == "sequence":
        _numbered(draw, draft)
    else:
        for _ in range(2 if kind == "double" else 1):
            _keyed(draw, draft, draw(st.sampled_from(KEYS)))
    draft.key = tuple(range(len(draft.columns)))
    draft.without_repeats(draft.key)
    _partition(draw, draft)
    return draft


def _required(draft: Draft) -> str:
    return "" if draft.primary else "NOT NULL"


def _keyed(draw: st.DrawFn, draft: Draft, kind: str) -> int:
    return draft.add(Column(next(draft.names), kind, _required(draft)), [draw(KEY_TYPES[kind]) for _ in draft.cells])


def _numbered(draw: st.DrawFn, draft: Draft) -> None:
    spelled = draw(
        st.sampled_from(["GENERATED ALWAYS AS IDENTITY", "GENERATED BY DEFAULT AS IDENTITY (INCREMENT 3)", "serial"])
    )
    draft.add(Column(next(draft.names), "int", spelled, sequence=True), list(map(str, range(1, len(draft.cells) + 1))))


def _below(draw: st.DrawFn, draft: Draft, parent: Draft, ties: list[Tie]) -> None:
    """The key begins with the key of another table's row, as lines of an invoice have it."""
    aims = [parent.cells[draw(PLACES) % len(parent.cells)] for _ in draft.cells]
    places = tuple(
        draft.add(Column(next(draft.names), parent.columns[place].type, _required(draft)), [row[place] for row in aims])
        for place in parent.key
    )
    draft.add(Column(next(draft.names), "int", _required(draft)), [str(draw(st.integers(1, 3))) for _ in draft.cells])
    action = draw(st.sampled_from(BINDING))
    ties.append(_named(draw, Tie("", draft.number, places, parent.number, parent.key, action, places, False), ties))


def _partition(draw: st.DrawFn, draft: Draft) -> None:
    how = draw(st.sampled_from([None, None, None, None, "HASH", "LIST"]))
    if how == "HASH":
        draft.partitions = tuple(f"FOR VALUES WITH (MODULUS 2, REMAINDER {rest})" for rest in (0, 1))
    elif how == "LIST":
        first = literal(draft.cells[0][0])
        draft.partitions = (f"FOR VALUES IN ({first})", "DEFAULT")
    draft.partition = how


def _fill(draw: st.DrawFn, draft: Draft) -> None:
    """Columns besides keys and pointers."""
    if draft.partition is None:  # a unique key would have to contain the partition key
        for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
            _unique(draw, draft)
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(sorted(OTHER_TYPES)))
        name, values = next(draft.names), [draw(st.one_of(st.none(), OTHER_TYPES[kind])) for _ in draft.cells]
        draft.add(Column(name, kind, f"CHECK (length({quoted(name)}) < 50)" if kind in TEXT_LIKE else ""), values)
    if draw(st.booleans()):
        base = next(draft.names)
        check = f"CHECK ({quoted(base)} BETWEEN 0 AND 9)"
        draft.add(Column(base, "int", check), [draw(st.sampled_from([None, "1", "2"])) for _ in draft.cells])
        made = f"GENERATED ALWAYS AS ({quoted(base)} * 2) STORED"
        draft.add(Column(next(draft.names), "int", made, computed=True), [None for _ in draft.cells])
    if draw(st.booleans()):
        draft.add(Column(TOUCHED, "int"), ["0" for _ in draft.cells])
    draft.audited = draw(st.booleans())


def _unique(draw: st.DrawFn, draft: Draft) -> None:
    several = draw(st.sampled_from([1, 1, 1, 2]))
    kinds = [draw(st.sampled_from(KEYS)) for _ in range(several)]
    places = tuple(
        draft.add(Column(next(draft.names), kind), [draw(st.one_of(st.none(), KEY_TYPES[kind])) for _ in draft.cells])
        for kind in kinds
    )
    seen = set()
    for row in draft.cells:
        value = values_of(draft.table(), places, tuple(row))
        if value in seen:
            row[places[0]] = None
        seen.add(value)
    when = None
    if _rarely(draw, 4):
        when = draft.add(
            Column(next(draft.names), "boolean"), [draw(st.sampled_from([None, "t"])) for _ in draft.cells]
        )
    draft.uniques.append(Unique(places, deferrable=when is None and _rarely(draw, 40), when_set=when))


def _tie(draw: st.DrawFn, drafts: list[Draft], ties: list[Tie]) -> None:
    child = drafts[draw(PLACES) % len(drafts)]
    parent = drafts[draw(PLACES) % len(drafts)]
    aims = [parent.key] if parent.key else []
    aims += [unique.columns for unique in parent.uniques if not unique.deferrable and unique.when_set is None]
    if not aims:
        return
    target = aims[draw(PLACES) % len(aims)]
    action = draw(st.sampled_from(ACTIONS))
    default: Sequence[str | None] = [None for _ in parent.columns]
    if action == "set default" and draw(st.booleans()):
        default = list(parent.cells[draw(PLACES) % len(parent.cells)])
    chosen = [draw(SOMETIMES_NONE) for _ in child.cells]
    rows = [None if place is None else list(parent.cells[place % len(parent.cells)]) for place in chosen]
    places = tuple(
        child.add(
            Column(next(child.names), parent.columns[place].type, default=default[place]),
            [None if row is None else row[place] for row in rows],
        )
        for place in target
    )
    cleared = places[-1:] if _rarely(draw, 5) else places
    deferred = _rarely(draw, 5)
    ties.append(_named(draw, Tie("", child.number, places, parent.number, target, action, cleared, deferred), ties))


def _named(draw: st.DrawFn, tie: Tie, ties: list[Tie]) -> Tie:
    return replace(tie, name=draw(st.sampled_from(['fk "%s"', "Fk.", "fk"])) + f" {len(ties)}")


# --- what happens


def _story(draw: st.DrawFn, world: World, powers: Powers) -> World:
    first = _root(draw, world)
    gone: Gone = [(first, place) for place in _some(draw, world.tables[first])]
    # One by one: what another row's RESTRICT keeps does not keep all.
    incident = [_delete(world.tables[first], [place]) for _, place in gone]
    incident += [_damage(draw, world, gone) for _ in range(draw(st.integers(0, 3)))]
    later = [_later(draw, world, gone) for _ in range(draw(st.sampled_from([0, 2, 4, 6, 8])))]
    changed = powers.changed and draw(st.booleans())
    if changed:
        incident += [_update(draw, world, first) for _ in range(draw(st.sampled_from([1, 2])))]
    places = None if changed else tuple(place for number, place in gone if number == first)
    asked, where = _request(draw, world, first, places)
    return replace(
        world,
        incident=tuple(incident),
        later=tuple(later),
        asked=asked,
        where=where,
        changed=changed,
        until=changed and draw(st.booleans()),
    )


def _root(draw: st.DrawFn, world: World) -> int:
    """Where the damage begins: rather at a table that others point at."""
    aims = [tie.parent for tie in world.ties] or list(range(len(world.tables)))
    return aims[draw(PLACES) % len(aims)]


def _some(draw: st.DrawFn, table: Table) -> tuple[int, ...]:
    places = draw(st.lists(st.integers(0, len(table.rows) - 1), min_size=1, max_size=4, unique=True))
    return tuple(sorted(places))


def _request(
    draw: st.DrawFn, world: World, first: int, gone: tuple[int, ...] | None
) -> tuple[Places, tuple[int, ...] | None]:
    form = draw(st.sampled_from(["where", "where", "all", "some", "root"]))
    if form == "where" and world.tables[first].key and gone:
        return (first,), draw(st.sampled_from([gone, gone, _some(draw, world.tables[first])]))
    if form == "root":
        return (first,), None
    # Tables without a key are asked for now and then only: that is refused, and nothing else is seen of the world.
    known = [n for n, table in enumerate(world.tables) if table.key or _rarely(draw, 10)] or [first]
    if form == "some":
        known = draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
    return tuple(known), None


def _delete(table: Table, places: Sequence[int]) -> str:
    return f"DELETE FROM {table.sql} WHERE {same_keys(table, [table.rows[place] for place in places])}"


def _damage(draw: st.DrawFn, world: World, gone: Gone) -> str:
    number = draw(PLACES) % len(world.tables)
    table = world.tables[number]
    what = draw(st.integers(0, 19))
    if what == 13:
        return f"TRUNCATE {table.sql} {draw(st.sampled_from(['', 'RESTART IDENTITY ']))}CASCADE"
    if what < 10:
        places = _some(draw, table)
        gone += [(number, place) for place in places]
        return _delete(table, places)
    return _update(draw, world, number)


def _later(draw: st.DrawFn, world: World, gone: Gone) -> str:
    number = draw(PLACES) % len(world.tables)
    table = world.tables[number]
    what = draw(st.integers(0, 9))
    if what == 7:
        return _delete(table, _some(draw, table)[:1])
    if what < 6:
        return _insert(draw, world, *draw(st.sampled_from([*gone, *gone, (number, draw(PLACES) % len(table.rows))])))
    return _update(draw, world, number)


def _update(draw: st.DrawFn, world: World, number: int) -> str:
    table = world.tables[number]
    where = same_keys(table, [table.rows[place] for place in _some(draw, table)])
    rest = [place for place in table.written if place not in table.key]
    if not rest:
        return _delete(table, _some(draw, table)[:1])
    place = rest[draw(PLACES) % len(rest)]
    tie = next((tie for tie in world.ties if tie.child == number and place in tie.child_columns), None)
    if tie is None:
        pairs = [(place, _cell(draw, table, place))]
    else:
        pairs = list(zip(tie.child_columns, _pointer(draw, world, tie), strict=True))
    told = ", ".join(f"{quoted(table.columns[at].name)} = {literal(value)}" for at, value in pairs)
    return f"UPDATE {table.sql} SET {told} WHERE {where}"


def _pointer(draw: st.DrawFn, world: World, tie: Tie) -> Values:
    rows = world.tables[tie.parent].rows
    place = draw(SOMETIMES_NONE)
    if place is None:
        return tuple(None for _ in tie.parent_columns)
    return tuple(rows[place % len(rows)][at] for at in tie.parent_columns)


def _cell(draw: st.DrawFn, table: Table, place: int) -> str | None:
    """A value of the past, so that unique values meet again, or a new one."""
    column = table.columns[place]
    if column.extra.endswith("BETWEEN 0 AND 9)"):
        return draw(st.sampled_from([None, "3", "4"]))
    if column.name == TOUCHED:
        return "7"
    old = st.sampled_from([row[place] for row in table.rows])
    return draw(st.one_of(old, old, OTHER_TYPES[column.type], st.none()))


def _insert(draw: st.DrawFn, world: World, number: int, place: int) -> str:
    """Something like a row of the past: by its key, or with its unique values, or by a new key."""
    table = world.tables[number]
    old = table.rows[place]
    row = [None if column.computed else _cell(draw, table, at) for at, column in enumerate(table.columns)]
    for tie in world.ties:
        if tie.child == number:
            # Half of them point at nothing: one that points at a row that is gone fails the whole statement.
            aim = _pointer(draw, world, tie) if draw(st.booleans()) else tuple(None for _ in tie.child_columns)
            for at, value in zip(tie.child_columns, aim, strict=True):
                row[at] = value
    for unique in table.uniques:
        for at in unique.columns:
            row[at] = draw(st.one_of(st.just(old[at]), st.just(old[at]), KEY_TYPES[table.columns[at].type]))
    again = draw(st.booleans())
    for at in table.key if again else table.key[:-1]:
        row[at] = old[at]
    if again or not table.key:
        return inserted(table, [tuple(row)])
    last = table.key[-1]
    if table.columns[last].sequence:
        return inserted(table, [tuple(row)], leaving_out=table.key)
    row[last] = draw(KEY_TYPES[table.columns[last].type])
    return inserted(table, [tuple(row)])
