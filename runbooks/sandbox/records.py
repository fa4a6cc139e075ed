"""What the sandbox knows, as frozen records: projects, branches, computes, timelines, snapshots, operations.

A branch is a name; its data is a timeline, as on Neon. An in-place restore gives the branch another timeline, and the
preserved branch gets the old one: the swap is one write of the state file, so there is no half of it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from runbooks.model.moment import Moment

REGION = "sandbox-localhost"


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Base(Record):
    """A full copy of a timeline's files, from which recovery starts."""

    number: int
    start_lsn: int
    """WAL is needed from here on."""
    stop_lsn: int
    stop_at: Moment
    """The base serves moments from here on, never earlier ones: PostgreSQL would silently answer with newer data."""
    settled_at: Moment
    """A moment at or before which the last commit before the base happened."""


class Timeline(Record):
    id: str
    project_id: str
    began_at: Moment
    """Its history serves moments from here on."""
    began_lsn: int
    origin_id: str | None = None
    """The timeline it was forked from, at `began_at`; None for a project's first."""
    bases: tuple[Base, ...] = ()


class Password(Record):
    text: str = Field(repr=False)
    since: Moment


class Role(Record):
    name: str
    created_at: Moment
    updated_at: Moment
    login: bool = True
    passwords: tuple[Password, ...] = Field(default=(), repr=False)
    """All that the API ever gave it, newest first: a branch of the past has the one of that time."""

    def password_at(self, moment: Moment) -> str | None:
        return next((each.text for each in self.passwords if each.since <= moment), None)

    @property
    def password(self) -> str | None:
        return self.passwords[0].text if self.passwords else None


class Database(Record):
    id: int
    name: str
    owner_name: str
    created_at: Moment


class Project(Record):
    id: str
    name: str
    org_id: str | None = None
    created_at: Moment
    updated_at: Moment
    history_retention_seconds: int
    pg_version: int
    region: str = REGION
    """As it was asked for, though all of it is here."""
    logical_replication: bool = False
    settings: dict[str, object] = Field(default_factory=dict)
    deleted_at: Moment | None = None

    @property
    def history_retention(self) -> timedelta:
        return timedelta(seconds=self.history_retention_seconds)


class Branch(Record):
    id: str
    project_id: str
    name: str
    created_at: Moment
    updated_at: Moment
    state_changed_at: Moment
    timeline_id: str
    current_state: Literal["init", "resetting", "ready"] = "init"
    parent_id: str | None = None
    parent_lsn: int | None = None
    parent_timestamp: Moment | None = None
    default: bool = False
    protected: bool = False
    expires_at: Moment | None = None
    ttl_interval_seconds: int | None = None
    last_reset_at: Moment | None = None
    backup_of: str | None = None
    """The branch whose state before a restore from its own history this one keeps; such a root may be deleted."""
    restored_from: str | None = None
    restored_as: str | None = None
    restore_status: Literal["restored", "finalized"] | None = None
    annotation: dict[str, str] = Field(default_factory=dict)
    roles: tuple[Role, ...] = ()
    databases: tuple[Database, ...] = ()
    logical_size: int = 0
    schedule: tuple[dict[str, object], ...] = ()

    def role(self, name: str) -> Role | None:
        return next((role for role in self.roles if role.name == name), None)

    def database(self, name: str) -> Database | None:
        return next((database for database in self.databases if database.name == name), None)


class Endpoint(Record):
    id: str
    project_id: str
    branch_id: str
    port: int
    created_at: Moment
    updated_at: Moment
    wanted: bool = True
    """Whether its server shall run: false while suspended or disabled."""
    disabled: bool = False
    name: str | None = None
    min_cu: float = 0.25
    max_cu: float = 2
    suspend_timeout_seconds: int = 0
    started_at: Moment | None = None
    suspended_at: Moment | None = None


class Snapshot(Record):
    id: str
    project_id: str
    name: str
    source_branch_id: str
    timeline_id: str
    created_at: Moment
    lsn: int | None = None
    timestamp: Moment | None = None
    expires_at: Moment | None = None
    ready: bool = False
    roles: tuple[Role, ...] = ()
    databases: tuple[Database, ...] = ()


class Operation(Record):
    id: str
    project_id: str
    branch_id: str | None = None
    endpoint_id: str | None = None
    action: str
    status: Literal["scheduling", "running", "finished", "failed", "cancelled"] = "scheduling"
    error: str | None = None
    created_at: Moment
    updated_at: Moment
    duration_ms: int = 0

    @property
    def is_over(self) -> bool:
        return self.status in ("finished", "failed", "cancelled")


Row = Project | Branch | Endpoint | Timeline | Snapshot | Operation
