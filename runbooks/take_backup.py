"""A backup is due, or a migration is about to run: take one, outside of Neon, and prove what lies in the archive.

Nothing can be lost: the database is only read, and nothing in the archive is replaced. Until the last file is there no
manifest is, and without one there is no backup. The writer has no private key; to prove its own work it also seals to a
key that it makes for this run and forgets with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from time import sleep

from runbooks.backups.catalog import Listed, catalog, look_at, opening
from runbooks.backups.local import prove_local
from runbooks.backups.prove import prove_by_reading, store
from runbooks.backups.shipping import Order, discard
from runbooks.backups.take import take
from runbooks.backups.workspace import workspace, workspace_root
from runbooks.clients.archive_types import Posture
from runbooks.clients.dump_preflight import client_for, preflight
from runbooks.clients.postgres import Expected, prove
from runbooks.clients.postgres_lock import BACKUP, hold_lock
from runbooks.clients.repository import Repository
from runbooks.clients.seal import KeyPair
from runbooks.clients.world import World
from runbooks.engine.deadline import deadline
from runbooks.engine.plan import Ending, Plan, Preview, Verdict
from runbooks.engine.step import Effect, Run, Runbook, Running, Step
from runbooks.model.backup import Manifest, ProofRecord, Rung, Tier
from runbooks.model.backup import Verdict as Proved
from runbooks.model.backup_id import BackupId
from runbooks.model.dsn import Dsn
from runbooks.model.errors import BloomError, LocalFault, LockHeld, Refused, UsageFault
from runbooks.model.metrics import MOST_SIZES, of_failed_backup, of_proof
from runbooks.model.moment import Moment
from runbooks.model.record import Record
from runbooks.model.retention import Place
from runbooks.model.variables import missing

BRANCH_SPARE = timedelta(hours=1)
"""A branch to dump from lives so much longer than a backup may take, in case nobody is left to remove it."""


class Request(Record):
    tier: Tier

    @classmethod
    def parse(cls, tier: str) -> Request:
        """Raises UsageFault."""
        known = [each.value for each in Tier]
        if tier not in known:
            raise UsageFault(
                f"{tier!r} is not a tier of backups" if tier else "no --tier says what kind of backup it is",
                safe="nothing was started",
                next_step=f"choose one of: {', '.join(f'invoke backup.take --tier {each}' for each in known)}",
            )
        return cls(tier=Tier(tier))


class Survey(Record):
    """What a backup will meet, before anything is stored."""

    environment: str
    zone: str
    project: str
    branch: str
    branch_name: str
    database: str
    role: str
    server_version: str
    client: str
    bytes: int
    tables: int
    notes: tuple[str, ...]
    recipients: tuple[str, ...]
    bucket: str
    endpoint: str | None
    storage_class: str
    lock_mode: str | None
    lock_days: int | None
    from_branch: bool
    local: str | None
    versioned: bool | None
    object_lock: bool | None
    public_access_blocked: bool | None
    unseen: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    """Of the last verified backups of the tier, oldest first: what the alarms compare the new one's size with."""


class BackupPlan(Plan):
    tier: Tier
    about: Survey
    warnings: tuple[str, ...]

    def confirmation(self) -> str | None:
        return None  # it only reads the database, and adds to the archive

    def preview(self) -> Preview:
        about = self.about
        lock = f"{about.lock_mode} for {about.lock_days} days" if about.lock_mode else "none"
        facts = (
            ("from", f"a branch of {about.branch_name}, made for this" if about.from_branch else about.branch_name),
            ("database", f"{about.database}, {about.tables:,} tables, {about.bytes / 1e6:,.1f} MB on the server"),
            ("versions", f"server {about.server_version}, pg_dump {about.client}"),
            ("encrypted to", ", ".join(about.recipients)),
            ("storage", f"{about.storage_class} in the end, object lock {lock}"),
            ("local copy", about.local or "none"),
        )
        return Preview(
            title=f"take a {self.tier} backup of {about.environment}",
            target=f"new objects in bucket {about.bucket}, below {about.environment}/",
            facts=facts,
            tables=(),
            warnings=self.warnings,
            undo="not needed: the database is only read",
        )


class Taken(Record):
    id: str
    files: int
    size: int
    stored_size: int
    tables: int
    rows: int
    lsn: str
    started: Moment
    finished: Moment
    own_key: str | None
    """The public half of the key that this process sealed to besides; None where another process took the backup."""


class Proof(Record):
    record: ProofRecord
    local: ProofRecord | None


class Measured(Record):
    names: tuple[str, ...]


@dataclass(frozen=True)
class Alone:
    """While it is held, no other backup of this database is taken; and the key that is forgotten with it."""

    pair: KeyPair


