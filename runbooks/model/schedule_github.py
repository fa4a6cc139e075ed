"""The timetable as workflows of GitHub Actions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from json import dumps as quoted

from runbooks.model.duration import spell
from runbooks.model.fleet import Job
from runbooks.model.schedule_entry import Entry, Installation, RenderedFile, refusal, seconds

ROLES: Mapping[Job, str] = {
    Job.TAKE: "BLOOM_BACKUP_ROLE",
    Job.JUDGE: "BLOOM_VERIFY_ROLE",
    Job.VERIFY: "BLOOM_VERIFY_ROLE",
}
"""GitHub's variables with the ARNs of the writer's and the verifier's role. Only the latter reads reports of drills."""
_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)
_LIMIT = 6 * _HOUR
_SESSION = timedelta(minutes=15), 12 * _HOUR
"""The shortest and longest that AWS has."""


def workflow(entry: Entry) -> RenderedFile:
    region = quoted(entry.policy.region)
    content = f"""\
# {entry.what}.
# Made by: invoke schedule.render --format github-actions. The schedule is UTC, and GitHub may be late by an hour.
# In a public repository GitHub switches a schedule off after 60 days without activity, and tells nobody who is paged:
# have the age of the newest backup watched from elsewhere.
name: {quoted(entry.name)}
on:
  schedule:
    - cron: {quoted(str(entry.cron))}
  workflow_dispatch: {{}}
permissions:
  contents: read
  id-token: write
concurrency:
  group: {quoted(entry.name)}
  cancel-in-progress: false
defaults:
  run:
    shell: bash --noprofile --norc -euo pipefail {{0}}
jobs:
  {entry.job}:
    runs-on: ubuntu-24.04
{_lines(4, _environment(entry.there))}\
    timeout-minutes: {_minutes(entry)}
    steps:
      - uses: actions/checkout@v4
        with:
          persist-credentials: false
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
      - run: make .venv/.ready
      # The role's maximum session has to be this long: credentials that end first would end the run.
      - uses: aws-actions/configure-aws-credentials@v4
        with:
          role-to-assume: ${{{{ vars.{ROLES[entry.job]} }}}}
          role-duration-seconds: {seconds(_session(entry))}
          aws-region: {region}
      - run: {_command(entry)}
        env:
          PATH: /usr/local/bin:/usr/bin:/bin
          LANG: C.UTF-8
          AWS_REGION: {region}
{_lines(10, _variables(entry))}"""
    return RenderedFile(f".github/workflows/{entry.name}.yml", content, entry.job)


def _command(entry: Entry) -> str:
    """As in the image: a private key that came in a variable is put into a file before anything else is started."""
    start = "python -m runbooks.cli.container" if entry.job is Job.VERIFY else "invoke"
    return f".venv/bin/{start} {entry.words}"


def _variables(entry: Entry) -> dict[str, str]:
    secrets = {name: f"${{{{ secrets.{name} }}}}" for name in entry.there.github_secrets(entry.job)}
    return {"TMPDIR": "${{ runner.temp }}", **secrets} if entry.job is Job.VERIFY else secrets


def _environment(there: Installation) -> dict[str, str]:
    return {} if there.stack is None else {"environment": quoted(there.stack)}


def _lines(indent: int, values: Mapping[str, str]) -> str:
    return "".join(f"{' ' * indent}{name}: {value}\n" for name, value in values.items())


def _minutes(entry: Entry) -> int:
    """UsageFault where GitHub would end a backup. A verification that it ends leaves the proofs that it had made."""
    if entry.job is Job.TAKE and entry.limit > _LIMIT:
        most = _LIMIT - (entry.limit - entry.policy.time_limit)
        raise refusal(
            "GitHub ends a job after 6 hours, and the policy's time_limit lets a backup run longer",
            f"choose cron or systemd, or set time_limit to {spell(most)} or less",
        )
    return -(-min(entry.limit, _LIMIT) // _MINUTE)


def _session(entry: Entry) -> timedelta:
    """No longer than the roles of a stack allow: whole hours, one more than a backup may take."""
    least, most = _SESSION
    allowed = (-(-entry.policy.time_limit // _HOUR) + 1) * _HOUR
    return min(max(entry.limit, least), allowed, most)
