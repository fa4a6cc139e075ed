"""The oracle itself, line by line of decision 10's table, without a database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.rows.oracle import Decision, Powers, Ruling, States, rule
from tests.rows.world import Action, Column, Table, Tie, Unique, Values, World

ALL = Powers(other_keys=True, pointers=True, changed=True, unseen=True)
PARENT = Table(
    "public", "p", (Column("id", "int"), Column("u", "text")), (0,), True, (Unique((1,)),), None, (), False, ()
)
CHILD = replace(PARENT, name="c", columns=(Column("id", "int"), Column("p", "int")), uniques=())


def ruled(
    past: str,
    now: str,
    after: str | None = None,
    *,
    action: Action = "cascade",
    changed: bool = False,
    asked: tuple[int, ...] = (0,),
    decision: Decision | None = None,
) -> Ruling:
    """Rows as `1a 2b / 7.1`: parents with a unique value, children with their parent; the decision is of parent 1."""
    tie = Tie("fk", 1, (1,), 0, (0,), action, (1,), False)
    world = World((PARENT, CHILD), (tie,), (), (), asked, None, changed, after is not None, False)
    states = States(_state(past), _state(after or past), _state(now), None)
    return rule(world, states, ALL, {(0, ("1",)): decision} if decision else None)


def _state(text: str) -> tuple[tuple[Values, ...], ...]:
    parents, _, children = text.partition("/")
    return (
        tuple((word[0], word[1:] or None) for word in parents.split()),
        tuple((word[0], word[2:] or None) for word in children.split()),
    )


def told(ruling: Ruling) -> str:
    parents, children = ruling.rows
    one = " ".join(sorted(f"{row[0]}{row[1] or ''}" for row in parents))
    return one + " / " + " ".join(sorted(f"{row[0]}.{row[1] or ''}" for row in children))


@pytest.mark.parametrize(
    ("past", "after", "now", "changed", "final", "conflicts"),
    [
        ("1a / 7.1", None, " / ", False, "1a / 7.1", []),  # missing, with its cascade
        ("1a", None, "1b", False, "1b / ", []),  # different: listed only
        ("1a", "1a", "1b", True, "1b / ", []),  # edited later
        ("1a", "1b", "1b", True, "1a / ", []),  # damaged
        ("1a", "1b", "1c", True, "1c / ", ["damaged, then edited"]),
        ("1a", " ", "1c", True, "1c / ", ["somebody else's key"]),
        ("1a", None, "1c", True, "1c / ", ["damaged or edited"]),  # --changed alone
        ("1a / 7.1", None, "2a / ", False, "2a / ", ["orphan", "taken"]),
        ("1a 2b", "1b", "1b", True, "1a 2b / ", []),  # open: what is set back gives up its value
        ("1a 2b", "1b", "1b 3a", True, "1b 3a / ", ["taken", "taken"]),
    ],
)
def test_each_line_of_the_decision(
    past: str, after: str | None, now: str, changed: bool, final: str, conflicts: list[str]
) -> None:
    ruling = ruled(past, now, after, changed=changed)
    assert (told(ruling), sorted(ruling.conflicts.values())) == (final, conflicts)


def test_a_pointer_is_set_again_only_if_it_still_is_what_the_delete_made_of_it() -> None:
    assert told(ruled("1a 2b / 7.1 8.1", "2b / 7. 8.2", action="set null")) == "1a 2b / 7.1 8.2"


def test_a_child_whose_parent_was_not_asked_for_is_a_conflict() -> None:
    ruling = ruled("1a / 7.1", " / ", action="no action", asked=(1,))
    assert (told(ruling), list(ruling.conflicts.values())) == (" / ", ["orphan"])


def test_a_decision_settles_a_conflict() -> None:
    assert told(ruled("1a", "1b", changed=True, decision=Decision("past"))) == "1a / "
    kept = ruled("1a", "1b", changed=True, decision=Decision("keep"))
    assert (told(kept), kept.conflicts) == ("1b / ", {})
    assert told(ruled("1a / 7.1", "2a / ", decision=Decision("set", {1: "z"}))) == "1z 2a / 7.1"
