"""The section [backup] of the policy: where backups go, who can open them, how long each kind is kept."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from runbooks.model.backup import Rung, Tier
from runbooks.model.cron import Cron
from runbooks.model.duration import Duration, between
from runbooks.model.moment import Moment
from runbooks.model.section import Section
from runbooks.model.texts import Words, matching, one_of, service_url

FOREVER = "forever"


def _days(value: Any) -> Any:
    if isinstance(value, str):
        if value != FOREVER:
            raise ValueError(f'is neither a whole number of days nor "{FOREVER}"')
        return None
    return value


def _schedule(text: str) -> str:
    Cron.parse(text)
    return text


def _filled(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError("is empty, or contains a character that is not text")
    return text


def _telling(text: str) -> str:
    if len(text.strip()) < 10:
        raise ValueError("is so short that it would tolerate messages nobody has thought of")
    return text


def _named_once(items: tuple[Assertion, ...]) -> tuple[Assertion, ...]:
    for count, item in enumerate(items, start=1):
        if item.name in {earlier.name for earlier in items[: count - 1]}:
            raise ValueError(f"entry {count} has the name of an earlier one")
    return items


_CENTURY = 36_500
Days = Annotated[Annotated[int, Field(ge=1, le=_CENTURY)] | None, BeforeValidator(_days)]
"""Whole days; None ("forever" in the file) for no end."""
_STORAGE = ("STANDARD", "STANDARD_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE")
StorageClass = Annotated[
    Literal["STANDARD", "STANDARD_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"],
    one_of(*_STORAGE),
]
"""Of S3, less those that keep the data in one zone only."""
LockMode = Annotated[Literal["GOVERNANCE", "COMPLIANCE"], one_of("GOVERNANCE", "COMPLIANCE")]


class TierPolicy(Section):
    """How long backups of one tier are kept, in what storage, and when they are taken."""

    local_days: Days
    """In the local folder, if there is one."""
    s3_days: Days
    storage_class: StorageClass
    lock_mode: LockMode | None = None
    lock_days: Annotated[int, Field(ge=1, le=_CENTURY)] | None = None
    """Object Lock: until then nobody deletes it (COMPLIANCE), or only who may bypass the lock (GOVERNANCE)."""
    schedule: Annotated[str, AfterValidator(_schedule)] | None = None
    """In UTC; None: on demand."""

    @model_validator(mode="after")
    def _lock_is_whole(self) -> Self:
        if (self.lock_mode is None) != (self.lock_days is None):
            raise ValueError("lock_mode and lock_days belong together: give both or neither")
        if self.lock_days is not None and self.s3_days is not None and self.lock_days > self.s3_days:
            raise ValueError("lock_days is longer than s3_days: the backup would be due for deletion and locked")
        return self

    @property
    def cron(self) -> Cron | None:
        return None if self.schedule is None else Cron.parse(self.schedule)

    def locked_until(self, started: Moment) -> Moment | None:
        """Until when a backup started then is to be locked; None: not at all."""
        return None if self.lock_days is None else Moment(started.utc + timedelta(days=self.lock_days))


class Tiers(Section):
    """The defaults are the strategy's."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))

    daily: TierPolicy = TierPolicy(local_days=30, s3_days=90, storage_class="STANDARD_IA", schedule="0 2 * * *")
    weekly: TierPolicy = TierPolicy(local_days=60, s3_days=365, storage_class="GLACIER", schedule="0 4 * * 0")
    pre_migration: TierPolicy = TierPolicy(local_days=None, s3_days=1095, storage_class="DEEP_ARCHIVE")

    def __getitem__(self, tier: Tier) -> TierPolicy:
        found: TierPolicy = getattr(self, tier.name.lower())
        return found


_RECIPIENT = {
    "age": (r"age1[02-9ac-hj-np-z]{58}", "an age public key (age1 and 58 characters)"),
    "gpg": (
        r"\s*-----BEGIN PGP PUBLIC KEY BLOCK-----\n.+\n-----END PGP PUBLIC KEY BLOCK-----\s*",
        "one armoured GPG public key (gpg --armor --export KEY)",
    ),
}
_PRIVATE = re.compile(r"AGE-SECRET-KEY-|BEGIN PGP PRIVATE KEY", re.IGNORECASE)


