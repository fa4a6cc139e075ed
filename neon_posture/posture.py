"""The settings of a project that a recovery stands on: what is wanted, and what is held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runbooks.model.texts import matching, service_url

Properties = Mapping[str, Any]
"""As Pulumi carries them: every number may come as a float."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Time(_Part):
    """One line of a snapshot schedule; times are UTC."""

    frequency: Literal["daily", "weekly", "monthly"]
    hour: Annotated[int, Field(ge=0, le=23)]
    day: Annotated[int, Field(ge=1, le=31)] | None = None
    retention_seconds: Annotated[int, Field(ge=3600, le=3_024_000)]
    """35 days are Neon's longest. Never left out: Neon would fill it in, and the next `up` find a difference (C26)."""


class Posture(_Part):
    """The inputs of one resource, checked."""

    api: Annotated[str, service_url("https://console.neon.tech/api/v2", "the API key")]
    api_key_env: Annotated[str, matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")]
    project: Annotated[str, matching(r"[a-z0-9-]{1,60}", "a Neon project id")]
    branch: Annotated[str, matching(r"br-[a-z0-9-]{1,57}", "a branch id")] | None = None
    """None: the project's default branch, whichever that is."""
    history_seconds: Annotated[int, Field(ge=3600, le=2_592_000)]
    """At least. A longer window is left as it is: to shorten it throws away what nobody can bring back, and is done by
    a person in the Neon Console, never as a by-product of `pulumi up`."""
    protected: Annotated[bool, Field(strict=True)]
    snapshots: tuple[Time, ...]
    """Empty: Neon takes none by itself."""
    logical_replication: Annotated[bool, Field(strict=True)]
    region: str | None = None
    """Where the project has to be; None: wherever it is."""
    pg_version: int | None = None

    def as_inputs(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True)

    def impossible(self, held: Properties) -> dict[str, str]:
        """Field to reason, for what Neon cannot take back from `held`. Pure."""
        if held.get("logical_replication") and not self.logical_replication:
            why = "it is on, and Neon cannot switch it off again; set logical_replication = true in the policy"
            return {"logical_replication": why}
        return {}

    def differs(self, held: Properties) -> list[str]:
        """The inputs that `held` does not fulfil. Pure."""
        wanted = self.as_inputs()
        if (kept := held.get("history_seconds")) is not None and kept >= self.history_seconds:
            wanted["history_seconds"] = kept
        names = sorted(set(wanted) | (set(type(self).model_fields) & set(held)))
        return [name for name in names if _comparable(wanted.get(name)) != _comparable(held.get(name))]


def problems(inputs: Properties, unknown: Sequence[str]) -> dict[str, str]:
    """Field to what is wrong with it; empty: usable. Fields in `unknown` get their values later. Pure."""
    try:
        Posture.model_validate(inputs)
    except ValidationError as error:
        told = {_place(each["loc"]): each["msg"].removeprefix("Value error, ") for each in error.errors()}
        return {place: why for place, why in told.items() if place.split(".")[0] not in unknown}
    return {}


def _comparable(value: Any) -> Any:
    """Whatever the order of a schedule; 3.0 and 3 are equal anyway."""
    return sorted(value, key=lambda each: sorted(each.items())) if isinstance(value, list | tuple) else value


def _place(parts: Sequence[int | str]) -> str:
    return ".".join(map(str, parts))
