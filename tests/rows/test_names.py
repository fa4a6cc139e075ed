from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.model.errors import UsageFault
from runbooks.rows.names import AskedName, TableName


@pytest.mark.parametrize(
    ("text", "schema", "name"),
    [
        ("reservations", None, "reservations"),
        ("Reservations", None, "reservations"),
        ("public.reservations", "public", "reservations"),
        ('"Invoice Items"', None, "Invoice Items"),
        ('public."Invoice Items"', "public", "Invoice Items"),
        ('"a.b"."c""d"', "a.b", 'c"d'),
        (" public . t ", "public", "t"),
        ("ÄRZTE", None, "Ärzte"),  # the server folds ASCII only
        ("t$1", None, "t$1"),
    ],
)
def test_a_name_is_read_by_the_rules_of_sql(text: str, schema: str | None, name: str) -> None:
    assert AskedName.parse(text) == AskedName(schema, name)


@pytest.mark.parametrize(
    "text", ["", "x; DROP TABLE y", "Invoice Items", "a.b.c", '"', '""', "1a", "a'", "public.", "a\0b", "t" * 64, "x--"]
)
def test_anything_else_is_refused_as_a_name(text: str) -> None:
    with pytest.raises(UsageFault):
        AskedName.parse(text)


PARTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: len(text.encode()) <= 63
)


@given(PARTS, PARTS)
def test_a_table_is_told_so_that_it_can_be_typed_again(schema: str, name: str) -> None:
    assert AskedName.parse(str(TableName(schema, name))) == AskedName(schema, name)