def survey(run: Run[World], request: Request) -> Survey:
    """Reads the database's catalog and the bucket's settings."""
    _require_variables(run.world)
    world, repository = run.world, run.world.repository
    rule = repository.policy.tiers[request.tier]
    fingerprints = repository.fingerprints()
    target = world.target_branch()
    with world.connect(_dsn(world), application_name=f"bloom-dr {run.id} survey", progress=run.tell) as conn:
        prove(conn, Expected(database=world.environment.database, project_id=target.project_id, branch_id=target.id))
        found = preflight(conn, client_for(conn))
    _require_disk(found.bytes)
    posture: Posture = repository.archive.posture()
    sizes, no_sizes = _sizes(repository, request.tier, world.now())
    return Survey(
        environment=repository.environment,
        zone=world.policy.local_timezone,
        project=target.project_id,
        branch=target.id,
        branch_name=target.name,
        database=found.database,
        role=found.role,
        server_version=f"{found.server_version // 10000}.{found.server_version % 10000}",
        client=".".join(map(str, found.client.version)),
        bytes=found.bytes,
        tables=found.tables,
        notes=found.notes,
        recipients=fingerprints,
        bucket=repository.policy.bucket,
        endpoint=repository.policy.endpoint,
        storage_class=rule.storage_class,
        lock_mode=rule.lock_mode,
        lock_days=rule.lock_days,
        from_branch=repository.policy.from_branch,
        local=None if repository.local is None else str(repository.local),
        versioned=posture.versioned,
        object_lock=posture.object_lock,
        public_access_blocked=posture.public_access_blocked,
        unseen=(*no_sizes, *(f"{name} could not be seen: {why}" for name, why in sorted(posture.unseen.items()))),
        sizes=sizes,
    )


def _sizes(repository: Repository, tier: Tier, now: Moment) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Those there are, or why none could be seen: a backup is worth more than what is known of those before it."""
    try:
        found = catalog(repository).sizes_before(now, tier, repository.policy.verified_rung)
    except BloomError as trouble:
        return (), (f"the sizes of earlier backups could not be seen: {trouble.happened}",)
    return found[-MOST_SIZES:], ()


def plan(request: Request, survey: Survey) -> BackupPlan:
    """Refused if the policy promises a lock that the bucket cannot keep."""
    if survey.lock_mode and survey.object_lock is False:
        raise Refused(
            f"the policy locks {request.tier} backups, and bucket {survey.bucket} has no object lock",
            safe="nothing was dumped and nothing was stored",
            next_step="use a bucket with object lock (pulumi up makes one), or take lock_mode out of the policy",
        )
    return BackupPlan(tier=request.tier, about=survey, warnings=tuple(_warnings(survey)))


def _warnings(survey: Survey) -> Iterator[str]:
    if survey.versioned is False:
        yield f"bucket {survey.bucket} keeps no versions: what is deleted there is gone"
    if survey.public_access_blocked is False and survey.endpoint is None:
        yield f"bucket {survey.bucket} does not block public access"
    if not survey.lock_mode:
        yield "the policy locks no backups of this tier: whoever may delete objects can delete them"
    yield from survey.unseen
    yield from survey.notes


@contextmanager
def _alone(run: Run[World], plan: BackupPlan) -> Iterator[Alone]:
    """Holds the database's backup lock (C10). A failure is measured, so that somebody hears of it."""
    world = run.world
    try:
        with world.connect(_dsn(world), application_name=f"bloom-dr {run.id}", progress=run.tell) as conn:
            zone = world.policy.local_timezone
            with hold_lock(conn, run.id, world.operator, purpose=BACKUP, zone=zone, progress=run.tell):
                yield Alone(KeyPair.new(world.repository.encryption.method))
    except LockHeld:
        raise  # the other one will be measured
    except Exception as error:
        try:
            world.repository.metrics.send(of_failed_backup(world.repository.environment, plan.tier, world.now()))
        except BloomError as trouble:
            error.add_note(f"besides, the failure could not be measured: {trouble.happened}")
        raise


def _take(running: Running[World, BackupPlan]) -> Taken:
    world, repository = running.world, running.world.repository
    for note in running.notes:
        _clear(running, BackupId.parse(note["backup"]))
    pair: KeyPair = running.held.pair
    backup = _free_id(world)
    running.note({"backup": str(backup)})
    limit = repository.policy.time_limit
    with (
        deadline(limit, "the backup", "raise time_limit in [backup] of the policy"),
        workspace() as folder,
        _source(running) as dsn,
    ):
        manifest = take(
            repository,
            Order(
                id=backup,
                tier=running.plan.tier,
                dsn=dsn,
                sealer=repository.sealer(pair.recipient),
                fingerprints=repository.fingerprints(),
                workspace=folder / "dump",
            ),
            connect=world.connect,
            clock=world.now,
            tell=running.tell,
        )
    return _taken(manifest, own_key=pair.opener().fingerprints[0])


