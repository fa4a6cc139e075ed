"""The stack's own S3: started at the first demand, kept with the stack, reached over its API."""

from __future__ import annotations

import http.client
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from runbooks.cli.stack import status
from runbooks.clients.archive_client import open_client
from runbooks.model.errors import SandboxFault, ToolMissing
from runbooks.model.secret import Secret
from runbooks.sandbox import daemon
from runbooks.sandbox.archive import ArchiveFacts, SandboxArchive
from runbooks.sandbox.daemon import Running
from runbooks.sandbox.osuser import Account
from runbooks.sandbox.processes import is_free
from runbooks.sandbox.stack import Stack
from tests.stack import stack_root, until


def client(facts: ArchiveFacts) -> Any:
    return open_client(
        region=facts.region, endpoint=facts.endpoint, access_key=facts.access_key, secret_key=facts.secret_key
    )


def put(facts: ArchiveFacts, key: str, content: bytes) -> None:
    client(facts).put_object(Bucket=facts.bucket, Key=key, Body=content)


def get(facts: ArchiveFacts, key: str) -> bytes:
    return bytes(client(facts).get_object(Bucket=facts.bucket, Key=key)["Body"].read())


def port(facts: ArchiveFacts) -> int:
    found = urlsplit(facts.endpoint).port
    assert found is not None
    return found


def raw(running: Running | Stack, method: str, key: Secret) -> httpx.Response:
    url = running.api_url.replace("/api/v2", "/sandbox/archive")
    return httpx.request(method, url, headers={"Authorization": f"Bearer {key.reveal()}"}, trust_env=False, timeout=60)


@contextmanager
def place_of_a_daemon() -> Iterator[Path]:
    """A folder that the daemon can delete, inside one that PostgreSQL's account may pass."""
    with stack_root() as home:
        home.chmod(0o711)
        root = home / "sandbox"
        try:
            yield root
        finally:
            daemon.down(root, delete=True)


@pytest.mark.long
def test_two_who_ask_at_once_get_one_server_and_a_restart_keeps_objects_and_key() -> None:
    with stack_root() as root:
        with Stack.start(root) as stack:
            assert not (root / "archive").exists(), "it was started before anybody asked"
            with ThreadPoolExecutor(4) as asking:
                first, *others = asking.map(lambda _: stack.archive(), range(4))
            assert others == [first] * 3
            put(first, "kept", b"content")
        assert is_free(port(first)), "it outlived the stack"
        with Stack.start(root) as stack:
            again = stack.archive()
            assert (again.recipient, again.access_key) == (first.recipient, first.access_key)
            put(again, "later", b"more")
            assert (get(again, "kept"), get(again, "later")) == (b"content", b"more")


def test_only_the_operator_can_look_into_the_archive(shared_stack: Stack) -> None:
    """SeaweedFS leaves some files open to all; the folders above them are not, to PostgreSQL's account either."""
    facts = shared_stack.archive()
    home = shared_stack.root / "archive"
    for folder in (home, home / "s3", home / "s3" / "data"):
        about = folder.stat()
        assert (about.st_uid, stat.S_IMODE(about.st_mode)) == (os.geteuid(), 0o700)
    assert stat.S_IMODE(facts.key_file.stat().st_mode) == 0o600
    account = Account.choose()
    if account.uid is not None:
        with pytest.raises(SandboxFault, match="denied"):
            account.run("ls", home)


def test_the_key_file_opens_what_was_sealed_to_the_recipient(shared_stack: Stack, tmp_path: Path) -> None:
    from runbooks.clients.seal import Opener, Sealer

    facts = shared_stack.archive()
    plain, sealed, opened = tmp_path / "plain", tmp_path / "sealed", tmp_path / "opened"
    plain.write_bytes(b"row")
    with plain.open("rb") as source, sealed.open("wb") as sink:
        Sealer.to("age", [facts.recipient]).seal(source, sink)
    with sealed.open("rb") as source, opened.open("wb") as sink:
        Opener.having("age", [Secret(facts.key_file.read_text())]).unseal(source, sink)
    assert opened.read_bytes() == b"row"


def test_no_secret_is_in_a_repr_and_none_is_lost_on_the_way(shared_stack: Stack) -> None:
    facts = shared_stack.archive()
    assert facts.secret_key.reveal() not in repr(facts) + str(facts)
    assert ArchiveFacts.of(json.loads(json.dumps(facts.reveal()))) == facts


