"""Conflicts as a person reads and decides them: the file that a run writes, and that comes back as `--resolve`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import ConfigDict, ValidationError

from runbooks.model.errors import UsageFault
from runbooks.model.record import Record
from runbooks.rows.names import TableName

FORMAT = "bloom-dr conflicts 1"

Kind: TypeAlias = Literal["changed", "edited", "reused", "deleted", "taken", "orphan", "keyless"]
"""Why the program does not decide: the row is there with other content, and nobody can say since when (changed); it was
damaged and then edited (edited); its key was given to something else (reused); it is missing, and was there after the
damage (deleted), or another row has one of its unique values (taken), or what it points at does not come back (orphan),
or its table has no key, so that it may have been edited rather than lost (keyless)."""
THERE: frozenset[Kind] = frozenset({"changed", "edited", "reused"})
"""The kinds of conflict in which a row is there under the key."""
EARLY: frozenset[Kind] = THERE | {"deleted"}
"""The kinds that are decided before it is looked for what a delete took along."""
SETTABLE: frozenset[Kind] = frozenset({"taken", "orphan"})
"""The kinds in which the row can come back with other values."""
Choice: TypeAlias = Literal["keep", "past"]
Row: TypeAlias = tuple[tuple[str, str | None], ...]
"""Columns and their values as PostgreSQL writes them; None is NULL."""


class ConflictRow(Record):
    """One conflict, with both sides."""

    table: TableName
    kind: Kind
    why: str
    key: tuple[str, ...]
    then: Row
    now: Row | None
    """The row that is there under the key, or that holds the unique value; None if there is none (orphan)."""
    seen: str | None
    """MD5 of the row under the key in production: a decision holds for this content."""

    def as_entry(self) -> dict[str, Any]:
        return {
            "table": str(self.table),
            "key": list(self.key),
            "kind": self.kind,
            "why": self.why,
            "then": dict(self.then),
            "now": None if self.now is None else dict(self.now),
            "seen": self.seen,
            "decision": None,
            **({"set": {}} if self.kind in SETTABLE else {}),
        }


class Decided(Record):
    """What a person decided about one row."""

    table: str
    key: tuple[str, ...]
    kind: Kind
    seen: str | None
    decision: Choice | None
    set: Row = ()
    """With these values instead of its own it can come back."""


class Rule(Record):
    """What a person decided about all conflicts of one kind in one table."""

    table: str
    kind: Kind
    decision: Choice


class Decisions(Record):
    rows: tuple[Decided, ...] = ()
    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, text: str, *, where: str) -> Decisions:
        """Read a file as `conflicts_file` writes it, with decisions filled in. UsageFault, naming the entry.

        `where` names the file in the message.
        """
        try:
            found = _File.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the file as a whole"
            raise _fault(where, f"{place}: {first['msg']}") from error
        rows = tuple(
            Decided(
                table=entry.table,
                key=entry.key,
                kind=entry.kind,
                seen=entry.seen,
                decision=entry.decision,
                set=tuple(entry.set.items()),
            )
            for entry in found.conflicts
            if entry.decision or entry.set
        )
        past = [(row.table, row.kind) for row in rows if row.decision == "past"]
        past += [(rule.table, rule.kind) for rule in found.rules if rule.decision == "past"]
        for table, kind in past:
            if kind not in EARLY | SETTABLE:
                raise _fault(where, f"{table}: what is {kind} is not decided row by row; keep, or accept the table")
        for rule in found.rules:
            if rule.decision == "past" and rule.kind not in EARLY:
                raise _fault(where, f"{rule.table}: only a decision on a row can try again what is {rule.kind}")
        for row in rows:
            if row.set and (row.kind not in SETTABLE or row.decision):
                raise _fault(where, f"{row.table} {row.key}: set is for rows that are missing, and stands alone")
        return cls(rows=rows, rules=found.rules)

    @classmethod
    def read(cls, path: str) -> Decisions:
        """UsageFault if the file cannot be read, or is not one of decisions."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _fault(path, str(error)) from error
        return cls.parse(text, where=path)

    def of(self, table: TableName) -> Decisions:
        name = str(table)
        return Decisions(
            rows=tuple(row for row in self.rows if row.table == name),
            rules=tuple(rule for rule in self.rules if rule.table == name),
        )


def conflicts_file(run: str, rows: Iterable[ConflictRow], *, left_out: int) -> str:
    """The file's text: every conflict with no decision yet."""
    return json.dumps(
        {
            "format": FORMAT,
            "run": run,
            "how": _HOW,
            "left_out": left_out,
            "rules": [],
            "conflicts": [row.as_entry() for row in rows],
        },
        ensure_ascii=False,
        indent=1,
    )


_HOW = [
    'Give each conflict a decision: "keep" (what is there now stays) or, where there is a row under the key, "past".',
    'Or let a missing row come back with other values: "set": {"column": "value"}; or as it was, if what was in its way'
    ' is gone by now: "past".',
    'For all of one kind in a table: "rules": [{"table": "public.clients", "kind": "changed", "decision": "past"}].',
    "What is left null stays undecided. Then run the same command with --resolve and this file.",
]


class _Entry(Record):
    table: str
    key: tuple[str, ...]
    kind: Kind
    why: str = ""
    then: Mapping[str, str | None] = {}
    now: Mapping[str, str | None] | None = None
    seen: str | None = None
    decision: Choice | None = None
    set: Mapping[str, str | None] = {}


class _File(Record):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["bloom-dr conflicts 1"]
    run: str = ""
    how: tuple[str, ...] = ()
    left_out: int = 0
    rules: tuple[Rule, ...] = ()
    conflicts: tuple[_Entry, ...] = ()


def _fault(where: str, why: str) -> UsageFault:
    return UsageFault(
        f"{where} is not a file of decisions: {why}",
        safe="nothing was started",
        next_step="start from the conflicts.json in the folder of the run that listed them; it says how",
    )
