"""The archive failed while a backup was taken: send the local copy now, and prove what arrived.

It only adds. A copy that is not what its manifest says is named and not sent; what the archive has removed after its
time is not sent again; and until the last file has arrived no manifest does, so half a backup is never taken for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from runbooks.backups.catalog import Catalog, Listed, catalog, local_root, look_at, opening
from runbooks.backups.local import prove_local
from runbooks.backups.prove import prove_by_reading, store
from runbooks.backups.sync import Behind, behind, send
from runbooks.clients.repository import Repository
from runbooks.clients.world import World
from runbooks.engine.plan import Ending, Plan, Preview, Table, Verdict
from runbooks.engine.step import Effect, Run, Runbook, Running, Step
from runbooks.model.backup import Manifest, ProofRecord, Rung, standing
from runbooks.model.backup import Verdict as Proved
from runbooks.model.backup_id import BackupId
from runbooks.model.errors import BloomError, CouldNotVerify, LocalFault, NotFound, Refused
from runbooks.model.metrics import of_proof, of_sync
from runbooks.model.record import Record
from runbooks.model.retention import Place


class Request(Record):
    """Always all of the environment."""


class Unsent(Record):
    """A local backup that the archive does not hold whole."""

    id: BackupId
    tier: str
    stored_size: int
    archived: str
    """What the archive has of it."""
    why_not: str | None
    """Why it is not sent; None: it is."""


class Survey(Record):
    environment: str
    bucket: str
    local: str
    rung: Rung
    """How far what was sent has to be proved."""
    keys: bool
    copies: int
    half: tuple[BackupId, ...]
    """Local ones without a manifest."""
    unsent: tuple[Unsent, ...]


class SyncPlan(Plan):
    about: Survey

    @property
    def sent(self) -> tuple[BackupId, ...]:
        return tuple(one.id for one in self.about.unsent if one.why_not is None)

    @property
    def left(self) -> tuple[Unsent, ...]:
        return tuple(one for one in self.about.unsent if one.why_not is not None)

    def confirmation(self) -> str | None:
        return None  # it only adds to the archive

    def preview(self) -> Preview:
        about = self.about
        going = [one for one in about.unsent if one.why_not is None]
        table = Table(
            title="are sent",
            head=("backup", "tier", "MB", "in the archive"),
            rows=tuple((str(one.id), one.tier, f"{one.stored_size / 1e6:,.1f}", one.archived) for one in going),
        )
        return Preview(
            title=f"send backups of {about.environment} that the archive lacks",
            target=f"{len(going):,} of {about.copies:,} local copies go to bucket {about.bucket}",
            facts=(("from", about.local),),
            tables=(table,) if going else (),
            warnings=tuple(self._warnings()),
            undo="not needed: it only adds to the archive",
        )

    def _warnings(self) -> Iterator[str]:
        yield from (f"{one.id} is NOT sent: {one.why_not}" for one in self.left)
        yield from (
            f"{backup} is half a backup, and so none: its manifest was never written" for backup in self.about.half
        )
        if self.sent and not self.about.keys:
            yield "no private key is given on this machine: what arrives is read again, and not decrypted"


class Outcome(Record):
    backup: BackupId
    left: str | None
    """Why it is not in the archive; None: it is."""


class Sent(Record):
    outcomes: tuple[Outcome, ...]


class Proofs(Record):
    records: tuple[ProofRecord, ...]
    """Of what lies in the archive."""
    failures: tuple[str, ...]
    """What is known against a backup besides, or against its local copy."""
    doubts: tuple[str, ...]
    """What kept the archive from telling all that is known of a backup."""


class Measured(Record):
    names: tuple[str, ...]


def survey(run: Run[World], request: Request) -> Survey:
    """Compares what lies in the local folder with what lies in the archive. NotFound without a local folder."""
    world, repository = run.world, run.world.repository
    folder, policy = local_root(repository), repository.policy
    run.tell(f"reading what backups of {repository.environment} there are, here and in the archive")
    with _failure_told(run, 1):
        local = catalog(repository, Place.LOCAL)
        unsent = [_unsent(one) for one in behind(local, catalog(repository), policy, world.now())]
    return Survey(
        environment=repository.environment,
        bucket=policy.bucket,
        local=str(folder),
        rung=min(Rung(policy.verified_rung), Rung.DECODED),
        keys=repository.opener() is not None,
        copies=len(local.backups),
        half=tuple(one.id for one in local.backups if not one.complete),
        unsent=tuple(unsent),
    )


def _unsent(one: Behind) -> Unsent:
    there = "nothing"
    if one.archived is not None:
        there = one.archived.trouble or f"{one.archived.stored_size / 1e6:,.1f} MB, no manifest"
    return Unsent(
        id=one.local.id,
        tier=one.local.tier or "unknown",
        stored_size=one.local.stored_size,
        archived=there,
        why_not=one.why_not,
    )


def plan(request: Request, survey: Survey) -> SyncPlan:
    return SyncPlan(about=survey)


@contextmanager
def _measured(run: Run[World], plan: SyncPlan) -> Iterator[None]:
    """A run that fails has proved of none that it arrived."""
    with _failure_told(run, max(1, len(plan.about.unsent))):
        yield


@contextmanager
def _failure_told(run: Run[World], left_behind: int) -> Iterator[None]:
    """To the alarms: nobody looks at a sync otherwise."""
    try:
        yield
    except Exception as error:
        repository = run.world.repository
        try:
            repository.metrics.send(of_sync(repository.environment, left_behind, run.world.now()))
        except BloomError as trouble:
            error.add_note(f"besides, the failure could not be measured: {trouble.happened}")
        raise


def _send(running: Running[World, SyncPlan]) -> Sent:
    """One after the other. One that is damaged does not keep the others from being sent."""
    world, repository = running.world, running.world.repository
    noted = {note["backup"] for note in running.notes}
    outcomes = []
    for backup in running.plan.sent:
        left = None
        if not (str(backup) in noted and _is_whole(repository, backup)):
            running.tell(f"{backup}: reading the local copy, then uploading it")
            try:
                send(
                    repository, look_at(repository, backup, Place.LOCAL), by=_by(running), clock=world.now,
                    tell=running.tell,
                )  # fmt: skip
            except (LocalFault, Refused, NotFound) as error:
                left = error.happened
            else:
                running.note({"backup": str(backup)})
        outcomes.append(Outcome(backup=backup, left=left))
    return Sent(outcomes=tuple(outcomes))


def _are_sent(running: Running[World, SyncPlan]) -> Sent | None:
    repository = running.world.repository
    if not all(_is_whole(repository, backup) for backup in running.plan.sent):
        return None
    return Sent(outcomes=tuple(Outcome(backup=backup, left=None) for backup in running.plan.sent))


def _is_whole(repository: Repository, backup: BackupId) -> bool:
    try:
        there = look_at(repository, backup)
    except NotFound:
        return False
    return there.manifest is not None and there.trouble is None


def _prove(running: Running[World, SyncPlan]) -> Proofs:
    """What counts is what lies in the archive; what an earlier attempt has proved stands."""
    records, failures, doubts = [], [], []
    for outcome in running.result(SEND).outcomes:
        if outcome.left is None:
            record, local = _prove_one(running, outcome.backup)
            records.append(record)
            failures += [f"its local copy: {'; '.join(local.details)}"] if local.verdict is not Proved.PASSED else []
            now = look_at(running.world.repository, outcome.backup)
            if (failure := now.standing.failure) is not None and failure != record:
                failures.append(f"{failure.key} says that it is broken: {'; '.join(failure.details)}")
            doubts += [f"{outcome.backup} was sent, and yet {now.trouble}"] if now.trouble is not None else []
    return Proofs(records=tuple(records), failures=tuple(failures), doubts=tuple(doubts))


def _prove_one(running: Running[World, SyncPlan], backup: BackupId) -> tuple[ProofRecord, ProofRecord]:
    """Of the archive, and of the local copy."""
    world, repository = running.world, running.world.repository
    there, here = look_at(repository, backup), look_at(repository, backup, Place.LOCAL)
    manifest = _manifest(there)
    record = _own(running, there)
    if record is None:
        running.tell(f"{backup}: reading it again from the archive")
        record = prove_by_reading(
            opening(repository, backup, Place.ARCHIVE), manifest, repository.opener(), by=_by(running),
            clock=world.now, tell=running.tell,
        )  # fmt: skip
        record = store(repository, manifest.tier, record)
    local = _own(running, here) or prove_local(repository, manifest, record, clock=world.now)
    return record, local


def _manifest(there: Listed, *, alone: bool = True) -> Manifest:
    """CouldNotVerify: it was sent, and cannot be seen; not `alone`: or what else lies there cannot."""
    if there.manifest is None or (there.trouble is not None and not alone):
        raise CouldNotVerify(
            f"{there.id} was sent, and {there.trouble or 'its manifest is not there any more'}",
            safe="the local copy is as it was",
            next_step="if the archive answers, find out who deletes from it; then: invoke backup.sync",
        )
    return there.manifest


def _own(running: Running[World, SyncPlan], listed: Listed) -> ProofRecord | None:
    return next((proof for proof in listed.proofs if proof.by == _by(running)), None)


def _by(running: Running[World, SyncPlan]) -> str:
    return f"{RUNBOOK.name} {running.id} by {running.world.operator}"


def _measure(running: Running[World, SyncPlan]) -> Measured:
    world, repository = running.world, running.world.repository
    proofs = running.result(PROVE)
    metrics = of_sync(repository.environment, len(_left_behind(running.plan, running.results)), world.now())
    known = catalog(repository) if proofs.records else Catalog((), (), 0)
    at_least = Rung(repository.policy.verified_rung)
    for record in proofs.records:
        there = known.get(record.backup)
        if there.trouble is not None and proofs.doubts:
            continue  # whoever cannot read all proofs tells of no success; the ending says why
        earlier = tuple(proof for proof in there.proofs if proof != record)
        manifest = _manifest(there, alone=False)
        sizes = known.sizes_before(manifest.id.started, manifest.tier, at_least)
        metrics += of_proof(manifest, record, earlier, at_least, sizes)
    repository.metrics.send(metrics)
    return Measured(names=tuple(metric.name for metric in metrics))


SEND: Step[World, SyncPlan, Sent] = Step(
    name="send",
    effect=Effect.CREATES,
    why="each copy is read and compared with its manifest before anything of it is sent; the manifest goes last",
    by_hand="aws s3 cp the files of each backup, with the tags of its tier, and manifest.json last",
    deadline=timedelta(days=8),
    result=Sent,
    run=_send,
    done=_are_sent,
)
PROVE: Step[World, SyncPlan, Proofs] = Step(
    name="prove",
    effect=Effect.CREATES,
    why="what counts is what lies in the archive: it is read again, and decrypted where a private key is",
    by_hand="invoke backup.verify with each backup's id, where a private key is",
    deadline=timedelta(days=2),
    result=Proofs,
    run=_prove,
)
MEASURE: Step[World, SyncPlan, Measured] = Step(
    name="measure",
    effect=Effect.CREATES,
    why="the alarms hear how many were left behind, and of a backup that is there now",
    by_hand="nothing: the backups are there",
    deadline=timedelta(minutes=10),
    result=Measured,
    run=_measure,
)


def _left_behind(plan: SyncPlan, results: Mapping[str, Record]) -> tuple[str, ...]:
    """A sentence for each local backup without its equal in the archive."""
    sent, proofs = results[SEND.name], results[PROVE.name]
    assert isinstance(sent, Sent)
    assert isinstance(proofs, Proofs)
    return (
        *(f"{one.id} is not sent: {one.why_not}" for one in plan.left),
        *(f"{one.backup} could not be sent: {one.left}" for one in sent.outcomes if one.left is not None),
        *(
            f"{record.backup} is not in the archive what it is here: {'; '.join(record.details)}"
            for record in proofs.records
            if record.verdict is not Proved.PASSED
        ),
    )


def ending(plan: SyncPlan, results: Mapping[str, Record]) -> Ending:
    """PROVED if all that was behind was sent, read again in the archive, and decrypted there."""
    sent, proofs = results[SEND.name], results[PROVE.name]
    assert isinstance(sent, Sent)
    assert isinstance(proofs, Proofs)
    left, about = _left_behind(plan, results), plan.about
    unproved = tuple(
        f"{record.backup} arrived as it is here, but is proved to rung {int(record.rung)} only; "
        f"where a private key is: invoke backup.verify --id {record.backup}"
        for record in proofs.records
        if record.verdict is Proved.PASSED and record.rung < about.rung
    )
    arrived = sum(standing((record,)).proved(Rung.REREAD) for record in proofs.records)
    verdict = Verdict.PROVED if proofs.records else Verdict.NOTHING_MISSING
    if unproved or proofs.doubts:
        verdict = Verdict.COULD_NOT_VERIFY
    if left:
        verdict = Verdict.INCOMPLETE
    if proofs.failures or any(record.verdict is Proved.FAILED for record in proofs.records):
        verdict = Verdict.FAILED
    return Ending(
        verdict=verdict,
        summary=f"{arrived:,} of {len(about.unsent):,} backups that the archive lacked are there now"
        if about.unsent
        else f"the archive holds every whole backup that is in {about.local}",
        facts=(("local copies", f"{about.copies:,}"), ("half ones, not sent", f"{len(about.half):,}")),
        left_open=(*left, *proofs.failures, *proofs.doubts, *unproved),
    )


RUNBOOK: Runbook[World, Request, Survey, SyncPlan] = Runbook(
    name="backup.sync",
    symptom="an upload failed, and a backup is only on the machine that took it",
    may_be_lost="nothing: it only adds to the archive",
    takes="as long as the upload, and reading it once more",
    request=Request,
    survey_type=Survey,
    plan_type=SyncPlan,
    survey=survey,
    plan=plan,
    steps=(SEND, PROVE, MEASURE),
    ending=ending,
    guard=_measured,
    page="sync-backups",
)
