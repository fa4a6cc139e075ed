"""The drill as it is typed: for which environment it counts, and who hears of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runbooks.backups.sandboxed import sandboxed
from runbooks.clients.repository import Repository
from runbooks.model.policy import Policy
from runbooks.sandbox import daemon
from tests.commands.operator import CODES, Operator

POLICY = """
default_environment = "sandbox"
local_timezone = "America/Mexico_City"
[environments.sandbox]
sandbox = true
[environments.quiet]
sandbox = true
[environments.production]
project = "example-production-00000001"
database = "neondb"
role = "neondb_owner"
promised_window = "7d"
[objectives.corruption]
rto = "{rto}"
rpo = "24h"
[backup]
bucket = "bloom-backups"
region = "us-east-1"
"""
FAST = ("drill.quarterly", "--clients", "100")


def having(operator: Operator, folder: Path, rto: str = "2h") -> Operator:
    path = folder / "policy.toml"
    path.write_text(POLICY.format(rto=rto))
    return operator.having(BLOOM_DR_POLICY=str(path), AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE="/dev/null")


def quiet(operator: Operator, folder: Path) -> Repository:
    return sandboxed("quiet", Policy.load(folder / "policy.toml"), daemon.archive(operator.sandbox))


def sent(operator: Operator) -> list[tuple[str, str, float]]:
    """Of drills: name, what it is of, value."""
    inbox = daemon.archive(operator.sandbox).metrics_file
    found = [json.loads(line) for line in inbox.read_text().splitlines()] if inbox.exists() else []
    drills = [one for one in found if one["name"].startswith("Drill") and one["name"] != "DrillAge"]
    return [(one["name"], " ".join(value for _, value in one["dimensions"]), one["value"]) for one in drills]


def test_a_drill_that_counts_is_kept_and_known_there(operator: Operator, tmp_path: Path) -> None:
    one = having(operator, tmp_path)
    with one.nothing_changes():
        answer = one.json(*FAST, "--for", "quiet")
    assert answer["verdict"] == "proved"
    report = Path(dict(answer["facts"])["report"])
    assert "| Counts for | quiet |" in report.read_text()
    place, folder = quiet(one, tmp_path), f"quiet/drills/{answer['run_id']}"
    assert [each.key for each in place.archive.objects(f"{folder}/")] == [f"{folder}/drill.json", f"{folder}/drill.md"]
    assert place.archive.read(f"{folder}/drill.md") == report.read_bytes()
    assert [(name, of) for name, of, _ in sent(one)] == [
        ("DrillSuccess", "quiet"),
        ("DrillRTO", "quiet accidental-delete"), ("DrillRPO", "quiet accidental-delete"),
        ("DrillRTO", "quiet corruption"), ("DrillRPO", "quiet corruption"),
    ]  # fmt: skip
    test = json.loads(report.with_suffix(".json").read_text())["tests"][1]
    assert ("DrillRTO", "quiet corruption", test["rto_seconds"]) in sent(one)
    known = one.invoke("backup.fresh", "--env", "quiet", "--json").data
    assert known["last_drill"] == answer["run_id"]
    assert answer["run_id"] not in one.invoke("backup.list", "--env", "quiet").out, "a report is no backup"
    again = one.invoke("run.resume", answer["run_id"], "--json")
    assert again.data["verdict"] == "proved"


@pytest.mark.long
def test_a_drill_that_missed_its_objective_is_kept_and_counts_as_none(operator: Operator, tmp_path: Path) -> None:
    one = having(operator, tmp_path, rto="1s")
    before = one.invoke("backup.fresh", "--env", "quiet", "--json").data["last_drill"]
    told = len(sent(one))
    said = one.invoke(*FAST, "--for", "quiet", "--json")
    assert said.code == CODES["ObjectiveMissed"], said
    assert quiet(one, tmp_path).archive.exists(f"quiet/drills/{said.data['run_id']}/drill.json")
    assert sent(one)[told] == ("DrillSuccess", "quiet", 0)
    assert one.invoke("backup.fresh", "--env", "quiet", "--json").data["last_drill"] == before


@pytest.mark.long
def test_a_report_that_cannot_be_kept_is_no_success(operator: Operator, tmp_path: Path) -> None:
    """There are no credentials for the archive of production here."""
    one = having(operator, tmp_path)
    told = len(sent(one))
    said = one.invoke(*FAST, "--for", "production")
    said.stopped("LoginRefused", "what the drill found is in ", "then: invoke drill.quarterly --for production")
    assert "besides, the failure could not be measured" in said.err
    assert "PASS" in (one.runs / said.run_id / "drill.md").read_text()
    assert len(sent(one)) == told, "nobody else hears of it"


def test_an_environment_that_does_not_exist_is_refused_before_anything(stranger: Operator, tmp_path: Path) -> None:
    said = having(stranger, tmp_path).invoke(*FAST, "--for", "prodction")
    said.stopped("UsageFault", "did you mean 'production'?")
    assert not stranger.runs.exists()
    stranger.invoke(*FAST, "--for=").stopped("UsageFault", "--for was given without a value")


def test_one_that_counts_where_nothing_runs_is_refused_before_anything_is_made(stranger: Operator) -> None:
    stranger.invoke(*FAST, "--for", "sandbox").stopped("SandboxFault", "not running")
    assert not list(stranger.sandbox.parent.glob("bloom-dr-drill-*"))
