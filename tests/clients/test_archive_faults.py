"""Trouble at every call of an upload, on a real server behind a proxy: the whole object or none, never half of one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest

from runbooks.clients import archive_parts
from runbooks.clients.archive import Archive
from runbooks.clients.archive_types import Stored
from runbooks.model.errors import ArchiveFault, BloomError, LoginRefused, Refused
from runbooks.model.moment import Moment
from runbooks.sandbox.s3 import S3Server
from tests.fakes.s3_proxy import FAULTS, Fault, S3Proxy, cut_request, error, half, lost, says, slow

SMALL = b"a small file"
LARGE = os.urandom(10 * archive_parts.MIB + 1000)
"""Three parts, when parts are as small as S3 takes them."""
CALLS = {
    "small": ["put_object", "get_object", "delete_object", "put_object", "head_object"],
    "large": [
        "put_object", "get_object", "delete_object", "head_object", "create_multipart_upload", "list_multipart_uploads",
        "upload_part", "upload_part", "upload_part", "complete_multipart_upload", "head_object",
    ],
}  # fmt: skip
"""What an upload calls, the trying out of the store first."""
CONTENT = {"small": SMALL, "large": LARGE}
EVERY_CALL = [(kind, number) for kind, calls in CALLS.items() for number in range(len(calls))]

TELLING = ["lost", "cut request"]
"""The two that every quick run tries; the long ones try all at all calls."""

_names = count()


def now() -> Moment:
    return Moment.of(datetime.now(UTC))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "home") as running:
        yield running


@pytest.fixture
def proxy(server: S3Server) -> Iterator[S3Proxy]:
    with S3Proxy(server) as running:
        yield running


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_parts, "USUAL_PART", 5 * archive_parts.MIB)


@pytest.fixture
def key() -> str:
    return f"production/faults/{next(_names)}"


class Try:
    """An archive behind the proxy, and what is really there."""

    def __init__(self, server: S3Server, proxy: S3Proxy) -> None:
        self.server, self.proxy = server, proxy
        self.opened = 0
        self.archive = Archive(server.bucket, region=server.region, clock=now, client=self._open, sleep=lambda _: None)

    def _open(self) -> Any:
        self.opened += 1
        return self.proxy.client()

    def put(self, key: str, content: bytes) -> Stored | BloomError:
        try:
            return self.archive.put(key, content, tags={"tier": "daily"}, storage_class="STANDARD")
        except BloomError as error:
            return error

    def found(self, key: str) -> bytes | None:
        client = self.server.client()
        try:
            return bytes(client.get_object(Bucket=self.server.bucket, Key=key)["Body"].read())
        except client.exceptions.NoSuchKey:
            return None

    def incomplete(self, key: str) -> list[str]:
        listed = self.server.client().list_multipart_uploads(Bucket=self.server.bucket)
        return [each["Key"] for each in listed.get("Uploads", []) if each["Key"] == key]

    def check_all_or_nothing(self, key: str, content: bytes, outcome: Stored | BloomError) -> None:
        found = self.found(key)
        if isinstance(outcome, Stored):
            assert found == content
            assert outcome.sha256 == hashlib.sha256(content).hexdigest()
        else:
            assert found in (None, content), "half an object"
        assert not self.incomplete(key)


@pytest.fixture
def attempt(server: S3Server, proxy: S3Proxy) -> Try:
    return Try(server, proxy)


@pytest.mark.parametrize("kind", CALLS)
def test_the_calls_of_an_upload_are_these(attempt: Try, key: str, kind: str) -> None:
    assert isinstance(attempt.put(key, CONTENT[kind]), Stored)
    assert attempt.proxy.seen == CALLS[kind]


@pytest.mark.parametrize("fault", TELLING)
def test_one_fault_at_any_call_does_not_stop_an_upload(attempt: Try, fault: str) -> None:
    for number in range(len(CALLS["small"])):
        check_once(attempt, "small", number, FAULTS[fault])
    check_once(attempt, "large", CALLS["large"].index("complete_multipart_upload"), FAULTS[fault])


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("kind", "number"), EVERY_CALL)
def test_one_fault_at_every_call(attempt: Try, kind: str, number: int, fault: str) -> None:
    check_once(attempt, kind, number, FAULTS[fault])


def check_once(attempt: Try, kind: str, number: int, fault: Fault) -> None:
    fresh = Try(attempt.server, attempt.proxy)
    key = f"production/faults/{next(_names)}"
    attempt.proxy.fail_call(number, fault)
    outcome = fresh.put(key, CONTENT[kind])
    assert isinstance(outcome, Stored), outcome
    fresh.check_all_or_nothing(key, CONTENT[kind], outcome)


@pytest.mark.parametrize("fault", TELLING)
@pytest.mark.parametrize("name", ["put_object", "create_multipart_upload", "upload_part", "complete_multipart_upload"])
def test_a_call_that_never_works_leaves_nothing_half(attempt: Try, key: str, name: str, fault: str) -> None:
    check_always(attempt, key, "small" if name == "put_object" else "large", name, FAULTS[fault])


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, calls in CALLS.items() for name in sorted({*calls})])
def test_every_call_that_never_works_leaves_nothing_half(
    attempt: Try, key: str, kind: str, name: str, fault: str
) -> None:
    check_always(attempt, key, kind, name, FAULTS[fault])


def check_always(attempt: Try, key: str, kind: str, name: str, fault: Fault) -> None:
    attempt.put("production/warm/up", b"the store is tried out")
    attempt.proxy.fail_always(name, fault)
    outcome = attempt.put(key, CONTENT[kind])
    attempt.proxy.heal()
    if name == "list_multipart_uploads":  # then nothing is known of uploads whose name was lost: the bucket's rule
        assert not isinstance(outcome, Stored)
        attempt.put(key, CONTENT[kind])
    attempt.check_all_or_nothing(key, CONTENT[kind], outcome)
    assert isinstance(attempt.put(key, CONTENT[kind]), Stored), "to repeat it is safe"
    attempt.check_all_or_nothing(key, CONTENT[kind], outcome)


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("kind", "number"), EVERY_CALL)
def test_an_outage_from_any_call_on_leaves_nothing_half(
    attempt: Try, key: str, kind: str, number: int, fault: str
) -> None:
    check_outage(attempt, key, kind, number, FAULTS[fault])


@pytest.mark.parametrize("number", range(3, len(CALLS["large"]), 3))
def test_an_outage_while_parts_are_sent_leaves_nothing_half(attempt: Try, key: str, number: int) -> None:
    check_outage(attempt, key, "large", number, cut_request)


def check_outage(attempt: Try, key: str, kind: str, number: int, fault: Fault) -> None:
    attempt.proxy.fail_from(number, fault)
    outcome = attempt.put(key, CONTENT[kind])
    attempt.proxy.heal()
    assert attempt.found(key) in (None, CONTENT[kind])
    if isinstance(outcome, BloomError) and attempt.incomplete(key):
        assert any("incomplete upload" in note for note in outcome.__notes__)
    again = attempt.put(key, CONTENT[kind])
    assert isinstance(again, Stored), "to repeat it is safe"
    attempt.check_all_or_nothing(key, CONTENT[kind], again)


def test_an_answer_that_is_late_for_good_is_looked_up(attempt: Try, key: str) -> None:
    attempt.put("production/warm/up", b"the store is tried out")
    attempt.proxy.fail("put_object", [slow])
    attempt.check_all_or_nothing(key, SMALL, attempt.put(key, SMALL))


def test_a_refusal_is_not_repeated(attempt: Try, key: str) -> None:
    attempt.put("production/warm/up", b"the store is tried out")
    before = len(attempt.proxy.seen)
    attempt.proxy.fail_always("upload_part", says(403, "AccessDenied"))
    assert isinstance(attempt.put(key, LARGE), LoginRefused)
    assert attempt.proxy.seen[before:].count("upload_part") <= 3
    assert not attempt.incomplete(key)


def test_an_upload_that_is_interrupted_leaves_no_parts(attempt: Try, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from runbooks.clients.archive_upload import Upload

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Upload, "_complete", interrupted)
    with pytest.raises(KeyboardInterrupt):
        attempt.put(key, LARGE)
    assert attempt.found(key) is None
    assert not attempt.incomplete(key)


def test_c15_expired_credentials_on_part_3_are_fetched_anew_and_the_upload_goes_on(attempt: Try, key: str) -> None:
    attempt.proxy.fail("upload_part", [None, None, says(400, "ExpiredToken")])
    outcome = attempt.put(key, LARGE)
    assert isinstance(outcome, Stored)
    attempt.check_all_or_nothing(key, LARGE, outcome)
    assert attempt.opened == 2
    assert attempt.proxy.seen.count("upload_part") == 4


def test_c15_credentials_that_stay_expired_end_the_upload_and_leave_nothing(attempt: Try, key: str) -> None:
    attempt.proxy.fail("upload_part", [None, None, *[says(400, "ExpiredToken")] * 9])
    outcome = attempt.put(key, LARGE)
    assert isinstance(outcome, LoginRefused)
    assert attempt.found(key) is None
    assert not attempt.incomplete(key)
    assert attempt.opened == 2


def test_a_wrong_clock_is_named(attempt: Try, key: str) -> None:
    attempt.proxy.fail_always("put_object", says(403, "RequestTimeTooSkewed"))
    outcome = attempt.put(key, SMALL)
    assert isinstance(outcome, ArchiveFault)
    assert "clock" in outcome.next_step


@pytest.mark.parametrize("fault", [half, cut_request, lost, error, slow], ids=lambda each: each.__name__)
def test_a_read_that_breaks_off_is_taken_up_again(attempt: Try, key: str, fault: Fault) -> None:
    attempt.put(key, LARGE)
    attempt.proxy.fail("get_object", [half, fault, half])
    with attempt.archive.open(key) as stream:
        assert stream.read() == LARGE


def test_a_read_that_always_breaks_off_fails(attempt: Try, key: str) -> None:
    attempt.put(key, LARGE)
    stream = attempt.archive.open(key)
    attempt.proxy.fail_always("get_object", lost)
    stream.raw._drop()  # type: ignore[attr-defined]
    with stream, pytest.raises(ArchiveFault, match="reading"):
        stream.read()


def test_an_object_replaced_while_it_is_read_is_not_mixed(attempt: Try, key: str) -> None:
    attempt.put(key, LARGE)
    attempt.proxy.fail("get_object", [half])
    with attempt.archive.open(key) as stream:
        stream.read(1000)
        attempt.server.client().put_object(Bucket=attempt.server.bucket, Key=key, Body=LARGE[::-1])
        with pytest.raises(ArchiveFault, match="replaced"):
            stream.read()


@pytest.mark.parametrize("name", ["head_object", "get_object", "list_objects_v2", "list_object_versions"])
@pytest.mark.parametrize("fault", TELLING)
def test_a_question_is_asked_again(attempt: Try, key: str, name: str, fault: str) -> None:
    attempt.put(key, SMALL)
    attempt.proxy.fail(name, [FAULTS[fault]])
    assert attempt.archive.head(key).size == len(SMALL)
    assert attempt.archive.read(key) == SMALL
    assert [each.key for each in attempt.archive.objects(key)] == [key]
    attempt.archive.delete(key)
    assert not attempt.archive.exists(key)


def test_a_store_that_cannot_be_reached_changes_nothing_and_says_so(server: S3Server) -> None:
    from runbooks.clients.archive_client import open_client
    from runbooks.sandbox.processes import free_port

    endpoint = f"http://127.0.0.1:{free_port()}"
    away = Archive(
        server.bucket, region=server.region, clock=now, sleep=lambda _: None,
        client=lambda: open_client(
            region=server.region, endpoint=endpoint, access_key="A", secret_key=server.secret_key
        ),
    )  # fmt: skip
    with pytest.raises(ArchiveFault, match=r"127\.0\.0\.1"):
        away.put("a/b", SMALL, tags={}, storage_class="STANDARD")


def test_two_writers_of_one_key_do_not_replace_each_other(attempt: Try, key: str) -> None:
    attempt.put(key, SMALL)
    assert isinstance(attempt.put(key, LARGE), Refused)
    assert attempt.found(key) == SMALL
    assert not attempt.incomplete(key)
