"""New bases are taken as the log grows, old ones go when the window has passed them, and branches stay exact."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runbooks.model.moment import Moment
from runbooks.sandbox import history
from runbooks.sandbox.records import Timeline
from runbooks.sandbox.stack import Stack
from tests.sandbox.test_branch_at_a_moment import count, create, quiet_moment
from tests.stack import Api, Clock, session, speaking_to, stack_root, until


def timeline_of_main(stack: Stack) -> Timeline:
    ledger = stack.plane.ledger
    return ledger.get(Timeline, ledger.default_branch(stack.project_id).timeline_id)


def test_branches_stay_exact_across_new_bases_and_pruning(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(history, "NEW_BASE_AFTER_BYTES", 4 * 1024 * 1024)
    moments: list[Moment] = []
    with stack_root() as root, Stack.start(root, clock=clock) as stack, speaking_to(stack) as api:
        with session(api.uri()) as connection:
            connection.execute("create table steps (i int, filler text)")
            for step in (1, 2, 3):
                connection.execute("insert into steps values (%s, '')", (step,))
                moments.append(quiet_moment(connection))
                connection.execute("create table filler as select repeat('x', 1000) from generate_series(1, 6000)")
                connection.execute("drop table filler")
                until(lambda step=step: len(timeline_of_main(stack).bases) > step)
            # Each moment starts from another base.
            for step, at in enumerate(moments, start=1):
                assert count(api, api.branch_at(at.iso()), "steps") == step
            (wal_before,) = connection.execute("select count(*) from pg_ls_waldir()").fetchall()[0]
            # The window moves on past the second moment.
            retention = 86_400
            api.call("PATCH", api.project, json={"project": {"history_retention_seconds": retention}})
            second = timeline_of_main(stack).bases[1]
            clock.ahead = second.stop_at.utc + timedelta(seconds=retention) - datetime.now(UTC)
            until(lambda: timeline_of_main(stack).bases[0].number >= 2)
            until(lambda: connection.execute("select count(*) from pg_ls_waldir()").fetchall()[0][0] < wal_before)
            bases = root / "projects" / api.project_id / timeline_of_main(stack).id / "bases"
            until(lambda: not (bases / "1").exists())
        clock.ahead = timedelta(0)
        assert count(api, api.branch_at(moments[2].iso()), "steps") == 3
        assert create(api, moments[0].iso()).status_code == 400, "its base is gone, so it is refused"


def test_a_base_that_a_killed_supervisor_left_half_made_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stack_root() as root, Stack.start(root) as stack, speaking_to(stack) as api:
        home = next((root / "projects").glob("*/*/bases"))
        (home / "2").mkdir()
        (home / "2" / "half").write_text("")
        monkeypatch.setattr(history, "NEW_BASE_AFTER_BYTES", 1024)
        with session(api.uri()) as connection:
            connection.execute("create table later as select generate_series(1, 1000) as i")
            until(lambda: len(timeline_of_main(stack).bases) > 1)
            at = quiet_moment(connection)
        assert not (home / "2" / "half").exists()
        assert count(api, api.branch_at(at.iso()), "later") == 1000


def test_after_its_slot_was_dropped_the_history_begins_anew_and_says_so(stack: Stack, api: Api) -> None:
    with session(api.uri()) as connection:
        connection.execute("create table kept as select 1 as i")
        before = quiet_moment(connection)
        connection.execute("select pg_drop_replication_slot('history')")
        until(lambda: timeline_of_main(stack).bases[0].number == 2)
        after = quiet_moment(connection)
    assert create(api, before.iso()).status_code == 400
    assert count(api, api.branch_at(after.iso()), "kept") == 1
