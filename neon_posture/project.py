"""A project at Neon and what is wanted of it: read, compared, and brought in line."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from neon_posture.posture import Posture
from runbooks.clients.neon import Neon
from runbooks.clients.neon_settings import is_schedule
from runbooks.clients.neon_types import Branch, Project, SnapshotTime
from runbooks.model.dsn import Secret
from runbooks.model.errors import PolicyFault, Refused, WrongTarget


@dataclass(frozen=True)
class Held:
    """What Neon has now."""

    project: Project
    branch: Branch
    schedule: tuple[SnapshotTime, ...]

    def as_outputs(self) -> dict[str, Any]:
        """Under the names of the inputs, and the branch that was found."""
        return {
            "history_seconds": self.project.history_retention_seconds,
            "protected": self.branch.protected,
            "snapshots": [each.model_dump(mode="json", exclude_none=True) for each in self.schedule],
            "logical_replication": self.project.settings.enable_logical_replication,
            "branch_id": self.branch.id,
        }


def opened(wanted: Posture) -> Neon:
    """The project's client, with the key of now. PolicyFault if the variable holds none."""
    key = os.environ.get(wanted.api_key_env, "")
    if not re.fullmatch(r"[!-~]+", key):
        raise PolicyFault(
            f"the environment variable {wanted.api_key_env}, from which Pulumi takes the Neon API key, "
            + ("holds a character that no key has" if key else "is not set"),
            safe="nothing was changed at Neon",
            next_step=f"export {wanted.api_key_env} with a key for project {wanted.project}, then: pulumi up",
        )
    return Neon(api=wanted.api, key=Secret(key), project_id=wanted.project)


def held(neon: Neon, wanted: Posture) -> Held:
    """Read it. Changes nothing. Raises NotFound where the project or branch is gone, which is no drift but a loss."""
    project = neon.project()
    branch = neon.branch(wanted.branch) if wanted.branch else neon.default_branch()
    return Held(project, branch, neon.snapshot_schedule(branch.id))


def brought_in_line(neon: Neon, wanted: Posture) -> Held:
    """Change what differs and nothing else; what holds afterwards, as read back. Safe to repeat.

    Before any change: WrongTarget if the project is not where it has to be, Refused if Neon cannot do it.
    """
    before = held(neon, wanted)
    _check_place(before.project, wanted)
    if reasons := wanted.impossible(before.as_outputs()):
        raise Refused(
            "; ".join(f"{field} of project {wanted.project}: {why}" for field, why in reasons.items()),
            safe="nothing was changed at Neon",
            next_step="change the policy, then: pulumi up",
        )
    if before.project.history_retention_seconds < wanted.history_seconds:
        neon.set_history_retention(timedelta(seconds=wanted.history_seconds))
    if wanted.logical_replication:
        neon.enable_logical_replication()
    if before.branch.protected != wanted.protected:
        neon.set_protected(before.branch, wanted.protected)
    schedule = tuple(SnapshotTime(**each.model_dump()) for each in wanted.snapshots)
    if not is_schedule(before.schedule, schedule):
        neon.set_snapshot_schedule(before.branch, schedule)
    return held(neon, wanted)


def _check_place(project: Project, wanted: Posture) -> None:
    """Neither can be changed, and `pulumi-neon` cannot choose them: it is seen here, while the project is empty."""
    found = (project.region_id, project.pg_version)
    asked = (wanted.region or project.region_id, wanted.pg_version or project.pg_version)
    if found != asked:
        raise WrongTarget(
            f"project {project.name} ({project.id}) is in {found[0]} with PostgreSQL {found[1]}, "
            f"and the policy wants {asked[0]} with {asked[1]}",
            safe="nothing of it was changed",
            next_step="make the project in the Neon Console as it has to be, name its id in the policy, "
            "take new_project out, and remove the wrong one in the Console",
        )
