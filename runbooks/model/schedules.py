"""The policy's schedules in the words of cron, systemd and GitHub: with all that a job finds around it spelled out.

What works by hand fails under a scheduler, because PATH, folder and variables are others; and cron's pipes hide exit
codes. Whether backups are taken is still judged from the archive (freshness.py), not from the scheduler.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from json import dumps as quoted

from runbooks.model.backup import Tier
from runbooks.model.cron import Cron
from runbooks.model.errors import UsageFault
from runbooks.model.nearest import did_you_mean
from runbooks.model.policy_backup import BackupPolicy

_PATH = re.compile(r"(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)+", re.ASCII)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SPARE = timedelta(minutes=10)
"""The scheduler ends a run so long after the run should have ended itself."""
_GITHUB_LIMIT = timedelta(hours=6)


class Format(StrEnum):
    CRON = "cron"
    SYSTEMD = "systemd"
    GITHUB = "github-actions"

    @classmethod
    def parse(cls, text: str) -> Format:
        """UsageFault, with the choices, if there is no such format."""
        known = [form.value for form in cls]
        if text in known:
            return cls(text)
        happened = f"there is no format {text!r}{did_you_mean(text, known)}" if text else "no --format was given"
        raise _refusal(happened, f"choose one of: --format {', --format '.join(known)}")


@dataclass(frozen=True)
class Installation:
    """Where the product stands on the machine that takes the backups."""

    environment: str
    """Of the policy."""
    variables: tuple[str, ...]
    """Names of the environment variables that hold secrets: the Neon key and others that a run needs."""
    folder: str = "/srv/bloom-dr"
    secrets: str = "/etc/bloom-dr/secrets.env"
    """File with NAME=value lines, 0600, owned by `user`."""
    user: str = "bloom-dr"

    def __post_init__(self) -> None:
        for text in (self.folder, self.secrets):
            if not _PATH.fullmatch(text):
                raise _refusal(f"{text!r} is not an absolute path of plain letters, which every scheduler reads alike")
        for text in (self.environment, self.user):
            if not _WORD.fullmatch(text):
                raise _refusal(f"{text!r} is not a plain name")
        if not all(map(_VARIABLE.fullmatch, self.variables)):  # not quoted: it may be what belongs into the variable
            raise _refusal("one of the variables is not a name of one")

    @property
    def path(self) -> str:
        return f"{self.folder}/.venv/bin:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class RenderedFile:
    name: str
    content: str


@dataclass(frozen=True)
class _Job:
    tier: Tier
    cron: Cron
    policy: BackupPolicy
    there: Installation

    @property
    def name(self) -> str:
        return f"bloom-backup-{self.there.environment}-{self.tier}"

    @property
    def command(self) -> str:
        return f"invoke backup.take --tier {self.tier} --env {self.there.environment}"

    @property
    def limit(self) -> timedelta:
        return self.policy.time_limit + _SPARE


def render(policy: BackupPolicy, form: Format, there: Installation) -> tuple[RenderedFile, ...]:
    """The files that make a scheduler take the policy's backups. Pure.

    They hold no secret: only the names of the variables, or of the file, that do. UsageFault if the policy has no
    schedule, or one that this scheduler cannot keep.
    """
    crons = {tier: policy.tiers[tier].cron for tier in Tier}
    jobs = [_Job(tier, cron, policy, there) for tier, cron in crons.items() if cron is not None]
    if not jobs:
        raise _refusal("the policy gives no tier a schedule", 'write schedule = "0 2 * * *" in [backup.tiers.daily]')
    if form is Format.CRON:
        return (_crontab(there, jobs),)
    if form is Format.SYSTEMD:
        return tuple(file for job in jobs for file in (_service(job), _timer(job)))
    return tuple(_workflow(job) for job in jobs)


def _crontab(there: Installation, jobs: list[_Job]) -> RenderedFile:
    name = f"bloom-backup-{there.environment}.crontab"
    head = f"""\
