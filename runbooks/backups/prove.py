"""The proof ladder: how far one backup is proved, by reading it. Rungs 1 and 2 need nothing but the files."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path

from runbooks.backups.catalog import local_root
from runbooks.backups.reading import Broken, Open, decode, reread, stoppable
from runbooks.clients.dump_toc import NAME as TOC
from runbooks.clients.dump_toc import parse_toc
from runbooks.clients.repository import Repository
from runbooks.clients.seal import Opener
from runbooks.model.backup import Manifest, ProofRecord, Rung, StoredFile, Tier, Verdict
from runbooks.model.errors import CouldNotVerify, LocalFault, Refused
from runbooks.model.moment import Moment
from runbooks.model.retention import Place

Tell = Callable[[str], None]
READERS = 3


def prove_by_reading(
    open_stored: Open,
    manifest: Manifest,
    opener: Opener | None,
    *,
    recipients: tuple[str, ...] | None = None,
    by: str,
    clock: Callable[[], Moment],
    tell: Tell = lambda text: None,
) -> ProofRecord:
    """Rung 2 with a private key, else rung 1; a failure names the file, and the rung that still holds.

    `recipients` (None: the manifest's) are the keys that it must open with. Raises what the archive raises, so that one
    that does not answer is never told as a broken backup.
    """
    started = time.monotonic()
    rung, details, verdict = Rung.UPLOADED, (f"{len(manifest.files)} files",), Verdict.PASSED
    try:
        if opener is None:
            each_file(open_stored, manifest.files, reread, tell, "read again")
            rung = Rung.REREAD
        else:
            _decode_all(open_stored, manifest, opener, recipients or manifest.encryption.recipients, tell)
            rung = Rung.DECODED
    except Broken as broken:
        rung, details, verdict = broken.rung, (str(broken),), Verdict.FAILED
    except CouldNotVerify as error:
        # Its bytes can still be looked at.
        record = prove_by_reading(open_stored, manifest, None, by=by, clock=clock, tell=tell)
        return record.model_copy(update={"details": (*record.details, error.happened)})
    return ProofRecord(
        backup=manifest.id, at=clock(), rung=rung, verdict=verdict, by=by, details=details,
        seconds=time.monotonic() - started, manifest=manifest.digest,
    )  # fmt: skip


def store(repository: Repository, tier: Tier, record: ProofRecord, place: Place = Place.ARCHIVE) -> ProofRecord:
    """Keep a proof beside its backup; what was stored. A later one never replaces an earlier one. ArchiveFault,
    LocalFault."""
    while True:
        try:
            if place is Place.ARCHIVE:
                repository.archive.put(
                    record.key, record.to_bytes(), tags=repository.tags(tier, "proof"), storage_class="STANDARD"
                )
            else:
                write_new(local_root(repository) / record.key, record.to_bytes())
        except (Refused, FileExistsError):  # another proof of the same second
            later = Moment(record.at.utc + timedelta(seconds=1))
            record = record.model_copy(update={"at": later})
        else:
            return record


def write_new(path: Path, content: bytes) -> None:
    """A file that is there whole, on the disk, or not at all. FileExistsError, LocalFault."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, path)  # unlike a rename it replaces nothing
        beside.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        beside.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise LocalFault(
            f"{path} cannot be written: {error.strerror}",
            safe="what is in the archive is as it was",
            next_step="make room or cure what the message names, then run the same command again",
        ) from error


def _decode_all(open_stored: Open, manifest: Manifest, opener: Opener, recipients: tuple[str, ...], tell: Tell) -> None:
    """Each file is decoded, and the table of contents names no file that the manifest does not have."""
    contents = io.BytesIO()

    def one(opened: Open, file: StoredFile) -> None:
        decode(opened, file, opener, recipients, contents if file.name == TOC else None)

    each_file(open_stored, manifest.files, one, tell, "decrypted and decoded")
    check_contents(manifest, contents.getvalue())


def check_contents(manifest: Manifest, toc: bytes) -> None:
    """Broken if the dump's table of contents cannot be read, or names a file that the manifest does not have."""
    names = {file.name for file in manifest.files}
    try:
        announced = parse_toc(toc).files
    except Refused as error:
        raise Broken(Rung.REREAD, error.happened) from error
    if lost := sorted(announced.keys() - names):
        raise Broken(Rung.REREAD, f"its table of contents names files that the backup lacks: {', '.join(lost[:8])}")


def each_file(
    open_stored: Open, files: Collection[StoredFile], act: Callable[[Open, StoredFile], None], tell: Tell, what: str
) -> None:
    """In a few threads, the largest first. The first failure, or an interruption, ends all of them."""
    stopped = threading.Event()
    done, total, told = 0, sum(file.stored_size for file in files), time.monotonic()
    with ThreadPoolExecutor(READERS, thread_name_prefix="proof") as pool:
        ordered = sorted(files, key=lambda file: file.stored_size, reverse=True)
        waiting = {pool.submit(act, stoppable(open_stored, stopped), file): file for file in ordered}
        try:
            while waiting:
                finished, _ = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                for future in finished:
                    done += waiting.pop(future).stored_size
                    future.result()
                if time.monotonic() - told > 2:
                    told = time.monotonic()
                    tell(f"{what}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
