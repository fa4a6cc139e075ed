"""Commands that recover, and that find out what to recover. Like tasks.py it decides nothing, and loads invoke and the
standard library only.
"""

from __future__ import annotations

from typing import Any

from invoke.collection import Collection
from invoke.context import Context

from runbooks.cli.command import command

ENV = "environment of the policy (default: its default_environment)"
JSON = "print the answer as JSON on stdout"
RUN = "id of the run, as invoke run.list shows it; may be given without the flag"
CONFIRM = "the value that the preview printed: consent to change that target"
DATABASE = "database (default: the environment's)"

recover = Collection("recover")


@command(
    recover,
    "accidental-delete",
    dry=True,
    at="last moment before the loss, with its zone: '2025-12-03 14:30 America/Mexico_City'",
    tables="tables whose rows are missing, separated by commas",
    where="SQL condition on the rows of these tables, as they were at that moment",
    database=DATABASE,
    accept_triggers="triggers that may fire, separated by commas",
    accept_keyless="tables without any key whose missing rows come back although they may only have been edited",
    changed="also set back rows that are there with other content, as far as that is certain",
    until="a moment after the damage, before people went on: tells damage from later edits (with --changed)",
    map="TOML file that says how rows fit a table that was altered since",
    resolve="conflicts.json of an earlier run, with decisions filled in",
    from_backup="take the rows from a backup instead of Neon's history: its id, or latest (the newest proved one)",
    env=ENV,
    confirm=CONFIRM,
    json=JSON,
)
def accidental_delete(
    c: Context,
    at: str = "",
    tables: str = "",
    where: str = "",
    database: str = "",
    accept_triggers: str = "",
    accept_keyless: str = "",
    changed: bool = False,
    until: str = "",
    map: str = "",
    resolve: str = "",
    from_backup: str = "",
    env: str = "",
    confirm: str = "",
    json: bool = False,
) -> Any:
    """Bring back rows that were deleted at a known moment, with what the delete took with it."""
    from runbooks.accidental_delete import RUNBOOK, Request
    from runbooks.cli.desk import Desk

    desk = Desk(c, env, confirm, as_json=json)
    request = Request.parse(
        at=at,
        tables=tables,
        where=where,
        database=database,
        accept_triggers=accept_triggers,
        accept_keyless=accept_keyless,
        from_backup=from_backup,
        changed=changed,
        until=until,
        map_file=map,
        resolve_file=resolve,
        now=desk.now(),
    )
    return desk.start(RUNBOOK, request)


@command(
    recover,
    "find",
    since="a moment at which all was still well: '2025-12-03 08:00 America/Mexico_City'",
    until="a moment at which it was gone (default: now)",
    tables="the table whose rows are gone",
    where="which of its rows: as many have to be there as at --since",
    dropped_by="how many of them are gone: a number to tell the loss from what goes every day (default 1)",
    sql="instead of a table: one SELECT that is true before the loss and false after it",
    exact="to the millisecond, with about ten questions more",
    database=DATABASE,
    env=ENV,
    json=JSON,
)
def find(
    c: Context,
    since: str = "",
    until: str = "",
    tables: str = "",
    where: str = "",
    dropped_by: str = "",
    sql: str = "",
    exact: bool = False,
    database: str = "",
    env: str = "",
    json: bool = False,
) -> Any:
    """Find the moment of a loss, by asking the past. Changes nothing; makes and removes branches of its own."""
    from runbooks.cli.desk import Desk
    from runbooks.find_moment import RUNBOOK, Request

    desk = Desk(c, env, "", as_json=json)
    request = Request.parse(
        since,
        until,
        tables=tables,
        where=where,
        dropped_by=dropped_by,
        sql=sql,
        database=database,
        exact=exact,
        now=desk.now(),
    )
    return desk.start(RUNBOOK, request)


@command(recover, "undo", dry=True, run_id=RUN, confirm=CONFIRM, json=JSON)
def undo(c: Context, run_id: str, confirm: str = "", json: bool = False) -> Any:
    """Take back exactly the rows that recovery RUN_ID inserted, except those that were changed since."""
    from runbooks.cli.desk import Desk
    from runbooks.cli.local import environment_of
    from runbooks.model.run_id import RunId
    from runbooks.undo_recovery import RUNBOOK, Request

    recovery = RunId.parse(run_id)
    desk = Desk(c, environment_of(recovery), confirm, as_json=json)
    return desk.start(RUNBOOK, Request(recovery=str(recovery)))
