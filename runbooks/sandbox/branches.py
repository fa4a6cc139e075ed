"""Branches: create at a point, list, rename, protect, expire, delete."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from runbooks.model.moment import Moment
from runbooks.sandbox import answers, computes, contents, fork, names, timelines
from runbooks.sandbox.faults import Fault
from runbooks.sandbox.jobs import Task
from runbooks.sandbox.paging import page_by_sort
from runbooks.sandbox.plane import Answer, Body, Call, Json, Plane, operations_json
from runbooks.sandbox.records import Branch, Endpoint, Operation
from runbooks.sandbox.window import Place, locate, read_expiry


class NewBranch(Body):
    parent_id: str | None = None
    name: str | None = None
    parent_lsn: str | None = None
    parent_timestamp: str | None = None
    protected: bool = False
    archived: bool = False
    init_source: str = "parent-data"
    expires_at: str | None = None


class Create(Body):
    branch: NewBranch = NewBranch()
    endpoints: tuple[computes.Options, ...] = Field(default=(), strict=False)
    annotation_value: dict[str, str] = Field(default_factory=dict)


class Change(Body):
    name: str | None = None
    protected: bool | None = None
    expires_at: str | None = None


class Update(Body):
    branch: Change


def create(plane: Plane, call: Call) -> Answer:
    body = call.read(Create)
    wish = body.branch
    if wish.init_source != "parent-data" or wish.archived:
        raise Fault.NOT_PART(what=f"a branch with init_source {wish.init_source}, or archived,")
    if len(body.endpoints) > 1:
        raise Fault.SECOND_COMPUTE(name=wish.name)
    plane.ledger.project(call.project_id)
    with plane.jobs.admission(call.project_id):
        parent = _parent(plane, call.project_id, wish.parent_id)
        place = locate(plane, parent, timestamp=wish.parent_timestamp, lsn=wish.parent_lsn)
        branch = _new_branch(plane, parent, place, wish, body.annotation_value)
        endpoints = [computes.new(options, branch, plane.clock()) for options in body.endpoints]
        plane.ledger.commit(branch, *endpoints)
        operations = plane.jobs.schedule(
            call.project_id,
            [
                Task("create_branch", lambda: _fill(plane, branch.id, place), branch_id=branch.id),
                *(computes.starting(plane, each) for each in endpoints),
            ],
            give_up=lambda: _forget(plane, branch.id),
        )
    return 201, _created(plane, branch, endpoints) | {"operations": operations_json(operations)}


def list_all(plane: Plane, call: Call) -> Answer:
    plane.ledger.project(call.project_id)
    now = plane.clock()
    search = call.query.get("search", "")
    rows = [
        branch
        for branch in plane.ledger.of(Branch, call.project_id)
        # One that has expired is gone, even when its removal still waits for another operation.
        if (search in branch.name or search in branch.id) and not _has_expired(branch, now)
    ]
    shown, pagination = page_by_sort(rows, call)
    return 200, {
        "branches": [answers.branch(branch) for branch in shown],
        "annotations": {branch.id: answers.annotation(branch) for branch in shown if branch.annotation},
        "pagination": pagination,
    }


def show(plane: Plane, call: Call) -> Answer:
    branch = plane.branch(call)
    return 200, {"branch": answers.branch(branch), "annotation": answers.annotation(branch)}


def update(plane: Plane, call: Call) -> Answer:
    wish = call.read(Update).branch
    with plane.jobs.admission(call.project_id):
        branch = plane.branch(call)
        now = plane.clock()
        fields: dict[str, object] = {"updated_at": now}
        if wish.name is not None:
            plane.require_free_name(branch.project_id, wish.name, but=branch)
            fields["name"] = wish.name
        protected = branch.protected if wish.protected is None else wish.protected
        fields["protected"] = protected
        if "expires_at" in wish.model_fields_set:
            fields |= _expiry(plane, branch, protected, wish.expires_at, now)
        elif protected and branch.expires_at is not None:
            raise Fault.EXPIRY_FORBIDDEN(kind="protected")
        return 200, {"branch": answers.branch(plane.ledger.change(branch, **fields)), "operations": []}


def delete(plane: Plane, call: Call) -> Answer:
    plane.ledger.project(call.project_id)
    if plane.ledger.find(Branch, call.path["branch_id"]) is None:
        return 204, None
    with plane.jobs.admission(call.project_id):
        branch = plane.branch(call)
        require_deletable(plane, branch)
        return 200, {"branch": answers.branch(branch), "operations": operations_json(remove(plane, branch))}


def require_deletable(plane: Plane, branch: Branch) -> None:
    """ApiFault 422 with the rule that forbids it."""
    if branch.protected:
        raise Fault.DELETE_PROTECTED()
    if branch.default:
        raise Fault.DELETE_DEFAULT()
    if plane.ledger.children(branch):
        raise Fault.DELETE_PARENT()
    if branch.parent_id is None and branch.backup_of is None and branch.restore_status != "restored":
        raise Fault.DELETE_ROOT()


def remove(plane: Plane, branch: Branch) -> tuple[Operation, ...]:
    """Schedule the removal of a branch that may be deleted. The caller holds the project's admission."""
    tasks = [
        Task("suspend_compute", lambda: plane.servers.stop(branch.timeline_id), branch.id, each.id)
        for each in plane.ledger.of(Endpoint, branch.project_id)
        if each.branch_id == branch.id
    ]
    tasks.append(Task("delete_timeline", lambda: _forget(plane, branch.id), branch.id))
    return plane.jobs.schedule(branch.project_id, tasks)


