"""The files of a backup, decrypted into a folder. Each was compared with both of its hashes and decoded on the way."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from runbooks.backups.prove import check_contents, each_file
from runbooks.backups.reading import Broken, Open, decode
from runbooks.clients.dump_toc import NAME as TOC
from runbooks.clients.seal import Opener
from runbooks.model.backup import Manifest, Rung, StoredFile
from runbooks.model.errors import LocalFault

_SAFE = "the backup is as it was, and no database was touched"


def fetch(
    open_stored: Open,
    manifest: Manifest,
    folder: Path,
    opener: Opener,
    *,
    names: Collection[str] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """All files (or those that the dump calls `names`) into `folder`, which is made (0700) if it is not there.

    On return each is there as it was dumped, so that a restore need not look at them again (`checked`); safe to repeat.
    Broken, with the file's name and the rung that holds, if one is not what the manifest says; CouldNotVerify without a
    key that fits; LocalFault if there is no room, before anything is read; else what `open_stored` raises. The files
    hold readable rows: removing the folder is the caller's, whatever happens.
    """
    files = manifest.files if names is None else tuple(_named(manifest, name) for name in sorted({*names}))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_room(folder, sum(file.size for file in files))
    recipients = manifest.encryption.recipients

    def one(opened: Open, file: StoredFile) -> None:
        with _arriving(folder / file.name) as sink:
            decode(opened, file, opener, recipients, sink)

    each_file(open_stored, files, one, tell, "fetched, decrypted and decoded")
    if names is None:
        check_contents(manifest, (folder / TOC).read_bytes())


def fetch_one(open_stored: Open, manifest: Manifest, name: str, opener: Opener) -> bytes:
    """A small file, in memory: `toc.dat`, `globals.sql`. Raises as `fetch`."""
    content = io.BytesIO()
    decode(open_stored, _named(manifest, name), opener, manifest.encryption.recipients, content)
    return content.getvalue()


def _named(manifest: Manifest, name: str) -> StoredFile:
    file = manifest.file(name)
    if file is None:
        raise Broken(Rung.REREAD, f"the backup lacks {name}")
    return file


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise LocalFault(
            f"{free / 1e6:,.0f} MB are free in {folder}, and the decrypted dump has {size / 1e6:,.0f} MB",
            safe=f"nothing was fetched; {_SAFE}",
            next_step="make room there, or keep runs on another disk (BLOOM_DR_RUNS)",
        )


@contextmanager
def _arriving(path: Path) -> Iterator[BinaryIO]:
    """A new file (0600), removed again unless it came whole."""
    try:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise LocalFault(
                f"{path} cannot be written: {error.strerror}", safe=_SAFE, next_step="cure what the message names"
            ) from error
        raise
