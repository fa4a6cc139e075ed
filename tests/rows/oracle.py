"""What docs/decisions/0010-three-ways.md says of every row, in plain Python over the rows of three states.

It shares nothing with the code under test but the words of that page. Where the page leaves something open, the comment
says "open" and what is taken for right here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, TypeAlias

from tests.rows.world import Places, Table, Tie, Unique, Values, World

State: TypeAlias = tuple[tuple[Values, ...], ...]
"""All rows of each table."""
Key: TypeAlias = tuple[object, ...]
"""Values that are equal exactly where PostgreSQL says so."""
Row: TypeAlias = tuple[int, Key]
"""A table and a key in it."""


@dataclass(frozen=True)
class Powers:
    """What of the page the code can do today."""

    other_keys: bool = False
    """Rows told apart by a unique key where there is no primary one."""
    pointers: bool = False
    """Pointers that the delete cut off are set again."""
    changed: bool = False
    """--changed and --until."""
    unseen: bool = False
    """A row that only a partial unique index keeps out takes along what points at it. (test_worlds_found)"""


@dataclass(frozen=True)
class States:
    """The rows of all tables, as each moment's snapshot has them."""

    past: State
    after: State
    """When the damage was done."""
    now: State
    picked: tuple[Values, ...] | None
    """Of the past, the rows for which the request's condition is true; None without one."""


@dataclass(frozen=True)
class Decision:
    """What a person decided of one conflict."""

    what: Literal["keep", "past", "set"]
    values: Mapping[int, str | None] = field(default_factory=dict)
    """For `set`: columns, by their place, with another value."""


@dataclass(frozen=True)
class Counts:
    asked: int
    inserted: int
    there: int
    conflicts: int


@dataclass(frozen=True)
class Ruling:
    """What has to come of a request."""

    refused: tuple[str, ...]
    """Sentences of which one must be in a refusal; if there are none it must not be refused, and the rest holds."""
    rows: State = ()
    counts: Mapping[int, Counts] = field(default_factory=dict)
    """Of every table concerned."""
    conflicts: Mapping[Row, str] = field(default_factory=dict)
    different: frozenset[Row] = frozenset()
    """Asked for and there with another content, which stays."""
    set_back: frozenset[Row] = frozenset()
    repaired: frozenset[Row] = frozenset()
    """Rows with a pointer that is set again."""
    loose: Mapping[int, frozenset[Key]] = field(default_factory=dict)
    """Of each SET NULL or SET DEFAULT tie (by its place): rows that lost a pointer and do not get it back."""
    perhaps: Mapping[int, frozenset[Key]] = field(default_factory=dict)
    """Rows that may be listed with them: their pointer was set to something else since, or what they pointed at is
    there, as something else."""
    also_lost: Mapping[int, int] = field(default_factory=dict)
    """Of each tie: rows nobody asked for that pointed at rows found and are missing too."""


def canonical(kind: str, text: str) -> object:
    """One value for all spellings that the type's `=` takes for equal."""
    if kind == "numeric":
        return text if text in ("NaN", "Infinity", "-Infinity") else Decimal(text)
    if kind == "float8":
        return text if text == "NaN" else float(text)
    if kind == "char(5)":
        return text.rstrip(" ")
    return text


def values_of(table: Table, places: Places, row: Values) -> Key | None:
    """None if one of them is null: such a row points at nothing, and takes no unique value."""
    told = []
    for place in places:
        text = row[place]
        if text is None:
            return None
        told.append(canonical(table.columns[place].type, text))
    return tuple(told)


def key_of(table: Table, row: Values) -> Key:
    key = values_of(table, table.key, row)
    assert key is not None
    return key


def by_key(table: Table, rows: Iterable[Values]) -> dict[Key, Values]:
    return {key_of(table, row): row for row in rows} if table.key else {}


def _told_apart(table: Table, powers: Powers) -> bool:
    return bool(table.key) and (table.primary or powers.other_keys)


def _obstacle(table: Table, powers: Powers) -> str | None:
    """Why no row of the table can be brought back; the page presumes something that rows are told apart by."""
    if not _told_apart(table, powers):
        return "no primary key"
    if any(unique.deferrable for unique in table.uniques):
        return "deferrable"
    return None


