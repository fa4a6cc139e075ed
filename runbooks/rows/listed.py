"""Some rows of ours: how many there are, and the first of their keys."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.model.record import Record
from runbooks.rows.compose import fields, row_text

SHOWN = 20
"""So many keys of a list are spelled out; the count is always whole."""


class Listed(Record):
    count: int
    keys: tuple[str, ...]
    """The first of them, as record text: `(17)`, `(17,abc)`."""


NONE = Listed(count=0, keys=())


def listed(
    conn: Connection, rows: sql.Composable, alias: str, k: Sequence[str], *, shown: sql.Composable | None = None
) -> Listed:
    """The rows of a FROM clause, whose item `alias` has the key k1, k2, ...; each is told by it, or as `shown`."""
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(rows)).fetchone()
    if row is None or row[0] == 0:
        return NONE
    first = conn.execute(
        sql.SQL("SELECT {} FROM {} ORDER BY {} LIMIT {}").format(
            shown or row_text(alias, k), rows, fields(alias, k), SHOWN
        )
    )
    return Listed(count=row[0], keys=tuple(text for (text,) in first))
