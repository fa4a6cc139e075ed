"""Backups pile up: delete those that are past their retention and stand behind enough verified newer ones.

The preview names every backup, and why it stays or goes. Failed backups push no good one out, and the newest verified
ones always stay, whatever their age. Each is judged once more right before it is deleted: if the ones that it stands
behind are gone by then, nothing more is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from runbooks.backups.catalog import Catalog, Listed, catalog
from runbooks.backups.clearing import judge_again, remove, require_read, with_tiers
from runbooks.clients.repository import Repository
from runbooks.clients.world import World
from runbooks.engine.plan import Ending, Plan, Preview, Table, Verdict
from runbooks.engine.step import Effect, Run, Runbook, Running, Step
from runbooks.model.backup import Rung
from runbooks.model.backup_id import BackupId
from runbooks.model.errors import BloomError, LoginRefused, Refused, UsageFault
from runbooks.model.metrics import of_prune
from runbooks.model.moment import Moment
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.record import Record
from runbooks.model.retention import Copy, Entry, Place, Reason, plan_prune

_NEEDED = "s3:ListBucket, s3:ListBucketVersions, s3:GetObject, s3:GetObjectRetention and s3:DeleteObjectVersion"


class Request(Record):
    places: tuple[Place, ...]

    @classmethod
    def parse(cls, place: str) -> Request:
        """Empty: wherever there are backups. Raises UsageFault."""
        known = [each.value for each in Place]
        if place and place not in known:
            raise UsageFault(
                f"{place!r} is not a place of backups",
                safe="nothing was started",
                next_step=f"choose one of: {', '.join(f'invoke backup.prune --place {each}' for each in known)}",
            )
        return cls(places=(Place(place),) if place else (Place.ARCHIVE, Place.LOCAL))


class Survey(Record):
    environment: str
    bucket: str
    local: str | None
    """None: there are no local copies, or nobody asked for them."""
    at: Moment
    copies: tuple[Copy, ...]
    sizes: dict[str, int]
    """Octets of each, by place and id."""
    remarks: tuple[str, ...]
    left_alone: int
    """Old files and other objects."""
    rules: BackupPolicy


class PrunePlan(Plan):
    environment: str
    bucket: str
    local: str | None
    places: tuple[Place, ...]
    at: Moment
    entries: tuple[Entry, ...]
    """Every copy in these places, oldest first."""
    guards: tuple[Copy, ...]
    """The newest verified ones of each place."""
    sizes: dict[str, int]
    remarks: tuple[str, ...]
    left_alone: int

    @property
    def drops(self) -> tuple[Copy, ...]:
        return tuple(entry.copy_of for entry in self.entries if not entry.keep)

    @property
    def kept(self) -> tuple[Copy, ...]:
        return tuple(entry.copy_of for entry in self.entries if entry.keep)

    def size(self, copies: tuple[Copy, ...]) -> int:
        return sum(self.sizes[_name(each)] for each in copies)

    def confirmation(self) -> str | None:
        """Bucket (or `local`), environment and the number of backups; None if none is to be deleted."""
        where = self.bucket if Place.ARCHIVE in self.places else Place.LOCAL.value
        return f"{where}/{self.environment}/{len(self.drops)}" if self.drops else None

    def preview(self) -> Preview:
        drops = self.drops
        where = [f"bucket {self.bucket}"] if Place.ARCHIVE in self.places else []
        where += [f"folder {self.local}"] if self.local else []
        left_alone = f"{self.left_alone:,} objects: old single files, and what is none of ours"
        return Preview(
            title=f"clean up the backups of {self.environment}",
            target=f"{len(drops):,} backups are DELETED from {' and '.join(where)}, below {self.environment}/",
            facts=(
                ("freed", f"{self.size(drops) / 1e6:,.1f} MB of {self.size(drops + self.kept) / 1e6:,.1f} MB"),
                ("newest verified, stay", ", ".join(map(_name, self.guards)) or "NONE"),
                ("not looked into", left_alone),
            ),
            tables=tuple(self._tables()),
            warnings=self.remarks,
            undo="none: all versions of these objects are deleted",
        )

    def _tables(self) -> Iterator[Table]:
        for title, keep in (("are DELETED", False), ("stay", True)):
            rows = tuple(self._row(entry) for entry in self.entries if entry.keep is keep)
            if rows:
                yield Table(title=title, head=("backup", "where", "tier", "MB", "why", "until (UTC)"), rows=rows)

    def _row(self, entry: Entry) -> tuple[str, ...]:
        one = entry.copy_of
        until = f"{entry.until.utc:%Y-%m-%d %H:%M}" if entry.until else ""
        return str(one.id), one.place, one.tier, f"{self.sizes[_name(one)] / 1e6:,.1f}", entry.reason, until


class Outcome(Record):
    """What became of one backup that was to go."""

    backup: BackupId
    place: Place
    left: str | None
    """Why it is still there; None: it is gone."""


class Deleted(Record):
    outcomes: tuple[Outcome, ...]


class Checked(Record):
    """What was seen afterwards."""

    still_there: tuple[str, ...]
    missing: tuple[str, ...]
    """A sentence for each that should have stayed, and is not there as it was."""


class Measured(Record):
    names: tuple[str, ...]


def survey(run: Run[World], request: Request) -> Survey:
    """Reads what lies in the archive, and in the local folder if it is asked for and there is one."""
    repository, policy = run.world.repository, run.world.repository.policy
    run.tell(f"reading what backups of {repository.environment} there are")
    found = _catalogs(repository, request.places)
    archived = found[Place.ARCHIVE].backups
    local = found[Place.LOCAL].backups if Place.LOCAL in found else ()
    looked_into = [each for place, each in found.items() if place in request.places]
    listed = [one for each in looked_into for one in each.backups]
    return Survey(
        environment=repository.environment,
        bucket=policy.bucket,
        local=str(repository.local) if Place.LOCAL in found else None,
        at=run.world.now(),
        copies=(*(one.as_copy() for one in archived), *with_tiers(local, archived)),
        sizes={_name(one): one.stored_size for one in listed},
        remarks=tuple(remark for one in listed for remark in _remarks(one)),
        left_alone=sum(len(each.legacy) + each.foreign for each in looked_into),
        rules=policy,
    )


def _catalogs(repository: Repository, places: tuple[Place, ...]) -> dict[Place, Catalog]:
    """The archive's in any case: a local copy stays for as long as the archive does not hold it."""
    wanted = [Place.ARCHIVE]
    if Place.LOCAL in places and (repository.local is not None or places == (Place.LOCAL,)):
        wanted.append(Place.LOCAL)
    return {place: catalog(repository, place) for place in wanted}


