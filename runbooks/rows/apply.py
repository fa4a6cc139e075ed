"""Bring the planned rows back to production, in one transaction, exactly or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from psycopg import sql

from runbooks.clients.postgres import Connection, Outcome, identity, outcome, prove, prove_apart, translated
from runbooks.model.errors import Refused
from runbooks.model.run_id import RunId
from runbooks.rows import insert, triggers, undo_file
from runbooks.rows.applied import Applied, AppliedTable
from runbooks.rows.changes import Watch
from runbooks.rows.compose import fields, numbered, scratch
from runbooks.rows.plan import Plan
from runbooks.rows.sequences import SequenceMove, extreme_id, left_alone, stands_at, target
from runbooks.rows.shape import Sequence, Table
from runbooks.rows.stage import Staged, stage
from runbooks.rows.survey import key_checksum
from runbooks.rows.transaction import (
    ROLLED_BACK,
    as_application,
    check_unchanged,
    commit,
    current_xid,
    lock,
    naming_blockers,
    reading,
    writing,
)
from runbooks.rows.undo_file import Key, UndoHeader, UndoTable

_NOT_BEGUN = "nothing was written to production"


def apply(
    production: Connection,
    branch: Connection,
    plan: Plan,
    *,
    run_id: RunId | str,
    undo_path: Path,
    before_commit: Callable[[Applied], None],
    progress: Callable[[str], None] | None = None,
) -> Applied:
    """Insert the rows of `plan`. Every proof that can be had before COMMIT is had, or everything is rolled back.

    `production` and `branch` are sessions outside a transaction; the caller holds the recovery lock. When the undo file
    is on disk and nothing but COMMIT is left, `before_commit` is given the result: write it down, and a run that was
    killed afterwards learns from `outcome(conn, applied.xid)` whether it came true. Safe to repeat:
    rows that are there already stay as they are.

    Raises WrongTarget, Refused (keys or tables are not as planned, or the undo file of a committed run is in the way),
    TableLocked, ProofFailed, CouldNotVerify (also when the connection broke at COMMIT), and the database's own errors.
    """
    prove(production, plan.found.production)
    prove(branch, plan.found.branch)
    prove_apart(production, branch)
    with translated("bring the rows back", safe=ROLLED_BACK):
        _check_keys(branch, plan)
        if not plan.rows:
            return _nothing(plan, str(run_id))
        _check_undo_path(production, undo_path)
        with writing(production):
            watch = Watch.begin(production)
            with reading(branch):
                staged = _stage(production, branch, plan, progress)
            done, moves = _write(production, plan, staged, watch)
            xid = _write_undo(production, staged, done, str(run_id), undo_path)
            applied = Applied(run=str(run_id), xid=xid, tables=done, moves=moves, undo=str(undo_path))
            before_commit(applied)
            commit(production, xid)
    return applied


def _check_keys(branch: Connection, plan: Plan) -> None:
    """The keys on the branch are still the planned ones: another survey, or a hand, may have replaced them."""
    for table in plan.found.tables:
        known = branch.execute(
            "SELECT to_regclass(%s) IS NOT NULL", (scratch(table.keys_table).as_string(branch),)
        ).fetchone()
        names = numbered(len(table.source.key.columns))
        if known != (True,) or key_checksum(branch, scratch(table.keys_table), names) != table.key_checksum:
            raise Refused(
                f"the keys of {table.name} on the branch are not those of the plan any more",
                safe=_NOT_BEGUN,
                next_step="start a new run of the recovery: this one's plan does not fit any more",
            )


def _nothing(plan: Plan, run_id: str) -> Applied:
    tables = tuple(insert.account(table, 0, 0, plan.found.conflicts_of(table.name)) for table in plan.found.tables)
    return Applied(run=run_id, xid=None, tables=tables, moves=(), undo=None)


def _check_undo_path(production: Connection, path: Path) -> None:
    """An undo file may only be replaced if its transaction came to nothing."""
    if path.exists():
        xid = undo_file.read_header(path).xid
        how = outcome(production, xid)
        if how is not Outcome.ABORTED:
            raise Refused(
                f"{path} is the undo file of transaction {xid}, which is {how}",
                safe=_NOT_BEGUN,
                next_step="keep that file; start a new run, which brings back what is missing then",
            )


def _stage(
    production: Connection, branch: Connection, plan: Plan, progress: Callable[[str], None] | None
) -> tuple[Staged, ...]:
    staged = tuple(Staged(table, number) for number, table in enumerate(plan.found.tables) if table.missing)
    for one in staged:
        stage(production, branch, one, progress)
    return staged


def _write(
    production: Connection, plan: Plan, staged: tuple[Staged, ...], watch: Watch
) -> tuple[tuple[AppliedTable, ...], tuple[SequenceMove, ...]]:
    # Parents first, as an application books: the other way round we would deadlock with it.
    tables = [one.table.target for group in plan.order for one in staged if one.name in group]
    alone = {table.name for table in tables if set(table.triggers) & set(plan.suppressed)}
    lock(production, tables, alone)
    check_unchanged(production, tables)
    before = triggers.states(production, [oid for table in tables for oid in table.tree])
    triggers.switch_off(production, plan.suppressed)
    with naming_blockers(production, tables), as_application(production):
        for group in plan.order:
            insert.insert_group(production, [one for one in staged if one.name in group])
        # Fires the deferred foreign key checks now; none may be pending when the triggers are switched on again.
        production.execute("SET CONSTRAINTS ALL IMMEDIATE")
    triggers.put_back(production, plan.suppressed, before)
    results = {
        one.name: insert.result(
            production,
            one,
            plan.found.conflicts_of(one.name),
            fired=bool(set(one.table.target.triggers) & set(plan.fired)),
        )
        for one in staged
    }
    for one in staged:
        insert.prove_equal(production, one, results[one.name].inserted)
    moves = tuple(move for table in tables for move in _move_sequences(production, table))
    watch.prove_only({table.oid: (results[table.name].inserted, 0, 0) for table in tables})
    untouched = (table for table in plan.found.tables if table.name not in results)
    for table in untouched:
        results[table.name] = insert.account(table, 0, 0, plan.found.conflicts_of(table.name))
    return tuple(results[table.name] for table in plan.found.tables), moves


def _move_sequences(production: Connection, table: Table) -> Iterator[SequenceMove]:
    """Move each sequence that feeds the table to or past the greatest id in use; never backwards."""
    rows = sql.SQL("{} AS t").format(table.name.identifier)
    for sequence in table.sequences:
        if left_alone(sequence):
            continue
        extreme = extreme_id(production, sequence, rows)
        if extreme is None or target(sequence, stands_at(production, sequence), extreme) is None:
            continue  # far enough, and nobody moves it back
        with naming_blockers(production, [table]):
            was = _stop(production, sequence)
        now = target(sequence, was, extreme)
        if now is not None:
            production.execute("SELECT setval(%s::regclass, %s)", (sequence.name.identifier.as_string(production), now))
            yield SequenceMove(sequence=sequence.name, was=was, now=now)


def _stop(production: Connection, sequence: Sequence) -> int:
    """Where the sequence stands, with `nextval` of others waiting until we commit: the setval then cannot overtake one.

    ALTER SEQUENCE to what it is already takes that lock, and makes the setval after it transactional.
    """
    production.execute(
        sql.SQL("ALTER SEQUENCE {} INCREMENT BY {}").format(sequence.name.identifier, sql.SQL(str(sequence.increment)))
    )
    return stands_at(production, sequence)


def _write_undo(
    production: Connection, staged: tuple[Staged, ...], done: tuple[AppliedTable, ...], run_id: str, path: Path
) -> int:
    inserted = {result.name: result.inserted for result in done}
    header = UndoHeader(
        run=run_id,
        database=identity(production),
        xid=current_xid(production),
        tables=tuple(UndoTable(name=one.name, key=one.key.columns, rows=inserted[one.name]) for one in staged),
    )
    undo_file.write(path, header, _inserted_keys(production, staged))
    return header.xid


def _inserted_keys(production: Connection, staged: tuple[Staged, ...]) -> Iterator[tuple[int, Key]]:
    for place, one in enumerate(staged):
        query = sql.SQL("COPY (SELECT {} FROM {} AS f WHERE fate = {}) TO STDOUT").format(
            fields("f", one.k), one.fates, insert.INSERTED
        )
        with production.cursor() as cursor, cursor.copy(query) as copy:
            for key in copy.rows():
                yield place, tuple(str(value) for value in key)
