"""Metrics arrive at CloudWatch (moto's, over HTTP) as an alarm will look for them, or the sender hears that they may
not have. In the sandbox they arrive in a file.
"""

from __future__ import annotations

import gzip
import json
import resource
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from runbooks.clients.metrics import ATTEMPTS, CloudWatch, Inbox, Metrics
from runbooks.model.backup import ProofRecord, Rung, Tier, Verdict
from runbooks.model.errors import MetricsFault
from runbooks.model.metrics import BACKUP_SUCCESS, NAMESPACE, Metric, of_failed_backup, of_proof, of_sync
from runbooks.model.moment import Moment
from tests.model.test_backup import ID, manifest

REGION = "eu-central-1"
NOW = Moment.of(datetime.now(UTC))
SYNC = of_sync("production", 2, NOW)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As an instance has them; nothing of the machine that runs the tests."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "napi-like-secret",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def watch(aws: str) -> Any:
    return boto3.client("cloudwatch", region_name=REGION, endpoint_url=aws)


# CloudWatch


def proof(rung: int) -> ProofRecord:
    return ProofRecord(backup=ID, at=ID.started, rung=Rung(rung), verdict=Verdict.PASSED, by="test", seconds=1)


def test_c30_an_alarm_on_the_series_finds_the_success_that_was_sent(aws: str, watch: Any) -> None:
    whole = manifest()
    CloudWatch(REGION, endpoint=aws).send(of_proof(whole, proof(2), [], Rung.DECODED))
    dimensions = BACKUP_SUCCESS.dimensions(whole.environment, whole.tier)
    found = watch.get_metric_statistics(
        Namespace=NAMESPACE, MetricName=BACKUP_SUCCESS.name, Unit=BACKUP_SUCCESS.unit, Period=3600, Statistics=["Sum"],
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions],
        StartTime=whole.started.utc - timedelta(hours=1), EndTime=whole.finished.utc + timedelta(hours=1),
    )  # fmt: skip
    assert [point["Sum"] for point in found["Datapoints"]] == [1]


def test_more_than_one_request_holds_all_arrive(aws: str, watch: Any) -> None:
    many = [of_sync("staging", number, Moment(NOW.utc - timedelta(seconds=number)))[0] for number in range(2_500)]
    CloudWatch(REGION, endpoint=aws).send(many)
    found = watch.get_metric_statistics(
        Namespace=NAMESPACE, MetricName="S3SyncErrors", Period=86_400, Statistics=["SampleCount", "Sum"],
        Dimensions=[{"Name": "Environment", "Value": "staging"}],
        StartTime=NOW.utc - timedelta(days=2), EndTime=NOW.utc + timedelta(days=1),
    )  # fmt: skip
    assert sum(point["SampleCount"] for point in found["Datapoints"]) == 2_500
    assert sum(point["Sum"] for point in found["Datapoints"]) == sum(range(2_500))


def test_nothing_to_send_asks_nobody() -> None:
    def nobody() -> Any:
        raise AssertionError("no client is needed")

    CloudWatch(REGION, client=nobody).send([])


