"""C16: what `schedule.render` gives works from /, in an empty environment, with the documented variables alone; and
where it cannot work, it says so and fails.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands.operator import ROOT, Operator, Said

POLICY = """
default_environment = "sandbox"
local_timezone = "America/Mexico_City"
[environments.sandbox]
sandbox = true
[environments.production]
project = "quiet-lake-12345678"
database = "neondb"
role = "neondb_owner"
api_key_env = "BLOOM_NEON_KEY"
promised_window = "1d"
"""
BACKUP = '[backup]\nbucket = "bloom-backups"\nregion = "eu-central-1"\n'
STACK = """
[stacks.live]
environments = ["production"]
runner = "elsewhere"
operators = ["arn:aws:iam::111122223333:role/ops"]
[stacks.live.alerts]
page = { kind = "email", address = "a@bloom.com" }
mail = { kind = "email", address = "a@bloom.com" }
chat = { kind = "email", address = "a@bloom.com" }
"""
PRODUCTION = ("--env", "production")
COMMANDS = {
    "daily": "backup.take --tier daily",
    "weekly": "backup.take --tier weekly",
    "fresh": "backup.fresh",
    "verify": "backup.verify --last 7",
}


def planner(stranger: Operator, folder: Path, backup: str = BACKUP) -> Operator:
    (folder / "policy.toml").write_text(POLICY + backup)
    return stranger.having(BLOOM_DR_POLICY=str(folder / "policy.toml"))


@pytest.fixture
def keeper(stranger: Operator, tmp_path: Path) -> Operator:
    return planner(stranger, tmp_path)


# What is refused


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "no --format was given"),
        (("--format", "corn"), "did you mean 'cron'?"),
        (("--format", "Cron"), "there is no format 'Cron'"),
    ],
)
def test_a_wrong_format_is_refused_with_the_choices(keeper: Operator, words: tuple[str, ...], says: str) -> None:
    said = keeper.invoke("schedule.render", *PRODUCTION, *words)
    said.stopped("UsageFault", says, "--format cron, --format systemd, --format github-actions")


def test_a_sandbox_gets_no_schedule_not_even_as_the_default_environment(keeper: Operator) -> None:
    keeper.invoke("schedule.render", "--format", "cron").stopped("UsageFault", "is a sandbox", "--env production")


def test_an_unknown_environment_is_refused(keeper: Operator) -> None:
    said = keeper.invoke("schedule.render", "--format", "cron", "--env", "prodction")
    said.stopped("UsageFault", "did you mean 'production'?")


@pytest.mark.parametrize("option", ["--folder", "--secrets"])
def test_a_path_that_a_scheduler_might_read_otherwise_is_refused(keeper: Operator, option: str) -> None:
    said = keeper.invoke("schedule.render", "--format", "cron", *PRODUCTION, option, "/srv/a b")
    said.stopped("UsageFault", "/srv/a b")


def test_a_policy_without_backups_is_refused(stranger: Operator, tmp_path: Path) -> None:
    said = planner(stranger, tmp_path, backup="").invoke("schedule.render", "--format", "cron", *PRODUCTION)
    said.stopped("PolicyFault", "no section [backup]")


# What is shown and written


@pytest.mark.parametrize("form", ["cron", "systemd", "github-actions"])
def test_what_is_shown_is_what_is_written(keeper: Operator, tmp_path: Path, form: str) -> None:
    words = ("schedule.render", "--format", form, *PRODUCTION)
    shown = keeper.invoke(*words).out
    files = {file["name"]: file["content"] for file in keeper.json(*words)["files"]}
    written = keeper.json(*words, "--out", str(tmp_path / "out"))["written"]
    assert {each["path"]: each["state"] for each in written} == {str(tmp_path / "out" / n): "written" for n in files}
    for name, content in files.items():
        assert content in shown
        path = tmp_path / "out" / name
        assert path.read_text() == content
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_all_of_a_shown_crontab_that_is_not_the_crontab_is_a_comment(keeper: Operator) -> None:
    said = keeper.invoke("schedule.render", "--format", "cron", *PRODUCTION)
    around = said.out
    for file in keeper.json("schedule.render", "--format", "cron", *PRODUCTION)["files"]:
        around = around.replace(file["content"], "")
    assert all(line.startswith("#") for line in around.splitlines() if line)


def test_the_mode_of_files_does_not_depend_on_who_writes_them(keeper: Operator, tmp_path: Path) -> None:
    words = ("schedule.render", "--format", "cron", *PRODUCTION, "--out", str(tmp_path / "out"))
    assert keeper.invoke(*words, umask=0o077).code == 0
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o644}


def test_files_with_other_content_are_not_replaced_and_nothing_else_is_written(
    keeper: Operator, tmp_path: Path
) -> None:
    words = ("schedule.render", "--format", "systemd", *PRODUCTION, "--out", str(tmp_path / "out"))
    assert keeper.invoke(*words).code == 0
    service = tmp_path / "out" / "bloom-backup-production-weekly.service"
    timer = tmp_path / "out" / "bloom-backup-production-daily.timer"
    service.write_text("my own\n")
    timer.unlink()
    keeper.invoke(*words).stopped("Refused", str(service), "no file was written")
    assert service.read_text() == "my own\n"
    assert not timer.exists()
    service.unlink()
    states = [each["state"] for each in keeper.json(*words)["written"]]
    assert sorted(states) == [*["unchanged"] * 6, "written", "written"]


def test_a_folder_that_cannot_be_written_is_told(keeper: Operator, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    said = keeper.invoke("schedule.render", "--format", "cron", *PRODUCTION, "--out", str(tmp_path / "out"))
    said.stopped("LocalFault", str(tmp_path / "out"))


def test_what_is_left_to_do_is_told_with_the_names_of_the_secrets(keeper: Operator, tmp_path: Path) -> None:
    for form, words in {
        "cron": ("crontab -u keeper", "BLOOM_NEON_KEY", "/etc/keeper.env", "AWS_ACCESS_KEY_ID", "BLOOM_DR_POLICY"),
        "systemd": ("systemctl enable --now bloom-backup-production-daily.timer", "BLOOM_NEON_KEY", "/etc/keeper.env"),
        "github-actions": (
            "gh secret set BLOOM_NEON_KEY",
            "gh variable set BLOOM_BACKUP_ROLE",
            "gh variable set BLOOM_VERIFY_ROLE",
            "gh secret set BLOOM_DR_KEY_TEXT",
        ),
    }.items():
        said = keeper.invoke(
            "schedule.render", "--format", form, *PRODUCTION, "--user", "keeper", "--secrets", "/etc/keeper.env",
            "--out", str(tmp_path / form),
        )  # fmt: skip
        for word in (*words, "until then every run fails"):
            assert word in said.out, word


@pytest.mark.parametrize("form", ["cron", "systemd"])
def test_the_private_key_is_said_to_belong_to_another_user_and_best_to_another_machine(
    keeper: Operator, form: str
) -> None:
    steps = keeper.json("schedule.render", "--format", form, *PRODUCTION)["install"]
    apart = next(number for number, step in enumerate(steps) if "on another machine" in step)
    here, there = "\n".join(steps[:apart]), "\n".join(steps[apart:])
    assert "BLOOM_DR_KEYS" not in here
    assert "verify" not in here.replace("of the verifier (the writer reads no reports of drills)", "")
    assert "BLOOM_NEON_KEY" not in there
    for word in ("BLOOM_DR_KEYS", "-o bloom-dr-verify /dev/null /etc/bloom-dr/secrets-verify.env", "production"):
        assert word in there


def test_the_secrets_of_a_stack_go_into_the_github_environment_that_its_roles_trust(
    stranger: Operator, tmp_path: Path
) -> None:
    words = ("schedule.render", "--format", "github-actions", *PRODUCTION)
    answer = planner(stranger, tmp_path, BACKUP + STACK).json(*words)
    assert all('environment: "live"\n' in file["content"] for file in answer["files"])
    given = [step for step in answer["install"] if re.match(r"gh (secret|variable) set", step)]
    assert len(given) == 4
    assert all(" --env live" in step for step in given)


# cron


@dataclass(frozen=True)
class Machine:
    """Takes backups: an `invoke` that writes down what it was given, and a `logger` that does, too."""

    root: Path
    crontab: Path

    @property
    def seen(self) -> list[str]:
        return (self.root / "seen").read_text().splitlines() if (self.root / "seen").exists() else []

    @property
    def logged(self) -> str:
        return (self.root / "log").read_text() if (self.root / "log").exists() else ""

    @property
    def secrets(self) -> Path:
        return self.root / "secrets.env"

    def run(self) -> Said:
        """The first line of the crontab as cron runs it: from /, with the crontab's own settings and nothing else."""
        lines = self.crontab.read_text().splitlines()
        settings = [line for line in lines if re.fullmatch(r"[A-Z_]+=\S+", line)]
        command = next(line for line in lines if re.match(r"[0-9*]", line)).split(None, 5)[5]
        assert "%" not in command
        shell = next(line.removeprefix("SHELL=") for line in settings if line.startswith("SHELL="))
        done = subprocess.run(
            ["env", "-i", *settings, shell, "-c", command], cwd="/", capture_output=True, text=True, timeout=30,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def machine(keeper: Operator, tmp_path: Path) -> Machine:
    if not Path("/bin/bash").exists():
        pytest.skip("cron entries are for machines with bash")
    programs = tmp_path / "srv" / ".venv" / "bin"
    programs.mkdir(parents=True)
    note = shlex.quote(str(tmp_path / "seen"))
    _program(programs / "invoke", f'{{ pwd; echo "$@"; env; }} > {note}\necho told; exit "$OUTCOME"')
    _program(programs / "logger", f'{{ echo "$@"; cat; }} > {shlex.quote(str(tmp_path / "log"))}')
    (tmp_path / "secrets.env").write_text("BLOOM_NEON_KEY='napi_x y$HOME'\nOUTCOME=0\n")
    said = keeper.invoke(
        "schedule.render", "--format", "cron", *PRODUCTION, "--folder", str(tmp_path / "srv"),
        "--secrets", str(tmp_path / "secrets.env"), "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert said.code == 0, said
    return Machine(tmp_path, tmp_path / "out" / "bloom-backup-production.crontab")


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o700)


def test_c16_from_an_empty_environment_the_backup_finds_its_folder_programs_and_secrets(machine: Machine) -> None:
    assert machine.run() == Said(0, "", ""), "a good run sends no mail"
    folder, words, *environ = machine.seen
    assert (folder, words) == (str(machine.root / "srv"), "backup.take --tier daily --env production")
    names = {line.split("=")[0] for line in environ} - {"PWD", "SHLVL", "_", "OLDPWD", "OUTCOME"}
    assert names == {"BLOOM_NEON_KEY", "AWS_REGION", "PATH", "LANG", "SHELL", "CRON_TZ"}, "the documented ones"
    assert "BLOOM_NEON_KEY=napi_x y$HOME" in environ, "a secret in single quotes comes as it is"
    assert machine.logged == "-t bloom-backup-production-daily\ntold\n"


def test_c12_c16_a_failing_backup_fails_the_line_whatever_the_pipe_says(machine: Machine) -> None:
    machine.secrets.write_text("BLOOM_NEON_KEY=napi_x\nOUTCOME=30\n")
    said = machine.run()
    assert said.code != 0
    assert said.out == "bloom-backup-production-daily FAILED, see syslog\n"
    assert machine.logged.endswith("told\n")


def test_c12_a_logger_that_fails_does_not_pass_for_a_good_run(machine: Machine) -> None:
    _program(machine.root / "srv" / ".venv" / "bin" / "logger", "cat > /dev/null; exit 1")
    said = machine.run()
    assert said.code != 0
    assert "FAILED" in said.out


@pytest.mark.parametrize("content", ["OUTCOME=0\n", "BLOOM_NEON_KEY=\nOUTCOME=0\n"], ids=["not set", "empty"])
def test_c16_a_missing_variable_is_named_before_anything_is_started(machine: Machine, content: str) -> None:
    machine.secrets.write_text(content)
    said = machine.run()
    assert said.code != 0
    assert f"BLOOM_NEON_KEY: is not set in {machine.secrets}" in said.err
    assert (machine.seen, machine.logged) == ([], "")


@pytest.mark.parametrize("gone", ["secrets.env", "srv"])
def test_c16_a_missing_file_or_folder_is_named_before_anything_is_started(machine: Machine, gone: str) -> None:
    (machine.root / gone).rename(machine.root / "gone")
    said = machine.run()
    assert said.code != 0
    assert str(machine.root / gone) in said.err
    assert (machine.seen, machine.logged) == ([], "")


def test_c16_a_missing_program_fails_the_line_and_is_logged(machine: Machine) -> None:
    (machine.root / "srv" / ".venv" / "bin" / "invoke").unlink()
    said = machine.run()
    assert said.code != 0
    assert "FAILED" in said.out
    assert "invoke" in machine.logged


# systemd


@pytest.fixture
def units(keeper: Operator, tmp_path: Path) -> Path:
    out = tmp_path / "units"
    said = keeper.invoke("schedule.render", "--format", "systemd", *PRODUCTION, "--out", str(out))
    assert said.code == 0, said
    return out


def test_each_timer_has_a_service_and_the_service_all_that_a_job_needs(units: Path) -> None:
    timers = sorted(units.glob("*.timer"))
    assert [timer.stem.rsplit("-", 1)[1] for timer in timers] == sorted(COMMANDS)
    for timer in timers:
        assert _unit(timer)["Timer"]["OnCalendar"].endswith(" UTC")
        service = _unit(timer.with_suffix(".service"))["Service"]
        name = timer.stem.rsplit("-", 1)[1]
        secrets = {"fresh": "secrets-judge", "verify": "secrets-verify"}.get(name, "secrets")
        assert service["EnvironmentFile"] == f"/etc/bloom-dr/{secrets}.env", "no leading '-': a missing file stops it"
        assert service["WorkingDirectory"] == "/srv/bloom-dr"
        assert service["User"] == ("bloom-dr-verify" if name == "verify" else "bloom-dr")
        program, flag, script = shlex.split(service["ExecStart"])
        assert (program, flag) == ("/bin/bash", "-c")
        assert script == f"set -euo pipefail; exec invoke {COMMANDS[name]} --env production"


def _unit(path: Path) -> configparser.ConfigParser:
    read = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read_string(path.read_text())
    return read


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="asks systemd itself, where there is one")
def test_systemd_itself_finds_no_fault(units: Path) -> None:
    files = sorted(map(str, units.iterdir()))
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, check=False, timeout=60,
        env=os.environ,
    )  # fmt: skip
    assert [line for line in answer.stderr.splitlines() if "bloom-backup" in line] == []


