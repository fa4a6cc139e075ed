"""The Neon API as a state in memory: one project with a branch `main` and a compute. No sockets and no database.

It is strict where a client could be careless: names are unique, a change while operations run is answered 423, a
protected branch refuses, a branch made without asking for a compute gets none. All time is the fake clock's.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from runbooks.model.moment import Moment

PASSWORD = "planted-pw-9931"
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
PROJECT, MAIN, MAIN_ENDPOINT = "quiet-lake-123456", "br-main-000001", "ep-main-000001"

Reply = tuple[int, Any]


class FakeClock:
    """Sleeping takes no time and is written down."""

    def __init__(self, start: datetime = NOON) -> None:
        self.time = start
        self.slept: list[float] = []

    def now(self) -> Moment:
        return Moment.of(self.time)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_by(seconds)

    def pass_by(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


@dataclass
class NeonMemory:
    clock: FakeClock = field(default_factory=FakeClock)
    polls: int = 0
    """How often an operation is asked for before it has finished."""
    page_size: int = 1000
    resolve: Callable[[str], str] = lambda asked: asked
    """Asked moment -> moment of the last commit."""

    def __post_init__(self) -> None:
        self.made = 0
        self.query: Mapping[str, str] = {}
        self.body: Any = None
        self.projects: dict[str, dict[str, Any]] = {PROJECT: self._project(PROJECT, "shop")}
        self.deleted_projects: dict[str, dict[str, Any]] = {}
        self.branches: dict[str, dict[str, Any]] = {}
        self.annotations: dict[str, dict[str, str]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.operations: dict[str, dict[str, Any]] = {}
        self.pending: dict[str, int] = {}
        self.when_done: list[Callable[[], Any]] = []
        self.snapshots: dict[str, dict[str, Any]] = {}
        self.schedules: dict[str, list[dict[str, Any]]] = {}
        self.passwords: dict[tuple[str, str], str] = {}
        self._add_branch(MAIN, "main", default=True, created_at=_text(NOON - timedelta(days=90)))
        self._add_endpoint(MAIN_ENDPOINT, MAIN)

    def named(self, name: str) -> list[dict[str, Any]]:
        return [branch for branch in self.branches.values() if branch["name"] == name]

    def handle(self, method: str, path: str, query: Mapping[str, str], body: Any) -> Reply:
        if method != "GET" and any(self.pending.values()):
            self._tick()
            return _refused(423, "project already has running conflicting operations")
        for wanted, pattern, name in _ROUTES:
            if wanted == method and (found := re.fullmatch(pattern, path)):
                self.query, self.body = query, body
                status, reply = getattr(self, name)(*map(unquote, found.groups()))
                return status, copy.deepcopy(reply)
        return _refused(404, f"no such route: {method} {path}")

    # --- projects --------------------------------------------------------------------------------------------------

    def list_projects(self) -> Reply:
        of = self.deleted_projects if self.query.get("recoverable") == "true" else self.projects
        listed = [{**project, "active_time": 0} for project in of.values()]
        return 200, {
            **_page(listed, "projects", self.query, "cursor", self.page_size),
            "applications": {},
            "integrations": {},
        }

    def create_project(self) -> Reply:
        asked = self.body["project"]
        project = self._project(self._name("project"), asked["name"]) | {
            name: asked[name] for name in ("region_id", "pg_version", "history_retention_seconds") if name in asked
        }
        self.projects[project["id"]] = project
        state = "init" if self.polls else "ready"
        branch = self._add_branch(self._name("br"), "main", default=True, project_id=project["id"], current_state=state)
        endpoint = self._add_endpoint(self._name("ep"), branch["id"])
        return 201, {
            "project": project,
            "branch": branch,
            "endpoints": [endpoint],
            "roles": [_role(branch["id"])],
            "databases": [_database(branch["id"])],
            "connection_uris": [],
            "operations": self._operations("create_timeline", "start_compute"),
        }

    def get_project(self, project_id: str) -> Reply:
        if project_id not in self.projects:
            return _refused(404, "project not found")
        return 200, {"project": self.projects[project_id]}

    def patch_project(self, project_id: str) -> Reply:
        asked = dict(self.body["project"])
        settings = self.projects[project_id].get("settings", {}) | asked.pop("settings", {})
        self.projects[project_id].update(asked, settings=settings)
        restarted = self._operations("start_compute") if "settings" in self.body["project"] else []
        return 200, {"project": self.projects[project_id], "operations": restarted}

    def delete_project(self, project_id: str) -> Reply:
        if project_id not in self.projects:
            return _refused(404, "project not found")
        project = self.projects.pop(project_id)
        until = {"deleted_at": self._now(), "recoverable_until": _text(self.clock.time + timedelta(days=7))}
        self.deleted_projects[project_id] = project | until
        return 200, {"project": project}

    def recover_project(self, project_id: str) -> Reply:
        if project_id not in self.deleted_projects:
            return _refused(404, "project not found")
        self.projects[project_id] = self.deleted_projects.pop(project_id)
        return 200, {"project": self.projects[project_id], "branches": list(self.branches.values())}

    # --- branches --------------------------------------------------------------------------------------------------

    def list_branches(self, project_id: str) -> Reply:
        mine = [branch for branch in self.branches.values() if branch["project_id"] == project_id]
        return 200, {**_page(mine, "branches", self.query, "next", self.page_size), "annotations": {}}

    def create_branch(self, project_id: str) -> Reply:
        asked = self.body["branch"]
        if self.named(asked["name"]):
            return _refused(409, "branch already exists", "BRANCH_ALREADY_EXISTS")
        branch = self._add_branch(
            self._name("br"),
            asked["name"],
            parent_id=asked["parent_id"],
            parent_timestamp=self.resolve(asked["parent_timestamp"]),
            parent_lsn="0/1DE2850",
            expires_at=asked["expires_at"],
            current_state="init" if self.polls else "ready",
        )
        self.annotations[branch["id"]] = self.body.get("annotation_value", {})
        made = [
            self._add_endpoint(self._name("ep"), branch["id"], each["type"]) for each in self.body.get("endpoints", [])
        ]
        return 201, {
            "branch": branch,
            "endpoints": made,
            "operations": self._operations("create_branch", "start_compute"),
            "roles": [_role(branch["id"])],
            "databases": [_database(branch["id"])],
        }

    def get_branch(self, project_id: str, branch_id: str) -> Reply:
        if branch_id not in self.branches:
            return _refused(404, "branch not found")
        self._tick()
        note = {"object": {"type": "console/branch", "id": branch_id}, "value": self.annotations.get(branch_id, {})}
        return 200, {"branch": self.branches[branch_id], "annotation": note}

    def patch_branch(self, project_id: str, branch_id: str) -> Reply:
        self.branches[branch_id].update(self.body["branch"])
        return 200, {"branch": self.branches[branch_id], "operations": []}

    def delete_branch(self, project_id: str, branch_id: str) -> Reply:
        if branch_id not in self.branches:
            return 204, None
        if self.branches[branch_id]["protected"]:
            return _refused(422, "cannot delete protected branch")
        branch = self.branches.pop(branch_id)
        return 200, {"branch": branch, "operations": self._operations("suspend_compute", "delete_timeline")}

    def restore_branch(self, project_id: str, branch_id: str) -> Reply:
        branch = self.branches[branch_id]
        if branch["protected"]:
            return _refused(422, "cannot reset protected branch")
        if self.named(self.body["preserve_under_name"]):
            return _refused(409, "branch already exists", "BRANCH_ALREADY_EXISTS")
        branch["parent_timestamp"] = self.resolve(self.body["source_timestamp"])
        branch["current_state"] = "resetting"
        name = self.body["preserve_under_name"]
        self.when_done.append(lambda: self._add_branch(self._name("br"), name))
        if not self.polls:
            self._tick()
        return 200, {"branch": branch, "operations": self._operations("create_timeline", "apply_config")}

    def list_endpoints(self, project_id: str, branch_id: str) -> Reply:
        return 200, {"endpoints": [each for each in self.endpoints.values() if each["branch_id"] == branch_id]}

    def list_databases(self, project_id: str, branch_id: str) -> Reply:
        return 200, {"databases": [_database(branch_id)]}

    def list_roles(self, project_id: str, branch_id: str) -> Reply:
        return 200, {"roles": [_role(branch_id)]}

    def reveal_password(self, project_id: str, branch_id: str, role: str) -> Reply:
        return 200, {"password": self.passwords.get((branch_id, role), PASSWORD)}

    def reset_password(self, project_id: str, branch_id: str, role: str) -> Reply:
        self.passwords[branch_id, role] = self._name("new-pw")
        made = _role(branch_id) | {"name": role, "password": self.passwords[branch_id, role]}
        return 200, {"role": made, "operations": self._operations("apply_config")}

    def connection_uri(self, project_id: str) -> Reply:
        branch_id = self.query.get("branch_id") or MAIN
        endpoint = next(each for each in self.endpoints.values() if each["branch_id"] == branch_id)
        password = self.passwords.get((branch_id, self.query["role_name"]), PASSWORD)
        login = f"{self.query['role_name']}:{password}@{endpoint['host']}"
        return 200, {"uri": f"postgresql://{login}/{self.query['database_name']}?sslmode=require"}

    # --- computes, operations, snapshots ----------------------------------------------------------------------------

    def get_endpoint(self, project_id: str, endpoint_id: str) -> Reply:
        return 200, {"endpoint": self.endpoints[endpoint_id]}

    def patch_endpoint(self, project_id: str, endpoint_id: str) -> Reply:
        self.endpoints[endpoint_id].update(self.body["endpoint"])
        return self._endpoint_operation(endpoint_id, "suspend_compute", "idle")

    def suspend(self, project_id: str, endpoint_id: str) -> Reply:
        return self._endpoint_operation(endpoint_id, "suspend_compute", "idle")

    def restart(self, project_id: str, endpoint_id: str) -> Reply:
        return self._endpoint_operation(endpoint_id, "start_compute", "active")

    def list_operations(self, project_id: str) -> Reply:
        self._tick()
        newest_first = list(self.operations.values())[::-1]
        return 200, {"operations": newest_first[: int(self.query["limit"])]}

    def get_operation(self, project_id: str, operation_id: str) -> Reply:
        self._tick(operation_id)
        return 200, {"operation": self.operations[operation_id]}

    def list_snapshots(self, project_id: str) -> Reply:
        return 200, {"snapshots": list(self.snapshots.values())}

    def create_snapshot(self, project_id: str, branch_id: str) -> Reply:
        snapshot = {"id": self._name("snap"), "name": self.query["name"], "created_at": self._now()}
        snapshot |= {"source_branch_id": branch_id}
        snapshot |= {name: self.query[name] for name in ("timestamp", "expires_at") if name in self.query}
        self.snapshots[snapshot["id"]] = snapshot
        return 200, {"snapshot": snapshot, "operations": self._operations("create_branch")}

    def delete_snapshot(self, project_id: str, snapshot_id: str) -> Reply:
        if self.snapshots.pop(snapshot_id, None) is None:
            return _refused(404, "snapshot not found")
        return 202, {"operations": self._operations("delete_timeline")}

    def get_schedule(self, project_id: str, branch_id: str) -> Reply:
        return 200, {"schedule": self.schedules.get(branch_id, [])}

    def set_schedule(self, project_id: str, branch_id: str) -> Reply:
        self.schedules[branch_id] = self.body["schedule"][::-1]
        return 200, {}

    # --- state -----------------------------------------------------------------------------------------------------

    def _now(self) -> str:
        return _text(self.clock.time)

    def _name(self, kind: str) -> str:
        self.made += 1
        return f"{kind}-made-{self.made:06}"

    def _endpoint_operation(self, endpoint_id: str, action: str, state: str) -> Reply:
        self.endpoints[endpoint_id]["current_state"] = state
        return 200, {"endpoint": self.endpoints[endpoint_id], "operations": self._operations(action)}

    def _operations(self, *actions: str) -> list[dict[str, Any]]:
        made = []
        for action in actions:
            self.made += 1
            operation: dict[str, Any] = {
                "id": f"00000000-0000-4000-8000-{self.made:012}",
                "project_id": PROJECT,
                "action": action,
                "status": "running" if self.polls else "finished",
                "failures_count": 0,
                "created_at": self._now(),
                "updated_at": self._now(),
                "total_duration_ms": 100,
            }
            self.operations[operation["id"]] = operation
            self.pending[operation["id"]] = self.polls
            made.append(dict(operation))
        return made

    def _tick(self, operation_id: str | None = None) -> None:
        """One look at the operations brings them nearer to their end."""
        for each in [operation_id] if operation_id else list(self.pending):
            self.pending[each] = max(self.pending[each] - 1, 0)
            if not self.pending[each] and self.operations[each]["status"] == "running":
                self.operations[each]["status"] = "finished"
        if not any(self.pending.values()):
            while self.when_done:
                self.when_done.pop()()
            for branch in self.branches.values():
                branch["current_state"] = "ready"

    def _project(self, project_id: str, name: str) -> dict[str, Any]:
        numbers = "active_time_seconds compute_time_seconds written_data_bytes data_transfer_bytes cpu_used_sec"
        more = "data_storage_bytes_hour branch_logical_size_limit branch_logical_size_limit_bytes"
        return {
            **dict.fromkeys(f"{numbers} {more}".split(), 0),
            "consumption_period_start": _text(NOON),
            "consumption_period_end": _text(NOON),
            "id": project_id,
            "platform_id": "aws",
            "region_id": "aws-eu-central-1",
            "name": name,
            "pg_version": 17,
            "proxy_host": "eu-central-1.aws.example",
            "store_passwords": True,
            "provisioner": "k8s-neonvm",
            "creation_source": "console",
            "history_retention_seconds": 86400,
            "created_at": _text(NOON - timedelta(days=90)),
            "updated_at": self._now(),
            "owner_id": "org-1",
        }

    def _add_branch(self, branch_id: str, name: str, **fields: Any) -> dict[str, Any]:
        numbers = "active_time_seconds compute_time_seconds written_data_bytes data_transfer_bytes cpu_used_sec"
        self.branches[branch_id] = {
            **dict.fromkeys(numbers.split(), 0),
            "id": branch_id,
            "project_id": PROJECT,
            "name": name,
            "current_state": "ready",
            "state_changed_at": self._now(),
            "creation_source": "console",
            "created_at": self._now(),
            "updated_at": self._now(),
            "default": False,
            "protected": False,
            **fields,
        }
        return self.branches[branch_id]

    def _add_endpoint(self, endpoint_id: str, branch_id: str, kind: str = "read_write") -> dict[str, Any]:
        self.endpoints[endpoint_id] = {
            "id": endpoint_id,
            "host": f"{endpoint_id}.c-2.eu-central-1.aws.example",
            "project_id": PROJECT,
            "branch_id": branch_id,
            "region_id": "aws-eu-central-1",
            "autoscaling_limit_min_cu": 0.25,
            "autoscaling_limit_max_cu": 2,
            "type": kind,
            "current_state": "active",
            "pooler_enabled": False,
            "pooler_mode": "transaction",
            "disabled": False,
            "passwordless_access": True,
            "creation_source": "console",
            "created_at": self._now(),
            "updated_at": self._now(),
            "settings": {},
            "proxy_host": "eu-central-1.aws.example",
            "suspend_timeout_seconds": 0,
            "provisioner": "k8s-neonvm",
        }
        return self.endpoints[endpoint_id]


def _refused(status: int, message: str, code: str = "") -> Reply:
    return status, {"request_id": "req-5678", "code": code, "message": message}


def _page(items: list[Any], field_name: str, query: Mapping[str, str], cursor: str, size: int) -> dict[str, Any]:
    start = int(query.get("cursor", "0"))
    size = min(size, int(query["limit"]))
    page: dict[str, Any] = {field_name: items[start : start + size]}
    if start + size < len(items):
        page["pagination"] = {cursor: str(start + size)}
    return page


def _role(branch_id: str) -> dict[str, Any]:
    return {"branch_id": branch_id, "name": "shop_owner", "created_at": _text(NOON), "updated_at": _text(NOON)}


def _database(branch_id: str) -> dict[str, Any]:
    times = {"created_at": _text(NOON), "updated_at": _text(NOON)}
    return {"id": 1, "branch_id": branch_id, "name": "shop", "owner_name": "shop_owner", **times}


_P, _ID = "/projects/([^/]+)", "([^/]+)"
_ROUTES = (
    ("GET", "/projects", "list_projects"),
    ("POST", "/projects", "create_project"),
    ("GET", _P, "get_project"),
    ("PATCH", _P, "patch_project"),
    ("DELETE", _P, "delete_project"),
    ("POST", f"{_P}/recover", "recover_project"),
    ("GET", f"{_P}/branches", "list_branches"),
    ("POST", f"{_P}/branches", "create_branch"),
    ("GET", f"{_P}/branches/{_ID}", "get_branch"),
    ("PATCH", f"{_P}/branches/{_ID}", "patch_branch"),
    ("DELETE", f"{_P}/branches/{_ID}", "delete_branch"),
    ("POST", f"{_P}/branches/{_ID}/restore", "restore_branch"),
    ("GET", f"{_P}/branches/{_ID}/backup_schedule", "get_schedule"),
    ("PUT", f"{_P}/branches/{_ID}/backup_schedule", "set_schedule"),
    ("GET", f"{_P}/branches/{_ID}/endpoints", "list_endpoints"),
    ("GET", f"{_P}/branches/{_ID}/databases", "list_databases"),
    ("GET", f"{_P}/branches/{_ID}/roles", "list_roles"),
    ("GET", f"{_P}/branches/{_ID}/roles/{_ID}/reveal_password", "reveal_password"),
    ("POST", f"{_P}/branches/{_ID}/roles/{_ID}/reset_password", "reset_password"),
    ("GET", f"{_P}/connection_uri", "connection_uri"),
    ("GET", f"{_P}/endpoints/{_ID}", "get_endpoint"),
    ("PATCH", f"{_P}/endpoints/{_ID}", "patch_endpoint"),
    ("POST", f"{_P}/endpoints/{_ID}/suspend", "suspend"),
    ("POST", f"{_P}/endpoints/{_ID}/restart", "restart"),
    ("GET", f"{_P}/operations", "list_operations"),
    ("GET", f"{_P}/operations/{_ID}", "get_operation"),
    ("GET", f"{_P}/snapshots", "list_snapshots"),
    ("POST", f"{_P}/branches/{_ID}/snapshot", "create_snapshot"),
    ("DELETE", f"{_P}/snapshots/{_ID}", "delete_snapshot"),
)
