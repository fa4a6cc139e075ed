"""Take a recovery back: delete exactly the rows it inserted, as far as nobody has changed them since."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from psycopg import sql

from runbooks.clients.postgres import Connection, Identity, translated
from runbooks.model.errors import Refused
from runbooks.model.record import Record
from runbooks.rows import triggers
from runbooks.rows.changes import Watch
from runbooks.rows.compose import fields, points_at, same_key, same_numbers
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
    """In a plan `rows` are to be deleted; in a result they are deleted."""

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
    order: tuple[tuple[TableName, ...], ...]
    """Children before parents."""
    suppressed: tuple[Trigger, ...]
    fired: tuple[Trigger, ...]

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


class Undone(Record):
    run: str
    xid: int | None
    """The deleting transaction; None if there was nothing to delete."""
    tables: tuple[UndoneTable, ...]

    @property
    def deleted(self) -> int:
        return sum(table.rows for table in self.tables)


def survey_undo(production: Connection, undo_path: Path, *, accept_triggers: Iterable[str] = ()) -> UndoPlan:
    """Which rows of the undo file would be deleted, and which stay. Changes nothing.

    Raises WrongTarget, LocalFault, ProofFailed and CouldNotVerify as `check_committed`; Refused if a delete would touch
    other rows (they are named), or fire a trigger that we may not switch off and that is not in `accept_triggers`.
    """
    header = read_header(undo_path)
    check_committed(production, header)
    with translated("look for the rows to take back", safe="nothing was changed"), comparing(production):
        kept = load(production, undo_path, header)
        _refuse_if_others_point_there(production, kept, header)
        tables = tuple(_look(production, one, header) for one in kept)
    filled = [table.target for table in tables if table.rows]
    accepted = frozenset(accept_triggers)
    check_names((table.target for table in tables), accepted)
    suppressed, fired = sort_triggers(filled, "delete", accepted)
    return UndoPlan(
        run=header.run,
        database=header.database,
        recovery_xid=header.xid,
        tables=tables,
        order=tuple(reversed(insert_order(filled))),
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
        return Undone(run=plan.run, xid=None, tables=plan.tables)
    with translated("take the rows back", safe=ROLLED_BACK), writing(production):
        watch = Watch.begin(production)
        done = _delete(production, plan, undo_path, header)
        watch.prove_only({table.target.oid: (0, 0, table.rows) for table in done})
        xid = current_xid(production)
        undone = Undone(run=plan.run, xid=xid, tables=done)
        before_commit(undone)
        commit(production, xid)
    return undone


def _delete(production: Connection, plan: UndoPlan, undo_path: Path, header: UndoHeader) -> tuple[UndoneTable, ...]:
    # Locked parents first, as an application does it: the other way round we would deadlock with it.
    filled = {table.name: table.target for table in plan.tables if table.rows}
    tables = [filled[name] for group in reversed(plan.order) for name in group]
    lock(production, tables, {table.name for table in tables if set(table.triggers) & set(plan.suppressed)})
    check_unchanged(production, tables)
    kept = load(production, undo_path, header)
    _refuse_if_others_point_there(production, kept, header)
    before = triggers.states(production, [oid for table in tables for oid in table.tree])
    triggers.switch_off(production, plan.suppressed)
    counts: dict[TableName, int] = {}
    with naming_blockers(production, tables), as_application(production):
        for group in plan.order:
            counts |= _delete_group(production, [one for one in kept if one.table.name in group], header)
        production.execute("SET CONSTRAINTS ALL IMMEDIATE")
    triggers.put_back(production, plan.suppressed, before)
    return tuple(
        UndoneTable(
            target=one.table,
            rows=counts.get(one.table.name, 0),
            changed=changed(production, one, header),
            gone=gone(production, one),
        )
        for one in kept
    )


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
            table=one.table.name.identifier,
            keys=one.keys,
            same=same_key("k", one.table.key, "t"),
            ours=ours(header),
            k=fields("k", one.k),
            same_again=same_numbers("x", one.table.key, "d"),
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
        parent.joined("JOIN"), tie.child.identifier, points_at("c", tie, "t"), ours(header)
    )
    child = next((one for one in kept if one.table.name == tie.child), None)
    if child is not None:
        leaving = sql.SQL("SELECT FROM {} AS x WHERE {} AND c.xmin = {}::xid").format(
            child.keys, same_key("x", child.table.key, "c"), header.xmin
        )
        rows = sql.SQL("{} AND NOT EXISTS ({})").format(rows, leaving)
    return _count(production, rows)


def _count(production: Connection, rows: sql.Composed) -> int:
    row = production.execute(sql.SQL("SELECT count(*) FROM {}").format(rows)).fetchone()
    assert row is not None
    return int(row[0])
