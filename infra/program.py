"""All components of a stack, in the order in which they need one another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra import access, bucket, counted, secret, timetable
from infra.access import Access, AccessArgs
from infra.alarms import Alarms, AlarmsArgs
from infra.audit import Audit, AuditArgs
from infra.boundary import boundary
from infra.bucket import Archive, ArchiveArgs
from infra.neon import NeonProject, NeonProjectArgs
from infra.rights import Log
from infra.schedule import Schedule, ScheduleArgs
from infra.secret import DatabaseSecret, DatabaseSecretArgs
from infra.settings import Settings
from infra.watches import Watched


@dataclass(frozen=True)
class Place:
    """Where a stack goes."""

    account: str
    region: str
    boundary_arn: pulumi.Input[str]
    protect: bool


def provision(settings: Settings) -> None:
    """Declare everything, and export what people and their tools need to know. PolicyFault before anything is."""
    neon = {
        name: NeonProjectArgs.of(name, environment, settings.section, os.environ)
        for name, environment in settings.environments.items()
    }
    account, region = aws.get_caller_identity().account_id, aws.get_region().region
    protect = not settings.is_sandbox
    _check(settings, Place(account, region, "", protect))
    limit = boundary(settings.names, settings.backup.bucket, account, protect=protect)
    place = Place(account, region, limit, protect)
    archive = _archive(settings, place)
    audit = _audit(settings, place, archive)
    identities = _access(settings, place, archive, audit)
    secrets = _secrets(settings, place)
    if settings.image is not None:
        _schedule(settings, place, identities, secrets, settings.image)
    _alarms(settings, place)
    for name, args in neon.items():
        pulumi.export(f"neon-{name}", NeonProject(name, args).project_id)
    pulumi.export("bucket", archive.bucket)
    pulumi.export("roles", {identity.value: role.arn for identity, role in identities.roles.items()})
    pulumi.export("databaseUrls", {name: each.secret_arn for name, each in secrets.items()})


def _check(settings: Settings, place: Place) -> None:
    """All that the components would refuse by themselves, before the first of them is declared."""
    bucket.check(_archive_args(settings, place))
    access.check(settings.names, settings.section, settings.backup, place.account)
    counted.check(settings.names, tuple(settings.environments), place.account, place.region)
    for name in settings.environments:
        secret.check(_secret_args(settings, place, name))
    if settings.image is not None:
        timetable.check(settings.environments, settings.backup)


def _archive(settings: Settings, place: Place) -> Archive:
    return Archive("archive", _archive_args(settings, place))


def _archive_args(settings: Settings, place: Place) -> ArchiveArgs:
    return ArchiveArgs(
        names=settings.names,
        backup=settings.backup,
        account=place.account,
        region=place.region,
        boundary_arn=place.boundary_arn,
        replica=settings.section.replica,
        protect=place.protect,
    )


def _audit(settings: Settings, place: Place, archive: Archive) -> Audit:
    return Audit(
        "audit",
        AuditArgs(
            names=settings.names,
            environments=tuple(settings.environments),
            stores=[store for store in (archive.store, archive.replica) if store],
            account=place.account,
            region=place.region,
            boundary_arn=place.boundary_arn,
            protect=place.protect,
        ),
    )


def _access(settings: Settings, place: Place, archive: Archive, audit: Audit) -> Access:
    return Access(
        "access",
        AccessArgs(
            names=settings.names,
            section=settings.section,
            backup=settings.backup,
            account=place.account,
            store=archive.store,
            replica=archive.replica,
            logs=[Log(audit.bucket_arn, audit.key_arn), Log(archive.log_bucket_arn, None)],
            boundary_arn=place.boundary_arn,
            protect=place.protect,
            github_arn=settings.github_provider,
        ),
    )


def _secrets(settings: Settings, place: Place) -> dict[str, DatabaseSecret]:
    if not settings.rotates:
        pulumi.log.warn("DATABASE_URL is not rotated yet: put its value, then pulumi config set rotate true")
    return {name: DatabaseSecret(name, _secret_args(settings, place, name)) for name in settings.environments}


def _secret_args(settings: Settings, place: Place, name: str) -> DatabaseSecretArgs:
    tasks = f"arn:aws:iam::{place.account}:role/{settings.names.service_role('execution')}"
    return DatabaseSecretArgs(
        names=settings.names,
        environment=name,
        account=place.account,
        region=place.region,
        boundary_arn=place.boundary_arn,
        readers=settings.section.applications,
        rotates=settings.rotates,
        rotation_days=settings.section.rotation_days,
        protect=place.protect,
        others={} if settings.image is None else {"neon-api-key": [tasks], "backup-key": [tasks]},
        recovery_days=30 if place.protect else 0,
    )


def _schedule(
    settings: Settings, place: Place, identities: Access, secrets: Mapping[str, DatabaseSecret], image: str
) -> None:
    first = next(iter(secrets.values()))
    Schedule(
        "schedule",
        ScheduleArgs(
            names=settings.names,
            environments=settings.environments,
            backup=settings.backup,
            image=image,
            roles=identities.roles,
            boundary_arn=place.boundary_arn,
            neon_keys={name: each.other_arns["neon-api-key"] for name, each in secrets.items()},
            backup_key=first.other_arns["backup-key"],
            secret_key_arns=[each.key_arn for each in secrets.values()],
            account=place.account,
            region=place.region,
            zones=_zones(),
            protect=place.protect,
        ),
    )


def _zones() -> list[str]:
    """Two of the region's own: Local Zones, which an account may have opted into, have no Fargate."""
    own = aws.GetAvailabilityZonesFilterArgs(name="opt-in-status", values=["opt-in-not-required"])
    return sorted(aws.get_availability_zones(state="available", filters=[own]).names)[:2]


def _alarms(settings: Settings, place: Place) -> None:
    Alarms(
        "alarms",
        AlarmsArgs(
            watched=Watched(settings.names, settings.section, settings.backup, settings.environments),
            objectives=settings.policy.objectives,
            pagerduty_url=settings.pagerduty_url,
            account=place.account,
            region=place.region,
            boundary_arn=place.boundary_arn,
            protect=place.protect,
        ),
    )
