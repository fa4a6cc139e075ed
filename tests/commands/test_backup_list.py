"""What backups there are, whether they are new enough, and the clean-up and the sync, as they are typed."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from runbooks.backups.clearing import remove
from runbooks.backups.sandboxed import sandboxed
from runbooks.clients.repository import Repository
from runbooks.model.backup import Rung
from runbooks.model.backup_id import BackupId
from runbooks.model.policy import Policy
from runbooks.model.retention import Place
from runbooks.sandbox import daemon
from tests.backups.planted import ago, planted, through
from tests.commands.operator import CODES, Operator, now

POLICY = """
default_environment = "sandbox"
local_timezone = "America/Mexico_City"
[environments.sandbox]
sandbox = true
[environments.quiet]
sandbox = true
[environments.empty]
sandbox = true
[backup]
bucket = "bloom-backups"
region = "us-east-1"
local_folder = "backups"
keep_verified = 1
"""
QUIET = ("--env", "quiet")


@dataclass(frozen=True)
class Keeper:
    """An operator whose environment `quiet` has a daily and a weekly backup, both new."""

    operator: Operator
    repository: Repository
    ids: tuple[str, str]

    def invoke(self, *words: str) -> str:
        said = self.operator.invoke(*words)
        assert said.code == 0, said
        return said.out


@pytest.fixture(scope="module")
def keeper(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Keeper:
    path = tmp_path_factory.mktemp("policy") / "policy.toml"
    path.write_text(POLICY)
    one = operator.having(BLOOM_DR_POLICY=str(path))
    ids = []
    for tier in ("daily", "weekly"):
        taken = one.json("backup.take", "--tier", tier, *QUIET)
        assert taken["verdict"] == "proved"
        ids.append(taken["results"]["take"]["id"])
    facts = daemon.archive(operator.sandbox)
    return Keeper(one, sandboxed("quiet", Policy.load(path), facts), (ids[0], ids[1]))


def test_without_any_backup_it_says_so_and_what_to_do(keeper: Keeper) -> None:
    text = keeper.invoke("backup.list", "--env", "empty")
    assert "there is none\nnext: invoke backup.take --tier daily" in text
    said = keeper.operator.invoke("backup.fresh", "--env", "empty")
    assert said.code == CODES["Stale"]
    assert "daily backups are STALE: there is none that is verified" in said.out


def test_backups_are_listed_with_what_is_proved_of_them(keeper: Keeper) -> None:
    daily, weekly = keeper.ids
    text = keeper.invoke("backup.list", *QUIET)
    for id_, tier in ((daily, "daily"), (weekly, "weekly")):
        row = next(line for line in text.splitlines() if id_ in line)
        assert tier in row
        assert "2 decoded" in row
    assert text.index(weekly) < text.index(daily), "the newest first"
    assert f"the newest verified backup is {weekly}" in text
    listed = keeper.operator.json("backup.list", *QUIET)
    assert [one["id"] for one in listed["backups"]] == [weekly, daily]
    assert all(one["verified"] and one["access"]["state"] == "readable" for one in listed["backups"])
    assert [each["fresh"] for each in listed["freshness"]] == [True, True]
    local = keeper.operator.json("backup.list", "--local", *QUIET)
    assert [(one["id"], one["verified"]) for one in local["backups"]] == [(weekly, True), (daily, True)]


def test_before_an_incident_the_one_to_take_is_named(keeper: Keeper) -> None:
    moment = now()
    listed = keeper.operator.json("backup.list", "--before", moment, *QUIET)
    assert listed["offer"]["take"]["id"] == keeper.ids[1]
    assert "lost with it: what was written in the " in keeper.invoke("backup.list", "--before", moment, *QUIET)
    keeper.operator.invoke("backup.list", "--before", "2025-12-03 14:30").stopped("UsageFault", "has no zone")


def test_c16_fresh_is_what_the_bucket_holds_and_the_metric_is_sent(keeper: Keeper) -> None:
    answer = keeper.operator.json("backup.fresh", *QUIET)
    assert answer["fresh"] is True
    inbox = daemon.archive(keeper.operator.sandbox).metrics_file.read_text()
    sent = [json.loads(line) for line in inbox.splitlines()]
    tiers = {dict(map(tuple, one["dimensions"])).get("Tier") for one in sent if one["name"] == "BackupAge"}
    assert tiers >= {"daily", "weekly"}


def test_a_clean_up_waits_for_consent_and_deletes_what_it_named(keeper: Keeper) -> None:
    old = [planted("quiet", ago(days=days)) for days in (100, 101)]
    through(keeper.repository, old)
    said = keeper.operator.invoke("backup.prune", *QUIET)
    said.stopped("ConsentNeeded", "past its retention", "are DELETED")
    assert said.confirm.strip() == "bloom-backups/quiet/2"
    assert str(old[0].id) in keeper.invoke("backup.list", *QUIET)
    done = keeper.operator.paste(said.pasted)
    assert done.code == 0, done
    text = keeper.invoke("backup.list", *QUIET)
    assert not any(str(each.id) in text for each in old)
    assert all(id_ in text for id_ in keeper.ids)
    assert keeper.operator.json("backup.prune", *QUIET)["verdict"] == "nothing missing"
    keeper.operator.invoke("backup.prune", "--place", "cellar").stopped("UsageFault", "--place archive")


def test_what_the_archive_lost_is_sent_again(keeper: Keeper) -> None:
    assert keeper.operator.json("backup.sync", *QUIET)["verdict"] == "nothing missing"
    lost = BackupId.parse(keeper.ids[0])
    remove(keeper.repository, lost, Place.ARCHIVE)
    assert keeper.operator.invoke("backup.fresh", *QUIET).code == CODES["Stale"]
    assert keeper.operator.json("backup.sync", *QUIET)["verdict"] == "proved"
    listed = keeper.operator.json("backup.list", *QUIET)
    assert {one["id"]: one["rung"] for one in listed["backups"]}[str(lost)] == Rung.DECODED


def test_where_nothing_runs_it_says_so(stranger: Operator) -> None:
    stranger.invoke("backup.list").stopped("SandboxFault")
    stranger.invoke("backup.sync").stopped("SandboxFault")
