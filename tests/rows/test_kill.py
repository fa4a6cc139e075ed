"""A run that dies at the worst moments: what the server then says is the truth, and the next run goes on from it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from runbooks.clients.postgres import Outcome, connect, outcome
from runbooks.model.errors import CouldNotVerify, LocalFault, Refused
from runbooks.rows.applied import Applied
from runbooks.rows.apply import apply
from runbooks.rows.found import Request
from runbooks.rows.plan import Plan, make_plan
from runbooks.rows.survey import survey
from tests.rows.cluster import Pair, Pairs, until, value

SETUP = """
CREATE TABLE t (id serial PRIMARY KEY, v text); INSERT INTO t (v) SELECT 'v' || g FROM generate_series(1, 50) AS g;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := 1; RETURN NEW; END';
CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
"""

VICTIM = """
import json, os, sys
from pathlib import Path
from runbooks.clients.postgres import connect
from runbooks.model.dsn import Dsn
from runbooks.rows.applied import Applied
from runbooks.rows.apply import apply
from runbooks.rows.plan import Plan
given = json.loads(sys.stdin.readline())
production, branch = (connect(Dsn.parse(dsn), application_name="victim") for dsn in given["dsns"])
plan, undo = Plan.model_validate(given["plan"]), Path(given["undo"])
def die(applied):
    print(applied.xid, flush=True)
    sys.stdin.readline()  # never comes: the test kills us here
apply(production, branch, plan, run_id="r", undo_path=undo, before_commit=die)
"""


def planned(pair: Pair) -> Plan:
    pair.app.execute("DELETE FROM t WHERE id <= 30; SELECT setval('t_id_seq', 1)")
    return make_plan(survey(pair.production, pair.branch, Request.parse(["t"])))


def carry_out(pair: Pair, plan: Plan, undo: Path, before_commit: Callable[[Applied], None] = lambda _: None) -> int:
    done = apply(pair.production, pair.branch, plan, run_id="r", undo_path=undo, before_commit=before_commit)
    return done.inserted


def test_killed_between_undo_file_and_commit_nothing_is_there_and_the_next_run_does_it(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(SETUP)
    plan = planned(pair)
    dsns = [pair.dsn(0).reveal_url(), pair.dsn(1).reveal_url()]
    given = {"dsns": dsns, "undo": str(tmp_path / "undo"), "plan": plan.model_dump(mode="json")}
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert victim.stdin
        assert victim.stdout
        victim.stdin.write(json.dumps(given) + "\n")
        victim.stdin.flush()
        xid = int(victim.stdout.readline())
        assert outcome(pair.production, xid) is Outcome.IN_PROGRESS
        os.kill(victim.pid, signal.SIGKILL)
    finally:
        victim.kill()
        victim.communicate()
    until(lambda: outcome(pair.production, xid) is Outcome.ABORTED)
    assert value(pair.app, "SELECT count(*) FROM t") == 20
    assert value(pair.app, "SELECT last_value FROM t_id_seq") == 1
    assert value(pair.app, "SELECT tgenabled FROM pg_trigger WHERE tgname = 't'") == "O"
    # The undo file of the dead run is in the way, and may be replaced because its transaction came to nothing.
    assert carry_out(pair, plan, tmp_path / "undo") == 30


def test_the_undo_file_of_a_committed_run_is_never_replaced(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SETUP)
    plan = planned(pair)
    assert carry_out(pair, plan, tmp_path / "undo") == 30
    content = (tmp_path / "undo").read_bytes()
    with pytest.raises(Refused, match="which is committed"):
        carry_out(pair, plan, tmp_path / "undo")
    assert (tmp_path / "undo").read_bytes() == content


def test_a_connection_that_breaks_at_commit_is_not_called_a_success_or_a_failure(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SETUP)
    plan = planned(pair)
    xids: list[int] = []

    def cut(applied: Applied) -> None:
        assert applied.xid
        xids.append(applied.xid)
        with psycopg.connect(**pair.cluster.keywords(), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", (pair.production.info.backend_pid,))

    with pytest.raises(CouldNotVerify, match="not known yet whether it was committed"):
        carry_out(pair, plan, tmp_path / "undo", cut)
    with connect(pair.dsn(0), application_name="fresh") as fresh:
        until(lambda: outcome(fresh, xids[0]) is Outcome.ABORTED)


def test_when_the_journal_cannot_be_written_nothing_is_committed(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SETUP)
    plan = planned(pair)

    def disk_full(_: Applied) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        carry_out(pair, plan, tmp_path / "undo", disk_full)
    assert value(pair.app, "SELECT count(*) FROM t") == 20
    assert value(pair.app, "SELECT tgenabled FROM pg_trigger WHERE tgname = 't'") == "O"


def test_when_the_undo_file_cannot_be_written_nothing_is_committed(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(SETUP)
    plan = planned(pair)
    with pytest.raises(LocalFault):
        carry_out(pair, plan, tmp_path / "no such folder" / "undo")
    assert value(pair.app, "SELECT count(*) FROM t") == 20
