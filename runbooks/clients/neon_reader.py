"""Everything about a Neon project that can be known without changing it. Surveys and previews get this, not `Neon`."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from runbooks.clients.neon_request import Clock, Progress, Sleep
from runbooks.clients.neon_types import (
    ENDED,
    Branch,
    Database,
    Endpoint,
    JsonObject,
    Operation,
    Project,
    Role,
    Snapshot,
    SnapshotTime,
    Window,
    read,
    read_all,
    read_text,
)
from runbooks.model.dsn import Dsn, Secret
from runbooks.model.errors import NeonFault, Refused, UsageFault, WrongTarget
from runbooks.model.moment import Moment

READ_WRITE = "read_write"


def the_time() -> Moment:
    """What this machine's clock says."""
    return Moment.of(datetime.now(UTC))


class NeonReader:
    """One project, read only. Every method raises NotFound, LoginRefused or NeonFault; all are safe to repeat."""

    def __init__(
        self,
        *,
        api: str,
        key: Secret,
        project_id: str,
        clock: Clock = the_time,
        sleep: Sleep = time.sleep,
        progress: Progress | None = None,
        zone: str = "UTC",
        patience: timedelta = timedelta(minutes=5),
    ) -> None:
        """`zone` is the one times are told in beside UTC; `patience` is how long one thing is waited for."""
        from runbooks.clients.neon_http import Wire  # httpx loads slowly; a list of tasks does without

        self._wire = Wire(api=api, key=key, clock=clock, sleep=sleep, progress=progress, patience=patience)
        self._clock = clock
        self._zone = zone
        self.project_id = project_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.project_id})"

    def project(self) -> Project:
        return read(Project, self._get(self._path(), "reading the project"), "project")

    def window(self, branch: Branch, now: Moment) -> Window:
        """The moments `branch` can be recovered to, by the retention that the API reports now."""
        return Window.of(branch, now, retention=self.project().history_retention, zone=self._zone)

    def branches(self) -> tuple[Branch, ...]:
        """All branches, oldest first."""
        pages = self._wire.pages(
            self._path("branches"),
            "branches",
            # By creation: in the default order, by last update, a branch can slip from one page to another unseen.
            {"limit": 1000, "sort_by": "created_at", "sort_order": "asc"},
            cursor="next",
            what="listing the branches",
        )
        return tuple(branch for page in pages for branch in read_all(Branch, page, "branches"))

    def branch(self, branch_id: str) -> Branch:
        return read(Branch, self._get(self._path("branches", branch_id), f"reading branch {branch_id}"), "branch")

    def default_branch(self) -> Branch:
        """The branch that applications use unless told otherwise: production."""
        found = [branch for branch in self.branches() if branch.default]
        if len(found) != 1:
            raise NeonFault(
                f"project {self.project_id} has {len(found)} default branches instead of one",
                safe="nothing was changed",
                next_step="set the default branch in the Neon Console, then run it again",
            )
        return found[0]

    def find_branch(self, name: str) -> Branch | None:
        """The branch of exactly this name. Refused if several have it."""
        found = [branch for branch in self.branches() if branch.name == name]
        if len(found) > 1:
            raise Refused(
                f"{len(found)} branches are named {name}: {', '.join(branch.id for branch in found)}",
                safe="nothing was changed",
                next_step="remove or rename the wrong ones in the Neon Console, then run it again",
            )
        return found[0] if found else None

    def annotation(self, branch_id: str) -> dict[str, str]:
        """The notes kept with a branch; empty if there are none."""
        body = self._get(self._path("branches", branch_id), f"reading the notes of branch {branch_id}")
        noted = body.get("annotation")
        value = noted.get("value") if isinstance(noted, dict) else None
        return {str(name): str(text) for name, text in value.items()} if isinstance(value, dict) else {}

    def endpoints(self, branch_id: str) -> tuple[Endpoint, ...]:
        """The computes of a branch. Asking does not wake them."""
        body = self._get(self._path("branches", branch_id, "endpoints"), f"listing the computes of {branch_id}")
        return read_all(Endpoint, body, "endpoints")

    def endpoint(self, endpoint_id: str) -> Endpoint:
        return read(Endpoint, self._get(self._path("endpoints", endpoint_id), f"reading {endpoint_id}"), "endpoint")

    def databases(self, branch_id: str) -> tuple[Database, ...]:
        body = self._get(self._path("branches", branch_id, "databases"), f"listing the databases of {branch_id}")
        return read_all(Database, body, "databases")

    def roles(self, branch_id: str) -> tuple[Role, ...]:
        body = self._get(self._path("branches", branch_id, "roles"), f"listing the roles of {branch_id}")
        return read_all(Role, body, "roles")

    def snapshots(self) -> tuple[Snapshot, ...]:
        return read_all(Snapshot, self._get(self._path("snapshots"), "listing the snapshots"), "snapshots")

    def snapshot_schedule(self, branch_id: str) -> tuple[SnapshotTime, ...]:
        """When Neon takes snapshots of the branch by itself; empty: never. Neon calls this endpoint beta."""
        path = self._path("branches", branch_id, "backup_schedule")
        return read_all(SnapshotTime, self._get(path, f"reading the snapshot schedule of {branch_id}"), "schedule")

    def operation(self, operation_id: str) -> Operation:
        body = self._get(self._path("operations", operation_id), f"reading operation {operation_id}")
        return read(Operation, body, "operation")

    def running_operations(self) -> tuple[Operation, ...]:
        """What Neon is doing in the project just now; while there is something, it takes no change."""
        path = self._path("operations")
        body = self._wire.get(path, {"limit": 100}, what="listing the operations").body  # newest first
        return tuple(each for each in read_all(Operation, body, "operations") if each.status not in ENDED)

    def reveal_password(self, *, branch_id: str, role: str) -> Secret:
        """The role's password on that branch. NeonFault if the project does not store passwords: then reset it."""
        path = self._path("branches", branch_id, "roles", role, "reveal_password")
        return Secret(read_text(self._get(path, f"reading the password of {role} on {branch_id}"), "password"))

    def connection(self, *, branch: Branch, database: str, role: str) -> Dsn:
        """How to reach a database of exactly this branch, past the pooler, with the password that holds there.

        Never made from another branch's address: children of a protected branch have passwords of their own, and a
        branch of the past may have those from before the last rotation. WrongTarget if Neon's answer leads elsewhere.
        """
        # Without branch_id Neon answers for the default branch: production.
        query = {"branch_id": branch.id, "database_name": database, "role_name": role, "pooled": "false"}
        body = self._wire.get(self._path("connection_uri"), query, what=f"asking how to reach {branch.name}").body
        dsn = _dsn(read_text(body, "uri")).direct()
        own = {each.host.lower(): each.id for each in self.endpoints(branch.id) if each.branch_id == branch.id}
        if dsn.host.lower() not in own or dsn.endpoint_id not in (None, own[dsn.host.lower()]):
            raise _elsewhere(f"host {dsn.host}, which is no compute of branch {branch.name} ({branch.id})")
        if (dsn.database, dsn.user) != (database, role):
            raise _elsewhere(f"database {dsn.database} as {dsn.user} instead of {database} as {role}")
        return dsn

    def _get(self, path: str, what: str) -> JsonObject:
        return self._wire.get(path, what=what).body

    def _path(self, *parts: str) -> str:
        whole = ("projects", self.project_id, *parts)
        if any(part in ("", ".", "..") for part in whole):
            raise UsageFault(
                f"a name or id is missing in {'/'.join(whole)}",
                safe="no request was sent",
                next_step="give the full id (project, branch br-…, compute ep-…), then run it again",
            )
        return "/".join(quote(part, safe="") for part in whole)


def _dsn(uri: str) -> Dsn:
    try:
        return Dsn.parse(uri)
    except UsageFault as fault:
        raise NeonFault(
            f"Neon's connection string cannot be used: {fault.happened}",
            safe="no connection was opened",
            next_step="check NEON_API_URL, then run it again",
        ) from fault


def _elsewhere(where: str) -> WrongTarget:
    return WrongTarget(
        f"Neon's connection string leads to {where}",
        safe="no connection was opened",
        next_step="check the branch's computes in the Neon Console, then run it again",
    )
