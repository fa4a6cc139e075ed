"""Missing rows of tables without a key: which of them were certainly lost, and which may only have been edited.

An edited row of such a table is one that is missing and one that is new, so nobody can tell it from a lost one. A row
that pointed at one that returns was deleted with it, and is certain; the others come back if the table is accepted.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from runbooks.model.errors import UsageFault
from runbooks.rows import states
from runbooks.rows.compose import points_at, same_key
from runbooks.rows.names import AskedName, TableName
from runbooks.rows.search import Involved, Search
from runbooks.rows.shape import ForeignKey

_WHY = "it has no key, so it may have been edited rather than lost"


def mark_doubtful(search: Search, accepted: frozenset[TableName]) -> None:
    """Give the missing rows that are not certainly lost, of tables not accepted, a kind of conflict and a reason.

    Call when the cascades were followed.
    """
    for table in search.involved.values():
        if table.target.keyless and table.named and table.target.name not in accepted:
            search.run(
                "UPDATE {found} AS f SET state = 'conflict', kind = 'keyless', why = {why} FROM {past} AS t"
                " WHERE f.state = 'missing' AND NOT f.cascaded AND {same} AND NOT ({certain})",
                found=table.found,
                why=sql.Literal(_WHY),
                past=table.past,
                same=same_key("f", table.source.key, "t"),
                certain=_went_with_another(search, table),
            )


def _went_with_another(search: Search, table: Involved) -> sql.Composable:
    """Row `t` pointed at a row that returns, through ON DELETE CASCADE."""
    ties = [(parent, tie) for parent, tie in search.ties_to_found(("cascade",)) if tie.child == table.target.name]
    return sql.SQL(" OR ").join([sql.SQL("false"), *(_pointed(parent, tie) for parent, tie in ties)])


def _pointed(parent: Involved, tie: ForeignKey) -> sql.Composed:
    return sql.SQL("EXISTS (SELECT FROM {} AS p JOIN {} AS g ON {} WHERE {} AND {})").format(
        parent.then,
        parent.found,
        same_key("g", parent.source.key, "p"),
        states.among(states.RETURNING, "g"),
        points_at("t", tie, "p"),
    )


def accepted(search: Search, names: Sequence[str]) -> frozenset[TableName]:
    """The tables without a key that are meant. UsageFault for a name that is none of those concerned."""
    known = [table.target.name for table in search.involved.values() if table.target.keyless]
    found = set[TableName]()
    for text in names:
        asked = AskedName.parse(text)
        meant = [name for name in known if name.name == asked.name and asked.schema in (None, name.schema)]
        if len(meant) != 1:
            raise UsageFault(
                f"{asked} is {'several' if meant else 'none'} of the tables without a key that are concerned",
                safe="production was only read",
                next_step=f"name one of: {', '.join(map(str, known)) or 'there is none'}",
            )
        found.add(meant[0])
    return frozenset(found)
