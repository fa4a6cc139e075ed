"""The plan of a row recovery, made from what the survey found, and nothing else. What is shown is what is executed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runbooks.model.errors import Refused, UsageFault
from runbooks.model.record import Record
from runbooks.rows.found import Found, FoundTable
from runbooks.rows.names import TableName
from runbooks.rows.shape import Table, Trigger

_SAFE = "nothing was written to production"


class Plan(Record):
    found: Found
    order: tuple[tuple[TableName, ...], ...]
    """Groups of tables, parents before children. The tables of one group point at each other in a circle and are
    filled by one statement, at whose end their foreign keys are checked."""
    suppressed: tuple[Trigger, ...]
    """Triggers that would fire, and are switched off inside the transaction."""
    fired: tuple[Trigger, ...]
    """Triggers that will fire, as accepted by name."""

    @property
    def rows(self) -> int:
        """Rows to insert."""
        return self.found.missing

    @property
    def writes(self) -> int:
        """Rows to insert or to change."""
        return self.found.missing + self.found.amended

    def table(self, name: TableName) -> FoundTable:
        return next(table for table in self.found.tables if table.name == name)


def make_plan(found: Found, *, accept_triggers: Iterable[str] = ()) -> Plan:
    """Pure. Refused if a trigger would fire that cannot be switched off and is not in `accept_triggers` (by its name,
    or as `public.booking.touch`), or if a sequence must move that is not ours. UsageFault for an unknown name.
    """
    filled = tuple(table for table in found.tables if table.missing)
    amended = tuple({one.name: one.target for one in found.amendments}.values())
    accepted = frozenset(accept_triggers)
    check_names((*(table.target for table in found.tables), *amended), accepted)
    # Only of tables that are written to: those alone are locked, and their triggers cannot change meanwhile.
    firing = [(table.target, "insert") for table in filled] + [(table, "update") for table in amended]
    suppressed, fired = sort_triggers(firing, accepted)
    _check_sequences(tuple(table for table in found.tables if table.missing or table.set_back))
    written = {table.name: table for table in (*(each.target for each in filled), *amended)}
    return Plan(found=found, order=insert_order(written.values()), suppressed=suppressed, fired=fired)


def sort_triggers(
    events: Iterable[tuple[Table, str]], accepted: frozenset[str]
) -> tuple[tuple[Trigger, ...], tuple[Trigger, ...]]:
    """The triggers on these events (insert, update, delete) of tables that we switch off, and those that will fire
    because they were accepted by name. Refused if one would fire that was not.
    """
    firing = [(trigger, event) for table, event in events for trigger in table.triggers if event in trigger.events]
    unwanted = [
        (trigger, event)
        for trigger, event in firing
        if not trigger.ours and not {trigger.name, trigger.label} & accepted
    ]
    if unwanted:
        raise _would_fire(unwanted)
    triggers = tuple(dict.fromkeys(trigger for trigger, _ in firing))
    return (
        tuple(trigger for trigger in triggers if trigger.ours),
        tuple(trigger for trigger in triggers if not trigger.ours),
    )


def insert_order(tables: Iterable[Table]) -> tuple[tuple[TableName, ...], ...]:
    """Parents before children, by production's foreign keys; tables in a circle share a group."""
    parents = {table.name: {tie.parent for tie in table.parents} for table in tables}
    above = {name: _reachable(name, parents) for name in parents}
    groups = {frozenset({name, *(other for other in above[name] if name in above[other])}) for name in parents}
    # What is above a group is above all that is below it, and more, so counting what is above gives an order.
    ordered = sorted(
        groups, key=lambda group: (len(set().union(*(above[name] for name in group)) | group), sorted(group))
    )
    return tuple(tuple(sorted(group)) for group in ordered)


def _reachable(start: TableName, parents: dict[TableName, set[TableName]]) -> set[TableName]:
    reached: set[TableName] = set()
    waiting = [start]
    while waiting:
        for name in parents[waiting.pop()] & parents.keys() - reached:
            reached.add(name)
            waiting.append(name)
    return reached


def check_names(tables: Iterable[Table], accepted: frozenset[str]) -> None:
    """UsageFault if a trigger was accepted that no table concerned has."""
    known = {name for table in tables for trigger in table.triggers for name in (trigger.name, trigger.label)}
    unknown = sorted(accepted - known)
    if unknown:
        raise UsageFault(
            f"no table concerned has an enabled trigger {', '.join(unknown)}",
            safe=_SAFE,
            next_step=f"name one of: {', '.join(sorted(known)) or 'there is none'}",
        )


def _would_fire(triggers: Sequence[tuple[Trigger, str]]) -> Refused:
    told = "; ".join(f"{each.label} ({each.timing} {event}, calls {each.function})" for each, event in triggers)
    return Refused(
        f"triggers would fire, and our role may not switch them off: {told}",
        safe=_SAFE,
        next_step="run this as the owner of the tables; or, if their effect is harmless, accept each one by name "
        "(a trigger that changes a row or writes elsewhere makes the run roll back)",
    )


def _check_sequences(tables: tuple[FoundTable, ...]) -> None:
    stuck = [
        f"{need.sequence.name} stands at {need.stands_at}, and {need.extreme} is in use"
        for table in tables
        for need in table.sequences
        if need.move_to is not None and not need.sequence.ours
    ]
    if stuck:
        raise Refused(
            f"a sequence would hand out ids that are in use, and our role may not move it: {'; '.join(stuck)}",
            safe=_SAFE,
            next_step="run this as the owner of the sequence",
        )
