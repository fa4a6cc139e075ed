"""The preview as a page: whatever the database holds is text on it, and nothing of it is more than text."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.engine.console import printable
from runbooks.engine.plan import Preview, Table
from runbooks.engine.preview_page import LONGEST, keep_page, page
from runbooks.model.errors import LocalFault
from tests.engine.previews import HOSTILE, PLANNED, ZONE, Read, previewed

TEXTS = st.one_of(
    st.text(),
    st.sampled_from(HOSTILE),
    st.lists(st.sampled_from([*"<>&\"'/=!-;# ab1", "script", "&lt", "\u202e", "\x00", "\n"])).map("".join),
)
PLAIN = Read(page(previewed(), ZONE))


@given(TEXTS)
def test_whatever_text_goes_in_is_that_text_on_the_page_and_no_element_or_attribute(text: str) -> None:
    read = Read(page(previewed(text), ZONE))
    assert list(read.shape()) == list(PLAIN.shape())
    shown = printable(text[:LONGEST])
    for tag, times in (("h1", 1), ("li", 2), ("dt", 2), ("dd", 5), ("caption", 2)):
        assert [each.startswith(shown) for each in read.texts(tag)].count(True) >= times, tag
    assert sum(each.startswith(shown) for each in read.texts("div")) >= 2 * 4 + 2
    if len(text) <= LONGEST:
        assert read.texts("h1") == [shown]
        assert read.texts("li") == [shown] * 2
        assert read.attributes("span", "title") == [shown]


@given(TEXTS)
def test_nothing_on_the_page_is_unprintable(text: str) -> None:
    assert all(sign.isprintable() or sign == "\n" for sign in page(previewed(text), ZONE))


def test_the_page_can_run_nothing_load_nothing_and_send_nothing() -> None:
    tags = {tag for tag, _ in PLAIN.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "form", "a", "base", "svg", "button", "input"}
    names = {name for _, attrs in PLAIN.elements for name, _ in attrs}
    assert not [name for name in names if name.startswith("on") or name in ("src", "href", "style", "action")]
    (style,) = PLAIN.texts("style")
    assert "url(" not in style
    assert "@import" not in style
    fingerprint = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{fingerprint}'; base-uri 'none'; form-action 'none'"
    assert PLAIN.meta("Content-Security-Policy") == policy
    assert PLAIN.meta("referrer") == "no-referrer"
    assert PLAIN.others == ["DOCTYPE html"]


def test_a_value_of_a_megabyte_is_cut_and_the_page_says_so() -> None:
    text = page(previewed("ñ" * 1_000_000), ZONE)
    assert len(text) < 200_000
    assert f"{'ñ' * LONGEST} … and {1_000_000 - LONGEST:,} more signs" in text


def test_what_changes_comes_first_then_what_does_not_come_back_and_approval_last() -> None:
    preview = Preview(
        title="bring back", target="12 rows into neondb", facts=(("condition", "id = 1"),),
        tables=(Table(title="sample of clients", head=("row",), rows=(("(1,Ana)",),)),),
        warnings=("2 rows do not come back: in use",), undo="invoke recover.undo",
    )  # fmt: skip
    whole = previewed().model_copy(update={"preview": preview})
    order = (
        "Contains rows of the database; handle accordingly", "bring back", "12 rows into neondb", "1 warning<",
        "do not come back: in use", "id = 1", "sample of clients", "(1,Ana)", "invoke recover.undo",
        "What approving it means", "This page is a copy.", "with the value that the terminal shows",
    )  # fmt: skip
    body = page(whole, ZONE).split("<body>")[1]
    found = [body.index(each) for each in order]
    assert found == sorted(found)


def test_approval_names_run_plan_and_times_here_and_in_utc() -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    given = previewed("prod").model_copy(update={"digest": digest, "run_id": "20251203-143000-k7qx"})
    read = Read(page(given, ZONE))
    assert read.texts("span").count("0123456789ab") == 1
    assert read.attributes("span", "title") == [digest]
    assert digest in read.texts("small")
    assert read.texts("dd").count(PLANNED.both(ZONE)) == 2
    assert "08:30:00.000 CST (2025-12-03 14:30:00.000 UTC)" in PLANNED.both(ZONE)
    assert "20251203-143000-k7qx" in read.texts("dd")


def test_that_no_end_is_known_and_that_there_is_no_warning_is_said() -> None:
    given = previewed(warnings=0)
    endless = given.preview.model_copy(update={"good_until": None})
    text = page(given.model_copy(update={"preview": endless}), ZONE)
    assert "no end is known" in text
    assert "No warnings" in text
    assert Read(text).texts("dd").count(PLANNED.both(ZONE)) == 1


def test_numbers_are_set_to_the_right_and_each_table_has_heads_for_its_columns_and_rows() -> None:
    assert PLAIN.texts("caption") == ["x", "x"]
    heads = [dict(attrs) for tag, attrs in PLAIN.elements if tag == "th"]
    assert [head["scope"] for head in heads] == ["col"] * 6 + ["row"] * 2 + ["col"]
    assert [index for index, head in enumerate(heads) if head.get("class") == "number"] == [2, 4]
    cells = [dict(attrs).get("class") for tag, attrs in PLAIN.elements if tag == "td"]
    assert cells == [None, "number", None, "number", None] * 2 + [None] * 2


def test_the_page_is_kept_for_its_owner_alone_and_written_again_as_it_was(tmp_path: Path) -> None:
    path = keep_page(previewed(), tmp_path, ZONE)
    first = path.read_bytes()
    path.write_text("half a pa")  # what a kill leaves is replaced
    assert keep_page(previewed(), tmp_path, ZONE) == path
    assert path.read_bytes() == first == (page(previewed(), ZONE) + "\n").encode()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["preview.html"]


def test_a_page_that_cannot_be_kept_stops_the_run_before_it_asks(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalFault, match=re.escape("preview.html")):
        keep_page(previewed(), tmp_path / "file", ZONE)
