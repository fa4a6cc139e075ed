"""How the plan and the end of a row recovery read: tables, warnings, and every sentence on what is left open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from runbooks.engine.plan import Table
from runbooks.rows.applied import AmendedTable, Applied
from runbooks.rows.found import Amendment, Conflict, Different, Found, FoundTable, Loose
from runbooks.rows.plan import Plan
from runbooks.rows.proof import Proof


def tables(found: Found) -> Iterator[Table]:
    """A summary per table, samples, and conflicts with both sides."""
    yield Table(
        title="rows",
        head=("table", "come back", "set back", "already there", "in conflict", "about", "why"),
        rows=tuple(
            (
                str(table.name), f"{table.missing:,}", f"{table.set_back:,}",
                f"{table.already_there - table.set_back:,}", f"{table.in_conflict:,}", f"{table.size / 1e6:.1f} MB",
                "named" if table.named else "the delete cascaded to it",
            )
            for table in found.tables
        ),
    )  # fmt: skip
    pointers = [one for one in found.amendments if one.foreign_key]
    if pointers:
        yield Table(
            title="pointers that are set again",
            head=("table", "columns", "rows", "foreign key"),
            rows=tuple(
                (str(one.name), ", ".join(one.columns), f"{one.count:,}", one.foreign_key or "") for one in pointers
            ),
        )
    for table in found.tables:
        shown = table.samples if table.named else table.samples[:1]
        if shown:
            yield Table(title=f"sample of {table.name}", head=("row",), rows=tuple((row,) for row in shown))
    for one in found.amendments:
        what = f"pointers of {one.name}, with their keys," if one.foreign_key else f"rows of {one.name}"
        yield Table(title=f"sample of {what} as they will be", head=("row",), rows=tuple((row,) for row in one.samples))
    yield from _conflicts_side_by_side(found)


_SIDE_BY_SIDE = 20
"""Conflicts that are shown with both sides; the file has more."""
_SHOWN = 200


def _conflicts_side_by_side(found: Found) -> Iterator[Table]:
    shown = found.conflict_rows[:_SIDE_BY_SIDE]
    if not shown:
        return
    rows = [
        (
            f"{row.table} {', '.join(row.key)}",
            row.kind,
            column,
            _value(then),
            "-" if row.now is None else _value(dict(row.now).get(column)),
        )
        for row in shown
        for column, then in row.then
        if row.now is None or dict(row.now).get(column) != then
    ]
    yield Table(
        title=f"conflicts, the first {len(shown)}" if len(found.conflict_rows) > len(shown) else "conflicts",
        head=("row", "kind", "column", "then", "now"),
        rows=tuple(rows),
    )


def _value(text: str | None) -> str:
    return "NULL" if text is None else text if len(text) <= _SHOWN else text[:_SHOWN] + " …"


def warnings(plan: Plan) -> Iterator[str]:
    """What a person has to know before consent, the worst first within each matter."""
    found = plan.found
    for trigger in plan.suppressed:
        yield f"trigger {trigger.label} is kept from firing; its table is closed to other writers for that moment"
    for trigger in plan.fired:
        yield f"trigger {trigger.label} FIRES, as accepted; if it changes anything else, all is rolled back"
    for table in found.tables:
        yield from _about(table)
    yield from (f"does not come back: {item}" for item in conflicts(found.conflicts))
    yield from (f"not repaired: {item}" for item in cut_loose(found))
    yield from (f"stays: {item}" for item in differing(found.different))
    yield from (f"stays: {item}" for item in elsewhere(found))
    for table in found.tables:
        if table.replaced:
            yield (
                f"{table.replaced:,} rows of {table.name} are OVERWRITTEN, as decided: what was made for them and "
                "points at them now will belong to the rows of the past"
            )
    if found.unfitting:
        yield f"{found.unfitting:,} decisions fit nothing: settled by now, or the row is not as it was when decided"
    for table in found.tables:
        if table.named and not table.asked:
            yield f"no row of {table.name} was asked for: none was there at that moment, or none fits the condition"
        if not table.compared:
            yield (
                f"rows of {table.name} that are there count by their key; they are too many to compare their content "
                "(--changed compares them)"
            )


def _about(table: FoundTable) -> Iterator[str]:
    for need in table.sequences:
        if need.move_to is not None:
            yield f"sequence {need.sequence.name} moves from {need.stands_at} to {need.move_to}"
        if need.note:
            yield f"sequence {need.sequence.name}: {need.note}"
    yield from (f"{table.name}: {note}" for note in table.notes)
    for difference in table.differences:
        yield f"schema: {difference}"
    for index in table.unchecked:
        yield f"unique index {index} of {table.name} can only be checked by the insert itself"


def conflicts(found: Iterable[Conflict]) -> Iterator[str]:
    for one in found:
        decided = " (decided)" if one.settled else ""
        yield f"{one.count:,} rows of {one.table}: {one.why}{decided}; {some(one.keys, one.count)}"


def differing(found: Iterable[Different]) -> Iterator[str]:
    for one in found:
        decided = " (decided)" if one.settled else ""
        yield (
            f"{one.count:,} rows of {one.table} are there, but not as they were: {one.why}{decided}; "
            f"{some(one.keys, one.count)}"
        )


def elsewhere(found: Found) -> Iterator[str]:
    """Pointers that somebody has set since."""
    return (_pointers(one) for one in found.loose if one.settled)


def cut_loose(found: Found) -> Iterator[str]:
    """What the delete took and the recovery does not bring back."""
    yield from (_pointers(one) for one in found.loose if not one.settled)
    for lost in found.also_lost:
        about = "" if lost.certain else "at most "
        yield f"{about}{lost.count:,} rows of {lost.table} that pointed there ({lost.foreign_key}) are missing too"


def _pointers(loose: Loose) -> str:
    about = "" if loose.certain else "at most "
    return (
        f"{about}{loose.count:,} rows of {loose.table} lost {', '.join(loose.columns)} in the delete: {loose.why}; "
        f"{some(loose.keys, loose.count)}"
    )


def compared(found: Found) -> str:
    bare = ", ".join(str(table.name) for table in found.tables if not table.compared)
    return f"not compared in {bare}: too many rows" if bare else "compared"


def left_open(found: Found, applied: Applied, proof: Proof) -> tuple[str, ...]:
    """Every sentence on what was asked for and is not there: empty if the recovery is complete."""
    undecided = (one for table in applied.tables for one in table.conflicts if not one.settled)
    # Whoever names rows wants these very rows; in a whole table it is to be expected that people went on editing.
    wanted = (one for one in found.different if not one.settled and (one.kind if found.changed else found.where))
    return (
        *conflicts(undecided),
        *differing(wanted),
        *cut_loose(found),
        *_overtaken(applied.amended),
        *_unproved(proof),
    )


def _overtaken(amended: Iterable[AmendedTable]) -> Iterator[str]:
    for one in amended:
        if one.changed.count:
            yield (
                f"{one.changed.count:,} rows of {one.name} were not set back: changed after the preview, or other rows "
                f"need them as they are; "
                f"{some(one.changed.keys, one.changed.count)}"
            )


def _unproved(proof: Proof) -> Iterator[str]:
    for table in proof.tables:
        name, gone, different = table.result.name, table.gone, table.different
        if gone.count:
            yield f"{gone.count:,} rows of {name} were deleted by others since; {some(gone.keys, gone.count)}"
        if different.count:
            yield f"{different.count:,} rows of {name} differ from the past; {some(different.keys, different.count)}"
        if table.lost_since.count:
            lost = table.lost_since
            yield (
                f"{lost.count:,} more rows of {name} have gone since the survey: if something still deletes, stop it "
                f"and start a new run; {some(lost.keys, lost.count)}"
            )
        if not table.holds and not different.count:
            yield f"of {table.result.inserted:,} rows inserted into {name} only {table.proved:,} are accounted for"
    for one in proof.amended:
        name = one.result.name
        if one.gone.count:
            yield f"{one.gone.count:,} rows of {name} that were set back were deleted by others since"
        if one.different.count:
            keys = some(one.different.keys, one.different.count)
            yield f"{one.different.count:,} rows of {name} that were set back differ from the past; {keys}"
        elif not one.holds:
            yield f"of {one.result.done:,} rows set back in {name} only {one.proved:,} are accounted for"


def amended(found: Iterable[Amendment]) -> str:
    """How many rows are changed, in words for the target line; empty if none."""
    whole = sum(one.count for one in found if one.foreign_key is None)
    pointers = sum(one.count for one in found if one.foreign_key)
    parts = [f"{whole:,} rows set back" if whole else "", f"{pointers:,} pointers set again" if pointers else ""]
    return ", ".join(part for part in parts if part)


def some(keys: tuple[str, ...], count: int) -> str:
    return f"keys {', '.join(keys)}{' …' if count > len(keys) else ''}" if keys else "keys unknown"
