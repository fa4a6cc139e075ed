"""What a database holds, and how two of them differ. Pure; filled by runbooks/clients/inventory.py, in one snapshot.

A restore is compared with the inventory that was taken in the dump's own snapshot, never with the live database: rows
changed since then are no fault of the backup, and a table that was empty then is rightly empty now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from runbooks.model.record import Record


class TableKind(StrEnum):
    TABLE = "table"
    """Ordinary, unlogged, or a partition: it has rows of its own."""
    PARTITIONED = "partitioned table"
    """No rows of its own: 0 rows, and the content of no rows."""
    FOREIGN = "foreign table"
    """Its rows are elsewhere and not in the dump: 0 rows, and the content of no rows."""
    MATERIALIZED_VIEW = "materialized view"
    """Computed anew when it is restored."""


Content = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+:[0-9a-f]+$")]
"""A hash with the name of its algorithm in front. The same rows give the same hash in any order."""
_Count = Annotated[int, Field(ge=0)]


class TableInventory(Record):
    name: str
    """`schema.table`, each part quoted where SQL needs it."""
    kind: TableKind = TableKind.TABLE
    rows: _Count
    content: Content


class SequenceInventory(Record):
    name: str
    last_value: int
    is_called: bool


class Extension(Record):
    name: str
    version: str


class ObjectCount(Record):
    """How many objects of one kind ("index", "trigger", "function", "view", "policy", …) the database has."""

    name: str
    count: _Count


class Locale(Record):
    """How the database writes and sorts text. A difference is told, but is no loss of data."""

    encoding: str
    provider: str
    collate: str
    ctype: str
    locale: str | None = None
    """Of the ICU or builtin provider."""
    version: str | None = None
    """Of the collation library. Indexes on text are only right under the version they were built with."""


class LargeObjects(Record):
    count: _Count = 0
    content: Content | None = None
    """None: there are none."""


def _by_name(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """In one order, so that equal databases have equal inventories. ValueError if a name is there twice."""
    names = Counter(_name(item) for item in items)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"named twice: {', '.join(sorted(twice))}")
    return tuple(sorted(items, key=_name))


def _name(item: Any) -> str:
    return item if isinstance(item, str) else str(item.name)


_ORDERED = AfterValidator(_by_name)
_Names = Annotated[tuple[str, ...], _ORDERED]


class Inventory(Record):
    """Everything that is compared after a restore."""

    tables: Annotated[tuple[TableInventory, ...], _ORDERED]
    sequences: Annotated[tuple[SequenceInventory, ...], _ORDERED] = ()
    extensions: Annotated[tuple[Extension, ...], _ORDERED] = ()
    objects: Annotated[tuple[ObjectCount, ...], _ORDERED] = ()
    """Empty: not counted, and so not compared."""
    roles: _Names = ()
    """The names of the roles that own or may do something in this database."""
    locale: Locale
    large_objects: LargeObjects = LargeObjects()
    row_security: _Names = ()
    """Tables with row-level security switched on."""
    settings: _Names = ()
    """The database's own settings and those of roles in it, as statements without their values. A dump holds none of
    them, so they are not compared: whoever restores is told."""
    unpopulated: _Names = ()
    """Materialized views without data."""

    @model_validator(mode="after")
    def _unpopulated_are_views(self) -> Self:
        views = {table.name for table in self.tables if table.kind is TableKind.MATERIALIZED_VIEW}
        strange = [name for name in self.unpopulated if name not in views]
        if strange:
            raise ValueError(f"unpopulated, but not among the materialized views: {', '.join(strange)}")
        return self

    @property
    def rows(self) -> int:
        """In all tables together."""
        return sum(table.rows for table in self.tables if table.kind is not TableKind.MATERIALIZED_VIEW)


class Weight(StrEnum):
    """What a difference says about the restored database."""

    DATA = "data"
    """It is not what was backed up."""
    UNCOMPARED = "uncompared"
    """Nobody can say: the two were hashed in different ways."""
    SURROUNDINGS = "surroundings"
    """The data is there, on a server that is not quite the same."""


class Difference(Record):
    """One sentence of a comparison: `table public.clients: 3 rows expected, 0 rows found`."""

    weight: Weight
    what: str
    """`table`, `sequence`, `extension`, `large objects`, …"""
    name: str
    """Empty where there is only one of its kind."""
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{' '.join(filter(None, (self.what, self.name)))}: {self.expected} expected, {self.found} found"


def compare(expected: Inventory, found: Inventory) -> tuple[Difference, ...]:
    """How `found` (a restored database) differs from `expected` (the manifest). Empty: they are equal.

    Objects of the server that a restore neither brings nor removes (further roles or extensions) are no difference.
    """
    return (
        *_tables(expected, found),
        *_sequences(expected, found),
        *_large_objects(expected.large_objects, found.large_objects),
        *_object_counts(expected, found),
        *_sets(expected, found),
        *_extensions(expected, found),
        *_locale(expected.locale, found.locale),
    )


def _tables(expected: Inventory, found: Inventory) -> Iterator[Difference]:
    ours, theirs = _index(expected.tables), _index(found.tables)
    yield from _absent("table", Weight.DATA, ours, theirs)
    for name in sorted(ours.keys() & theirs.keys()):
        one, other = ours[name], theirs[name]
        weight = Weight.SURROUNDINGS if one.kind is TableKind.MATERIALIZED_VIEW else Weight.DATA
        if one.kind is not other.kind:
            yield _difference(Weight.DATA, "table", name, one.kind, other.kind)
        elif one.rows != other.rows:
            yield _difference(weight, one.kind, name, f"{one.rows} rows", f"{other.rows} rows")
        else:
            yield from _contents(weight, one.kind, name, one.content, other.content)


def _contents(weight: Weight, what: str, name: str, one: str, other: str) -> Iterator[Difference]:
    if one == other:
        return
    if one.partition(":")[0] != other.partition(":")[0]:
        weight = Weight.UNCOMPARED
    yield _difference(weight, what, name, f"content {one}", f"content {other}")


def _sequences(expected: Inventory, found: Inventory) -> Iterator[Difference]:
    ours, theirs = _index(expected.sequences), _index(found.sequences)
    yield from _absent("sequence", Weight.DATA, ours, theirs)
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name] != theirs[name]:
            yield _difference(Weight.DATA, "sequence", name, _standing(ours[name]), _standing(theirs[name]))


def _standing(sequence: SequenceInventory) -> str:
    return f"{sequence.last_value}{'' if sequence.is_called else ' (not yet used)'}"


def _large_objects(expected: LargeObjects, found: LargeObjects) -> Iterator[Difference]:
    if expected.count != found.count:
        yield _difference(Weight.DATA, "large objects", "", str(expected.count), str(found.count))
    elif expected.count:
        yield from _contents(Weight.DATA, "large objects", "", expected.content or "none:0", found.content or "none:0")


def _object_counts(expected: Inventory, found: Inventory) -> Iterator[Difference]:
    if not (expected.objects and found.objects):
        return
    ours, theirs = ({each.name: each.count for each in side.objects} for side in (expected, found))
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name, 0) != theirs.get(name, 0):
            yield _difference(Weight.DATA, name, "", str(ours.get(name, 0)), str(theirs.get(name, 0)))


def _sets(expected: Inventory, found: Inventory) -> Iterator[Difference]:
    for name in sorted({*expected.row_security} ^ {*found.row_security}):
        sides = ("on", "off") if name in expected.row_security else ("off", "on")
        yield _difference(Weight.DATA, "row-level security of", name, *sides)
    for name in sorted({*found.unpopulated} - {*expected.unpopulated}):
        yield _difference(Weight.DATA, "materialized view", name, "data", "none (never refreshed)")
    for name in sorted({*expected.roles} - {*found.roles}):
        yield _difference(Weight.SURROUNDINGS, "role", name, "it", "no such role")


def _extensions(expected: Inventory, found: Inventory) -> Iterator[Difference]:
    theirs = _index(found.extensions)
    for one in expected.extensions:
        other = theirs.get(one.name)
        if other is None:
            yield _difference(Weight.DATA, "extension", one.name, f"version {one.version}", "nothing")
        elif other.version != one.version:
            told = (f"version {one.version}", f"version {other.version}")
            yield _difference(Weight.SURROUNDINGS, "extension", one.name, *told)


def _locale(expected: Locale, found: Locale) -> Iterator[Difference]:
    for name in Locale.model_fields:
        one, other = getattr(expected, name), getattr(found, name)
        if one != other:
            yield _difference(Weight.SURROUNDINGS, "locale", name, one or "none", other or "none")


def _absent(what: str, weight: Weight, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[Difference]:
    for name in sorted(ours.keys() ^ theirs.keys()):
        yield _difference(weight, what, name, *(("it", "nothing") if name in ours else ("nothing", "it")))


def _index(items: Iterable[Any]) -> dict[str, Any]:
    return {item.name: item for item in items}


def _difference(weight: Weight, what: str, name: str, expected: str, found: str) -> Difference:
    return Difference(weight=weight, what=what, name=name, expected=expected, found=found)
