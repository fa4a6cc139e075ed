"""C16: a rendered schedule brings everything its job needs, and tells when the job fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbooks.clients.repository import KEYS
from runbooks.model.cron import Cron
from runbooks.model.duration import parse
from runbooks.model.errors import UsageFault
from runbooks.model.fleet import Job
from runbooks.model.freshness import PROVING
from runbooks.model.policy_backup import BackupPolicy, TierPolicy, Tiers
from runbooks.model.schedule_entry import Installation
from runbooks.model.schedules import Format, render
from runbooks.model.timetable import planned
from tests.model.test_retention import policy

THERE = Installation("production", ("NEON_API_KEY", "BLOOM_PAGER"))
ENTRY = re.compile(r"(?P<when>(?:[0-9*,]+ ){5})(?P<command>\S.*)")
SETTING = re.compile(r"[A-Z_]+=\S+")


def texts(form: Format, rules: BackupPolicy | None = None, there: Installation = THERE) -> dict[str, str]:
    return {file.name: file.content for file in render(rules or policy(), form, there)}


def entries(crontab: str) -> list[re.Match[str]]:
    """As cron reads the file. Fails on a line that is neither comment, setting nor entry."""
    lines = [line for line in crontab.splitlines() if not line.startswith("#") and not SETTING.fullmatch(line)]
    found = [ENTRY.fullmatch(line) for line in lines]
    assert all(found), lines
    return [entry for entry in found if entry]


# Every scheduler


@pytest.mark.parametrize("form", Format)
def test_c16_nothing_that_a_job_needs_is_left_to_the_scheduler(form: Format) -> None:
    files = texts(form)
    for routine, _ in planned(policy()):
        (content,) = (text for text in files.values() if f" {' '.join(routine.of('production'))}" in text)
        for needed in ("PATH", "LANG", "C.UTF-8", "AWS_REGION", "eu-central-1", "-euo pipefail"):
            assert needed in content, needed
    assert any("UTC" in text for text in files.values())
    assert not any("pre-migration" in text for text in files.values()), "it is taken on demand"
    assert all(text.endswith("\n") and text.isascii() for text in files.values())


@pytest.mark.parametrize("form", Format)
def test_what_takes_backups_cannot_open_them_and_what_opens_them_gets_into_no_database(form: Format) -> None:
    with_key = {name for name, text in texts(form).items() if "BLOOM_DR_KEY" in text}
    verifying = {name for name, text in texts(form).items() if "backup.verify" in text}
    assert len(with_key | verifying) == 1
    for name in verifying:
        content = texts(form)[name]
        assert "backup.take" not in content
        assert not any(word in content for word in ("NEON_API_KEY", "BLOOM_PAGER", "/secrets.env", "BLOOM_BACKUP_ROLE"))


@pytest.mark.parametrize("form", [Format.CRON, Format.SYSTEMD])
def test_each_kind_of_job_has_secrets_of_its_own_and_the_private_key_an_owner_of_its_own(
    form: Format,
) -> None:
    for name, text in texts(form).items():
        for job, words in {Job.TAKE: "backup.take", Job.JUDGE: "backup.fresh", Job.VERIFY: "backup.verify"}.items():
            assert (f"{THERE.secrets_of(job)}" in text) is (words in text), name
    assert [THERE.secrets_of(job) for job in Job] == [
        "/etc/bloom-dr/secrets.env", "/etc/bloom-dr/secrets-judge.env", "/etc/bloom-dr/secrets-verify.env",
    ]  # fmt: skip
    assert [THERE.user_of(job) for job in Job] == ["bloom-dr", "bloom-dr", "bloom-dr-verify"]


def test_the_private_keys_are_named_as_the_command_reads_them() -> None:
    assert THERE.variables_of(Job.VERIFY) == (KEYS,)


@pytest.mark.parametrize("form", Format)
def test_a_policy_without_a_schedule_is_refused(form: Format) -> None:
    on_demand = TierPolicy(local_days=1, s3_days=1, storage_class="STANDARD")
    with pytest.raises(UsageFault, match="gives no tier a schedule"):
        render(policy(tiers=Tiers(daily=on_demand, weekly=on_demand)), form, THERE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"folder": "srv/bloom"},
        {"folder": "/srv/../etc"},
        {"folder": "/srv/bloom dr"},
        {"folder": "/srv/bloom%dr"},
        {"folder": "/srv/$HOME"},
        {"secrets": "/etc/x\nroot"},
        {"secrets": "/etc/x;id"},
        {"user": "a b"},
        {"environment": "production; id"},
        {"stack": "a: b"},
        {"variables": ("NEON_API_KEY=napi",)},
        {"variables": ("NEON-KEY",)},
    ],
)
def test_a_text_that_a_scheduler_could_read_as_something_else_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageFault, match="is not a"):
        Installation(**({"environment": "production", "variables": ()} | wrong))


# cron


def test_cron_lines_are_parseable_and_hold_no_percent_sign() -> None:
    crontabs = texts(Format.CRON)
    assert list(crontabs) == ["bloom-backup-production.crontab", "bloom-backup-production.verify.crontab"]
    found = [[str(Cron.parse(entry["when"].rstrip())) for entry in entries(text)] for text in crontabs.values()]
    assert found == [["0 2 * * *", "0 4 * * 0", "0 7 * * *"], ["0 9 * * 0"]]
    assert not any("%" in text for text in crontabs.values()), "cron reads it as a line break"


def test_cron_ends_a_run_that_should_have_ended_itself() -> None:
    found = [entry["command"] for text in texts(Format.CRON).values() for entry in entries(text)]
    hours = [re.findall(r"timeout (\d+) invoke", command) for command in found]
    minutes = [int(seconds) // 60 for (seconds,) in hours]
    assert minutes == [4 * 60 + 70, 4 * 60 + 70, 70, 7 * 4 * 60 + 70], "dump and proof; a look; seven restores"


@pytest.fixture
def machine(tmp_path: Path) -> Installation:
    """A machine whose `invoke` writes down what it was given, and fails if the secrets say so."""
    programs = tmp_path / "srv" / ".venv" / "bin"
    programs.mkdir(parents=True)
    seen, log = tmp_path / "seen", tmp_path / "log"
    write(programs / "invoke", f'{{ pwd; umask; echo "$@"; env; }} > {seen}\necho told; exit "$OUTCOME"')
    write(programs / "logger", f'{{ echo "$@"; cat; }} > {log}')
    (tmp_path / "secrets.env").write_text("NEON_API_KEY=napi_x\nOUTCOME=0\n")
    return Installation("production", ("NEON_API_KEY",), str(tmp_path / "srv"), str(tmp_path / "secrets.env"))


def write(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o700)


def run_as_cron(there: Installation, words: str = "--tier daily") -> subprocess.CompletedProcess[str]:
    """The entry with these words, from / with nothing around it but what the file sets, by the file's own shell."""
    (crontab,) = (text for text in texts(Format.CRON, there=there).values() if words in text)
    settings = dict(line.split("=", 1) for line in crontab.splitlines() if SETTING.fullmatch(line))
    (command,) = (entry["command"] for entry in entries(crontab) if words in entry["command"])
    command = [settings["SHELL"], "-c", command]
    return subprocess.run(command, env=settings, cwd="/", capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="cron entries are for machines with bash")
