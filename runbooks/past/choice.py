"""Which backup stands in for a branch, when the moment is older than the history. Only reads the archive."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from runbooks.backups.catalog import Listed, Offer, catalog, look_at
from runbooks.backups.choice import MEANING, named, unusable
from runbooks.clients.archive_types import Readable
from runbooks.clients.repository import Repository
from runbooks.clients.world import World
from runbooks.model.backup import Rung
from runbooks.model.backup_id import BackupId, LegacyBackup
from runbooks.model.duration import spell
from runbooks.model.errors import BloomError, NotFound, OutsideWindow, Refused, StillCold, UsageFault
from runbooks.model.moment import Moment

_SAFE = "nothing was changed and nothing was fetched"


@dataclass(frozen=True)
class Chosen:
    backup: Listed
    passed_over: tuple[str, ...]
    """Newer ones that were not taken, and why; empty if one was named."""


def check_name(text: str) -> None:
    """UsageFault unless it is `latest` or the id of a backup that single tables can be taken out of."""
    if isinstance(named(text), LegacyBackup):
        raise UsageFault(
            f"{text} is an old single file: it has no inventory to prove rows by, and no table comes out of it alone",
            safe="nothing was started",
            next_step=f"restore it whole, copy the rows from there: invoke backup.restore {text} --to neon/restored",
        )


def choose(repository: Repository, text: str, at: Moment) -> Chosen:
    """The backup called `text`; for `latest` the newest proved one that was finished by `at` and can be read now.

    Raises what `check_name` raises; NotFound; Refused for a named one that is half, damaged, known to be broken, or
    younger than `at`; StillCold; UsageFault for another environment's; what the archive raises.
    """
    check_name(text)
    wanted = named(text)
    return Chosen(_named(repository, wanted, at), ()) if isinstance(wanted, BackupId) else _newest(repository, at)


def _newest(repository: Repository, at: Moment) -> Chosen:
    offer = _offer(repository, at)
    if offer.take is None:
        told, next_step = _nothing(offer, repository)
        raise NotFound(told, safe=_SAFE, next_step=next_step)
    return Chosen(offer.take, tuple(_passed_over(offer)))


def _offer(repository: Repository, at: Moment) -> Offer:
    return catalog(repository).offer(at, repository.policy.verified_rung)


def _passed_over(offer: Offer) -> list[str]:
    told = []
    if (colder := offer.colder) is not None and not isinstance(colder.access, Readable):
        told.append(f"{colder.id} is newer, in cold storage: a thaw takes up to {spell(colder.access.takes)}")
    if (unproved := offer.unproved) is not None:
        told.append(f"{unproved.id} is newer, and not proved as far as the policy wants; to have it, name it")
    return told


def _nothing(offer: Offer, repository: Repository) -> tuple[str, str]:
    """Why there is none to take, and what can be done."""
    about = f"no backup of {repository.environment} that was finished by then is proved and can be read now"
    if (colder := offer.colder) is not None:
        return (
            f"{about}; {colder.id} is proved, and in cold storage",
            f"ask for its thaw: invoke backup.restore {colder.id} --to neon/restored",
        )
    if (unproved := offer.unproved) is not None:
        return (
            f"{about}; of {unproved.id} nothing bad is known: {MEANING[unproved.standing.rung]}",
            f"prove it: invoke backup.verify --id {unproved.id}; then run the same command with --from-backup latest",
        )
    return about, f"see what there is: invoke backup.list --env {repository.environment}"


def _named(repository: Repository, wanted: BackupId, at: Moment) -> Listed:
    if wanted.environment != repository.environment:
        raise UsageFault(
            f"{wanted} is a backup of {wanted.environment}, and this is {repository.environment}",
            safe="nothing was started",
            next_step=f"see what there is: invoke backup.list --env {repository.environment}",
        )
    found = look_at(repository, wanted)
    if (why := unusable(found)) is not None:
        raise Refused(f"{found.id} {why}", safe=_SAFE, next_step="see which others there are: invoke backup.list")
    if found.id.started >= at:
        raise Refused(
            f"{found.id} was started after {at.iso()}, so it may hold the loss already",
            safe=_SAFE,
            next_step=f"see which are older: invoke backup.list --before {at.iso()}",
        )
    if not isinstance(found.access, Readable):
        raise StillCold(
            f"{found.id} lies in {found.storage_class}, where a thaw takes up to {spell(found.access.takes)}",
            safe=_SAFE,
            next_step=f"ask for its thaw: invoke backup.restore {found.id} --to neon/restored; then run the same again",
        )
    return found


def outside(world: World, fault: OutsideWindow, at: Moment, command: str) -> OutsideWindow:
    """The same refusal, naming the backup that reaches further back, with the command that takes it: `command` is the
    one that was given, ready to be continued. An archive that does not answer never hides the refusal."""
    try:
        offer = _offer(world.repository, at)
    except BloomError as error:
        told, next_step = f"whether a backup is older could not be found out: {error.happened}", error.next_step
    else:
        told, next_step = _offered(world, offer, command)
    return OutsideWindow(f"{fault.happened}; {told}", safe=fault.safe, next_step=next_step)


def _offered(world: World, offer: Offer, command: str) -> tuple[str, str]:
    if (take := offer.take) is None:
        return _nothing(offer, world.repository)
    state = take.id.started.both(world.policy.local_timezone)
    meaning = MEANING[Rung(take.standing.rung)]
    return (
        f"the newest proved backup from before it is {take.id}, with the state of shortly after {state} ({meaning})",
        f"take the rows as they were in it: {command} --from-backup {shlex.quote(str(take.id))}",
    )
