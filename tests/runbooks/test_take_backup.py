"""What backup.take promises beside the dump itself: where it reads, who is kept out, what is told when it fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from runbooks import take_backup
from runbooks.backups.catalog import catalog, look_at
from runbooks.clients.metrics import Inbox
from runbooks.clients.postgres import connect
from runbooks.clients.postgres_lock import BACKUP, hold_lock, require_lock
from runbooks.clients.repository import Repository
from runbooks.clients.seal import KeyPair
from runbooks.clients.world import World
from runbooks.engine.consent import Consenting
from runbooks.engine.plan import Verdict
from runbooks.engine.step import Ended, Run
from runbooks.model.backup import Rung, Tier
from runbooks.model.backup_id import BackupId
from runbooks.model.errors import ArchiveFault, DatabaseFault, LockHeld, Refused
from runbooks.model.moment import Moment
from runbooks.model.policy_backup import Encryption, Tiers
from runbooks.model.run_id import RunId
from runbooks.sandbox.seed import seed
from tests.runbooks.ground import Facts
from tests.stack import Stack, stack_root

RUN = RunId.parse("20251203-020000-k7qx")
DAILY = take_backup.Request(tier=Tier.DAILY)
NOBODY = Consenting("tester")


@pytest.fixture(scope="module")
def seeded() -> Iterator[Stack]:
    with stack_root() as root, Stack.start(root) as stack:
        seed(Facts.of(stack, root).dsn(), clients=100)
        yield stack


@pytest.fixture
def facts(seeded: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Facts]:
    with stack_root() as home:
        home.chmod(0o711)
        monkeypatch.setenv("BLOOM_DR_SANDBOX", str(home / "sandbox"))
        yield Facts.of(seeded, tmp_path / "runs", archive=True)


def having(facts: Facts, **policy: Any) -> World:
    """The world, with another backup policy."""
    place = facts.repository()
    changed = dataclasses.replace(place, policy=place.policy.model_copy(update=policy))
    return dataclasses.replace(facts.world(), open_repository=lambda: changed)


def taken(facts: Facts, world: World) -> Ended:
    return facts.engine().start(take_backup.RUNBOOK, DAILY, world, NOBODY, RUN)


def metrics(facts: Facts) -> list[str]:
    sink = facts.repository().metrics
    assert isinstance(sink, Inbox)
    return [metric.name for metric in sink.read()]


def test_from_a_branch_it_reads_only_there_and_removes_it(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = take_backup.take

    def watched(repository: Repository, order: Any, **how: Any) -> Any:
        read.append(order.dsn.host)
        assert RUN.branch_name in facts.branch_names()
        return real(repository, order, **how)

    monkeypatch.setattr(take_backup, "take", watched)
    ended = taken(facts, having(facts, from_branch=True))
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert read
    assert read[0] != facts.dsn().host
    assert RUN.branch_name not in facts.branch_names()


def test_its_branch_goes_also_when_the_dump_fails(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        assert RUN.branch_name in facts.branch_names()
        raise DatabaseFault("the dump failed", safe="nothing was stored", next_step="invoke run.list")

    monkeypatch.setattr(take_backup, "take", failing)
    with pytest.raises(DatabaseFault):
        taken(facts, having(facts, from_branch=True))
    assert RUN.branch_name not in facts.branch_names()
    assert metrics(facts)[-1] == "BackupFailure"


def test_c10_no_second_backup_starts_while_one_is_alive(facts: Facts) -> None:
    before = metrics(facts)
    with connect(facts.dsn(), application_name="other") as other:
        with hold_lock(other, "20251203-015959-abcd", "ana@bloom", purpose=BACKUP):
            with pytest.raises(LockHeld, match=r"another backup is at work .* 20251203-015959-abcd ana@bloom"):
                taken(facts, facts.world())
    assert metrics(facts) == before, "the other one is measured, not the one that stayed out"


def test_a_recovery_does_not_wait_for_a_backup(facts: Facts) -> None:
    with connect(facts.dsn(), application_name="backup") as one, connect(facts.dsn(), application_name="r") as two:
        with hold_lock(one, "20251203-015959-abcd", "cron", purpose=BACKUP):
            with hold_lock(two, "20251203-020001-abcd", "ana@bloom"):
                require_lock(two)


def test_a_lock_that_the_bucket_cannot_keep_is_refused_before_anything(facts: Facts) -> None:
    world = having(facts, tiers=Tiers.model_validate({"daily": LOCKED}))
    run: Run[World] = Run(world, RUN, Path(facts.runs), lambda text: None, never)
    surveyed = take_backup.survey(run, DAILY)
    assert surveyed.object_lock is True
    assert take_backup.plan(DAILY, surveyed).about.lock_days == 1
    with pytest.raises(Refused, match="has no object lock"):
        take_backup.plan(DAILY, surveyed.model_copy(update={"object_lock": False}))


LOCKED = {"local_days": 30, "s3_days": 90, "storage_class": "STANDARD_IA", "lock_mode": "GOVERNANCE", "lock_days": 1}


def never(*_: Any) -> Ended:
    raise AssertionError("a backup has no runs inside")


def test_after_a_kill_without_a_private_key_it_does_not_say_proved(
    facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key of the process that took it is gone; what can be said is that every byte is there."""

    def dying(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    stranger = dataclasses.replace(facts.repository(), open_keys=lambda _: None)
    world = dataclasses.replace(facts.world(), open_repository=lambda: stranger)
    with monkeypatch.context() as patch:
        patch.setattr(take_backup, "prove_by_reading", dying)
        with pytest.raises(KeyboardInterrupt):
            taken(facts, world)
    ended = facts.engine().resume(take_backup.RUNBOOK, RUN, world, NOBODY)
    assert ended.ending.verdict is Verdict.COULD_NOT_VERIFY
    assert "backup.verify" in ended.ending.left_open[0]
    result = ended.results["take"]
    assert isinstance(result, take_backup.Taken)
    assert look_at(facts.repository(), BackupId.parse(result.id)).standing.rung is Rung.REREAD
    assert metrics(facts)[-1] == "BackupFailure"


def test_with_gpg_it_ends_proved_too(facts: Facts) -> None:
    encryption = Encryption.model_validate({"method": "gpg", "recipients": [KeyPair.new("gpg").recipient]})
    ended = taken(facts, having(facts, encryption=encryption))
    assert ended.ending.verdict is Verdict.PROVED, ended.ending


def sizes(facts: Facts, tier: Tier) -> list[int]:
    """Of the verified backups of a tier that there are, oldest first."""
    found = (one for one in catalog(facts.repository()).backups if one.tier is tier and one.verified(Rung.DECODED))
    return [one.manifest.stored_size for one in found if one.manifest is not None]


def test_a_size_that_stands_out_is_measured_once_three_are_known(facts: Facts) -> None:
    weekly = take_backup.Request(tier=Tier.WEEKLY)
    for known in range(4):
        before, sent = sizes(facts, Tier.WEEKLY), len(metrics(facts))
        assert len(before) == known
        # Minutes apart: two in one second would have one name.
        behind, world = timedelta(minutes=10 - known), facts.world()
        earlier = dataclasses.replace(world, now=lambda world=world, behind=behind: Moment(world.now().utc - behind))
        ended = facts.engine().start(take_backup.RUNBOOK, weekly, earlier, NOBODY)
        assert ended.ending.verdict is Verdict.PROVED, ended.ending
        now = metrics(facts)[sent:]
        assert ("BackupSizeDeviation" in now) is (known == 3)
        assert {"BackupSuccess", "BackupSize", "BackupDuration"} <= {*now}
    sink = facts.repository().metrics
    assert isinstance(sink, Inbox)
    size, deviation = (
        next(one.value for one in reversed(sink.read()) if one.name == f"BackupSize{what}")
        for what in ("", "Deviation")
    )
    assert deviation == pytest.approx(100 * abs(size - median(before)) / median(before))


def test_a_backup_is_taken_also_where_the_sizes_of_earlier_ones_cannot_be_seen(
    facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unseen(*_: Any) -> Any:
        raise ArchiveFault("listing sandbox/: refused", safe="all", next_step="repeat it")

    monkeypatch.setattr(take_backup, "catalog", unseen)
    run: Run[World] = Run(facts.world(), RUN, Path(facts.runs), lambda text: None, never)
    warnings = take_backup.plan(DAILY, take_backup.survey(run, DAILY)).warnings
    assert "the sizes of earlier backups could not be seen: listing sandbox/: refused" in warnings
    sent = len(metrics(facts))
    assert taken(facts, facts.world()).ending.verdict is Verdict.PROVED
    assert "BackupSize" in metrics(facts)[sent:]
    assert "BackupSizeDeviation" not in metrics(facts)[sent:]


def test_two_backups_started_in_one_second_are_two_backups(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    first = taken(facts, facts.world()).results["take"]
    assert isinstance(first, take_backup.Taken)
    clock = BackupId.parse(first.id).started.utc + timedelta(microseconds=900_000)

    def slept(seconds: float) -> None:
        nonlocal clock
        clock += timedelta(seconds=seconds)

    monkeypatch.setattr(take_backup, "sleep", slept)
    world = dataclasses.replace(facts.world(), now=lambda: Moment.of(clock))
    ended = facts.engine().start(take_backup.RUNBOOK, DAILY, world, NOBODY, RunId.parse("20251203-020001-k7qx"))
    second = ended.results["take"]
    assert isinstance(second, take_backup.Taken)
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert BackupId.parse(second.id).started.utc - BackupId.parse(first.id).started.utc == timedelta(seconds=1)