# Backups of {there.environment}. Made by: invoke schedule.render --format cron. Install as {there.user}: crontab {name}
# Times are UTC. Debian's cron ignores CRON_TZ: there the machine's own clock has to be on UTC.
CRON_TZ=UTC
SHELL=/bin/bash
PATH={there.path}
LANG=C.UTF-8
AWS_REGION={jobs[0].policy.region}
"""
    return RenderedFile(name, head + "".join(f"{job.cron} {_cron_command(job)}\n" for job in jobs))


def _cron_command(job: _Job) -> str:
    """One line, without the % that cron reads as a line break. Output goes to syslog, so only a failure sends mail."""
    checks = "".join(f': "${{{name}:?is not set in {job.there.secrets}}}"; ' for name in job.there.variables)
    return (
        f"set -euo pipefail; umask 077; cd {job.there.folder}; set -a; . {job.there.secrets}; set +a; {checks}"
        f"timeout {_seconds(job)} {job.command} 2>&1 | logger -t {job.name} "
        f"|| {{ echo '{job.name} FAILED, see syslog'; exit 1; }}"
    )


def _service(job: _Job) -> RenderedFile:
    content = f"""\
[Unit]
Description=Take and prove the {job.tier} backup of {job.there.environment}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
User={job.there.user}
WorkingDirectory={job.there.folder}
Environment=PATH={job.there.path}
Environment=LANG=C.UTF-8
Environment=AWS_REGION={job.policy.region}
EnvironmentFile={job.there.secrets}
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
TimeoutStartSec={_seconds(job)}
ExecStart=/bin/bash -c 'set -euo pipefail; exec {job.command}'
"""
    return RenderedFile(f"{job.name}.service", content)


def _timer(job: _Job) -> RenderedFile:
    content = f"""\
[Unit]
Description=When the {job.tier} backup of {job.there.environment} is due

[Timer]
OnCalendar={job.cron.systemd()}
AccuracySec=1m
Persistent=yes

[Install]
WantedBy=timers.target
"""
    return RenderedFile(f"{job.name}.timer", content)


def _workflow(job: _Job) -> RenderedFile:
    if job.limit > _GITHUB_LIMIT:
        raise _refusal(
            "GitHub ends a job after 6 hours, and the policy's time_limit lets a backup run longer",
            "choose cron or systemd, or set time_limit to 5h50m or less",
        )
    secrets = "".join(f"          {name}: ${{{{ secrets.{name} }}}}\n" for name in job.there.variables)
    region = quoted(job.policy.region)
    content = f"""\
# Made by: invoke schedule.render --format github-actions. The schedule is UTC, and GitHub may be late by an hour.
# In a public repository GitHub switches a schedule off after 60 days without activity, and tells nobody who is paged:
# have the age of the newest backup watched from elsewhere.
name: {quoted(job.name)}
on:
  schedule:
    - cron: {quoted(str(job.cron))}
  workflow_dispatch: {{}}
permissions:
  contents: read
  id-token: write
concurrency:
  group: {quoted(job.name)}
  cancel-in-progress: false
defaults:
  run:
    shell: bash --noprofile --norc -euo pipefail {{0}}
jobs:
  take:
    runs-on: ubuntu-24.04
    timeout-minutes: {_seconds(job) // 60}
    steps:
      - uses: actions/checkout@v4
        with:
          persist-credentials: false
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
      - run: make .venv/.ready
      # The role's maximum session has to be this long: credentials that end first would end the upload.
      - uses: aws-actions/configure-aws-credentials@v4
        with:
          role-to-assume: ${{{{ vars.BLOOM_BACKUP_ROLE }}}}
          role-duration-seconds: {max(_seconds(job), 900)}
          aws-region: {region}
      - run: .venv/bin/{job.command}
        env:
          PATH: /usr/local/bin:/usr/bin:/bin
          LANG: C.UTF-8
          AWS_REGION: {region}
{secrets}"""
    return RenderedFile(f".github/workflows/{job.name}.yml", content)


def _seconds(job: _Job) -> int:
    return -(-job.limit // timedelta(seconds=1))


def _refusal(happened: str, next_step: str = "give another one") -> UsageFault:
    return UsageFault(happened, safe="nothing was rendered", next_step=next_step)
