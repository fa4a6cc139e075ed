"""The rows of an undo file, looked up in production: still ours, changed by others since, or gone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from runbooks.clients.postgres import Connection, Outcome, outcome, prove
from runbooks.model.errors import CouldNotVerify, NotFound, ProofFailed
from runbooks.rows.catalog import describe
from runbooks.rows.compose import digest, fields, key_types, numbered, same_key
from runbooks.rows.listed import Listed, listed
from runbooks.rows.shape import COPIES, Table, UniqueKey
from runbooks.rows.undo_file import UndoAmended, UndoHeader, UndoTable, read_rows

_SAFE = "nothing was changed"


@dataclass(frozen=True)
class Kept:
    """The keys of one table's rows that a run wrote, in a temporary table of production's session: k1, k2, ...; and of
    rows that it changed, what they held before: w1, w2, ...; and of rows without a key, where they lie (part, place) if
    they are as the run left them.
    """

    table: Table
    number: int
    columns: tuple[str, ...] = ()
    """The columns that were changed; empty if the rows were inserted."""
    text_of: tuple[str, ...] = ()
    """The columns whose text, and a number, tells its rows apart; empty if it has a key."""

    @property
    def key(self) -> UniqueKey:
        return COPIES if self.text_of else self.table.key

    @property
    def keys(self) -> sql.Identifier:
        return sql.Identifier("pg_temp", f"bloom_undo_{self.number}")

    @property
    def k(self) -> tuple[str, ...]:
        return numbered(len(self.key.columns))

    @property
    def w(self) -> tuple[str, ...]:
        return numbered(len(self.columns), "w")

    def joined(self, how: str) -> sql.Composed:
        """keys AS k, joined to the table's rows AS t."""
        return sql.SQL("{} AS k {} {} AS t ON {}").format(self.keys, sql.SQL(how), self.table.rows, self.same("k", "t"))

    def same(self, ours: str, theirs: str) -> sql.Composed:
        """Row `theirs` of the table is the one of our row `ours`."""
        if self.text_of:
            where = "{theirs}.tableoid = {ours}.part AND {theirs}.ctid = {ours}.place"
            return sql.SQL(where).format(ours=sql.Identifier(ours), theirs=sql.Identifier(theirs))
        return same_key(ours, self.key, theirs)


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
        names = (*kept[number].k, *kept[number].w)
        query = sql.SQL("COPY {} ({}) FROM STDIN").format(kept[number].keys, fields(None, names))
        with conn.cursor() as cursor, cursor.copy(query) as copy:
            for _, key in rows:
                copy.write_row(key)
    for one in kept:
        if one.text_of:
            _find_copies(conn, one, header)
        conn.execute(sql.SQL("ANALYZE {}").format(one.keys))
    return kept


def _find_copies(conn: Connection, one: Kept, header: UndoHeader) -> None:
    """Note where the rows without a key lie. One that was changed since cannot be told from one that is gone."""
    mine = sql.SQL("SELECT t.tableoid, t.ctid, {} AS digest FROM {} AS t WHERE {}").format(
        digest("t", one.text_of), one.table.rows, ours(header)
    )
    conn.execute(
        sql.SQL(
            "UPDATE {} AS k SET part = n.tableoid, place = n.ctid FROM (SELECT m.*, row_number() OVER"
            " (PARTITION BY m.digest) AS number FROM ({}) AS m) AS n WHERE n.digest = k.k1 AND n.number = k.k2"
        ).format(one.keys, mine)
    )


def _create(conn: Connection, entry: UndoTable, number: int) -> Kept:
    table = describe(conn, entry.name)
    columns = entry.columns if isinstance(entry, UndoAmended) else ()
    if table is None or not _as_it_was(table, entry) or not table.has(columns):
        raise NotFound(
            f"table {entry.name} with key ({', '.join(entry.key)}) and these columns does not exist any more: "
            f"{', '.join(columns) or 'none besides'}",
            safe=_SAFE,
            next_step="it was altered after the run; compare the rows by hand with the undo file",
        )
    kept = Kept(table, number, columns, entry.key if entry.copies else ())
    parts = [key_types("t", kept.key)]
    parts += [fields("t", columns, renamed=kept.w)] if columns else []
    parts += [sql.SQL("t.tableoid AS part, t.ctid AS place").format()] if entry.copies else []
    conn.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} AS t WHERE false").format(
            kept.keys, sql.SQL(", ").join(parts), table.rows
        )
    )
    return kept


def _as_it_was(table: Table, entry: UndoTable) -> bool:
    if entry.copies:
        return table.has(entry.key)
    return table.row_key is not None and table.row_key.columns == entry.key


def ours(header: UndoHeader) -> sql.Composed:
    """Row t is still as the run inserted it."""
    return sql.SQL("t.xmin = {}::xid").format(header.xmin)


def changed(conn: Connection, one: Kept, header: UndoHeader) -> Listed:
    """Rows that are there, but were written by another transaction since."""
    return listed(conn, sql.SQL("{} WHERE NOT {}").format(one.joined("JOIN"), ours(header)), "k", one.k)


def gone(conn: Connection, one: Kept) -> Listed:
    return listed(conn, sql.SQL("{} WHERE t.xmin IS NULL").format(one.joined("LEFT JOIN")), "k", one.k)
