"""What a restore would meet: the backup, the target, and what of the one the other will not take. Only reads."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

from runbooks.backups import thaw
from runbooks.backups.choice import choose, named, resolve_tables
from runbooks.backups.legacy import LegacyFacts
from runbooks.backups.source import (
    Foreseen,
    Source,
    foresee_dump,
    foresee_old,
    inspect_old,
    keys_of,
    manifest_of,
    needed,
    source_of,
)
from runbooks.backups.target import Destination, Found, Tell, check_name, destination, examine, session
from runbooks.backups.thaw import Chill
from runbooks.backups.workspace import workspace_root
from runbooks.clients.restore_outlook import in_the_way
from runbooks.clients.world import World
from runbooks.model.backup import Rung
from runbooks.model.backup_id import LegacyBackup
from runbooks.model.duration import spell
from runbooks.model.errors import LocalFault, Refused, StillCold
from runbooks.model.inventory import Locale
from runbooks.model.moment import Moment
from runbooks.model.record import Record
from runbooks.model.retention import Place

UNTOUCHED = "the target was not touched"


class Wish(Record):
    """What the operator asked for."""

    backup: str
    """An id, the key of an old file, or `latest`."""
    before: Moment | None = None
    to: str
    tables: tuple[str, ...] = ()
    local: bool = False


class Prospect(Record):
    """What was found. While files of the backup are cold, nothing is known of what a restore would do."""

    zone: str
    at: Moment
    source: Source
    passed_over: tuple[str, ...]
    verified_rung: Rung
    jobs: int
    destination: Destination
    found: Found
    doubt: str | None
    """Why the target could not be compared with the environment's own database."""
    tables: tuple[str, ...] | None
    """As the inventory spells them; None: everything."""
    files: int
    """Objects of the archive that are needed."""
    chill: Chill
    foreseen: Foreseen | None
    old: LegacyFacts | None
    unlike: tuple[str, ...]
    """How the target encodes and sorts text differently."""

    @property
    def what(self) -> Foreseen:
        assert self.foreseen is not None  # the step of a thaw never ends
        return self.foreseen


def look(world: World, wish: Wish, run: str, tell: Tell) -> Prospect:
    """Reads the archive and the target. Each refusal comes before the first thing that could cost anything."""
    repository, name = world.repository, f"{run} survey"
    check_name(world.policy, wish.to)
    wanted = named(wish.backup)
    opener = repository.opener() if isinstance(wanted, LegacyBackup) else repository.require_opener()
    tell(f"reading what backups of {repository.environment} there are")
    place = Place.LOCAL if wish.local else Place.ARCHIVE
    choice = choose(repository, wanted, before=wish.before, place=place, now=world.now())
    source = source_of(choice.found)
    manifest = None if source.legacy else manifest_of(repository, source)
    tables = resolve_tables(manifest.inventory, wish.tables) if manifest and wish.tables else None
    there = destination(world, wish.to)
    found, allows, doubt = examine(world, there, name, tell)
    keys = keys_of(source, manifest, needed(manifest, tables) if manifest else ())
    chill = Chill() if wish.local else thaw.look(repository, source.file_keys_below, keys)
    foreseen, old = None, None
    if manifest is None and chill.readable:
        tell(f"reading {source.key} to its end: {source.stored_size / 1e6:,.1f} MB")
        old = inspect_old(repository, source, tell)
        with session(world, there, None, name, tell, beside=there.missing) as conn:
            foreseen = foresee_old(old, allows, conn)
    elif manifest is not None and opener is not None and chill.readable:
        foreseen = foresee_dump(repository, source, manifest, opener, allows, found.holds, tables)
    if foreseen is not None:
        _require_disk(foreseen.size)
    return Prospect(
        zone=world.policy.local_timezone, at=world.now(), source=source, passed_over=choice.passed_over,
        verified_rung=Rung(repository.policy.verified_rung), jobs=repository.policy.jobs, destination=there,
        found=found, doubt=doubt, tables=tables, files=len(keys), chill=chill, foreseen=foreseen, old=old,
        unlike=() if manifest is None else tuple(_unlike(manifest.inventory.locale, found.locale)),
    )  # fmt: skip


def _require_disk(size: int) -> None:
    root = workspace_root()
    while not root.exists():
        root = root.parent
    free = shutil.disk_usage(root).free
    if free < size:
        raise LocalFault(
            f"{free / 1e6:,.0f} MB are free in {root}, and the decrypted files have {size / 1e6:,.0f} MB",
            safe=f"nothing was fetched; {UNTOUCHED}",
            next_step="make room there, or set BLOOM_DR_SANDBOX to a place on another disk",
        )


def _unlike(source: Locale, target: Locale) -> Iterator[str]:
    for name in ("encoding", "provider", "collate", "ctype", "locale"):
        was, now = getattr(source, name), getattr(target, name)
        if was != now:
            yield f"{name} is {now or 'none'} in the target and was {was or 'none'}"


def require_possible(found: Prospect) -> None:
    """Pure. StillCold while a thaw is under way; Refused if the target is not empty (C07), too old (C01), or cannot
    take a table (C04)."""
    _require_free(found)
    if found.chill.thawing and not found.chill.cold:
        raise still_cold(found, found.chill)
    version = _source_major(found)
    if version is not None and found.found.identity.server_major < version:
        raise Refused(
            f"the backup is of PostgreSQL {version}, and {found.destination} runs "
            f"{found.found.identity.server_major}: an older server cannot take it",
            safe=UNTOUCHED,
            next_step=f"give it a target with PostgreSQL {version} or newer",
        )
    if found.foreseen is not None and found.foreseen.lost_tables:
        why = "; ".join(str(each) for each in found.foreseen.left_out[:8])
        raise Refused(
            f"the target cannot take {', '.join(found.foreseen.lost_tables[:8])} ({why})",
            safe=UNTOUCHED,
            next_step="give the target what is missing, or choose another one",
        )
    if found.foreseen is not None and found.foreseen.clashes:
        raise Refused(
            f"the target has already what comes with these tables: {', '.join(found.foreseen.clashes[:8])}",
            safe=UNTOUCHED,
            next_step="restore the tables into a new, empty database, and copy their rows from there",
        )


def _require_free(found: Prospect) -> None:
    if there := in_the_way(found.found.holds, found.tables):
        more = f" and {len(there) - 10} more" if len(there) > 10 else ""
        raise Refused(
            f"{found.destination} is not empty; it holds {', '.join(there[:10])}{more}",
            safe="it is as it was",
            next_step="restore into a new, empty database (--to neon/NAME makes one), and switch to it when proved",
        )


def _source_major(found: Prospect) -> int | None:
    if found.old is not None:
        said = re.match(r"\d+", found.old.server_version)
        return int(said[0]) if said else None
    return None if found.source.server_version is None else found.source.server_version // 10000


def still_cold(found: Prospect, chill: Chill) -> StillCold:
    return StillCold(
        f"{len(chill.thawing)} of {found.files} files of {found.source.key} are being thawed; that takes up to "
        f"{spell(chill.takes)} from the asking on",
        safe=f"{UNTOUCHED}; the thawed copies can be read for {thaw.DAYS} days, the backup itself stays as it is",
        next_step="run the same command again when they are ready (it asks for nothing twice): "
        f"invoke backup.restore {found.source.key} --to {found.destination.name}",
    )
