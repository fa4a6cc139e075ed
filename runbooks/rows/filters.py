"""The operator's `--where`: one condition on the rows of a table, and nothing else."""

from __future__ import annotations

import psycopg
from psycopg import sql

from runbooks.clients.postgres import Connection, translated
from runbooks.clients.postgres_faults import said
from runbooks.model.errors import UsageFault
from runbooks.rows.compose import fields, numbered
from runbooks.rows.shape import Table
from runbooks.rows.transaction import as_application

_SAFE = "production was not touched"


def select_matching(branch: Connection, table: Table, where: str, into: sql.Identifier, view: sql.Identifier) -> int:
    """Create table `into` on the branch with the keys (k1, k2, ...) of the rows that `where` is true for; how many.

    The text is parsed once, by the server, into `view`, which is dropped again. UsageFault if it is anything but a
    condition on this table's rows: not valid SQL, several statements, brackets that end the condition early, an unknown
    column, an error on some row, or a function that is volatile or writes (it could wait, change something, or answer
    differently the next time).
    """
    with translated(f"look for rows of {table.name} on the branch", safe=_SAFE):
        with branch.transaction():
            _make_view(branch, table, where, view)
        try:
            return _evaluate(branch, into, view)
        except psycopg.Error as error:
            # Of an error while it is evaluated, only what says nothing about the condition is not its fault.
            if isinstance(error, psycopg.OperationalError) or error.sqlstate == "42501":
                raise
            raise _refusal(table, where, said(error)) from error


def _make_view(branch: Connection, table: Table, where: str, view: sql.Identifier) -> None:
    # The table goes by its own name, so that the condition may name its columns with it.
    keys = fields(table.name.name, table.key.columns, renamed=numbered(len(table.key.columns)))
    query = sql.SQL("SELECT {} FROM {}").format(keys, table.name.identifier)
    with as_application(branch):
        # A text that is complete between WHEN and THEN has no bracket that would close the one of WHERE ( ... ).
        alone = sql.SQL("{} WHERE CASE WHEN\n{}\nTHEN true END").format(query, sql.SQL(where))
        _create(branch, view, table, where, alone)
        branch.execute(sql.SQL("DROP VIEW {}").format(view))
        _create(branch, view, table, where, sql.SQL("{} WHERE (\n{}\n)").format(query, sql.SQL(where)))
    volatile = [row[0] for row in branch.execute(_VOLATILE, (view.as_string(branch),))]
    if volatile:
        raise _refusal(table, where, f"it calls {', '.join(volatile)}, which may do or answer something else each time")


def _evaluate(branch: Connection, into: sql.Identifier, view: sql.Identifier) -> int:
    """First where nothing can be written, for a function that is declared harmless and is not; then to keep the keys:
    now() moves on, so it must not be asked again.
    """
    with branch.transaction(), as_application(branch):
        branch.execute("SET TRANSACTION READ ONLY")
        branch.execute(sql.SQL("SELECT count(*) FROM {}").format(view))
    with branch.transaction(), as_application(branch):
        many = branch.execute(sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT * FROM {}").format(into, view)).rowcount
        branch.execute(sql.SQL("DROP VIEW {}").format(view))
        branch.execute(sql.SQL("ANALYZE {}").format(into))
    return many


def _create(branch: Connection, view: sql.Identifier, table: Table, where: str, query: sql.Composed) -> None:
    statement = sql.SQL("CREATE VIEW {} AS {}").format(view, query).as_bytes(branch)
    try:
        # Binary results make psycopg use the extended protocol, in which the server takes one statement and no more.
        branch.execute(statement, binary=True)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        if error.sqlstate == "42501":
            raise
        raise _refusal(table, where, said(error)) from error


def _refusal(table: Table, where: str, why: str) -> UsageFault:
    return UsageFault(
        f"the condition {where!r} cannot be used on {table.name}: {why}",
        safe=_SAFE,
        next_step="write it as it would stand after WHERE, for example: status = 'paid' AND created_at >= '2025-12-01'",
    )


# The stored rule holds every function that the condition calls, those behind operators included.
_VOLATILE = """
SELECT DISTINCT p.oid::regprocedure::text
FROM pg_rewrite AS r
CROSS JOIN LATERAL regexp_matches(r.ev_action::text, ':(?:func|opfunc|aggfn|winfn)(?:id|oid) (\\d+)', 'g') AS c (id)
JOIN pg_proc AS p ON p.oid = c.id[1]::oid
WHERE r.ev_class = to_regclass(%s) AND p.provolatile = 'v'
ORDER BY 1
"""
