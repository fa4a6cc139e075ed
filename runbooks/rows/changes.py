"""Proof that a transaction changed what it should and nothing else, by the server's own counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from runbooks.clients.postgres import Connection
from runbooks.model.errors import CouldNotVerify, ProofFailed

Tally: TypeAlias = tuple[int, int, int]
"""Rows inserted, updated, deleted."""
Counts: TypeAlias = Mapping[int, Tally]
"""By table (partitions under their root); tables without any are left out."""

_NONE: Tally = (0, 0, 0)
_ROLLED_BACK = "the transaction was rolled back; production is as it was"

# Counters of tables that other transactions of this session touched are still among them until they are reported, hence
# the difference to a baseline. They are never reported in the middle of a transaction.
_COUNTS = """
SELECT coalesce(pg_partition_root(c.oid), c.oid)::bigint,
       sum(pg_stat_get_xact_tuples_inserted(c.oid))::bigint, sum(pg_stat_get_xact_tuples_updated(c.oid))::bigint,
       sum(pg_stat_get_xact_tuples_deleted(c.oid))::bigint
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
GROUP BY 1
"""

# TRUNCATE, DROP and rewriting ALTERs are not counted, but they all need this lock; an insert or delete never does.
_REWRITTEN = """
SELECT l.relation::bigint
FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
"""


@dataclass(frozen=True)
class Watch:
    """What this session's counters said when the transaction began."""

    conn: Connection
    baseline: Counts

    @classmethod
    def begin(cls, conn: Connection) -> Watch:
        """Call first thing in the transaction. CouldNotVerify if the server does not count, or foreign keys are off."""
        row = conn.execute(
            "SELECT current_setting('track_counts'), current_setting('session_replication_role')"
        ).fetchone()
        if row != ("on", "origin"):
            raise CouldNotVerify(
                f"track_counts is {row and row[0]} and session_replication_role is {row and row[1]} in this database: "
                "a change by mistake would not be noticed",
                safe="nothing was written",
                next_step="set track_counts = on and session_replication_role = origin for the recovery's role",
            )
        return cls(conn, _counts(conn))

    def prove_only(self, expected: Counts) -> None:
        """ProofFailed, naming the tables, unless exactly the `expected` rows were changed since `begin`.

        It also fails, for nothing, if another session inserted one of our keys in the very moment we did: then the
        server counts our row as inserted and deleted. Nothing is lost by that; the run is repeated.
        """
        now = _counts(self.conn)
        told = [
            (table, _difference(now.get(table, _NONE), self.baseline.get(table, _NONE)), expected.get(table, _NONE))
            for table in sorted(now.keys() | self.baseline.keys() | expected.keys())
        ]
        wrong = [
            f"{self._name(table)}: {_told(found)} instead of {_told(due)}" for table, found, due in told if found != due
        ]
        wrong += [f"{self._name(table)}: truncated, dropped or rewritten" for table in self._rewritten()]
        if wrong:
            raise ProofFailed(
                f"the transaction changed something else than the planned rows: {'; '.join(wrong)}",
                safe=_ROLLED_BACK,
                next_step="a trigger or rule is at work there; find it (`\\d` in psql), have it switched off by its "
                "owner, then run the same command again",
            )

    def _rewritten(self) -> Iterator[int]:
        yield from (int(row[0]) for row in self.conn.execute(_REWRITTEN))

    def _name(self, table: int) -> str:
        row = self.conn.execute("SELECT %s::oid::regclass::text", (table,)).fetchone()
        return str(row[0]) if row else str(table)


def _counts(conn: Connection) -> Counts:
    found = {int(table): (int(i), int(u), int(d)) for table, i, u, d in conn.execute(_COUNTS)}
    return {table: tally for table, tally in found.items() if tally != _NONE}


def _difference(now: Tally, before: Tally) -> Tally:
    return (now[0] - before[0], now[1] - before[1], now[2] - before[2])


def _told(tally: Tally) -> str:
    return f"{tally[0]} inserted, {tally[1]} updated, {tally[2]} deleted"
