"""Every complaint of pg_restore is harmless for a reason, tolerated for a reason, or a failure. Nothing is ignored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from runbooks.clients.dump_process import Story, without_rows


class Kind(StrEnum):
    HARMLESS = "harmless"
    TOLERATED = "tolerated"
    FAILURE = "failure"
    WARNING = "warning"


@dataclass(frozen=True)
class Complaint:
    kind: Kind
    text: str
    """In one line, without values of rows."""
    reason: str
    """Why it is not a failure; empty if it is one."""


class Toleration(Protocol):
    """As policy.toml's `[[backup.tolerated]]`."""

    @property
    def message(self) -> str: ...
    @property
    def reason(self) -> str: ...


_QUERY = "could not execute query: ERROR: "
HARMLESS: tuple[tuple[str, str], ...] = (
    (
        rf'{_QUERY}unrecognized configuration parameter "(transaction_timeout|idle_session_timeout)"'
        r" Command was: SET \1 = 0;",
        "a newer client lifts a time limit for its own session that this older server does not have (C02)",
    ),
    (
        rf'{_QUERY}schema "public" already exists Command was: CREATE SCHEMA public;',
        "every new database has it",
    ),
)
"""Pattern of the whole complaint, and reason. An error is waved through only if all of it is understood."""

SETTINGS_SINCE = (14, 17)
"""The versions that brought the settings of the first one."""

_SUMMARY = re.compile(r"errors ignored on restore: \d+")


def classify(story: Story, tolerated: Sequence[Toleration]) -> tuple[Complaint, ...]:
    """All that pg_restore complained of."""
    errors = (_error(without_rows(text), tolerated) for text in story.errors)
    told = (Complaint(Kind.WARNING, without_rows(text), "") for text in story.warnings if not _SUMMARY.search(text))
    return (*errors, *told)


def _error(text: str, tolerated: Iterable[Toleration]) -> Complaint:
    for pattern, reason in HARMLESS:
        if re.fullmatch(pattern, text):
            return Complaint(Kind.HARMLESS, text, reason)
    for one in tolerated:
        if one.message in text:
            return Complaint(Kind.TOLERATED, text, one.reason)
    return Complaint(Kind.FAILURE, text, "")
