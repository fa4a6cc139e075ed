"""Test 2: the database is corrupted, and a backup that was taken, verified and restored brings it back.

A copy of the backup is damaged before: if the verification does not find that, it proves nothing about the good one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from runbooks import restore_backup, take_backup, verify_backup
from runbooks.backups.damage import How, damage
from runbooks.backups.shipping import discard
from runbooks.drills.ground import DrillRunning, consent, note, noted, own_world, session
from runbooks.engine.plan import Verdict
from runbooks.engine.step import Effect, Ended, Step
from runbooks.model.backup import Manifest, Rung, Tier
from runbooks.model.backup_id import BackupId
from runbooks.model.drill import Check, Test
from runbooks.model.moment import Moment
from runbooks.model.objectives import Measured, Objective
from runbooks.model.record import Record
from runbooks.model.retention import Place
from runbooks.sandbox import incident
from runbooks.sandbox.incident import Print

RESTORED = "drill_restored"
"""The database that the backup is restored into, beside the broken one."""


class BackedUp(Record):
    run_id: str
    backup: BackupId
    verdict: Verdict
    started: Moment
    before: tuple[Print, ...]
    """Every table when the backup was taken; nobody wrote meanwhile."""


class Spoiled(Record):
    damaged: BackupId
    """A copy of the backup, damaged."""
    accident: Moment


class Verified(Record):
    good: Verdict
    damaged: Verdict
    told: str
    """What was said of the damaged one."""


class Restored(Record):
    run_id: str
    verdict: Verdict
    summary: str
    finished: Moment


class CheckedBackup(Record):
    checks: tuple[Check, ...]


def _back_up(running: DrillRunning) -> BackedUp:
    """The real runbook."""
    with session(running) as conn:
        before = incident.all_prints(conn)
    request = take_backup.Request(tier=Tier.DAILY)
    ended = running.nested(2, take_backup.RUNBOOK, request, own_world(running), consent(running))
    taken = ended.results[take_backup.TAKE.name]
    assert isinstance(taken, take_backup.Taken)
    backed_up = BackedUp(
        run_id=str(ended.run_id),
        backup=BackupId.parse(taken.id),
        verdict=ended.ending.verdict,
        started=taken.started,
        before=before,
    )
    return note(running, backed_up)


def _spoil(running: DrillRunning) -> Spoiled:
    backup = running.result(BACK_UP).backup
    damaged = _damaged_copy(running, backup, at=backup.started.utc - timedelta(seconds=1))
    with session(running) as conn:
        accident = incident.now(conn)
        running.note({"damaged": str(damaged), "accident": accident.iso()})
        incident.corrupt(conn)
    return Spoiled(damaged=damaged, accident=accident)


def _damaged_copy(running: DrillRunning, backup: BackupId, *, at: datetime) -> BackupId:
    """The one that a killed attempt made, or a new one."""
    repository, copy = own_world(running).repository, BackupId.new(backup.environment, at)
    if repository.archive.exists(copy.manifest_key):
        return copy
    discard(repository, copy)
    manifest = Manifest.from_bytes(repository.archive.read(backup.manifest_key))
    return damage(repository, manifest, How.FLIP, opener=repository.require_opener(), at=at, tell=running.tell)


def _is_spoiled(running: DrillRunning) -> Spoiled | None:
    if not running.notes:
        return None
    with session(running) as conn:
        if not incident.is_corrupt(conn):
            return None
    note = running.notes[-1]
    accident = Moment.parse(note["accident"], now=running.world.now().utc)
    return Spoiled(damaged=BackupId.parse(note["damaged"]), accident=accident)


def _verify(running: DrillRunning) -> Verified:
    """Both, to the highest rung: a verification that finds nothing wrong with the damaged one is worth nothing."""
    good = _verified(running, 3, running.result(BACK_UP).backup)
    bad = _verified(running, 4, running.result(SPOIL).damaged)
    return Verified(good=good.ending.verdict, damaged=bad.ending.verdict, told="; ".join(bad.ending.left_open)[:300])


def _verified(running: DrillRunning, number: int, backup: BackupId) -> Ended:
    request = verify_backup.Request(backup=backup, last=None, rung=Rung.INTEGRAL, place=Place.ARCHIVE)
    return running.nested(number, verify_backup.RUNBOOK, request, own_world(running), consent(running))


def _restore(running: DrillRunning) -> Restored:
    """The real runbook, into a new database beside the broken one."""
    backup = running.result(BACK_UP).backup
    request = restore_backup.Request(backup=str(backup), to=f"neon/{RESTORED}")
    ended = running.nested(5, restore_backup.RUNBOOK, request, own_world(running), consent(running))
    return Restored(
        run_id=str(ended.run_id),
        verdict=ended.ending.verdict,
        summary=ended.ending.summary,
        finished=Moment.of(ended.finished),
    )


def _check(running: DrillRunning) -> CheckedBackup:
    backed_up, verified, restored = running.result(BACK_UP), running.result(VERIFY), running.result(RESTORE)
    with session(running, RESTORED) as conn:
        now = incident.all_prints(conn)
    unlike = [was.table for was, is_now in zip(backed_up.before, now, strict=True) if was != is_now]
    return CheckedBackup(
        checks=(
            Check(
                claim="the backup was proved when it was taken",
                held=backed_up.verdict is Verdict.PROVED,
                found=f"{backed_up.verdict}: {backed_up.backup}",
            ),
            Check(
                claim="it was restored into a throw-away server, compared, and its rules hold",
                held=verified.good is Verdict.PROVED,
                found=verified.good,
            ),
            Check(
                claim="a damaged copy of it was found to be broken",
                held=verified.damaged is Verdict.FAILED,
                found=f"{verified.damaged}: {verified.told}",
            ),
            Check(
                claim="the restore proved its rows",
                held=restored.verdict is Verdict.PROVED,
                found=f"{restored.verdict}: {restored.summary}",
            ),
            Check(
                claim=f"all {sum(each.rows for each in backed_up.before):,} rows of {len(now)} tables are as they were",
                held=not unlike,
                found=f"different: {', '.join(unlike)}" if unlike else "equal in every column",
            ),
        )
    )


BACK_UP = Step(
    name="back-up",
    effect=Effect.CREATES,
    why="the runbook of every night, on the drill's own database",
    by_hand="invoke run.show with the nested run's id tells where it stopped",
    deadline=timedelta(minutes=15),
    result=BackedUp,
    run=_back_up,
    done=noted(BackedUp),
)
SPOIL = Step(
    name="spoil",
    effect=Effect.DESTROYS,
    why="a copy of the backup is damaged, and the database corrupted: one has to be found out, the other brought back",
    by_hand="start the drill anew; only its own database is broken",
    deadline=timedelta(minutes=5),
    result=Spoiled,
    run=_spoil,
    done=_is_spoiled,
)
VERIFY = Step(
    name="verify",
    effect=Effect.CREATES,
    why="the good one has to pass, and the damaged one must not",
    by_hand="invoke run.show with the nested run's id tells where it stopped",
    deadline=timedelta(minutes=30),
    result=Verified,
    run=_verify,
)
RESTORE = Step(
    name="restore",
    effect=Effect.CREATES,
    why="the runbook of the real incident, into a new database beside the broken one",
    by_hand="invoke run.show with the nested run's id tells where it stopped",
    deadline=timedelta(minutes=30),
    result=Restored,
    run=_restore,
)
CHECK = Step(
    name="check-restored",
    effect=Effect.READS,
    why="compared once more, with what was noted before the corruption and by other means than the restore's own",
    by_hand="start the drill anew",
    deadline=timedelta(minutes=5),
    result=CheckedBackup,
    run=_check,
)


def judged(results: Mapping[str, Record], objective: Objective) -> Test:
    """What test 2 came to. Pure."""
    backed_up, spoiled, restored = results[BACK_UP.name], results[SPOIL.name], results[RESTORE.name]
    checked = results[CHECK.name]
    assert isinstance(backed_up, BackedUp)
    assert isinstance(spoiled, Spoiled)
    assert isinstance(restored, Restored)
    assert isinstance(checked, CheckedBackup)
    complete = all(check.held for check in checked.checks)
    return Test.judged_by(
        objective,
        Measured(
            rto=restored.finished.utc - spoiled.accident.utc,
            rpo=spoiled.accident.utc - backed_up.started.utc if complete else None,
        ),
        scenario="corruption",
        name="Test 2a, restoration of a backup after corruption",
        incident=spoiled.accident,
        moment=backed_up.started,
        recovery_run=restored.run_id,
        checks=checked.checks,
    )
