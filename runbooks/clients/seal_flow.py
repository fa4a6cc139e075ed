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


BLOCK = 1024 * 1024


class Flow:
    """The two ends of a transformation: `read` from the source, `write` to the sink.

    Source and sink see large blocks, whatever the transformation asks for: a cipher that takes 8 KiB at a time would
    spend its time on changing hands.
    """

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink
        self._in, self._out = hashlib.sha256(), hashlib.sha256()
        self._size_in = self._size_out = 0
        self._waiting = memoryview(b"")
        self._written = bytearray()
        self.failure: BaseException | None = None
        """The first fault of the source or the sink."""

    def read(self, size: int, /) -> bytes:
        """At most `size`; empty at the end."""
        if not self._waiting:
            self._waiting = memoryview(self._fetched())
        block, self._waiting = self._waiting[:size], self._waiting[size:]
        return bytes(block)

    def write(self, block: bytes, /) -> int:
        self._written += block
        if len(self._written) >= BLOCK:
            self._hand_over()
        return len(block)

    def flush(self) -> None:
        """The transformation may flush as often as it likes."""

    def passed(self) -> Passed:
        """When the transformation is done: hands over the rest. Raises what `raise_own` does."""
        try:
            self._hand_over()
        except Exception:
            self.raise_own()
            raise
        return Passed(self._size_in, self._in.hexdigest(), self._size_out, self._out.hexdigest())

    def _fetched(self) -> bytes:
        try:
            block = self._source.read(BLOCK) or b""
        except BaseException as error:
            self.failure = self.failure or error
            raise
        self._in.update(block)
        self._size_in += len(block)
        return block

    def _hand_over(self) -> None:
        block, self._written = bytes(self._written), bytearray()
        try:
            self._sink.write(block)
        except BaseException as error:
            self.failure = self.failure or error
            raise
        self._out.update(block)
        self._size_out += len(block)

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
