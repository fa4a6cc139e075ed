"""Nothing changes in the target before somebody repeats what only this plan's target has (C34)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands.operator import CODES, Operator, Said, now
from tests.stack import session

RECOVER = "recover.accidental-delete"


@dataclass(frozen=True)
class Stopped:
    """A preview without a terminal, while `yes` comes on stdin."""

    operator: Operator
    said: Said

    @property
    def missing(self) -> int:
        return int(self.said.confirm.rsplit("/", 1)[1])


@pytest.fixture(scope="module")
def stopped(operator: Operator) -> Stopped:
    operator.sql("update clients set referred_by = null where referred_by in (40, 41)")
    moment = now()
    operator.sql("delete from clients where id in (40, 41)")
    before, branches = operator.checksums(), operator.branches()
    words = ("--at", moment, "--tables", "clients", "--where", "id = 40", "--database", "neondb")
    said = operator.invoke(RECOVER, *words, stdin="yes\ny\n")
    assert operator.checksums() == before
    assert operator.branches() == branches | {f"bloom-dr-{said.run_id}"}
    return Stopped(operator, said)


def test_a_preview_names_the_target_the_rows_and_the_way_on(stopped: Stopped) -> None:
    stopped.said.stopped("ConsentNeeded", "nothing was changed")
    with stopped.operator.api() as api:
        target = api.default_branch_id
    assert stopped.said.confirm == f"{target}/neondb/{stopped.missing}"
    for word in (target, "neondb", f"{stopped.missing:,} rows", "public.clients", "public.reservations", "undo"):
        assert word in stopped.said.err
    assert "reservations_mail is kept from firing" in stopped.said.err


def test_c34_without_a_terminal_not_even_the_right_value_on_stdin_is_consent(stopped: Stopped) -> None:
    with stopped.operator.nothing_changes():
        said = stopped.operator.invoke("run.resume", stopped.said.run_id, stdin=f"{stopped.said.confirm}\nyes\n")
        said.stopped("ConsentNeeded")


def test_the_value_of_another_target_is_refused(stopped: Stopped) -> None:
    operator, right = stopped.operator, stopped.said.confirm
    branch, database, rows = right.split("/")
    with operator.api() as api:
        sibling = api.branch_at(None, name="sibling")["id"]
    wrong = [f"{sibling}/{database}/{rows}", f"{branch}/{database}/{int(rows) + 1}", f"{branch}/other/{rows}"]
    with operator.nothing_changes():
        for value in wrong:
            said = operator.invoke("run.resume", stopped.said.run_id, "--confirm", value)
            said.stopped("WrongTarget", repr(value), repr(right))
        operator.invoke("run.resume", stopped.said.run_id, "--confirm=").stopped("UsageFault")


def test_dry_means_that_not_even_the_right_value_is_taken(stopped: Stopped) -> None:
    with stopped.operator.nothing_changes():
        said = stopped.operator.invoke("--dry", "run.resume", stopped.said.run_id, "--confirm", stopped.said.confirm)
        said.stopped("ConsentNeeded")
        stopped.operator.invoke("--dry", "drill.quarterly").stopped("UsageFault", "no dry form")


@pytest.mark.parametrize("typed", ["yes\n", "\x04"])
def test_at_a_terminal_anything_but_the_value_stops(stopped: Stopped, typed: str) -> None:
    with stopped.operator.nothing_changes():
        said = stopped.operator.at_terminal("run.resume", stopped.said.run_id, answers={"stops here): ": typed})
    assert said.code == CODES["WrongTarget" if typed.startswith("y") else "ConsentNeeded"], said.err
    assert "run.resume" in said.err


def test_ctrl_c_at_the_question_leaves_a_run_that_goes_on_and_a_cursor(stopped: Stopped) -> None:
    with stopped.operator.nothing_changes():
        said = stopped.operator.at_terminal("run.resume", stopped.said.run_id, answers={"stops here): ": "\x03"})
    assert said.code == 130
    assert f"next:  invoke run.resume {stopped.said.run_id}\n" in said.err
    assert said.err.rfind("\x1b[?25h") >= said.err.rfind("\x1b[?25l"), "the cursor is hidden"


def test_an_error_at_a_terminal_leaves_a_cursor(stopped: Stopped) -> None:
    said = stopped.operator.at_terminal(RECOVER, "--at", now(), "--tables", "cliens")
    assert said.code == CODES["NotFound"]
    assert "\x1b[?25l" in said.err, "there was no moving line at all"
    assert said.err.rfind("\x1b[?25h") > said.err.rfind("\x1b[?25l"), "the cursor is hidden"


def test_the_command_of_a_preview_works_when_pasted_and_carries_every_option(operator: Operator) -> None:
    moment = now()
    operator.sql("delete from payments where id <= 4")
    first = operator.invoke(RECOVER, "--at", moment, "--tables", "payments", "--where", "id = 2", "--database=neondb")
    said = operator.paste(first.pasted)
    assert said.code == 0, said
    assert re.match(rf"{first.run_id}  proved  \d rows are back", said.out)
    assert operator.sql("select id from payments where id <= 4") == [(2,)]
    assert f"bloom-dr-{first.run_id}" not in operator.branches()


def test_typing_the_value_at_a_terminal_is_consent_and_what_was_typed_before_is_no_answer(operator: Operator) -> None:
    moment = now()
    operator.sql("delete from reservations where client_id = 43")
    said = operator.at_terminal(
        RECOVER, "--at", moment, "--tables", "reservations",
        answers={"journal: ": "y\nyes\n", "stops here): ": "THE VALUE\n"},
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "PROVED" in said.err
    (newest, *_) = operator.json("run.list")["runs"]
    (consented,) = [e for e in operator.json("run.show", newest["run_id"])["entries"] if e["event"] == "consented"]
    assert f"{consented['data']['value']}\x1b[0m (anything else stops here)" in said.err
    assert consented["data"]["how"] == "typed at a terminal"


def test_the_command_can_be_pasted_whatever_the_database_is_called(operator: Operator, tmp_path: Path) -> None:
    """A name of somebody else's choice, typed into the operator's shell."""
    name, ana = "we ird; touch $HERE/ran", operator.having(HERE=str(tmp_path))
    with operator.api() as api:
        wish = {"database": {"name": name, "owner_name": "neondb_owner"}}
        api.done("POST", f"{api.branch()}/databases", json=wish)
        uri = api.uri(database=name)
    with session(uri) as conn:
        conn.execute("create table thing (id int primary key)")
        conn.execute("insert into thing values (1), (2)")
        moment = now()
        conn.execute("delete from thing")
        first = ana.invoke(RECOVER, "--at", moment, "--tables", "thing", "--database", name)
        said = ana.paste(first.pasted)
        assert list(tmp_path.iterdir()) == [], "the shell ran a part of the name"
        assert said.code == 0, said
        assert conn.execute("select count(*) from thing").fetchone() == (2,)
