"""Which points of a branch's history can be asked for, and on which timeline they lie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from runbooks.model.moment import Moment
from runbooks.sandbox import history, names
from runbooks.sandbox.faults import Fault
from runbooks.sandbox.history import Point
from runbooks.sandbox.plane import Plane
from runbooks.sandbox.records import Branch, Project, Timeline

LONGEST_LIFE = timedelta(days=30)

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True)
class Place:
    timeline: Timeline
    point: Point | None
    """None: now."""


def locate(plane: Plane, branch: Branch, *, timestamp: str | None, lsn: str | None) -> Place:
    """Where the asked point of `branch` lies. ApiFault 400 if it is malformed, in the future or outside the window."""
    if timestamp is not None and lsn is not None:
        raise Fault.ONE_POINT()
    if branch.current_state != "ready":
        raise Fault.NOT_READY()
    if timestamp is not None:
        return _at_moment(plane, branch, read_moment(timestamp))
    if lsn is not None:
        return _at_lsn(plane, branch, lsn)
    return Place(plane.ledger.get(Timeline, branch.timeline_id), None)


def read_moment(text: str) -> Moment:
    """RFC 3339 with a zone, nothing else; ApiFault 400."""
    if not _RFC3339.fullmatch(text):
        raise Fault.NOT_A_TIME(text=text)
    try:
        return Moment.of(datetime.fromisoformat(text.upper()))
    except ValueError:
        raise Fault.NOT_A_TIME(text=text) from None


def read_expiry(text: str, now: Moment) -> Moment:
    """When a branch shall be deleted; ApiFault 400 unless it is to come within 30 days."""
    if not _RFC3339.fullmatch(text):
        raise Fault.EXPIRY_FORM()
    moment = read_moment(text)
    if not now < moment <= Moment.of(now.utc + LONGEST_LIFE):
        raise Fault.EXPIRY_RANGE()
    return moment


def window_begins(project: Project, now: Moment) -> Moment:
    return Moment.of(now.utc - project.history_retention)


def _at_moment(plane: Plane, branch: Branch, moment: Moment) -> Place:
    now = plane.clock()
    if moment > now:
        raise Fault.FUTURE(when=moment)
    timeline = plane.ledger.get(Timeline, branch.timeline_id)
    # A restore in place began a new timeline; what came before is on the one it was forked from. A child branch has
    # only its own history, as on Neon: its parent has to be asked for more.
    while moment < timeline.began_at and branch.parent_id is None and timeline.origin_id is not None:
        timeline = plane.ledger.get(Timeline, timeline.origin_id)
    begins = max(history.earliest(timeline), window_begins(plane.ledger.project(branch.project_id), now))
    if moment < begins:
        raise Fault.OUTSIDE(when=moment, begins=begins)
    return Place(timeline, Point(at=moment))


def _at_lsn(plane: Plane, branch: Branch, text: str) -> Place:
    try:
        lsn = names.read_lsn(text)
    except ValueError:
        raise Fault.NOT_AN_LSN(text=text) from None
    timeline = plane.ledger.get(Timeline, branch.timeline_id)
    while lsn < timeline.began_lsn and branch.parent_id is None and timeline.origin_id is not None:
        timeline = plane.ledger.get(Timeline, timeline.origin_id)
    if lsn < history.earliest_lsn(timeline):
        raise Fault.OUTSIDE(when=f"LSN {text}", begins=names.lsn(history.earliest_lsn(timeline)))
    with plane.jobs.at_rest(branch.project_id), plane.servers.awake(timeline) as server, server.connect() as session:
        if lsn > history.settle(session).lsn:
            raise Fault.FUTURE_LSN(when=text)
    return Place(timeline, Point(lsn=lsn))
