"""Where a sequence stands, and where it must stand so that it never hands out an id that is in use."""

from __future__ import annotations

from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.model.record import Record
from runbooks.rows.names import TableName
from runbooks.rows.shape import Sequence


class SequenceNeed(Record):
    """A sequence, and the id it must not fall short of. Numbers count in the sequence's own direction."""

    sequence: Sequence
    stands_at: int
    """The last number it gave out; one step before its start if it gave out none."""
    extreme: int | None
    """The greatest id in use (the least one of a descending sequence) within its bounds; None without such a row."""
    move_to: int | None
    """Where it has to be moved; None if it is far enough already, or is left alone."""
    note: str | None
    """Why it is left alone."""


class SequenceMove(Record):
    sequence: TableName
    was: int
    now: int


def stands_at(conn: Connection, sequence: Sequence) -> int:
    """The last number the sequence gave out, or one step before its first."""
    row = conn.execute(sql.SQL("SELECT last_value, is_called FROM {}").format(sequence.name.identifier)).fetchone()
    assert row is not None  # a sequence is one row
    last, called = row
    return int(last) if called else int(last) - sequence.increment


def extreme_id(conn: Connection, sequence: Sequence, rows: sql.Composable) -> int | None:
    """The id farthest along in the sequence's direction, among `rows` (a FROM item t), within the sequence's bounds."""
    row = conn.execute(
        sql.SQL("SELECT {}({}) FROM {} WHERE {} BETWEEN {} AND {}").format(
            sql.SQL("max" if sequence.increment > 0 else "min"),
            sql.Identifier("t", sequence.column),
            rows,
            sql.Identifier("t", sequence.column),
            sequence.least,
            sequence.greatest,
        )
    ).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def need(sequence: Sequence, at: int, ids: tuple[int | None, ...]) -> SequenceNeed:
    """What the sequence needs so that it stands at or past all `ids`."""
    farthest = max if sequence.increment > 0 else min
    used = [number for number in ids if number is not None]
    extreme = farthest(used) if used else None
    note = left_alone(sequence)
    move = None if note or extreme is None else target(sequence, at, extreme)
    return SequenceNeed(sequence=sequence, stands_at=at, extreme=extreme, move_to=move, note=note)


def left_alone(sequence: Sequence) -> str | None:
    """Why the sequence is never moved, if so."""
    if sequence.cycles:
        return "it cycles, so the greatest id says nothing about where it should stand"
    if not sequence.integers:
        return f"column {sequence.column} does not hold its numbers as they are"
    return None


def target(sequence: Sequence, at: int, extreme: int) -> int | None:
    """The first number at or past `extreme` that the sequence reaches from `at` in its own steps; None if it is there.

    Its steps are kept: with an increment of 2, odd numbers may belong to somebody else.
    """
    step, direction = sequence.increment, (1 if sequence.increment > 0 else -1)
    distance = (extreme - at) * direction
    moved = at + -(-distance // abs(step)) * step
    # Past its bound it cannot go; the last number before it makes the next call fail, which is right: ids ran out.
    beyond = (moved - (sequence.greatest if step > 0 else sequence.least)) * direction
    if beyond > 0:
        moved -= -(-beyond // abs(step)) * step
    return moved if (moved - at) * direction > 0 else None
