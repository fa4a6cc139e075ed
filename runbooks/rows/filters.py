"""The operator's own SQL: `--where`, one condition on the rows of a table, and `--sql`, one question; nothing else.

Either is parsed by the server, once, into a view that does not stay. UsageFault if it is anything but that: not
valid SQL, several statements, brackets that end the condition early, an unknown column, an error on some row, or a
function that is volatile or writes (it could wait, change something, or answer differently the next time).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
from psycopg import sql

from runbooks.clients.postgres import Connection, translated
from runbooks.clients.postgres_faults import said
from runbooks.model.errors import UsageFault
from runbooks.rows.compose import fields, numbered
from runbooks.rows.names import TableName
from runbooks.rows.shape import Table
from runbooks.rows.transaction import as_application

_SAFE = "production was not touched"
_ASKED = sql.Identifier("pg_temp", "bloom_dr_asked")
"""A view of the session, for what is only asked; it goes with the session."""

Refuse = Callable[[str], UsageFault]


def select_matching(branch: Connection, table: Table, where: str, into: sql.Identifier, view: sql.Identifier) -> int:
    """Create table `into` on the branch with what tells the rows apart there that `where` is true for (k1, k2, ...: see
    Table.apart); how many.

    The text is parsed into `view`. UsageFault as above.
    """
    refuse = partial(_no_condition, table.name, where)
    keys = fields(table.name.name, table.apart, renamed=numbered(len(table.apart)))
    with translated(f"look for rows of {table.name} on the branch", safe=_SAFE):
        with branch.transaction():
            _make_condition(branch, table.rows, where, keys, view, refuse)
        with _refusing(refuse):
            return _evaluate(branch, into, view)


def count_matching(session: Connection, table: TableName, where: str) -> int:
    """How many rows of the table `where` is true for. The session may be read-only; UsageFault as above."""
    refuse = partial(_no_condition, table, where)
    with translated(f"count rows of {table}", safe=_SAFE):
        with _for_a_view(session):
            _make_condition(session, table.identifier, where, sql.SQL("1 AS k1"), _ASKED, refuse)
        with _refusing(refuse):
            return _count(session, _ASKED)


def answer(session: Connection, question: str) -> bool:
    """What one SELECT says that gives one boolean. The session may be read-only. UsageFault as above, and for no row,
    several rows or columns, NULL, or another type.
    """
    refuse = partial(_no_question, question)
    with translated("ask the question", safe=_SAFE):
        with _for_a_view(session):
            with as_application(session):
                _create(session, _ASKED, sql.SQL(question), refuse)
            _prove_steady(session, _ASKED, refuse)
            if (types := _types(session, _ASKED)) != ("boolean",):
                raise refuse(f"it gives {', '.join(types) or 'no column'} instead of one boolean")
        with _refusing(refuse), session.transaction(), as_application(session):
            session.execute("SET TRANSACTION READ ONLY")
            found = session.execute(sql.SQL("SELECT * FROM {} LIMIT 2").format(_ASKED)).fetchall()
    if found not in ([(True,)], [(False,)]):
        raise refuse("it gives NULL" if len(found) == 1 else "it does not give exactly one row")
    return bool(found[0][0])


@contextmanager
def _for_a_view(session: Connection) -> Iterator[None]:
    """A transaction that may create our temporary view, in a session that is read-only otherwise."""
    with session.transaction():
        session.execute("SET TRANSACTION READ WRITE")
        session.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(_ASKED))
        yield


@contextmanager
def _refusing(refuse: Refuse) -> Iterator[None]:
    """Of an error while it is evaluated, only what says nothing about the text is not its fault."""
    try:
        yield
    except psycopg.Error as error:
        if isinstance(error, psycopg.OperationalError) or error.sqlstate == "42501":
            raise
        raise refuse(said(error)) from error


def _make_condition(
    branch: Connection, rows: sql.Composable, where: str, columns: sql.Composable, view: sql.Identifier, refuse: Refuse
) -> None:
    # The table goes by its own name, so that the condition may name its columns with it.
    query = sql.SQL("SELECT {} FROM {}").format(columns, rows)
    with as_application(branch):
        # A text that is complete between WHEN and THEN has no bracket that would close the one of WHERE ( ... ).
        alone = sql.SQL("{} WHERE CASE WHEN\n{}\nTHEN true END").format(query, sql.SQL(where))
        _create(branch, view, alone, refuse)
        branch.execute(sql.SQL("DROP VIEW {}").format(view))
        _create(branch, view, sql.SQL("{} WHERE (\n{}\n)").format(query, sql.SQL(where)), refuse)
    _prove_steady(branch, view, refuse)


def _prove_steady(branch: Connection, view: sql.Identifier, refuse: Refuse) -> None:
    volatile = [row[0] for row in branch.execute(_VOLATILE, (view.as_string(branch),))]
    if volatile:
        raise refuse(f"it calls {', '.join(volatile)}, which may do or answer something else each time")


def _evaluate(branch: Connection, into: sql.Identifier, view: sql.Identifier) -> int:
    """First where nothing can be written, for a function that is declared harmless and is not; then to keep the keys:
    now() moves on, so it must not be asked again.
    """
    _count(branch, view)
    with branch.transaction(), as_application(branch):
        many = branch.execute(sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT * FROM {}").format(into, view)).rowcount
        branch.execute(sql.SQL("DROP VIEW {}").format(view))
        branch.execute(sql.SQL("ANALYZE {}").format(into))
    return many


def _count(branch: Connection, view: sql.Identifier) -> int:
    with branch.transaction(), as_application(branch):
        branch.execute("SET TRANSACTION READ ONLY")
        row = branch.execute(sql.SQL("SELECT count(*) FROM {}").format(view)).fetchone()
    assert row is not None
    return int(row[0])


def _create(branch: Connection, view: sql.Identifier, query: sql.Composable, refuse: Refuse) -> None:
    statement = sql.SQL("CREATE VIEW {} AS {}").format(view, query).as_bytes(branch)
    with _refusing(refuse):
        # Binary results make psycopg use the extended protocol, in which the server takes one statement and no more.
        branch.execute(statement, binary=True)


def _types(session: Connection, view: sql.Identifier) -> tuple[str, ...]:
    return tuple(row[0] for row in session.execute(_TYPES, (view.as_string(session),)))


def _no_condition(table: TableName, where: str, why: str) -> UsageFault:
    return UsageFault(
        f"the condition {where!r} cannot be used on {table}: {why}",
        safe=_SAFE,
        next_step="write it as it would stand after WHERE, for example: status = 'paid' AND created_at >= '2025-12-01'",
    )


def _no_question(question: str, why: str) -> UsageFault:
    return UsageFault(
        f"the question {question!r} cannot be asked: {why}",
        safe=_SAFE,
        next_step="write one SELECT that gives one boolean, for example: SELECT count(*) > 100 FROM clients; a table "
        "that is not there at every moment is asked for with: SELECT to_regclass('clients') IS NOT NULL",
    )


_TYPES = """
SELECT format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
# The stored rule holds every function that the condition calls, those behind operators included.
_VOLATILE = """
SELECT DISTINCT p.oid::regprocedure::text
FROM pg_rewrite AS r
CROSS JOIN LATERAL regexp_matches(r.ev_action::text, ':(?:func|opfunc|aggfn|winfn)(?:id|oid) (\\d+)', 'g') AS c (id)
JOIN pg_proc AS p ON p.oid = c.id[1]::oid
WHERE r.ev_class = to_regclass(%s) AND p.provolatile = 'v'
ORDER BY 1
"""
