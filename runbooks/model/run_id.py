"""The id of one run. Every name a run gives to something (branch, session, file) is derived from it, here."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from runbooks.model.errors import UsageFault

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # no i, l, o, 0, 1: it is read aloud and typed in a hurry
_FORM = re.compile(r"\d{8}-\d{6}-[a-z2-9]{4}(-\d{1,2})?", re.ASCII)


@dataclass(frozen=True, order=True)
class RunId:
    """`20251203-143000-k7qx`: when the run was opened (UTC) and four random letters; sorts by time."""

    text: str

    @classmethod
    def new(cls, now: datetime) -> RunId:
        letters = "".join(secrets.choice(_ALPHABET) for _ in range(4))
        return cls(f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{letters}")

    @classmethod
    def parse(cls, text: str) -> RunId:
        """The inverse of `str()`. Raises UsageFault for anything else, path tricks included."""
        if not _FORM.fullmatch(text.strip()):
            raise UsageFault(
                f"{text!r} is not a run id; one looks like 20251203-143000-k7qx",
                safe="nothing was started",
                next_step="invoke run.list",
            )
        return cls(text.strip())

    @classmethod
    def is_one(cls, text: str) -> bool:
        """Whether it is spelled exactly as the id of a run."""
        return _FORM.fullmatch(text) is not None

    def nested(self, number: int) -> RunId:
        """The id of the run that this run starts as its own part; the same on every resume."""
        return RunId(f"{self.text}-{number}")

    @property
    def branch_name(self) -> str:
        """The exact name of the recovery branch of this run."""
        return f"bloom-dr-{self.text}"

    def probe_name(self, number: int) -> str:
        """The exact name of the branch that a search asks its question `number` on."""
        return f"{self.branch_name}-probe-{number}"

    def __str__(self) -> str:
        return self.text
