"""After COMMIT, in fresh sessions: is every row that was brought back there, and as it was before the incident?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from psycopg import sql

from runbooks.clients.postgres import Connection, prove, prove_apart, translated
from runbooks.model.errors import LocalFault
from runbooks.model.record import Record
from runbooks.rows.applied import Applied, AppliedTable
from runbooks.rows.compose import fields, row_text, same_key
from runbooks.rows.fit import common_columns
from runbooks.rows.found import FoundTable
from runbooks.rows.listed import NONE, Listed, listed
from runbooks.rows.plan import Plan
from runbooks.rows.transaction import comparing
from runbooks.rows.undo_file import UndoHeader, read_header
from runbooks.rows.undo_keys import Kept, changed, check_committed, gone, load, ours

_SENT = sql.Identifier("pg_temp", "bloom_proof")


class ProvedTable(Record):
    result: AppliedTable
    proved: int
    """Rows that carry our transaction's mark and equal the branch's, byte for byte of their text."""
    changed: Listed
    """Rows that somebody wrote to after us. They were proved equal before COMMIT, and are not compared again."""
    gone: Listed
    """Rows that somebody deleted after us."""
    different: Listed
    """Rows that carry our mark and do not equal the branch's. There must be none."""

    @property
    def holds(self) -> bool:
        seen = self.proved + self.changed.count + self.gone.count
        return self.result.adds_up and self.different.count == 0 and seen == self.result.inserted


class Proof(Record):
    verdict: Literal["passed", "failed"]
    """What could not be carried out raises, and is no proof."""
    tables: tuple[ProvedTable, ...]

    @property
    def proved(self) -> int:
        return sum(table.proved for table in self.tables)

    @property
    def changed_since(self) -> int:
        """Rows that others changed or deleted between COMMIT and this proof."""
        return sum(table.changed.count + table.gone.count for table in self.tables)


def prove_recovery(production: Connection, branch: Connection, plan: Plan, applied: Applied) -> Proof:
    """Compare what `applied` inserted with the branch. Changes nothing; safe to repeat.

    Raises WrongTarget, LocalFault (undo file), ProofFailed (the transaction was rolled back), CouldNotVerify (the
    server does not remember it), and the database's own errors.
    """
    prove(production, plan.found.production)
    prove(branch, plan.found.branch)
    prove_apart(production, branch)
    proved: Mapping[int, ProvedTable] = {}
    if applied.xid is not None and applied.undo is not None:
        path = Path(applied.undo)
        header = _header(path, applied)
        check_committed(production, header)
        with translated("prove the rows", safe="nothing was changed"), comparing(production), comparing(branch):
            kept = load(production, path, header)
            proved = {one.table.oid: _compare(production, branch, plan, applied, header, one) for one in kept}
    tables = tuple(
        proved.get(table.target.oid)
        or ProvedTable(result=_result(applied, table), proved=0, changed=NONE, gone=NONE, different=NONE)
        for table in plan.found.tables
    )
    return Proof(verdict="passed" if all(table.holds for table in tables) else "failed", tables=tables)


def _header(path: Path, applied: Applied) -> UndoHeader:
    header = read_header(path)
    if (header.run, header.xid) != (applied.run, applied.xid):
        raise LocalFault(
            f"{path} is of run {header.run}, transaction {header.xid}, and not of {applied.run}, {applied.xid}",
            safe="nothing was changed",
            next_step="put the run's own undo file back, then run the same command again",
        )
    return header


def _result(applied: Applied, table: FoundTable) -> AppliedTable:
    return next(result for result in applied.tables if result.name == table.name)


def _compare(
    production: Connection, branch: Connection, plan: Plan, applied: Applied, header: UndoHeader, one: Kept
) -> ProvedTable:
    found = plan.table(one.table.name)
    names = tuple(column.name for column in common_columns(found.source, one.table))
    _send_digests(production, branch, found, header, one, names)
    proved, different = _equal_on_branch(branch, found, one, names)
    return ProvedTable(
        result=_result(applied, found),
        proved=proved,
        changed=changed(production, one, header),
        gone=gone(production, one),
        different=different,
    )


def _send_digests(
    production: Connection,
    branch: Connection,
    found: FoundTable,
    header: UndoHeader,
    one: Kept,
    names: tuple[str, ...],
) -> None:
    """Key and MD5 of each row that is still ours, from production to a temporary table of the branch's session."""
    branch.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_SENT))
    branch.execute(
        sql.SQL(
            "CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {}, ''::text AS md5 FROM {} AS t WHERE false"
        ).format(_SENT, fields("t", one.table.key.columns, renamed=one.k), found.source.name.identifier)
    )
    out = sql.SQL("COPY (SELECT {}, md5({}) FROM {} WHERE {}) TO STDOUT").format(
        fields("k", one.k), row_text("t", names), one.joined("JOIN"), ours(header)
    )
    into = sql.SQL("COPY {} FROM STDIN").format(_SENT)
    with production.cursor() as reader, branch.cursor() as writer:
        with reader.copy(out) as outgoing, writer.copy(into) as incoming:
            for block in outgoing:
                incoming.write(block)
    branch.execute(sql.SQL("ANALYZE {}").format(_SENT))


def _equal_on_branch(branch: Connection, found: FoundTable, one: Kept, names: tuple[str, ...]) -> tuple[int, Listed]:
    # A row that the branch does not have is different too.
    rows = sql.SQL("{} AS k LEFT JOIN {} AS t ON {}").format(
        _SENT, found.source.name.identifier, same_key("k", found.source.key, "t")
    )
    same = sql.SQL("t.xmin IS NOT NULL AND k.md5 = md5({})").format(row_text("t", names))
    row = branch.execute(sql.SQL("SELECT count(*), count(*) FILTER (WHERE {}) FROM {}").format(same, rows)).fetchone()
    assert row is not None
    sent, proved = row
    if sent == proved:
        return proved, NONE
    return proved, listed(branch, sql.SQL("{} WHERE NOT ({})").format(rows, same), "k", one.k)