def _remarks(one: Listed) -> Iterator[str]:
    if one.tier is None:
        yield f"{_name(one)}: nobody knows its tier, so it is kept as long as a pre-migration one"
    if one.trouble is not None:
        yield f"{_name(one)}: {one.trouble}"
    if one.standing.failure is not None:
        yield f"{_name(one)} is BROKEN, says {one.standing.failure.key}"


def _name(one: Listed | Copy) -> str:
    return f"{one.place} {one.id}"


def plan(request: Request, survey: Survey) -> PrunePlan:
    judged = plan_prune(survey.copies, survey.rules, survey.at).entries
    entries = tuple(entry for entry in judged if entry.copy_of.place in request.places)
    verified = [
        entry.copy_of
        for entry in reversed(entries)
        if entry.keep and entry.copy_of.complete and entry.copy_of.standing.proved(Rung(survey.rules.verified_rung))
    ]
    guards = [[each for each in verified if each.place is place][: survey.rules.keep_verified] for place in Place]
    return PrunePlan(
        environment=survey.environment,
        bucket=survey.bucket,
        local=survey.local,
        places=request.places,
        at=survey.at,
        entries=entries,
        guards=tuple(each for ones in guards for each in ones),
        sizes=survey.sizes,
        remarks=survey.remarks,
        left_alone=survey.left_alone,
    )


@contextmanager
def _measured(run: Run[World], plan: PrunePlan) -> Iterator[None]:
    """A clean-up that fails is measured: nobody looks at it otherwise."""
    try:
        yield
    except Exception as error:
        try:
            run.world.repository.metrics.send(of_prune(plan.environment, run.world.now(), done=False))
        except BloomError as trouble:
            error.add_note(f"besides, the failure could not be measured: {trouble.happened}")
        raise


def _delete(running: Running[World, PrunePlan]) -> Deleted:
    outcomes: list[Outcome] = []
    for number, copy in enumerate(running.plan.drops, start=1):
        running.tell(f"{number} of {len(running.plan.drops)}: {_name(copy)}")
        try:
            left = _delete_one(running, copy)
        except LoginRefused as error:
            raise _not_allowed(running, error, number - 1) from error
        outcomes.append(Outcome(backup=copy.id, place=copy.place, left=left))
    return Deleted(outcomes=tuple(outcomes))


def _delete_one(running: Running[World, PrunePlan], copy: Copy) -> str | None:
    """None if it is gone, else why it is left. Refused if nothing may be deleted any more."""
    repository = running.world.repository
    guards = [each for each in running.plan.guards if each.place is copy.place]
    now = judge_again(repository, copy, guards, running.world.now())
    if now is None:
        return None
    begun = {"backup": str(copy.id), "place": copy.place.value}
    # What an earlier attempt has begun on is half a backup by its doing, and only its rest is left to remove.
    going_on = begun in running.notes and not now.copy_of.complete
    if now.copy_of.complete and not copy.complete:
        return "it was half a backup and is whole now"
    if not going_on and now.keep:
        if now.reason is Reason.LOCKED:
            return f"it was locked meanwhile, until {now.until}"
        raise _not_any_more(copy, now.reason)
    running.note(begun)
    try:
        remove(repository, copy.id, copy.place)
    except Refused as locked:
        return locked.happened
    return None


def _not_any_more(copy: Copy, reason: Reason) -> Refused:
    return Refused(
        f"{_name(copy)} is not to be deleted any more: {reason}",
        safe="it was not touched, and nothing else is deleted; what went before stood behind verified newer backups",
        next_step="find out what happened to the newer ones: invoke backup.list; then make a new plan: "
        "invoke backup.prune",
    )


