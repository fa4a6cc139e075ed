"""Roles, databases and connection strings of a branch."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from runbooks.sandbox import answers, contents, names, roles
from runbooks.sandbox.faults import Fault
from runbooks.sandbox.jobs import Task
from runbooks.sandbox.plane import Answer, Body, Call, Json, Plane, operations_json
from runbooks.sandbox.records import Branch, Database, Endpoint, Operation, Password, Role, Timeline


class NewRole(Body):
    name: str
    no_login: bool = False


class CreateRole(Body):
    role: NewRole


class NewDatabase(Body):
    name: str
    owner_name: str


class CreateDatabase(Body):
    database: NewDatabase


def connection_uri(plane: Plane, call: Call) -> Answer:
    plane.ledger.project(call.project_id)
    endpoint = _endpoint(plane, call)
    branch = current(plane, plane.ledger.get(Branch, endpoint.branch_id))
    database, role = _named(call, "database_name"), _role(branch, _named(call, "role_name"))
    if branch.database(database) is None:
        raise Fault.NO_DATABASE(name=database)
    uri = answers.uri(endpoint, role=role.name, password=_password(role), database=database, pooled=call.flag("pooled"))
    return 200, {"uri": uri}


def list_roles(plane: Plane, call: Call) -> Answer:
    branch = current(plane, plane.branch(call))
    return 200, {"roles": [answers.role(role, branch.id) for role in branch.roles]}


def show_role(plane: Plane, call: Call) -> Answer:
    branch = current(plane, plane.branch(call))
    return 200, {"role": answers.role(_role(branch, call.path["role_name"]), branch.id)}


def reveal_password(plane: Plane, call: Call) -> Answer:
    branch = current(plane, plane.branch(call))
    return 200, {"password": _password(_role(branch, call.path["role_name"]))}


def create_role(plane: Plane, call: Call) -> Answer:
    wish = call.read(CreateRole).role
    with plane.jobs.admission(call.project_id):
        branch = current(plane, plane.branch(call))
        if branch.role(wish.name):
            raise Fault.TAKEN(what="role", name=wish.name)
        now = plane.clock()
        passwords = () if wish.no_login else (Password(text=names.password(), since=now),)
        role = Role(name=wish.name, created_at=now, updated_at=now, login=not wish.no_login, passwords=passwords)
        before, branch = branch, plane.ledger.change(branch, roles=(*branch.roles, role))
        operations = _apply(plane, before, branch, lambda session: roles.create_role(session, role.name, role.password))
        return 201, _with_role(branch, role, operations)


def delete_role(plane: Plane, call: Call) -> Answer:
    with plane.jobs.admission(call.project_id):
        branch = current(plane, plane.branch(call))
        role = branch.role(call.path["role_name"])
        if role is None:
            return 204, None
        operations = _apply(plane, branch, branch, lambda session: roles.drop_role(session, role.name))
        return 200, _with_role(branch, role, operations)


def reset_password(plane: Plane, call: Call) -> Answer:
    """A new password, usable when the operations are over; the role's sessions end then."""
    with plane.jobs.admission(call.project_id):
        branch = current(plane, plane.branch(call))
        role, now, new = _role(branch, call.path["role_name"]), plane.clock(), names.password()
        role = role.model_copy(
            update={"passwords": (Password(text=new, since=now), *role.passwords), "updated_at": now}
        )
        others = (each for each in branch.roles if each.name != role.name)
        before, branch = branch, plane.ledger.change(branch, roles=(*others, role))

        def apply(session: psycopg.Connection[object]) -> None:
            roles.set_password(session, role.name, new)
            roles.drop_sessions(session, role.name)

        return 200, _with_role(branch, role, _apply(plane, before, branch, apply))


def list_databases(plane: Plane, call: Call) -> Answer:
    branch = current(plane, plane.branch(call))
    return 200, {"databases": [answers.database(each, branch.id) for each in branch.databases]}


def show_database(plane: Plane, call: Call) -> Answer:
    branch = current(plane, plane.branch(call))
    return 200, {"database": answers.database(_database(branch, call.path["database_name"]), branch.id)}


