"""What the Neon API answers, as frozen records. Only what recoveries use is kept; unknown fields are ignored.

Field names are Neon's own, so that the API's reference explains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runbooks.model.errors import NeonFault, OutsideWindow
from runbooks.model.moment import Moment

JsonObject = Mapping[str, Any]

SUCCEEDED = frozenset({"finished", "skipped"})
FAILED = frozenset({"failed", "error", "cancelled"})
ENDED = SUCCEEDED | FAILED
"""States an operation ends in; `cancelling` and states not known here count as still running."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)


class ProjectSettings(_Record):
    enable_logical_replication: bool = False
    """Once on, Neon cannot switch it off again."""


class Project(_Record):
    id: str
    name: str
    region_id: str
    pg_version: int
    created_at: Moment
    history_retention_seconds: Annotated[int, Field(ge=0)]
    settings: ProjectSettings = ProjectSettings()

    @property
    def history_retention(self) -> timedelta:
        """How far back Neon keeps history for every branch of the project; zero switches it off."""
        return timedelta(seconds=self.history_retention_seconds)


class RecoverableProject(_Record):
    """A deleted project that Neon can still bring back."""

    id: str
    name: str
    deleted_at: Moment | None = None
    recoverable_until: Moment | None = None


class RestrictedAction(_Record):
    name: str
    reason: str


class Branch(_Record):
    id: str
    project_id: str
    name: str
    parent_id: str | None = None
    parent_timestamp: Moment | None = None
    """The last commit of the parent that the branch holds, as resolved by Neon; may be earlier than what was asked."""
    parent_lsn: str | None = None
    current_state: str
    default: bool
    protected: bool
    created_at: Moment
    last_reset_at: Moment | None = None
    expires_at: Moment | None = None
    restricted_actions: Annotated[tuple[RestrictedAction, ...], Field(strict=False)] = ()

    @property
    def history_begins(self) -> Moment:
        """Where the branch's own history begins: a child has none from before it was made or reset from its parent."""
        if self.parent_id is None or self.last_reset_at is None:
            return self.created_at
        return max(self.created_at, self.last_reset_at)

    def restriction(self, action: str) -> str | None:
        """Why Neon forbids `action` (such as `restore`) on this branch just now, or None."""
        return next((each.reason for each in self.restricted_actions if each.name == action), None)


class Endpoint(_Record):
    """A compute: what one connects to."""

    id: str
    branch_id: str
    host: str
    type: str
    current_state: str
    disabled: bool


class Operation(_Record):
    id: str
    action: str
    status: str
    error: str | None = None


class Database(_Record):
    name: str
    owner_name: str


class Role(_Record):
    """A role of a branch. Its password is asked for on its own, and kept in a Secret."""

    name: str
    protected: bool = False


class Snapshot(_Record):
    id: str
    name: str
    created_at: Moment
    source_branch_id: str | None = None
    timestamp: Moment | None = None
    expires_at: Moment | None = None


class SnapshotTime(_Record):
    """One line of a branch's snapshot schedule. Fields that do not matter for its frequency are None."""

    frequency: str
    """daily, weekly or monthly."""
    hour: int | None = None
    """UTC."""
    day: int | None = None
    month: int | None = None
    retention_seconds: int | None = None
    """None: Neon's longest."""


class Window(_Record):
    """The moments of a branch that Neon can still show: after `earliest`, up to `latest`."""

    earliest: Moment
    latest: Moment
    because: str
    """Why it does not reach further back."""
    zone: str

    @classmethod
    def of(cls, branch: Branch, now: Moment, *, retention: timedelta, zone: str) -> Window:
        """Pure: what the project keeps and what the branch itself has, whichever is shorter."""
        kept_since = Moment.of(now.utc - retention)
        if kept_since >= branch.history_begins:
            because = f"Neon keeps {retention} of history"
            return cls(earliest=kept_since, latest=now, because=because, zone=zone)
        return cls.of_branch(branch, now, zone=zone)

    @classmethod
    def of_branch(cls, branch: Branch, now: Moment, *, zone: str) -> Window:
        """Pure: the branch's own history, whatever the project keeps of it."""
        because = f"the history of branch {branch.name} begins there"
        return cls(earliest=branch.history_begins, latest=now, because=because, zone=zone)

    def check(self, moment: Moment) -> None:
        """Raise OutsideWindow, naming both ends, unless a branch can be made at `moment`."""
        if self.earliest < moment <= self.latest:
            return
        fault = "in the future" if moment > self.latest else "before the history that Neon still holds"
        raise OutsideWindow(
            f"{moment.both(self.zone)} is {fault}; possible are moments after {self.earliest.both(self.zone)} "
            f"({self.because}) up to {self.latest.both(self.zone)}",
            safe="nothing was changed and no branch was made",
            next_step="name a moment inside that range; which backup is the newest from before it: "
            f"invoke backup.list --before {moment.iso()}",
        )


class BranchAt(_Record):
    """A branch that holds a parent's data as it was at a moment, and the compute to read it with."""

    branch: Branch
    endpoint: Endpoint
    asked: Moment
    """To the millisecond, as it was sent."""
    resolved: Moment | None
    """The last commit at or before `asked`, as Neon resolved it. None: Neon does not say, so it is unproved."""
    reused: bool
    """The branch was there already, from an earlier attempt of the same run."""

    @property
    def gap(self) -> timedelta | None:
        """How much earlier than asked the data is; None if Neon does not say."""
        return None if self.resolved is None else self.asked.utc - self.resolved.utc

    @property
    def is_much_earlier(self) -> bool:
        """More than a minute between the asked moment and the last commit: right for a quiet database, else suspect."""
        return self.gap is not None and self.gap > timedelta(minutes=1)


R = TypeVar("R", bound=_Record)


def read(kind: type[R], body: JsonObject, field: str) -> R:
    """The record under `field` of an answer; NeonFault naming the field that is missing or of a wrong type."""
    if field not in body:
        raise _wrong(f"has no {field}")
    return _record(kind, body[field], field)


def read_all(kind: type[R], body: JsonObject, field: str) -> tuple[R, ...]:
    """The list of records under `field`; NeonFault naming the field that is missing or of a wrong type."""
    values = body.get(field)
    if not isinstance(values, list):
        raise _wrong(f"has no list {field}")
    return tuple(_record(kind, value, f"{field}.{place}") for place, value in enumerate(values))


def read_text(body: JsonObject, *path: str) -> str:
    """The text at `path`; NeonFault naming it if it is missing, empty or not a text."""
    value: object = body
    for field in path:
        value = value.get(field) if isinstance(value, Mapping) else None
    if not isinstance(value, str) or not value:
        raise _wrong(f"has no text in {'.'.join(path)}")
    return value


def _record(kind: type[R], value: object, field: str) -> R:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in (field, *first["loc"]))
        why = "not a time" if first["type"] == "value_error" else first["msg"]
        # No cause, and no message of our own types: they quote the value, and values of an answer may be passwords.
        raise _wrong(f"is not usable at {place}: {why}") from None


def _wrong(what: str) -> NeonFault:
    return NeonFault(
        f"Neon's answer {what}",
        safe="nothing was decided from that answer",
        next_step="see whether NEON_API_URL names the Neon API, then run the same command again",
    )
