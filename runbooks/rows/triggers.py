"""Switch the application's triggers off inside our transaction, and back to exactly what they were.

No other session ever sees them off: the change is undone before it is committed. It needs SHARE ROW EXCLUSIVE on the
table until then, so others cannot write to it meanwhile. Foreign keys stay on, which `session_replication_role` would
switch off too (and it needs a right that managed roles lack).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.model.errors import ProofFailed
from runbooks.rows.shape import Trigger

States: TypeAlias = tuple[tuple[int, str, str], ...]
"""Of each trigger: its table, its name, and how it fires (pg_trigger.tgenabled)."""


def states(conn: Connection, trees: Iterable[int]) -> States:
    """Every trigger of the application on these relations, and how it fires."""
    return tuple(
        (int(row[0]), str(row[1]), str(row[2]))
        for row in conn.execute(
            "SELECT tgrelid::bigint, tgname, tgenabled::text FROM pg_trigger"
            " WHERE tgrelid = ANY (%s::oid[]) AND NOT tgisinternal ORDER BY tgrelid, tgname",
            (list(trees),),
        )
    )


def switch_off(conn: Connection, triggers: Iterable[Trigger]) -> None:
    for trigger in triggers:
        _alter(conn, trigger, "DISABLE TRIGGER")


def put_back(conn: Connection, triggers: Iterable[Trigger], before: States) -> None:
    """Switch them on as they were. ProofFailed if the states are then not the same as `before`, to the letter.

    The table must have no pending trigger events: deferred constraints have been checked.
    """
    for trigger in triggers:
        _alter(conn, trigger, "ENABLE ALWAYS TRIGGER" if trigger.fires == "always" else "ENABLE TRIGGER")
    now = states(conn, {oid for oid, _, _ in before})
    if now != before:
        raise ProofFailed(
            f"triggers would not be left as they were: {sorted(set(now) ^ set(before))}",
            safe="the transaction was rolled back; production is as it was",
            next_step="run the same command again; if it fails again, report it with this message",
        )


def _alter(conn: Connection, trigger: Trigger, action: str) -> None:
    # ONLY: a partition's copy of a trigger may be in another state than the partitioned table's, and is told by itself.
    conn.execute(
        sql.SQL("ALTER TABLE ONLY {} {} {}").format(
            trigger.table.identifier, sql.SQL(action), sql.Identifier(trigger.name)
        )
    )
