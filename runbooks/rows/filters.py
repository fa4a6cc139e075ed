"""The operator's `--where`: one condition on the rows of a table, and nothing else."""

from __future__ import annotations

import psycopg
from psycopg import sql

from runbooks.clients.postgres import Connection, translated
from runbooks.clients.postgres_faults import said
from runbooks.model.errors import UsageFault
from runbooks.rows.shape import Table

_SAFE = "the condition was not evaluated; production was not touched"


def make_filter(branch: Connection, table: Table, where: str | None, view: sql.Identifier) -> None:
    """Create `view` on the branch: the keys (k1, k2, ...) of the rows of `table` that `where` is true for.

    The text is parsed here, once, by the server; every later statement uses the view. UsageFault if it is anything but
    a condition on this table's rows: not valid SQL, several statements, brackets that end the condition early, an
    unknown column, or a call of a volatile function (it could write, wait, or answer differently the next time).
    """
    name = sql.Identifier(table.name.name)
    keys = sql.SQL(", ").join(
        sql.SQL("{}.{} AS {}").format(name, sql.Identifier(column), sql.Identifier(f"k{number}"))
        for number, column in enumerate(table.key.columns, 1)
    )
    query = sql.SQL("SELECT {} FROM {}").format(keys, table.name.identifier)
    with translated(f"look for rows of {table.name} on the branch", safe=_SAFE), branch.transaction():
        if where is None:
            branch.execute(sql.SQL("CREATE VIEW {} AS {}").format(view, query))
            return
        # As the application would read it: its operators and functions may live in its own schemas.
        branch.execute("SET LOCAL search_path TO DEFAULT")
        # A text that is complete between WHEN and THEN has no bracket that would close the one of WHERE ( ... ).
        _create(
            branch, view, table, where, sql.SQL("{} WHERE CASE WHEN\n{}\nTHEN true END").format(query, sql.SQL(where))
        )
        branch.execute(sql.SQL("DROP VIEW {}").format(view))
        _create(branch, view, table, where, sql.SQL("{} WHERE (\n{}\n)").format(query, sql.SQL(where)))
        branch.execute("SET LOCAL search_path TO pg_catalog, pg_temp")
        volatile = [row[0] for row in branch.execute(_VOLATILE, (view.as_string(branch),))]
        if volatile:
            raise _refusal(
                table, where, f"it calls {', '.join(volatile)}, which may do or answer something else each time"
            )


def count_matching(branch: Connection, table: Table, view: sql.Identifier, where: str | None) -> int:
    """How many rows the filter is true for. Evaluated in a read-only transaction, so that a function which is declared
    harmless but writes fails here.
    """
    doing = f"count the rows of {table.name} on the branch"
    with translated(doing, safe=_SAFE), branch.transaction():
        branch.execute("SET TRANSACTION READ ONLY")
        try:
            row = branch.execute(sql.SQL("SELECT count(*) FROM {}").format(view)).fetchone()
        except psycopg.Error as error:
            # Of an error while it is evaluated, only what says nothing about the condition is not its fault.
            if where is None or isinstance(error, psycopg.OperationalError) or error.sqlstate == "42501":
                raise
            raise _refusal(table, where, said(error)) from error
    return int(row[0]) if row else 0


def _create(branch: Connection, view: sql.Identifier, table: Table, where: str, query: sql.Composed) -> None:
    statement = sql.SQL("CREATE VIEW {} AS {}").format(view, query).as_bytes(branch)
    try:
        # A statement that is prepared cannot be two.
        branch.execute(statement, prepare=True)
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
