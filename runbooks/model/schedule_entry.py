"""One line of the timetable, on the machine that keeps it.

Each kind of job has secrets of its own: what takes backups has no key that opens them, what opens them has no way into
a database.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath

from runbooks.model.container import KEY_TEXT
from runbooks.model.cron import Cron
from runbooks.model.errors import UsageFault
from runbooks.model.fleet import Job, Routine
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.timetable import ended_after

KEYS = "BLOOM_DR_KEYS"
"""The variable with the paths of private keys, as `runbooks.clients.repository` reads it."""
_PATH = re.compile(r"(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)+", re.ASCII)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True)
class Installation:
    """Where the product stands on the machine that takes the backups, and on the one that verifies them."""

    environment: str
    """Of the policy."""
    variables: tuple[str, ...]
    """Names of the environment variables that hold secrets: the Neon key and others that a backup needs."""
    folder: str = "/srv/bloom-dr"
    secrets: str = "/etc/bloom-dr/secrets.env"
    """File with NAME=value lines, 0600, owned by `user`: for taking backups. Others are named after it."""
    user: str = "bloom-dr"
    stack: str | None = None
    """The one that provisions for the environment: its roles trust the environment of that name at GitHub only."""

    def __post_init__(self) -> None:
        for text in (self.folder, self.secrets):
            if not _PATH.fullmatch(text):
                raise refusal(f"{text!r} is not an absolute path of plain letters, which every scheduler reads alike")
        for text in (self.environment, self.user, *([self.stack] if self.stack is not None else [])):
            if not _WORD.fullmatch(text):
                raise refusal(f"{text!r} is not a plain name")
        if not all(map(_VARIABLE.fullmatch, self.variables)):  # not quoted: it may be what belongs into the variable
            raise refusal("one of the variables is not a name of one")

    @property
    def path(self) -> str:
        return f"{self.folder}/.venv/bin:/usr/local/bin:/usr/bin:/bin"

    def secrets_of(self, job: Job) -> str:
        """The file for one kind of job: /etc/bloom-dr/secrets-verify.env."""
        path = PurePosixPath(self.secrets)
        return self.secrets if job is Job.TAKE else str(path.with_stem(f"{path.stem}-{job}"))

    def user_of(self, job: Job) -> str:
        """Whoever holds the private key is somebody else, whose files the other cannot read."""
        return f"{self.user}-{job}" if job is Job.VERIFY else self.user

    def variables_of(self, job: Job) -> tuple[str, ...]:
        return (KEYS,) if job is Job.VERIFY else self.variables

    def github_secrets(self, job: Job) -> tuple[str, ...]:
        """GitHub has no files: there the private key itself is a secret."""
        return (KEY_TEXT,) if job is Job.VERIFY else self.variables


@dataclass(frozen=True)
class RenderedFile:
    name: str
    content: str
    job: Job
    """Whose machine it is for; TAKE where it is for taking and judging."""


@dataclass(frozen=True)
class Entry:
    """One line of the timetable, on its machine."""

    routine: Routine
    cron: Cron
    policy: BackupPolicy
    there: Installation

    @property
    def job(self) -> Job:
        return self.routine.job

    @property
    def name(self) -> str:
        return f"bloom-backup-{self.there.environment}-{self.routine.name.removeprefix('take-')}"

    @property
    def words(self) -> str:
        return " ".join(self.routine.of(self.there.environment))

    @property
    def what(self) -> str:
        match self.job:
            case Job.TAKE:
                return (
                    f"Take and prove the {self.routine.name.removeprefix('take-')} backup of {self.there.environment}"
                )
            case Job.JUDGE:
                return f"Judge how old the backups of {self.there.environment} are, and tell the alarms"
            case Job.VERIFY:
                return f"Restore and compare the newest backups of {self.there.environment}"

    @property
    def secrets(self) -> str:
        return self.there.secrets_of(self.job)

    @property
    def limit(self) -> timedelta:
        return ended_after(self.job, self.policy)


def seconds(time: timedelta) -> int:
    """Rounded up."""
    return -(-time // timedelta(seconds=1))


def refusal(happened: str, next_step: str = "give another one") -> UsageFault:
    return UsageFault(happened, safe="nothing was rendered", next_step=next_step)
