"""What arrived in a target, compared with the inventory of the dump's own snapshot: whole, or the chosen tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import timedelta

from runbooks.clients.dump_toc import parts
from runbooks.clients.integrity import rules
from runbooks.clients.inventory import hold_snapshot, take_inventory
from runbooks.clients.postgres import Connection
from runbooks.model.inventory import Difference, Inventory, LargeObjects, Weight, compare
from runbooks.model.record import Record


class LeftOut(Record):
    """One thing of the backup that is not restored, as `restore_outlook` spells it: `EXTENSION citext`."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


class Comparison(Record):
    rows: int
    tables: int
    sequences: int
    lost: tuple[str, ...] = ()
    """Differences of the data that nobody foretold."""
    foretold: tuple[str, ...] = ()
    """What follows from things that were left out."""
    uncompared: tuple[str, ...] = ()
    surroundings: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    """Keys and constraints that do not hold."""
    inherited: tuple[str, ...] = ()
    """What is odd, and was so at the source."""
    not_checked: tuple[str, ...] = ()


def compare_with(
    open_target: Callable[[], Connection],
    expected: Inventory,
    *,
    tables: Collection[str] | None,
    sequences: Collection[str],
    left_out: Iterable[LeftOut],
    jobs: int,
    lock_wait: timedelta,
    tell: Callable[[str], None],
) -> Comparison:
    """Read the target and compare. With `tables`, only these and `sequences` are; else its rules are tried too.

    Only reads. Raises what reading a database raises.
    """
    with open_target() as conn:
        with hold_snapshot(conn, lock_wait=lock_wait, progress=tell) as snapshot:
            found = take_inventory(open_target, snapshot.id, jobs, only=tables, progress=tell)
        kept = None if tables is not None else rules(conn, progress=tell)
    if tables is not None:
        expected, found = (_narrowed(side, tables, sequences) for side in (expected, found))
    differences = compare(expected, found)
    gone = {each.what for each in left_out}
    data = [each for each in differences if each.weight is Weight.DATA]
    return Comparison(
        rows=found.rows,
        tables=len(found.tables),
        sequences=len(found.sequences),
        lost=tuple(str(each) for each in data if not _foretold(each, gone)),
        foretold=tuple(str(each) for each in data if _foretold(each, gone)),
        uncompared=tuple(str(each) for each in differences if each.weight is Weight.UNCOMPARED),
        surroundings=tuple(str(each) for each in differences if each.weight is Weight.SURROUNDINGS),
        broken=tuple(str(each) for each in kept.broken) if kept else (),
        inherited=tuple(str(each) for each in kept.findings if each.inherited) if kept else (),
        not_checked=kept.not_checked if kept else (),
    )


def _narrowed(side: Inventory, tables: Collection[str], sequences: Collection[str]) -> Inventory:
    """What of an inventory is about these alone. Extensions and counts of objects are about the whole."""
    return side.model_copy(
        update={
            "tables": tuple(each for each in side.tables if each.name in tables),
            "sequences": tuple(each for each in side.sequences if each.name in sequences),
            "row_security": tuple(name for name in side.row_security if name in tables),
            "extensions": (), "objects": (), "roles": (), "large_objects": LargeObjects(), "unpopulated": (),
        }
    )  # fmt: skip


_COUNTED = {
    "view": ("VIEW",),
    "index": ("INDEX", "CONSTRAINT"),
    "trigger": ("TRIGGER",),
    "policy": ("POLICY",),
    "check constraint": ("CHECK CONSTRAINT", "FOREIGN TABLE"),
    "foreign key": ("FK CONSTRAINT",),
    "primary key": ("CONSTRAINT",),
    "unique constraint": ("CONSTRAINT",),
    "exclusion constraint": ("CONSTRAINT",),
    "function": ("FUNCTION", "PROCEDURE", "AGGREGATE"),
    "type": ("TYPE", "DOMAIN"),
    "default value": ("DEFAULT", "VIEW", "FOREIGN TABLE"),
}
"""What an inventory counts, and the entries of a dump whose absence makes it fewer."""


def _foretold(difference: Difference, gone: Collection[str]) -> bool:
    """Whether it follows from what was left out, and no more than that is missing."""
    plain = ".".join(parts(difference.name))
    if difference.what in _COUNTED and not difference.name:
        fewer = int(difference.expected) - int(difference.found)
        kinds = tuple(f"{kind} " for kind in _COUNTED[difference.what])
        return 0 < fewer <= sum(what.startswith(kinds) for what in gone)
    if difference.found == "nothing":
        kinds = {
            "extension": ("EXTENSION",),
            "sequence": ("SEQUENCE",),
            "table": ("FOREIGN TABLE", "MATERIALIZED VIEW"),
        }.get(difference.what, ())
        return any(f"{kind} {plain}" in gone for kind in kinds)
    return difference.what == "materialized view" and f"MATERIALIZED VIEW DATA {plain}" in gone
