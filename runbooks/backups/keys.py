"""Who can open the backups: public keys of the policy, private keys given here, and one file that is really opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from runbooks.backups.catalog import Listed, catalog, opening
from runbooks.backups.reading import Broken, decode
from runbooks.clients.archive_types import Readable
from runbooks.clients.repository import KEYS, Repository
from runbooks.clients.seal import KeyPair, Opener
from runbooks.model.backup import Manifest, StoredFile, Verdict
from runbooks.model.errors import CouldNotVerify, LocalFault, Refused
from runbooks.model.moment import Moment
from runbooks.model.retention import Place


@dataclass(frozen=True)
class Checked:
    """Fingerprints of keys, never keys."""

    policy: tuple[str, ...]
    """Whom the next backup will be encrypted to."""
    here: tuple[str, ...]
    """Of the private keys given on this machine."""
    newest: Manifest | None
    """Of the newest backup that has one."""
    tried: StoredFile | None
    tried_of: Manifest | None
    """Whose file was opened: the newest backup that nothing bad is known of and that can be read now."""
    verdict: Verdict
    why: str
    next_step: str | None

    @property
    def removed(self) -> tuple[str, ...]:
        """Keys that open the newest backup and are no longer the policy's."""
        return () if self.newest is None else _without(self.newest.encryption.recipients, self.policy)

    @property
    def added(self) -> tuple[str, ...]:
        """Keys of the policy that do not open the newest backup."""
        return () if self.newest is None else _without(self.policy, self.newest.encryption.recipients)


def check(repository: Repository) -> Checked:
    """Read the smallest file of a backup and open it. PASSED only if it is what was dumped, hash by hash.

    Only reads. PolicyFault if the policy names no keys, UsageFault for a key file that others may read or that is none;
    raises as `catalog` besides.
    """
    policy, opener = repository.fingerprints(), repository.opener()
    found = catalog(repository)
    newest = found.newest(lambda one: one.manifest is not None)
    whole = found.newest(lambda one: one.usable and isinstance(one.access, Readable))
    tried = None
    if opener is None:
        verdict, why = Verdict.COULD_NOT_VERIFY, "no private key is given on this machine"
        cure: str | None = f"where a private key is: {KEYS}=FILE invoke backup.keys"
    elif whole is None or whole.manifest is None:
        why = "there is no backup yet" if newest is None else "there is no whole backup that can be read now"
        verdict, cure = Verdict.COULD_NOT_VERIFY, f"invoke backup.{'take --tier daily' if newest is None else 'list'}"
    else:
        tried = min(whole.manifest.files, key=lambda file: (file.stored_size, file.name))
        verdict, why, cure = _open(repository, whole.manifest, tried, opener)
    return Checked(
        policy=policy,
        here=() if opener is None else opener.fingerprints,
        newest=_manifest(newest),
        tried=tried,
        tried_of=_manifest(whole) if tried else None,
        verdict=verdict,
        why=why,
        next_step=cure,
    )


def _open(
    repository: Repository, manifest: Manifest, file: StoredFile, opener: Opener
) -> tuple[Verdict, str, str | None]:
    what = f"{file.stored_name} of {manifest.id}"
    try:
        decode(opening(repository, manifest.id, Place.ARCHIVE), file, opener, manifest.encryption.recipients)
    except CouldNotVerify as error:  # no key here is one of the backup's: that is the answer, not a want of one
        cure = "give one of the keys that it is encrypted to; if all are lost, take a new backup at once"
        return Verdict.FAILED, f"{what}: {error.happened}", cure
    except Broken as broken:
        cause = getattr(broken.__cause__, "happened", None)
        why = f"{what} does not open: {broken}" + (f" ({cause})" if cause else "")
        return Verdict.FAILED, why, f"invoke backup.verify --id {manifest.id}"
    return Verdict.PASSED, f"{what} was read, opened with a private key given here, and is what was dumped", None


def new_pair(path: Path, now: Moment) -> str:
    """Make an age pair: its private key into the new file `path` (0600), readable for age itself; its public key is
    returned. Refused if something is there already; LocalFault, and then nothing is left there.
    """
    pair = KeyPair.new("age")
    text = f"# created: {now.iso()}\n# public key: {pair.recipient}\n{pair.secret.reveal()}\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Refused(
            f"{path} is there already, and may hold the only key to older backups",
            safe="it was not touched, and no key was made",
            next_step="name a new file: invoke backup.keys --new FILE",
        ) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink()
        raise _unwritable(path, error) from error
    return pair.recipient


def _unwritable(path: Path, error: OSError) -> LocalFault:
    return LocalFault(
        f"the key file {path} cannot be written: {error.strerror}",
        safe="no key is in use that was not kept",
        next_step="cure what the message names, or name a file elsewhere: invoke backup.keys --new FILE",
    )


def _manifest(listed: Listed | None) -> Manifest | None:
    return None if listed is None else listed.manifest


def _without(keys: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(key for key in keys if key not in known)
