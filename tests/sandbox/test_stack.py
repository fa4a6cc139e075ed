"""Stacks and their folders: restarts, several side by side, other accounts, and what is refused."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from runbooks.clients import programs
from runbooks.model.errors import SandboxFault
from runbooks.sandbox import daemon, osuser
from runbooks.sandbox.cluster import Cluster, Toolbox
from runbooks.sandbox.osuser import Account
from runbooks.sandbox.place import is_held
from runbooks.sandbox.processes import NOBODYS_PID, free_port, is_free
from runbooks.sandbox.stack import Stack
from tests.sandbox.test_branch_at_a_moment import count, rows
from tests.sandbox.test_crash import processes_of
from tests.stack import session, speaking_to, stack_root


def test_two_stacks_live_side_by_side() -> None:
    with stack_root() as one, stack_root() as two, Stack.start(one) as first, Stack.start(two) as second:
        assert first.api_url != second.api_url
        assert first.api_key != second.api_key
        with session(first.uri().reveal()) as connection:
            connection.execute("create table here as select 1 as i")
        assert rows(second.uri().reveal(), "select 1 from pg_tables where tablename = 'here'") == []
        with speaking_to(first) as api:
            assert api.client.get(f"/projects/{second.project_id}").status_code == 404


def test_a_stopped_stack_leaves_no_process_and_comes_back_as_it_was() -> None:
    with stack_root() as root:
        with Stack.start(root) as stack, speaking_to(stack) as api:
            uri, url, key = api.uri(), stack.api_url, stack.api_key
            with session(uri) as connection:
                connection.execute("create table kept as select 1 as i")
            branch = api.branch_at(None, name="kept too")
            assert is_held(root)
        assert processes_of(root) == []
        assert not is_held(root)
        assert not (root / "stack.json").exists()
        with Stack.start(root) as stack, speaking_to(stack) as api:
            assert (stack.api_url, stack.api_key, api.uri()) == (url, key, uri)
            assert rows(uri, "select count(*) from kept") == [(1,)]
            assert count(api, branch, "kept") == 1


def test_what_was_suspended_stays_suspended() -> None:
    with stack_root() as root:
        with Stack.start(root) as stack, speaking_to(stack) as api:
            (endpoint,) = api.call("GET", f"{api.project}/endpoints")["endpoints"]
            path = f"{api.project}/endpoints/{endpoint['id']}"
            api.done("POST", f"{path}/suspend")
        with Stack.start(root) as stack, speaking_to(stack) as api:
            assert api.call("GET", path)["endpoint"]["current_state"] == "idle"
            api.done("POST", f"{path}/start")
            assert rows(api.uri(), "select 1") == [(1,)]


def test_facts_and_secrets_are_for_their_owner_only() -> None:
    with stack_root() as root, Stack.start(root) as stack:
        facts = json.loads((root / "stack.json").read_text())
        assert facts["api_url"] == stack.api_url
        assert facts["api_key"] == stack.api_key.reveal()
        assert (facts["project_id"], facts["default_branch_id"]) == (stack.project_id, stack.default_branch_id)
        assert facts["pid"] == os.getpid()
        assert root.stat().st_mode & 0o777 == 0o700
        for path in (root / "stack.json", root / "state.json"):
            assert path.stat().st_mode & 0o777 == 0o600
        for path in root.glob("projects/*/*"):
            assert path.stat().st_mode & 0o077 == 0
        secret = stack.uri().reveal().split(":")[2].split("@")[0]
        logs = "".join(path.read_text() for path in root.glob("projects/*/*/log"))
        commands = " ".join(processes_of(root))
        assert secret not in logs + commands
        assert stack.plane.ledger.state.superuser_password not in logs + commands


def test_a_second_start_in_the_same_folder_is_refused() -> None:
    with stack_root() as root, Stack.start(root), pytest.raises(SandboxFault, match="another process runs"):
        Stack.start(root)


def test_a_folder_that_is_not_ours_is_refused() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "thesis.txt").write_text("do not touch")
        with pytest.raises(SandboxFault, match="no sandbox"):
            Stack.start(root)
        with pytest.raises(SandboxFault, match="no sandbox"):
            daemon.down(root, delete=True)
        assert (root / "thesis.txt").exists()
    with stack_root() as root:
        root.chmod(0o755)
        with pytest.raises(SandboxFault, match="open to other accounts"):
            Stack.start(root)


def test_a_port_taken_meanwhile_is_replaced() -> None:
    with stack_root() as root:
        with Stack.start(root) as stack:
            port = int(stack.uri().reveal().split("localhost:")[1].split("/")[0])
        assert is_free(port)
        with socket.create_server(("127.0.0.1", port)), Stack.start(root) as stack:
            assert f":{port}/" not in stack.uri().reveal()
            assert rows(stack.uri().reveal(), "select 1") == [(1,)]


def test_an_api_port_taken_meanwhile_is_replaced() -> None:
    with stack_root() as root:
        with Stack.start(root) as stack:
            before = stack.api_url
        port = int(before.split(":")[2].split("/")[0])
        with socket.create_server(("127.0.0.1", port)), Stack.start(root) as stack, speaking_to(stack) as api:
            assert stack.api_url != before
            api.call("GET", "/projects")


def test_a_pid_file_whose_number_belongs_to_somebody_else_now_does_not_get_them_killed() -> None:
    with stack_root() as root:
        with Stack.start(root) as stack:
            uri = stack.uri().reveal()
        (data,) = root.glob("projects/*/*/data")
        bystander = subprocess.Popen(["sleep", "60"], **Account.choose().spawning())  # PostgreSQL's own account
        try:
            (data / "postmaster.pid").write_text(f"{bystander.pid}\n{data}\n1\n1\n\n127.0.0.1\n1 1\nready\n")
            with Stack.start(root):
                assert rows(uri, "select 1") == [(1,)]
            assert bystander.poll() is None
        finally:
            bystander.kill()
            bystander.wait()


def test_the_word_ready_of_a_server_that_was_killed_is_not_taken_for_the_new_one_s() -> None:
    with stack_root() as root:
        with Stack.start(root) as stack:
            tools = Toolbox(
                osuser.prepare(root, Account.choose()), Account.choose(), stack.plane.ledger.state.superuser_password
            )
        (home,) = root.glob("projects/*/*")
        cluster = Cluster(home, tools)
        (cluster.data / "postmaster.pid").write_text(f"{NOBODYS_PID}\n{cluster.data}\n1\n1\n\n127.0.0.1\n1 1\nready\n")
        server = cluster.start(free_port(), {})
        try:
            with server.wait().connect() as connection:
                assert connection.execute("select 1").fetchall() == [(1,)]
        finally:
            server.stop()


def test_a_state_file_from_another_version_is_refused_untouched() -> None:
    with stack_root() as root:
        with Stack.start(root):
            pass
        (root / "state.json").write_text('{"api_key": "k", "from": "the future"}')
        with pytest.raises(SandboxFault, match="not a state this version"):
            Stack.start(root)
        assert "future" in (root / "state.json").read_text()


def test_up_is_idempotent_down_too_and_status_tells() -> None:
    with stack_root() as parent:
        root = parent / "stack"
        parent.chmod(0o755)
        assert daemon.status(root) == daemon.Status(root, exists=False, running=None)
        daemon.down(root, delete=True)
        first = daemon.up(root)
        again = daemon.up(root)
        assert (first.already, again.already, first.pid) == (False, True, again.pid)
        assert first.api_key.reveal() not in repr(first)
        running = daemon.status(root).running
        assert running is not None
        assert running.api_url == first.api_url
        with speaking_to(first) as api:
            assert rows(api.uri(), "select 1") == [(1,)]
        daemon.down(root)
        assert daemon.status(root) == daemon.Status(root, exists=True, running=None)
        daemon.down(root, delete=True)
        assert not root.exists()


def test_a_stack_inside_another_program_is_not_ended_by_down() -> None:
    with stack_root() as root, Stack.start(root):
        with pytest.raises(SandboxFault, match="inside another program"):
            daemon.down(root)


def test_a_start_that_fails_says_why() -> None:
    with stack_root() as root:
        with Stack.start(root):
            pass
        (root / "state.json").write_text("{}")
        with pytest.raises(SandboxFault, match="not a state this version"):
            daemon.up(root)


def test_the_place_is_the_one_that_was_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BLOOM_DR_SANDBOX", str(tmp_path / "mine"))
    assert daemon.default_root() == tmp_path / "mine"
    monkeypatch.delenv("BLOOM_DR_SANDBOX")
    monkeypatch.setenv("HOME", str(tmp_path))
    inside_home = daemon.default_root().is_relative_to(tmp_path)
    assert inside_home is (os.geteuid() != 0), "root's home is closed to the account PostgreSQL runs as"


SMOKE = """
import os, sys
from pathlib import Path
import psycopg
from runbooks.sandbox.stack import Stack
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[3]))  # the interpreter may be closed to them
with Stack.start(Path(sys.argv[1])) as stack, psycopg.connect(stack.uri().reveal()) as connection:
    print(os.geteuid(), connection.execute("select 1 + 1").fetchone()[0])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test runs as an ordinary user then")
