"""The part of the Neon API that the sandbox answers. A query parameter that is not listed here is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from runbooks.sandbox import access, branches, endpoints, operations, projects, restores, snapshots
from runbooks.sandbox.faults import Fault
from runbooks.sandbox.plane import Answer, Call, Plane

Handler = Callable[[Plane, Call], Answer]


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    """As in Neon's specification, with the same names in braces."""
    handler: Handler
    query: tuple[str, ...] = ()

    def match(self, method: str, path: str) -> Mapping[str, str] | None:
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.path)
        found = re.fullmatch(pattern, path) if method == self.method else None
        return {name: unquote(value) for name, value in found.groupdict().items()} if found else None


_PAGE = ("limit", "cursor")
_PROJECT = "/projects/{project_id}"
_BRANCH = _PROJECT + "/branches/{branch_id}"
_ENDPOINT = _PROJECT + "/endpoints/{endpoint_id}"
_ROLE = _BRANCH + "/roles/{role_name}"
_SNAPSHOT = _PROJECT + "/snapshots/{snapshot_id}"

ROUTES = (
    Route("GET", "/projects", projects.list_all, (*_PAGE, "search", "org_id", "timeout", "recoverable")),
    Route("POST", "/projects", projects.create),
    Route("GET", _PROJECT, projects.show),
    Route("PATCH", _PROJECT, projects.update),
    Route("DELETE", _PROJECT, projects.delete),
    Route("POST", _PROJECT + "/recover", projects.recover),
    Route("GET", _PROJECT + "/operations", operations.list_all, _PAGE),
    Route("GET", _PROJECT + "/operations/{operation_id}", operations.show),
    Route(
        "GET",
        _PROJECT + "/connection_uri",
        access.connection_uri,
        ("branch_id", "endpoint_id", "database_name", "role_name", "pooled"),
    ),
    Route("GET", _PROJECT + "/branches", branches.list_all, (*_PAGE, "search", "sort_by", "sort_order")),
    Route("POST", _PROJECT + "/branches", branches.create),
    Route("GET", _BRANCH, branches.show),
    Route("PATCH", _BRANCH, branches.update),
    Route("DELETE", _BRANCH, branches.delete),
    Route("POST", _BRANCH + "/restore", restores.restore),
    Route("GET", _BRANCH + "/endpoints", endpoints.list_of_branch),
    Route("GET", _BRANCH + "/databases", access.list_databases),
    Route("POST", _BRANCH + "/databases", access.create_database),
    Route("GET", _BRANCH + "/databases/{database_name}", access.show_database),
    Route("DELETE", _BRANCH + "/databases/{database_name}", access.delete_database),
    Route("GET", _BRANCH + "/roles", access.list_roles),
    Route("POST", _BRANCH + "/roles", access.create_role),
    Route("GET", _ROLE, access.show_role),
    Route("DELETE", _ROLE, access.delete_role),
    Route("GET", _ROLE + "/reveal_password", access.reveal_password),
    Route("POST", _ROLE + "/reset_password", access.reset_password),
    Route("GET", _PROJECT + "/endpoints", endpoints.list_all),
    Route("POST", _PROJECT + "/endpoints", endpoints.create),
    Route("GET", _ENDPOINT, endpoints.show),
    Route("PATCH", _ENDPOINT, endpoints.update),
    Route("DELETE", _ENDPOINT, endpoints.delete),
    Route("POST", _ENDPOINT + "/start", endpoints.start),
    Route("POST", _ENDPOINT + "/suspend", endpoints.suspend),
    Route("POST", _ENDPOINT + "/restart", endpoints.restart),
    Route("POST", _BRANCH + "/snapshot", snapshots.create, ("timestamp", "lsn", "name", "expires_at")),
    Route("GET", _PROJECT + "/snapshots", snapshots.list_all),
    Route("PATCH", _SNAPSHOT, snapshots.update),
    Route("DELETE", _SNAPSHOT, snapshots.delete),
    Route("POST", _SNAPSHOT + "/restore", snapshots.restore),
    Route("POST", _BRANCH + "/finalize_restore", snapshots.finalize_restore),
    Route("GET", _BRANCH + "/backup_schedule", snapshots.show_schedule),
    Route("PUT", _BRANCH + "/backup_schedule", snapshots.set_schedule),
)


def find(method: str, path: str, query: Mapping[str, str]) -> tuple[Handler, Mapping[str, str]]:
    """The handler and the path's parameters. ApiFault 404 for a path, 400 for a query parameter that is not known."""
    for route in ROUTES:
        parameters = route.match(method, path)
        if parameters is not None:
            for name in query:
                if name not in route.query:
                    raise Fault.BAD_QUERY(name=name, why="not known here")
            return route.handler, parameters
    raise Fault.NO_ROUTE()
