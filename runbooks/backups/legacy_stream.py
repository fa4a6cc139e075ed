"""The file of an old backup as a stream: ungzipped, cut into lines and blocks of rows, little of it in memory."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from runbooks.model.errors import ProofFailed, Refused

BLOCK = 1024 * 1024
STATEMENT_LIMIT = 64 * BLOCK
"""Octets of one statement that are held in memory. Rows have no limit, unless the dump writes them as INSERTs."""
SAFE = "the backup was only read, and it counts as no backup"
_BY_HAND = "look at the file by hand; if you trust it: gunzip -c FILE | psql -X -v ON_ERROR_STOP=1, into a new database"
_ANOTHER = "fetch the file again, or use another backup"


class Unzipped:
    """The content of a gzip stream, of one member or more, in blocks of at most BLOCK octets. Goes through it once.

    ProofFailed if it is cut, damaged, or no gzip. Checksums count only when the iteration has ended.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._digest = hashlib.sha256()
        self.octets = 0
        """Of the file, as read so far."""

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        member = zlib.decompressobj(31)
        while block := self._source.read(BLOCK):
            self._digest.update(block)
            self.octets += len(block)
            while block:
                if member.eof:
                    block = block.lstrip(b"\0")  # gzip ignores what tapes and some stores fill up with
                    if not block:
                        break
                    member = zlib.decompressobj(31)
                yield from self._inflated(member, block)
                block = member.unused_data
        if self.octets == 0:
            raise broken("the file is empty")
        if not member.eof:
            raise broken(f"the file stops in the middle, after {self.octets} octets")

    def _inflated(self, member: zlib._Decompress, block: bytes) -> Iterator[bytes]:
        while block or not member.eof:
            try:
                content = member.decompress(block, BLOCK)
            except zlib.error as error:
                raise broken(f"the file is no gzip or is damaged, near octet {self.octets}: {error}") from error
            if content:
                yield content
            block = member.unconsumed_tail
            if not block and len(content) < BLOCK:
                return


class Lines:
    """Lines, and the blocks of rows between them; holds a line or two blocks at most."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._held, self._at = blocks, b"", 0

    def require_start(self, start: bytes) -> None:
        while len(self._held) < len(start) and (block := next(self._blocks, b"")):
            self._held += block
        if not self._held:
            raise broken("there is nothing in the file but the gzip around it: the dump had failed")
        if not self._held.startswith(start):
            raise broken(f"the file is not pg_dump's plain text{_likely(self._held)}")
        self._at = len(start)

    def line(self) -> bytes:
        """The next one with its end; empty at the end of all."""
        parts, size = [], 0
        while not (end := self._held.find(b"\n", self._at) + 1):
            parts.append(self._held[self._at :])
            size += len(parts[-1])
            if size > STATEMENT_LIMIT:
                raise too_long()
            self._held, self._at = next(self._blocks, b""), 0
            if not self._held:
                return b"".join(parts)
        parts.append(self._held[self._at : end])
        self._at = end
        return b"".join(parts)

    def rows(self, table: str) -> Iterator[bytes]:
        """What is before the line `\\.`, which is passed over. A backslash among the values is doubled."""
        held, first = b"\n" + self._held[self._at :], 1
        while (end := held.find(b"\n\\.\n")) < 0:
            known = len(held) - 3
            if known > first:
                yield held[first:known]
                held, first = held[known:], 0
            block = next(self._blocks, b"")
            if not block:
                raise broken(f"the dump stops among the rows of {table}")
            held += block
        if end >= first:
            yield held[first : end + 1]
        self._held, self._at = held, end + 4


def _likely(start: bytes) -> str:
    if start.startswith(b"PGDMP"):
        return ": it is an archive of pg_dump -Fc, which pg_restore reads"
    if start.startswith(b"--\n-- PostgreSQL database cluster dump"):
        return " of one database: it is pg_dumpall's"
    if start[257:262] == b"ustar":
        return ": it is a tar archive"
    return ""


def broken(why: str) -> ProofFailed:
    return ProofFailed(why, safe=SAFE, next_step=_ANOTHER)


def refused(why: str) -> Refused:
    return Refused(f"the dump is not restored: {why}", safe="no database was touched", next_step=_BY_HAND)


def too_long() -> Refused:
    return refused(f"it has a statement of more than {STATEMENT_LIMIT // BLOCK} MB")
