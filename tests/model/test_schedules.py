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

from runbooks.model.cron import Cron
from runbooks.model.errors import UsageFault
from runbooks.model.policy_backup import BackupPolicy, TierPolicy, Tiers
from runbooks.model.schedules import Format, Installation, render
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
    for tier in ("daily", "weekly"):
        (content,) = (text for text in files.values() if f"--tier {tier} " in text)
        assert f"invoke backup.take --tier {tier} --env production" in content
        for needed in ("PATH", "LANG", "C.UTF-8", "AWS_REGION", "eu-central-1", "-euo pipefail"):
            assert needed in content, needed
    assert any("UTC" in text for text in files.values())
    assert not any("pre-migration" in text for text in files.values()), "it is taken on demand"
    assert all(text.endswith("\n") and text.isascii() for text in files.values())


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
        {"variables": ("NEON_API_KEY=napi",)},
        {"variables": ("NEON-KEY",)},
    ],
)
def test_a_text_that_a_scheduler_could_read_as_something_else_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageFault, match="is not a"):
        Installation(**({"environment": "production", "variables": ()} | wrong))


# cron


def test_cron_lines_are_parseable_and_hold_no_percent_sign() -> None:
    (crontab,) = texts(Format.CRON).values()
    found = entries(crontab)
    assert [str(Cron.parse(entry["when"].rstrip())) for entry in found] == ["0 2 * * *", "0 4 * * 0"]
    assert "%" not in crontab, "cron reads it as a line break"


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


def run_as_cron(there: Installation) -> subprocess.CompletedProcess[str]:
    """The first entry, from / with nothing around it but what the file sets, by the shell that the file names."""
    (crontab,) = texts(Format.CRON, there=there).values()
    settings = dict(line.split("=", 1) for line in crontab.splitlines() if SETTING.fullmatch(line))
    command = [settings["SHELL"], "-c", entries(crontab)[0]["command"]]
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

    @pytest.mark.parametrize("missing", ["secrets", "folder"])
    def test_and_what_is_missing_stops_the_job(self, machine: Installation, missing: str, tmp_path: Path) -> None:
        place = Path(getattr(machine, missing))
        place.rename(f"{place}.gone")
        done = run_as_cron(machine)
        assert done.returncode != 0
        assert str(place) in done.stderr
        assert not (tmp_path / "seen").exists()


# systemd


def test_systemd_gets_a_service_and_a_timer_for_each_tier() -> None:
    units = texts(Format.SYSTEMD)
    names = [f"bloom-backup-production-{tier}.{kind}" for tier in ("daily", "weekly") for kind in ("service", "timer")]
    assert list(units) == names
    assert "OnCalendar=*-*-* 02:00:00 UTC\n" in units[names[1]]
    assert "OnCalendar=Sun *-*-* 04:00:00 UTC\n" in units[names[3]]
    assert "Persistent=yes\n" in units[names[1]], "a run missed while the machine was off is caught up"
    for line in ("EnvironmentFile=/etc/bloom-dr/secrets.env", "WorkingDirectory=/srv/bloom-dr", "UMask=0077"):
        assert f"{line}\n" in units[names[0]]
    assert f"TimeoutStartSec={int(timedelta(hours=4, minutes=10).total_seconds())}\n" in units[names[0]]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="asks systemd itself, where there is one")
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    for name, content in texts(Format.SYSTEMD).items():
        (tmp_path / name).write_text(content)
    command = ["systemd-analyze", "verify", "--man=no", *sorted(map(str, tmp_path.iterdir()))]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ, timeout=30)
    ours = [line for line in answer.stderr.splitlines() if "bloom-backup" in line]
    assert ours == []


# GitHub


def workflow(name: str = "daily", rules: BackupPolicy | None = None) -> dict[Any, Any]:
    content = texts(Format.GITHUB, rules)[f".github/workflows/bloom-backup-production-{name}.yml"]
    read: dict[Any, Any] = yaml.safe_load(content)
    read["on"] = read.pop(True)  # YAML 1.1, which PyYAML reads and GitHub does not, takes `on` for true
    return read


@pytest.mark.parametrize(("tier", "cron"), [("daily", "0 2 * * *"), ("weekly", "0 4 * * 0")])
def test_the_github_workflow_is_valid_yaml_with_one_schedule(tier: str, cron: str) -> None:
    read = workflow(tier)
    assert read["on"] == {"schedule": [{"cron": cron}], "workflow_dispatch": {}}
    assert read["permissions"] == {"contents": "read", "id-token": "write"}
    assert read["concurrency"]["cancel-in-progress"] is False
    assert read["defaults"]["run"]["shell"] == "bash --noprofile --norc -euo pipefail {0}"
    assert read["jobs"]["take"]["timeout-minutes"] == 250


def test_the_github_job_gets_the_secrets_by_name_and_only_in_its_last_step() -> None:
    *before, last = workflow()["jobs"]["take"]["steps"]
    assert last["run"] == ".venv/bin/invoke backup.take --tier daily --env production"
    assert last["env"] == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "AWS_REGION": "eu-central-1",
        "NEON_API_KEY": "${{ secrets.NEON_API_KEY }}",
        "BLOOM_PAGER": "${{ secrets.BLOOM_PAGER }}",
    }
    assert not any("secrets." in str(step) for step in before)


def test_credentials_of_the_github_job_outlive_the_longest_backup() -> None:
    step = next(step for step in workflow()["jobs"]["take"]["steps"] if "aws-actions" in step.get("uses", ""))
    assert step["with"]["role-duration-seconds"] == int(timedelta(hours=4, minutes=10).total_seconds())


def test_a_backup_that_may_outlast_a_github_job_is_refused() -> None:
    within = policy().model_copy(update={"time_limit": timedelta(hours=5, minutes=50)})
    assert workflow(rules=within)["jobs"]["take"]["timeout-minutes"] == 360
    beyond = policy().model_copy(update={"time_limit": timedelta(hours=5, minutes=51)})
    with pytest.raises(UsageFault, match="after 6 hours"):
        render(beyond, Format.GITHUB, THERE)
