"""What tasks in Fargate cannot be without. When they do what is in `runbooks.model.timetable`. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from runbooks.model.backup import Tier
from runbooks.model.errors import PolicyFault
from runbooks.model.fleet import MOST
from runbooks.model.policy import Environment
from runbooks.model.policy_backup import BackupPolicy

MOST_KEYS = 100
"""Variables with Neon keys in one job definition, whose whole size AWS limits."""


def check(environments: Mapping[str, Environment], backup: BackupPolicy) -> None:
    """PolicyFault, with the field's name, for what would keep tasks in Fargate from taking these backups."""
    real = [each for each in environments.values() if not each.sandbox]
    if len(environments) > MOST:
        raise _fault(f"environments: a fleet has at most {MOST:,} databases", "make two stacks of it")
    if len({each.api_key_env for each in real}) > MOST_KEYS:
        raise _fault(
            f"environments: their api_key_env name more than {MOST_KEYS} variables", "let several share a Neon API key"
        )
    if not any(backup.tiers[tier].cron for tier in Tier):
        raise _fault("backup.tiers: none has a schedule", 'write schedule = "0 2 * * *" in [backup.tiers.daily]')
    if backup.local_folder is not None:
        raise _fault(
            "backup.local_folder: a task in Fargate has no disk that lasts",
            'leave it out, or write runner = "elsewhere" into the stack and take the backups on a machine of your own',
        )
    if real and backup.encryption is None:
        raise _fault(
            "backup.encryption: there is none, so that every scheduled backup would fail",
            "invoke backup.keys --new FILE, and put its public key into [backup.encryption]",
        )


def _fault(happened: str, next_step: str) -> PolicyFault:
    return PolicyFault(happened, safe="nothing was declared, and no cloud was called", next_step=next_step)
