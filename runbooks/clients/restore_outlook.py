"""What of a dump a target will take: said before the restore, so that nothing is missing without a word (C04)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from runbooks.clients.dump_toc import Entry, Toc, parts
from runbooks.clients.postgres import Connection
from runbooks.clients.postgres_faults import translated
from runbooks.model.errors import NotFound, Refused

_SAFE = "the target was only read"


@dataclass(frozen=True)
class LeftOut:
    """One thing of the dump that will not be restored."""

    what: str
    reason: str


@dataclass(frozen=True)
class Outlook:
    """What a restore will do."""

    entries: tuple[Entry, ...]
    """What will be restored, in the dump's order."""
    left_out: tuple[LeftOut, ...]
    lost_tables: tuple[str, ...]
    """Tables among the things left out: with any, the restore would not bring all rows."""
    grants: tuple[str, ...]
    """Privileges that were left out on purpose, as statements to run where they are wanted."""


@dataclass(frozen=True)
class Target:
    """What the target allows."""

    superuser: bool
    neon: bool
    installable: frozenset[str]
    """Extensions that our role can create, or that are there."""

    @classmethod
    def of(cls, conn: Connection) -> Target:
        with translated("look at what the target allows", safe=_SAFE):
            row: Any = conn.execute(_TARGET).fetchone()
        return cls(bool(row[0]), bool(row[1]), frozenset(row[2]))


_TARGET = """
SELECT current_setting('is_superuser') = 'on',
       coalesce(current_setting('neon.project_id', true), '') <> '',
       (SELECT coalesce(array_agg(DISTINCT name::text), '{}') FROM pg_available_extension_versions
        WHERE installed OR trusted OR NOT superuser OR current_setting('is_superuser') = 'on'
              OR coalesce(current_setting('neon.project_id', true), '') <> '')
"""

_BY_SUPERUSER = frozenset(
    (
        *("EVENT TRIGGER", "FOREIGN DATA WRAPPER", "OPERATOR CLASS", "OPERATOR FAMILY", "ACCESS METHOD", "SHELL TYPE"),
        *("TRANSFORM", "PROCEDURAL LANGUAGE", "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE"),
    )
)
_PRIVILEGES = frozenset(("ACL", "DEFAULT ACL"))
_ALL_TABLES = re.compile(r"FOR (ALL TABLES|TABLES IN SCHEMA)")


def foresee(toc: Toc, target: Target, *, owners: bool, tables: Sequence[str] | None = None) -> Outlook:
    """Which entries of the dump to restore. Pure.

    With `owners`, owners and privileges are restored too, and their roles must exist. `tables` (as an inventory spells
    them) limits it to those tables, with what they need and what belongs to them. NotFound for a table not in the dump.
    """
    wanted = list(toc.entries) if tables is None else _of_tables(toc, tables)
    by_id = {entry.id: entry for entry in toc.entries}
    reasons: dict[int, str] = {}
    for entry in wanted:
        reason = unwanted(entry, target)
        if reason:
            reasons[entry.id] = reason
        elif lacking := sorted(entry.needs & reasons.keys()):
            reasons[entry.id] = f"it needs {by_id[lacking[0]]}"
    skipped = _PRIVILEGES if not owners else frozenset[str]()
    kept = tuple(e for e in wanted if e.id not in reasons and e.kind not in skipped and not _is_extension_comment(e))
    out = [entry for entry in wanted if entry.id in reasons]
    return Outlook(
        entries=kept,
        left_out=(
            *(LeftOut(str(entry), reasons[entry.id]) for entry in out if entry.kind != "COMMENT"),
            *(() if tables is None else _beyond(toc, {entry.id for entry in wanted}, _roots(toc, tables))),
        ),
        lost_tables=tuple(str(entry) for entry in out if entry.kind in ("TABLE", "TABLE DATA")),
        grants=tuple(e.definition.strip() for e in wanted if e.kind in skipped and e.id not in reasons),
    )


def _is_extension_comment(entry: Entry) -> bool:
    """CREATE EXTENSION writes it by itself, and only the extension's owner may."""
    return entry.kind == "COMMENT" and entry.name.startswith("EXTENSION ")


def unwanted(entry: Entry, target: Target) -> str | None:
    if entry.kind == "SUBSCRIPTION":
        return "it would fetch changes from another server"
    if entry.kind == "EXTENSION" and entry.name not in target.installable:
        return "the target does not have this extension, or does not let our role create it"
    if target.superuser:
        return None
    if entry.kind == "EVENT TRIGGER" and target.neon:
        return None
    if entry.kind in _BY_SUPERUSER:
        return "only a superuser can create it"
    if entry.kind == "PUBLICATION" and _ALL_TABLES.search(entry.definition):
        return "only a superuser can publish all tables"
    return None


_BELONGS = frozenset(
    (
        *("TABLE DATA", "SEQUENCE", "SEQUENCE OWNED BY", "SEQUENCE SET", "DEFAULT", "CONSTRAINT", "CHECK CONSTRAINT"),
        *("FK CONSTRAINT", "INDEX", "STATISTICS", "POLICY", "ROW SECURITY", "TABLE ATTACH", "INDEX ATTACH"),
        *("COMMENT", "ACL"),
    )
)
"""What comes with a table, if everything that it needs comes too."""


