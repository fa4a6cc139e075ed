"""Frozen records: what a request, a survey, a plan and a step's result are made of, and how they become text."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A fact that does not change. It goes to the journal as JSON and comes back equal; secrets in it are masked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, as the journal and `--json` hold them."""
        return self.model_dump(mode="json")


def canonical(value: Any) -> str:
    """The one spelling of a JSON value that is hashed: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, as `sha256:…` hex."""
    return "sha256:" + hashlib.sha256(canonical(value).encode()).hexdigest()
