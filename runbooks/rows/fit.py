"""Can rows of this table be brought back exactly? Decided from both catalogs before anything is written."""

from __future__ import annotations

from collections.abc import Iterator

from runbooks.model.errors import Refused
from runbooks.model.record import Record
from runbooks.rows.shape import Column, Table

_MOST_COLUMNS = 800
"""A row expression may have 1,664 entries, and the comparison needs two for each column."""
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


class Difference(Record):
    """A column that is not the same on the recovery branch and in production."""

    table: str
    column: str
    on_branch: str
    in_production: str
    blocks: bool
    """Whether rows cannot be brought back over it."""

    def __str__(self) -> str:
        return f"{self.table}.{self.column}: {self.on_branch} on the branch, {self.in_production} in production"


def obstacles(table: Table) -> tuple[str, ...]:
    """Why rows of this table (as one of the two sides has it) cannot be brought back exactly; empty if they can."""
    return tuple(_obstacles(table))


def _obstacles(table: Table) -> Iterator[str]:
    if table.kind in _KINDS:
        yield f"it is {_KINDS[table.kind]}, not a table"
        return
    if table.temporary:
        yield "it is a temporary table"
    if table.unlogged:
        yield "it is unlogged, so the history does not hold its rows"
    if table.is_partition:
        yield "it is a partition; name the partitioned table"
    if table.foreign_partitions:
        yield "it has partitions on another server"
    if table.has_rules:
        yield "rewrite rules may turn an insert into something else"
    if table.hides_rows:
        yield "row level security hides rows from our role; use a role with BYPASSRLS or the table's owner"
    if len(table.columns) > _MOST_COLUMNS:
        yield f"it has more than {_MOST_COLUMNS} columns, too many to compare rows as a whole"
    if any("\n" in name or "\r" in name for name in _all_names(table)):
        yield "a name contains a line break"
    yield from _key_obstacles(table)


def _all_names(table: Table) -> Iterator[str]:
    yield from (table.name.schema, table.name.name)
    yield from (column.name for column in table.columns)


def _key_obstacles(table: Table) -> Iterator[str]:
    if not table.columns:
        yield "it has no columns"
    if table.row_key and not table.row_key.is_plain:
        yield "its primary key does not compare plain values"
    for key in table.keys:
        if not key.immediate:
            yield f"its unique key {key.name} is deferrable, which INSERT ... ON CONFLICT does not support"
    for tie in (*table.parents, *table.children):
        if tie.on_partition:
            yield f"foreign key {tie} is declared on a partition only"
        if tie.period:
            yield f"foreign key {tie} compares periods"


def differences(source: Table, target: Table) -> tuple[Difference, ...]:
    """Columns that differ, by name: `source` on the branch, `target` in production. Some of them block the recovery."""
    return tuple(_differences(source, target))


def _differences(source: Table, target: Table) -> Iterator[Difference]:
    name = str(target.name)
    theirs = {column.name: column for column in target.columns}
    for column in source.columns:
        said = _column_difference(column, theirs.pop(column.name, None))
        if said:
            yield Difference(table=name, column=column.name, on_branch=said[0], in_production=said[1], blocks=True)
    for column in theirs.values():
        how = column.type + (" not null" if column.not_null else "") + (" with a default" if column.has_default else "")
        unfilled = column.not_null and not column.has_default
        yield Difference(table=name, column=column.name, on_branch="missing", in_production=how, blocks=unfilled)


def _column_difference(source: Column, target: Column | None) -> tuple[str, str] | None:
    if target is None:
        return source.type, "missing"
    if source.type != target.type:
        return source.type, target.type
    lost = sorted(set(source.parts) - set(target.parts))
    if lost:
        return "; ".join(lost), "no such thing (" + "; ".join(sorted(set(target.parts) - set(source.parts))) + ")"
    if source.generated != target.generated:
        return _generation(source), _generation(target)
    return None


def _generation(column: Column) -> str:
    return f"generated as {column.generated}" if column.generated else "not generated"


def other_differences(source: Table, target: Table) -> tuple[str, ...]:
    """What else of the two tables must agree: kind and row key."""
    found = []
    if source.kind != target.kind:
        found.append(f"{target.name} is partitioned on one side only")
    if source.key.columns != target.key.columns:
        found.append(
            f"the key of {target.name} is {_key_told(source)} on the branch and {_key_told(target)} in production"
        )
    return tuple(found)


def _key_told(table: Table) -> str:
    return f"({', '.join(table.row_key.columns)})" if table.row_key else "none"


def common_columns(source: Table, target: Table) -> tuple[Column, ...]:
    """The columns both sides have, in production's order."""
    names = {column.name for column in source.columns}
    return tuple(column for column in target.columns if column.name in names)


def can_look_up(source: Table, target: Table) -> bool:
    """Whether rows can be found again in production by their key."""
    if target.hides_rows or "select" not in target.privileges:
        return False
    if not (source.row_key and target.row_key and source.key.is_plain and target.key.is_plain):
        return False
    same_type = all(
        source.column(name).type == target.column(name).type for name in source.key.columns if target.has((name,))
    )
    return source.key.columns == target.key.columns and same_type


def amend_obstacles(source: Table, target: Table, names: tuple[str, ...]) -> tuple[str, ...]:
    """Why these columns of rows that are there cannot be set to what they were; empty if they can."""
    reasons = [*dict.fromkeys((*obstacles(source), *obstacles(target))), *other_differences(source, target)]
    if target.keyless:
        reasons.append("it has no primary key and no unique key of NOT NULL columns, so no row can be found again")
    if reasons:
        return tuple(reasons)
    concerned = {*names, *target.key.columns}
    reasons += [str(each) for each in differences(source, target) if each.blocks and each.column in concerned]
    reasons += [f"our role may not {right} it" for right in ("select", "update") if right not in target.privileges]
    return tuple(reasons)


def check_recoverable(source: Table, target: Table, *, changed: bool = False, because: str = "") -> None:
    """Refused, with everything that stands in the way, unless rows of the table can be brought back exactly.

    `changed`: rows that are there are set back, too. `because` says why this table is concerned at all, when nobody
    asked for it.
    """
    reasons = list(dict.fromkeys((*obstacles(source), *obstacles(target))))
    reasons += other_differences(source, target)
    reasons += [str(difference) for difference in differences(source, target) if difference.blocks]
    if "select" not in source.privileges:
        reasons.append("our role may not read it on the branch")
    lacking = [
        right for right in ("select", "insert", *(("update",) if changed else ())) if right not in target.privileges
    ]
    if lacking:
        reasons.append(f"our role may not {' or '.join(lacking)} in production")
    if target.keyless and not {"update", "delete"} & set(target.privileges):
        reasons.append("it has no key, so nobody may write while its rows are counted, and our role may not lock it")
    if reasons:
        raise Refused(
            f"rows of {target.name} cannot be brought back exactly: {because}{'; '.join(reasons)}",
            safe="production was only read",
            next_step="cure what is named (a missing column can be added again, a right granted), then run the same "
            "command again (--map FILE says how rows fit altered columns); or copy these rows by hand from the branch",
        )
