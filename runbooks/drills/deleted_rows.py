"""Test 1: clients deleted by accident come back from the history, while the application goes on writing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from runbooks import accidental_delete
from runbooks.drills.ground import DrillRunning, consent, note, noted, on, own_world, session
from runbooks.engine.plan import Verdict
from runbooks.engine.step import Effect, Step
from runbooks.model.drill import Check, Test
from runbooks.model.moment import Moment
from runbooks.model.objectives import Measured, Objective
from runbooks.model.record import Record
from runbooks.sandbox import incident
from runbooks.sandbox.incident import Planted
from runbooks.sandbox.writer import Writer


class Broken(Record):
    planted: Planted


class Recovered(Record):
    run_id: str
    verdict: Verdict
    summary: str
    finished: Moment
    writes: int
    """Transactions that the application committed while the recovery ran."""
    lost_writes: tuple[str, ...]


class Compared(Record):
    checks: tuple[Check, ...]


def _break(running: DrillRunning) -> Broken:
    with session(running) as conn, Writer(on(running).dsn) as writer:
        writer.wait_for(5)
        planted = incident.plant(conn)
        running.note({"planted": planted.as_json()})
        incident.strike(conn, planted)
        incident.after(conn, planted)
        writer.wait_for(len(writer.acknowledged) + 5)
    return Broken(planted=planted)


def _is_broken(running: DrillRunning) -> Broken | None:
    if not running.notes:
        return None
    planted = Planted.model_validate(running.notes[-1]["planted"])
    with session(running) as conn:
        struck = incident.bystander_is_there(conn, planted)
    return Broken(planted=planted) if struck else None


def _recover(running: DrillRunning) -> Recovered:
    """The real runbook on the drill's own target, while the application goes on writing."""
    planted = running.result(BREAK).planted
    ground = on(running)
    request = accidental_delete.Request(at=planted.moment, tables=("clients",))
    with Writer(ground.dsn) as writer, running.world.connect(ground.dsn, application_name="bloom-dr drill") as conn:
        writer.wait_for(1)
        ended = running.nested(1, accidental_delete.RUNBOOK, request, own_world(running), consent(running))
        writer.wait_for(len(writer.acknowledged) + 5)
        lost = writer.verify(conn)
        writes = len(writer.acknowledged)
    recovered = Recovered(
        run_id=str(ended.run_id),
        verdict=ended.ending.verdict,
        summary=ended.ending.summary,
        finished=Moment.of(ended.finished),
        writes=writes,
        lost_writes=lost,
    )
    # Once it is noted, the application does not write again: test 2 counts on what it has seen.
    return note(running, recovered)


def _compare(running: DrillRunning) -> Compared:
    planted, recovered = running.result(BREAK).planted, running.result(RECOVER)
    with session(running) as conn:
        now = incident.prints(conn, planted.tag)
        checks = [
            Check(
                claim=f"{was.rows} rows of {was.table} are back, equal in every column",
                held=was == is_now,
                found=f"{is_now.rows} rows, {'equal' if was.md5 == is_now.md5 else 'different'}",
            )
            for was, is_now in zip(planted.before, now, strict=True)
        ]
        too_late, bystander = incident.too_late_is_there(conn, planted), incident.bystander_is_there(conn, planted)
        mails, referred = incident.mails(conn, planted), incident.friend_is_referred(conn, planted)
    booked = next(each.rows for each in planted.before if each.table == "reservations")
    checks += [
        Check(
            claim="the client made after that moment did not come back",
            held=not too_late,
            found="present" if too_late else "absent",
        ),
        Check(
            claim="the client made after the accident is still there",
            held=bystander,
            found="present" if bystander else "absent",
        ),
        Check(
            claim="the pointer that the delete cleared in a row that stayed is set again",
            held=referred,
            found="set" if referred else "empty",
        ),
        Check(claim="no mail was queued a second time", held=mails == booked, found=f"{mails} mails for {booked}"),
        Check(
            claim="every write that the application committed meanwhile is still there",
            held=recovered.writes > 0 and not recovered.lost_writes,
            found=f"{recovered.writes} writes, {len(recovered.lost_writes)} lost",
        ),
        Check(
            claim="the recovery proved its rows",
            held=recovered.verdict is Verdict.PROVED,
            found=f"{recovered.verdict}: {recovered.summary}",
        ),
    ]
    return Compared(checks=tuple(checks))


BREAK = Step(
    name="break",
    effect=Effect.DESTROYS,
    why="the moment and the rows are journalled before the delete, so that nothing is compared with guesses",
    by_hand="start the drill anew; only its own database is broken",
    deadline=timedelta(minutes=2),
    result=Broken,
    run=_break,
    done=_is_broken,
)
RECOVER = Step(
    name="recover",
    effect=Effect.CREATES,
    why="the runbook of the real incident, with consent, while the application goes on writing",
    by_hand="invoke run.show with the nested run's id tells where it stopped",
    deadline=timedelta(minutes=30),
    result=Recovered,
    run=_recover,
    done=noted(Recovered),
)
COMPARE = Step(
    name="compare",
    effect=Effect.READS,
    why="both sides of the moment: what was there is back, what came later is untouched",
    by_hand="start the drill anew",
    deadline=timedelta(minutes=2),
    result=Compared,
    run=_compare,
)


def judged(results: Mapping[str, Record], objective: Objective) -> Test:
    """What test 1 came to. Pure."""
    broken, recovered, compared = results[BREAK.name], results[RECOVER.name], results[COMPARE.name]
    assert isinstance(broken, Broken)
    assert isinstance(recovered, Recovered)
    assert isinstance(compared, Compared)
    planted = broken.planted
    complete = all(check.held for check in compared.checks)
    measured = Measured(
        rto=recovered.finished.utc - planted.accident.utc,
        # What was committed last before the moment is back; everything later about these clients is lost.
        rpo=planted.accident.utc - planted.last_commit.utc if complete else None,
    )
    return Test.judged_by(
        objective,
        measured,
        scenario="accidental-delete",
        name="Test 1, point-in-time recovery of rows deleted by accident",
        incident=planted.accident,
        moment=planted.moment,
        recovery_run=recovered.run_id,
        checks=compared.checks,
    )
