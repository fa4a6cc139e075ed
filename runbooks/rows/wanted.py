"""The rows of a table as they are to come back: with the columns of now, and the values that a person decided on."""

from __future__ import annotations

import json
from collections.abc import Sequence

from psycopg import errors, sql

from runbooks.clients.postgres import Connection
from runbooks.clients.postgres_faults import said
from runbooks.model.errors import UsageFault
from runbooks.rows.compose import fields, numbered, row_text, same_key, scratch
from runbooks.rows.decisions import Decided
from runbooks.rows.mapping import TableMap
from runbooks.rows.shape import Table


def create(
    branch: Connection, number: int, source: Table, mapped: TableMap | None, decided: Sequence[Decided]
) -> str | None:
    """The name of a view below our schema on the branch, over the rows of `source` (unmapped); None if none is needed.

    UsageFault if a decision names a key or column that the table cannot have.
    """
    given = [row for row in decided if row.set]
    if not mapped and not given:
        return None
    made = values(source, mapped)
    other = scratch(f"given_{number}")
    if given:
        _keep_given(branch, other, source, {name for name, _ in made}, given)
        made = tuple((name, _given(source, name, value)) for name, value in made)
    columns = sql.SQL(", ").join(sql.SQL("{} AS {}").format(value, sql.Identifier(name)) for name, value in made)
    joined = sql.SQL("LEFT JOIN {} AS g ON {}").format(other, same_key("g", source.key, "t")) if given else sql.SQL("")
    name = f"wanted_{number}"
    branch.execute(
        sql.SQL("CREATE VIEW {} AS SELECT {} FROM {} AS t {}").format(scratch(name), columns, source.rows, joined)
    )
    return name


def values(source: Table, mapped: TableMap | None) -> tuple[tuple[str, sql.Composable], ...]:
    """The columns of now, and how each is made from a row `t` of `source`."""
    if mapped:
        return mapped.expressions(source, "t")
    return tuple((column.name, sql.Identifier("t", column.name)) for column in source.columns)


def refuse_set(source: Table, decided: Sequence[Decided]) -> None:
    """UsageFault if a row of a table without a key is to come back with other values: then it is another row."""
    if any(row.set for row in decided):
        raise _fault(source, "its rows have no key, so none of them can come back with other values")


def _given(source: Table, name: str, value: sql.Composable) -> sql.Composable:
    if name in source.key.columns:
        return value
    # The type with its modifiers, which the server spelled and quoted; a column that is mapped reads as text.
    kind = sql.SQL(source.column(name).type if source.has((name,)) else "text")
    return sql.SQL("CASE WHEN g.given ? {name} THEN (g.given ->> {name})::{kind} ELSE {value}::{kind} END").format(
        name=name, kind=kind, value=value
    )


def _keep_given(
    branch: Connection, other: sql.Identifier, source: Table, names: set[str], given: Sequence[Decided]
) -> None:
    unknown = sorted({name for row in given for name, _ in row.set} - (names - set(source.key.columns)))
    if unknown:
        raise _fault(source, f"{', '.join(unknown)} is no column that could be set")
    k = numbered(len(source.key.columns))
    branch.execute(
        sql.SQL("CREATE TABLE {} AS SELECT {}, NULL::jsonb AS given FROM {} AS t WHERE false").format(
            other, fields("t", source.key.columns, renamed=k), source.rows
        )
    )
    for row in given:
        if len(row.key) != len(k):
            raise _fault(source, f"the key {row.key} does not have {len(k)} parts")
        try:
            branch.execute(
                sql.SQL("INSERT INTO {} VALUES ({})").format(
                    other, sql.SQL(", ").join([sql.Placeholder()] * (len(k) + 1))
                ),
                (*row.key, json.dumps(dict(row.set))),
            )
        except errors.DataError as error:
            raise _fault(source, said(error)) from error
        for name, text in row.set:
            _require_exact(branch, source, name, text)
    twice = branch.execute(
        sql.SQL("SELECT {} FROM {} AS a GROUP BY {} HAVING count(*) > 1").format(
            row_text("a", k), other, fields("a", k)
        )
    ).fetchone()
    if twice:
        raise _fault(source, f"there are two for the row with the key {twice[0]}")


def _require_exact(branch: Connection, source: Table, name: str, text: str | None) -> None:
    """UsageFault unless the column's type holds the value as it was written: an explicit cast cuts and rounds."""
    if text is None or not source.has((name,)):
        return
    kind = sql.SQL(source.column(name).type)
    try:
        found = branch.execute(sql.SQL("SELECT concat({}::{})").format(text, kind)).fetchone()
    except errors.Error as error:
        if isinstance(error, errors.OperationalError):
            raise
        raise _fault(source, f"{name}: {said(error)}") from error
    if found != (text,):
        raise _fault(source, f"{name} would hold {found and found[0]!r}, not {text!r}; write it as the column holds it")


def _fault(source: Table, why: str) -> UsageFault:
    return UsageFault(
        f"a decision on {source.name} cannot be carried out: {why}",
        safe="production was only read",
        next_step="correct the file given as --resolve, then run the same command again",
    )
