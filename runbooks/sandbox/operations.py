"""Reading operations."""

from __future__ import annotations

from runbooks.sandbox import answers
from runbooks.sandbox.paging import page_by_cursor
from runbooks.sandbox.plane import Answer, Call, Plane, operations_json
from runbooks.sandbox.records import Operation


def list_all(plane: Plane, call: Call) -> Answer:
    """Newest first."""
    plane.ledger.project(call.project_id)
    rows = list(plane.ledger.of(Operation, call.project_id))[::-1]
    shown, pagination = page_by_cursor(rows, call, limit=1000)
    return 200, {"operations": operations_json(tuple(shown))} | pagination


def show(plane: Plane, call: Call) -> Answer:
    plane.ledger.project(call.project_id)
    row = plane.ledger.owned(Operation, call.project_id, call.path["operation_id"])
    return 200, {"operation": answers.operation(row)}
