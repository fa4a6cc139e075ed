"""The repository of an environment, put together from the policy; the sandbox brings bucket and keys of its own."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from runbooks.backups.sandboxed import sandboxed
from runbooks.cli.local import policy_path
from runbooks.clients.archive import Archive
from runbooks.clients.metrics import CloudWatch
from runbooks.clients.repository import Repository, keys_from
from runbooks.model.errors import PolicyFault
from runbooks.model.moment import Moment
from runbooks.model.policy import Environment, Policy
from runbooks.sandbox import daemon


def repository_of(name: str, environment: Environment, policy: Policy) -> Repository:
    """Raises PolicyFault without a section [backup]; SandboxFault where the sandbox does not run, or has no S3."""
    if environment.sandbox:
        return sandboxed(name, policy, daemon.archive(daemon.default_root()))
    wanted = policy.backup_of(name)
    if wanted is None:
        raise PolicyFault(
            "the policy has no section [backup]",
            safe="nothing was started",
            next_step="write one, as the policy.toml of this project shows",
        )
    archive = Archive(
        wanted.bucket, region=wanted.region, endpoint=wanted.endpoint, checksums=wanted.checksums, clock=_now
    )
    local = None if wanted.local_folder is None else policy_path().parent / Path(wanted.local_folder).expanduser()
    return Repository(name, wanted, archive, local, CloudWatch(wanted.region), keys_from(os.environ))


def _now() -> Moment:
    return Moment.of(datetime.now(UTC))
