"""Is a backup good? Read it again, restore it into a throw-away PostgreSQL, compare it, try its rules; store the proof.

Nothing can be lost: backups are only read, and each proof is a new object beside its backup. Half backups and such as
cannot be read are named, never skipped. What could not be verified is no pass and no failure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial

from runbooks.backups.catalog import Catalog, Listed, catalog, local_root, look_at
from runbooks.backups.ladder import climb
from runbooks.backups.prove import store
from runbooks.backups.workspace import workspace
from runbooks.clients.archive_types import Readable
from runbooks.clients.repository import KEYS, Repository
from runbooks.clients.world import World
from runbooks.engine.plan import Ending, Plan, Preview, Table, Verdict
from runbooks.engine.step import Effect, Run, Runbook, Running, Step
from runbooks.model.backup import ProofRecord, Rung, Tier, standing
from runbooks.model.backup import Verdict as Proved
from runbooks.model.backup_id import BackupId
from runbooks.model.duration import spell
from runbooks.model.errors import NotFound, UsageFault
from runbooks.model.metrics import of_proof
from runbooks.model.moment import Moment
from runbooks.model.record import Record
from runbooks.model.retention import Place

_MOST = 1000


class Request(Record):
    backup: BackupId | None
    last: int | None
    """So many of the newest; exactly one of the two is given."""
    rung: Rung
    place: Place

    @classmethod
    def parse(cls, backup: str, *, latest: bool, last: str, rung: str, local: bool) -> Request:
        """Empty texts: not given. Raises UsageFault."""
        if [bool(backup), latest, bool(last)].count(True) != 1:
            raise UsageFault(
                "exactly one of a backup's id, --latest and --last N says which backups are meant",
                safe="nothing was started",
                next_step="invoke backup.verify --latest; what there is tells: invoke backup.list",
            )
        count = 1 if latest else _number(last, "--last", 1, _MOST) if last else None
        return cls(
            backup=BackupId.parse(backup) if backup else None,
            last=count,
            rung=Rung(_number(rung or str(int(max(Rung))), "--rung", 1, max(Rung))),
            place=Place.LOCAL if local else Place.ARCHIVE,
        )


def _number(text: str, flag: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise UsageFault(
            f"{flag} {text!r} is not a whole number from {least} to {most}",
            safe="nothing was started",
            next_step="see what the numbers mean: invoke --help backup.verify",
        )
    return int(text)


class Chosen(Record):
    """One backup that is to be proved, as it was found."""

    id: BackupId
    tier: Tier | None
    stored_size: int
    proved: Rung
    broken: bool
    """A proof says so."""
    trouble: str | None
    cold: str | None
    """How it can be had, if it cannot be read now."""

    def row(self) -> tuple[str, ...]:
        known = "BROKEN, says a proof" if self.broken else _rung(self.proved)
        return str(self.id), self.tier or "unknown", f"{self.stored_size / 1e6:,.1f}", known


class Survey(Record):
    environment: str
    where: str
    keys: bool
    """Whether a private key is given on this machine."""
    chosen: tuple[Chosen, ...]
    """Newest first."""
    half: tuple[BackupId, ...]
    """Without a manifest, and no older than the oldest that is chosen."""


class VerifyPlan(Plan):
    rung: Rung
    place: Place
    last: int | None
    about: Survey

    def confirmation(self) -> str | None:
        return None  # it only reads, and adds proofs

    def preview(self) -> Preview:
        about = self.about
        return Preview(
            title=f"prove {len(about.chosen)} backups of {about.environment} up to rung {_rung(self.rung)}",
            target=f"new proofs, each beside its backup in {about.where}",
            facts=(
                ("what is done", _DONE[self.rung]),
                ("to be read", f"{sum(one.stored_size for one in about.chosen) / 1e6:,.1f} MB"),
            ),
            tables=(
                Table(
                    title="backups, in this order",
                    head=("backup", "tier", "MB", "proved"),
                    rows=tuple(one.row() for one in about.chosen),
                ),
            ),
            warnings=tuple(self._warnings()),
            undo="not needed: backups are only read",
        )

    def _warnings(self) -> Iterator[str]:
        about = self.about
        if self.last is not None and len(about.chosen) < self.last:
            yield f"there are only {len(about.chosen)} of the {self.last} that were asked for"
        if not about.keys and self.rung > Rung.REREAD:
            yield f"no private key is given on this machine ({KEYS}): nothing can be proved beyond rung 1"
        yield from (f"{backup} {_HALF}" for backup in about.half)
        yield from (f"{one.id}: {one.trouble}" for one in about.chosen if one.trouble)
        yield from (f"{one.id} cannot be read now: {one.cold}" for one in about.chosen if one.cold)


_DONE: Mapping[Rung, str] = {
    Rung.UPLOADED: "nothing",
    Rung.REREAD: "every byte is read and hashed",
    Rung.DECODED: "read, decrypted and decoded to the last block",
    Rung.RESTORED: "read, and restored into a throw-away PostgreSQL on this machine",
    Rung.EQUAL: "restored, and every row compared with the inventory of the dump's own snapshot",
    Rung.INTEGRAL: "restored, compared, and keys, constraints and the policy's assertions tried",
}
_HALF = "is half a backup: its manifest was never written (or it is being taken just now)"


class Outcome(Record):
    """What one backup came to."""

    backup: BackupId
    rung: Rung
    verdict: Proved
    details: tuple[str, ...]
    seconds: float
    proofs: tuple[str, ...]
    """Keys of what was stored; none if nothing could be looked at."""
    standing_failure: str | None
    """What an earlier proof says that this one did not come far enough to refute."""
    trouble: str | None
    """What else is wrong with what lies there, as the catalog sees it."""


class Proofs(Record):
    outcomes: tuple[Outcome, ...]


class Measured(Record):
    names: tuple[str, ...]


def survey(run: Run[World], request: Request) -> Survey:
    """Reads the catalog, or what lies there of the one backup. NotFound if there is none."""
    repository = run.world.repository
    keys = repository.opener() is not None
    if request.backup is not None:
        if request.backup.environment != repository.environment:
            raise UsageFault(
                f"{request.backup} is a backup of {request.backup.environment}, and this is {repository.environment}",
                safe="nothing was started",
                next_step=f"invoke backup.verify --id {request.backup} --env {request.backup.environment}",
            )
        listed = [look_at(repository, request.backup, request.place)]
    else:
        run.tell(f"reading what backups of {repository.environment} there are")
        listed = _newest(catalog(repository, request.place).backups, request.last or 1)
    if not any(one.complete for one in listed):
        raise NotFound(
            f"there is no whole backup in {_where(repository, request.place)}"
            + (f"; {', '.join(str(one.id) for one in listed)} {_HALF}" if listed else ""),
            safe="nothing was changed",
            next_step="invoke backup.take --tier daily, then prove it",
        )
    return Survey(
        environment=repository.environment,
        where=_where(repository, request.place),
        keys=keys,
        chosen=tuple(_chosen(one) for one in listed if one.complete),
        half=tuple(one.id for one in listed if not one.complete),
    )


def _newest(backups: tuple[Listed, ...], count: int) -> list[Listed]:
    """The newest `count` whole ones, newest first, and the half ones among them."""
    found: list[Listed] = []
    for one in reversed(backups):
        if sum(each.complete for each in found) == count:
            break
        found.append(one)
    return found


def _chosen(one: Listed) -> Chosen:
    return Chosen(
        id=one.id,
        tier=one.tier,
        stored_size=one.stored_size,
        proved=one.standing.rung,
        broken=one.standing.failure is not None,
        trouble=one.trouble,
        cold=_cold(one),
    )


def _cold(one: Listed) -> str | None:
    if isinstance(one.access, Readable):
        return None
    takes = spell(one.access.takes)
    return (
        f"its files are in {one.storage_class}, and a thaw takes up to {takes}; "
        f"this asks for it, and tells whether it is under way: invoke backup.restore {one.id} --to TARGET"
    )


def _where(repository: Repository, place: Place) -> str:
    if place is Place.LOCAL:
        return str(local_root(repository))
    return f"bucket {repository.policy.bucket}"


def plan(request: Request, survey: Survey) -> VerifyPlan:
    return VerifyPlan(rung=request.rung, place=request.place, last=request.last, about=survey)


def _prove(running: Running[World, VerifyPlan]) -> Proofs:
    """One after the other. What an earlier attempt has proved, and whose proof is there, is not proved again."""
    earlier = {outcome.backup: outcome for outcome in _noted(running)}
    outcomes = []
    for one in running.plan.about.chosen:
        outcome = earlier.get(one.id) or _prove_one(running, one.id)
        outcomes.append(outcome)
    return Proofs(outcomes=tuple(outcomes))


def _are_proved(running: Running[World, VerifyPlan]) -> Proofs | None:
    found = {outcome.backup: outcome for outcome in _noted(running)}
    wanted = [one.id for one in running.plan.about.chosen]
    return Proofs(outcomes=tuple(found[each] for each in wanted)) if found.keys() >= {*wanted} else None


def _noted(running: Running[World, VerifyPlan]) -> Iterator[Outcome]:
    """Outcomes of earlier attempts, whose proofs are still there."""
    repository, place = running.world.repository, running.plan.place
    for note in running.notes:
        outcome = Outcome.model_validate(note)
        if all(_exists(repository, place, key) for key in outcome.proofs):
            yield outcome


def _exists(repository: Repository, place: Place, key: str) -> bool:
    if place is Place.LOCAL:
        return (local_root(repository) / key).is_file()
    return repository.archive.exists(key)


def _prove_one(running: Running[World, VerifyPlan], backup: BackupId) -> Outcome:
    world, wanted = running.world, running.plan
    repository = world.repository
    listed = look_at(repository, backup, wanted.place)
    if listed.manifest is None or (cold := _cold(listed)) is not None:
        why = (listed.trouble or f"it {_HALF}") if listed.manifest is None else str(cold)
        return Outcome(
            backup=backup, rung=Rung.UPLOADED, verdict=Proved.COULD_NOT_VERIFY, details=(why,), seconds=0, proofs=(),
            standing_failure=None, trouble=None,
        )  # fmt: skip
    tell = partial(_tell, running, backup)
    tell(f"{_DONE[wanted.rung]}; {listed.manifest.stored_size / 1e6:,.1f} MB")
    with workspace() as folder:
        records = climb(
            repository, listed.manifest, up_to=wanted.rung, opener=repository.opener(), place=wanted.place,
            workspace=folder, by=f"{RUNBOOK.name} {running.id} by {world.operator}", clock=world.now, tell=tell,
        )  # fmt: skip
    stored: list[ProofRecord] = []
    for record in records:
        later = _after((*listed.proofs, *stored), record)
        stored.append(store(repository, listed.manifest.tier, later, wanted.place))
    failure = standing((*listed.proofs, *stored)).failure
    outcome = Outcome(
        backup=backup,
        rung=stored[-1].rung,
        verdict=stored[-1].verdict,
        details=stored[-1].details,
        seconds=stored[-1].seconds,
        proofs=tuple(record.key for record in stored),
        standing_failure=None
        if failure is None or failure in stored
        else f"{failure.key}: {'; '.join(failure.details)}",
        trouble=listed.trouble,
    )
    running.note(outcome.as_json())
    return outcome


def _after(earlier: tuple[ProofRecord, ...], record: ProofRecord) -> ProofRecord:
    """Dated behind all of them: a clock that went back must not let an older proof refute this one."""
    last = max((proof.at for proof in earlier), default=None)
    if last is None or record.at > last:
        return record
    return record.model_copy(update={"at": Moment.of(last.utc + timedelta(seconds=1))})


def _tell(running: Running[World, VerifyPlan], backup: BackupId, text: str) -> None:
    running.tell(f"{backup}: {text}")


def _measure(running: Running[World, VerifyPlan]) -> Measured:
    """Of backups in the archive only: what is proved of a local copy says nothing about the other one."""
    repository = running.world.repository
    at_least = Rung(repository.policy.verified_rung)
    outcomes = [one for one in running.result(PROVE).outcomes if one.proofs and running.plan.place is Place.ARCHIVE]
    known = catalog(repository) if outcomes else Catalog((), (), 0)
    names: list[str] = []
    for outcome in outcomes:
        listed = known.get(outcome.backup)
        if listed.manifest is None:
            continue
        sizes = known.sizes_before(listed.id.started, listed.manifest.tier, at_least)
        before = tuple(proof for proof in listed.proofs if proof.key not in outcome.proofs)
        for proof in (each for each in listed.proofs if each.key in outcome.proofs):
            metrics = of_proof(listed.manifest, proof, before, at_least, sizes)
            repository.metrics.send(metrics)
            names += [metric.name for metric in metrics]
            before += (proof,)
    return Measured(names=tuple(names))


PROVE: Step[World, VerifyPlan, Proofs] = Step(
    name="prove",
    effect=Effect.CREATES,
    why="each backup climbs the proof ladder; how far it came is stored beside it before the next one begins",
    by_hand="decrypt the files with age or gpg, pg_restore them into an empty database, and count",
    deadline=timedelta(days=8),
    result=Proofs,
    run=_prove,
    done=_are_proved,
)
MEASURE: Step[World, VerifyPlan, Measured] = Step(
    name="measure",
    effect=Effect.CREATES,
    why="the alarms hear of every attempt, and of a success only with its proof",
    by_hand="nothing: the proofs are stored",
    deadline=timedelta(minutes=30),
    result=Measured,
    run=_measure,
)


def ending(plan: VerifyPlan, results: Mapping[str, Record]) -> Ending:
    """PROVED if every backup that was asked for reached the rung, and nothing else is known against one."""
    proofs = results[PROVE.name]
    assert isinstance(proofs, Proofs)
    good = [one for one in proofs.outcomes if one.verdict is Proved.PASSED and one.rung >= plan.rung]
    failed = any(one.verdict is Proved.FAILED or one.standing_failure for one in proofs.outcomes)
    left_open = tuple(_left_open(plan, proofs.outcomes))
    seconds = sum(one.seconds for one in proofs.outcomes)
    return Ending(
        verdict=Verdict.FAILED if failed else Verdict.COULD_NOT_VERIFY if left_open else Verdict.PROVED,
        summary=f"{len(good)} of {len(proofs.outcomes)} backups reached rung {_rung(plan.rung)} in {seconds:,.1f} s",
        facts=tuple(
            (_when(one.backup), f"{one.backup}: rung {_rung(one.rung)}, {one.verdict}") for one in proofs.outcomes
        ),
        left_open=left_open,
    )


def _left_open(plan: VerifyPlan, outcomes: tuple[Outcome, ...]) -> Iterator[str]:
    for one in outcomes:
        if one.verdict is Proved.FAILED:
            yield f"{one.backup} is BROKEN beyond rung {_rung(one.rung)}: {'; '.join(one.details)}"
        elif one.verdict is Proved.COULD_NOT_VERIFY or one.rung < plan.rung:
            yield f"{one.backup} could not be verified beyond rung {_rung(one.rung)}: {'; '.join(one.details)}"
        elif one.trouble:
            yield f"{one.backup} passed, and yet {one.trouble}"
        if one.standing_failure:
            yield f"{one.backup} is known to be broken, and this proof is of a lower rung: {one.standing_failure}"
    yield from (f"{backup} {_HALF}" for backup in plan.about.half)


def _when(backup: BackupId) -> str:
    return f"{backup.started.utc:%Y-%m-%d %H:%M:%S} UTC"


def _rung(rung: Rung) -> str:
    return f"{int(rung)} ({rung.name.lower()})"


RUNBOOK: Runbook[World, Request, Survey, VerifyPlan] = Runbook(
    name="backup.verify",
    symptom="somebody has to know whether a backup can be relied on",
    may_be_lost="nothing: backups are only read; each proof is a new object",
    takes="to rung 5 about as long as restoring it by hand; rungs 1 and 2 as long as reading it",
    request=Request,
    survey_type=Survey,
    plan_type=VerifyPlan,
    survey=survey,
    plan=plan,
    steps=(PROVE, MEASURE),
    ending=ending,
    page="verify-backup",
)
