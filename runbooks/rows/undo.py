"""Take a recovery back: delete exactly the rows it inserted, and give those it changed what they held before; as far as
nobody has changed them since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from psycopg import sql

from runbooks.clients.postgres import Connection, Identity, translated
from runbooks.model.errors import Refused
from runbooks.model.record import Record
from runbooks.rows import triggers
from runbooks.rows.changes import Counts, Watch
from runbooks.rows.compose import fields, points_at, same_numbers
from runbooks.rows.listed import Listed
from runbooks.rows.names import TableName
from runbooks.rows.plan import check_names, insert_order, sort_triggers
from runbooks.rows.shape import ForeignKey, Table, Trigger
from runbooks.rows.transaction import (
    ROLLED_BACK,
    as_application,
    check_unchanged,
    commit,
    comparing,
    current_xid,
    lock,
    naming_blockers,
    writing,
)
from runbooks.rows.undo_file import UndoHeader, read_header
from runbooks.rows.undo_keys import Kept, changed, check_committed, gone, load, ours


class UndoneTable(Record):
    """In a plan `rows` are to be deleted, or given back what they held; in a result they are."""

    target: Table
    rows: int
    changed: Listed
    """Changed by others since; they stay."""
    gone: Listed
    """Deleted by others since."""

    @property
    def name(self) -> TableName:
        return self.target.name


class UndoPlan(Record):
    run: str
    """The recovery that is taken back."""
    database: Identity
    recovery_xid: int
    tables: tuple[UndoneTable, ...]
    """Of which rows are deleted."""
    amended: tuple[UndoneTable, ...]
    """Of which rows get back what they held; a table may be here several times, once for each foreign key."""
    order: tuple[tuple[TableName, ...], ...]
    """Children before parents: every table that is written to."""
    suppressed: tuple[Trigger, ...]
    fired: tuple[Trigger, ...]

    @property
    def rows(self) -> int:
        """Rows to delete or to change."""
        return self.deletes + self.reverts

    @property
    def deletes(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def reverts(self) -> int:
        return sum(table.rows for table in self.amended)


class Undone(Record):
    run: str
    xid: int | None
    """The deleting transaction; None if there was nothing to delete or change."""
    tables: tuple[UndoneTable, ...]
    amended: tuple[UndoneTable, ...]

    @property
    def deleted(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def reverted(self) -> int:
        return sum(table.rows for table in self.amended)


def survey_undo(production: Connection, undo_path: Path, *, accept_triggers: Iterable[str] = ()) -> UndoPlan:
    """Which rows of the undo file would be deleted or changed back, and which stay. Changes nothing.

    Raises WrongTarget, LocalFault, ProofFailed and CouldNotVerify as `check_committed`; Refused if a delete would touch
    other rows (they are named), or fire a trigger that we may not switch off and that is not in `accept_triggers`.
    """
    header = read_header(undo_path)
    check_committed(production, header)
    with translated("look for the rows to take back", safe="nothing was changed"), comparing(production):
        kept = load(production, undo_path, header)
        _refuse_if_others_point_there(production, kept, header)
        looked = tuple(_look(production, one, header) for one in kept)
    tables, amended = looked[: len(header.tables)], looked[len(header.tables) :]
    accepted = frozenset(accept_triggers)
    check_names((table.target for table in looked), accepted)
    deletes = [(table.target, "delete") for table in tables if table.rows]
    updates = [(table.target, "update") for table in amended if table.rows]
    suppressed, fired = sort_triggers([*deletes, *updates], accepted)
    written = {table.name: table for table, _ in [*deletes, *updates]}
    return UndoPlan(
        run=header.run,
        database=header.database,
        recovery_xid=header.xid,
        tables=tables,
        amended=amended,
        order=tuple(reversed(insert_order(written.values()))),
        suppressed=suppressed,
        fired=fired,
    )


def _look(production: Connection, one: Kept, header: UndoHeader) -> UndoneTable:
    rows = _count(production, sql.SQL("{} WHERE {}").format(one.joined("JOIN"), ours(header)))
    return UndoneTable(
        target=one.table, rows=rows, changed=changed(production, one, header), gone=gone(production, one)
    )


def apply_undo(
    production: Connection, plan: UndoPlan, *, undo_path: Path, before_commit: Callable[[Undone], None]
) -> Undone:
    """Delete the rows of `plan` that still are as the run inserted them; all in one transaction, or nothing.

    Rows that were changed since stay and are listed. Sequences are not moved back. The caller holds the recovery lock;
    `before_commit` is as in `apply`. Safe to repeat: what is gone is not looked for again.
    """
    header = read_header(undo_path)
    check_committed(production, header)
    if (header.run, header.xid) != (plan.run, plan.recovery_xid):
        raise Refused(
            f"{undo_path} is not the undo file the plan was made from",
            safe="nothing was deleted",
            next_step="start a new run: invoke recover.undo with the recovery's id",
        )
    if not plan.rows:
        return Undone(run=plan.run, xid=None, tables=plan.tables, amended=plan.amended)
    with translated("take the rows back", safe=ROLLED_BACK), writing(production):
        watch = Watch.begin(production)
        done, reverted = _take_back(production, plan, undo_path, header)
        watch.prove_only(_tally(done, reverted))
        xid = current_xid(production)
        undone = Undone(run=plan.run, xid=xid, tables=done, amended=reverted)
        before_commit(undone)
        commit(production, xid)
    return undone


def _tally(done: Sequence[UndoneTable], reverted: Sequence[UndoneTable]) -> Counts:
    deleted = {table.target.oid: table.rows for table in done}
    updated: dict[int, int] = {}
    for table in reverted:
        updated[table.target.oid] = updated.get(table.target.oid, 0) + table.rows
    return {oid: (0, updated.get(oid, 0), deleted.get(oid, 0)) for oid in {*deleted, *updated}}


def _take_back(
    production: Connection, plan: UndoPlan, undo_path: Path, header: UndoHeader
) -> tuple[tuple[UndoneTable, ...], tuple[UndoneTable, ...]]:
    # Locked parents first, as an application does it: the other way round we would deadlock with it.
    written = {table.name: table.target for table in (*plan.tables, *plan.amended) if table.rows}
    tables = [written[name] for group in reversed(plan.order) for name in group]
    lock(production, tables, {table.name for table in tables if set(table.triggers) & set(plan.suppressed)})
    check_unchanged(production, tables)
    kept = load(production, undo_path, header)
    inserted, amended = kept[: len(header.tables)], kept[len(header.tables) :]
    before = triggers.states(production, [oid for table in tables for oid in table.tree])
    triggers.switch_off(production, plan.suppressed)
    counts: dict[TableName, int] = {}
    with naming_blockers(production, tables), as_application(production):
        # Before anything is deleted: a pointer that was set again would keep its parent, or be cleared with it.
        reverted = [_revert(production, one, header) for one in amended]
    _refuse_if_others_point_there(production, kept, header)
    with naming_blockers(production, tables), as_application(production):
        for group in plan.order:
            filled = [one for one in inserted if one.table.name in group]
            if filled:
                counts |= _delete_group(production, filled, header)
        production.execute("SET CONSTRAINTS ALL IMMEDIATE")
    triggers.put_back(production, plan.suppressed, before)
    done = tuple(_undone(production, one, counts.get(one.table.name, 0), header) for one in inserted)
    taken_back = tuple(_undone(production, one, rows, header) for one, rows in zip(amended, reverted, strict=True))
    return done, taken_back


def _undone(production: Connection, one: Kept, rows: int, header: UndoHeader) -> UndoneTable:
    return UndoneTable(
        target=one.table, rows=rows, changed=changed(production, one, header), gone=gone(production, one)
    )


def _revert(production: Connection, one: Kept, header: UndoHeader) -> int:
    """Give the rows that still are as the run left them what they held; what was done leaves the list of keys."""
    sets = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("k", w))
        for name, w in zip(one.columns, one.w, strict=True)
    )
    # A row with two pointers is set twice by us: then it carries our own mark already.
    return production.execute(
        sql.SQL(
            "WITH reverted AS (UPDATE {table} AS t SET {sets} FROM {keys} AS k"
            " WHERE {same} AND (t.xmin = pg_current_xact_id()::xid OR {ours}) RETURNING {k})"
            " DELETE FROM {keys} AS x USING reverted AS d WHERE {same_again}"
        ).format(
            table=one.table.rows,
            sets=sets,
            keys=one.keys,
            same=one.same("k", "t"),
            ours=ours(header),
            k=fields("k", one.k),
            same_again=same_numbers("x", one.key, "d"),
        )
    ).rowcount


def _delete_group(production: Connection, group: Sequence[Kept], header: UndoHeader) -> dict[TableName, int]:
    """Delete in tables that may point at each other, by one statement: foreign keys are checked at its end."""
    # What was deleted leaves the list of keys too, so that what is left there is changed or gone.
    parts = sql.SQL(", ").join(
        sql.SQL(
            "{deleted} AS (DELETE FROM {table} AS t USING {keys} AS k WHERE {same} AND {ours} RETURNING {k}),"
            " {noted} AS (DELETE FROM {keys} AS x USING {deleted} AS d WHERE {same_again})"
        ).format(
            deleted=sql.Identifier(f"deleted_{one.number}"),
            noted=sql.Identifier(f"noted_{one.number}"),
            table=one.table.rows,
            keys=one.keys,
            same=one.same("k", "t"),
            ours=ours(header),
            k=fields("k", one.k),
            same_again=same_numbers("x", one.key, "d"),
        )
        for one in group
    )
    counts = sql.SQL(", ").join(
        sql.SQL("(SELECT count(*) FROM {})").format(sql.Identifier(f"deleted_{one.number}")) for one in group
    )
    row = production.execute(sql.SQL("WITH {} SELECT {}").format(parts, counts)).fetchone()
    assert row is not None
    return {one.table.name: int(count) for one, count in zip(group, row, strict=True)}


def _refuse_if_others_point_there(production: Connection, kept: tuple[Kept, ...], header: UndoHeader) -> None:
    """A row that points at one to be deleted would be deleted or altered with it, or forbid it."""
    found = [
        f"{count} rows of {tie.child} through foreign key {tie.name} (on delete {tie.on_delete})"
        for parent in kept
        if not parent.columns
        for tie in parent.table.children
        if (count := _pointing(production, parent, tie, kept, header))
    ]
    if found:
        raise Refused(
            f"rows that stay point at rows of run {header.run}: {'; '.join(found)}",
            safe="nothing was deleted",
            next_step="they are newer than the recovery, or were changed since; remove them or let them point "
            "elsewhere, then run the same command again",
        )


def _pointing(production: Connection, parent: Kept, tie: ForeignKey, kept: tuple[Kept, ...], header: UndoHeader) -> int:
    """Rows that point at rows to be deleted and are not to be deleted themselves."""
    rows = sql.SQL("{} JOIN {} AS c ON {} WHERE {}").format(
        parent.joined("JOIN"), tie.child_rows, points_at("c", tie, "t"), ours(header)
    )
    for child in (one for one in kept if one.table.name == tie.child):
        leaving = sql.SQL("SELECT FROM {} AS x WHERE {} AND c.xmin = {}::xid").format(
            child.keys, child.same("x", "c"), header.xmin
        )
        rows = sql.SQL("{} AND NOT EXISTS ({})").format(rows, leaving)
    return _count(production, rows)


def _count(production: Connection, rows: sql.Composed) -> int:
    row = production.execute(sql.SQL("SELECT count(*) FROM {}").format(rows)).fetchone()
    assert row is not None
    return int(row[0])
