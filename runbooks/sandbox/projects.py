"""Projects: create, list, change, delete, recover."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from runbooks.model.moment import Moment
from runbooks.sandbox import answers, computes, contents, fork, history, names, roles, timelines
from runbooks.sandbox.faults import Fault
from runbooks.sandbox.jobs import Task
from runbooks.sandbox.paging import page_by_cursor
from runbooks.sandbox.plane import Answer, Body, Call, Json, Plane, operations_json
from runbooks.sandbox.records import (
    REGION,
    Branch,
    Database,
    Endpoint,
    Operation,
    Password,
    Project,
    Role,
    Row,
    Snapshot,
    Timeline,
)

LONGEST_RETENTION = 30 * 86_400
"""Of the Scale plan, the largest there is."""


class Settings(Body):
    enable_logical_replication: bool | None = None
    allowed_ips: dict[str, object] | None = None
    maintenance_window: dict[str, object] | None = None
    block_public_connections: bool | None = None
    quota: dict[str, object] | None = None


class FirstBranch(Body):
    name: str | None = None
    role_name: str | None = None
    database_name: str | None = None


class NewProject(Body):
    name: str | None = None
    settings: Settings = Settings()
    branch: FirstBranch = FirstBranch()
    region_id: str | None = None
    pg_version: int | None = None
    store_passwords: bool = True
    history_retention_seconds: Annotated[int, Field(ge=0)] = 86_400
    org_id: str | None = None
    default_endpoint_settings: dict[str, object] = Field(default_factory=dict)
    autoscaling_limit_min_cu: float | None = None
    autoscaling_limit_max_cu: float | None = None
    provisioner: str | None = None


class Create(Body):
    project: NewProject


class Changes(Body):
    name: str | None = None
    settings: Settings = Settings()
    history_retention_seconds: Annotated[int | None, Field(ge=0)] = None
    default_endpoint_settings: dict[str, object] = Field(default_factory=dict)


class Update(Body):
    project: Changes


def create(plane: Plane, call: Call) -> Answer:
    wish = call.read(Create).project
    if wish.pg_version not in (None, plane.servers.pg_version) or not wish.store_passwords:
        raise Fault.NOT_PART(what=f"PostgreSQL {wish.pg_version}, or a project that stores no passwords,")
    return 201, start(plane, wish)


def start(plane: Plane, wish: NewProject) -> Json:
    """Make a project with its first branch; the answer of the API. It is usable when its operations are over."""
    _check_retention(wish.history_retention_seconds)
    now = plane.clock()
    id_ = names.project_id()
    project = Project(
        id=id_, name=wish.name or id_, org_id=wish.org_id, region=wish.region_id or REGION,
        created_at=now, updated_at=now, history_retention_seconds=wish.history_retention_seconds,
        pg_version=plane.servers.pg_version, settings=_settings(wish.settings),
        logical_replication=bool(wish.settings.enable_logical_replication),
    )  # fmt: skip
    branch, endpoint = _first_branch(project, wish.branch, now)
    plane.ledger.commit(project, branch, endpoint)
    operations = plane.jobs.schedule(
        project.id,
        [
            Task("create_timeline", lambda: _fill(plane, branch), branch.id),
            computes.starting(plane, endpoint),
        ],
        give_up=lambda: purge(plane, project.id),
    )
    role, database = branch.roles[0], branch.databases[0]
    connection = answers.connection(endpoint, role=role.name, password=role.password or "", database=database.name)
    return {
        "project": answers.project(project),
        "connection_uris": [connection],
        "roles": [answers.role(role, branch.id, password=role.password)],
        "databases": [answers.database(database, branch.id)],
        "operations": operations_json(operations),
        "branch": answers.branch(branch),
        "endpoints": [plane.endpoint_json(endpoint)],
    }


def list_all(plane: Plane, call: Call) -> Answer:
    """All projects; with `recoverable=true` those that were deleted and can still be brought back."""
    recoverable, now = call.flag("recoverable"), plane.clock()
    search, org = call.query.get("search", ""), call.query.get("org_id")
    rows = [
        project
        for project in reversed(plane.ledger.state.projects.values())
        if (is_recoverable(project, now) if recoverable else project.deleted_at is None)
        and (search in project.name or search in project.id)
        and org in (None, project.org_id)
    ]
    shown, pagination = page_by_cursor(rows, call, limit=400)
    items = [answers.project_item(project) for project in shown]
    return 200, {"projects": items, "applications": {}, "integrations": {}} | pagination


def show(plane: Plane, call: Call) -> Answer:
    return 200, {"project": answers.project(plane.ledger.project(call.project_id))}


def update(plane: Plane, call: Call) -> Answer:
    wish = call.read(Update).project
    with plane.jobs.admission(call.project_id):
        project = plane.ledger.project(call.project_id)
        fields: dict[str, object] = {
            "updated_at": plane.clock(),
            "settings": project.settings | _settings(wish.settings),
        }
        if wish.name is not None:
            fields["name"] = wish.name
        if wish.history_retention_seconds is not None:
            _check_retention(wish.history_retention_seconds)
            fields["history_retention_seconds"] = wish.history_retention_seconds
        logical = wish.settings.enable_logical_replication
        if logical is False and project.logical_replication:
            raise Fault.NO_REPLICATION_OFF()
        operations: tuple[Operation, ...] = ()
        turned_on = bool(logical) and not project.logical_replication
        project = plane.ledger.change(project, **fields, logical_replication=project.logical_replication or turned_on)
        if turned_on:
            operations = _restart_computes(plane, project.id)
        return 200, {"project": answers.project(project), "operations": operations_json(operations)}


def delete(plane: Plane, call: Call) -> Answer:
    with plane.jobs.admission(call.project_id):
        project = plane.ledger.project(call.project_id)
        rows = list(plane.ledger.of(Branch, project.id))
        if any(branch.protected for branch in rows):
            raise Fault.DELETE_PROTECTED_PROJECT()
        project = plane.ledger.change(project, deleted_at=plane.clock(), updated_at=plane.clock())
        with plane.jobs.at_rest(project.id):
            for branch in rows:
                plane.servers.stop(branch.timeline_id)
        return 200, {"project": answers.project(project)}


def recover(plane: Plane, call: Call) -> Answer:
    with plane.jobs.admission(call.project_id):
        project = plane.ledger.get(Project, call.project_id)
        if project.deleted_at is None:
            raise Fault.NOT_DELETED(name=project.name)
        if not is_recoverable(project, plane.clock()):
            raise Fault.RECOVERY_OVER(name=project.name)
        project = plane.ledger.change(project, deleted_at=None, updated_at=plane.clock())
        _restart_computes(plane, project.id)
        rows = plane.ledger.of(Branch, project.id)
        return 200, {"project": answers.project(project), "branches": [answers.branch(row) for row in rows]}


def is_recoverable(project: Project, now: Moment) -> bool:
    return project.deleted_at is not None and now.utc <= project.deleted_at.utc + answers.RECOVERABLE_FOR


def purge(plane: Plane, project_id: str) -> None:
    """Remove a project and everything of it. The caller holds the project at rest, or is its job."""
    of = plane.ledger.of
    rows: list[Row] = [plane.ledger.get(Project, project_id), *of(Branch, project_id), *of(Endpoint, project_id)]
    plane.ledger.commit(drop=[*rows, *of(Timeline, project_id), *of(Snapshot, project_id)])
    timelines.clear(plane, project_id)
    history.discard(plane.servers.folder(project_id))


def _first_branch(project: Project, wish: FirstBranch, now: Moment) -> tuple[Branch, Endpoint]:
    owner = Role(
        name=wish.role_name or roles.OWNER, created_at=now, updated_at=now,
        passwords=(Password(text=names.password(), since=now),),
    )  # fmt: skip
    database = Database(id=0, name=wish.database_name or roles.DATABASE, owner_name=owner.name, created_at=now)
    branch = Branch(
        id=names.branch_id(), project_id=project.id, name=wish.name or "main", created_at=now, updated_at=now,
        state_changed_at=now, timeline_id=names.timeline_id(), default=True, roles=(owner,), databases=(database,),
    )  # fmt: skip
    return branch, computes.new(computes.Options(type="read_write"), branch, now)


def _fill(plane: Plane, branch: Branch) -> None:
    (owner,), (database,) = branch.roles, branch.databases

    def arrange(session: fork.Session) -> fork.Fields:
        roles.create_role(session, owner.name, owner.password)
        roles.create_database(session, database.name, owner.name)
        return contents.read(plane, session, branch.roles, branch)

    timeline, fields = fork.found(plane.servers, branch.timeline_id, branch.project_id, arrange=arrange)
    ready = fields | {"current_state": "ready", "state_changed_at": plane.clock()}
    plane.ledger.commit(timeline, branch.model_copy(update=ready))


def _restart_computes(plane: Plane, project_id: str) -> tuple[Operation, ...]:
    """Restart what shall run, with the settings of now. On Neon the next connection would start it."""

    def restart(endpoint: Endpoint) -> None:
        plane.servers.stop(plane.ledger.get(Branch, endpoint.branch_id).timeline_id)
        computes.start(plane, endpoint.id)

    def task(endpoint: Endpoint) -> Task:
        return Task("start_compute", lambda: restart(endpoint), endpoint.branch_id, endpoint.id)

    wanted = [endpoint for endpoint in plane.ledger.of(Endpoint, project_id) if endpoint.wanted]
    return plane.jobs.schedule(project_id, [task(endpoint) for endpoint in wanted])


def _settings(wish: Settings) -> dict[str, object]:
    kept = wish.model_dump(exclude_none=True)
    kept.pop("enable_logical_replication", None)
    return kept


def _check_retention(seconds: int) -> None:
    if seconds > LONGEST_RETENTION:
        raise Fault.RETENTION_TOO_LONG()