def _free_id(world: World) -> BackupId:
    """Of this second; or of the next one, if another backup was started in this one."""
    repository = world.repository
    backup = BackupId.new(repository.environment, world.now().utc)
    if repository.archive.exists(backup.manifest_key):
        sleep(1 - world.now().utc.microsecond / 1e6)
        backup = BackupId.new(repository.environment, world.now().utc)
    return backup


def _is_taken(running: Running[World, BackupPlan]) -> Taken | None:
    """The manifest is written last, so one that is there was written by an attempt that came to its end."""
    archive = running.world.repository.archive
    for note in reversed(running.notes):
        backup = BackupId.parse(note["backup"])
        if archive.exists(backup.manifest_key):
            return _taken(Manifest.from_bytes(archive.read(backup.manifest_key)), own_key=None)
    return None


def _prove(running: Running[World, BackupPlan]) -> Proof:
    repository = running.world.repository
    taken, pair = running.result(TAKE), running.held.pair
    backup = BackupId.parse(taken.id)
    manifest = Manifest.from_bytes(repository.archive.read(backup.manifest_key))
    if taken.own_key is not None and taken.own_key in pair.opener().fingerprints:
        opener, recipients = pair.opener(), (taken.own_key,)
    else:  # another process took it, and its key is gone
        opener, recipients = repository.opener(), None
    record = prove_by_reading(
        opening(repository, backup, Place.ARCHIVE), manifest, opener, recipients=recipients,
        by=_by(running), clock=running.world.now, tell=running.tell,
    )  # fmt: skip
    record = store(repository, manifest.tier, record)
    return Proof(record=record, local=_local(running, manifest, record))


def _is_proved(running: Running[World, BackupPlan]) -> Proof | None:
    """A proof that this run has stored."""
    listed = _listed(running)
    own = [proof for proof in listed.proofs if proof.by == _by(running)]
    if not own or listed.manifest is None:
        return None
    return Proof(record=own[-1], local=_local(running, listed.manifest, own[-1]))


def _local(running: Running[World, BackupPlan], manifest: Manifest, record: ProofRecord) -> ProofRecord | None:
    repository = running.world.repository
    if repository.local is None:
        return None
    return prove_local(repository, manifest, record, clock=running.world.now)


def _measure(running: Running[World, BackupPlan]) -> Measured:
    repository, proof = running.world.repository, running.result(PROVE).record
    manifest = Manifest.from_bytes(repository.archive.read(proof.backup.manifest_key))
    metrics = of_proof(manifest, proof, (), Rung(repository.policy.verified_rung), running.plan.about.sizes)
    if not any(metric.name == "BackupSuccess" for metric in metrics):
        metrics += of_failed_backup(repository.environment, manifest.tier, running.world.now())
    repository.metrics.send(metrics)
    return Measured(names=tuple(metric.name for metric in metrics))


TAKE: Step[World, BackupPlan, Taken] = Step(
    name="take",
    effect=Effect.CREATES,
    why="inventory and dump of one snapshot; each file is encrypted and uploaded when it is dumped, the manifest last",
    by_hand="pg_dump -Fd -j 2 -Z zstd:1 on the direct host, then encrypt and upload every file",
    deadline=timedelta(days=8),
    result=Taken,
    run=_take,
    done=_is_taken,
)
PROVE: Step[World, BackupPlan, Proof] = Step(
    name="prove",
    effect=Effect.CREATES,
    why="what counts is what lies in the archive: it is read again, hashed, decrypted and decoded to the last block",
    by_hand="invoke backup.verify with the backup's id, where a private key is",
    deadline=timedelta(days=2),
    result=Proof,
    run=_prove,
    done=_is_proved,
)
MEASURE: Step[World, BackupPlan, Measured] = Step(
    name="measure",
    effect=Effect.CREATES,
    why="success is told to the alarms only now, as only now it is one",
    by_hand="nothing: the backup is there, and the alarm for a missing one will fire",
    deadline=timedelta(minutes=10),
    result=Measured,
    run=_measure,
)


def ending(plan: BackupPlan, results: Mapping[str, Record]) -> Ending:
    """PROVED if every block in the archive was decrypted and decoded."""
    taken, proof = results[TAKE.name], results[PROVE.name]
    assert isinstance(taken, Taken)
    assert isinstance(proof, Proof)
    open_ends = tuple(_left_open(proof))
    failed = any(each is not None and each.verdict is Proved.FAILED for each in (proof.record, proof.local))
    return Ending(
        verdict=Verdict.FAILED if failed else Verdict.COULD_NOT_VERIFY if open_ends else Verdict.PROVED,
        summary=f"{taken.id}: {taken.rows:,} rows of {taken.tables:,} tables, {taken.stored_size / 1e6:,.1f} MB, "
        f"proved up to rung {int(proof.record.rung)} ({proof.record.rung.name.lower()})",
        facts=(
            ("backup", taken.id),
            ("state of", f"LSN {taken.lsn}, shortly after {taken.started.both(plan.about.zone)}"),
            ("taken in", f"{(taken.finished.utc - taken.started.utc).total_seconds():,.1f} s"),
            ("proved in", f"{proof.record.seconds:,.1f} s"),
        ),
        left_open=open_ends,
    )


