"""Whether an event matches a JSON pattern of CloudWatch Logs, by AWS's rules for the part of it that is used here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TERM = re.compile(r'\(\$\.([\w.\[\]]+) (?:(=|!=) "([^"]*)"|NOT EXISTS)\)')
_MISSING = object()


def matches(pattern: str, event: Mapping[str, Any]) -> bool:
    """AssertionError for what is no such pattern."""
    assert pattern.startswith("{ ")
    assert pattern.endswith(" }")
    logic = _TERM.sub(lambda term: f" {_holds(term, event)} ", pattern[2:-2])
    logic = logic.replace("&&", " and ").replace("||", " or ")
    assert re.fullmatch(r"(?:True|False|and|or|[()\s])+", logic), f"no pattern: {logic}"
    return bool(eval(logic))  # noqa: S307 - only the words above


def _holds(term: re.Match[str], event: Mapping[str, Any]) -> bool:
    field, operator, wanted = term.groups()
    found = _field(event, field)
    if operator is None:
        return found is _MISSING
    if found is _MISSING or found is None:
        return False  # for != too
    like = re.fullmatch(".*".join(map(re.escape, wanted.split("*"))), str(found)) is not None
    return like is (operator == "=")


def _field(event: Mapping[str, Any], path: str) -> Any:
    found: Any = event
    for name, index in re.findall(r"(\w+)(?:\[(\d+)\])?", path):
        if not isinstance(found, Mapping) or name not in found:
            return _MISSING
        found = found[name]
        if index:
            if not isinstance(found, list) or len(found) <= int(index):
                return _MISSING
            found = found[int(index)]
    return found
