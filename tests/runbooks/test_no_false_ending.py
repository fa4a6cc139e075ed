"""An ending says what is true: each case here once ended as PROVED while rows were missing, or somebody else's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runbooks import accidental_delete, undo_recovery
from runbooks.engine.consent import Consenting
from runbooks.engine.plan import Verdict
from runbooks.engine.step import Ended
from runbooks.model.errors import ConsentNeeded
from runbooks.model.moment import Moment
from runbooks.model.run_id import RunId
from tests.runbooks.ground import Facts
from tests.runbooks.scenario import YES
from tests.stack import Stack, stack_root

TABLES = """
DROP SCHEMA public CASCADE; CREATE SCHEMA public;
CREATE TABLE client (id int PRIMARY KEY, name text);
CREATE TABLE booking (id int PRIMARY KEY, client int REFERENCES client ON DELETE CASCADE);
CREATE TABLE invoice (id int PRIMARY KEY, client int REFERENCES client);
INSERT INTO client SELECT n, 'client ' || n FROM generate_series(1, 10) AS n;
INSERT INTO booking SELECT n, 1 + n % 10 FROM generate_series(1, 40) AS n;
INSERT INTO invoice VALUES (1, 2);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER quiet BEFORE INSERT ON booking FOR EACH ROW EXECUTE FUNCTION nothing()
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    with stack_root() as root, Stack.start(root) as stack:
        yield stack


