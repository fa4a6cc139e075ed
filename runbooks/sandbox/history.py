"""Base backups of a timeline: taking them, choosing one for a moment, dropping what the window no longer needs.

There is no archive: a replication slot keeps the WAL in the primary's own pg_wal, and branches read it there.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from runbooks.model.moment import Moment
from runbooks.sandbox import names
from runbooks.sandbox.cluster import SUPERUSER, Cluster, Server, copy_files
from runbooks.sandbox.processes import LOCALHOST
from runbooks.sandbox.records import Base, Timeline

SLOT = "history"
NEW_BASE_AFTER_BYTES = 256 * 1024 * 1024
NEW_BASE_AFTER = timedelta(hours=1)
"""Whichever comes first: replay then stays under about three seconds."""
MOST_BASES = 6


@dataclass(frozen=True)
class Point:
    """Where recovery stops: after the last commit at or before `at`, or before the first record at or past `lsn`.

    Neither: where the timeline begins.
    """

    at: Moment | None = None
    lsn: int | None = None


@dataclass(frozen=True)
class Settled:
    """Where a server stood when nobody wrote to it any more."""

    lsn: int
    at: Moment


def reserve(session: psycopg.Connection[Any]) -> None:
    """Keep WAL from here on."""
    session.execute(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", (SLOT,)
    )
    session.execute("select pg_create_physical_replication_slot(%s, true)", (SLOT,))


def is_reserved(session: psycopg.Connection[Any]) -> bool:
    """False once the slot is gone: a role with REPLICATION may drop it, and PostgreSQL gives it up at too much WAL."""
    query = "select 1 from pg_replication_slots where slot_name = %s and wal_status <> 'lost'"
    return session.execute(query, (SLOT,)).fetchone() is not None


def settle(session: psycopg.Connection[Any]) -> Settled:
    ((lsn, at),) = session.execute("select pg_current_wal_insert_lsn()::text, clock_timestamp()").fetchall()
    return Settled(names.read_lsn(lsn), Moment.of(at))


def mark(session: psycopg.Connection[Any]) -> Settled:
    """Commit one empty transaction; answers where the log stood before it, and when.

    Recovery to a moment needs a later commit to stop at, and an idle database has none.
    """
    before = settle(session)
    session.execute("select pg_logical_emit_message(true, 'sandbox', '')")
    return before


def first_base(settled: Settled) -> Base:
    """The base that `cold_copy` makes of a server stopped after it had settled."""
    return Base(number=1, start_lsn=settled.lsn, stop_lsn=settled.lsn, stop_at=settled.at, settled_at=settled.at)


def cold_copy(cluster: Cluster, base: Base) -> None:
    """A base of a stopped server: a copy of its files. Cheaper than pg_basebackup, and nothing to replay."""
    copy_files(cluster.data, folder(cluster, base), cluster.tools.account)


def live_base(server: Server, number: int) -> Base:
    """A base of a running server, under load too."""
    cluster = server.cluster
    target = cluster.home / "bases" / str(number)
    cluster.tools.account.folder(target.parent)
    shutil.rmtree(target, ignore_errors=True)  # what a killed supervisor left
    with server.connect() as session:
        settled = mark(session)
        cluster.tools.account.run(
            cluster.tools.tool("pg_basebackup"), "--pgdata", target, "--host", LOCALHOST, "--port", str(server.port),
            "--username", SUPERUSER, "--no-password", "--wal-method", "none", "--checkpoint", "fast", "--no-sync",
            "--no-manifest", env={"PGPASSWORD": cluster.tools.superuser_password, "PGSSLMODE": "disable"},
        )  # fmt: skip
        stop = settle(session)
    label = (target / "backup_label").read_text()
    start = re.search(r"START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+)", label)
    assert start is not None
    return Base(
        number=number,
        start_lsn=names.read_lsn(start[1]),
        stop_lsn=stop.lsn,
        stop_at=stop.at,
        settled_at=settled.at,
    )


def folder(cluster: Cluster, base: Base) -> Path:
    return cluster.home / "bases" / str(base.number)


def earliest(timeline: Timeline) -> Moment:
    """The first moment it serves: its beginning, or its oldest base once the first was dropped."""
    first = timeline.bases[0]
    return timeline.began_at if first.number == 1 else first.stop_at


def earliest_lsn(timeline: Timeline) -> int:
    first = timeline.bases[0]
    return timeline.began_lsn if first.number == 1 else first.stop_lsn


def choose(timeline: Timeline, point: Point) -> tuple[Base, Point]:
    """The base to start from, and the point with what lies before that base cut off. The point is within the history.

    Between a fork and its first base nothing was committed: any moment there is the beginning.
    """
    for base in reversed(timeline.bases):
        if point.at is not None and base.stop_at <= point.at:
            return base, point
        if point.lsn is not None and base.stop_lsn <= point.lsn:
            return base, point
    return timeline.bases[0], Point()


def wants_base(timeline: Timeline, now: Settled) -> bool:
    last = timeline.bases[-1]
    written = now.lsn - last.stop_lsn
    return written > NEW_BASE_AFTER_BYTES or (written > 0x100000 and now.at.utc - last.stop_at.utc > NEW_BASE_AFTER)


def needed(timeline: Timeline, since: Moment) -> tuple[Base, ...]:
    """The bases to keep for a window that begins at `since`.

    Of too many the middle goes: the window keeps its length, only replay takes longer.
    """
    before = [base for base in timeline.bases if base.stop_at <= since]
    kept = [*before[-1:], *(base for base in timeline.bases if base.stop_at > since)]
    while len(kept) > MOST_BASES:
        del kept[1]
    return tuple(kept)


def release_wal(session: psycopg.Connection[Any], oldest: Base) -> None:
    """Let the server remove the WAL from before `oldest`."""
    session.execute(
        "select pg_replication_slot_advance(slot_name, %s::pg_lsn) from pg_replication_slots "
        "where slot_name = %s and restart_lsn < %s::pg_lsn",
        (names.lsn(oldest.start_lsn), SLOT, names.lsn(oldest.start_lsn)),
    )
    session.execute("checkpoint")


def discard(path: Path) -> None:
    """Remove a folder; a name that no start looks at comes first, so that half of it is never taken for the whole."""
    gone = path.with_name(f"{path.name}.gone-{os.urandom(4).hex()}")
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone)
