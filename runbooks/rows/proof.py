"""After COMMIT, in fresh sessions: is every row that was brought back there, and as it was before the incident?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from psycopg import sql

from runbooks.clients.postgres import Connection, prove, prove_apart, translated
from runbooks.model.errors import LocalFault
from runbooks.model.record import Record
from runbooks.rows.applied import AmendedTable, Applied, AppliedTable
from runbooks.rows.compose import equal, fields, key_types, numbered, row_text, same_key, same_numbers, scratch
from runbooks.rows.fit import common_columns
from runbooks.rows.found import FoundTable
from runbooks.rows.listed import NONE, Listed, listed
from runbooks.rows.plan import Plan
from runbooks.rows.presence import by_key
from runbooks.rows.search import Search
from runbooks.rows.survey import snapshot_of
from runbooks.rows.transaction import comparing
from runbooks.rows.undo_file import UndoAmended, UndoHeader, read_header
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
    lost_since: Listed
    """Rows asked for that were there at the survey and are not any more: a delete that goes on."""

    @property
    def holds(self) -> bool:
        seen = self.proved + self.changed.count + self.gone.count
        # Rows lost since the survey are told, but say nothing against those that were brought back.
        return self.result.adds_up and self.different.count == 0 and seen == self.result.inserted


class ProvedAmendment(Record):
    """Rows that were set back, after the commit."""

    result: AmendedTable
    proved: int
    """Rows that carry our transaction's mark and read, in the columns set, as they did."""
    changed: Listed
    gone: Listed
    different: Listed
    """Rows that carry our mark and do not read so. There must be none."""

    @property
    def holds(self) -> bool:
        seen = self.proved + self.changed.count + self.gone.count
        return self.different.count == 0 and seen == self.result.done


class Proof(Record):
    verdict: Literal["passed", "failed"]
    """What could not be carried out raises, and is no proof."""
    tables: tuple[ProvedTable, ...]
    amended: tuple[ProvedAmendment, ...]

    @property
    def proved(self) -> int:
        """Rows inserted."""
        return sum(table.proved for table in self.tables)

    @property
    def proved_set_back(self) -> int:
        return sum(one.proved for one in self.amended)

    @property
    def changed(self) -> int:
        """Rows that others changed between COMMIT and this proof."""
        return sum(table.changed.count for table in self.tables)

    @property
    def gone(self) -> int:
        """Rows that others deleted between COMMIT and this proof."""
        return sum(table.gone.count for table in self.tables)


def prove_recovery(
    production: Connection,
    branch: Connection,
    plan: Plan,
    applied: Applied,
    *,
    progress: Callable[[str], None] | None = None,
) -> Proof:
    """Compare what `applied` wrote with the branch, and look whether the other rows asked for are there still.

    Changes nothing in production; safe to repeat. Raises WrongTarget, LocalFault (undo file), ProofFailed (the
    transaction was rolled back), CouldNotVerify (the server does not remember it), and the database's own errors.
    """
    prove(production, plan.found.production)
    prove(branch, plan.found.branch)
    prove_apart(production, branch)
    proved: Mapping[int, ProvedTable] = {}
    amended: tuple[ProvedAmendment, ...] = ()
    if applied.xid is not None and applied.undo is not None:
        path = Path(applied.undo)
        header = _header(path, applied)
        check_committed(production, header)
        with translated("prove the rows", safe="nothing was changed"), comparing(production), comparing(branch):
            kept = load(production, path, header)
            inserted = kept[: len(header.tables)]
            proved = {one.table.oid: _compare(production, branch, plan, applied, header, one) for one in inserted}
            amended = tuple(
                _compare_amended(production, branch, header, *each)
                for each in zip(kept[len(header.tables) :], header.amended, applied.amended, strict=True)
            )
    with translated("look for the rows asked for", safe="nothing was changed"), snapshot_of(production) as snapshot:
        search = Search(branch, snapshot, progress)
        lost = {table.target.oid: _lost_since(search, table) for table in plan.found.tables}
    tables = tuple(
        _nothing_inserted(_result(applied, table)).model_copy(
            update={**dict(proved.get(table.target.oid, ())), "lost_since": lost[table.target.oid]}
        )
        for table in plan.found.tables
    )
    holds = all(table.holds for table in tables) and all(one.holds for one in amended)
    return Proof(verdict="passed" if holds else "failed", tables=tables, amended=amended)


