"""Seal and upload the files of one backup while it is dumped; the manifest last."""

from __future__ import annotations

import io
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runbooks.backups.prove import write_new
from runbooks.backups.storing import put
from runbooks.clients.repository import Repository
from runbooks.clients.seal import Sealer
from runbooks.model.backup import Manifest, StoredFile, Tier
from runbooks.model.backup_id import MANIFEST, BackupId
from runbooks.model.dsn import Dsn
from runbooks.model.errors import BloomError, LocalFault, Refused

SHIPPERS = 3
"""Threads that seal and upload. Sealing is what they are busy with."""


@dataclass(frozen=True)
class Order:
    """What is to be taken, and for whom it is sealed besides the policy's recipients."""

    id: BackupId
    tier: Tier
    dsn: Dsn
    sealer: Sealer
    fingerprints: tuple[str, ...]
    """Of the policy's recipients: what the manifest names."""
    workspace: Path
    """A folder of ours (0700) for what waits to be sealed and sent. Removed in the end."""


class Shipping:
    """Seals and uploads what it is handed, in threads of its own, while the dump goes on."""

    def __init__(self, repository: Repository, order: Order) -> None:
        self._repository, self._order = repository, order
        self._local = None if repository.local is None else repository.local / str(order.id)
        self._waiting: queue.SimpleQueue[tuple[Path, str | None] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name="shipping") for _ in range(SHIPPERS)]
        self._files: list[StoredFile] = []
        self._sent: list[str] = []
        """Keys that something was uploaded to, or may have been."""
        self._failure: BaseException | None = None
        self._unsent: BloomError | None = None
        """Why the archive does not hold it, where the local copy goes on without it."""

    def __enter__(self) -> Shipping:
        private_folder(self._sealed)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._failure = self._failure or KeyboardInterrupt()  # what still waits is not worth a request
        for _thread in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    @property
    def _sealed(self) -> Path:
        return self._local or self._order.workspace / "sealed"

    def hand_over(self, path: Path, table: str | None) -> None:
        """Take over a finished file, which is removed when it is sealed. Raises the first failure so far."""
        if self._failure is not None:
            raise self._failure
        self._waiting.put((path, table))

    def finish(self, tell: Callable[[str], None]) -> tuple[StoredFile, ...]:
        """Wait for everything; what was stored. Raises the first failure."""
        told = time.monotonic()
        for _thread in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.5)
                if time.monotonic() - told > 2:
                    told = time.monotonic()
                    tell(f"encrypting and uploading: {len(self._files)} files are stored, {self._waiting.qsize()} wait")
        if self._failure is not None:
            raise self._failure
        return tuple(sorted(self._files, key=lambda file: file.name))

    def close_up(self, manifest: Manifest) -> None:
        """Write the manifest: from then on there is a backup. If the archive failed, the local copy is whole."""
        if self._local is not None:
            self._close_local(manifest)
        if self._unsent is None:
            with self._sending(manifest.id.manifest_key):
                put(self._repository, manifest.id, self._order.tier, MANIFEST, manifest.to_bytes())
        else:
            raise self._unsent

    def withdraw(self, error: BaseException) -> None:
        """After a failure: remove what was uploaded. What cannot be removed is noted on `error`."""
        try:
            # The manifest first: should it be there against all appearance, nothing of it may be taken away before it.
            for key in reversed(self._sent):
                self._repository.archive.delete(key)
        except BloomError as trouble:
            error.add_note(
                f"besides, what was uploaded for {self._order.id} could not be removed: {trouble.happened}; "
                "without a manifest it is no backup, and invoke backup.prune removes it later"
            )
        if self._local is not None and not (self._local / MANIFEST).exists():
            shutil.rmtree(self._local, ignore_errors=True)

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._failure is not None:
                continue
            try:
                self._files.append(self._ship(*item))
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                self._failure = self._failure or error

    def _ship(self, path: Path, table: str | None) -> StoredFile:
        sealed = self._sealed / f"{path.name}{self._order.sealer.suffix}"
        try:
            with path.open("rb") as source, _new_file(sealed) as sink:
                passed = self._order.sealer.seal(source, sink)
            path.unlink()
        except OSError as error:
            raise LocalFault(
                f"{error.filename or sealed} cannot be written: {error.strerror}",
                safe="there is no manifest, so half a backup is never taken for one",
                next_step="make room, then take the backup again",
            ) from error
        self._send(sealed, passed.sha256_out)
        if self._local is None:
            sealed.unlink()
        return StoredFile(
            name=path.name, size=passed.size_in, sha256=passed.sha256_in, stored_name=sealed.name,
            stored_size=passed.size_out, stored_sha256=passed.sha256_out, table=table,
        )  # fmt: skip

    def _send(self, sealed: Path, sha256: str) -> None:
        if self._unsent is not None:
            return
        order = self._order
        try:
            with self._sending(order.id.file_key(sealed.name)):
                put(self._repository, order.id, order.tier, sealed.name, sealed, sha256=sha256)
        except BloomError as error:
            if self._local is None:
                raise
            self._unsent = self._unsent or error

    @contextmanager
    def _sending(self, key: str) -> Iterator[None]:
        """What may have been sent is removed again if this fails; what somebody else has put there is not ours."""
        self._sent.append(key)
        try:
            yield
        except Refused:
            self._sent.remove(key)
            raise

    def _close_local(self, manifest: Manifest) -> None:
        assert self._local is not None
        for file in manifest.files:
            _sync(self._local / file.stored_name)
        write_new(self._local / MANIFEST, manifest.to_bytes())
        if self._unsent is not None:
            self._unsent.safe = f"the local copy in {self._local} is whole; {self._unsent.safe}"
            self._unsent.next_step = "when the archive answers again: invoke backup.sync"


def private_folder(path: Path) -> None:
    """Make it and what is missing above it, each closed to others: mkdir's `parents` would leave those open."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)


def discard(repository: Repository, backup: BackupId) -> None:
    """Remove what an attempt left that never came to its manifest. Safe to repeat. Refused if it is a backup."""
    archive = repository.archive
    if archive.exists(backup.manifest_key):
        raise Refused(
            f"{backup} is a whole backup", safe="it was not removed", next_step="invoke backup.prune removes old ones"
        )
    for each in list(archive.objects(backup.prefix)):
        archive.delete(each.key)
    if repository.local is not None and not (repository.local / str(backup) / MANIFEST).exists():
        shutil.rmtree(repository.local / str(backup), ignore_errors=True)


def _new_file(path: Path) -> io.BufferedWriter:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
