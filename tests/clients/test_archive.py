"""The archive on a real S3 server: what is stored is whole and compared, or not there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbooks.clients import archive_parts
from runbooks.clients.archive import PROBE, Archive
from runbooks.clients.archive_types import Lock
from runbooks.model.errors import ArchiveFault, LocalFault, LoginRefused, NotFound, Refused, UsageFault
from runbooks.model.moment import Moment
from runbooks.model.secret import Secret
from runbooks.sandbox.s3 import S3Server
from tests.foreign import foreign

TAGS = {"tier": "daily", "environment": "production", "note": "a b&c=ü"}
LARGE = 5 * archive_parts.MIB + 1000
"""Two parts, when parts are as small as S3 takes them."""


def now() -> Moment:
    return Moment.of(datetime.now(UTC))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "home") as running:
        yield running


@pytest.fixture
def archive(server: S3Server) -> Archive:
    return Archive(server.bucket, region=server.region, endpoint=server.endpoint, clock=now, client=server.client)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_parts, "USUAL_PART", 5 * archive_parts.MIB)


def put(archive: Archive, key: str, content: Path | bytes, **more: Any) -> Any:
    return archive.put(key, content, **{"tags": TAGS, "storage_class": "STANDARD", **more})


def test_what_was_put_comes_back_with_size_hash_class_and_tags(archive: Archive) -> None:
    stored = put(archive, "a/kept", b"hello", storage_class="STANDARD_IA")
    assert (stored.size, stored.sha256) == (5, hashlib.sha256(b"hello").hexdigest())
    assert archive.read("a/kept") == b"hello"
    head = archive.head("a/kept")
    assert (head.size, head.sha256, head.storage_class, head.tags) == (5, stored.sha256, "STANDARD_IA", TAGS)
    assert head.locked_until is None


@pytest.mark.parametrize("size", [0, 1, LARGE - 1000, LARGE - 999, LARGE, 3 * 5 * archive_parts.MIB])
def test_every_size_comes_back(archive: Archive, small_parts: None, tmp_path: Path, size: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(size))
    stored = put(archive, f"sizes/{size}", file)
    with archive.open(f"sizes/{size}") as stream:
        assert hashlib.sha256(stream.read()).hexdigest() == stored.sha256
    assert archive.head(f"sizes/{size}").sha256 == stored.sha256
    assert put(archive, f"sizes/{size}", file) == stored, "it is found again"


def test_a_lock_holds_for_small_and_large(archive: Archive, small_parts: None) -> None:
    until = Moment.of(datetime.now(UTC) + timedelta(days=2))
    for key, content in (("locked/small", b"x"), ("locked/large", bytes(LARGE))):
        put(archive, key, content, lock=Lock("GOVERNANCE", until))
        found = archive.head(key).locked_until
        assert found is not None
        assert abs(found.utc - until.utc) <= timedelta(seconds=1)


def test_other_content_is_never_replaced(archive: Archive, small_parts: None) -> None:
    for key, content in (("same/small", b"one"), ("same/large", bytes(LARGE))):
        put(archive, key, content)
        for other in (b"two", content[:-1] + b"\1"):
            with pytest.raises(Refused, match="something else"):
                put(archive, key, other)
        assert archive.read(key) == content


def test_a_file_that_is_not_what_it_was_is_not_uploaded(archive: Archive) -> None:
    with pytest.raises(LocalFault, match="is not what it was"):
        put(archive, "a/flipped", b"hellp", sha256=hashlib.sha256(b"hello").hexdigest())
    assert not archive.exists("a/flipped")


def test_a_missing_file_is_named(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(LocalFault, match=r"gone\.zst"):
        put(archive, "a/gone", tmp_path / "gone.zst")


def test_a_file_that_shrinks_while_it_is_sent_leaves_nothing(
    archive: Archive, server: S3Server, small_parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(LARGE))
    digest = archive_parts.Content.digest

    def then_cut(self: archive_parts.Content) -> archive_parts.Digest:
        found = digest(self)
        os.truncate(file, LARGE - 500)
        return found

    monkeypatch.setattr(archive_parts.Content, "digest", then_cut)
    with pytest.raises(LocalFault, match="became shorter"):
        put(archive, "a/shrunk", file)
    assert not archive.exists("a/shrunk")
    assert not server.client().list_multipart_uploads(Bucket=server.bucket).get("Uploads")


def test_a_file_that_changes_while_it_is_sent_leaves_nothing(
    archive: Archive, server: S3Server, small_parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive._wire._sleep = lambda _: None
    for size in (1000, LARGE):
        file = tmp_path / "file"
        file.write_bytes(bytes(size))
        digest = archive_parts.Content.digest

        def then_flip(self: archive_parts.Content, digest: Any = digest, file: Path = file) -> archive_parts.Digest:
            found = digest(self)
            with file.open("r+b") as out:
                out.seek(-1, os.SEEK_END)
                out.write(b"\1")
            return found

        with monkeypatch.context() as patch:
            patch.setattr(archive_parts.Content, "digest", then_flip)
            with pytest.raises(ArchiveFault, match="BadDigest"):
                put(archive, f"a/changed-{size}", file)
        assert not archive.exists(f"a/changed-{size}")
        assert not server.client().list_multipart_uploads(Bucket=server.bucket).get("Uploads")


def test_a_listing_has_all_pages_and_no_neighbours(archive: Archive, server: S3Server) -> None:
    client = server.client()
    wanted = [f"many/{number:04}" for number in range(1005)] + ["many/ü +&?%.age"]
    for key in [*wanted, "many-not/1", "man"]:
        client.put_object(Bucket=server.bucket, Key=key, Body=b"")
    assert sorted(each.key for each in archive.objects("many/")) == wanted
    first = next(iter(archive.objects("many/")))
    assert (first.size, first.storage_class) == (0, "STANDARD")
    assert abs(first.modified.utc - datetime.now(UTC)) < timedelta(minutes=5)


def test_what_is_not_there_is_said_so(archive: Archive, server: S3Server) -> None:
    assert not archive.exists("not/there")
    for look in (archive.head, archive.read, archive.open, lambda key: archive.thaw(key, 1)):
        with pytest.raises(NotFound, match="not/there"):
            look("not/there")
    nowhere = Archive("no-such-bucket", region=server.region, clock=now, client=server.client)
    with pytest.raises(NotFound, match="bucket"):
        list(nowhere.objects(""))


def test_an_object_damaged_behind_our_back_is_not_read_as_good(archive: Archive, server: S3Server) -> None:
    server.client().put_object(Bucket=server.bucket, Key="a/damaged", Body=b"hellp", Metadata={
        "sha256": hashlib.sha256(b"hello").hexdigest()})  # fmt: skip
    with pytest.raises(ArchiveFault, match="damaged"):
        archive.read("a/damaged")


def test_a_strangers_key_and_no_key_are_a_login_matter(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from runbooks.clients.archive_client import open_client

    secret = "not-the-right-one-and-not-to-be-shown"
    stranger = Archive(
        server.bucket, region=server.region, clock=now,
        client=lambda: open_client(
            region=server.region, endpoint=server.endpoint, access_key="NOBODY", secret_key=Secret(secret)
        ),
    )  # fmt: skip
    with pytest.raises(LoginRefused) as refused:
        put(stranger, "a/b", b"x")
    assert secret not in repr(refused.value) + str(refused.value.__cause__) + repr(refused.value.__cause__)
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    nobody = Archive(server.bucket, region=server.region, endpoint=server.endpoint, clock=now)
    with pytest.raises(LoginRefused, match="credentials"):
        nobody.exists("a/b")


@pytest.mark.parametrize("endpoint", ["http://s3.example.com", "ftp://127.0.0.1", "nonsense", "https://u:p@s3.example"])
def test_an_endpoint_in_clear_text_is_refused(endpoint: str) -> None:
    with pytest.raises(UsageFault):
        Archive("bucket", region="us-east-1", endpoint=endpoint, clock=now)


def test_the_probe_leaves_no_trace(archive: Archive, server: S3Server) -> None:
    put(archive, "traceless/a", b"x")
    found = server.client().list_object_versions(Bucket=server.bucket, Prefix="traceless/")
    assert [each["Key"] for each in found.get("Versions", [])] == ["traceless/a"]
    assert not [each for each in found.get("DeleteMarkers", []) if PROBE in each["Key"]]


def test_the_posture_is_as_found(archive: Archive, server: S3Server) -> None:
    found = archive.posture()
    assert (found.versioned, found.object_lock, found.default_lock, found.encryption) == (True, True, None, "none")
    assert found.public_access_blocked is None
    assert "public_access_blocked" in found.unseen
    client = server.client()
    client.create_bucket(Bucket="plain-bucket")
    plain = Archive("plain-bucket", region=server.region, clock=now, client=server.client).posture()
    assert (plain.versioned, plain.object_lock) == (False, False)
    client.put_object_lock_configuration(
        Bucket=server.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled",
        "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}},
    )  # fmt: skip
    assert archive.posture().default_lock == "GOVERNANCE 1 days"
    client.put_object_lock_configuration(Bucket=server.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    with pytest.raises(NotFound):
        Archive("no-such-bucket", region=server.region, clock=now, client=server.client).posture()


def test_c19_a_locked_object_is_refused_with_the_date_it_unlocks(archive: Archive) -> None:
    until = Moment.of(datetime.now(UTC).replace(microsecond=0) + timedelta(days=30))
    put(archive, "prune/locked", b"x", lock=Lock("COMPLIANCE", until))
    with pytest.raises(Refused, match=until.iso()[:19]):
        archive.delete("prune/locked")
    assert archive.read("prune/locked") == b"x", "it is not even hidden"


def test_c19_a_delete_takes_every_version_and_nothing_else(archive: Archive, server: S3Server) -> None:
    client = server.client()
    for key in ("prune/old", "prune/older", "prune/ol", "evidence/2024.txt"):
        client.put_object(Bucket=server.bucket, Key=key, Body=b"1")
    client.put_object(Bucket=server.bucket, Key="prune/old", Body=b"2")
    client.delete_object(Bucket=server.bucket, Key="prune/old")
    client.put_object(Bucket=server.bucket, Key="prune/old", Body=b"3")
    archive.delete("prune/old")
    archive.delete("prune/old")
    left = client.list_object_versions(Bucket=server.bucket, Prefix="prune/ol")
    assert sorted(each["Key"] for each in left["Versions"]) == ["prune/ol", "prune/older"]
    assert not left.get("DeleteMarkers")
    assert archive.exists("evidence/2024.txt")


@pytest.mark.parametrize("locked", ["1", "2"])
def test_c19_one_locked_version_keeps_all_of_them(archive: Archive, server: S3Server, locked: str) -> None:
    client, key = server.client(), f"prune/mixed-{locked}"
    for content in ("1", "2"):
        lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": datetime.now(UTC) + timedelta(days=2)}
        client.put_object(
            Bucket=server.bucket, Key=key, Body=content.encode(), ChecksumAlgorithm="SHA256",
            **(lock if content == locked else {}),
        )  # fmt: skip
    with pytest.raises(Refused, match="locked until"):
        archive.delete(key)
    assert archive.read(key) == b"2"
    assert len(client.list_object_versions(Bucket=server.bucket, Prefix=key)["Versions"]) == 2


def test_a_delete_works_in_a_bucket_without_versions(server: S3Server) -> None:
    client = server.client()
    client.create_bucket(Bucket="no-versions")
    plain = Archive("no-versions", region=server.region, clock=now, client=server.client)
    put(plain, "a", b"x")
    plain.delete("a")
    assert not plain.exists("a")


def test_aws_s3_itself_reads_what_we_wrote(
    archive: Archive, server: S3Server, small_parts: None, tmp_path: Path
) -> None:
    aws = foreign("aws")
    content = os.urandom(LARGE)
    put(archive, "stock/file.age", content)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AWS_DEFAULT_REGION": server.region,
                   "AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key.reveal(),
                   "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip
    command = [aws, "--endpoint-url", server.endpoint, "s3", "cp", f"s3://{server.bucket}/stock/file.age", "-"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == content


@pytest.mark.long
@pytest.mark.parametrize("part", [16, 200])
def test_memory_does_not_grow_with_the_object_or_its_parts(server: S3Server, tmp_path: Path, part: int) -> None:
    file = tmp_path / "large"
    with file.open("wb") as out:
        out.truncate(400 * archive_parts.MIB)
    code = (
        "import hashlib, pathlib, sys\n"
        "from runbooks.clients import archive, archive_parts\n"
        "from runbooks.clients.archive_client import open_client\n"
        "from runbooks.model.secret import Secret\n"
        "from tests.clients.test_archive import now\n"
        "bucket, region, endpoint, key, secret, file, part = sys.argv[1:]\n"
        "archive_parts.USUAL_PART = int(part) * archive_parts.MIB\n"
        "client = lambda: open_client(region=region, endpoint=endpoint, access_key=key, secret_key=Secret(secret))\n"
        "a = archive.Archive(bucket, region=region, clock=now, client=client)\n"
        "s = a.put(f'large/{part}', pathlib.Path(file), tags={}, storage_class='STANDARD')\n"
        "h = hashlib.sha256()\n"
        "with a.open(s.key) as stream:\n"
        "    while block := stream.read(1 << 20): h.update(block)\n"
        "assert h.hexdigest() == s.sha256\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(int(status.split('VmHWM:')[1].split()[0]) // 1024)\n"  # ru_maxrss would count our own, before the exec
    )
    where = [server.bucket, server.region, server.endpoint, server.access_key, server.secret_key.reveal()]
    done = subprocess.run(
        [sys.executable, "-c", code, *where, file, str(part)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 150, done.stdout
