"""Scenarios of the runbooks about backups."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime

from psycopg import sql

from runbooks import prune_backups, restore_backup, sync_backups, take_backup, verify_backup
from runbooks.backups.catalog import catalog, look_at
from runbooks.backups.clearing import remove
from runbooks.backups.sync import Behind, behind
from runbooks.backups.target import labelled
from runbooks.backups.workspace import MARK, workspace_root
from runbooks.clients.postgres import connect
from runbooks.clients.repository import Repository
from runbooks.engine.plan import Verdict
from runbooks.engine.step import Ended
from runbooks.model.backup import Rung, Tier
from runbooks.model.backup_id import BackupId
from runbooks.model.moment import Moment
from runbooks.model.retention import Place
from tests.backups.planted import ago, planted, through
from tests.clients.dump_ground import inventory, lost
from tests.runbooks.ground import Facts
from tests.runbooks.scenario import YES, Scenario


class TakenBackup(Scenario):
    runbook = take_backup.RUNBOOK
    asks = False
    kills = ("journal", "object", "statement")

    def prepare(self, facts: Facts) -> take_backup.Request:
        return take_backup.Request(tier=Tier.DAILY)

    def check(self, facts: Facts, ended: Ended) -> None:
        assert ended.ending.verdict is Verdict.PROVED, ended.ending
        taken = ended.results["take"]
        assert isinstance(taken, take_backup.Taken)
        listed = look_at(facts.repository(), BackupId.parse(taken.id))
        assert listed.verified(Rung.DECODED)
        assert all(each.complete for each in catalog(facts.repository()).backups), "half a backup was left behind"
        assert not list(workspace_root().glob(f"{MARK}*")), "readable rows were left behind"


class VerifiedBackup(Scenario):
    runbook = verify_backup.RUNBOOK
    asks = False
    kills = ("journal", "object")

    def prepare(self, facts: Facts) -> verify_backup.Request:
        ended = facts.engine().start(take_backup.RUNBOOK, take_backup.Request(tier=Tier.DAILY), facts.world(), YES)
        assert ended.ending.verdict is Verdict.PROVED, ended.ending
        return verify_backup.Request(backup=None, last=1, rung=max(Rung), place=Place.ARCHIVE)

    def check(self, facts: Facts, ended: Ended) -> None:
        assert ended.ending.verdict is Verdict.PROVED, ended.ending
        (outcome,) = ended.results["prove"].outcomes  # type: ignore[attr-defined]
        listed = look_at(facts.repository(), outcome.backup)
        assert listed.verified(Rung.INTEGRAL)
        assert {proof.key for proof in listed.proofs} >= {*outcome.proofs}
        assert not list(workspace_root().glob(f"{MARK}*")), "readable rows were left behind"


class RestoredBackup(Scenario):
    runbook = restore_backup.RUNBOOK
    kills = ("journal", "change", "statement")
    _numbers = itertools.count(1)

    def prepare(self, facts: Facts) -> restore_backup.Request:
        self._drop_earlier(facts)
        self.to = f"neon/restored_{next(self._numbers)}"
        ended = facts.engine().start(take_backup.RUNBOOK, take_backup.Request(tier=Tier.DAILY), facts.world(), YES)
        taken = ended.results["take"]
        assert isinstance(taken, take_backup.Taken)
        self.backup = taken.id
        return restore_backup.Request(backup=taken.id, to=self.to)

    def check(self, facts: Facts, ended: Ended) -> None:
        assert ended.ending.verdict is Verdict.PROVED, ended.ending
        manifest = look_at(facts.repository(), BackupId.parse(self.backup)).manifest
        assert manifest is not None
        there = facts.dsn().with_database(self.to.removeprefix("neon/"))
        assert not lost(manifest.inventory, inventory(there))
        with connect(there, application_name="test") as conn:
            assert str(labelled(conn)).endswith("PROVED")
        assert not list(workspace_root().glob(f"{MARK}*")), "readable rows were left behind"

    @staticmethod
    def _drop_earlier(facts: Facts) -> None:
        """Each kill makes one, and the disk is small."""
        with connect(facts.dsn(), application_name="test") as conn:
            for (name,) in conn.execute("SELECT datname FROM pg_database WHERE datname LIKE 'restored%'").fetchall():
                conn.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))


class PrunedBackups(Scenario):
    runbook = prune_backups.RUNBOOK
    kills = ("journal", "object")

    def prepare(self, facts: Facts) -> prune_backups.Request:
        repository = facts.repository()
        new = [planted("sandbox", ago(days=days)) for days in (1, 2, 3)]
        through(repository, [*new, *(planted("sandbox", ago(days=days)) for days in (100, 101))])
        return prune_backups.Request.parse("")

    def check(self, facts: Facts, ended: Ended) -> None:
        assert ended.ending.verdict is Verdict.PROVED, ended.ending
        found = catalog(facts.repository()).backups
        assert all(one.complete and one.id.started.utc > ago(days=90) for one in found)
        assert sum(one.verified(Rung.DECODED) for one in found) >= 3


class SyncedBackups(Scenario):
    runbook = sync_backups.RUNBOOK
    asks = False
    kills = ("journal", "object")

    def prepare(self, facts: Facts) -> sync_backups.Request:
        ended = facts.engine().start(take_backup.RUNBOOK, take_backup.Request(tier=Tier.DAILY), facts.world(), YES)
        taken = ended.results["take"]
        assert isinstance(taken, take_backup.Taken)
        remove(facts.repository(), BackupId.parse(taken.id), Place.ARCHIVE)
        return sync_backups.Request()

    def check(self, facts: Facts, ended: Ended) -> None:
        assert ended.ending.verdict is Verdict.PROVED, ended.ending
        for record in ended.results["prove"].records:  # type: ignore[attr-defined]
            for place in Place:
                assert look_at(facts.repository(), record.backup, place).verified(Rung.DECODED)
        assert not list(behind_of(facts.repository()))


def behind_of(repository: Repository) -> Iterator[Behind]:
    local, archived = catalog(repository, Place.LOCAL), catalog(repository)
    return behind(local, archived, repository.policy, Moment.of(datetime.now(UTC)))


BACKUP_SCENARIOS: tuple[type[Scenario], ...] = (
    TakenBackup,
    VerifiedBackup,
    RestoredBackup,
    PrunedBackups,
    SyncedBackups,
)