class Ground:
    """Tables as new, a moment at which all was well, and the runs of a test."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.do(TABLES)
        with facts.session() as conn:
            self.moment = Moment.of(conn.execute("SELECT clock_timestamp()").fetchone()[0])  # type: ignore[index]
            while Moment.of(conn.execute("SELECT clock_timestamp()").fetchone()[0]).neon() <= self.moment.neon():  # type: ignore[index]
                pass

    def do(self, sql: str) -> None:
        with self.facts.session() as conn:
            conn.execute(sql)  # type: ignore[call-overload]

    def value(self, sql: str) -> Any:
        with self.facts.session() as conn:
            return conn.execute(sql).fetchone()[0]  # type: ignore[call-overload,index]

    def request(self, *tables: str, where: str | None = None) -> accidental_delete.Request:
        return accidental_delete.Request(at=self.moment, tables=tables, where=where)

    def recover(self, *tables: str, where: str | None = None) -> Ended:
        request = self.request(*tables, where=where)
        return self.facts.engine().start(accidental_delete.RUNBOOK, request, self.facts.world(), YES)

    def preview(self, *tables: str) -> RunId:
        run_id = RunId.new(datetime.now(UTC))
        with pytest.raises(ConsentNeeded):
            self.facts.engine().start(
                accidental_delete.RUNBOOK, self.request(*tables), self.facts.world(), Consenting("t"), run_id
            )
        return run_id

    def consent(self, run_id: RunId) -> Ended:
        return self.facts.engine().resume(accidental_delete.RUNBOOK, run_id, self.facts.world(), YES)


@pytest.fixture
def ground(running: Stack, tmp_path: Path) -> Ground:
    return Ground(Facts.of(running, tmp_path))


def test_a_key_that_is_somebody_elses_now_is_told_with_the_rows_that_went_with_the_first(ground: Ground) -> None:
    ground.do(
        "DELETE FROM booking WHERE client = 5; DELETE FROM client WHERE id = 5; INSERT INTO client VALUES (5, 'x')"
    )
    ended = ground.recover("client", where="id = 5")
    assert ended.ending.verdict is Verdict.INCOMPLETE
    told = "; ".join(ended.ending.left_open)
    assert "1 rows of public.client are there, but not as they were" in told
    assert "4 rows of public.booking" in told
    assert ground.value("SELECT name FROM client WHERE id = 5") == "x"


def test_in_a_whole_table_rows_that_people_edited_since_are_told_and_are_no_failure(ground: Ground) -> None:
    ground.do("DELETE FROM client WHERE id = 4; UPDATE client SET name = 'edited' WHERE id = 6")
    ended = ground.recover("client")
    assert ended.ending.verdict is Verdict.PROVED
    assert any("keys (6)" in value for _, value in ended.ending.facts)
    assert ground.value("SELECT count(*) FROM booking WHERE client = 4") == 4


def test_rows_that_went_between_preview_and_consent_are_told(ground: Ground) -> None:
    ground.do("DELETE FROM booking WHERE id <= 5")
    run_id = ground.preview("booking")
    ground.do("DELETE FROM booking WHERE id BETWEEN 30 AND 34")
    ended = ground.consent(run_id)
    assert ended.ending.verdict is Verdict.INCOMPLETE
    assert "5 more rows of public.booking have gone since the survey" in "; ".join(ended.ending.left_open)
    assert ground.recover("booking").ending.verdict is Verdict.PROVED


def test_rows_taken_back_before_the_proof_are_not_called_back(ground: Ground) -> None:
    ground.do("DELETE FROM booking WHERE id <= 11")
    run_id = ground.preview("booking")
    engine, world = ground.facts.engine(), ground.facts.world()
    book = accidental_delete.RUNBOOK
    steps = tuple(replace(s, run=_interrupted) if s is accidental_delete.PROVE else s for s in book.steps)
    with pytest.raises(KeyboardInterrupt):
        engine.resume(replace(book, steps=steps), run_id, world, YES)
    undone = engine.start(undo_recovery.RUNBOOK, undo_recovery.Request(recovery=str(run_id)), world, YES)
    assert undone.ending.verdict is Verdict.PROVED
    ended = ground.consent(run_id)
    assert ended.ending.verdict is Verdict.INCOMPLETE
    assert ended.ending.summary.startswith("0 rows are back")
    assert "11 rows of public.booking were deleted by others since" in "; ".join(ended.ending.left_open)


def _interrupted(running: Any) -> Any:
    raise KeyboardInterrupt


def test_an_undo_that_does_not_find_a_row_under_its_key_says_so(ground: Ground) -> None:
    ground.do("DELETE FROM invoice; DELETE FROM booking WHERE id <= 3")
    recovered = ground.recover("booking")
    ground.do("UPDATE booking SET id = 500 WHERE id = 3")
    request = undo_recovery.Request(recovery=str(recovered.run_id))
    ended = ground.facts.engine().start(undo_recovery.RUNBOOK, request, ground.facts.world(), YES)
    assert ended.ending.verdict is Verdict.INCOMPLETE
    assert "keys (3)" in "; ".join(ended.ending.left_open)


def test_a_condition_that_fits_only_one_of_two_tables_does_not_hide_what_the_other_lost(ground: Ground) -> None:
    ground.do("DELETE FROM invoice WHERE client = 2; DELETE FROM client WHERE id = 2")
    ended = ground.recover("client", "invoice", where="id = 2")
    assert ended.ending.verdict is Verdict.INCOMPLETE
    assert "1 rows of public.invoice" in "; ".join(ended.ending.left_open)


def test_a_moment_after_the_delete_is_not_called_a_recovery(ground: Ground) -> None:
    ground.do("DELETE FROM booking WHERE id = 1")
    with ground.facts.session() as conn:
        ground.moment = Moment.of(conn.execute("SELECT clock_timestamp()").fetchone()[0])  # type: ignore[index]
    ended = ground.recover("booking")
    assert ended.ending.verdict is Verdict.NOTHING_MISSING
    assert "try an earlier --at" in ended.ending.summary


def test_a_trigger_that_somebody_switched_off_after_the_preview_stays_off(ground: Ground) -> None:
    ground.do("DELETE FROM client WHERE id = 3; INSERT INTO client VALUES (3, 'client 3')")
    ground.do("INSERT INTO booking SELECT n, 3 FROM generate_series(1, 40) AS n WHERE 1 + n % 10 = 3")
    ground.do("DELETE FROM invoice; DELETE FROM client WHERE id = 1")
    ground.do("INSERT INTO client VALUES (1, 'client 1')")
    ground.do("INSERT INTO booking SELECT 10 * n, 1 FROM generate_series(1, 4) AS n")
    run_id = ground.preview("invoice", "booking")
    ground.do("ALTER TABLE booking DISABLE TRIGGER quiet")
    ground.consent(run_id)
    assert ground.value("SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'quiet'") == "D"
