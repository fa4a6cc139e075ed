"""How a bucket is set up: versions, locks, encryption, public access. Found, never assumed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from runbooks.clients.archive_types import Posture
from runbooks.clients.archive_wire import Trouble, Wire

T = TypeVar("T")

_NOT_SET = frozenset({
    "ObjectLockConfigurationNotFoundError", "ServerSideEncryptionConfigurationNotFoundError",
    "NoSuchPublicAccessBlockConfiguration",
})  # fmt: skip
_UNSEEN = frozenset({"AccessDenied", "403", "NotImplemented", "501", "MethodNotAllowed"})
"""No right to look, or a store that does not know the thing: an answer, but not one about the bucket."""


def posture_of(wire: Wire) -> Posture:
    """Raises Trouble if the bucket cannot be reached or does not exist."""
    unseen: dict[str, str] = {}

    def look(name: str, operation: str, read: Callable[[dict[str, Any]], T], not_set: T) -> T | None:
        try:
            return read(wire.call(operation))
        except Trouble as trouble:
            if trouble.code in _NOT_SET:
                return not_set
            if trouble.code not in _UNSEEN:
                raise
            unseen[name] = f"{trouble.message} [{trouble.code}]"
            return None

    wire.call("head_bucket")
    no_lock: tuple[bool, str | None] = (False, None)
    lock = look("object_lock", "get_object_lock_configuration", _lock, no_lock)
    return Posture(
        versioned=look("versioned", "get_bucket_versioning", lambda a: a.get("Status") == "Enabled", False),
        object_lock=lock[0] if lock else None,
        default_lock=lock[1] if lock else None,
        encryption=look("encryption", "get_bucket_encryption", _encryption, "none"),
        public_access_blocked=look("public_access_blocked", "get_public_access_block", _blocked, False),
        unseen=unseen,
    )


def _lock(answer: dict[str, Any]) -> tuple[bool, str | None]:
    found = answer.get("ObjectLockConfiguration", {})
    default = found.get("Rule", {}).get("DefaultRetention")
    spelled = None
    if default:
        days, years = default.get("Days"), default.get("Years")
        spelled = f"{default.get('Mode')} {days} days" if days else f"{default.get('Mode')} {years} years"
    return found.get("ObjectLockEnabled") == "Enabled", spelled


def _encryption(answer: dict[str, Any]) -> str:
    rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    used = [each.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm") for each in rules]
    return next((each for each in used if each), "none")


def _blocked(answer: dict[str, Any]) -> bool:
    found = answer.get("PublicAccessBlockConfiguration", {})
    four = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    return all(found.get(each) is True for each in four)
