"""Which backup a restore takes, and what is lost by not taking a newer one (C18). Only reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from runbooks.backups.catalog import LATEST, Catalog, Listed, ListedLegacy, catalog, look_at
from runbooks.clients.archive_types import Readable
from runbooks.clients.dump_toc import parts
from runbooks.clients.repository import Repository
from runbooks.model.backup import Rung
from runbooks.model.backup_id import BackupId, LegacyBackup
from runbooks.model.duration import spell
from runbooks.model.errors import NotFound, Refused, UsageFault
from runbooks.model.freshness import EARLY
from runbooks.model.inventory import Inventory, TableKind
from runbooks.model.moment import Moment
from runbooks.model.nearest import did_you_mean
from runbooks.model.retention import Place

_SAFE = "nothing was changed"
_MOST = 8
MEANING = {
    Rung.UPLOADED: "nobody has read it since it was stored",
    Rung.REREAD: "read again, never decrypted",
    Rung.DECODED: "read, decrypted and decoded, never restored",
    Rung.RESTORED: "restored without an error, never compared",
    Rung.EQUAL: "restored and equal to its source",
    Rung.INTEGRAL: "restored, equal to its source, and its rules hold",
}


@dataclass(frozen=True)
class Choice:
    found: Listed | ListedLegacy
    passed_over: tuple[str, ...]
    """Newer ones that were not taken, and why; empty if one was named."""


def named(text: str) -> BackupId | LegacyBackup | None:
    """What a person typed: an id, the key of an old file, or `latest` (None). UsageFault."""
    if text == LATEST:
        return None
    return LegacyBackup.of_key(text) or BackupId.parse(text)


def choose(
    repository: Repository,
    wanted: BackupId | LegacyBackup | None,
    *,
    before: Moment | None,
    place: Place,
    now: Moment | None = None,
) -> Choice:
    """The named backup, or the newest usable one, if can be one that is proved and readable now. One that says that it
    was started after `now` is never the newest: its clock was wrong, and it may be older than any.

    NotFound; Refused for a named one that is half, damaged or known to be broken; UsageFault for another environment's.
    """
    if wanted is None:
        return _newest(repository, before, place, now)
    if wanted.environment != repository.environment:
        raise UsageFault(
            f"{wanted} is a backup of {wanted.environment}, and this is {repository.environment}",
            safe="nothing was started",
            next_step=f"invoke backup.restore {wanted} --env {wanted.environment}, with the same --to",
        )
    if isinstance(wanted, LegacyBackup):
        return Choice(_old_file(repository, wanted, place), ())
    found = look_at(repository, wanted, place)
    if (why := unusable(found)) is not None:
        raise Refused(
            f"{found.id} {why}",
            safe="nothing was changed, and no target was touched",
            next_step=f"take another one: invoke backup.restore latest --before {found.id.started.iso()}, "
            "with the same --to",
        )
    return Choice(found, ())


def _old_file(repository: Repository, wanted: LegacyBackup, place: Place) -> ListedLegacy:
    for one in catalog(repository, place).legacy:
        if one.backup == wanted:
            return one
    raise NotFound(f"there is no old backup {wanted}", safe=_SAFE, next_step="see what there is: invoke backup.list")


def _newest(repository: Repository, before: Moment | None, place: Place, now: Moment | None) -> Choice:
    rung = Rung(repository.policy.verified_rung)
    there = catalog(repository, place)
    if before is not None:
        there = there.before(before)
    known = there
    if now is not None:
        there = there.before(Moment.of(now.utc + EARLY))
    found = (
        there.newest(lambda one: one.verified(rung) and isinstance(one.access, Readable))
        or there.newest(lambda one: one.usable and isinstance(one.access, Readable))
        or there.newest(lambda one: one.verified(rung))
        or there.newest(lambda one: one.usable)
    )
    if found is None:
        raise NotFound(
            f"there is no usable backup of {repository.environment}" + (f" before {before.iso()}" if before else ""),
            safe=_SAFE,
            next_step=_instead(there),
        )
    newer = [one for one in reversed(known.backups) if one.id.started > found.id.started]
    told = [_passed_over(one, found, rung) if one in there.backups else _of_the_future(one) for one in newer]
    return Choice(found, (*told[:_MOST], *([f"and {len(told) - _MOST} more newer ones"] if told[_MOST:] else ())))


def _instead(there: Catalog) -> str:
    if there.legacy:
        return f"name the newest old file: invoke backup.restore {there.legacy[-1].backup}, with the same --to"
    return "see what there is, and what is wrong with it: invoke backup.list"


def _of_the_future(one: Listed) -> str:
    return f"{one.id} is dated in the future, so nobody knows how new it is; to have it, name it instead of latest"


def _passed_over(one: Listed, found: Listed, rung: Rung) -> str:
    newer = spell(timedelta(seconds=round((one.id.started.utc - found.id.started.utc).total_seconds())))
    if (why := unusable(one)) is not None:
        return f"{one.id}, {newer} newer, {why}"
    reasons = []
    if not isinstance(one.access, Readable):
        reasons.append(f"lies in {one.storage_class}, where a thaw takes up to {spell(one.access.takes)}")
    if not one.verified(rung):
        reasons.append(f"is not proved as far as the policy wants ({MEANING[one.standing.rung]})")
    return f"{one.id}, {newer} newer, {' and '.join(reasons)}; to have it, name it instead of latest"


def unusable(one: Listed) -> str | None:
    """Why a restore must not rely on it; None: nothing bad is known of it."""
    if not one.complete:
        return "is half a backup: its manifest was never written"
    if one.trouble is not None or one.manifest is None:
        return f"cannot be relied on: {one.trouble}"
    if one.standing.failure is not None:
        return f"is known to be broken: {'; '.join(one.standing.failure.details)[:500]}"
    return None


def resolve_tables(inventory: Inventory, names: tuple[str, ...]) -> tuple[str, ...]:
    """The tables that are meant, as the inventory spells them, each once. NotFound, with what may have been meant.

    A name without a schema is that of `public`, else of the one schema that has it.
    """
    kinds = (TableKind.TABLE, TableKind.PARTITIONED)
    there = {parts(table.name): table.name for table in inventory.tables if table.kind in kinds}
    found = [_resolved(there, name) for name in names]
    missing = [name for name, match in zip(names, found, strict=True) if match is None]
    if missing:
        plain = {".".join(key) for key in there} | {key[-1] for key in there}
        told = "; ".join(f"{name}{did_you_mean(name, plain)}" for name in missing)
        raise NotFound(
            f"the backup has no table {told}",
            safe="nothing was fetched and no target was touched",
            next_step="name tables as the database does, with the schema where it is not public",
        )
    return tuple(dict.fromkeys(name for name in found if name is not None))


def _resolved(there: dict[tuple[str, ...], str], name: str) -> str | None:
    key = parts(name)
    if len(key) != 1:
        return there.get(key)
    same = [spelled for known, spelled in there.items() if known[-1:] == key]
    return there.get(("public", *key)) or (same[0] if len(same) == 1 else None)
