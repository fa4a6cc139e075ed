"""What only a person can decide: listed with both sides, and settled as far as it was decided."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import errors, sql

from runbooks.clients.postgres_faults import said
from runbooks.model.errors import UsageFault
from runbooks.model.nearest import nearest
from runbooks.rows import states
from runbooks.rows.catalog import all_tables
from runbooks.rows.compose import all_set, fields, numbered, row_text, same_key, same_numbers, scratch
from runbooks.rows.decisions import EARLY, SETTABLE, THERE, ConflictRow, Decided, Kind, Row
from runbooks.rows.found import Conflict
from runbooks.rows.listed import Listed, listed
from runbooks.rows.presence import by_key, find_digests
from runbooks.rows.search import Involved, Search
from runbooks.rows.shape import Table, UniqueKey

MOST = 500
"""So many conflicts of a table are told row by row; the counts are always whole."""
_LONGEST = 2_000
"""Characters of a value that is told."""
_SHOWN = 200
"""Characters of a row that is told as a whole."""
_OPEN = sql.SQL("f.state IN ('conflict', 'differs', 'edited') AND NOT f.settled AND f.kind <> 'later'")


def check_names(search: Search) -> None:
    """UsageFault if a map, a rule or a decision is on a table that the past does not have: a misspelt name."""
    decided = [row.table for row in search.decisions.rows] + [rule.table for rule in search.decisions.rules]
    named = dict.fromkeys([*(each.table for each in search.mapping.tables), *decided])
    known = {str(name) for name in all_tables(search.branch)}
    for text in named:
        if text not in known:
            close = nearest(text, sorted(known), count=3)
            raise UsageFault(
                f"a map or decision is on {text}, which is no table" + (f"; near: {', '.join(close)}" if close else ""),
                safe="production was only read",
                next_step="write it with its schema, as the preview shows it",
            )


def take_up(search: Search) -> None:
    """Look at the rows that were missing when a person decided on them. An earlier run may have brought back what led
    to them, so nothing else would. UsageFault for a key that the table cannot have.
    """
    names = {str(name): name for name in all_tables(search.branch)}
    for text in dict.fromkeys(row.table for row in search.decisions.rows if row.kind in SETTABLE):
        name = names[text]
        source, _ = search.pair(name)
        rows = [row for row in search.decisions.of(name).rows if row.kind in SETTABLE]
        if source.row_key is None:
            continue
        keys = sql.SQL(" UNION ALL ").join(_key(source, row) for row in rows)
        try:
            search.take_up(name, keys)
        except errors.DataError as error:
            raise _fault(source, said(error)) from error


def settle(search: Search, *, early: bool) -> int:
    """Carry out the decisions on the kinds of conflict that are decided early, or on the others.

    A row decided to be as in the past is to be set back, if it still is as it was when it was decided. Returns how many
    decisions on a row fit nothing. UsageFault for a key that the table cannot have.
    """
    unfitting = sum((row.kind in EARLY) is early for row in search.decisions.rows)
    return unfitting - sum(_settle(search, table, early=early) for table in search.involved.values())


def _settle(search: Search, table: Involved, *, early: bool) -> int:
    decisions = search.decisions.of(table.target.name)
    for rule in decisions.rules:
        if (rule.kind in EARLY) is early:
            _decide(search, table, rule.kind, rule.decision, sql.SQL("true"))
    return sum(_settle_row(search, table, row) for row in decisions.rows if (row.kind in EARLY) is early)


def _settle_row(search: Search, table: Involved, row: Decided) -> bool:
    this = sql.SQL("EXISTS (SELECT FROM ({}) AS d WHERE {})").format(
        _key(table.source, row), same_numbers("d", table.source.key, "f")
    )
    try:
        if row.decision == "keep" or row.kind in EARLY:
            seen = sql.SQL("f.seen IS NOT DISTINCT FROM {}").format(row.seen) if row.kind in THERE else sql.SQL("true")
            which = sql.SQL("{} AND {}").format(this, seen)
            return bool(_decide(search, table, row.kind, row.decision or "keep", which))
        # As it was, or with other values, which are in the view already: it comes back unless it is in conflict again.
        away = states.among((states.MISSING, states.CONFLICT))
        return bool(search.count(sql.SQL("{} AS f WHERE {} AND {}").format(table.found, away, this)))
    except errors.DataError as error:
        raise _fault(table.source, said(error)) from error


def _key(source: Table, row: Decided) -> sql.Composed:
    """A query for the key that a decision names: k1, k2, ..."""
    k = numbered(len(source.key.columns))
    if len(row.key) != len(k):
        raise _fault(source, f"the key {row.key} does not have {len(k)} parts")
    return sql.SQL("SELECT {}").format(
        sql.SQL(", ").join(
            sql.SQL("{}::{} AS {}").format(text, source.column(name).type_identifier, sql.Identifier(number))
            for text, name, number in zip(row.key, source.key.columns, k, strict=True)
        )
    )


def _decide(search: Search, table: Involved, kind: Kind, decision: str, which: sql.Composable) -> int:
    back = sql.SQL(
        "state = CASE f.kind WHEN 'edited' THEN 'damaged' WHEN 'reused' THEN 'replaced' WHEN 'deleted' THEN 'missing'"
        " ELSE 'doubtful' END, round = 0"
    )
    what = sql.SQL("settled = true") if decision == "keep" else back
    return search.run(
        "UPDATE {found} AS f SET {what} WHERE {open} AND f.kind = {kind} AND {which}",
        found=table.found,
        what=what,
        open=_OPEN,
        kind=sql.Literal(kind),
        which=which,
    )


def _fault(table: Table, why: str) -> UsageFault:
    return UsageFault(
        f"a decision on {table.name} cannot be carried out: {why}",
        safe="production was only read",
        next_step="correct the file given as --resolve, then run the same command again",
    )


def conflicts(search: Search) -> tuple[Conflict, ...]:
    """The rows that are missing and do not come back, by table and reason."""
    return tuple(
        Conflict(table=table.target.name, kind=kind, why=why, settled=settled, **each.model_dump())
        for table in search.involved.values()
        for kind, why, settled in search.branch.execute(
            sql.SQL("SELECT DISTINCT kind, why, settled FROM {} WHERE state = 'conflict' ORDER BY 1, 2, 3").format(
                table.found
            )
        ).fetchall()
        for each in [_listed(search, table, kind, why, settled)]
    )


def _listed(search: Search, table: Involved, kind: Kind, why: str, settled: bool) -> Listed:
    rows = sql.SQL("{} AS f").format(table.found)
    if table.target.keyless:
        rows = sql.SQL("{} JOIN {} AS t ON {}").format(rows, table.past, same_key("f", table.source.key, "t"))
    these = sql.SQL("{} WHERE f.state = 'conflict' AND f.kind = {} AND f.why = {} AND f.settled = {}").format(
        rows, kind, why, settled
    )
    # The digest of a row without a key says nothing to a person.
    text = sql.SQL("left({}, {})").format(row_text("t", table.compared), _SHOWN) if table.target.keyless else None
    return listed(search.branch, these, "f", table.k, shown=text)


def conflict_rows(search: Search) -> tuple[ConflictRow, ...]:
    """Every open conflict with the row as it was and the row that is there now; of each table the first `MOST`."""
    return tuple(row for table in search.involved.values() for row in _Both(search, table).rows())


@dataclass
class _Both:
    """The two sides of one table's conflicts."""

    search: Search
    table: Involved

    def rows(self) -> Iterator[ConflictRow]:
        names = self.table.compared
        first = sql.SQL(
            "SELECT {}, f.kind, f.why, f.seen FROM {} AS f WHERE {} AND f.kind IS NOT NULL ORDER BY {}"
        ).format(fields("f", self.table.k), self.table.found, _OPEN, fields("f", self.table.k))
        limited = sql.SQL("{} LIMIT {}").format(first, MOST)
        with self.search.candidates(limited) as (open_rows, many):
            if not many:
                return
            there = {}
            if not self.table.target.keyless:
                there = self._now(open_rows, sql.SQL("o.kind <> 'taken'"), self.table.target.key)
            holders = [
                self._now(open_rows, sql.SQL("o.kind = 'taken'"), key)
                for key in self.table.target.keys
                if key != self.table.target.key and key.is_plain and self.table.source.has(key.columns)
            ]
            query = sql.SQL("SELECT {}, o.kind, o.why, o.seen, {} FROM {} AS o JOIN {} AS t ON {} ORDER BY {}").format(
                sql.SQL("ARRAY[{}]").format(_texts("o", self.table.k)),
                _as_json(names),
                open_rows,
                self.table.past,
                same_key("o", self.table.source.key, "t"),
                fields("o", self.table.k),
            )
            for key, kind, why, seen, then in self.search.branch.execute(query).fetchall():
                found = [side[tuple(key)] for side in (there, *holders) if tuple(key) in side]
                yield ConflictRow(
                    table=self.table.target.name,
                    kind=kind,
                    why=why,
                    key=tuple(key),
                    then=_row(names, then),
                    now=_row(names, found[0]) if found else None,
                    seen=seen,
                )

    def _now(self, open_rows: sql.Identifier, which: sql.Composable, key: UniqueKey) -> dict[tuple[str, ...], str]:
        """Of each conflict, the row of production that has its value of `key`, as JSON."""
        table = self.table
        joined = sql.SQL("{} AS o JOIN {} AS t ON {}").format(
            open_rows, table.past, same_key("o", table.source.key, "t")
        )
        asked = sql.SQL("SELECT {} FROM {} WHERE {} AND {}").format(
            fields("t", key.columns, renamed=numbered(len(key.columns))), joined, which, all_set("t", key.columns)
        )
        side = scratch(f"now_{self.search.number()}")
        find_digests(
            self.search.snapshot,
            self.search.branch,
            by_key(table.source, table.target, key, asked),
            _as_json(table.compared),
            into=side,
            many=1,  # no more than MOST: looked up, always
        )
        found = self.search.branch.execute(
            sql.SQL("SELECT ARRAY[{}], n.digest FROM {} JOIN {} AS n ON {} WHERE {}").format(
                _texts("o", table.k), joined, side, same_key("n", key, "t"), which
            )
        ).fetchall()
        self.search.run("DROP TABLE {side}", side=side)
        return {tuple(each): text for each, text in found}


def _texts(alias: str, names: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("concat({})").format(sql.Identifier(alias, name)) for name in names)


def _as_json(names: tuple[str, ...]) -> sql.Composed:
    """The values of row `t` as text, in order."""
    # The output function of the type, as in the row's text; a cast to text may trim or translate.
    values = sql.SQL(", ").join(
        sql.SQL("CASE WHEN {value} IS DISTINCT FROM NULL THEN left(concat({value}), {most}) END").format(
            value=sql.Identifier("t", name), most=_LONGEST
        )
        for name in names
    )
    return sql.SQL("array_to_json(ARRAY[{}]::text[])::text").format(values)


def _row(names: tuple[str, ...], text: str) -> Row:
    return tuple(zip(names, json.loads(text), strict=True))
