"""What became of a row of the past, as the table of found rows on the branch says it."""

from __future__ import annotations

from psycopg import sql

MISSING = "missing"
"""It is to be inserted."""
CONFLICT = "conflict"
"""It is missing, and cannot come back as it was."""
THERE = "there"
"""A cascade led to it, and it is there."""
DIFFERS = "differs"
"""There with other content. Whether the delete took it meanwhile is not known, unless its key was given away."""
EDITED = "edited"
"""There with other content, and it was there all along."""
DAMAGED = "damaged"
"""There all along, and to be set back."""
REPLACED = "replaced"
"""Its key was given to something else after the delete, and it is to be set back: a person decided so."""
DOUBTFUL = "doubtful"
"""There with other content, and to be set back as a person decided; whether the delete took it is not known."""

SET_BACK = (DAMAGED, REPLACED, DOUBTFUL)
COMING = (MISSING, *SET_BACK)
"""The row will be as it was."""
RETURNING = (MISSING, REPLACED)
"""The delete took it and it comes back, with what the delete took along."""
DOUBTED = (DIFFERS, DOUBTFUL)
"""Perhaps the delete took it."""
TAKEN = (*RETURNING, CONFLICT, *DOUBTED)
"""The delete took it, or may have."""


def among(states: tuple[str, ...], alias: str = "f") -> sql.Composed:
    """Row `alias` of found rows is in one of these states."""
    return sql.SQL("{} IN ({})").format(sql.Identifier(alias, "state"), sql.SQL(", ").join(map(sql.Literal, states)))


DEMOTED = sql.SQL("state = CASE f.state WHEN 'missing' THEN 'conflict' WHEN 'damaged' THEN 'edited' ELSE 'differs' END")
"""Set what was coming to what it is without that."""
