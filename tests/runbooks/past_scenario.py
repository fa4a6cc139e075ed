"""Rows that are brought back from a backup: a second scenario of `recover.accidental-delete`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from runbooks import accidental_delete, take_backup
from runbooks.backups.workspace import workspace_root
from runbooks.engine.plan import Verdict
from runbooks.engine.step import Ended
from runbooks.model.backup import Tier
from runbooks.model.backup_id import BackupId
from runbooks.model.moment import Moment
from runbooks.sandbox import incident
from runbooks.sandbox.incident import Planted
from tests.runbooks.ground import Facts
from tests.runbooks.scenario import YES, Scenario


class RowsFromBackup(Scenario):
    runbook = accidental_delete.RUNBOOK
    name = "recover.accidental-delete from a backup"
    kills = ("journal", "server")
    every = 4
    planted: Planted | None = None

    def prepare(self, facts: Facts) -> accidental_delete.Request:
        """The backup is taken once: what a recovery has brought back is deleted again."""
        with facts.session() as conn:
            if self.planted is None:
                self.planted = incident.plant(conn)
                self.backup, self.moment = back_up(facts)
            incident.strike(conn, self.planted)
            incident.after(conn, self.planted)
        return accidental_delete.Request(at=self.moment, tables=("clients",), from_backup=str(self.backup))

    def check(self, facts: Facts, ended: Ended) -> None:
        assert self.planted is not None
        assert ended.ending.verdict is Verdict.PROVED, ended.ending
        with facts.session() as conn:
            assert incident.prints(conn, self.planted.tag) == self.planted.before
            assert incident.bystander_is_there(conn, self.planted)
            booked = next(each.rows for each in self.planted.before if each.table == "reservations")
            assert incident.mails(conn, self.planted) == booked
        assert_nothing_left(workspace_root())


def back_up(facts: Facts) -> tuple[BackupId, Moment]:
    """A proved backup, and a moment after it."""
    ended = facts.engine().start(take_backup.RUNBOOK, take_backup.Request(tier=Tier.DAILY), facts.world(), YES)
    taken = ended.results["take"]
    assert isinstance(taken, take_backup.Taken)
    return BackupId.parse(taken.id), Moment.of(datetime.now(UTC))


def assert_nothing_left(home: Path) -> None:
    assert not list(home.glob("bloom-dr-*")), "readable rows were left behind"
    assert not servers_below(home)


def servers_below(home: Path) -> list[str]:
    """Processes that name something below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(home) in command:
            found.append(command)
    return found
