"""The names of backups in the archive, and of nothing else: what is spelled otherwise is somebody else's object."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from runbooks.model.errors import UsageFault
from runbooks.model.moment import Moment

MANIFEST = "manifest.json"
ENVIRONMENT = r"(?P<environment>[a-z][a-z0-9-]{0,30})"
"""The first segment of every key, as a pattern."""
_FOLDER = rf"{ENVIRONMENT}/(?P<folder>\d{{4}}/\d\d)/bloom_backup_(?P<stamp>\d{{8}}_\d{{6}})"
_ID = re.compile(_FOLDER, re.ASCII)
_KEY = re.compile(rf"(?P<id>{_FOLDER})/(?P<rest>.+)", re.ASCII | re.DOTALL)
_LEGACY = re.compile(rf"{_FOLDER}\.sql\.gz", re.ASCII)
_PROOF = re.compile(r"proof-\d{8}T\d{6}Z\.json", re.ASCII)
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*", re.ASCII)
_WEST, _EAST = timedelta(hours=12), timedelta(hours=14)


@dataclass(frozen=True, order=True)
class BackupId:
    """`production/2025/12/bloom_backup_20251203_020000`: which environment, and when the backup was started.

    Ordered by time. As a pydantic field it reads and writes its text. One environment starts at most one backup in a
    second: whoever takes one makes sure that `manifest_key` is free.
    """

    started: Moment
    """In whole seconds: the one timestamp from which every key is made."""
    environment: str

    def __post_init__(self) -> None:
        if not re.fullmatch(ENVIRONMENT, self.environment, re.ASCII):
            raise ValueError(f"{self.environment!r} is not the name of an environment")
        if self.started.utc.microsecond:
            raise ValueError("the id of a backup holds whole seconds; use BackupId.new")

    @classmethod
    def new(cls, environment: str, started: datetime) -> BackupId:
        """`started` (aware) is cut to the second. ValueError if it has no zone, or for a strange environment."""
        return cls(Moment.of(started.replace(microsecond=0)), environment)

    @classmethod
    def parse(cls, text: str) -> BackupId:
        """The inverse of `str()`. UsageFault for anything else: other months, path tricks, look-alike digits."""
        found = _ID.fullmatch(text)
        wall = _wall_clock(found)
        if found is None or wall is None:
            raise UsageFault(
                f"{text if len(text) <= 90 else text[:90] + '...'!r} is not the id of a backup; "
                "one looks like production/2025/12/bloom_backup_20251203_020000",
                safe="nothing was started",
                next_step="copy the name from the bucket, up to and with the date and time",
            )
        return cls(Moment(wall.replace(tzinfo=UTC)), found["environment"])

    @classmethod
    def of_key(cls, key: str) -> tuple[BackupId, str] | None:
        """The backup in whose folder an object lies and the rest of its key (not empty); None outside of any.

        The rest may be anything: see `is_file_name`, `is_proof_name` and `MANIFEST`.
        """
        found = _KEY.fullmatch(key)
        if found is None or _wall_clock(found) is None:
            return None
        return cls.parse(found["id"]), found["rest"]

    @property
    def prefix(self) -> str:
        """The folder of the backup, with the slash at the end that keeps neighbours out of a listing."""
        return f"{self}/"

    @property
    def manifest_key(self) -> str:
        return self.prefix + MANIFEST

    def file_key(self, stored_name: str) -> str:
        """The key of one dumped file. ValueError for a name that is not one: see `is_file_name`."""
        if not is_file_name(stored_name):
            raise ValueError(f"{stored_name!r} is not a name for a file of a backup")
        return self.prefix + stored_name

    def proof_key(self, at: Moment) -> str:
        """`…/proof-20251203T021500Z.json`, cut to the second."""
        return f"{self.prefix}proof-{_stamp(at.utc, 'T')}Z.json"

    def __str__(self) -> str:
        return _name(self.environment, self.started.utc)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _as_text(cls, cls._stored)

    @classmethod
    def _stored(cls, text: str) -> BackupId:
        try:
            return cls.parse(text)
        except UsageFault as fault:
            raise ValueError(fault.happened) from None


@dataclass(frozen=True, order=True)
class LegacyBackup:
    """One file of the script that this product replaces: `production/2025/12/bloom_backup_20251203_020000.sql.gz`.

    The script wrote the clock of its own machine, and nobody knows in which zone: so its moment is a span.
    """

    wall: datetime
    """As in the name, without a zone."""
    environment: str

    @classmethod
    def of_key(cls, key: str) -> LegacyBackup | None:
        """None for every other key."""
        found = _LEGACY.fullmatch(key)
        wall = _wall_clock(found)
        return None if found is None or wall is None else cls(wall, found["environment"])

    @property
    def key(self) -> str:
        return _name(self.environment, self.wall) + ".sql.gz"

    @property
    def earliest(self) -> datetime:
        """UTC, if the machine stood as far east as there are people (UTC+14)."""
        return _shifted(self.wall, -_EAST)

    @property
    def latest(self) -> datetime:
        """UTC, if it stood as far west as there are clocks (UTC-12): nothing in the file is later."""
        return _shifted(self.wall, _WEST)

    def __str__(self) -> str:
        return self.key


def is_file_name(name: str) -> bool:
    """Whether a file of a backup may be stored under this name: one plain segment, not the manifest, not a proof."""
    return bool(_FILE.fullmatch(name)) and len(name) <= 200 and name != MANIFEST and not name.startswith("proof-")


def is_proof_name(name: str) -> bool:
    """Whether this is the last part of a `BackupId.proof_key`."""
    return _PROOF.fullmatch(name) is not None


def _as_text(kind: type, read: Callable[[str], object]) -> CoreSchema:
    from_text = core_schema.no_info_after_validator_function(read, core_schema.str_schema())
    return core_schema.json_or_python_schema(
        json_schema=from_text,
        python_schema=core_schema.union_schema([core_schema.is_instance_schema(kind), from_text]),
        serialization=core_schema.plain_serializer_function_ser_schema(str),
    )


def _wall_clock(found: re.Match[str] | None) -> datetime | None:
    """The time in a name; None if there is no such day or hour, or if the folder is that of another month."""
    if found is None:
        return None
    stamp = found["stamp"]
    if found["folder"] != f"{stamp[:4]}/{stamp[4:6]}":
        return None
    try:
        return datetime.strptime(stamp, "%Y%m%d_%H%M%S")  # noqa: DTZ007 - each caller knows its zone
    except ValueError:
        return None


def _name(environment: str, at: datetime) -> str:
    return f"{environment}/{at.year:04}/{at.month:02}/bloom_backup_{_stamp(at, '_')}"


def _stamp(at: datetime, between: str) -> str:
    return f"{at.year:04}{at.month:02}{at.day:02}{between}{at.hour:02}{at.minute:02}{at.second:02}"


def _shifted(wall: datetime, by: timedelta) -> datetime:
    try:
        return (wall + by).replace(tzinfo=UTC)
    except OverflowError:  # the first or last hours of the calendar
        return wall.replace(tzinfo=UTC)