@pytest.mark.long
def test_a_server_that_died_is_started_again(tmp_path: Path) -> None:
    archive = SandboxArchive(tmp_path / "archive")
    try:
        first = archive.start()
        put(first, "kept", b"content")
        assert archive._server is not None
        assert archive._server.pid is not None
        os.killpg(archive._server.pid, signal.SIGKILL)
        until(lambda: archive.running() is None, limit=timedelta(seconds=10))
        assert get(archive.start(), "kept") == b"content"
    finally:
        archive.stop()


def test_after_the_end_nobody_starts_another(tmp_path: Path) -> None:
    archive = SandboxArchive(tmp_path / "archive")
    archive.stop()
    with pytest.raises(SandboxFault, match="about to end"):
        archive.start()
    assert list(tmp_path.iterdir()) == []


def test_a_running_stack_that_was_never_asked_has_none() -> None:
    with stack_root() as root, Stack.start(root) as stack:
        assert daemon.look(root).archive is None
        assert raw(stack, "GET", stack.api_key).json() == {"archive": None}
        assert not (root / "archive").exists(), "looking started it"


def test_the_status_tells_where_the_archive_and_its_key_are(
    shared_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = shared_stack.archive()
    monkeypatch.setenv(daemon.SETTING, str(shared_stack.root))
    answer = status()
    for told in (facts.endpoint, facts.bucket, facts.key_file, facts.local):
        assert str(told) in answer.text
    assert answer.data["archive"]["bucket"] == facts.bucket
    both = answer.text + json.dumps(answer.data)
    assert facts.secret_key.reveal() not in both
    assert facts.key_file.read_text().strip() not in both


@pytest.mark.long
def test_the_stack_of_another_process_tells_its_archive_to_whoever_has_the_key() -> None:
    with place_of_a_daemon() as root:
        with pytest.raises(SandboxFault, match="not running"):
            daemon.archive(root)
        running = daemon.up(root)
        facts = daemon.archive(root)
        put(facts, "there", b"1")
        assert daemon.archive(root) == facts
        assert daemon.look(root).archive == facts
        for method in ("GET", "POST"):
            refused = raw(running, method, Secret("wrong"))
            assert refused.status_code == 401
            assert facts.secret_key.reveal() not in refused.text
        told = (root / "supervisor.log").read_text()
        for secret in (facts.secret_key.reveal(), facts.key_file.read_text().strip()):
            assert secret not in told
        daemon.down(root)
        assert is_free(port(facts))
        assert facts.key_file.exists()
        daemon.down(root, delete=True)
        assert not root.exists()


@pytest.mark.long
def test_the_archive_ends_with_a_stack_that_is_killed() -> None:
    with place_of_a_daemon() as root:
        running = daemon.up(root)
        facts = daemon.archive(root)
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: is_free(port(facts)), limit=timedelta(seconds=20))
        assert daemon.status(root).running is None


def test_a_machine_without_the_server_is_told_what_to_install() -> None:
    code = (
        "import pathlib, sys, threading\n"
        "import runbooks.sandbox.s3 as s3\n"
        "s3.WHEEL = 'no-such-wheel'\n"
        "from runbooks.sandbox.stack import Stack\n"
        "with Stack.start(pathlib.Path(sys.argv[1])): print('up', flush=True); sys.stdin.read()"
    )
    with stack_root() as root:
        command = [sys.executable, "-c", code, str(root)]
        surroundings = os.environ | {"PATH": "/nowhere"}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=surroundings
        ) as lacking:
            assert lacking.stdout is not None
            assert lacking.stdout.readline() == b"up\n"
            with pytest.raises(ToolMissing, match="weed") as missing:
                daemon.archive(root)
            assert "pip install" in missing.value.next_step
            lacking.communicate(timeout=30)


def test_a_stack_that_does_not_know_the_route_is_to_be_started_anew(shared_stack: Stack) -> None:
    """As one of an earlier version: its answer is no archive, and no crash either."""
    connection = http.client.HTTPConnection(urlsplit(shared_stack.api_url).netloc)
    connection.request("PUT", "/sandbox/archive", headers={"Authorization": f"Bearer {shared_stack.api_key.reveal()}"})
    assert connection.getresponse().status == 404
    connection.close()
    facts = json.loads((shared_stack.root / "stack.json").read_text())
    asked = Running(
        shared_stack.root, facts["api_url"], Secret(facts["api_key"]), facts["project_id"], "", facts["pid"]
    )
    with pytest.raises(SandboxFault, match="answered 404") as fault:
        daemon._ask(asked, "PUT")
    assert "sandbox.up" in fault.value.next_step