class Case:
    """The working of one ruling."""

    def __init__(self, world: World, states: States, powers: Powers) -> None:
        past, now, after = states.past, states.now, states.after if world.until else None
        self.world, self.powers, self.state, self.picked = world, powers, now, states.picked
        self.tables, self.ties = world.tables, world.ties
        self.past_rows = past
        self.past = [by_key(*pair) for pair in zip(world.tables, past, strict=True)]
        self.now = [by_key(*pair) for pair in zip(world.tables, now, strict=True)]
        self.after = None if after is None else [by_key(*pair) for pair in zip(world.tables, after, strict=True)]
        self.asked: dict[Row, Values] = {}
        self.cascaded: set[Row] = set()
        self.coming: dict[Row, Values] = {}
        """Rows to be there in the end, as they shall be; at first whatever is missing or damaged."""
        self.conflicts: dict[Row, str] = {}
        self.settled: set[Row] = set()
        self.different: set[Row] = set()
        self.refused: list[str] = []
        self.concerned: set[int] = set(world.asked)

    # --- which rows

    def ask(self) -> None:
        for number in self.world.asked:
            table = self.tables[number]
            self._check(number)
            if not table.key:
                continue
            for row in self.past_rows[number] if self.picked is None else self.picked:
                self.asked[number, key_of(table, row)] = row
        missing = {row: was for row, was in self.asked.items() if row[1] not in self.now[row[0]]}
        for row in list(missing):
            if self.world.changed and self.after is not None and row[1] in self.after[row[0]]:
                del missing[row]
                self.conflicts[row] = "deleted later"
        self.coming = missing

    def _check(self, number: int) -> None:
        obstacle = _obstacle(self.tables[number], self.powers)
        if obstacle:
            self.refused.append(obstacle)

    def cascade(self) -> None:
        """Whatever pointed at a missing row through ON DELETE CASCADE, and is missing too."""
        recent = dict(self.coming)
        while recent:
            found: dict[Row, Values] = {}
            for tie in self.ties:
                if tie.action == "cascade":
                    found |= self._cascaded(tie, recent)
            self.cascaded |= found.keys()
            recent = {row: values for row, values in found.items() if row[1] not in self.now[row[0]]}
            self.coming |= recent

    def _cascaded(self, tie: Tie, parents: Mapping[Row, Values]) -> dict[Row, Values]:
        children = self.pointing(tie, parents)
        if children and tie.child not in self.concerned:
            self.concerned.add(tie.child)
            self._check(tie.child)
        table = self.tables[tie.child]
        rows = {(tie.child, key_of(table, row)): row for row in children} if table.key else {}
        return {row: values for row, values in rows.items() if row not in self.asked and row not in self.cascaded}

    def pointing(self, tie: Tie, parents: Mapping[Row, Values]) -> list[Values]:
        """Rows of the past that pointed there."""
        parent, child = self.tables[tie.parent], self.tables[tie.child]
        aims = {
            values_of(parent, tie.parent_columns, row) for (number, _), row in parents.items() if number == tie.parent
        }
        aims.discard(None)
        return [row for row in self.past_rows[tie.child] if values_of(child, tie.child_columns, row) in aims]

    # --- what is there already

    def compare(self, decisions: Mapping[Row, Decision]) -> None:
        for row, was in self.asked.items():
            number, key = row
            now = self.now[number].get(key)
            if now is None or now == was:
                continue
            decision = decisions.get(row)
            if decision and decision.what == "past":
                self.coming[row] = was
            elif decision and decision.what == "keep":
                self.settled.add(row)
            elif not self.world.changed:
                self.different.add(row)
            elif self.after is None:
                self.conflicts[row] = "damaged or edited"
            else:
                self._three_ways(row, was, now, self.after[number].get(key))

    def _three_ways(self, row: Row, was: Values, now: Values, after: Values | None) -> None:
        if after is None:
            self.conflicts[row] = "somebody else's key"
        elif after == was:
            self.different.add(row)
        elif after == now:
            self.coming[row] = was
        else:
            self.conflicts[row] = "damaged, then edited"

    def decide(self, decisions: Mapping[Row, Decision]) -> None:
        """Of rows that are missing."""
        for row, decision in decisions.items():
            if row not in self.coming or row[1] in self.now[row[0]]:
                continue
            if decision.what == "keep":
                del self.coming[row]
                self.settled.add(row)
            elif decision.what == "set":
                values = self.coming[row]
                self.coming[row] = tuple(decision.values.get(place, text) for place, text in enumerate(values))

    # --- what cannot come

    def sort_out(self) -> None:
        """A conflict takes others along, so until nothing changes."""
        while True:
            found = {row: why for row, values in self.coming.items() if (why := self._obstructed(row, values))}
            if not found:
                return
            for row, why in found.items():
                self._refuse(row, why)

    def _obstructed(self, row: Row, values: Values) -> str | None:
        taken = self._taken(row, values)
        if taken:
            return taken
        if not all(self._supported(tie, values) for tie in self.ties if tie.child == row[0]):
            return "orphan"
        return "pointed at" if any(self._leaned_on(tie, row, values) for tie in self.ties) else None

    def _leaned_on(self, tie: Tie, row: Row, values: Values) -> bool:
        """A row that stays points at what would not be there any more. Open: the page does not speak of it."""
        number, key = row
        now = self.now[number].get(key)
        if now is None or tie.parent != number:
            return False
        parent, child = self.tables[number], self.tables[tie.child]
        aim = values_of(parent, tie.parent_columns, now)
        staying = self.state[tie.child]
        if child.key:
            staying = tuple(each for at, each in self.now[tie.child].items() if (tie.child, at) not in self.coming)
        return aim != values_of(parent, tie.parent_columns, values) and any(
            aim == values_of(child, tie.child_columns, each) for each in staying if aim is not None
        )

    def _refuse(self, row: Row, why: str) -> None:
        self.coming.pop(row, None)
        self.conflicts.setdefault(row, why)

    def _taken(self, row: Row, values: Values) -> str | None:
        """Another row holds one of its unique values. Open: one that is set back itself gives up what it holds, or a
        second run would bring back more than the first.
        """
        number, key = row
        table = self.tables[number]
        others = [other for at, other in self.now[number].items() if (number, at) not in self.coming]
        others += [other for (there, at), other in self.coming.items() if there == number and at != key]
        for unique in sorted(table.uniques, key=lambda each: each.when_set is not None):
            mine = _held(table, unique, values)
            if mine is not None and any(_held(table, unique, other) == mine for other in others):
                return "taken" if unique.when_set is None else "taken unseen"
        return None

    def _supported(self, tie: Tie, values: Values) -> bool:
        """What it points at is there, and stays as it is, or comes back with it."""
        aim = values_of(self.tables[tie.child], tie.child_columns, values)
        if aim is None:
            return True
        parent = self.tables[tie.parent]
        rows = [row for (number, _), row in self.coming.items() if number == tie.parent]
        if parent.key:
            rows += [row for key, row in self.now[tie.parent].items() if (tie.parent, key) not in self.coming]
        else:
            rows += self.state[tie.parent]
        return any(values_of(parent, tie.parent_columns, row) == aim for row in rows)

    # --- pointers

    def _rows_of_the_past(self, rows: Iterable[Row]) -> dict[Row, Values]:
        return {row: self.past[row[0]][row[1]] for row in rows}

    def _returning(self) -> dict[Row, Values]:
        return self._rows_of_the_past(row for row in self.coming if row[1] not in self.now[row[0]])

    def pointers(self, back: Mapping[Row, Values]) -> Iterator[tuple[int, Key, Values | None]]:
        """Rows that are there and pointed at one of `back`, where the pointer is not what it was: the tie, the
        row's key, and the row with its pointer set again (None: the pointer was set to something else since).
        """
        for number, tie in enumerate(self.ties):
            table = self.tables[tie.child]
            if tie.action not in ("set null", "set default") or not _told_apart(table, self.powers):
                continue
            for was in self.pointing(tie, back):
                key = key_of(table, was)
                now = self.now[tie.child].get(key)
                if now is not None and values_of(table, tie.child_columns, now) != values_of(
                    table, tie.child_columns, was
                ):
                    yield number, key, _set_again(table, tie, was, now)

    def _doubtful(self) -> Iterator[tuple[int, Key]]:
        """Rows whose pointer was not what it is, and what it pointed at is there as something else."""
        there = self._rows_of_the_past((*self._taken_perhaps(), *self.conflicts))
        yield from ((number, key) for number, key, _ in self.pointers(there))
        if not self.powers.pointers:  # today they are told even if the pointer is what it was: test_worlds_found
            for number, tie in enumerate(self.ties):
                if tie.action == "set default" and self.tables[tie.child].key:
                    yield from ((number, key_of(self.tables[tie.child], row)) for row in self.pointing(tie, there))

    def ruling(self) -> Ruling:
        final = [dict(rows) for rows in self.now]
        repaired = set()
        loose: dict[int, set[Key]] = {number: set() for number in range(len(self.ties))}
        perhaps: dict[int, set[Key]] = {number: set() for number in range(len(self.ties))}
        for number, key in self._doubtful():
            perhaps[number].add(key)
        for number, key, again in self.pointers(self._returning()):
            tie = self.ties[number]
            if (
                (tie.child, key) in self.coming
                or (tie.child, key) in self.conflicts
                or (tie.child, key) in self.settled
            ):
                continue  # set back whole, or to be decided as a whole
            if again is None:
                (loose if self.powers.pointers else perhaps)[number].add(key)
            elif not self.powers.pointers:
                loose[number].add(key)
            else:
                now = final[tie.child][key]
                final[tie.child][key] = tuple(
                    again[place] if place in tie.cleared else text for place, text in enumerate(now)
                )
                repaired.add((tie.child, key))
        for (number, key), values in self.coming.items():
            final[number][key] = values
        rows = tuple(
            tuple(final[number].values()) if table.key else self.state[number]
            for number, table in enumerate(self.tables)
        )
        return Ruling(
            refused=(),
            rows=rows,
            counts=self._counts(),
            conflicts=self.conflicts,
            different=frozenset(self.different),
            set_back=frozenset(row for row in self.coming if row[1] in self.now[row[0]]),
            repaired=frozenset(repaired),
            loose={number: frozenset(keys) for number, keys in loose.items()},
            perhaps={number: frozenset(keys) for number, keys in perhaps.items()},
            also_lost=self._also_lost(),
        )

    def _counts(self) -> dict[int, Counts]:
        meant = self.asked.keys() | self.cascaded
        asked = Counter(number for number, _ in meant)
        inserted = Counter(number for number, key in self.coming if key not in self.now[number])
        conflicts = Counter(number for number, key in self.conflicts if key not in self.now[number])
        there = Counter(number for number, key in meant if key in self.now[number])
        return {
            number: Counts(asked[number], inserted[number], there[number], conflicts[number])
            for number in self.concerned
        }

    def _taken_perhaps(self) -> list[Row]:
        """Rows that are there with other content, and that the delete may have taken meanwhile."""
        if not self.world.changed:
            return list(self.different)
        return [row for row, why in self.conflicts.items() if why in ("damaged or edited", "somebody else's key")]

    def _also_lost(self) -> dict[int, int]:
        """Without a cascade they were deleted before what they pointed at. With one, what they pointed at is there
        again as something else, so nobody can say when they went.
        """
        meant = self.asked.keys() | self.cascaded
        back, other = self._returning(), self._rows_of_the_past(self._taken_perhaps())
        lost = {}
        for number, tie in enumerate(self.ties):
            table = self.tables[tie.child]
            parents = {"cascade": other, "set null": {}, "set default": {}}.get(tie.action, back | other)
            children = self.pointing(tie, parents)
            if _told_apart(table, self.powers):
                keys = {key_of(table, row) for row in children} - self.now[tie.child].keys()
                many = sum((tie.child, key) not in meant for key in keys)
            else:
                many = len(children)  # nobody can look them up
            if many:
                lost[number] = many
        return lost


def _held(table: Table, unique: Unique, row: Values) -> Key | None:
    if unique.when_set is not None and row[unique.when_set] is None:
        return None
    return values_of(table, unique.columns, row)


def _set_again(table: Table, tie: Tie, was: Values, now: Values) -> Values | None:
    """The row with its old pointer, if the pointer is what the delete made of it."""
    for place in tie.child_columns:
        made = was[place]
        if place in tie.cleared:
            made = table.columns[place].default if tie.action == "set default" else None
        kind = table.columns[place].type
        same = made == now[place] or (
            made is not None and now[place] is not None and canonical(kind, made) == canonical(kind, now[place] or "")
        )
        if not same:
            return None
    return tuple(was[place] if place in tie.cleared else text for place, text in enumerate(now))


def rule(world: World, states: States, powers: Powers, decisions: Mapping[Row, Decision] | None = None) -> Ruling:
    """The outcome that decision 10 prescribes for the world's request."""
    case = Case(world, states, powers)
    case.ask()
    case.cascade()
    if case.refused:
        return Ruling(refused=tuple(case.refused))
    case.compare(decisions or {})
    case.decide(decisions or {})
    case.sort_out()
    return case.ruling()
