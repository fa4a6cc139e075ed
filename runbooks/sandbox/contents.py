"""What a branch records of its server: roles with the passwords that are in force there, databases, size."""

from __future__ import annotations

from collections.abc import Iterable

from runbooks.model.moment import Moment
from runbooks.sandbox import names, roles
from runbooks.sandbox.fork import Fields, Forked, Session
from runbooks.sandbox.plane import Plane
from runbooks.sandbox.records import Branch, Password, Role


def read(plane: Plane, session: Session, known: Iterable[Role], like: Branch) -> Fields:
    """The fields of a branch record. Passwords come from `known`, dates of databases from `like`."""
    now = plane.clock()
    return {
        "roles": roles.roles(session, known, now),
        "databases": roles.databases(session, like, now),
        "logical_size": roles.size(session),
    }


def adopt(plane: Plane, branch: Branch, forked: Forked, **fields: object) -> Branch:
    """The branch on its new timeline, ready, with what was read there; not yet committed."""
    now = plane.clock()
    return branch.model_copy(
        update={
            "timeline_id": forked.timeline.id,
            "parent_timestamp": forked.parent_timestamp,
            "parent_lsn": forked.parent_lsn,
            "current_state": "ready",
            "state_changed_at": now,
            "updated_at": now,
        }
        | forked.fields
        | fields
    )


def roles_of_child(parent: Branch, at: Moment | None, now: Moment) -> tuple[Role, ...]:
    """The roles of a child as far as they are known before recovery.

    Those of a protected parent get new passwords; else each has the one of that time (None: of now).
    """
    if parent.protected:
        return tuple(_with(role, Password(text=names.password(), since=now)) for role in parent.roles)
    if at is None:
        return parent.roles
    then = (_with(role, *(each for each in role.passwords if each.since <= at)) for role in parent.roles)
    return tuple(role for role in then if role.passwords or not role.login)


def set_passwords(session: Session, wanted: Iterable[Role]) -> None:
    """Give the wanted passwords to those roles that exist at that point of the past."""
    there = {name for (name,) in session.execute("select rolname from pg_roles where rolcanlogin")}
    for role in wanted:
        if role.name in there and role.password:
            roles.set_password(session, role.name, role.password)


def _with(role: Role, *passwords: Password) -> Role:
    return role.model_copy(update={"passwords": passwords if role.login else ()})
