"""The servers that run now: one per timeline that a compute or an internal task needs awake."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from runbooks.sandbox.cluster import Cluster, Server, Toolbox, running
from runbooks.sandbox.history import discard
from runbooks.sandbox.processes import free_port, is_free, reap
from runbooks.sandbox.records import Branch, Endpoint, Timeline
from runbooks.sandbox.state import Ledger

_SERVING: Mapping[str, str] = {"shared_buffers": "64MB", "max_slot_wal_keep_size": "16GB"}


class Servers:
    """Starting and stopping, by timeline. Callers hold the project's lock; the map itself is safe to read any time."""

    def __init__(self, root: Path, tools: Toolbox, ledger: Ledger) -> None:
        self._root = root
        self._tools = tools
        self._ledger = ledger
        self._running: dict[str, Server] = {}
        self._lock = threading.Lock()

    @property
    def pg_version(self) -> int:
        """The major version of every server of the stack."""
        return self._tools.program.version[0]

    def folder(self, project_id: str) -> Path:
        """Where the timelines of a project are, a folder each."""
        return self._root / "projects" / project_id

    def cluster(self, project_id: str, timeline_id: str) -> Cluster:
        return Cluster(self.folder(project_id) / timeline_id, self._tools)

    def new_cluster(self, project_id: str, timeline_id: str) -> Cluster:
        """A cluster with its empty folder."""
        cluster = self.cluster(project_id, timeline_id)
        self._tools.account.folder(cluster.home)
        return cluster

    def get(self, timeline_id: str) -> Server | None:
        """The live server of a compute."""
        server = self._running.get(timeline_id)
        return server if server and server.alive else None

    def start(self, branch: Branch, endpoint: Endpoint) -> Server:
        """Start a compute and wait for it. On its port; if that was taken meanwhile, on a new one, and recorded."""
        if found := self.get(branch.timeline_id):
            return found
        self.stop(branch.timeline_id)
        if not is_free(endpoint.port):
            endpoint = self._ledger.change(endpoint, port=free_port())
        timeline = self._ledger.get(Timeline, branch.timeline_id)
        cluster = self.cluster(timeline.project_id, timeline.id)
        server = cluster.start(endpoint.port, self.settings(timeline, branch, endpoint)).wait()
        with self._lock:
            self._running[timeline.id] = server
        return server

    def stop(self, timeline_id: str) -> None:
        """Safe to repeat."""
        with self._lock:
            server = self._running.pop(timeline_id, None)
        if server:
            server.stop()

    def discard(self, project_id: str, timeline_id: str) -> None:
        """Remove a timeline's files, after its server: the one of ours, or one that an earlier supervisor left."""
        self.stop(timeline_id)
        cluster = self.cluster(project_id, timeline_id)
        reap(cluster.data)
        discard(cluster.home)

    def stop_all(self) -> None:
        with self._lock:
            servers = list(self._running.values())
            self._running.clear()
        for server in servers:
            server.release()
        for server in servers:
            server.stop()

    @contextmanager
    def awake(self, timeline: Timeline) -> Iterator[Server]:
        """The timeline's server; one is started on a spare port for the block if no compute runs."""
        if server := self.get(timeline.id):
            yield server
            return
        with running(self.cluster(timeline.project_id, timeline.id), self.settings(timeline)) as server:
            yield server

    def settings(
        self, timeline: Timeline, branch: Branch | None = None, endpoint: Endpoint | None = None
    ) -> dict[str, str]:
        """A server's settings, with the names by which a session proves where it is."""
        project = self._ledger.state.projects[timeline.project_id]
        return dict(_SERVING) | {
            "wal_level": "logical" if project.logical_replication else "replica",
            "neon.project_id": project.id,
            "neon.branch_id": branch.id if branch else "",
            "neon.endpoint_id": endpoint.id if endpoint else "",
            "neon.timeline_id": timeline.id,
        }