def _nothing_inserted(result: AppliedTable) -> ProvedTable:
    return ProvedTable(result=result, proved=0, changed=NONE, gone=NONE, different=NONE, lost_since=NONE)


def _lost_since(search: Search, found: FoundTable) -> Listed:
    """Of the rows that the survey saw in production, those that are not there any more."""
    if not found.already_there:
        return NONE
    k, keys = numbered(len(found.source.key.columns)), scratch(found.keys_table)
    parts = [sql.SQL("SELECT {} FROM {} WHERE cascaded AND state = 'there'").format(fields(None, k), keys)]
    if found.named or found.keyless:
        asked: sql.Composable = scratch(found.asked_table) if found.asked_table else found.source.rows
        names = k if found.asked_table else found.source.key.columns
        if found.keyless:  # those of a cascade are kept in one place with the others
            asked, names, parts = found.past, found.source.key.columns, []
        away = sql.SQL("SELECT FROM {} AS f WHERE {} AND f.state IN ('missing', 'conflict')").format(
            keys, equal("f", k, found.source.key.equals, "v", names)
        )
        parts.append(
            sql.SQL("SELECT {} FROM {} AS v WHERE NOT EXISTS ({})").format(fields("v", names, renamed=k), asked, away)
        )
    query = sql.SQL(" UNION ALL ").join(parts)
    lookup = by_key(found.source, found.target, found.target.key, query)
    with search.present(lookup, found.already_there, f"keys of {found.name}, once more") as present:
        absent = sql.SQL("({}) AS v WHERE NOT EXISTS (SELECT FROM {} AS p WHERE {})").format(
            query, present, same_numbers("p", found.target.key, "v")
        )
        return listed(search.branch, absent, "v", k)


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
    _send_digests(production, branch, found.source.rows, header, one, names)
    past = sql.SQL("{} AS t ON {}").format(found.past, same_key("k", found.source.key, "t"))
    there = sql.Identifier("t", one.table.key.columns[0])
    proved, different = _equal_on_branch(branch, one, past, there, row_text("t", names))
    return ProvedTable(
        result=_result(applied, found),
        proved=proved,
        changed=changed(production, one, header),
        gone=gone(production, one),
        different=different,
        lost_since=NONE,
    )


def _compare_amended(
    production: Connection, branch: Connection, header: UndoHeader, one: Kept, entry: UndoAmended, result: AmendedTable
) -> ProvedAmendment:
    _send_digests(production, branch, one.table.rows, header, one, entry.compared)
    past = sql.SQL("{} AS t ON {}").format(scratch(entry.rows_table), same_numbers("k", one.table.key, "t"))
    text = row_text("t", numbered(len(entry.compared), "v"))
    proved, different = _equal_on_branch(branch, one, past, sql.Identifier("t", "k1"), text)
    return ProvedAmendment(
        result=result,
        proved=proved,
        changed=changed(production, one, header),
        gone=gone(production, one),
        different=different,
    )


def _send_digests(
    production: Connection,
    branch: Connection,
    table: sql.Composable,
    header: UndoHeader,
    one: Kept,
    names: tuple[str, ...],
) -> None:
    """Key and MD5 of each row that is still ours, from production to a temporary table of the branch's session."""
    branch.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_SENT))
    branch.execute(
        sql.SQL(
            "CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {}, ''::text AS md5 FROM {} AS t WHERE false"
        ).format(_SENT, key_types("t", one.key), table)
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


def _equal_on_branch(
    branch: Connection, one: Kept, past: sql.Composed, there: sql.Identifier, text: sql.Composed
) -> tuple[int, Listed]:
    # A row that the branch does not have is different too: then the column of its key is null.
    rows = sql.SQL("{} AS k LEFT JOIN {}").format(_SENT, past)
    same = sql.SQL("{} IS DISTINCT FROM NULL AND k.md5 = md5({})").format(there, text)
    row = branch.execute(sql.SQL("SELECT count(*), count(*) FILTER (WHERE {}) FROM {}").format(same, rows)).fetchone()
    assert row is not None
    sent, proved = row
    if sent == proved:
        return proved, NONE
    return proved, listed(branch, sql.SQL("{} WHERE NOT ({})").format(rows, same), "k", one.k)
