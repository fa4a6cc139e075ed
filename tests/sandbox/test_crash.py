"""After a kill at any point everything committed is there, a restore is whole or has not happened, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from runbooks.sandbox import daemon
from runbooks.sandbox.processes import command_line
from runbooks.sandbox.stack import Stack
from tests.sandbox.dying import STEPS
from tests.sandbox.test_branch_at_a_moment import count, quiet_moment, rows
from tests.sandbox.test_restore_in_place import damage, restore
from tests.stack import Api, session, speaking_to, stack_root, until


def processes_of(root: Path) -> list[str]:
    """Command lines of all processes that were started for this stack."""
    found = (command_line(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [command for command in found if str(root) in command]


def test_killing_the_supervisor_leaves_no_process_and_loses_nothing() -> None:
    with stack_root() as root:
        first = daemon.up(root)
        with speaking_to(first) as api:
            uri = api.uri()
            with session(uri) as connection:
                connection.execute("create table work as select generate_series(1, 10) as i")
                at = quiet_moment(connection)
                branch = api.branch_at(at.iso(), name="before")
                connection.execute("insert into work select generate_series(11, 20)")
                assert len(processes_of(root)) > 3
                os.kill(first.pid, signal.SIGKILL)
        until(lambda: processes_of(root) == [])
        assert daemon.status(root).running is None
        second = daemon.up(root)
        assert (second.already, second.project_id) == (False, first.project_id)
        assert second.pid != first.pid
        with speaking_to(second) as api:
            assert api.uri() == uri
            assert rows(uri, "select count(*) from work") == [(20,)]
            assert count(api, branch, "work") == 10
            assert count(api, api.branch_at(at.iso()), "work") == 10
        daemon.down(root)
        assert processes_of(root) == []


def test_a_server_that_was_killed_is_started_again(steady_api: Api) -> None:
    api = steady_api
    with session(api.uri()) as connection:
        connection.execute("create table survivor as select 1 as i")
        (data,) = connection.execute("show data_directory").fetchall()[0]
    os.kill(int((Path(data) / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)

    def answers() -> bool:
        try:
            return rows(api.uri(), "select count(*) from survivor") == [(1,)]
        except psycopg.OperationalError:
            return False

    until(answers)


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_a_restore_killed_at_any_step_is_whole_or_has_not_happened(step: str) -> None:
    with stack_root() as root:
        with Stack.start(root) as stack, speaking_to(stack) as api:
            uri, at = api.uri(), damage(api, "goods")
        child = [sys.executable, "-m", "tests.sandbox.dying", str(root), step, at.iso()]
        assert subprocess.run(child, check=False).returncode == -signal.SIGKILL
        with Stack.start(root) as stack, speaking_to(stack) as api:
            assert api.uri() == uri
            ((found,),) = rows(uri, "select count(*) from goods")
            names = {branch["name"] for branch in api.call("GET", f"{api.project}/branches")["branches"]}
            swapped = list(STEPS).index(step) >= list(STEPS).index("after the swap")
            assert (found, names) == ((5, {"main", "kept"}) if swapped else (0, {"main"}))
            assert api.call("GET", api.branch())["branch"]["current_state"] == "ready"
            homes = {path.name for path in (root / "projects" / api.project_id).iterdir()}
            assert homes == set(stack.plane.ledger.state.timelines), "a half-made timeline was left"
            statuses = {each["status"] for each in api.call("GET", f"{api.project}/operations")["operations"]}
            assert statuses <= {"finished", "failed"}
            main = api.default_branch_id
            restore(api, main, source_branch_id=main, source_timestamp=at.iso(), preserve_under_name="kept again")
            assert rows(uri, "select count(*) from goods") == [(5,)]
        assert processes_of(root) == []