class TestC16CronRunsInAnEmptyEnvironment:
    def test_and_the_job_finds_folder_programs_and_secrets(self, machine: Installation, tmp_path: Path) -> None:
        done = run_as_cron(machine)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "a good run sends no mail"
        seen = (tmp_path / "seen").read_text().splitlines()
        assert seen[:3] == [machine.folder, "0077", "backup.take --tier daily --env production"]
        assert {"NEON_API_KEY=napi_x", "AWS_REGION=eu-central-1", "LANG=C.UTF-8", f"PATH={machine.path}"} <= set(seen)
        assert (tmp_path / "log").read_text() == "-t bloom-backup-production-daily\ntold\n"

    def test_and_the_exit_code_is_not_lost_in_the_pipe(self, machine: Installation) -> None:
        Path(machine.secrets).write_text("NEON_API_KEY=napi_x\nOUTCOME=30\n")
        done = run_as_cron(machine)
        assert done.returncode != 0
        assert done.stdout == "bloom-backup-production-daily FAILED, see syslog\n"

    def test_and_the_verification_finds_its_own_secrets_only(self, machine: Installation, tmp_path: Path) -> None:
        Path(machine.secrets_of(Job.VERIFY)).write_text("BLOOM_DR_KEYS=/etc/key\nOUTCOME=0\n")
        assert run_as_cron(machine, "backup.verify").returncode == 0
        seen = (tmp_path / "seen").read_text().splitlines()
        assert seen[2] == "backup.verify --last 7 --env production"
        assert "BLOOM_DR_KEYS=/etc/key" in seen
        assert not any(line.startswith("NEON_API_KEY=") for line in seen)

    def test_and_a_verification_without_a_key_stops_before_anything(
        self, machine: Installation, tmp_path: Path
    ) -> None:
        secrets = Path(machine.secrets_of(Job.VERIFY))
        secrets.write_text("OUTCOME=0\n")
        done = run_as_cron(machine, "backup.verify")
        assert done.returncode != 0
        assert f"BLOOM_DR_KEYS: is not set in {secrets}" in done.stderr
        assert not (tmp_path / "seen").exists()

    @pytest.mark.parametrize("missing", ["secrets", "folder"])
    def test_and_what_is_missing_stops_the_job(self, machine: Installation, missing: str, tmp_path: Path) -> None:
        place = Path(getattr(machine, missing))
        place.rename(f"{place}.gone")
        done = run_as_cron(machine)
        assert done.returncode != 0
        assert str(place) in done.stderr
        assert not (tmp_path / "seen").exists()


