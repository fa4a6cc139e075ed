"""Answer of `backup.break`: a copy of a backup is damaged, and the proof ladder has to catch it where it should."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runbooks.backups.catalog import look_at
from runbooks.backups.damage import CAUGHT_AT, How, damage, removed_on_error
from runbooks.backups.ladder import climb
from runbooks.backups.prove import store
from runbooks.backups.workspace import workspace
from runbooks.clients.repository import Repository
from runbooks.clients.world import World
from runbooks.model.backup import Manifest, ProofRecord, Rung, Verdict
from runbooks.model.backup_id import BackupId
from runbooks.model.errors import CouldNotVerify, ProofFailed, Refused
from runbooks.model.retention import Place
from runbooks.report.answer import Answer

Tell = Callable[[str], None]
_REMOVED = "the original was only read, and the damaged copy was removed"


def broken(world: World, backup: BackupId, how: How, *, tell: Tell) -> Answer:
    """Damage a copy of `backup`, climb the ladder on it, and keep the proof that it is broken. The original stays.

    Refused outside of a sandbox, or for a backup that is not whole. ProofFailed if the damage is not caught, or at
    another rung than it should; CouldNotVerify if nothing can be said: the copy is removed then. Raises as `damage`.
    """
    if not world.environment.sandbox:
        raise Refused(
            f"{world.name} is no sandbox, and backups are broken in a sandbox only",
            safe="nothing was read and nothing was stored",
            next_step="name the sandbox: --env sandbox",
        )
    repository, original = world.repository, _whole(world.repository, backup)
    told: list[str] = []
    opener = repository.require_opener()
    copy = damage(repository, original, how, opener=opener, at=world.now().utc, tell=told.append)
    tell("; ".join(told))
    with removed_on_error(repository, copy):
        records = _climbed(world, copy, tell)
        _require_caught(copy, how, records[-1], told)
        stored = [store(repository, original.tier, record) for record in records]
    return _answer(backup, copy, how, stored[-1], told)


def _whole(repository: Repository, backup: BackupId) -> Manifest:
    listed = look_at(repository, backup)
    if listed.manifest is None or not listed.usable:
        raise Refused(
            f"{backup} is broken or not whole already, so nothing can be learned from breaking it",
            safe="it was only read",
            next_step="name a good one: invoke backup.list",
        )
    return listed.manifest


def _climbed(world: World, copy: BackupId, tell: Tell) -> Sequence[ProofRecord]:
    """As it lies in the archive: the manifest too is read from there."""
    repository = world.repository
    manifest = Manifest.from_bytes(repository.archive.read(copy.manifest_key))
    with workspace() as folder:
        return climb(
            repository, manifest, up_to=Rung.INTEGRAL, opener=repository.require_opener(), place=Place.ARCHIVE,
            workspace=folder, by=f"backup.break by {world.operator}", clock=world.now, tell=tell,
        )  # fmt: skip


def _require_caught(copy: BackupId, how: How, last: ProofRecord, told: list[str]) -> None:
    words = "; ".join(last.details)
    if last.verdict is Verdict.COULD_NOT_VERIFY:
        raise CouldNotVerify(
            f"the damaged copy could not be verified beyond rung {_rung(last.rung)}: {words}",
            safe=_REMOVED,
            next_step="cure what the message names, then run the same command again",
        )
    if (last.verdict, last.rung) != (Verdict.FAILED, CAUGHT_AT[how]):
        found = "not caught" if last.verdict is Verdict.PASSED else f"caught at rung {_rung(_next(last.rung))}"
        raise ProofFailed(
            f"{'; '.join(told)}: that was {found}, and rung {_rung(_next(CAUGHT_AT[how]))} has to catch it ({words})",
            safe=_REMOVED,
            next_step="do not rely on proofs of this version; tell who maintains it: this message is the report",
        )


def _answer(original: BackupId, copy: BackupId, how: How, last: ProofRecord, told: list[str]) -> Answer:
    caught = _next(last.rung)
    lines = [
        f"original    {original}, as it was",
        f"copy        {copy}",
        f"damage      {how}: {'; '.join(told)}",
        f"caught at   rung {_rung(caught)}, as it has to be",
        *(f"            {each}" for each in last.details),
        "the copy is marked as broken: invoke backup.list shows it, and no restore takes it",
    ]
    data = {
        "original": str(original),
        "copy": str(copy),
        "how": how.value,
        "damage": told,
        "caught_at": int(caught),
        "holds": int(last.rung),
        "details": list(last.details),
        "proof": last.key,
        "seconds": last.seconds,
    }
    return Answer("\n".join(lines), data)


def _next(rung: Rung) -> Rung:
    return Rung(rung + 1)


def _rung(rung: Rung) -> str:
    return f"{int(rung)} ({rung.name.lower()})"
