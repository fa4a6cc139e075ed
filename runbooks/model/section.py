"""The base of everything that the policy file is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from runbooks.model.nearest import did_you_mean

UNKNOWN_KEYS = "unknown_keys"
"""The type of the pydantic error whose context `problems` has a sentence for each key that is not known."""


class Section(BaseModel):
    """One table of the policy file: frozen, no unknown keys, no guessing of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)

    meaningless: ClassVar[Mapping[str, str]] = {}
    """Keys that exist in a related table but not in this one, with the reason."""

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        known = [field.alias or name for name, field in cls.model_fields.items()]
        unknown = {
            key: cls.meaningless.get(key) or "unknown key" + did_you_mean(key, known) for key in table.keys() - known
        }
        if unknown:
            raise PydanticCustomError(UNKNOWN_KEYS, "unknown keys", {"problems": unknown})
        return table
