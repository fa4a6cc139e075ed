"""Lists in pages, both of Neon's ways: a plain cursor, and a cursor with a sort order."""

from __future__ import annotations

import base64
from typing import TypeVar

from runbooks.sandbox.faults import Fault
from runbooks.sandbox.plane import Call, Json
from runbooks.sandbox.records import Branch, Operation, Project

R = TypeVar("R", Project, Operation, Branch)


def page_by_cursor(rows: list[R], call: Call, *, limit: int) -> tuple[list[R], Json]:
    """The page after `cursor`, and `pagination` with the cursor of its last row; empty after the last page."""
    shown = _after(rows, call.query.get("cursor"))[: _limit(call, limit)]
    return shown, {"pagination": {"cursor": shown[-1].id}} if shown else {}


def page_by_sort(rows: list[Branch], call: Call) -> tuple[list[Branch], Json]:
    """The page of branches after `cursor`; `next` is absent on the last one."""
    by = _one_of(call, "sort_by", ("updated_at", "created_at", "name"))
    order = _one_of(call, "sort_order", ("desc", "asc"))
    rows = sorted(rows, key=lambda row: (getattr(row, by), row.id), reverse=order == "desc")
    cursor = call.query.get("cursor")
    rest = _after(rows, _opened(cursor) if cursor else None)
    shown = rest[: _limit(call, 10_000)]
    pagination = {"sort_by": by, "sort_order": order}
    if len(shown) < len(rest):
        pagination["next"] = base64.urlsafe_b64encode(shown[-1].id.encode()).decode()
    return shown, pagination


def _after(rows: list[R], id_: str | None) -> list[R]:
    if not id_:
        return rows
    place = next((place for place, row in enumerate(rows) if row.id == id_), len(rows))
    return rows[place + 1 :]


def _opened(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor).decode()
    except ValueError:
        raise Fault.BAD_QUERY(name="cursor", why="not one of ours") from None


def _limit(call: Call, most: int) -> int:
    text = call.query.get("limit", str(most))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise Fault.BAD_QUERY(name="limit", why=f"a number from 1 to {most}")
    return int(text)


def _one_of(call: Call, name: str, allowed: tuple[str, ...]) -> str:
    value = call.query.get(name, allowed[0])
    if value not in allowed:
        raise Fault.BAD_QUERY(name=name, why=f"one of {', '.join(allowed)}")
    return value