def remove_expired(plane: Plane, project_id: str) -> None:
    """Remove branches past their time, the leaves first. While another operation runs they wait."""
    now = plane.clock()
    for branch in list(plane.ledger.of(Branch, project_id)):
        if _has_expired(branch, now) and not plane.jobs.is_busy(project_id) and not plane.ledger.children(branch):
            with plane.jobs.admission(project_id):
                remove(plane, branch)


def _parent(plane: Plane, project_id: str, id_: str | None) -> Branch:
    parent = plane.ledger.owned(Branch, project_id, id_) if id_ else plane.ledger.default_branch(project_id)
    if parent.expires_at is not None:
        raise Fault.EXPIRING_PARENT()
    return parent


def _new_branch(plane: Plane, parent: Branch, place: Place, wish: NewBranch, annotation: Mapping[str, str]) -> Branch:
    now = plane.clock()
    id_ = names.branch_id()
    if wish.name is not None:
        plane.require_free_name(parent.project_id, wish.name)
    branch = Branch(
        id=id_, project_id=parent.project_id, name=wish.name or id_, created_at=now, updated_at=now,
        state_changed_at=now, timeline_id=names.timeline_id(), parent_id=parent.id, protected=wish.protected,
        parent_timestamp=place.point.at if place.point else now, annotation=dict(annotation),
        roles=contents.roles_of_child(parent, place.point.at if place.point else None, now),
        databases=parent.databases,
    )  # fmt: skip
    if wish.expires_at is None:
        return branch
    return branch.model_copy(update=_expiry(plane, branch, wish.protected, wish.expires_at, now))


def _expiry(plane: Plane, branch: Branch, protected: bool, text: str | None, now: Moment) -> dict[str, object]:
    if text is None:
        return {"expires_at": None, "ttl_interval_seconds": None}
    kinds = {"default": branch.default, "protected": protected, "parent": bool(plane.ledger.children(branch))}
    for kind, is_one in kinds.items():
        if is_one:
            raise Fault.EXPIRY_FORBIDDEN(kind=kind)
    at = read_expiry(text, now)
    return {"expires_at": at, "ttl_interval_seconds": round((at.utc - now.utc).total_seconds())}


def _has_expired(branch: Branch, now: Moment) -> bool:
    return branch.expires_at is not None and branch.expires_at <= now


def _fill(plane: Plane, branch_id: str, place: Place) -> None:
    """Recover the parent at the place into the new branch's timeline."""
    branch = plane.ledger.get(Branch, branch_id)
    parent = plane.ledger.get(Branch, branch.parent_id)

    def arrange(session: fork.Session) -> fork.Fields:
        if parent.protected:
            contents.set_passwords(session, branch.roles)
        return contents.read(plane, session, branch.roles if parent.protected else parent.roles, parent)

    forked = fork.fork(plane.servers, place.timeline, place.point, branch.timeline_id, arrange=arrange)
    plane.ledger.commit(forked.timeline, contents.adopt(plane, branch, forked))


def _forget(plane: Plane, branch_id: str) -> None:
    branch = plane.ledger.get(Branch, branch_id)
    endpoints = [each for each in plane.ledger.of(Endpoint, branch.project_id) if each.branch_id == branch_id]
    plane.servers.stop(branch.timeline_id)
    plane.ledger.commit(drop=(branch, *endpoints))
    timelines.clear(plane, branch.project_id)


def _created(plane: Plane, branch: Branch, endpoints: list[Endpoint]) -> Json:
    answer: Json = {
        "branch": answers.branch(branch),
        "endpoints": [plane.endpoint_json(each) for each in endpoints],
        "roles": [answers.role(role, branch.id) for role in branch.roles],
        "databases": [answers.database(each, branch.id) for each in branch.databases],
    }
    if endpoints and len(branch.roles) == len(branch.databases) == 1 and branch.roles[0].password:
        answer["connection_uris"] = [
            answers.connection(
                endpoints[0],
                role=branch.roles[0].name,
                password=branch.roles[0].password,
                database=branch.databases[0].name,
            )
        ]
    return answer
