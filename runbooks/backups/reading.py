"""One stored file, read to its end: hashed as it lies, decrypted, hashed as it was, decoded. Nothing is kept on disk.

What a proof says, it says of bytes that went through here.
"""

from __future__ import annotations

import errno
import hashlib
import re
import threading
from collections.abc import Callable
from typing import BinaryIO, cast

import zstandard

from runbooks.clients.seal import Opener
from runbooks.model.backup import Rung, StoredFile
from runbooks.model.errors import ArchiveFault, CouldNotVerify, LoginRefused, NotFound

Open = Callable[[str], BinaryIO]
"""A stored name to its content, as a new stream; NotFound."""
_BLOCK = 1024 * 1024
_END_OF_ROWS = re.compile(rb"(?:\A|\n)\\\.\n+\Z")
_TAIL = 64


class Broken(Exception):
    """A file is not what the manifest says. `rung` is the highest that still holds for it."""

    def __init__(self, rung: Rung, why: str) -> None:
        super().__init__(why)
        self.rung = rung


def stoppable(open_stored: Open, stopped: threading.Event) -> Open:
    """The same, until `stopped` is set: then every reading of what was opened ends with an error."""
    return lambda name: cast(BinaryIO, _Stoppable(open_stored(name), stopped))


class _Stoppable:
    def __init__(self, source: BinaryIO, stopped: threading.Event) -> None:
        self._source, self._stopped = source, stopped

    def __enter__(self) -> _Stoppable:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def read(self, size: int = -1, /) -> bytes:
        if self._stopped.is_set():
            # Not InterruptedError: the cipher would try again, for ever.
            raise OSError(errno.ECANCELED, "nobody waits for this file any more")
        return self._source.read(size)


class Nothing:
    """A sink that keeps nothing."""

    def write(self, block: bytes, /) -> int:
        return len(block)


class Decoding:
    """A sink that decompresses and keeps nothing but the end; passes on what it is given to `sink`."""

    def __init__(self, file: StoredFile, sink: BinaryIO | None) -> None:
        self._file, self._sink = file, sink
        self._compressed = file.name.endswith(".zst")
        self._decoder = zstandard.ZstdDecompressor().decompressobj() if self._compressed else None
        self._fresh = True
        self._tail = b""

    def write(self, block: bytes, /) -> int:
        self._decode(block)
        if self._sink is not None:
            self._sink.write(block)
        return len(block)

    def _decode(self, block: bytes) -> None:
        if self._decoder is None:
            self._see(block)
            return
        while block:
            if self._decoder.eof:
                self._decoder = zstandard.ZstdDecompressor().decompressobj()
            try:
                self._see(self._decoder.decompress(block))
            except zstandard.ZstdError as error:
                raise Broken(Rung.REREAD, f"{self._file.name} cannot be decompressed: {error}") from error
            block = self._decoder.unused_data if self._decoder.eof else b""

    def _see(self, block: bytes) -> None:
        self._fresh = self._fresh and not block
        self._tail = (self._tail + block[-_TAIL:])[-_TAIL:]

    def close(self) -> None:
        """Broken if the content stops in the middle."""
        # Of an empty large object pg_dump compresses nothing, not even an end.
        if self._decoder is not None and not self._decoder.eof and self._file.size > 0:
            raise Broken(Rung.REREAD, f"{self._file.name} stops in the middle of a compressed block")
        if self._file.table is not None and not _END_OF_ROWS.search(self._tail):
            raise Broken(Rung.REREAD, f"{self._file.name} holds rows of {self._file.table} without their end")


def reread(open_stored: Open, file: StoredFile) -> None:
    """Read it all. Broken (rung 0) unless size and SHA-256 are the manifest's. No key is needed."""
    total, size = hashlib.sha256(), 0
    with _opened(open_stored, file) as source:
        while block := source.read(_BLOCK):
            total.update(block)
            size += len(block)
    _compare_stored(file, size, total.hexdigest())


def decode(
    open_stored: Open, file: StoredFile, opener: Opener, recipients: tuple[str, ...], sink: BinaryIO | None = None
) -> None:
    """Read it all, decrypt and decompress; the decrypted file goes to `sink`, and counts when this returns.

    `recipients`: the fingerprints that the manifest names. Broken, with the rung that holds; CouldNotVerify if
    `opener` has the key of none of them. ArchiveFault and others if the archive does not answer.
    """
    decoding = Decoding(file, sink)
    try:
        with _opened(open_stored, file) as source:
            passed = opener.unseal(source, cast(BinaryIO, decoding))
    except LoginRefused as error:
        reread(open_stored, file)
        if not {*recipients} & {*opener.fingerprints}:
            raise CouldNotVerify(
                f"it cannot be opened here: the backup is encrypted to {', '.join(recipients)}, and the keys given"
                f" are {', '.join(opener.fingerprints)}",
                safe="the backup is as it was",
                next_step="run this where one of its private keys is: BLOOM_DR_KEYS",
            ) from error
        raise Broken(Rung.REREAD, f"{file.stored_name} is not encrypted to the keys that the manifest names") from error
    except Broken:
        reread(open_stored, file)  # gpg hands out content before it has seen that the whole is right
        raise
    except ArchiveFault as error:
        reread(open_stored, file)  # wrong bytes, or an archive that does not answer, are told as what they are
        raise Broken(Rung.REREAD, f"{file.stored_name} cannot be decrypted: {error.happened}") from error
    _compare_stored(file, passed.size_in, passed.sha256_in)
    if (passed.size_out, passed.sha256_out) != (file.size, file.sha256):
        raise Broken(Rung.REREAD, f"{file.name} is not what was dumped: {passed.size_out} of {file.size} octets")
    decoding.close()


def _opened(open_stored: Open, file: StoredFile) -> BinaryIO:
    try:
        return open_stored(file.stored_name)
    except NotFound as error:
        raise Broken(Rung.UPLOADED, f"{file.stored_name} is missing") from error


def _compare_stored(file: StoredFile, size: int, sha256: str) -> None:
    if size != file.stored_size:
        raise Broken(Rung.UPLOADED, f"{file.stored_name} has {size} octets instead of {file.stored_size}")
    if sha256 != file.stored_sha256:
        raise Broken(Rung.UPLOADED, f"{file.stored_name} has other content than was stored")
