"""The resource, as a Pulumi program declares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi.dynamic import Resource

from neon_posture.provider import PostureProvider


class NeonPosture(Resource, module="neon", name="Posture"):
    """What is demanded of a Neon project and of one of its branches. Adopts: it makes and deletes no project."""

    branch_id: pulumi.Output[str]
    """The branch that is protected; without `branch` the project's default one."""

    def __init__(
        self,
        name: str,
        *,
        api: pulumi.Input[str],
        api_key_env: str,
        project: pulumi.Input[str],
        branch: str | None,
        history_seconds: int,
        protected: bool,
        snapshots: Sequence[Mapping[str, Any]],
        logical_replication: bool,
        region: str | None = None,
        pg_version: int | None = None,
        opts: pulumi.ResourceOptions,
    ) -> None:
        """`neon_posture.posture.Posture` explains each. The key itself is no input, only its variable's name."""
        props = {
            "api": api,
            "api_key_env": api_key_env,
            "project": project,
            "branch": branch,
            "history_seconds": history_seconds,
            "protected": protected,
            "snapshots": list(snapshots),
            "logical_replication": logical_replication,
            "region": region,
            "pg_version": pg_version,
            "branch_id": None,
        }
        super().__init__(PostureProvider(), name, props, opts)