@dataclass
class Small:
    """A CloudWatch that answers by script, then well."""

    script: list[tuple[int, str]]
    took: list[list[dict[str, Any]]] = field(default_factory=list)
    asked: int = 0

    @contextmanager
    def serving(self) -> Iterator[str]:
        small = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                small.asked += 1
                status, kind = small.script.pop(0) if small.script else (200, "")
                if status == 0:
                    self.close_connection = True
                    return
                if status == 200:
                    small.took.append(json.loads(body)["MetricData"])
                answer = json.dumps({"__type": kind, "message": "says the script"} if kind else {}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@pytest.mark.parametrize(
    "trouble", [(400, "ThrottlingException"), (503, "ServiceUnavailable"), (500, "InternalServiceFault"), (0, "")]
)
def test_what_passes_is_sent_again(trouble: tuple[int, str]) -> None:
    small = Small([trouble])
    with small.serving() as endpoint:
        CloudWatch(REGION, endpoint=endpoint).send(SYNC)
    assert small.asked == 2
    assert [[datum["MetricName"] for datum in request] for request in small.took] == [["S3SyncErrors"]]


def test_what_does_not_pass_is_a_fault_that_says_the_backup_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # botocore's pauses between the attempts
    small = Small([(400, "ThrottlingException")] * 50)
    with small.serving() as endpoint, pytest.raises(MetricsFault, match="ThrottlingException") as fault:
        CloudWatch(REGION, endpoint=endpoint).send(SYNC)
    assert small.asked == ATTEMPTS
    assert "backups themselves are not touched" in fault.value.safe


@pytest.mark.parametrize("kind", ["AccessDeniedException", "UnrecognizedClientException"])
def test_a_refusal_is_not_repeated_and_names_the_right_that_is_needed(kind: str) -> None:
    small = Small([(403, kind)] * 9)
    with small.serving() as endpoint, pytest.raises(MetricsFault, match=kind) as fault:
        CloudWatch(REGION, endpoint=endpoint).send(SYNC)
    assert small.asked == 1
    assert "cloudwatch:PutMetricData" in fault.value.next_step
    assert "napi-like-secret" not in f"{fault.value}{fault.value.next_step}"


def test_a_fault_in_the_second_request_is_not_taken_for_success() -> None:
    small = Small([(200, ""), (403, "AccessDeniedException")])
    with small.serving() as endpoint, pytest.raises(MetricsFault):
        CloudWatch(REGION, endpoint=endpoint).send(SYNC * 1_001)
    assert [len(request) for request in small.took] == [1_000]


def test_no_credentials_are_a_fault_and_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    small = Small([])
    with small.serving() as endpoint, pytest.raises(MetricsFault, match="credentials"):
        CloudWatch(REGION, endpoint=endpoint).send(SYNC)
    assert small.asked == 0


def test_the_environment_does_not_change_how_often_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_RETRY_MODE", "legacy")
    small = Small([(503, "ServiceUnavailable")])
    with small.serving() as endpoint:
        CloudWatch(REGION, endpoint=endpoint).send(SYNC)
    assert small.asked == 2


# Inbox


def test_what_was_sent_is_read_back_equal_and_in_order(tmp_path: Path) -> None:
    inbox: Metrics = Inbox(tmp_path / "metrics.jsonl")
    first = of_proof(manifest(), proof(2), [], Rung.DECODED)
    inbox.send(first)
    inbox.send([])
    inbox.send(of_failed_backup("production", Tier.WEEKLY, NOW))
    found = Inbox(tmp_path / "metrics.jsonl").read()
    assert found == (*first, *of_failed_backup("production", Tier.WEEKLY, NOW))
    assert stat.S_IMODE((tmp_path / "metrics.jsonl").stat().st_mode) == 0o600


def test_an_inbox_that_got_nothing_is_empty(tmp_path: Path) -> None:
    assert Inbox(tmp_path / "metrics.jsonl").read() == ()


def _send_many(path: Path, environment: str) -> None:
    for number in range(50):
        Inbox(path).send(of_sync(environment, number, NOW) * 3)


def test_several_senders_at_once_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    names = ["production", "staging", "sandbox"]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(_send_many, [path] * 3, names))
    found = Inbox(path).read()
    for name in names:
        own = [metric.value for metric in found if metric.dimensions == (("Environment", name),)]
        assert own == [number for number in range(50) for _ in range(3)]


@pytest.mark.parametrize("torn", [b'{"name":"S3Sy', b'{"name":"S3Sync' + b"x" * 9_000], ids=["short", "long"])
def test_a_line_that_a_killed_process_left_behind_spoils_nothing(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    Inbox(path).send(SYNC)
    with path.open("ab") as file:
        file.write(torn)
    assert Inbox(path).read() == SYNC
    Inbox(path).send(SYNC)
    assert Inbox(path).read() == SYNC * 2
    assert path.read_bytes().count(b"S3Sync") == 2, "other programs read it, too"


def test_a_full_disk_is_a_fault_and_leaves_no_half_of_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    Inbox(path).send(SYNC)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size * 2 + 10, hard))
    try:
        with pytest.raises(MetricsFault):
            Inbox(path).send(SYNC * 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes().count(b"\n") == 1
    assert Inbox(path).read() == SYNC


@pytest.mark.parametrize("content", [b"{}\n", b"\xff\n", b"not json\n"])
def test_a_file_of_something_else_is_a_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    with pytest.raises(MetricsFault, match="something else"):
        Inbox(path).read()


def test_a_missing_folder_and_a_link_are_faults(tmp_path: Path) -> None:
    with pytest.raises(MetricsFault, match="folder"):
        Inbox(tmp_path / "none" / "metrics.jsonl").send(SYNC)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MetricsFault, match="cannot be used"):
        Inbox(tmp_path / "link").send(SYNC)
    assert not (tmp_path / "elsewhere").exists()


def test_each_line_is_json_that_other_programs_can_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    Inbox(path).send(SYNC)
    (line,) = path.read_text().splitlines()
    assert Metric.model_validate_json(line) == SYNC[0]
    assert json.loads(line)["dimensions"] == [["Environment", "production"]]
