"""What a stack does by itself: expiry, new bases, pruning, starting servers that died, forgetting deleted projects."""

from __future__ import annotations

import logging
import threading

import psycopg

from runbooks.model.errors import SandboxFault
from runbooks.sandbox import branches, history, projects, snapshots
from runbooks.sandbox.cluster import Server
from runbooks.sandbox.plane import Plane
from runbooks.sandbox.records import Base, Branch, Endpoint, Project, Timeline
from runbooks.sandbox.window import window_begins

log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0


class Chores(threading.Thread):
    """Runs until `stop`. A chore that fails is logged and tried again in the next round."""

    def __init__(self, plane: Plane) -> None:
        super().__init__(name="sandbox-chores", daemon=True)
        self._plane = plane
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.wait(PAUSE_SECONDS):
            for project in list(self._plane.ledger.state.projects.values()):
                try:
                    once(self._plane, project)
                except (SandboxFault, psycopg.Error, OSError):
                    log.exception("a chore of project %s failed", project.id)

    def stop(self) -> None:
        self._ending.set()
        self.join()


def once(plane: Plane, project: Project) -> None:
    """One round for one project."""
    if project.deleted_at is None:
        branches.remove_expired(plane, project.id)
        snapshots.remove_expired(plane, project.id)
    if plane.jobs.is_busy(project.id):
        return
    with plane.jobs.at_rest(project.id):
        now = plane.ledger.find(Project, project.id)  # it may have been deleted while we waited
        if now is None:
            return
        if now.deleted_at is None:
            _keep_alive(plane, now)
            _keep_history(plane, now)
        elif not projects.is_recoverable(now, plane.clock()):
            projects.purge(plane, now.id)


def _keep_alive(plane: Plane, project: Project) -> None:
    """Start again what shall run and does not: Neon does so with a compute that died."""
    for endpoint in list(plane.ledger.of(Endpoint, project.id)):
        branch = plane.ledger.get(Branch, endpoint.branch_id)
        if endpoint.wanted and branch.current_state == "ready" and plane.servers.get(branch.timeline_id) is None:
            plane.servers.start(branch, endpoint)


def _keep_history(plane: Plane, project: Project) -> None:
    since = window_begins(project, plane.clock())
    for timeline in list(plane.ledger.of(Timeline, project.id)):
        server = plane.servers.get(timeline.id)
        if server is not None:
            timeline = _maybe_new_base(plane, timeline, server)
            _prune(plane, timeline, server, history.needed(timeline, since))


def _maybe_new_base(plane: Plane, timeline: Timeline, server: Server) -> Timeline:
    with server.connect() as session:
        lost = not history.is_reserved(session)
        if lost:
            history.reserve(session)
        now = history.settle(session)
    if not lost and not history.wants_base(timeline, now):
        return timeline
    base = history.live_base(server, timeline.bases[-1].number + 1)
    # Without its slot the WAL since the earlier bases may be gone: the history begins anew.
    return plane.ledger.change(timeline, bases=(base,) if lost else (*timeline.bases, base))


def _prune(plane: Plane, timeline: Timeline, server: Server, kept: tuple[Base, ...]) -> None:
    """The record goes first, then WAL and files: a crash in between leaves waste, never a base without its WAL."""
    dropped = [base for base in timeline.bases if base not in kept]
    if not dropped:
        return
    plane.ledger.change(timeline, bases=kept)
    with server.connect() as session:
        history.release_wal(session, kept[0])
    for base in dropped:
        history.discard(history.folder(server.cluster, base))
