"""For each runbook an incident that it cures, and what has to be true at the end, however often it was killed."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from runbooks import accidental_delete, drill, find_moment, undo_recovery
from runbooks.backups.drill_records import drills
from runbooks.clients.metrics import Inbox
from runbooks.clients.repository import Repository
from runbooks.engine.plan import Verdict
from runbooks.engine.step import Ended
from runbooks.model.metrics import Metric
from runbooks.model.moment import Moment
from runbooks.rows.predicate import Predicate
from runbooks.sandbox import incident
from runbooks.sandbox.incident import Planted
from tests.runbooks.backup_scenarios import BACKUP_SCENARIOS
from tests.runbooks.ground import Facts
from tests.runbooks.scenario import YES, Scenario


class DeletedRows(Scenario):
    runbook = accidental_delete.RUNBOOK

    def prepare(self, facts: Facts) -> accidental_delete.Request:
        self.planted = struck(facts)
        return accidental_delete.Request(at=self.planted.moment, tables=("clients",))

    def check(self, facts: Facts, ended: Ended) -> None:
        assert ended.ending.verdict is Verdict.PROVED, ended.ending
        assert_recovered(facts, self.planted)
        assert not {name for name in facts.branch_names() if name.startswith("bloom-dr-")}


class LossAtAnUnknownMoment(Scenario):
    runbook = find_moment.RUNBOOK
    asks = False  # it touches nothing but what it makes
    every = 3

    def prepare(self, facts: Facts) -> find_moment.Request:
        self.planted = struck(facts)
        with facts.session() as conn:
            self.until = incident.now(conn)
        predicate = Predicate.parse("clients", f"email LIKE 'victim-%{self.planted.tag}'", "", "")
        return find_moment.Request(since=self.planted.moment, until=self.until, predicate=predicate)

    def check(self, facts: Facts, ended: Ended) -> None:
        assert ended.ending.verdict is Verdict.PROVED, ended.ending
        found = ended.results["narrow-down"]
        assert isinstance(found, find_moment.Located)
        assert self.planted.accident.utc <= found.first_bad.utc + find_moment.MILLISECOND
        assert found.last_good < found.first_bad <= self.until
        assert [probe.number for probe in found.probes] == list(range(1, len(found.probes) + 1))
        assert facts.branch_names() == {"main"}


class UndoneRecovery(Scenario):
    runbook = undo_recovery.RUNBOOK

    def prepare(self, facts: Facts) -> undo_recovery.Request:
        self.planted = struck(facts)
        request = accidental_delete.Request(at=self.planted.moment, tables=("clients",))
        ended = facts.engine().start(accidental_delete.RUNBOOK, request, facts.world(), YES)
        assert_recovered(facts, self.planted)
        with facts.session() as conn:
            conn.execute(
                "UPDATE clients SET phone = 'kept' WHERE id = (SELECT min(id) FROM clients WHERE email LIKE %s)",
                (f"victim-%{self.planted.tag}",),
            )
        return undo_recovery.Request(recovery=str(ended.run_id))

    def check(self, facts: Facts, ended: Ended) -> None:
        # One client was changed since, so it stays, and so do the rows that it needs nothing of: only it is left.
        assert ended.ending.verdict is Verdict.INCOMPLETE, ended.ending
        with facts.session() as conn:
            left = conn.execute(
                "SELECT phone FROM clients WHERE email LIKE %s", (f"victim-%{self.planted.tag}",)
            ).fetchall()
            assert left == [("kept",)]
            assert incident.bystander_is_there(conn, self.planted)


class QuarterlyDrill(Scenario):
    runbook = drill.RUNBOOK
    asks = False  # it touches nothing but what it makes
    # What it does to a database is the runbooks' inside, which are killed everywhere on their own.
    kills = ("journal", "report")
    every = 9
    for_ = "staging"
    """The environment that it counts for: none of its own."""

    def prepare(self, facts: Facts) -> drill.Request:
        where = facts.repository_of(self.for_)
        for each in list(where.archive.objects(f"{self.for_}/")):  # of an earlier kill, whose run had the same id
            where.archive.delete(each.key)
        self.sent = len(sent_of_drills(where))
        return drill.Request(clients=100, counts_for=self.for_)

    def check(self, facts: Facts, ended: Ended) -> None:
        assert ended.ending.verdict is Verdict.PROVED, ended.ending
        report = json.loads((ended.folder / "drill.json").read_text())
        assert [test["result"] for test in report["tests"]] == ["PASS", "PASS"]
        assert all(check["held"] for test in report["tests"] for check in test["checks"])
        assert not list(drill.default_root().parent.glob(f"bloom-dr-drill-{ended.run_id}*"))
        where = facts.repository_of(self.for_)
        lying = {each.key: where.archive.read(each.key) for each in where.archive.objects(f"{self.for_}/")}
        folder = f"{self.for_}/drills/{ended.run_id}"
        assert lying == {f"{folder}/{name}": (ended.folder / name).read_bytes() for name in ("drill.json", "drill.md")}
        newest = drills(where, Moment.of(datetime.now(UTC))).newest
        assert newest is not None
        assert newest.run_id == str(ended.run_id)
        # A kill may have come between sending and its line in the journal: they are sent again, and say the same.
        told = {(metric.name, metric.dimensions): metric for metric in sent_of_drills(where)[self.sent :]}
        assert {metric.value for metric in told.values() if metric.name == "DrillSuccess"} == {1}
        assert sorted(name for name, _ in told) == ["DrillRPO", "DrillRPO", "DrillRTO", "DrillRTO", "DrillSuccess"]


def sent_of_drills(where: Repository) -> list[Metric]:
    assert isinstance(where.metrics, Inbox)
    return [metric for metric in where.metrics.read() if metric.name.startswith("Drill")]


SCENARIOS: dict[str, type[Scenario]] = {
    kind.runbook.name: kind
    for kind in (DeletedRows, LossAtAnUnknownMoment, UndoneRecovery, QuarterlyDrill, *BACKUP_SCENARIOS)
}


def struck(facts: Facts) -> Planted:
    """A new accident on production: planted, deleted, and somebody goes on working."""
    with facts.session() as conn:
        planted = incident.plant(conn)
        incident.strike(conn, planted)
        incident.after(conn, planted)
    return planted


def assert_recovered(facts: Facts, planted: Planted) -> None:
    with facts.session() as conn:
        assert incident.prints(conn, planted.tag) == planted.before
        assert not incident.too_late_is_there(conn, planted)
        assert incident.bystander_is_there(conn, planted)
        assert incident.friend_is_referred(conn, planted)
        booked = next(each.rows for each in planted.before if each.table == "reservations")
        assert incident.mails(conn, planted) == booked
