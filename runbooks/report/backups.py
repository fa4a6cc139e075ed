"""The answer of `backup.list`: what the archive holds, what is proved of it, and whether it can be read now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from runbooks.backups.catalog import Catalog, Listed, ListedLegacy, Offer, catalog, local_root
from runbooks.clients.archive_types import Access, Cold, Readable, Thawing
from runbooks.clients.repository import Repository
from runbooks.model.duration import spell
from runbooks.model.freshness import EARLY, PROVING
from runbooks.model.moment import Moment
from runbooks.model.retention import Place
from runbooks.model.zones import zone
from runbooks.report.answer import Answer
from runbooks.report.fresh import as_data, judged

_MINUTE = timedelta(minutes=1)
_HEAD = ("backup", "started", "tier", "age", "rows", "MB", "proved", "storage", "locked until (UTC)")
_HALF = "half a backup: it has no manifest, so it is none"


@dataclass(frozen=True)
class Asked:
    """What a listing is about."""

    repository: Repository
    place: Place
    before: Moment | None
    now: Moment
    zone: str

    @property
    def rung(self) -> int:
        return self.repository.policy.verified_rung

    @property
    def where(self) -> str:
        if self.place is Place.LOCAL:
            return str(local_root(self.repository))
        return f"bucket {self.repository.policy.bucket}"


def listed(repository: Repository, *, place: Place, before: Moment | None, now: Moment, zone: str) -> Answer:
    """All backups of the environment in one place, newest first; with `before` those that were started by then, and
    which one to take. The age of the newest is judged by the archive alone. Raises as `catalog`."""
    asked = Asked(repository, place, before, now, zone)
    found = catalog(repository, place)
    shown = found.before(before) if before else found
    offer = shown.offer(before, asked.rung) if before else None
    fresh = judged(repository, found, now) if place is Place.ARCHIVE else ()
    newest = found.newest(lambda one: one.verified(asked.rung))
    text = [*_title(asked, shown), *_table(asked, shown, offer), *_legacy(shown.legacy, asked), *_foreign(found)]
    if before and offer:
        text += ["", *_offered(asked, before, offer, shown)]
    if place is Place.ARCHIVE and not before:
        text += ["", *map(str, fresh), _newest(newest, asked)]
    data = {
        "environment": repository.environment,
        "place": place.value,
        "where": asked.where,
        "verified_rung": asked.rung,
        "before": before and before.iso(),
        "backups": [_data(one, asked, offer) for one in reversed(shown.backups)],
        "legacy": [_legacy_data(one) for one in reversed(shown.legacy)],
        "foreign": found.foreign,
        "freshness": [as_data(each) for each in fresh],
        "newest_verified": newest and str(newest.id),
        "offer": offer and _offer_data(offer, before),
    }
    return Answer("\n".join(text), data)


# --- the listing as text ----------------------------------------------------------------------------------------------


def _title(asked: Asked, shown: Catalog) -> Iterator[str]:
    when = f", started before {asked.before.both(asked.zone)}" if asked.before else ""
    yield f"backups of {asked.repository.environment} in {asked.where}{when}"
    if not shown.backups:
        yield f"there is none{when and ' from before then'}"
        if not asked.before:
            yield f"next: invoke {'backup.list' if asked.place is Place.LOCAL else 'backup.take --tier daily'}"


def _table(asked: Asked, shown: Catalog, offer: Offer | None) -> Iterator[str]:
    if not shown.backups:
        return
    newest_first = shown.backups[::-1]
    lines = _columns([_HEAD, *(_row(one, asked) for one in newest_first)])
    yield next(lines)
    for one, line in zip(newest_first, lines, strict=True):
        yield ("> " if offer and one is offer.take else "  ") + line[2:]
        yield from (f"      {remark}" for remark in _remarks(one, asked))


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Numbers, which stand under rows and MB, to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = {_HEAD.index("rows"), _HEAD.index("MB")}
    for row in rows:
        cells = (
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  " + "  ".join(cells).rstrip()


def _row(one: Listed, asked: Asked) -> tuple[str, ...]:
    rows = "" if one.manifest is None else f"{sum(table.rows for table in one.manifest.inventory.tables):,}"
    return (
        str(one.id),
        f"{one.id.started.utc.astimezone(zone(asked.zone)):%Y-%m-%d %H:%M %Z}",
        one.tier or "unknown",
        _age(asked.now.utc - one.id.started.utc),
        rows,
        f"{one.stored_size / 1e6:,.1f}",
        _proved(one),
        one.storage_class,
        f"{one.locked_until.utc:%Y-%m-%d %H:%M}" if one.locked_until and one.locked_until > asked.now else "",
    )


def _age(age: timedelta) -> str:
    return "in the future" if age < -EARLY else spell(max(age, timedelta()) // _MINUTE * _MINUTE)


def _proved(one: Listed) -> str:
    if not one.complete:
        return "HALF"
    if one.standing.failure is not None:
        return "BROKEN"
    if one.trouble is not None:
        return "IN TROUBLE"
    return f"{int(one.standing.rung)} {one.standing.rung.name.lower()}"


def _remarks(one: Listed, asked: Asked) -> Iterator[str]:
    if not one.complete:
        running = one.id.started.utc + asked.repository.policy.time_limit + PROVING > asked.now.utc
        yield f"{_HALF}; {'it may be one that is being taken' if running else 'a run that failed left it behind'}"
    if (failure := one.standing.failure) is not None:
        why = "; ".join(failure.details) or "no reason was noted"
        yield f"!! BROKEN beyond rung {int(failure.rung)} ({failure.rung.name.lower()}): {why}"
        yield f"!! says {failure.key}; do not rely on it"
    if one.trouble is not None:
        yield f"!! {one.trouble}"
    if one.usable and not one.verified(asked.rung):
        yield f"not verified (rung {asked.rung} is asked for): invoke backup.verify --id {one.id} --rung {asked.rung}"
    if access := _access(one.access, asked.zone):
        yield access
    if asked.before and one.manifest and one.manifest.finished > asked.before:
        yield "it was being taken at that moment, and may hold what happened then"


def _access(access: Access, zone: str) -> str | None:
    match access:
        case Cold(takes=takes):
            return (
                f"cold: a thaw has to be asked for, and takes up to {spell(takes)}; invoke backup.restore asks for it"
            )
        case Thawing(takes=takes):
            return f"its thaw is under way, and takes up to {spell(takes)} from the asking on"
        case Readable(until=None):
            return None
        case Readable(until=until):
            assert until is not None
            return f"thawed: readable until {until.both(zone)}"


def _legacy(legacy: Iterable[ListedLegacy], asked: Asked) -> Iterator[str]:
    for one in sorted(legacy, key=lambda each: each.backup, reverse=True):
        yield (
            f"  {one.backup.key}  old single file, {one.stored_size / 1e6:,.1f} MB, {one.storage_class}; "
            "nothing is proved of it, and the zone of its time is unknown"
        )
        if access := _access(one.access, asked.zone):
            yield f"      {access}"


def _foreign(found: Catalog) -> Iterator[str]:
    if found.foreign:
        yield f"other objects that lie there: {found.foreign:,}; none of ours, and never touched"


def _newest(newest: Listed | None, asked: Asked) -> str:
    if newest is None:
        return f"NO backup is verified (rung {asked.rung})"
    age = _age(asked.now.utc - newest.id.started.utc)
    return f"the newest verified backup is {newest.id}, {age} old, proved to rung {_proved(newest)}"


def _offered(asked: Asked, before: Moment, offer: Offer, shown: Catalog) -> Iterator[str]:
    if offer.take is not None:
        yield f"take {offer.take.id}: the newest from before then that is verified and can be read now"
        yield f"lost with it: {_lost(offer.take, before, asked)}"
        yield f"next: invoke backup.restore {offer.take.id} --to TARGET"
    else:
        yield f"NONE from before then is verified (rung {asked.rung}) and can be read now"
    if offer.colder is not None:
        yield f"newer, and verified: {offer.colder.id}"
        yield f"    {_access(offer.colder.access, asked.zone)}"
        yield f"    lost with it: {_lost(offer.colder, before, asked)}"
    if offer.unproved is not None:
        yield f"newer, but not verified: {offer.unproved.id}"
        yield f"    lost with it: {_lost(offer.unproved, before, asked)}"
        yield f"    try it: invoke backup.verify --id {offer.unproved.id} --rung {asked.rung}"
    if offer.take is None and shown.legacy:
        yield f"the newest old single file that is surely from before then: {shown.legacy[-1].backup.key}"


def _lost(one: Listed, before: Moment, asked: Asked) -> str:
    length = spell((before.utc - one.id.started.utc) // _MINUTE * _MINUTE)
    return f"what was written in the {length} from {one.id.started.both(asked.zone)} on"


# --- the listing as data ----------------------------------------------------------------------------------------------


def _data(one: Listed, asked: Asked, offer: Offer | None) -> dict[str, Any]:
    manifest, failure = one.manifest, one.standing.failure
    return {
        "id": str(one.id),
        "tier": one.tier and one.tier.value,
        "started": one.id.started.iso(),
        "finished": manifest and manifest.finished.iso(),
        "age_seconds": (asked.now.utc - one.id.started.utc).total_seconds(),
        "tables": manifest and len(manifest.inventory.tables),
        "rows": manifest and sum(table.rows for table in manifest.inventory.tables),
        "size": manifest and manifest.size,
        "stored_size": one.stored_size,
        "complete": one.complete,
        "rung": int(one.standing.rung),
        "verified": one.verified(asked.rung),
        "failure": failure and failure.as_json(),
        "trouble": one.trouble,
        "storage_class": one.storage_class,
        "access": _access_data(one.access),
        "locked_until": one.locked_until and one.locked_until.iso(),
        "take": offer is not None and one is offer.take,
    }


def _legacy_data(one: ListedLegacy) -> dict[str, Any]:
    return {
        "key": one.backup.key,
        "wall_clock": one.backup.wall.isoformat(),
        "stored_size": one.stored_size,
        "storage_class": one.storage_class,
        "access": _access_data(one.access),
    }


def _access_data(access: Access) -> dict[str, Any]:
    if isinstance(access, Readable):
        return {"state": "readable", "until": access.until and access.until.iso()}
    state = "thawing" if isinstance(access, Thawing) else "cold"
    return {"state": state, "takes_seconds": access.takes.total_seconds()}


def _offer_data(offer: Offer, before: Moment | None) -> dict[str, Any]:
    def told(one: Listed | None) -> dict[str, Any] | None:
        if one is None or before is None:
            return None
        return {"id": str(one.id), "lost_seconds": (before.utc - one.id.started.utc).total_seconds()}

    return {"take": told(offer.take), "colder": told(offer.colder), "unproved": told(offer.unproved)}
