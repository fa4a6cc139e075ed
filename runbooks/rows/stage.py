"""Bring the planned rows from the branch to production's session: typed by the servers, proved equal on arrival."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.model.errors import ProofFailed
from runbooks.rows.compose import checksum, fields, key_types, numbered, row_text, same_key, scratch
from runbooks.rows.fit import common_columns
from runbooks.rows.found import FoundTable
from runbooks.rows.names import TableName
from runbooks.rows.shape import COPIES, Column, UniqueKey

_CHUNK = 1 << 16
_TELL_EVERY = 100_000


@dataclass(frozen=True)
class Staged:
    """One table's rows in production's session, before they are inserted.

    `rows` (c1, c2, ...: all common columns, generated ones too) and `fates` (k1, k2, ..., fate) are temporary tables.
    Of a table without a key, `rows` has what stands for it, too (k1, k2).
    """

    table: FoundTable
    number: int

    @property
    def name(self) -> TableName:
        return self.table.name

    @property
    def rows(self) -> sql.Identifier:
        return sql.Identifier("pg_temp", f"bloom_rows_{self.number}")

    @property
    def fates(self) -> sql.Identifier:
        return sql.Identifier("pg_temp", f"bloom_fates_{self.number}")

    @property
    def key(self) -> UniqueKey:
        return self.table.target.key

    @property
    def k(self) -> tuple[str, ...]:
        return numbered(len(self.key.columns))

    @property
    def columns(self) -> tuple[Column, ...]:
        return common_columns(self.table.source, self.table.target)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def c(self) -> tuple[str, ...]:
        return numbered(len(self.columns), "c")

    @property
    def sent(self) -> tuple[str, ...]:
        """The columns of the past that arrive in `held`."""
        return (*self.names, *COPIES.columns) if self.table.keyless else self.names

    @property
    def held(self) -> tuple[str, ...]:
        """All columns of `rows`."""
        return (*self.c, *self.k) if self.table.keyless else self.c

    def staged(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """The names in `rows` of columns of the table."""
        places = dict(zip(self.sent, self.held, strict=True))
        return tuple(places[name] for name in columns)


def stage(production: Connection, branch: Connection, staged: Staged, progress: Callable[[str], None] | None) -> None:
    """Copy the planned rows into temporary tables. ProofFailed unless as many and the same arrived.

    Call inside a transaction on both sides. The bytes of COPY pass through unread.
    """
    _create_temporary(production, staged)
    selected = sql.SQL("{} AS t JOIN {} AS f ON {} WHERE f.state = 'missing'").format(
        staged.table.past,
        scratch(staged.table.keys_table),
        same_key("f", staged.table.source.key, "t"),
    )
    reading = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(fields("t", staged.sent), selected)
    writing = sql.SQL("COPY {} ({}) FROM STDIN").format(staged.rows, fields(None, staged.held))
    copy(
        branch,
        reading,
        production,
        writing,
        lambda rows, octets: (
            progress
            and progress(f"{staged.name}: {rows:,} of {staged.table.missing:,} rows sent, {octets / 1e6:,.0f} MB")
        ),
    )
    production.execute(sql.SQL("ANALYZE {}").format(staged.rows))
    sent = _fingerprint(branch, row_text("t", staged.sent), selected)
    arrived = _fingerprint(production, row_text("s", staged.held), sql.SQL("{} AS s").format(staged.rows))
    if sent != arrived or sent[0] != staged.table.missing:
        raise ProofFailed(
            f"of {staged.name}, the plan has {staged.table.missing} rows, the branch sent {sent} (rows, checksum) and "
            f"{arrived} arrived",
            safe="the transaction was rolled back; production is as it was",
            next_step="run the same command again; if it fails again, report it with this message",
        )


def _create_temporary(production: Connection, staged: Staged) -> None:
    # From the table itself, so that every column has its type, modifiers and collation.
    source = staged.table.target.rows
    rows, key = fields("t", staged.names, renamed=staged.c), key_types("t", staged.key)
    for name, columns in (
        (staged.rows, sql.SQL("{}, {}").format(rows, key) if staged.table.keyless else rows),
        (staged.fates, sql.SQL("{}, ''::text AS fate").format(key)),
    ):
        production.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} AS t WHERE false").format(
                name, columns, source
            )
        )


def copy(
    source: Connection,
    reading: sql.Composed,
    target: Connection,
    writing: sql.Composed,
    tell: Callable[[int, int], object],
) -> None:
    """Pass the bytes of one COPY to another; `tell` hears the rows and bytes so far, now and then."""
    rows, octets, waiting = 0, 0, bytearray()
    with source.cursor() as reader, target.cursor() as writer:
        with reader.copy(reading) as outgoing, writer.copy(writing) as incoming:
            for block in outgoing:
                waiting += block
                octets += len(block)
                rows += 1
                if len(waiting) >= _CHUNK:
                    incoming.write(bytes(waiting))
                    waiting.clear()
                if rows % _TELL_EVERY == 0:
                    tell(rows, octets)
            incoming.write(bytes(waiting))


def _fingerprint(conn: Connection, text: sql.Composed, rows: sql.Composed) -> tuple[int, str]:
    row = conn.execute(sql.SQL("SELECT count(*), {} FROM {}").format(checksum(text), rows)).fetchone()
    assert row is not None
    return int(row[0]), str(row[1])
