"""Reading the policy file, and saying what is wrong with it: which file, which key, what was expected."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from runbooks.model.errors import PolicyFault
from runbooks.model.section import UNKNOWN_KEYS

_WANTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "literal_error": "true or false",
    "time_delta_type": 'a duration such as "30m"',
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dict_type": "a table",
    "tuple_type": "a list",
}
_FOUND = {str: "text", bool: "true or false", int: "a whole number", float: "a number", list: "a list", dict: "a table"}


def read(path: Path) -> dict[str, Any]:
    """The file's content. PolicyFault if it is missing, unreadable or not TOML (with line and column)."""
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text)
    except FileNotFoundError:
        raise _fault(path, ["there is no such file"]) from None
    except OSError as problem:
        raise _fault(path, [f"the file cannot be read ({problem.strerror or problem})"]) from problem
    except UnicodeDecodeError as problem:
        raise _fault(path, [f"the file is not UTF-8 (at octet {problem.start})"]) from problem
    except tomllib.TOMLDecodeError as problem:
        place = f"at the end, line {len(text.splitlines())}"
        raise _fault(path, [f"not valid TOML: {problem}".replace("at end of document", place)]) from problem
    except (ValueError, RecursionError) as problem:  # a number of thousands of digits, a list in a list in a list ...
        raise _fault(path, ["not valid TOML: a value is too long or too deeply nested"]) from problem


def fault(path: Path, error: ValidationError) -> PolicyFault:
    """Everything that pydantic found wrong, as one PolicyFault. No value is quoted: it may be a misplaced secret."""
    problems = [problem for detail in error.errors(include_url=False) for problem in _problems(detail)]
    return _fault(path, problems)


def _problems(detail: ErrorDetails) -> list[str]:
    place = _key_path(detail["loc"])
    context = detail.get("ctx", {})
    if detail["type"] == UNKNOWN_KEYS:
        return [f"{_joined(place, key)}: {why}" for key, why in sorted(context["problems"].items())]
    if detail["type"] == "missing":
        return [f"{place}: is missing"]
    if detail["type"] == "value_error":
        return [f"{place}: {context['error']}" if place else str(context["error"])]
    if detail["type"] in _WANTED:
        found = _FOUND.get(type(detail["input"]), "a date or time")
        return [f"{place}: expected {_WANTED[detail['type']]}, found {found}"]
    return [f"{place}: {detail['msg']}"]


def _key_path(location: tuple[int | str, ...]) -> str:
    """As in the file: without the tag that pydantic adds behind the name of an environment."""
    place = ""
    for depth, part in enumerate(location):
        if isinstance(part, int):
            place += f"[entry {part + 1}]"
        elif not (depth == 2 and location[0] == "environments"):
            place = _joined(place, part)
    return place


def _joined(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _fault(path: Path, problems: list[str]) -> PolicyFault:
    told = problems[0] if len(problems) == 1 else f"{len(problems)} faults\n  " + "\n  ".join(problems)
    return PolicyFault(
        f"{path}: {told}",
        safe="nothing was started",
        next_step="correct the file; the policy.toml that comes with the project explains every key",
    )
