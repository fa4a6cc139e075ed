"""The insert itself: set-based, and each row's fate known afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.model.errors import ProofFailed
from runbooks.rows import insert_copies
from runbooks.rows.applied import AppliedTable
from runbooks.rows.compose import all_set, equal, fields, numbered, row_text, same_key, same_value
from runbooks.rows.decisions import Kind
from runbooks.rows.found import Conflict, FoundTable
from runbooks.rows.listed import listed
from runbooks.rows.shape import ForeignKey, UniqueKey
from runbooks.rows.stage import Staged
from runbooks.rows.transaction import ROLLED_BACK

INSERTED, THERE, ORPHAN, CONFLICT, OTHER = "inserted", "there", "orphan", "conflict", "other"

_ORPHANED = "the row it points at was not there any more when it was to be inserted"
_TAKEN = "another row has one of its unique values now"
_REUSED = "another row has its key since the plan was made"
_SKIPPED = "another row has one of its unique values now, or an accepted trigger suppressed it"


def mark_there(conn: Connection, staged: Sequence[Staged]) -> None:
    """Note the rows of tables without a key that are there by now. Call once, when those tables are locked."""
    for one in staged:
        if one.table.keyless:
            insert_copies.mark_there(conn, one, THERE)


def insert_group(conn: Connection, group: Sequence[Staged]) -> None:
    """Insert the staged rows of tables that may point at each other, and note every row's fate.

    One statement for the group: foreign keys are checked at its end, so circles and self references need no order and
    no deferrable constraints.
    """
    for one in group:
        for key in one.table.target.keys:
            if key != one.key and key.equals:
                _mark_taken(conn, one, key)
    while sum(_mark_orphans(conn, one, tie, group) for one in group for tie in one.table.target.parents):
        pass
    parts = sql.SQL(", ").join(_insert(one) for one in group)
    conn.execute(sql.SQL("WITH {} SELECT").format(parts))
    for one in group:
        _note_the_rest(conn, one)


def _without_fate(one: Staged, alias: str) -> sql.Composed:
    return sql.SQL("NOT EXISTS (SELECT FROM {} AS f WHERE {})").format(one.fates, _same(one, "f", alias))


def _same(one: Staged, fate: str, row: str) -> sql.Composed:
    """Our row of fates is the one of our staged row."""
    return equal(fate, one.k, one.key.equals, row, one.staged(one.key.columns))


def _in_table(one: Staged, table: str, row: str) -> sql.Composed:
    """The table's row has the key of our staged row."""
    return equal(table, one.key.columns, one.key.equals, row, one.staged(one.key.columns))


def _mark_taken(conn: Connection, one: Staged, key: UniqueKey) -> None:
    """Rows of which another row has the unique value by now: ON CONFLICT would leave them out, but then what points at
    them in the same statement would fail all of it.
    """
    places = dict(zip(one.names, one.c, strict=True))
    columns = [
        sql.SQL("{} AS {}").format(
            sql.Identifier(places[column.name])
            if column.name in places
            else sql.SQL("NULL::{}").format(column.type_identifier),
            sql.Identifier(column.name),
        )
        for column in one.table.target.columns
    ]
    # Beside columns with the application's names, ours must have others.
    k, u = numbered(len(one.k), "bloom_k"), numbered(len(key.expressions), "bloom_u")
    values = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(sql.SQL(text), sql.Identifier(name))
        for text, name in zip(key.expressions, u, strict=True)
    )
    # The row itself may be there by now, which is no conflict; of rows without a key that was found out before.
    own: sql.Composable = sql.SQL("")
    itself: sql.Composable = sql.SQL("false")
    if not one.table.keyless:
        own = sql.SQL("{}, ").format(fields("x", one.key.columns, renamed=k))
        itself = equal("t", k, one.key.equals, "s", k)
    conn.execute(
        sql.SQL(
            "INSERT INTO {fates} SELECT {k}, {conflict}"
            " FROM (SELECT {k}, {values} FROM (SELECT {key}, {columns} FROM {rows}) AS x WHERE {where}) AS s"
            " WHERE EXISTS (SELECT FROM (SELECT {own}{values} FROM {table} AS x WHERE {where}) AS t"
            " WHERE {same} AND NOT ({itself}))"
            " AND NOT EXISTS (SELECT FROM {fates} AS f WHERE {known})"
        ).format(
            fates=one.fates,
            k=fields(None, k),
            conflict=CONFLICT,
            key=fields(None, one.staged(one.key.columns), renamed=k),
            values=values,
            columns=sql.SQL(", ").join(columns),
            rows=one.rows,
            where=sql.SQL(key.predicate) if key.predicate else sql.SQL("true"),
            table=one.table.target.rows,
            same=same_value("t", key, "s", u),
            own=own,
            itself=itself,
            known=equal("f", one.k, one.key.equals, "s", k),
        )
    )


