"""Scenarios of the runbooks about backups."""

from __future__ import annotations

from runbooks import take_backup
from runbooks.backups.catalog import catalog, look_at
from runbooks.engine.plan import Verdict
from runbooks.engine.step import Ended
from runbooks.model.backup import Rung, Tier
from runbooks.model.backup_id import BackupId
from tests.runbooks.ground import Facts
from tests.runbooks.scenario import Scenario


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
        assert not (ended.folder / "dump").exists(), "readable rows were left behind"


BACKUP_SCENARIOS: tuple[type[Scenario], ...] = (TakenBackup,)