# systemd


def test_systemd_gets_a_service_and_a_timer_for_each_routine() -> None:
    units = texts(Format.SYSTEMD)
    routines = ("daily", "weekly", "fresh", "verify")
    names = [f"bloom-backup-production-{routine}.{kind}" for routine in routines for kind in ("service", "timer")]
    assert list(units) == names
    assert "OnCalendar=*-*-* 02:00:00 UTC\n" in units[names[1]]
    assert "OnCalendar=Sun *-*-* 04:00:00 UTC\n" in units[names[3]]
    assert "OnCalendar=*-*-* 07:00:00 UTC\n" in units[names[5]]
    assert "OnCalendar=Sun *-*-* 09:00:00 UTC\n" in units[names[7]]
    assert [f"User={user}\n" in units[names[6]] for user in ("bloom-dr", "bloom-dr-verify")] == [False, True]
    assert "Persistent=yes\n" in units[names[1]], "a run missed while the machine was off is caught up"
    for line in ("EnvironmentFile=/etc/bloom-dr/secrets.env", "WorkingDirectory=/srv/bloom-dr", "UMask=0077"):
        assert f"{line}\n" in units[names[0]]
    assert f"TimeoutStartSec={int(timedelta(hours=5, minutes=10).total_seconds())}\n" in units[names[0]]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="asks systemd itself, where there is one")
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    for name, content in texts(Format.SYSTEMD).items():
        (tmp_path / name).write_text(content)
    command = ["systemd-analyze", "verify", "--man=no", *sorted(map(str, tmp_path.iterdir()))]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ, timeout=30)
    ours = [line for line in answer.stderr.splitlines() if "bloom-backup" in line]
    assert ours == []


# GitHub


def workflow(name: str = "daily", rules: BackupPolicy | None = None, there: Installation = THERE) -> dict[Any, Any]:
    content = texts(Format.GITHUB, rules, there)[f".github/workflows/bloom-backup-production-{name}.yml"]
    read: dict[Any, Any] = yaml.safe_load(content)
    read["on"] = read.pop(True)  # YAML 1.1, which PyYAML reads and GitHub does not, takes `on` for true
    return read


def job_of(name: str, rules: BackupPolicy | None = None, there: Installation = THERE) -> dict[str, Any]:
    (job,) = workflow(name, rules, there)["jobs"].values()
    assert isinstance(job, dict)
    return job