def _mark_orphans(conn: Connection, one: Staged, tie: ForeignKey, group: Sequence[Staged]) -> int:
    """Rows whose parent has been deleted since the plan, or did not get in: one of them would fail the whole insert."""
    if not set(tie.child_columns) <= set(one.names):
        return 0
    columns = one.staged(tie.child_columns)
    coming = [
        sql.SQL("NOT EXISTS (SELECT FROM {} AS r WHERE {} AND {})").format(
            parent.rows,
            equal("r", parent.staged(tie.parent_columns), tie.equals, "s", columns),
            _without_fate(parent, "r"),
        )
        for parent in group
        if parent.name == tie.parent and set(tie.parent_columns) <= set(parent.names)
    ]
    there = sql.SQL("NOT EXISTS (SELECT FROM {} AS p WHERE {})").format(
        tie.parent_rows, equal("p", tie.parent_columns, tie.equals, "s", columns)
    )
    return conn.execute(
        sql.SQL("INSERT INTO {} SELECT {}, {} FROM {} AS s WHERE {}").format(
            one.fates,
            fields("s", one.staged(one.key.columns)),
            ORPHAN,
            one.rows,
            sql.SQL(" AND ").join([_without_fate(one, "s"), all_set("s", columns), there, *coming]),
        )
    ).rowcount


def _insert(one: Staged) -> sql.Composed:
    put = sql.Identifier(f"put_{one.number}")
    written = tuple(column.name for column in one.columns if column.generated is None)
    waiting = _without_fate(one, "s")
    inserting = insert_copies.put(one, put, written, waiting) if one.table.keyless else _put(one, put, written, waiting)
    return sql.SQL("{}, {} AS (INSERT INTO {} SELECT {}, {} FROM {} AS p)").format(
        inserting, sql.Identifier(f"noted_{one.number}"), one.fates, fields("p", one.k), INSERTED, put
    )


def _put(one: Staged, name: sql.Identifier, written: tuple[str, ...], waiting: sql.Composed) -> sql.Composed:
    return sql.SQL(
        "{name} AS (INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE"
        " SELECT {values} FROM {rows} AS s WHERE {waiting} ON CONFLICT DO NOTHING RETURNING {key})"
    ).format(
        name=name,
        table=one.name.identifier,
        columns=fields(None, written),
        values=fields("s", one.staged(written)),
        rows=one.rows,
        waiting=waiting,
        key=fields(None, one.key.columns, renamed=one.k),
    )


def _note_the_rest(conn: Connection, one: Staged) -> None:
    """What was not inserted is there already, or its key or another unique value of it is something else's by now."""
    conn.execute(sql.SQL("ANALYZE {}").format(one.fates))
    if one.table.keyless:
        insert_copies.note_the_rest(conn, one, CONFLICT, _without_fate(one, "s"))
        return
    conn.execute(
        sql.SQL(
            "INSERT INTO {fates} SELECT {key}, CASE WHEN t.xmin IS NULL THEN {conflict}"
            " WHEN {ours} = {theirs} THEN {there} ELSE {other} END"
            " FROM {rows} AS s LEFT JOIN {table} AS t ON {same} WHERE {waiting}"
        ).format(
            fates=one.fates,
            key=fields("s", one.staged(one.key.columns)),
            conflict=CONFLICT,
            ours=row_text("s", one.c),
            theirs=row_text("t", one.names),
            there=THERE,
            other=OTHER,
            rows=one.rows,
            table=one.table.target.rows,
            same=_in_table(one, "t", "s"),
            waiting=_without_fate(one, "s"),
        )
    )


