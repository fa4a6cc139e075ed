"""Files in cold storage: which ones, and the asking for a copy that can be read. Asked for once each (C18)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from runbooks.clients.archive_types import Access, Cold, Readable, Thawing
from runbooks.clients.repository import Repository
from runbooks.model.record import Record

DAYS = 7
"""For so long the thawed copies can be read: a restore may have to be done twice."""
_READERS = 16
_MAY_BE_COLD = ("GLACIER", "DEEP_ARCHIVE", "INTELLIGENT_TIERING")


class Chill(Record):
    """What of the needed files cannot be read now."""

    cold: tuple[str, ...] = ()
    """Keys whose thaw was not asked for."""
    thawing: tuple[str, ...] = ()
    takes: timedelta = timedelta()
    """The longest that AWS names for one of them, from the asking on."""
    size: int = 0
    """Octets of the cold ones."""
    storage_class: str = "STANDARD"

    @property
    def readable(self) -> bool:
        return not self.cold and not self.thawing


def look(repository: Repository, prefix: str, keys: Collection[str]) -> Chill:
    """How `keys`, all below `prefix`, can be had. Only those that may be cold are asked about. Only reads."""
    there = {each.key: each for each in repository.archive.objects(prefix) if each.key in keys}
    doubtful = [key for key, each in sorted(there.items()) if each.storage_class in _MAY_BE_COLD]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="thaw") as pool:
        accesses = dict(zip(doubtful, pool.map(lambda key: repository.archive.head(key).access, doubtful), strict=True))
    cold = tuple(key for key, access in accesses.items() if isinstance(access, Cold))
    thawing = tuple(key for key, access in accesses.items() if isinstance(access, Thawing))
    first = next(iter(cold + thawing), None)
    return Chill(
        cold=cold,
        thawing=thawing,
        takes=_longest(accesses.values()),
        size=sum(there[key].size for key in cold),
        storage_class=there[first].storage_class if first else "STANDARD",
    )


def ask(repository: Repository, keys: Collection[str], tell: Callable[[str], None]) -> Chill:
    """Ask for a thaw of each key that is cold, and of no other; how they stand then. Safe to repeat."""
    accesses: dict[str, Access] = {}
    for number, key in enumerate(sorted(keys), start=1):
        accesses[key] = repository.archive.thaw(key, DAYS)
        tell(f"thaw asked for: {number} of {len(keys)} files")
    thawing = tuple(key for key, access in accesses.items() if not isinstance(access, Readable))
    return Chill(thawing=thawing, takes=_longest(accesses.values()))


def _longest(accesses: Collection[Access]) -> timedelta:
    return max((each.takes for each in accesses if not isinstance(each, Readable)), default=timedelta())