def _left_open(proof: Proof) -> Iterator[str]:
    for where, record in (("in the archive", proof.record), ("in the local folder", proof.local)):
        if record is None:
            continue
        if record.verdict is not Proved.PASSED:
            yield f"the backup {where} is not what was dumped: {'; '.join(record.details)}"
        elif record.rung < Rung.DECODED:
            yield (
                f"the backup {where} was read again, but not decrypted: the key of the process that took it is gone; "
                f"where a private key is: invoke backup.verify --id {record.backup}"
            )


RUNBOOK: Runbook[World, Request, Survey, BackupPlan] = Runbook(
    name="backup.take",
    symptom="a backup is due, or a migration is about to run",
    may_be_lost="nothing: the database is only read, and nothing in the archive is replaced",
    takes="a minute for each 10 GB or so; the proof reads it all once more",
    request=Request,
    survey_type=Survey,
    plan_type=BackupPlan,
    survey=survey,
    plan=plan,
    steps=(TAKE, PROVE, MEASURE),
    ending=ending,
    guard=_alone,
    page="take-backup",
)


def _dsn(world: World) -> Dsn:
    environment = world.environment
    return world.neon.connection(branch=world.target_branch(), database=environment.database, role=environment.role)


@contextmanager
def _source(running: Running[World, BackupPlan]) -> Iterator[Dsn]:
    """Where to dump from: the database itself, or a branch of it that lives as long as the dump."""
    world, policy = running.world, running.world.repository.policy
    if not policy.from_branch:
        yield _dsn(world)
        return
    neon, target, name = world.neon, world.target_branch(), running.id.branch_name
    if (left := neon.find_branch(name)) is not None:  # of an attempt that was killed: it is of an older moment
        neon.remove_branch(left.id, name=name)
    now = world.now()
    made = neon.branch_at(
        parent=target,
        moment=Moment.of(now.utc - timedelta(seconds=1)),
        name=name,
        expires_at=Moment.of(now.utc + policy.time_limit + BRANCH_SPARE),
        annotation={"bloom-dr-run": str(running.id)},
    )
    try:
        yield neon.connection(branch=made.branch, database=world.environment.database, role=world.environment.role)
    except BaseException as error:
        try:
            neon.remove_branch(made.branch.id, name=name)
        except BloomError as trouble:
            error.add_note(f"besides, branch {name} is still there (it expires by itself): {trouble.happened}")
        raise
    neon.remove_branch(made.branch.id, name=name)


def _require_variables(world: World) -> None:
    """UsageFault naming all that are not set, before anything else (C16)."""
    if lacking := missing(world.environ, world.environment):
        raise UsageFault(
            f"not set in the environment: {', '.join(lacking)}",
            safe="nothing was started",
            next_step="set what is named; a scheduler brings nothing along: invoke schedule.render writes its files",
        )


def _require_disk(size: int) -> None:
    """A dump is a third of its database or less; what is being encrypted lies there twice for a moment."""
    place = workspace_root()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < size // 2:
        raise LocalFault(
            f"{free / 1e6:,.0f} MB are free in {place}, where a dump of {size / 1e6:,.0f} MB would wait",
            safe="nothing was dumped and nothing was stored",
            next_step="make room, or set BLOOM_DR_SANDBOX to a place on another disk",
        )


def _clear(running: Running[World, BackupPlan], backup: BackupId) -> None:
    """Remove what a killed attempt left. It is no backup, so that it cannot be removed stops nothing."""
    try:
        discard(running.world.repository, backup)
    except BloomError as trouble:
        running.tell(f"half a backup of an earlier attempt stays for now: {trouble.happened}")


def _listed(running: Running[World, BackupPlan]) -> Listed:
    return look_at(running.world.repository, BackupId.parse(running.result(TAKE).id))


def _taken(manifest: Manifest, own_key: str | None) -> Taken:
    return Taken(
        id=str(manifest.id),
        files=len(manifest.files),
        size=manifest.size,
        stored_size=manifest.stored_size,
        tables=len(manifest.inventory.tables),
        rows=manifest.inventory.rows,
        lsn=manifest.lsn,
        started=manifest.started,
        finished=manifest.finished,
        own_key=own_key,
    )


def _by(running: Running[World, BackupPlan]) -> str:
    return f"backup.take {running.id} by {running.world.operator}"
