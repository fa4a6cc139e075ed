"""The stack's own S3: started at the first demand, kept with the stack, reached over its API."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest

from runbooks.clients.archive_client import open_client
from runbooks.model.errors import SandboxFault
from runbooks.sandbox import daemon
from runbooks.sandbox.archive import ArchiveFacts
from tests.stack import Stack, stack_root


def put(facts: ArchiveFacts, key: str, content: bytes) -> None:
    client(facts).put_object(Bucket=facts.bucket, Key=key, Body=content)


def client(facts: ArchiveFacts):  # type: ignore[no-untyped-def]
    return open_client(
        region=facts.region, endpoint=facts.endpoint, access_key=facts.access_key, secret_key=facts.secret_key
    )


def test_two_who_ask_at_once_get_one_server_and_a_restart_keeps_objects_and_key() -> None:
    with stack_root() as root:
        with Stack.start(root) as stack:
            assert not (root / "archive").exists(), "it was started before anybody asked"
            found: list[ArchiveFacts] = []
            asking = [threading.Thread(target=lambda: found.append(stack.archive())) for _ in range(2)]
            for each in asking:
                each.start()
            for each in asking:
                each.join()
            assert found[0] == found[1]
            put(found[0], "kept", b"content")
            assert found[0].key_file.read_text().startswith("AGE-SECRET-KEY-")
            assert found[0].key_file.stat().st_mode & 0o077 == 0
            assert found[0].secret_key.reveal() not in repr(found[0])
        with pytest.raises(Exception, match=r"connect|Connect"):
            client(found[0]).list_buckets()
        with Stack.start(root) as stack:
            again = stack.archive()
            assert client(again).get_object(Bucket=again.bucket, Key="kept")["Body"].read() == b"content"
            assert again.recipient == found[0].recipient


def test_the_stack_of_another_process_tells_its_archive_to_whoever_has_the_key(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with stack_root() as home:
        home.chmod(0o711)
        root = home / "sandbox"
        with pytest.raises(SandboxFault, match="not running"):
            daemon.archive(root)
        running = daemon.up(root)
        try:
            facts = daemon.archive(root)
            put(facts, "there", b"1")
            assert daemon.archive(root) == facts
            url = running.api_url.replace("/api/v2", "/sandbox/archive")
            assert httpx.post(url, headers={"Authorization": "Bearer wrong"}, trust_env=False).status_code == 401
            assert facts.secret_key.reveal() not in Path(root / "supervisor.log").read_text()
        finally:
            daemon.down(root, delete=True)
        assert not (root / "archive").exists()
