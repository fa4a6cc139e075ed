"""The survey of a row recovery: which rows production lacks. Production is only read, in one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import LiteralString

from psycopg import sql

from runbooks.clients.postgres import Connection, identity, prove_apart, translated
from runbooks.model.errors import Refused, WrongTarget
from runbooks.rows import amendments, conflicts, contents, forecast, keyless, pointers, states
from runbooks.rows.catalog import resolve
from runbooks.rows.compose import SCRATCH, checksum, fields, row_text, same_key
from runbooks.rows.fit import differences
from runbooks.rows.found import Found, FoundTable, Request
from runbooks.rows.presence import Snapshot
from runbooks.rows.search import Involved, Search
from runbooks.rows.sequences import SequenceNeed, extreme_id, need, stands_at
from runbooks.rows.shape import Sequence

_SAFE = "production was only read"
_OURS = "bloom-dr: keys found by the survey of a row recovery; may be dropped"
_SAMPLES = 3
_SAMPLE_LENGTH = 200


def survey(
    production: Connection,
    branch: Connection,
    request: Request,
    *,
    after: Connection | None = None,
    progress: Callable[[str], None] | None = None,
) -> Found:
    """Find the rows of the branch that production lacks: those of `request`, and those a cascade took with them. If
    changed rows are meant too: those that production has otherwise, as judged by `after`, the state after the damage.

    Reads production in one snapshot, and so `after`. Writes on the branch, below a schema of ours, which must be a
    scratch copy; the keys stay there for the execution, and the next survey on the same branch replaces them. Safe to
    repeat.

    Raises WrongTarget (both are one database), NotFound and UsageFault (table, condition), Refused (rows of a table
    concerned cannot be brought back exactly), and the database's own errors.
    """
    prove_apart(production, branch)
    with translated("survey the missing rows", safe=_SAFE):
        _check_alike(production, branch)
        _check_writable(production)
        names = resolve(branch, request.tables)
        _prepare_scratch(branch)
        with snapshot_of(production) as snapshot, _after(after) as later:
            search = Search(
                branch,
                snapshot,
                progress,
                changed=request.changed,
                mapping=request.mapping,
                decisions=request.decisions,
            )
            conflicts.check_names(search)
            search.asked(names, request.where)
            search.check_map()
            for table in search.involved.values():
                if request.changed:
                    contents.find_missing_and_changed(search, table)
                    contents.judge(search, table, later)
                    contents.judge_missing(search, table, later)
                else:
                    search.find_missing(table)
            conflicts.take_up(search)
            unfitting = conflicts.settle(search, early=True)
            search.cascades()
            accepted = keyless.accepted(search, request.accept_keyless)
            keyless.mark_doubtful(search, accepted)
            forecast.mark_conflicts(search)
            unfitting += conflicts.settle(search, early=False)
            compared = frozenset(search.involved) if request.changed else contents.mark_different(search)
            mended, loose = pointers.pointers(search)
            damaged = (amendments.set_back(search, table) for table in search.involved.values())
            return Found(
                production=identity(production),
                branch=identity(branch),
                where=request.where,
                changed=request.changed,
                tables=tuple(
                    _summary(
                        search,
                        table,
                        compared=table.target.name in compared,
                        accepted=table.target.name in accepted,
                    )
                    for table in search.involved.values()
                ),
                conflicts=conflicts.conflicts(search),
                different=contents.different(search, compared),
                unfitting=unfitting,
                conflict_rows=conflicts.conflict_rows(search),
                amendments=(*(one for one in damaged if one), *mended),
                loose=loose,
                also_lost=forecast.also_lost(search),
            )


def _check_alike(production: Connection, branch: Connection) -> None:
    """Texts and their checksums are only comparable in one encoding and one major version."""
    one, other = (
        conn.execute("SELECT getdatabaseencoding(), current_setting('server_version_num')::int / 10000").fetchone()
        for conn in (production, branch)
    )
    if one != other:
        raise WrongTarget(
            f"production (encoding, version: {one}) and branch ({other}) are not copies of one database",
            safe=_SAFE,
            next_step="use a branch of production itself",
        )


def _check_writable(production: Connection) -> None:
    """What every recovery needs of the session, whatever the table: better said now than after consent."""
    row = production.execute(
        "SELECT pg_is_in_recovery(), has_database_privilege(current_database(), 'TEMPORARY')"
    ).fetchone()
    if row != (False, True):
        raise Refused(
            "this session in production cannot write: it is a read-only replica, or our role may not create temporary "
            f"tables (in recovery, may create: {row})",
            safe=_SAFE,
            next_step="connect to the read-write endpoint, as a role with the TEMPORARY right on the database",
        )


def _prepare_scratch(branch: Connection) -> None:
    """An empty schema of ours; one of the same name that somebody else made is not touched."""
    found = branch.execute(
        "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s", (SCRATCH,)
    ).fetchone()
    if found and found[0] != _OURS:
        raise Refused(
            f"the branch has a schema {SCRATCH} that is not ours",
            safe=_SAFE,
            next_step=f"rename that schema on the branch ({identity(branch)}), then run the same command again",
        )
    schema = sql.Identifier(SCRATCH)
    branch.execute("SET client_min_messages TO warning")
    with branch.transaction():
        branch.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))
        branch.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
        branch.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(schema, _OURS))


@contextmanager
def _after(session: Connection | None) -> Iterator[Snapshot | None]:
    if session is None:
        yield None
        return
    with snapshot_of(session) as snapshot:
        yield snapshot


@contextmanager
def snapshot_of(production: Connection) -> Iterator[Snapshot]:
    """One view of production for every question, ours and psql's, while the block runs."""
    with production.transaction():
        production.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        # It idles, rightly, while psql ships keys under its snapshot.
        production.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        row = production.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        yield Snapshot(production, row[0])


