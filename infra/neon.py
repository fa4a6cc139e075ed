"""The Neon project of an environment: adopted by its id, or made once; then held to what the policy promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import pulumi
import pulumi_neon

from neon_posture import NeonPosture
from runbooks.model.policy import Environment
from runbooks.model.policy_stack import NewProject, StackPolicy
from runbooks.model.sandbox_place import KEY, SandboxPlace

NIGHTLY = {"frequency": "daily", "hour": 3, "retention_seconds": int(timedelta(days=30).total_seconds())}
"""In UTC, an hour after the nightly backup of ours. Each field is given: one that Neon fills in would drift (C26)."""
SECRET_OUTPUTS = ["connection_uri", "connection_uri_pooler", "default_role_password"]
"""pulumi-neon does not mark them: unmarked, the password is in the state as clear text."""


@dataclass(frozen=True)
class NeonProjectArgs:
    environment: str
    api: str
    api_key_env: str
    """The key stays in this variable."""
    project: str
    """What is adopted, unless there is a `new` one."""
    branch: str | None
    window: timedelta
    snapshots: bool
    logical_replication: bool
    new: NewProject | None
    protect: bool

    @classmethod
    def of(
        cls, name: str, environment: Environment, section: StackPolicy, environ: Mapping[str, str]
    ) -> NeonProjectArgs:
        """PolicyFault if it is the sandbox and `environ` does not say where that is."""
        if environment.sandbox:
            place = SandboxPlace.read(environ)
            api, key_env, project, branch = place.api, KEY, place.project, None
        else:
            api, key_env = environment.api, environment.api_key_env
            project, branch = environment.project, environment.branch
        return cls(
            environment=name,
            api=api,
            api_key_env=key_env,
            project=project,
            branch=branch,
            window=environment.promised_window,
            snapshots=section.snapshots,
            logical_replication=section.logical_replication,
            new=section.new_project,
            protect=not environment.sandbox,
        )


class NeonProject(pulumi.ComponentResource):
    """No operation on it deletes a project, replaces it or shortens its history: deleting leaves all as it is."""

    project_id: pulumi.Output[str]
    branch_id: pulumi.Output[str]
    """The branch of record."""

    def __init__(self, name: str, args: NeonProjectArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("bloom-dr:infra:NeonProject", name, None, opts)
        new = args.new
        self.project_id = self._made(name, new, args) if new else pulumi.Output.from_input(args.project)
        posture = NeonPosture(
            name,
            api=args.api,
            api_key_env=args.api_key_env,
            project=self.project_id,
            branch=None if new else args.branch,
            history_seconds=int(args.window.total_seconds()),
            protected=True,
            snapshots=[NIGHTLY] if args.snapshots else [],
            logical_replication=args.logical_replication,
            region=new.region if new else None,
            pg_version=new.pg_version if new else None,
            opts=self._kept(args),
        )
        self.branch_id = posture.branch_id
        self.register_outputs({"project_id": self.project_id, "branch_id": self.branch_id})

    def _made(self, name: str, new: NewProject, args: NeonProjectArgs) -> pulumi.Output[str]:
        """Once made, nothing about it is a change to pulumi-neon: its only answer to one could be a replacement (C26).

        It takes its key from the configuration neon:api_key or from NEON_API_KEY. It cannot choose region and version:
        the posture refuses a project that is not where the policy wants it, while there is nothing in it.
        """
        secret = pulumi.ResourceOptions(
            additional_secret_outputs=SECRET_OUTPUTS, ignore_changes=["name", "org_id"], delete_before_replace=False
        )
        opts = pulumi.ResourceOptions.merge(self._kept(args), secret)
        return pulumi_neon.resource.Project(name, name=new.name, org_id=new.organization, opts=opts).identifier

    def _kept(self, args: NeonProjectArgs) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, protect=args.protect, retain_on_delete=args.protect)