def _of_tables(toc: Toc, tables: Sequence[str]) -> list[Entry]:
    by_id = {entry.id: entry for entry in toc.entries}
    known, roots = {*by_id}, _roots(toc, tables)
    chosen = set(roots)
    todo = list(roots)
    while todo:
        for need in by_id[todo.pop()].needs & known - chosen:
            chosen.add(need)
            todo.append(need)
    while more := {
        entry.id
        for entry in toc.entries
        if entry.kind in _BELONGS and entry.id not in chosen and _comes_along(entry, known, chosen, roots)
    }:
        chosen |= more
    return [entry for entry in toc.entries if entry.id in chosen]


def _beyond(toc: Toc, chosen: set[int], roots: set[int]) -> Iterator[LeftOut]:
    """What hangs on the tables and does not come with them: foreign keys to others, triggers, views; large objects."""
    for entry in toc.entries:
        if entry.id in chosen or entry.kind == "COMMENT":
            continue
        if entry.needs & roots:
            yield LeftOut(str(entry), "it is not a part of the chosen tables alone")
        elif entry.kind == "BLOBS":
            yield LeftOut(str(entry), "large objects belong to no table, so they come with the whole dump only")


def _comes_along(entry: Entry, known: set[int], chosen: set[int], roots: set[int]) -> bool:
    needs = entry.needs & known
    return bool(needs) and needs <= chosen and (entry.kind != "TABLE DATA" or bool(needs & roots))


def _roots(toc: Toc, tables: Sequence[str]) -> set[int]:
    there = {(entry.schema, entry.name): entry.id for entry in toc.of_kind("TABLE")}
    missing = [name for name in tables if parts(name) not in there]
    if missing:
        raise NotFound(
            f"the dump has no table {', '.join(missing)}",
            safe="no database was touched",
            next_step="name tables with their schema, as the backup's manifest lists them",
        )
    return {there[key] for key in map(parts, tables) if len(key) == 2}


_CONTENTS = """
WITH ours AS (
    SELECT n.oid, n.nspname FROM pg_namespace AS n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
), member AS (
    SELECT classid, objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
)
SELECT * FROM (
    SELECT CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'S' THEN 'sequence ' WHEN 'm' THEN 'materialized view '
                WHEN 'f' THEN 'foreign table ' ELSE 'table ' END || format('%I.%I', o.nspname, c.relname) AS what
    FROM pg_class AS c JOIN ours AS o ON o.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND ('pg_class'::regclass::oid, c.oid) NOT IN (SELECT classid, objid FROM member)
    UNION ALL
    SELECT 'function ' || p.oid::regprocedure::text FROM pg_proc AS p JOIN ours AS o ON o.oid = p.pronamespace
    WHERE ('pg_proc'::regclass::oid, p.oid) NOT IN (SELECT classid, objid FROM member)
    UNION ALL
    SELECT 'type ' || format_type(t.oid, NULL) FROM pg_type AS t JOIN ours AS o ON o.oid = t.typnamespace
    WHERE t.typtype IN ('e', 'd', 'r')
      AND ('pg_type'::regclass::oid, t.oid) NOT IN (SELECT classid, objid FROM member)
    UNION ALL
    SELECT 'schema ' || nspname FROM ours WHERE nspname <> 'public'
      AND ('pg_namespace'::regclass::oid, oid) NOT IN (SELECT classid, objid FROM member)
    UNION ALL
    SELECT 'large object ' || oid FROM pg_largeobject_metadata
) AS found ORDER BY what
"""


def contents(conn: Connection) -> tuple[str, ...]:
    """What is in the database besides extensions: `table public.clients`, …"""
    with translated("look what the target holds", safe=_SAFE):
        return tuple(str(row[0]) for row in conn.execute(_CONTENTS))


def in_the_way(holds: Sequence[str], tables: Sequence[str] | None) -> tuple[str, ...]:
    """What of the `contents` of a target a restore would run into: anything; or, for single tables, these tables."""
    if tables is None:
        return tuple(holds)
    taken = {f"table {'.'.join(parts(name))}" for name in tables}
    return tuple(what for what in holds if f"table {'.'.join(parts(what.partition(' ')[2]))}" in taken)


def require_room(conn: Connection, tables: Sequence[str] | None) -> None:
    """Refused unless the target is empty or, for single tables, has none of these tables (C07)."""
    found = in_the_way(contents(conn), tables)
    if found:
        more = f" and {len(found) - 10} more" if len(found) > 10 else ""
        raise Refused(
            f"the target is not empty; it holds {', '.join(found[:10])}{more}",
            safe="the target is as it was",
            next_step="restore into a new, empty database, and switch to it when it is proved",
        )


def require_all_tables(outlook: Outlook, refuse: Callable[[str], Exception]) -> None:
    """Raise what `refuse` makes of the sentence, if tables would be missing after the restore."""
    if outlook.lost_tables:
        why = "; ".join(f"{one.what}: {one.reason}" for one in outlook.left_out[:8])
        raise refuse(f"the target cannot take {', '.join(outlook.lost_tables[:8])} ({why})")
