"""Which timelines are still needed, and clearing away those that are not."""

from __future__ import annotations

from collections.abc import Iterator

from runbooks.model.moment import Moment
from runbooks.sandbox.plane import Plane
from runbooks.sandbox.records import Branch, Timeline
from runbooks.sandbox.state import State
from runbooks.sandbox.window import window_begins


def clear(plane: Plane, project_id: str) -> None:
    """Drop the project's timelines that nothing can reach, then every folder that is no timeline's. Safe to repeat.

    Called by the project's own job or chore, so that no timeline is being made meanwhile.
    """
    state = plane.ledger.state
    reachable = set(_reachable(state, project_id, plane.clock()))
    rows = [row for row in plane.ledger.of(Timeline, project_id) if row.id not in reachable]
    plane.ledger.commit(drop=rows)
    folder = plane.servers.folder(project_id)
    for home in folder.iterdir() if folder.exists() else ():
        if home.name not in reachable:
            plane.servers.discard(project_id, home.name)


def _reachable(state: State, project_id: str, now: Moment) -> Iterator[str]:
    for snapshot in state.snapshots.values():
        if snapshot.project_id == project_id:
            yield snapshot.timeline_id
    for branch in state.branches.values():
        if branch.project_id == project_id:
            yield branch.timeline_id
            yield from _history_of(state, branch, now)


def _history_of(state: State, branch: Branch, now: Moment) -> Iterator[str]:
    """The branch's timeline and, for a root, those it was forked from as far as the window reaches back."""
    timeline = state.timelines.get(branch.timeline_id)
    begins = window_begins(state.projects[branch.project_id], now)
    while timeline is not None:
        yield timeline.id
        if branch.parent_id is not None or timeline.origin_id is None or timeline.began_at <= begins:
            return
        timeline = state.timelines.get(timeline.origin_id)
