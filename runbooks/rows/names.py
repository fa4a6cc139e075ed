"""Names of tables: what a person types, and the one table that is meant."""

from __future__ import annotations

import re
from dataclasses import dataclass

from psycopg import sql

from runbooks.model.errors import UsageFault

_PART = r'"(?:[^"\x00]|"")+"|[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]*'
_FORM = re.compile(rf"\s*(?:(?P<schema>{_PART})\s*\.\s*)?(?P<name>{_PART})\s*")
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")
_LONGEST = 63
"""NAMEDATALEN - 1: PostgreSQL cuts longer names off, which would make another name of it."""

_UPPER_ASCII = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
"""What the server folds in a multi-byte encoding: ASCII only."""


@dataclass(frozen=True, order=True)
class TableName:
    """One table (or sequence), spelled exactly as in the catalog."""

    schema: str
    name: str

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        """As a person would type it: quoted only where it must be."""
        return f"{shown(self.schema)}.{shown(self.name)}"


@dataclass(frozen=True, order=True)
class AskedName:
    """A table as asked for; without a schema it may turn out to be none or several."""

    schema: str | None
    name: str

    @classmethod
    def parse(cls, text: str) -> AskedName:
        """Read `bookings`, `public.bookings` or `public."Invoice Items"` by SQL's rules: what is not quoted is folded
        to lower case. Raises UsageFault for anything that is not one name.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise UsageFault(
                f"{text!r} is not the name of a table",
                safe="nothing was started",
                next_step='write it as bookings, public.bookings or public."Invoice Items" (quoted if it has capital '
                "letters, spaces or other signs)",
            )
        return cls(found["schema"] and _unquoted(found["schema"]), _unquoted(found["name"]))

    def __str__(self) -> str:
        return shown(self.name) if self.schema is None else f"{shown(self.schema)}.{shown(self.name)}"


def shown(part: str) -> str:
    """One part of a name, quoted if it has to be."""
    return part if _PLAIN.fullmatch(part) else '"' + part.replace('"', '""') + '"'


def _unquoted(part: str) -> str:
    name = part[1:-1].replace('""', '"') if part.startswith('"') else part.translate(_UPPER_ASCII)
    if len(name.encode()) > _LONGEST:
        raise UsageFault(
            f"the name {name!r} is longer than the {_LONGEST} bytes PostgreSQL keeps of a name",
            safe="nothing was started",
            next_step="copy the name from the database (`\\d` in psql shows it)",
        )
    return name
