"""What this machine keeps: the policy, the runs, and the one voice of this process. Loads nothing that a network needs,
so that journals are quick to read and a mistyped command is quickly told.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from runbooks.engine.console import Console
from runbooks.engine.runs import Runs, default_root, summary
from runbooks.model.errors import PolicyFault
from runbooks.model.policy import Policy
from runbooks.model.run_id import RunId

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder: policy.toml, docs/."""


def policy_path() -> Path:
    """BLOOM_DR_POLICY, or the project's own."""
    return Path(os.environ.get("BLOOM_DR_POLICY") or ROOT / "policy.toml")


def load_policy() -> Policy:
    """Raises PolicyFault."""
    return Policy.load(policy_path())


@functools.cache
def console() -> Console:
    """The one voice of this process. While the policy cannot be read it knows nobody to call."""
    try:
        return Console(load_policy().contacts)
    except PolicyFault:
        return Console()


def zone() -> str:
    """Where people here are; UTC while the policy cannot be read, as journals have to be readable then, too."""
    try:
        return load_policy().local_timezone
    except PolicyFault:
        return "UTC"


def runs() -> Runs:
    return Runs(default_root())


def environment_of(run_id: RunId) -> str:
    """The environment that a run was opened in; it is carried on there and nowhere else. Raises NotFound."""
    return summary(run_id, runs().reading(run_id)).environment


def runbook_name_of(run_id: RunId) -> str:
    return summary(run_id, runs().reading(run_id)).runbook