class Encryption(Section):
    """To public keys only: who writes backups cannot read them. There are no unencrypted backups."""

    method: Annotated[Literal["age", "gpg"], one_of("age", "gpg")]
    recipients: Annotated[tuple[str, ...], Field(strict=False)]
    """Public keys, of which any one's private key opens a backup; for GPG whole and armoured, so that nobody's key ring
    is asked."""

    @model_validator(mode="after")
    def _recipients_fit(self) -> Self:
        form, what = _RECIPIENT[self.method]
        if not self.recipients:
            raise ValueError("recipients is empty: nobody could open the backups")
        for count, recipient in enumerate(self.recipients, start=1):
            if _PRIVATE.search(recipient):
                raise ValueError(
                    f"recipient {count} is a PRIVATE key: put its public key here, and make a new pair, as it was shown"
                )
            if not re.fullmatch(form, recipient, re.ASCII | re.DOTALL) or recipient.count("-----BEGIN") > 1:
                raise ValueError(f"recipient {count} is not {what}")
        if len({*self.recipients}) < len(self.recipients):
            raise ValueError("recipients names a key twice")
        return self


class Assertion(Section):
    """What the team knows must be true in its data."""

    name: Words
    sql: Annotated[str, AfterValidator(_filled)]
    """A query with one row of one column: true passes; anything else fails, NULL and no row too."""


class Tolerated(Section):
    """A message of pg_restore that is known and accepted."""

    message: Annotated[Words, AfterValidator(_telling)]
    """Accepted where it is contained in a line."""
    reason: Words


_LOCK_WAIT = between("1s", "1h", "a shorter wait fails for nothing, and behind a longer one backups pile up")
_TIME_LIMIT = between("1m", "7d", "a backup has to end, before the next but one starts")
BUCKET = r"(?!xn--)(?!.*-s3alias$)(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
"""A bucket's name, as a pattern."""


class BackupPolicy(Section):
    """Everything a backup needs to know, except secrets."""

    bucket: Annotated[str, matching(BUCKET, "the name of a bucket (without s3://)")]
    region: Annotated[str, matching(r"[a-z0-9-]{2,32}", "a region such as eu-central-1")]
    endpoint: Annotated[str, service_url("https://s3.example.com", "backups and credentials")] | None = None
    """None: AWS."""
    checksums: Annotated[Literal["required", "supported"], one_of("required", "supported")] = "required"
    """Whether the SDK adds checksums where S3 requires or wherever it supports them."""
    encryption: Encryption | None = None
    """None: no keys are chosen yet, and so no backup can be taken (only the sandbox brings its own)."""
    local_folder: Words | None = None
    """None: no local copies."""
    jobs: Annotated[int, Field(ge=1, le=64)] = 2
    from_branch: bool = False
    """Whether to dump from a short-lived branch instead of from the database itself."""
    lock_wait: Annotated[Duration, _LOCK_WAIT] = timedelta(minutes=3)
    time_limit: Annotated[Duration, _TIME_LIMIT] = timedelta(hours=4)
    verified_rung: Annotated[int, Field(ge=1, le=max(Rung))] = int(Rung.DECODED)
    """How far a backup has to be proved to count as verified: in a clean-up, and when its age is judged."""
    keep_verified: Annotated[int, Field(ge=1, le=1000)] = 3
    """So many of the newest verified backups stay, however old they become."""
    assertions: Annotated[tuple[Assertion, ...], Field(strict=False), AfterValidator(_named_once)] = ()
    tolerated: Annotated[tuple[Tolerated, ...], Field(strict=False)] = ()
    boot_command: Annotated[tuple[Words, ...], Field(strict=False, min_length=1)] | None = None
    """Program and arguments that start the application on a restored database; exit code 0 passes."""
    tiers: Tiers = Tiers()
