"""What the archive tells: locks, stored objects, and whether an object can be read now (C18)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from runbooks.model.moment import Moment

GOVERNANCE: Literal["GOVERNANCE"] = "GOVERNANCE"
COMPLIANCE: Literal["COMPLIANCE"] = "COMPLIANCE"
THAW_TAKES: Mapping[str, timedelta] = {
    "GLACIER": timedelta(hours=5),
    "DEEP_ARCHIVE": timedelta(hours=12),
    "ARCHIVE_ACCESS": timedelta(hours=5),
    "DEEP_ARCHIVE_ACCESS": timedelta(hours=12),
}
"""The longest that AWS names for a standard retrieval, by class, or by tier of INTELLIGENT_TIERING. Every other class
(GLACIER_IR too) is readable at once."""
_RESTORE = re.compile(r'ongoing-request="(true|false)"(?:.*expiry-date="([^"]+)")?')


@dataclass(frozen=True)
class Lock:
    """Until when no version may be deleted: by nobody without the bypass right, or (COMPLIANCE) by nobody at all."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"]
    until: Moment


@dataclass(frozen=True)
class Stored:
    """An object that is in the archive, whole: its size and SHA-256 were compared there."""

    key: str
    size: int
    sha256: str
    """Hex, of the whole object."""
    version: str | None
    """None in a bucket without versions."""


@dataclass(frozen=True)
class StoredObject:
    """A line of a listing."""

    key: str
    size: int
    modified: Moment
    storage_class: str


@dataclass(frozen=True)
class Readable:
    """Now; `until` if it is a thawed copy that goes away."""

    until: Moment | None = None


@dataclass(frozen=True)
class Thawing:
    """Asked for and not there yet."""

    takes: timedelta
    """From the asking on, at most."""


@dataclass(frozen=True)
class Cold:
    """Not readable before a thaw is asked for."""

    takes: timedelta


Access = Readable | Thawing | Cold


@dataclass(frozen=True)
class Head:
    size: int
    sha256: str | None
    """Hex, of the whole object; what its writer noted, or what the store computed. None if nobody told."""
    storage_class: str
    access: Access
    locked_until: Moment | None
    tags: Mapping[str, str]
    modified: Moment


@dataclass(frozen=True)
class Posture:
    """How the bucket is set up, as found. None: could not be seen; the reason is in `unseen`."""

    versioned: bool | None
    object_lock: bool | None
    default_lock: str | None
    """'GOVERNANCE 30 days'; None also if there is none."""
    encryption: str | None
    """'aws:kms', 'AES256' or 'none'."""
    public_access_blocked: bool | None
    """All four switches."""
    unseen: Mapping[str, str] = field(default_factory=dict)
    """Field to what S3 said."""


def access_of(head: Mapping[str, Any]) -> Access:
    """From an answer of HeadObject: class, archive tier and the state of a thaw."""
    takes = THAW_TAKES.get(head.get("ArchiveStatus") or head.get("StorageClass") or "STANDARD")
    if takes is None:
        return Readable()
    found = _RESTORE.search(head.get("Restore") or "")
    if found is None:
        return Cold(takes)
    if found[1] == "true":
        return Thawing(takes)
    return Readable(Moment.of(parsedate_to_datetime(found[2])) if found[2] else None)


def locked_until(answer: Mapping[str, Any]) -> Moment | None:
    """From an answer of HeadObject or GetObject; None also where we may not see it."""
    until = answer.get("ObjectLockRetainUntilDate")
    return Moment.of(until) if until else None