def result(conn: Connection, one: Staged, planned: tuple[Conflict, ...], *, fired: bool) -> AppliedTable:
    """The fates of one table's rows, added to what the plan knew. `fired`: triggers were left on."""
    counts: dict[str, int] = dict(
        conn.execute(sql.SQL("SELECT fate, count(*) FROM {} GROUP BY fate").format(one.fates)).fetchall()
    )
    new = tuple(
        Conflict(table=one.name, kind=kind, why=why, settled=False, **listed(conn, rows, "f", one.k).model_dump())
        for fate, kind, why in _fates(fired)
        if fate in counts
        for rows in [sql.SQL("{} AS f WHERE fate = {}").format(one.fates, fate)]
    )
    return account(one.table, counts.get(INSERTED, 0), counts.get(THERE, 0), (*planned, *new))


def _fates(fired: bool) -> tuple[tuple[str, Kind, str], ...]:
    return (
        (ORPHAN, "orphan", _ORPHANED),
        (OTHER, "reused", _REUSED),
        (CONFLICT, "taken", _SKIPPED if fired else _TAKEN),
    )


def account(table: FoundTable, inserted: int, appeared: int, conflicts: tuple[Conflict, ...]) -> AppliedTable:
    """ProofFailed if a row asked for is not accounted for."""
    done = AppliedTable(
        name=table.name,
        asked=table.asked,
        inserted=inserted,
        already_there=table.already_there + appeared,
        conflicts=conflicts,
    )
    if not done.adds_up:
        raise ProofFailed(
            f"of {done.asked} rows of {done.name} asked for, {done.inserted} were inserted, {done.already_there} were "
            f"there already and {done.in_conflict} are in conflict, which does not add up",
            safe=ROLLED_BACK,
            next_step="run the same command again; if it fails again, report it with this message",
        )
    return done


def inserted_keys(one: Staged) -> sql.Composed:
    """A query for what the undo needs to know of each inserted row."""
    if one.table.keyless:
        return insert_copies.undo_keys(one, INSERTED)
    return sql.SQL("SELECT {} FROM {} AS f WHERE fate = {}").format(fields("f", one.k), one.fates, INSERTED)


def prove_equal(conn: Connection, one: Staged, inserted: int) -> None:
    """ProofFailed unless each inserted row, generated columns included, reads as it did on the branch."""
    if one.table.keyless:
        insert_copies.prove_equal(conn, one, inserted, INSERTED)
        return
    joined = sql.SQL("{} AS s JOIN {} AS f ON {} AND f.fate = {} JOIN {} AS t ON {}").format(
        one.rows, one.fates, _same(one, "f", "s"), INSERTED, one.table.target.rows, same_key("f", one.key, "t")
    )
    row = conn.execute(
        sql.SQL(
            "SELECT count(*) FILTER (WHERE {} = {} AND t.xmin = pg_current_xact_id()::xid), count(*) FROM {}"
        ).format(row_text("s", one.c), row_text("t", one.names), joined)
    ).fetchone()
    if row == (inserted, inserted):
        return
    changed = [
        f"column {name} in {count} rows"
        for name, c in zip(one.names, one.c, strict=True)
        if (count := _differing(conn, joined, name, c))
    ]
    raise ProofFailed(
        f"of {inserted} rows inserted into {one.name}, {row and row[0]} read as they did on the branch; "
        f"different: {', '.join(changed) or 'some are not there'}",
        safe=ROLLED_BACK,
        next_step="a trigger or a generated column changed them; have the trigger switched off by its owner, then run "
        "the same command again",
    )


def _differing(conn: Connection, joined: sql.Composed, name: str, c: str) -> int:
    row = conn.execute(
        sql.SQL("SELECT count(*) FROM {} WHERE {} <> {}").format(joined, row_text("s", (c,)), row_text("t", (name,)))
    ).fetchone()
    return int(row[0]) if row else 0
