"""Making timelines: a project's first, and new ones from any point of an older one by real recovery."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from runbooks.model.moment import Moment
from runbooks.sandbox import history, names, roles
from runbooks.sandbox.cluster import Cluster, copy_files, running
from runbooks.sandbox.history import Point
from runbooks.sandbox.records import Base, Timeline
from runbooks.sandbox.servers import Servers

Session = psycopg.Connection[Any]
Fields = dict[str, object]


@dataclass(frozen=True)
class Forked:
    timeline: Timeline
    parent_timestamp: Moment
    """The last commit that the new timeline holds."""
    parent_lsn: int
    fields: Fields
    """What `arrange` read."""


def found(
    servers: Servers, timeline_id: str, project_id: str, *, arrange: Callable[[Session], Fields]
) -> tuple[Timeline, Fields]:
    """A project's first timeline, stopped, with its first base. `arrange` fills the new cluster and reads it back."""
    cluster = servers.new_cluster(project_id, timeline_id)
    cluster.create()
    with running(cluster, {}) as server, server.connect() as session:
        roles.require_time_zones(session)
        roles.set_up(session)
        fields = arrange(session)
        base = _settle(session)
    history.cold_copy(cluster, base)
    timeline = Timeline(
        id=timeline_id, project_id=project_id, began_at=base.stop_at, began_lsn=base.stop_lsn, bases=(base,)
    )
    return timeline, fields


def fork(
    servers: Servers,
    source: Timeline,
    point: Point | None,
    timeline_id: str,
    *,
    arrange: Callable[[Session], Fields],
) -> Forked:
    """A timeline that holds `source` as it was at `point` (None: now), stopped, with its first base.

    `point` lies within the source's history. `arrange` changes the new cluster before anybody can connect to it,
    and reads it back.
    """
    point = _pin(servers, source, point)
    base, until = history.choose(source, point)
    cluster = servers.new_cluster(source.project_id, timeline_id)
    copy_files(history.folder(servers.cluster(source.project_id, source.id), base), cluster.data, cluster.tools.account)
    cluster.tools.account.write(cluster.data / "recovery.signal", "")
    with (
        running(cluster, _recovery(servers.cluster(source.project_id, source.id), until)) as server,
        server.connect() as session,
    ):
        at, lsn = _resolved(session, base)
        fields = arrange(session)
        first = _settle(session)
    history.cold_copy(cluster, first)
    timeline = Timeline(
        id=timeline_id,
        project_id=source.project_id,
        began_at=at,
        began_lsn=lsn,
        origin_id=source.id,
        bases=(first,),
    )
    return Forked(timeline, at, lsn, fields)


def _pin(servers: Servers, source: Timeline, point: Point | None) -> Point:
    """Make sure that the log has a later commit for recovery to stop at. A point past that commit is just before it."""
    with servers.awake(source) as server, server.connect() as session:
        before = history.mark(session)
    reaches_past = point is None or (point.at is not None and point.at >= before.at)
    return Point(lsn=before.lsn) if reaches_past else point or Point()


def _recovery(source: Cluster, until: Point) -> dict[str, str]:
    wal = shlex.quote(str(source.wal)).replace("%", "%%")
    target = {"recovery_target": "immediate"}
    if until.at is not None:
        # Abbreviations such as Z are not known yet when this setting is read.
        target = {"recovery_target_time": until.at.utc.isoformat(timespec="microseconds")}
    elif until.lsn is not None:
        # Exclusive: the record that starts there is the first one left out.
        target = {"recovery_target_lsn": names.lsn(until.lsn), "recovery_target_inclusive": "off"}
    return target | {
        "restore_command": f'cp {wal}/%f "%p"',
        "recovery_target_action": "promote",
        "recovery_target_timeline": "current",
        "hot_standby": "off",
        "shared_buffers": "256MB",
    }


def _resolved(session: Session, base: Base) -> tuple[Moment, int]:
    """What recovery stopped at. PostgreSQL knows until its next start; nothing replayed means the base itself."""
    ((at, lsn),) = session.execute("select pg_last_xact_replay_timestamp(), pg_last_wal_replay_lsn()::text").fetchall()
    return (Moment.of(at) if at else base.settled_at, names.read_lsn(lsn) if lsn else base.stop_lsn)


def _settle(session: Session) -> Base:
    history.reserve(session)
    settled = history.settle(session)
    return history.first_base(settled)
