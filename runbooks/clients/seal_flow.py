"""A stream that is counted and hashed while it passes, and whose own faults are not lost in somebody else's error."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from runbooks.model.errors import BloomError, LocalFault


@dataclass(frozen=True)
class Passed:
    """What went in and what came out; SHA-256 in hex."""

    size_in: int
    sha256_in: str
    size_out: int
    sha256_out: str


class Flow:
    """The two ends of a transformation: `read` from the source, `write` to the sink."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink
        self._in, self._out = hashlib.sha256(), hashlib.sha256()
        self._size_in = self._size_out = 0
        self.failure: BaseException | None = None
        """The first fault of the source or the sink."""

    def read(self, size: int = -1, /) -> bytes:
        try:
            block = self._source.read(size) or b""
        except BaseException as error:
            self.failure = self.failure or error
            raise
        self._in.update(block)
        self._size_in += len(block)
        return block

    def write(self, block: bytes, /) -> int:
        try:
            self._sink.write(block)
        except BaseException as error:
            self.failure = self.failure or error
            raise
        self._out.update(block)
        self._size_out += len(block)
        return len(block)

    def flush(self) -> None:
        self._sink.flush()

    def passed(self) -> Passed:
        return Passed(self._size_in, self._in.hexdigest(), self._size_out, self._out.hexdigest())

    def raise_own(self) -> None:
        """The fault of the source or sink, if there was one: OSError as LocalFault, anything else as it is."""
        error = self.failure
        if isinstance(error, OSError) and not isinstance(error, BloomError):
            raise LocalFault(
                f"a file could not be read or written while it was encrypted or decrypted: {error.strerror or error}",
                safe="what was written so far is not used",
                next_step="make room or cure what the message names, then repeat this",
            ) from error
        if error is not None:
            raise error
