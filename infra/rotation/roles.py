"""The two SQL roles that take turns. Both are members of one group, which owns the rights; at login they become it."""

from __future__ import annotations

from pg8000.native import Connection  # type: ignore[import-untyped]

from .fault import RotationFault
from .login import session
from .url import Url


def pair_of(group: str) -> tuple[str, str]:
    return f"{group}_a", f"{group}_b"


def other_than(user: str, group: str) -> str:
    """The role whose turn it is after `user`, which need not be one of the two: so an application changes over from
    the role that it had before."""
    one, other = pair_of(group)
    return other if user == one else one


def give(admin: Url, group: str, role: str, password: str) -> None:
    """Let `role` log in with `password`, and make it if it is missing. Safe to repeat.

    RotationFault, with nothing changed, if there is no such group or if the role is not its member: then it is somebody
    else's. The role becomes the group at login, so that what it creates belongs to the group as well, and so that
    current_user is the same whosever turn it is.
    """
    with session(admin, f"setting the password of {role}") as connection:
        connection.run("begin")
        _check_ownership(connection, group, role)
        # Neon wants the password itself ("Hashed passwords are not supported", its page "Manage roles"). As a parameter
        # it is in no statement: not in a log of DDL, in pg_stat_activity, pg_stat_statements, or an error's context.
        connection.run(
            "select set_config('bloom_dr.group', :group, true), set_config('bloom_dr.role', :role, true), "
            "set_config('bloom_dr.password', :password, true)",
            group=group,
            role=role,
            password=password,
        )
        connection.run(_GIVE)
        connection.run("commit")


def check(url: Url, group: str) -> None:
    """Log in and ask something. RotationFault if that fails, or if one of the pair does not become its group."""
    with session(url, "logging in") as connection:
        [[user]] = connection.run("select current_user::text")
    if url.user in pair_of(group) and user != group:
        raise RotationFault(f"{url.user} logs in at {url.host} and is not {group} there")


def _check_ownership(connection: Connection, group: str, role: str) -> None:
    rows = connection.run(
        "select r.oid is not null, pg_has_role(r.oid, g.oid, 'member') "
        "from pg_roles g left join pg_roles r on r.rolname = :role where g.rolname = :group",
        group=group,
        role=role,
    )
    if not rows:
        raise RotationFault(f"there is no role {group}, whose rights {role} is to have")
    [[exists, member]] = rows
    if exists and not member:
        raise RotationFault(f"the role {role} exists and is no member of {group}: it is not this function's to change")


# An error of a nested statement would carry its whole text with it, so that a new one is raised in its place.
_GIVE = """
do $$
declare
    the_group constant text := current_setting('bloom_dr.group');
    the_role constant text := current_setting('bloom_dr.role');
begin
    if not exists (select from pg_roles where rolname = the_role) then
        execute format('create role %I in role %I', the_role, the_group);
    end if;
    execute format('alter role %I login password %L', the_role, current_setting('bloom_dr.password'));
    execute format('alter role %I set role = %L', the_role, the_group);
exception when others then
    raise exception using errcode = sqlstate, message = sqlerrm;
end $$
"""
