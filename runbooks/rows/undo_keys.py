"""The rows of an undo file, looked up in production: still ours, changed by others since, or gone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from runbooks.clients.postgres import Connection, Outcome, outcome, prove
from runbooks.model.errors import CouldNotVerify, NotFound, ProofFailed
from runbooks.rows.catalog import describe
from runbooks.rows.compose import fields, numbered, same_key
from runbooks.rows.listed import Listed, listed
from runbooks.rows.shape import Table
from runbooks.rows.undo_file import UndoAmended, UndoHeader, UndoTable, read_rows

_SAFE = "nothing was changed"


@dataclass(frozen=True)
class Kept:
    """The keys of one table's rows that a run wrote, in a temporary table of production's session: k1, k2, ...; and of
    rows that it changed, what they held before: w1, w2, ...
    """

    table: Table
    number: int
    columns: tuple[str, ...] = ()
    """The columns that were changed; empty if the rows were inserted."""

    @property
    def keys(self) -> sql.Identifier:
        return sql.Identifier("pg_temp", f"bloom_undo_{self.number}")

    @property
    def k(self) -> tuple[str, ...]:
        return numbered(len(self.table.key.columns))

    @property
    def w(self) -> tuple[str, ...]:
        return numbered(len(self.columns), "w")

    def joined(self, how: str) -> sql.Composed:
        """keys AS k, joined to the table's rows AS t."""
        return sql.SQL("{} AS k {} {} AS t ON {}").format(
            self.keys, sql.SQL(how), self.table.name.identifier, same_key("k", self.table.key, "t")
        )


def check_committed(conn: Connection, header: UndoHeader) -> None:
    """The session is in the database the run wrote to, and its transaction was committed there.

    WrongTarget (also after a restore in place: the transaction numbers begin anew there), ProofFailed, CouldNotVerify.
    """
    prove(conn, header.database)
    how = outcome(conn, header.xid)
    if how is Outcome.ABORTED:
        raise ProofFailed(
            f"transaction {header.xid} of run {header.run} was rolled back",
            safe="production is as it was before the run",
            next_step="run the recovery again",
        )
    if how is not Outcome.COMMITTED:
        raise CouldNotVerify(
            f"the server cannot say that transaction {header.xid} of run {header.run} was committed: it is {how}",
            safe=_SAFE,
            next_step="try again in a minute; if it was long ago, compare the rows by hand with the undo file",
        )


def load(conn: Connection, path: Path, header: UndoHeader) -> tuple[Kept, ...]:
    """The file's rows in temporary tables, for the running transaction: tables filled before tables amended.

    NotFound if a table, its key or an amended column is gone.
    """
    kept = tuple(_create(conn, entry, number) for number, entry in enumerate(header.entries))
    for number, rows in itertools.groupby(read_rows(path), key=lambda row: row[0]):
        query = sql.SQL("COPY {} FROM STDIN").format(kept[number].keys)
        with conn.cursor() as cursor, cursor.copy(query) as copy:
            for _, key in rows:
                copy.write_row(key)
    for one in kept:
        conn.execute(sql.SQL("ANALYZE {}").format(one.keys))
    return kept


def _create(conn: Connection, entry: UndoTable, number: int) -> Kept:
    table = describe(conn, entry.name)
    columns = entry.columns if isinstance(entry, UndoAmended) else ()
    if table is None or table.row_key is None or table.row_key.columns != entry.key or not table.has(columns):
        raise NotFound(
            f"table {entry.name} with key ({', '.join(entry.key)}) and these columns does not exist any more: "
            f"{', '.join(columns) or 'none besides'}",
            safe=_SAFE,
            next_step="it was altered after the run; compare the rows by hand with the undo file",
        )
    kept = Kept(table, number, columns)
    names = (*entry.key, *columns)
    conn.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} AS t WHERE false").format(
            kept.keys, fields("t", names, renamed=(*kept.k, *kept.w)), entry.name.identifier
        )
    )
    return kept


def ours(header: UndoHeader) -> sql.Composed:
    """Row t is still as the run inserted it."""
    return sql.SQL("t.xmin = {}::xid").format(header.xmin)


def changed(conn: Connection, one: Kept, header: UndoHeader) -> Listed:
    """Rows that are there, but were written by another transaction since."""
    return listed(conn, sql.SQL("{} WHERE NOT {}").format(one.joined("JOIN"), ours(header)), "k", one.k)


def gone(conn: Connection, one: Kept) -> Listed:
    return listed(conn, sql.SQL("{} WHERE t.xmin IS NULL").format(one.joined("LEFT JOIN")), "k", one.k)