def _not_allowed(running: Running[World, PrunePlan], error: LoginRefused, done: int) -> LoginRefused:
    plan = running.plan
    return LoginRefused(
        error.happened,
        safe=f"{done} of {len(plan.drops)} backups were deleted before; none that stays is touched",
        next_step=f"who writes backups may not delete them: use the pruner's credentials, with {_NEEDED} below "
        f"{plan.environment}/ of bucket {plan.bucket}; then: invoke run.resume {running.id}",
    )


def _are_deleted(running: Running[World, PrunePlan]) -> Deleted | None:
    repository = running.world.repository
    found = _catalogs(repository, running.plan.places)
    there = {(one.id, one.place) for each in found.values() for one in each.backups}
    drops = running.plan.drops
    if any((copy.id, copy.place) in there for copy in drops):
        return None
    return Deleted(outcomes=tuple(Outcome(backup=copy.id, place=copy.place, left=None) for copy in drops))


def _check(running: Running[World, PrunePlan]) -> Checked:
    repository, plan = running.world.repository, running.plan
    found = {(one.id, one.place): one for each in _catalogs(repository, plan.places).values() for one in each.backups}
    gone = [each for each in running.result(DELETE).outcomes if each.left is None]
    return Checked(
        still_there=tuple(f"{each.place} {each.backup}" for each in gone if (each.backup, each.place) in found),
        missing=tuple(
            f"{_name(copy)} was to stay, and {lost}"
            for copy in plan.kept
            if (lost := _lost(copy, found.get((copy.id, copy.place))))
        ),
    )


def _lost(copy: Copy, now: Listed | None) -> str | None:
    """What became of one that is not there as it was; half ones may come and go. CouldNotVerify."""
    if not copy.complete:
        return None
    if now is None or not now.complete:
        return "is not there any more: was it this machine?"
    if copy.standing.failure is not None:
        return None
    require_read(now)
    return now.trouble


def _measure(running: Running[World, PrunePlan]) -> Measured:
    outcomes, checked = running.result(DELETE).outcomes, running.result(PROVE)
    done = not (checked.still_there or checked.missing or any(each.left for each in outcomes))
    metrics = of_prune(running.plan.environment, running.world.now(), done=done)
    running.world.repository.metrics.send(metrics)
    return Measured(names=tuple(metric.name for metric in metrics))


DELETE: Step[World, PrunePlan, Deleted] = Step(
    name="delete",
    effect=Effect.DESTROYS,
    why="oldest first, each judged again right before; manifests go first, so that no half is taken for a backup",
    by_hand="delete the objects of each backup in the preview, with all versions and its manifest.json first",
    deadline=timedelta(hours=12),
    result=Deleted,
    run=_delete,
    done=_are_deleted,
)
PROVE: Step[World, PrunePlan, Checked] = Step(
    name="prove",
    effect=Effect.READS,
    why="what should be gone is gone, and what should be there is there",
    by_hand="invoke backup.list",
    deadline=timedelta(hours=1),
    result=Checked,
    run=_check,
)
MEASURE: Step[World, PrunePlan, Measured] = Step(
    name="measure",
    effect=Effect.CREATES,
    why="a clean-up that leaves things behind is told to the alarms",
    by_hand="nothing: the clean-up is done",
    deadline=timedelta(minutes=10),
    result=Measured,
    run=_measure,
)


def ending(plan: PrunePlan, results: Mapping[str, Record]) -> Ending:
    """PROVED if all that was to go is gone, and all that was to stay is there."""
    deleted, checked = results[DELETE.name], results[PROVE.name]
    assert isinstance(deleted, Deleted)
    assert isinstance(checked, Checked)
    left = tuple(each for each in deleted.outcomes if each.left)
    wrong = (
        *(f"{name} was deleted, and is there again" for name in checked.still_there),
        *checked.missing,
    )
    verdict = Verdict.FAILED if wrong else Verdict.INCOMPLETE if left else Verdict.PROVED
    if not plan.drops and not wrong:
        verdict = Verdict.NOTHING_MISSING
    removed = len(deleted.outcomes) - len(left)
    return Ending(
        verdict=verdict,
        summary=f"{removed:,} backups of {plan.environment} are deleted, {len(plan.kept) + len(left):,} stay"
        if plan.drops
        else f"no backup of {plan.environment} is due for deletion, {len(plan.kept):,} stay",
        facts=(("newest verified", ", ".join(map(_name, plan.guards)) or "NONE"),),
        left_open=(*wrong, *(f"{each.place} {each.backup} is left: {each.left}" for each in left)),
    )


RUNBOOK: Runbook[World, Request, Survey, PrunePlan] = Runbook(
    name="backup.prune",
    symptom="backups pile up, or the local disk fills",
    may_be_lost="the backups that the preview names, for good",
    takes="minutes",
    request=Request,
    survey_type=Survey,
    plan_type=PrunePlan,
    survey=survey,
    plan=plan,
    steps=(DELETE, PROVE, MEASURE),
    ending=ending,
    guard=_measured,
    page="prune-backups",
)
