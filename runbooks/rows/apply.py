"""Bring the planned rows back to production, in one transaction, exactly or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from psycopg import sql

from runbooks.clients.postgres import Connection, Outcome, identity, outcome, prove, prove_apart, translated
from runbooks.model.errors import Refused
from runbooks.model.run_id import RunId
from runbooks.rows import amend, insert, triggers, undo_file
from runbooks.rows.amendments import fingerprint
from runbooks.rows.applied import AmendedTable, Applied, AppliedTable
from runbooks.rows.changes import Tally, Watch
from runbooks.rows.compose import fields, numbered, scratch
from runbooks.rows.names import TableName
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
from runbooks.rows.undo_file import UndoAmended, UndoHeader, UndoTable, Values

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
    """Insert and set back the rows of `plan`. Every proof that can be had before COMMIT is had, or all is rolled back.

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
    tell = progress or _unheard
    with translated("bring the rows back", safe=ROLLED_BACK):
        _check_keys(branch, plan)
        if not plan.writes:
            return _nothing(plan, str(run_id))
        _check_undo_path(production, undo_path)
        with writing(production):
            watch = Watch.begin(production)
            with reading(branch):
                staged = _stage(production, branch, plan, progress)
                ready = tuple(amend.Ready(one, number) for number, one in enumerate(plan.found.amendments))
                for each in ready:
                    amend.stage(production, branch, each)
            done, amended, moves = _write(production, plan, staged, ready, watch, tell)
            tell("the undo file is written")
            xid = _write_undo(production, staged, done, ready, amended, str(run_id), undo_path)
            applied = Applied(run=str(run_id), xid=xid, tables=done, amended=amended, moves=moves, undo=str(undo_path))
            before_commit(applied)
            commit(production, xid)
    return applied


def _unheard(text: str) -> None:
    pass


def _check_keys(branch: Connection, plan: Plan) -> None:
    """The keys on the branch are still the planned ones: another survey, or a hand, may have replaced them."""
    for table in plan.found.tables:
        known = branch.execute(
            "SELECT to_regclass(%s) IS NOT NULL", (scratch(table.keys_table).as_string(branch),)
        ).fetchone()
        names = numbered(len(table.source.key.columns))
        if known != (True,) or key_checksum(branch, scratch(table.keys_table), names) != table.key_checksum:
            raise _not_as_planned(table.name)
    for one in plan.found.amendments:
        names = (*numbered(len(one.target.key.columns)), *numbered(len(one.columns), "v"), "seen")
        if fingerprint(branch, scratch(one.rows_table), names) != one.checksum:
            raise _not_as_planned(one.name)


def _not_as_planned(name: TableName) -> Refused:
    return Refused(
        f"the keys of {name} on the branch are not those of the plan any more",
        safe=_NOT_BEGUN,
        next_step="start a new run of the recovery: this one's plan does not fit any more",
    )


def _nothing(plan: Plan, run_id: str) -> Applied:
    tables = tuple(insert.account(table, 0, 0, plan.found.conflicts_of(table.name)) for table in plan.found.tables)
    return Applied(run=run_id, xid=None, tables=tables, amended=(), moves=(), undo=None)


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
    production: Connection,
    plan: Plan,
    staged: tuple[Staged, ...],
    ready: tuple[amend.Ready, ...],
    watch: Watch,
    tell: Callable[[str], None],
) -> tuple[tuple[AppliedTable, ...], tuple[AmendedTable, ...], tuple[SequenceMove, ...]]:
    written = {one.name: one.table.target for one in staged} | {
        each.amendment.name: each.amendment.target for each in ready
    }
    # Parents first, as an application books: the other way round we would deadlock with it.
    tables = [written[name] for group in plan.order for name in group]
    alone = {table.name for table in tables if set(table.triggers) & set(plan.suppressed)}
    alone |= {one.name for one in staged if one.table.keyless}
    lock(production, tables, alone)
    check_unchanged(production, tables)
    before = triggers.states(production, [oid for table in tables for oid in table.tree])
    triggers.switch_off(production, plan.suppressed)
    insert.mark_there(production, staged)
    set_back: dict[int, AmendedTable] = {}
    with naming_blockers(production, tables):
        for group in plan.order:
            filled = [one for one in staged if one.name in group]
            if filled:
                rows = sum(one.table.missing for one in filled)
                tell(f"{', '.join(str(one.name) for one in filled)}: {rows:,} rows are inserted")
                with as_application(production):
                    insert.insert_group(production, filled)
            for each in (each for each in ready if each.amendment.name in group):
                tell(f"{each.amendment.name}: {each.amendment.count:,} rows are set back")
                amend.hold(production, each)
                with as_application(production):
                    amend.write(production, each)
                # At once: the next one may set another pointer of the same row.
                set_back[each.number] = amend.result(production, each)
        with as_application(production):
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
    tell("every row written is compared with the past, before the commit")
    for one in staged:
        insert.prove_equal(production, one, results[one.name].inserted)
    amended = tuple(set_back[each.number] for each in ready)
    moves = tuple(move for table in tables for move in _move_sequences(production, table))
    watch.prove_only({table.oid: _tally(table.name, results, amended) for table in tables})
    untouched = (table for table in plan.found.tables if table.name not in results)
    for table in untouched:
        results[table.name] = insert.account(table, 0, 0, plan.found.conflicts_of(table.name))
    return tuple(results[table.name] for table in plan.found.tables), amended, moves


def _tally(name: TableName, results: Mapping[TableName, AppliedTable], amended: tuple[AmendedTable, ...]) -> Tally:
    inserted = results[name].inserted if name in results else 0
    return inserted, sum(one.done for one in amended if one.name == name), 0


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
    production: Connection,
    staged: tuple[Staged, ...],
    done: tuple[AppliedTable, ...],
    ready: tuple[amend.Ready, ...],
    amended: tuple[AmendedTable, ...],
    run_id: str,
    path: Path,
) -> int:
    inserted = {result.name: result.inserted for result in done}
    header = UndoHeader(
        run=run_id,
        database=identity(production),
        xid=current_xid(production),
        tables=tuple(
            UndoTable(
                name=one.name,
                key=one.names if one.table.keyless else one.key.columns,
                rows=inserted[one.name],
                copies=one.table.keyless,
            )
            for one in staged
        ),
        amended=tuple(
            UndoAmended(
                name=one.amendment.name,
                key=one.amendment.target.key.columns,
                columns=one.amendment.written,
                compared=one.amendment.columns,
                rows_table=one.amendment.rows_table,
                rows=what.done,
            )
            for one, what in zip(ready, amended, strict=True)
        ),
    )
    inserts = [insert.inserted_keys(one) for one in staged]
    befores = [sql.SQL("SELECT {} FROM {} AS b").format(fields("b", (*one.k, *one.w)), one.before) for one in ready]
    undo_file.write(path, header, _undo_rows(production, (*inserts, *befores)))
    return header.xid


def _undo_rows(production: Connection, queries: Iterable[sql.Composed]) -> Iterator[tuple[int, Values]]:
    for place, query in enumerate(queries):
        with production.cursor() as cursor, cursor.copy(sql.SQL("COPY ({}) TO STDOUT").format(query)) as copy:
            for row in copy.rows():
                yield place, tuple(None if value is None else str(value) for value in row)
