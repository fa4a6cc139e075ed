"""The search for a moment as a person types it, and the command that it ends with."""

from __future__ import annotations

import pytest

from tests.commands.operator import CODES, Operator, now

FIND = "recover.find"


@pytest.mark.long
def test_the_search_ends_with_the_command_that_brings_the_rows_back(operator: Operator) -> None:
    since, branches = now(), operator.branches()
    operator.sql("update clients set phone = 'other' where id = 90")
    operator.sql("delete from reservations where client_id in (70, 71)")
    operator.sql("update clients set phone = 'again' where id = 90")
    said = operator.invoke(FIND, "--since", since, "--tables=reservations", "--where=client_id in (70, 71)", "--json")
    assert said.code == 0, said
    assert "questions                 at most" in said.err
    found = said.data["results"]["narrow-down"]
    assert since.removesuffix("Z") <= found["last_good"] < found["first_bad"]
    assert (len(found["flips"]), found["unsteady"]) == (1, [])
    assert operator.branches() == branches
    recovery = operator.paste(dict(said.data["facts"])["next"])
    assert recovery.code == CODES["ConsentNeeded"], recovery
    again = operator.paste(recovery.pasted)
    assert again.code == 0, again
    count = "select count(*) > 0 from reservations where client_id = any (array[70, 71])"
    assert operator.sql(count) == [(True,)]


def test_it_has_no_dry_form(operator: Operator) -> None:
    operator.invoke("--dry", FIND, "--since=2025-12-03T14:30:00Z", "--sql=SELECT true").stopped("UsageFault", "no dry")


def test_a_search_without_what_was_there_is_refused(operator: Operator) -> None:
    with operator.nothing_changes():
        operator.invoke(FIND, "--since=2025-12-03T14:30:00Z").stopped("UsageFault", "--tables or --sql")
