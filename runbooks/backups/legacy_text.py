r"""A gzipped plain dump, taken apart while it streams by: its statements, and the rows of its COPY blocks.

It knows exactly what pg_dump writes (PostgreSQL's pg_backup_archiver.c, and psqlscan.l for where a statement ends) and
refuses the rest. Since the server gets statements and rows, not psql, no backslash command of a file is ever run.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from runbooks.backups.legacy_stream import STATEMENT_LIMIT, Lines, broken, refused, too_long


@dataclass(frozen=True)
class Statement:
    text: bytes
    """To its semicolon, without the comments before it; in the encoding of the dump."""


class Rows:
    """A COPY block. Iterate for its rows, as they are to be sent: blocks of whole and broken lines, without the end."""

    def __init__(self, text: bytes, table: str, blocks: Iterator[bytes]) -> None:
        self.text, self.table, self.count = text, table, 0
        """The COPY statement; the table as the dump spells it, quoted where needed; the rows that went by so far."""
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            self.count += block.count(b"\n")
            yield block


IDENTIFIER = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
NAME = rf"{IDENTIFIER}(?:\.{IDENTIFIER})?"
_COPY = re.compile(rf"COPY ({NAME}) .*FROM stdin;", re.DOTALL)
_HEADER = b"--\n-- PostgreSQL database dump\n--\n"
_TRAILER = b"-- PostgreSQL database dump complete"
_SERVER, _CLIENT = b"-- Dumped from database version ", b"-- Dumped by pg_dump version "
_RESTRICT = re.compile(rb"\\(un)?restrict ([A-Za-z0-9]+)\n")
_CUT = "the dump stops before its last line (PostgreSQL database dump complete)"
_ENCODING = re.compile(rb"SET client_encoding = '(\w+)';")
_AMBIGUOUS = frozenset((b"SJIS", b"BIG5", b"GBK", b"UHC", b"GB18030", b"JOHAB", b"SHIFT_JIS_2004"))
"""Encodings in which an octet of a letter may look like a quote or a backslash."""

# Whatever this passes over means nothing for where a statement ends.
_TOKEN = re.compile(
    rb"""(?P<comment>--[^\n]*) | (?P<foreign>\\|/\*) | (?P<escaped>[eE]') | (?P<string>') | (?P<name>")
    | (?P<dollar>\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$) | (?P<open>\() | (?P<close>\)) | (?P<end>;)
    | (?P<atomic>BEGIN\ ATOMIC\b) | (?P<word>[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*)""",
    re.VERBOSE,
)
_CLOSING = {
    "string": re.compile(rb"[^']*+(?:''[^']*+)*+'"),
    "escaped": re.compile(rb"[^'\\]*+(?:(?:''|\\.)[^'\\]*+)*+'", re.DOTALL),
    "name": re.compile(rb'[^"]*+(?:""[^"]*+)*+"'),
}


class DumpText:
    """Statements and COPY blocks of a plain dump, in its order; goes through it once.

    ProofFailed if it is none, or stops before its own last line; Refused for what pg_dump does not write. What the
    dump says of itself is known when the first statement has come; that it is whole, when the iteration has ended.
    """

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._lines = Lines(iter(blocks))
        self.server_version = self.client_version = "unknown"
        self.encoding = "utf-8"
        """Python's name for it."""
        self.restricted = False
        self._key: bytes | None = None
        self._begun = self._complete = False
        self._parts: list[bytes] = []
        self._closing: re.Pattern[bytes] | None = None
        self._size = self._parentheses = self._bodies = 0

    def __iter__(self) -> Iterator[Statement | Rows]:
        self._lines.require_start(_HEADER)
        while line := self._lines.line():
            for text in self._statements(line):
                if self._complete:
                    raise refused("it goes on behind the end of the dump")
                self._begun = True
                if text[:5].upper() == b"COPY ":
                    rows = self._copy(text, line)
                    yield rows
                    for _ in rows:
                        pass
                else:
                    self._note_encoding(text)
                    yield Statement(text)
        if self._parts or not self._complete or self._key is not None:
            raise broken(_CUT)

    def _copy(self, text: bytes, line: bytes) -> Rows:
        told = text.decode(self.encoding, errors="replace")
        found = _COPY.fullmatch(told)
        if not found or not text.endswith(line[:-1]):
            raise refused(f"a COPY that pg_dump does not write: {told[:80]}")
        return Rows(text, found[1], self._lines.rows(found[1]))

    def _note_encoding(self, text: bytes) -> None:
        found = _ENCODING.fullmatch(text)
        if not found:
            return
        if found[1] in _AMBIGUOUS:
            raise refused(f"a dump in {found[1].decode()} cannot be taken apart safely")
        try:
            self.encoding = codecs.lookup(found[1].decode().replace("WIN", "cp")).name
        except LookupError:
            self.encoding = "utf-8"

    def _statements(self, line: bytes) -> Iterator[bytes]:
        """The statements that end in `line`; what is begun is kept for the next one."""
        at = start = 0
        while at < len(line):
            if self._closing is not None:
                closed = self._closing.match(line, at)
                if closed is None:
                    break
                at, self._closing = closed.end(), None
                continue
            token = _TOKEN.search(line, at)
            if token is None:
                break
            at = token.end()
            between = not self._parts and not line[start : token.start()].strip()
            if token.lastgroup == "foreign":
                if not line.endswith(b"\n"):
                    raise broken(_CUT)
                self._backslash(line if between and token.start() == 0 else b"")
                return
            if token.lastgroup == "comment" and between:
                self._comment(line.rstrip())
                start = at
            elif self._ends(token):
                yield b"".join((*self._parts, line[start:at])).strip()
                self._parts, self._size, start = [], 0, at
        self._keep(line[start:])

    def _keep(self, rest: bytes) -> None:
        if self._parts or rest.strip():
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > STATEMENT_LIMIT:
                raise too_long()

    def _ends(self, token: re.Match[bytes]) -> bool:
        """Take in a token; whether the statement ends with it."""
        kind, text = token.lastgroup, token[0]
        if kind in _CLOSING:
            self._closing = _CLOSING[kind]
        elif kind == "dollar":
            self._closing = re.compile(rb"(?s:.*?)" + re.escape(text))
        elif kind == "open":
            self._parentheses += 1
        elif kind == "close":
            self._parentheses = max(0, self._parentheses - 1)
        elif self._parentheses == 0 and kind in ("atomic", "word"):
            # A function's body in SQL itself: it ends with its own END, and so does each CASE in it.
            if kind == "atomic" or (self._bodies and text == b"CASE"):
                self._bodies += 1
            elif self._bodies and text == b"END":
                self._bodies -= 1
        return kind == "end" and not self._parentheses and not self._bodies

    def _comment(self, line: bytes) -> None:
        if line == _TRAILER:
            self._complete = True
        elif not self._begun and line.startswith(_SERVER):
            self.server_version = line.removeprefix(_SERVER).decode(errors="replace")
        elif not self._begun and line.startswith(_CLIENT):
            self.client_version = line.removeprefix(_CLIENT).decode(errors="replace")

    def _backslash(self, line: bytes) -> None:
        r"""Only pg_dump's own `\restrict` before the first statement and `\unrestrict` behind the last one are known.

        They are dropped: older versions of psql do not know them (C02), and psql is not used here.
        """
        found = _RESTRICT.fullmatch(line)
        if found and not found[1] and not self._begun and not self.restricted:
            self.restricted, self._key = True, found[2]
        elif found and found[1] and self._complete and found[2] == self._key:
            self._key = None
        elif line.startswith(b"\\connect") or (self._key and line.startswith(b"\\unrestrict")):
            raise refused("it was made with pg_dump -C: it creates a database of its own and connects to it")
        else:
            raise refused("it holds a command for psql, or a comment, that pg_dump does not write")
