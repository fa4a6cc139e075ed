"""Records as Neon's JSON: same field names and forms, with fixed values where the sandbox has nothing to say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from runbooks.model.moment import Moment
from runbooks.sandbox import names
from runbooks.sandbox.records import REGION, Branch, Database, Endpoint, Operation, Project, Role, Snapshot

Json = dict[str, Any]

RECOVERABLE_FOR = timedelta(days=7)
NOTICE = "local sandbox with fsync off: no real data belongs here"
_NO_USE = dict.fromkeys(
    ("cpu_used_sec", "active_time_seconds", "compute_time_seconds", "written_data_bytes", "data_transfer_bytes"), 0
)


def project(row: Project) -> Json:
    month = _month(row.created_at)
    return _without_none(
        _project_common(row)
        | _NO_USE
        | {
            "data_storage_bytes_hour": 0,
            "consumption_period_start": month[0],
            "consumption_period_end": month[1],
            "owner": {
                "email": "drill@sandbox.localhost",
                "name": "sandbox",
                "branches_limit": -1,
                "subscription_type": "scale_v3",
            },
        }
    )


def project_item(row: Project) -> Json:
    """A project in a list; a deleted one with the time until which it can be recovered."""
    item = _project_common(row) | {"active_time": 0, "cpu_used_sec": 0}
    if row.deleted_at:
        item["deleted_at"] = row.deleted_at.iso()
        item["recoverable_until"] = Moment.of(row.deleted_at.utc + RECOVERABLE_FOR).iso()
    return _without_none(item)


def _project_common(row: Project) -> Json:
    return {
        "id": row.id,
        "platform_id": "sandbox",
        "region_id": row.region,
        "name": row.name,
        "provisioner": "k8s-neonvm",
        "default_endpoint_settings": {
            "autoscaling_limit_min_cu": 0.25,
            "autoscaling_limit_max_cu": 2,
            "suspend_timeout_seconds": 0,
        },
        "settings": {
            "allowed_ips": {"ips": [], "protected_branches_only": False},
            **row.settings,
            "enable_logical_replication": row.logical_replication,
        },
        "pg_version": row.pg_version,
        "proxy_host": names.DOMAIN,
        "branch_logical_size_limit": 16 * 1024,
        "branch_logical_size_limit_bytes": 16 * 1024**3,
        "store_passwords": True,
        "creation_source": "sandbox",
        "history_retention_seconds": row.history_retention_seconds,
        "created_at": row.created_at.iso(),
        "updated_at": row.updated_at.iso(),
        "owner_id": row.org_id or "sandbox",
        "org_id": row.org_id,
        "sandbox_notice": NOTICE,
    }


def branch(row: Branch) -> Json:
    restricted = []
    if row.parent_id is not None:
        restricted.append({"name": "restore", "reason": "cannot restore: not a root branch"})
    return _without_none(
        _NO_USE
        | {
            "id": row.id,
            "project_id": row.project_id,
            "parent_id": row.parent_id,
            "parent_lsn": None if row.parent_lsn is None else names.lsn(row.parent_lsn),
            "parent_timestamp": _iso(row.parent_timestamp),
            "name": row.name,
            "current_state": row.current_state,
            "pending_state": None if row.current_state == "ready" else "ready",
            "state_changed_at": row.state_changed_at.iso(),
            "logical_size": row.logical_size,
            "creation_source": "sandbox",
            "primary": row.default,
            "default": row.default,
            "protected": row.protected,
            "created_at": row.created_at.iso(),
            "updated_at": row.updated_at.iso(),
            "expires_at": _iso(row.expires_at),
            "ttl_interval_seconds": row.ttl_interval_seconds,
            "last_reset_at": _iso(row.last_reset_at),
            "init_source": "parent-data",
            "restored_from": row.restored_from,
            "restored_as": row.restored_as,
            "restore_status": row.restore_status,
            "restricted_actions": restricted or None,
        }
    )


def annotation(row: Branch) -> Json:
    return {
        "object": {"type": "console/branch", "id": row.id},
        "value": row.annotation,
        "created_at": row.created_at.iso(),
        "updated_at": row.updated_at.iso(),
    }


def endpoint(row: Endpoint, state: str) -> Json:
    """`state` is init, active or idle."""
    return _without_none(
        {
            "host": names.host(row.id),
            "id": row.id,
            "name": row.name,
            "project_id": row.project_id,
            "branch_id": row.branch_id,
            "autoscaling_limit_min_cu": row.min_cu,
            "autoscaling_limit_max_cu": row.max_cu,
            "region_id": REGION,
            "type": "read_write",
            "current_state": state,
            "settings": {},
            "pooler_enabled": False,
            "pooler_mode": "transaction",
            "disabled": row.disabled,
            "passwordless_access": True,
            "creation_source": "sandbox",
            "created_at": row.created_at.iso(),
            "updated_at": row.updated_at.iso(),
            "started_at": _iso(row.started_at),
            "suspended_at": _iso(row.suspended_at),
            "proxy_host": names.DOMAIN,
            "suspend_timeout_seconds": row.suspend_timeout_seconds,
            "provisioner": "k8s-neonvm",
        }
    )


def role(row: Role, branch_id: str, *, password: str | None = None) -> Json:
    return _without_none(
        {
            "branch_id": branch_id,
            "name": row.name,
            "password": password,
            "protected": False,
            "authentication_method": "password" if row.login else "no_login",
            "created_at": row.created_at.iso(),
            "updated_at": row.updated_at.iso(),
        }
    )


def database(row: Database, branch_id: str) -> Json:
    return {
        "id": row.id,
        "branch_id": branch_id,
        "name": row.name,
        "owner_name": row.owner_name,
        "created_at": row.created_at.iso(),
        "updated_at": row.created_at.iso(),
    }


def snapshot(row: Snapshot) -> Json:
    return _without_none(
        {
            "id": row.id,
            "name": row.name,
            "lsn": None if row.lsn is None else names.lsn(row.lsn),
            "timestamp": _iso(row.timestamp),
            "source_branch_id": row.source_branch_id,
            "created_at": row.created_at.iso(),
            "expires_at": _iso(row.expires_at),
            "manual": True,
        }
    )


def operation(row: Operation) -> Json:
    return _without_none(
        {
            "id": row.id,
            "project_id": row.project_id,
            "branch_id": row.branch_id,
            "endpoint_id": row.endpoint_id,
            "action": row.action,
            "status": row.status,
            "error": row.error,
            "failures_count": int(row.status == "failed"),
            "created_at": row.created_at.iso(),
            "updated_at": row.updated_at.iso(),
            "total_duration_ms": row.duration_ms,
        }
    )


def uri(row: Endpoint, *, role: str, password: str, database: str, pooled: bool = False) -> str:
    """Neon's form, plus what a server on this machine needs: the address, the port, and no TLS."""
    options = urlencode({"hostaddr": "127.0.0.1", "sslmode": "disable"})
    login = f"{quote(role, safe='')}:{quote(password, safe='')}"
    return f"postgresql://{login}@{names.host(row.id, pooled=pooled)}:{row.port}/{quote(database, safe='')}?{options}"


def connection(row: Endpoint, *, role: str, password: str, database: str) -> Json:
    return {
        "connection_uri": uri(row, role=role, password=password, database=database),
        "connection_parameters": {
            "database": database,
            "password": password,
            "role": role,
            "host": names.host(row.id),
            "pooler_host": names.host(row.id, pooled=True),
        },
    }


def _month(within: Moment) -> tuple[str, str]:
    begin = datetime(within.utc.year, within.utc.month, 1, tzinfo=UTC)
    end = (begin + timedelta(days=32)).replace(day=1)
    return Moment.of(begin).iso(), Moment.of(end).iso()


def _iso(moment: Moment | None) -> str | None:
    return moment.iso() if moment else None


def _without_none(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value is not None}