# GitHub


def test_the_github_workflows_lie_where_github_looks_and_do_what_the_policy_says(
    keeper: Operator, tmp_path: Path
) -> None:
    words = ("schedule.render", "--format", "github-actions", *PRODUCTION, "--out", str(tmp_path / "repository"))
    assert keeper.invoke(*words).code == 0
    folder = tmp_path / "repository" / ".github" / "workflows"
    found = {path.name: _workflow(path) for path in sorted(folder.iterdir())}
    assert sorted(found) == sorted(f"bloom-backup-production-{name}.yml" for name in COMMANDS)
    for name, cron in {
        "daily": "0 2 * * *",
        "weekly": "0 4 * * 0",
        "fresh": "0 7 * * *",
        "verify": "0 9 * * 0",
    }.items():
        workflow = found[f"bloom-backup-production-{name}.yml"]
        assert workflow["on"] == {"schedule": [{"cron": cron}], "workflow_dispatch": {}}
        (job,) = workflow["jobs"].values()
        *before, last = job["steps"]
        assert last["run"].endswith(f" {COMMANDS[name]} --env production")
        secret = "BLOOM_DR_KEY_TEXT" if name == "verify" else "BLOOM_NEON_KEY"
        assert {each for each in last["env"] if "secrets." in last["env"][each]} == {secret}
        assert last["env"]["AWS_REGION"] == "eu-central-1"
        assert not any("secrets." in str(step) for step in before)
        assert "pipefail" in workflow["defaults"]["run"]["shell"]
        assert workflow["permissions"] == {"contents": "read", "id-token": "write"}


def _workflow(path: Path) -> dict[Any, Any]:
    read: dict[Any, Any] = yaml.safe_load(path.read_text())
    read["on"] = read.pop(True)  # YAML 1.1, which PyYAML reads and GitHub does not, takes `on` for true
    return read


def test_c16_the_real_backup_names_all_missing_variables_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(POLICY + BACKUP)
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "BLOOM_DR_POLICY": str(tmp_path / "policy.toml"),
        "BLOOM_DR_RUNS": str(tmp_path / "runs"), "AWS_ACCESS_KEY_ID": "half",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "--search-root", str(ROOT), "backup.take", "--tier", "daily", *PRODUCTION],
        cwd="/", env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "not set in the environment: BLOOM_NEON_KEY, AWS_SECRET_ACCESS_KEY" in done.stderr
