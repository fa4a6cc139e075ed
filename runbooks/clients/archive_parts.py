"""The content of an upload: how it is cut into parts, and windows on a file that stream without holding it (C15)."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runbooks.model.errors import LocalFault, Refused

MIB = 1024 * 1024
USUAL_PART = 16 * MIB
"""Fastest of those tried; anything up to it goes in one request."""
LARGEST_PART = 5 * 1024 * MIB
MOST_PARTS = 10_000
BLOCK = MIB


@dataclass(frozen=True)
class Part:
    number: int
    """From 1."""
    offset: int
    size: int


def part_size(size: int, *, most: int = MOST_PARTS) -> int:
    """The size of all parts but the last, in whole MiB, so that `size` bytes fit into `most` parts.

    Refused if they cannot: S3 takes parts of at most 5 GiB.
    """
    fitting = max(USUAL_PART, -(-size // (most * MIB)) * MIB)
    if fitting > LARGEST_PART:
        raise Refused(
            f"an object of {size} bytes does not fit into {most} parts of at most 5 GiB",
            safe="nothing was uploaded",
            next_step="split the table that makes such a file (partition it), then take the backup again",
        )
    return fitting


def parts_of(size: int, *, most: int = MOST_PARTS) -> Iterator[Part]:
    """In order and without gaps; an empty object has one empty part."""
    step = part_size(size, most=most)
    for number, offset in enumerate(range(0, max(size, 1), step), start=1):
        yield Part(number, offset, min(step, size - offset))


@dataclass(frozen=True)
class Digest:
    """SHA-256 of a content as a whole and of its parts, of one and the same reading."""

    whole: str
    """Hex."""
    parts: tuple[str, ...]
    """Base64, as S3 spells them."""

    @property
    def checksum(self) -> str:
        """What S3 has to show for the object: its own sum for one part, else the sum of the sums and their number."""
        if len(self.parts) == 1:
            return self.parts[0]
        sums = hashlib.sha256(b"".join(map(base64.b64decode, self.parts))).digest()
        return f"{base64.b64encode(sums).decode()}-{len(self.parts)}"


class Content:
    """Bytes, or a file that is read as it is sent: never more than a block of it is in memory."""

    def __init__(self, source: Path | bytes) -> None:
        """LocalFault if the file cannot be read."""
        self._source = source
        self.size = len(source) if isinstance(source, bytes) else self._measured(source)

    def parts(self) -> tuple[Part, ...]:
        return tuple(parts_of(self.size))

    def digest(self) -> Digest:
        """Reads all of it once. LocalFault."""
        whole, sums = hashlib.sha256(), []
        for part in self.parts():
            own = hashlib.sha256()
            with self.window(part) as body:
                while block := body.read(BLOCK):
                    whole.update(block)
                    own.update(block)
            sums.append(base64.b64encode(own.digest()).decode())
        return Digest(whole.hexdigest(), tuple(sums))

    def window(self, part: Part) -> Window:
        """The part as a file of its own."""
        if isinstance(self._source, bytes):
            return Window(io.BytesIO(self._source), "the content", part)
        try:
            return Window(self._source.open("rb", buffering=0), self._source.name, part)
        except OSError as error:
            raise _unreadable(self._source.name, error) from error

    @staticmethod
    def _measured(path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError as error:
            raise _unreadable(path.name, error) from error


class Window(io.RawIOBase):
    """A stretch of a file, as boto3 takes it for a body.

    The HTTP library turns an error while it reads a body into one of its own; `failure` keeps ours.
    """

    def __init__(self, file: BinaryIO, name: str, part: Part) -> None:
        self._file, self._name, self._part = file, name, part
        self._at = 0
        self.failure: LocalFault | None = None
        self._file.seek(part.offset)

    def read(self, size: int | None = -1, /) -> bytes:
        """At least what is left or `size`; up to a block more than asked, as http.client asks for 16 KiB at a time."""
        left = self._part.size - self._at
        wanted = left if size is None or size < 0 else min(left, max(size, BLOCK // 4))
        try:
            block = self._file.read(wanted)
        except OSError as error:
            self.failure = _unreadable(self._name, error)
            raise self.failure from error
        if wanted and not block:
            self.failure = LocalFault(
                f"{self._name} became shorter while it was uploaded",
                safe="nothing appeared in the archive",
                next_step="find out what changes the file, then repeat this",
            )
            raise self.failure
        self._at += len(block)
        return block

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._part.size}[whence]
        self._at = min(max(base + offset, 0), self._part.size)
        self._file.seek(self._part.offset + self._at)
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _unreadable(name: str, error: OSError) -> LocalFault:
    return LocalFault(
        f"{name} cannot be read: {error.strerror or error}",
        safe="nothing appeared in the archive",
        next_step="make the file readable, then repeat this",
    )
