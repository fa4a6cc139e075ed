"""What somebody needs to know who restores a backup without this program: the facts of the offline recovery kit."""

from __future__ import annotations

from collections.abc import Sequence

from runbooks.backups.catalog import Catalog, Listed, catalog
from runbooks.clients.repository import Repository
from runbooks.model.backup import Manifest, Rung, Tier
from runbooks.model.errors import NotFound
from runbooks.model.moment import Moment
from runbooks.model.policy import Contact
from runbooks.model.record import Record

_COLD = ("GLACIER", "DEEP_ARCHIVE")


class Example(Record):
    """The newest backup that can be relied on when the kit was made: what its restore needs holds for later ones."""

    id: str
    started: Moment
    database: str
    rows: int
    stored_size: int
    size: int
    rung: Rung
    server_major: int
    client_major: int
    """pg_restore has to be as new as the pg_dump that wrote it."""
    encoding: str
    sorting: str
    extensions: tuple[str, ...]
    roles: tuple[str, ...]
    recipients: tuple[str, ...]
    """Fingerprints: any one of their private keys opens it."""


class Kit(Record):
    environment: str
    made: Moment
    zone: str
    bucket: str
    region: str
    endpoint: str | None
    method: str
    recipients: tuple[str, ...]
    """Fingerprints of the policy's: what later backups are encrypted to."""
    local: str | None
    """Where copies lie on the machine that takes the backups."""
    cold: tuple[str, ...]
    """Tiers whose backups end in a class that has to be thawed."""
    example: Example
    legacy: str | None
    """The newest old single file, if there are any."""
    contacts: tuple[Contact, ...]


def kit_of(repository: Repository, *, contacts: Sequence[Contact], zone: str, now: Moment) -> Kit:
    """Reads the catalog. NotFound if there is no usable backup, PolicyFault without recipients; raises as `catalog`."""
    there, policy = catalog(repository), repository.policy
    found = _example(there, policy.verified_rung)
    if found is None or found.manifest is None:
        raise NotFound(
            f"there is no usable backup of {repository.environment}, so nothing says what its restore will need",
            safe="nothing was written",
            next_step="invoke backup.take --tier daily, then make the kit",
        )
    return Kit(
        environment=repository.environment,
        made=now,
        zone=zone,
        bucket=policy.bucket,
        region=policy.region,
        endpoint=policy.endpoint,
        method=repository.encryption.method,
        recipients=repository.fingerprints(),
        local=None if repository.local is None else str(repository.local),
        cold=tuple(tier.value for tier in Tier if policy.tiers[tier].storage_class in _COLD),
        example=_described(found, found.manifest),
        legacy=str(there.legacy[-1].backup) if there.legacy else None,
        contacts=tuple(contacts),
    )


def _example(there: Catalog, rung: int) -> Listed | None:
    return there.newest(lambda one: one.verified(rung)) or there.newest(lambda one: one.usable)


def _described(found: Listed, manifest: Manifest) -> Example:
    inventory = manifest.inventory
    locale = inventory.locale
    return Example(
        id=str(manifest.id),
        started=manifest.started,
        database=manifest.database,
        rows=inventory.rows,
        stored_size=manifest.stored_size,
        size=manifest.size,
        rung=found.standing.rung,
        server_major=manifest.server_version // 10000,
        client_major=int(manifest.client_version.partition(".")[0]),
        encoding=locale.encoding,
        sorting=f"{locale.provider}, collate {locale.collate}, ctype {locale.ctype}"
        + (f", locale {locale.locale}" if locale.locale else ""),
        extensions=tuple(f"{each.name} {each.version}" for each in inventory.extensions if each.name != "plpgsql"),
        roles=inventory.roles,
        recipients=manifest.encryption.recipients,
    )