def create_database(plane: Plane, call: Call) -> Answer:
    wish = call.read(CreateDatabase).database
    with plane.jobs.admission(call.project_id):
        branch = current(plane, plane.branch(call))
        if branch.database(wish.name) or wish.name in ("postgres", "template0", "template1"):
            raise Fault.TAKEN(what="database", name=wish.name)
        owner = _role(branch, wish.owner_name)
        database = Database(id=0, name=wish.name, owner_name=owner.name, created_at=plane.clock())
        before, branch = branch, plane.ledger.change(branch, databases=(*branch.databases, database))
        operations = _apply(
            plane, before, branch, lambda session: roles.create_database(session, database.name, owner.name)
        )
        return 201, _with_database(branch, database, operations)


def delete_database(plane: Plane, call: Call) -> Answer:
    with plane.jobs.admission(call.project_id):
        branch = current(plane, plane.branch(call))
        database = branch.database(call.path["database_name"])
        if database is None:
            return 204, None
        operations = _apply(plane, branch, branch, lambda session: roles.drop_database(session, database.name))
        return 200, _with_database(branch, database, operations)


def current(plane: Plane, branch: Branch) -> Branch:
    """The branch with the roles and databases its server has now, also those made by SQL.

    What was last known if no server runs, or an operation is just changing it.
    """
    server = plane.servers.get(branch.timeline_id)
    if server is None or plane.jobs.is_busy(branch.project_id):
        return branch
    try:
        with server.connect() as session:
            seen = contents.read(plane, session, branch.roles, branch)
    except psycopg.OperationalError:  # stopped a moment ago
        return branch
    return branch if branch == branch.model_copy(update=seen) else plane.ledger.change(branch, **seen)


def _apply(
    plane: Plane, before: Branch, branch: Branch, change: Callable[[psycopg.Connection[object]], None]
) -> tuple[Operation, ...]:
    """Schedule a change inside the branch's server, started for it if none runs. If it fails, `before` is put back."""

    def work() -> None:
        timeline = plane.ledger.get(Timeline, branch.timeline_id)
        with plane.servers.awake(timeline) as server, server.connect() as session:
            change(session)
            known = plane.ledger.get(Branch, branch.id)
            plane.ledger.change(known, **contents.read(plane, session, known.roles, known))

    def undo() -> None:
        plane.ledger.change(branch, roles=before.roles, databases=before.databases)

    endpoint = plane.ledger.endpoint_of(branch)
    task = Task("apply_config", work, branch.id, endpoint.id if endpoint else None)
    return plane.jobs.schedule(branch.project_id, [task], give_up=undo)


def _endpoint(plane: Plane, call: Call) -> Endpoint:
    if endpoint_id := call.query.get("endpoint_id"):
        endpoint = plane.ledger.owned(Endpoint, call.project_id, endpoint_id)
        if call.query.get("branch_id", endpoint.branch_id) != endpoint.branch_id:
            raise Fault.BAD_QUERY(name="endpoint_id", why="not an endpoint of that branch")
        return endpoint
    branch_id = call.query.get("branch_id")
    branch = (
        plane.ledger.owned(Branch, call.project_id, branch_id)
        if branch_id
        else plane.ledger.default_branch(call.project_id)
    )
    found = plane.ledger.endpoint_of(branch)
    if found is None:
        raise Fault.NO_COMPUTE(name=branch.name)
    return found


def _named(call: Call, name: str) -> str:
    if not call.query.get(name):
        raise Fault.BAD_QUERY(name=name, why="is required")
    return call.query[name]


def _role(branch: Branch, name: str) -> Role:
    role = branch.role(name)
    if role is None:
        raise Fault.NO_ROLE(name=name)
    return role


def _database(branch: Branch, name: str) -> Database:
    database = branch.database(name)
    if database is None:
        raise Fault.NO_DATABASE(name=name)
    return database


def _password(role: Role) -> str:
    if role.password is None:
        raise Fault.NO_PASSWORD(name=role.name)
    return role.password


def _with_role(branch: Branch, role: Role, operations: tuple[Operation, ...]) -> Json:
    return {
        "role": answers.role(role, branch.id, password=role.password),
        "operations": operations_json(operations),
    }


def _with_database(branch: Branch, database: Database, operations: tuple[Operation, ...]) -> Json:
    return {"database": answers.database(database, branch.id), "operations": operations_json(operations)}
