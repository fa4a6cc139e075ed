from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runbooks.rows.names import TableName
from runbooks.rows.sequences import need, target
from runbooks.rows.shape import Sequence


def sequence(increment: int = 1, least: int = 1, greatest: int = 1000, *, cycles: bool = False) -> Sequence:
    return Sequence(
        name=TableName("public", "s"),
        column="id",
        increment=increment,
        least=least,
        greatest=greatest,
        cycles=cycles,
        integers=True,
        ours=True,
    )


def test_a_sequence_that_is_far_enough_stays() -> None:
    assert target(sequence(), 50, 50) is None
    assert target(sequence(), 51, 50) is None
    assert target(sequence(-1), 3, 4) is None


def test_a_sequence_moves_to_the_id_in_use_and_keeps_its_steps() -> None:
    assert target(sequence(), 4, 50) == 50
    assert target(sequence(2), 1, 50) == 51  # even numbers may belong to another node
    assert target(sequence(-5, -1000, -1), -5, -23) == -25


def test_a_sequence_does_not_move_past_its_bound() -> None:
    assert target(sequence(10, 1, 9), 1, 5) is None
    assert target(sequence(10, 1, 15), 1, 12) == 11


def test_a_sequence_that_cycles_is_left_alone_and_that_is_said() -> None:
    found = need(sequence(cycles=True), 4, (50,))
    assert found.move_to is None
    assert found.note


def test_a_sequence_of_a_table_without_rows_stays() -> None:
    assert need(sequence(), 4, (None, None)).move_to is None


@given(st.integers(1, 20), st.booleans(), st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_the_move_is_forward_in_steps_and_no_longer_than_needed(size: int, down: bool, at: int, extreme: int) -> None:
    step = -size if down else size
    moved = target(sequence(step, -(10**6), 10**6), at, extreme)
    ahead = (extreme - at) * (-1 if down else 1)
    if moved is None:
        assert ahead <= 0
    else:
        assert (moved - at) % size == 0
        assert 0 <= (moved - extreme) * (-1 if down else 1) < size
        assert ahead > 0
