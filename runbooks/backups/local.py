"""Local copies of backups: the same octets as in the archive, so what is proved of these is proved of those."""

from __future__ import annotations

import time
from collections.abc import Callable

from runbooks.backups.catalog import opening
from runbooks.backups.prove import prove_by_reading, store
from runbooks.clients.repository import Repository
from runbooks.model.backup import Manifest, ProofRecord, Verdict
from runbooks.model.moment import Moment
from runbooks.model.retention import Place


def prove_local(
    repository: Repository, manifest: Manifest, record: ProofRecord, *, clock: Callable[[], Moment]
) -> ProofRecord:
    """Read the local copy of `manifest` again and keep what is proved of it, beside it.

    Octets that have the archive's hashes have its proof too: the rung of `record`, if that passed. Raises LocalFault.
    """
    started = time.monotonic()
    found = prove_by_reading(opening(repository, manifest.id, Place.LOCAL), manifest, None, by=record.by, clock=clock)
    if (found.verdict, record.verdict) == (Verdict.PASSED, Verdict.PASSED):
        seconds = time.monotonic() - started
        found = found.model_copy(update={"rung": record.rung, "details": record.details, "seconds": seconds})
    return store(repository, manifest.tier, found, Place.LOCAL)