def role_of(name: str, rules: BackupPolicy | None = None) -> dict[str, Any]:
    steps = job_of(name, rules)["steps"]
    (step,) = (step for step in steps if "aws-actions" in step.get("uses", ""))
    assert isinstance(step["with"], dict)
    return step["with"]


@pytest.mark.parametrize(
    ("name", "cron", "minutes"),
    [
        ("daily", "0 2 * * *", 310),
        ("weekly", "0 4 * * 0", 310),
        ("fresh", "0 7 * * *", 70),
        ("verify", "0 9 * * 0", 360),
    ],
)
def test_the_github_workflow_is_valid_yaml_with_one_schedule(name: str, cron: str, minutes: int) -> None:
    read = workflow(name)
    assert read["on"] == {"schedule": [{"cron": cron}], "workflow_dispatch": {}}
    assert read["permissions"] == {"contents": "read", "id-token": "write"}
    assert read["concurrency"]["cancel-in-progress"] is False
    assert read["defaults"]["run"]["shell"] == "bash --noprofile --norc -euo pipefail {0}"
    assert job_of(name)["timeout-minutes"] == minutes


USUAL = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "AWS_REGION": "eu-central-1"}
NEON = {"NEON_API_KEY": "${{ secrets.NEON_API_KEY }}", "BLOOM_PAGER": "${{ secrets.BLOOM_PAGER }}"}
PRIVATE = {"TMPDIR": "${{ runner.temp }}", "BLOOM_DR_KEY_TEXT": "${{ secrets.BLOOM_DR_KEY_TEXT }}"}


@pytest.mark.parametrize(
    ("name", "command", "secrets"),
    [
        ("daily", "invoke backup.take --tier daily", NEON),
        ("fresh", "invoke backup.fresh", NEON),
        ("verify", "python -m runbooks.cli.container backup.verify --last 7", PRIVATE),
    ],
)
def test_the_github_job_gets_its_own_secrets_by_name_and_only_in_its_last_step(
    name: str, command: str, secrets: dict[str, str]
) -> None:
    *before, last = job_of(name)["steps"]
    assert last["run"] == f".venv/bin/{command} --env production"
    assert last["env"] == USUAL | secrets
    assert not any("secrets." in str(step) for step in before)


def test_only_the_role_that_reads_drills_judges_and_only_the_writers_takes() -> None:
    roles = {name: role_of(name)["role-to-assume"] for name in ("daily", "weekly", "fresh", "verify")}
    writer, verifier = "${{ vars.BLOOM_BACKUP_ROLE }}", "${{ vars.BLOOM_VERIFY_ROLE }}"
    assert roles == {"daily": writer, "weekly": writer, "fresh": verifier, "verify": verifier}


def test_a_job_runs_in_the_github_environment_that_the_roles_of_its_stack_trust() -> None:
    of_a_stack = Installation("production", (), stack="live")
    for name in ("daily", "weekly", "fresh", "verify"):
        assert job_of(name, there=of_a_stack)["environment"] == "live"
        assert "environment" not in job_of(name), "without a stack nobody trusts one"


@pytest.mark.parametrize(("limit", "session"), [("4h", 5), ("30m", 100 / 60), ("3h30m", 280 / 60), ("4h50m", 6)])
def test_credentials_of_the_github_job_outlive_dump_and_proof_and_are_no_longer_than_the_stacks_roles_allow(
    limit: str, session: float
) -> None:
    rules = policy().model_copy(update={"time_limit": parse(limit)})
    assert role_of("daily", rules)["role-duration-seconds"] == round(session * 3600)
    assert role_of("daily", rules)["role-duration-seconds"] >= (parse(limit) + PROVING).total_seconds()


def test_a_backup_that_may_outlast_a_github_job_is_refused() -> None:
    within = policy().model_copy(update={"time_limit": timedelta(hours=4, minutes=50)})
    assert job_of("daily", within)["timeout-minutes"] == 360
    beyond = policy().model_copy(update={"time_limit": timedelta(hours=4, minutes=51)})
    with pytest.raises(UsageFault, match="after 6 hours") as refused:
        render(beyond, Format.GITHUB, THERE)
    assert "set time_limit to 4h50m or less" in refused.value.next_step
