"""Two inventories are equal, or every difference is told, with what it means for the data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runbooks.model.inventory import (
    Extension,
    Inventory,
    LargeObjects,
    Locale,
    ObjectCount,
    SequenceInventory,
    TableInventory,
    TableKind,
    Weight,
    compare,
)

LOCALE = Locale(encoding="UTF8", provider="libc", collate="C.UTF-8", ctype="C.UTF-8", version="2.36")
NO_ROWS = "md5-sum:0"


def table(name: str, rows: int = 3, content: str = "md5-sum:ab", kind: TableKind = TableKind.TABLE) -> TableInventory:
    return TableInventory(name=name, rows=rows, content=content, kind=kind)


def inventory(**changes: Any) -> Inventory:
    values: dict[str, Any] = {
        "tables": (
            table("public.clients"),
            table("public.waiting_list", 0, NO_ROWS),
            table("public.sums", kind=TableKind.MATERIALIZED_VIEW),
        ),
        "sequences": (SequenceInventory(name="public.clients_id_seq", last_value=3, is_called=True),),
        "extensions": (Extension(name="citext", version="1.6"),),
        "objects": (ObjectCount(name="index", count=4), ObjectCount(name="trigger", count=2)),
        "roles": ("app", "owner"),
        "locale": LOCALE,
        "large_objects": LargeObjects(count=2, content="md5-sum:cd"),
        "row_security": ("public.clients",),
    }
    return Inventory.model_validate(values | changes)


def told(**changes: Any) -> list[str]:
    return [f"{difference.weight}: {difference}" for difference in compare(inventory(), inventory(**changes))]


def tables(*changed: TableInventory) -> tuple[TableInventory, ...]:
    names = {each.name: each for each in inventory().tables} | {each.name: each for each in changed}
    return tuple(names.values())


# C35: no false alarm, no false peace


def test_c35_a_table_that_was_empty_in_the_snapshot_is_rightly_empty() -> None:
    assert compare(inventory(), inventory()) == ()
    assert [each.rows for each in inventory().tables if each.name == "public.waiting_list"] == [0]


def test_c35_a_table_that_was_not_empty_must_not_be_empty() -> None:
    assert told(tables=tables(table("public.clients", 0, NO_ROWS))) == [
        "data: table public.clients: 3 rows expected, 0 rows found"
    ]


def test_c35_rows_where_there_were_none_are_a_difference_too() -> None:
    assert told(tables=tables(table("public.waiting_list", 3))) == [
        "data: table public.waiting_list: 0 rows expected, 3 rows found"
    ]


# Every kind of difference


def test_the_same_number_of_other_rows_is_seen() -> None:
    assert told(tables=tables(table("public.clients", content="md5-sum:ac"))) == [
        "data: table public.clients: content md5-sum:ab expected, content md5-sum:ac found"
    ]


def test_hashes_of_two_algorithms_cannot_be_compared_and_are_never_a_pass() -> None:
    assert told(tables=tables(table("public.clients", content="sha256-sum:ab"))) == [
        "uncompared: table public.clients: content md5-sum:ab expected, content sha256-sum:ab found"
    ]


def test_a_missing_and_an_unexpected_table_are_told() -> None:
    rest = tuple(each for each in inventory().tables if each.name != "public.clients")
    assert told(tables=(*rest, table("public.klients"))) == [
        "data: table public.clients: it expected, nothing found",
        "data: table public.klients: nothing expected, it found",
    ]


def test_a_table_that_became_something_else_is_told() -> None:
    changed = table("public.clients", kind=TableKind.FOREIGN)
    assert told(tables=tables(changed)) == ["data: table public.clients: table expected, foreign table found"]


def test_a_materialized_view_may_hold_other_rows_but_not_none() -> None:
    view = table("public.sums", 9, kind=TableKind.MATERIALIZED_VIEW)
    assert told(tables=tables(view)) == ["surroundings: materialized view public.sums: 3 rows expected, 9 rows found"]
    assert told(unpopulated=("public.sums",)) == [
        "data: materialized view public.sums: data expected, none (never refreshed) found"
    ]
    was_empty = inventory(unpopulated=("public.sums",))
    assert compare(was_empty, was_empty) == compare(was_empty, inventory()) == ()


@pytest.mark.parametrize(("last_value", "is_called"), [(2, True), (4, True), (3, False)])
def test_a_sequence_that_stands_elsewhere_is_told(last_value: int, is_called: bool) -> None:
    moved = SequenceInventory(name="public.clients_id_seq", last_value=last_value, is_called=is_called)
    (line,) = told(sequences=(moved,))
    assert line.startswith("data: sequence public.clients_id_seq: 3 expected, ")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"sequences": ()}, "data: sequence public.clients_id_seq: it expected, nothing found"),
        ({"extensions": ()}, "data: extension citext: version 1.6 expected, nothing found"),
        (
            {"extensions": (Extension(name="citext", version="1.5"),)},
            "surroundings: extension citext: version 1.6 expected, version 1.5 found",
        ),
        ({"objects": (ObjectCount(name="index", count=4),)}, "data: trigger: 2 expected, 0 found"),
        ({"roles": ("owner",)}, "surroundings: role app: it expected, no such role found"),
        ({"large_objects": LargeObjects()}, "data: large objects: 2 expected, 0 found"),
        (
            {"large_objects": LargeObjects(count=2, content="md5-sum:ce")},
            "data: large objects: content md5-sum:cd expected, content md5-sum:ce found",
        ),
        ({"row_security": ()}, "data: row-level security of public.clients: on expected, off found"),
        (
            {"row_security": ("public.clients", "public.waiting_list")},
            "data: row-level security of public.waiting_list: off expected, on found",
        ),
        (
            {"locale": LOCALE.model_copy(update={"version": None})},
            "surroundings: locale version: 2.36 expected, none found",
        ),
    ],
)
def test_each_other_difference_is_told(changes: dict[str, Any], line: str) -> None:
    assert told(**changes) == [line]


def test_what_a_server_has_besides_is_no_difference() -> None:
    extensions = (Extension(name="citext", version="1.6"), Extension(name="neon", version="1.5"))
    assert told(roles=("app", "cloud_admin", "owner"), extensions=extensions, objects=()) == []


# Form


def test_the_order_in_which_a_server_tells_does_not_matter() -> None:
    assert inventory(tables=inventory().tables[::-1], roles=("owner", "app")) == inventory()


@pytest.mark.parametrize(
    "changes",
    [
        {"tables": (table("public.a"), table("public.a"))},
        {"roles": ("a", "a")},
        {"unpopulated": ("public.clients",)},
        {"tables": ({"name": "public.a", "rows": -1, "content": NO_ROWS},)},
        {"tables": ({"name": "public.a", "rows": 1, "content": "deadbeef"},)},
    ],
)
def test_an_inventory_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        inventory(**changes)


def test_rows_of_a_view_are_not_counted_twice() -> None:
    assert inventory().rows == 3


names = st.sampled_from(["public.a", "public.b", 'public."C d"'])
tables_of = st.lists(
    st.builds(table, names, st.integers(0, 3), st.sampled_from(["md5-sum:0", "md5-sum:1", "sha256-sum:1"])),
    unique_by=lambda each: each.name,
    max_size=3,
)
sequences_of = st.lists(
    st.builds(SequenceInventory, name=names, last_value=st.integers(1, 3), is_called=st.booleans()),
    unique_by=lambda each: each.name,
    max_size=3,
)
inventories = st.builds(
    Inventory,
    tables=tables_of.map(tuple),
    sequences=sequences_of.map(tuple),
    row_security=st.sets(names).map(tuple),
    large_objects=st.sampled_from([LargeObjects(), LargeObjects(count=1, content="md5-sum:1")]),
    locale=st.just(LOCALE),
)


@given(inventories, inventories)
def test_exactly_unequal_inventories_differ_and_each_difference_is_seen_from_both_sides(
    one: Inventory, other: Inventory
) -> None:
    there, back = compare(one, other), compare(other, one)
    assert (there == ()) == (one == other)
    assert sorted((each.what, each.name, each.found, each.expected) for each in there) == sorted(
        (each.what, each.name, each.expected, each.found) for each in back
    )
    assert {each.weight for each in there} <= {Weight.DATA, Weight.UNCOMPARED}


@given(inventories)
def test_an_inventory_goes_through_json_unchanged(one: Inventory) -> None:
    assert Inventory.model_validate_json(one.model_dump_json()) == one
