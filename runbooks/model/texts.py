"""Forms of text in the policy file. Each check says what the text is not, and never quotes it: it may be a secret."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from runbooks.model.dsn import is_this_machine


def matching(pattern: str, what: str) -> AfterValidator:
    """The whole text matches `pattern`; `what` ends the sentence "is not ..."."""
    form = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if not form.fullmatch(text):
            raise ValueError(f"is not {what}")
        return text

    return AfterValidator(check)


def one_of(*words: str) -> BeforeValidator:
    """For a Literal of texts: says which words there are."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value not in words:
            raise ValueError(f"is not one of {listed(words)}")
        return value

    return BeforeValidator(check)


def listed(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def service_url(example: str, why: str) -> AfterValidator:
    """A URL without user, query or slash at the end; encrypted, unless it stays on this machine. `why` says what
    would cross the network unencrypted."""

    def check(text: str) -> str:
        found = re.fullmatch(
            r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?((?:/[\w.~-]+)*)/?", text, re.ASCII
        )
        if found is None:
            raise ValueError(f"is not a URL such as {example}")
        if found[1] == "http" and not is_this_machine(found[2].strip("[]")):
            raise ValueError(f"has to start with https://, or {why} would cross the network unencrypted")
        return text.removesuffix("/")

    return AfterValidator(check)


def _line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("is not a line of text")
    return text


Words = Annotated[str, AfterValidator(_line)]
