"""The sandbox's S3 server behaves as S3 where the archive relies on it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from runbooks.sandbox.processes import is_free
from runbooks.sandbox.s3 import S3Server
from tests.stack import until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "home") as running:
        yield running


@pytest.fixture
def s3(server: S3Server) -> Any:
    return server.client()


def checksum(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def test_the_bucket_is_versioned_and_can_lock(server: S3Server, s3: Any) -> None:
    assert s3.get_bucket_versioning(Bucket=server.bucket)["Status"] == "Enabled"
    lock = s3.get_object_lock_configuration(Bucket=server.bucket)
    assert lock["ObjectLockConfiguration"]["ObjectLockEnabled"] == "Enabled"


def test_a_locked_version_cannot_be_deleted(server: S3Server, s3: Any) -> None:
    until_when = datetime.now(UTC) + timedelta(days=2)
    put = s3.put_object(
        Bucket=server.bucket, Key="locked", Body=b"x", ChecksumSHA256=checksum(b"x"),
        ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until_when,
    )  # fmt: skip
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(Bucket=server.bucket, Key="locked", VersionId=put["VersionId"])


def test_a_body_that_differs_from_its_checksum_is_refused(server: S3Server, s3: Any) -> None:
    with pytest.raises(ClientError, match="BadDigest"):
        s3.put_object(Bucket=server.bucket, Key="wrong", Body=b"x", ChecksumSHA256=checksum(b"y"))
    upload = s3.create_multipart_upload(Bucket=server.bucket, Key="wrong", ChecksumAlgorithm="SHA256")["UploadId"]
    with pytest.raises(ClientError, match="BadDigest"):
        s3.upload_part(
            Bucket=server.bucket, Key="wrong", UploadId=upload, PartNumber=1, Body=b"x", ChecksumSHA256=checksum(b"y")
        )
    s3.abort_multipart_upload(Bucket=server.bucket, Key="wrong", UploadId=upload)


def test_a_strangers_key_is_refused(server: S3Server) -> None:
    from runbooks.clients.archive_client import open_client
    from runbooks.model.secret import Secret

    stranger = open_client(
        region=server.region, endpoint=server.endpoint, access_key="nobody", secret_key=Secret("wrong")
    )
    with pytest.raises(ClientError) as refused:
        stranger.list_objects_v2(Bucket=server.bucket)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_the_credentials_are_for_the_owner_alone(server: S3Server) -> None:
    assert (server.home / "s3.json").stat().st_mode & 0o777 == 0o600
    assert server.home.stat().st_mode & 0o777 == 0o700
    assert server.secret_key.reveal() not in repr(server)


def test_it_listens_on_this_machine_only(server: S3Server) -> None:
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [row[1] for row in listening if row[3] == "0A" and int(row[1].split(":")[1], 16) == server.port]
    assert ours == [f"0100007F:{server.port:04X}"]
    beyond = {f":{port:04X}" for port in (8181, 9101, 9333, 8888, 8333)}
    assert not [row[1] for row in listening if row[3] == "0A" and row[1][8:] in beyond], "a default port is open"


@pytest.mark.long
def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    with S3Server(tmp_path / "home") as first:
        first.client().put_object(Bucket=first.bucket, Key="kept", Body=b"still here")
        key, port = first.access_key, first.port
    assert is_free(port)
    assert not list(Path("/tmp").glob(f"seaweedfs-*-{port}.sock"))
    with S3Server(tmp_path / "home") as second:
        assert second.access_key == key
        assert second.client().get_object(Bucket=second.bucket, Key="kept")["Body"].read() == b"still here"


@pytest.mark.long
def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time, runbooks.sandbox.s3 as s\n"
        "server = s.S3Server(pathlib.Path(sys.argv[1])); server.__enter__()\n"
        "print(server.port, server.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "h")], stdout=subprocess.PIPE, text=True) as mine:
        assert mine.stdout is not None
        port, pid = map(int, mine.stdout.readline().split())
        assert not is_free(port)
        os.kill(mine.pid, signal.SIGKILL)
    until(lambda: is_free(port) and not Path(f"/proc/{pid}").exists(), limit=timedelta(seconds=20))


def test_the_account_is_made_once(server: S3Server) -> None:
    config = json.loads((server.home / "s3.json").read_text())
    assert [one["name"] for one in config["identities"]] == ["sandbox"]
