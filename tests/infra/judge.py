"""Whether AWS would allow one concrete request: a small evaluator, so that a wrong proof would be noticed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]
_OPERATORS = {
    "StringEquals": lambda found, wanted: found in wanted,
    "StringNotEquals": lambda found, wanted: found not in wanted,
    "StringLike": lambda found, wanted: any(like(each, found) for each in wanted),
    "ArnLike": lambda found, wanted: any(like(each, found) for each in wanted),
    "ArnEquals": lambda found, wanted: any(like(each, found) for each in wanted),
    "Bool": lambda found, wanted: found in wanted,
    "NumericGreaterThan": lambda found, wanted: any(int(found) > int(each) for each in wanted),
}
_TRUE_WITHOUT_THE_KEY = ("StringNotEquals",)


@dataclass(frozen=True)
class Request:
    action: str
    resource: str
    context: Mapping[str, str]
    """Keys as AWS spells them; one that is missing is not in the request."""


def allowed(
    request: Request, rights: Iterable[Document], boundary: Document | None, resource: Document | None = None
) -> bool:
    """Of an identity in the account that the resource is in. No deny in any of them, and an allow in what is its own
    and in its boundary; our buckets' policies allow nobody here."""
    documents = [*rights, *([boundary] if boundary else []), *([resource] if resource else [])]
    if any(_says("Deny", document, request) for document in documents):
        return False
    bounded = boundary is None or _says("Allow", boundary, request)
    return bounded and any(_says("Allow", document, request) for document in rights)


def _says(effect: str, document: Document, request: Request) -> bool:
    return any(each["Effect"] == effect and _matches(each, request) for each in document["Statement"])


def _matches(statement: Document, request: Request) -> bool:
    return (
        any(like(each, request.action, ignore_case=True) for each in _listed(statement["Action"]))
        and _is_meant(statement, request.resource)
        and all(
            _holds(operator, key, _listed(wanted), request)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _is_meant(statement: Document, resource: str) -> bool:
    if "NotResource" in statement:
        return not any(like(each, resource) for each in _listed(statement["NotResource"]))
    return any(like(each, resource) for each in _listed(statement.get("Resource", "*")))


def _holds(operator: str, key: str, wanted: list[str], request: Request) -> bool:
    if operator == "Null":
        return (key not in request.context) is (wanted == ["true"])
    if key not in request.context:
        return operator in _TRUE_WITHOUT_THE_KEY
    return bool(_OPERATORS[operator](request.context[key], wanted))


def like(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """AWS's wildcards: of ? and * any character is one, a slash too."""
    form = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    return re.fullmatch(form, text, re.DOTALL | (re.IGNORECASE if ignore_case else 0)) is not None


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