def _summary(search: Search, table: Involved, *, compared: bool, accepted: bool) -> FoundTable:
    counts: dict[str, int] = dict(
        search.branch.execute(_composed("SELECT state, count(*) FROM {found} GROUP BY state", table))
    )
    cascaded = search.count(_composed("{found} WHERE cascaded", table))
    missing, conflict = counts.get(states.MISSING, 0), counts.get(states.CONFLICT, 0)
    asked = table.matching + cascaded
    row = search.branch.execute(_composed(_SIZE, table)).fetchone()
    assert row is not None
    return FoundTable(
        source=table.source,
        target=table.target,
        named=table.named,
        keys_table=table.found_name,
        past_view=table.view_name,
        accepted=accepted,
        asked_table=table.filter_name,
        asked=asked,
        already_there=asked - missing - conflict,
        compared=compared,
        missing=missing,
        replaced=counts.get(states.REPLACED, 0) + counts.get(states.DOUBTFUL, 0),
        set_back=sum(counts.get(state, 0) for state in states.SET_BACK),
        in_conflict=conflict,
        key_checksum=key_checksum(search.branch, table.found, table.k),
        size=row[0],
        samples=tuple(sample for (sample,) in search.branch.execute(_composed(_SAMPLE, table))),
        sequences=tuple(_sequence(search, table, sequence) for sequence in table.target.sequences),
        differences=differences(table.source, table.target),
        unchecked=tuple(key.name for key in table.target.keys if not key.is_plain),
    )


_SIZE = """
SELECT coalesce(sum(pg_column_size(t.*)), 0)::bigint
FROM {source} AS t JOIN {found} AS f ON {same} WHERE f.state = 'missing'
"""
# The few are picked before they are joined: the other way round, the planner may walk the whole table by its index and
# compare each row with all found.
_SAMPLE = """
SELECT left({text}, {length})
FROM (SELECT * FROM {found} AS f WHERE f.state = 'missing' ORDER BY {k} LIMIT {samples}) AS f
JOIN {source} AS t ON {same} ORDER BY {k}
"""


def _composed(text: LiteralString, table: Involved) -> sql.Composed:
    return sql.SQL(text).format(
        found=table.found,
        source=table.past,
        same=same_key("f", table.source.key, "t"),
        text=row_text("t", table.compared),
        k=fields("f", table.k),
        length=_SAMPLE_LENGTH,
        samples=_SAMPLES,
    )


def _sequence(search: Search, table: Involved, sequence: Sequence) -> SequenceNeed:
    production = search.snapshot.production
    at = stands_at(production, sequence)
    if not sequence.integers or not table.source.has((sequence.column,)):
        return need(sequence, at, ())
    # With the rows of tables that inherit from it: they draw from its sequence.
    there = sql.SQL("{} AS t").format(table.target.name.identifier)
    coming = sql.SQL("(SELECT t.* FROM {} AS t JOIN {} AS f ON {} WHERE {}) AS t").format(
        table.past, table.found, same_key("f", table.source.key, "t"), states.among(states.COMING)
    )
    return need(sequence, at, (extreme_id(production, sequence, there), extreme_id(search.branch, sequence, coming)))


def key_checksum(branch: Connection, found: sql.Identifier, names: tuple[str, ...]) -> str:
    """Count and checksum of the keys that are to be inserted, to see that they are still the planned ones."""
    row = branch.execute(
        sql.SQL("SELECT concat(count(*), ':', {}) FROM {} AS f WHERE state = 'missing'").format(
            checksum(row_text("f", names)), found
        )
    ).fetchone()
    assert row is not None
    return str(row[0])