def test_it_runs_as_an_ordinary_user_too() -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, nobody.pw_uid, nobody.pw_gid)
        command = [sys.executable, "-c", SMOKE, f"{name}/stack", str(nobody.pw_gid), str(nobody.pw_uid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert done.stdout == (f"{nobody.pw_uid} 2\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives its rights up")
def test_programs_in_a_closed_folder_are_copied_for_the_account_that_runs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    account, found = Account.choose(), programs.find("postgres", at_least=17)
    with tempfile.TemporaryDirectory() as closed, stack_root() as root:
        inner = Path(closed) / "install"
        subprocess.run(["cp", "-a", found.path.parent.parent, inner], check=True)
        monkeypatch.setenv("BLOOM_DR_PG_BIN", str(inner / "bin"))
        account.own(root)
        program = osuser.prepare(root, account)
        assert program.path.is_relative_to(root)
        account.run(program.sibling("initdb"), "--version")
        assert osuser.prepare(root, account) == program
        with tempfile.TemporaryDirectory() as unreachable:
            with pytest.raises(SandboxFault, match="cannot enter"):
                osuser.prepare(Path(unreachable) / "x", account)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses")
def test_as_root_another_account_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Account.choose().uid not in (None, 0)
    monkeypatch.setenv("BLOOM_DR_PG_USER", "nobody")
    assert Account.choose().uid == pwd.getpwnam("nobody").pw_uid
    for wrong in ("root", "no-such-account"):
        monkeypatch.setenv("BLOOM_DR_PG_USER", wrong)
        with pytest.raises(SandboxFault, match="does not run as root"):
            Account.choose()
