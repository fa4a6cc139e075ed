"""The timetable in the words of cron, systemd and GitHub: with all that a job finds around it spelled out.

What works by hand fails under a scheduler, because PATH, folder and variables are others; and cron's pipes hide exit
codes. Whether backups are taken is still judged from the archive (freshness.py), not from the scheduler.
"""

from __future__ import annotations

from enum import StrEnum

from runbooks.model.backup import Tier
from runbooks.model.fleet import Job
from runbooks.model.nearest import did_you_mean
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.schedule_entry import Entry, Installation, RenderedFile, refusal, seconds
from runbooks.model.schedule_github import workflow
from runbooks.model.timetable import planned


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
        raise refusal(happened, f"choose one of: --format {', --format '.join(known)}")


def render(policy: BackupPolicy, form: Format, there: Installation) -> tuple[RenderedFile, ...]:
    """The files that make a scheduler take, judge and verify the policy's backups. Pure.

    They hold no secret: only the names of the variables, or of the file, that do. UsageFault if the policy has no
    schedule, or one that this scheduler cannot keep.
    """
    if not any(policy.tiers[tier].cron for tier in Tier):
        raise refusal("the policy gives no tier a schedule", 'write schedule = "0 2 * * *" in [backup.tiers.daily]')
    entries = [Entry(routine, cron, policy, there) for routine, cron in planned(policy)]
    match form:
        case Format.CRON:
            apart = [[e for e in entries if e.job is not Job.VERIFY], [e for e in entries if e.job is Job.VERIFY]]
            return tuple(map(_crontab, apart))
        case Format.SYSTEMD:
            return tuple(file for entry in entries for file in (_service(entry), _timer(entry)))
        case Format.GITHUB:
            return tuple(map(workflow, entries))


def _crontab(entries: list[Entry]) -> RenderedFile:
    """Of one user."""
    first, there = entries[0], entries[0].there
    name = f"bloom-backup-{there.environment}{'.verify' if first.job is Job.VERIFY else ''}.crontab"
    head = f"""\
# Backups of {there.environment}. Made by: invoke schedule.render --format cron.
# Install as {there.user_of(first.job)}: crontab {name}
# Times are UTC. Debian's cron ignores CRON_TZ: there the machine's own clock has to be on UTC.
CRON_TZ=UTC
SHELL=/bin/bash
PATH={there.path}
LANG=C.UTF-8
AWS_REGION={first.policy.region}
"""
    return RenderedFile(name, head + "".join(f"{each.cron} {_cron_command(each)}\n" for each in entries), first.job)


def _cron_command(entry: Entry) -> str:
    """One line, without the % that cron reads as a line break. Output goes to syslog, so only a failure sends mail."""
    there, needed = entry.there, entry.there.variables_of(entry.job)
    checks = "".join(f': "${{{name}:?is not set in {entry.secrets}}}"; ' for name in needed)
    return (
        f"set -euo pipefail; umask 077; cd {there.folder}; set -a; . {entry.secrets}; set +a; {checks}"
        f"timeout {seconds(entry.limit)} invoke {entry.words} 2>&1 | logger -t {entry.name} "
        f"|| {{ echo '{entry.name} FAILED, see syslog'; exit 1; }}"
    )


def _service(entry: Entry) -> RenderedFile:
    content = f"""\
[Unit]
Description={entry.what}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
User={entry.there.user_of(entry.job)}
WorkingDirectory={entry.there.folder}
Environment=PATH={entry.there.path}
Environment=LANG=C.UTF-8
Environment=AWS_REGION={entry.policy.region}
EnvironmentFile={entry.secrets}
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
TimeoutStartSec={seconds(entry.limit)}
ExecStart=/bin/bash -c 'set -euo pipefail; exec invoke {entry.words}'
"""
    return RenderedFile(f"{entry.name}.service", content, entry.job)


def _timer(entry: Entry) -> RenderedFile:
    content = f"""\
[Unit]
Description=When it is due: {entry.what}

[Timer]
OnCalendar={entry.cron.systemd()}
AccuracySec=1m
Persistent=yes

[Install]
WantedBy=timers.target
"""
    return RenderedFile(f"{entry.name}.timer", content, entry.job)
