"""Where numbers about backups go: CloudWatch, or for the sandbox a file on this machine."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]
from pydantic import ValidationError

from runbooks.clients.archive_client import is_loopback
from runbooks.model.errors import MetricsFault
from runbooks.model.metrics import NAMESPACE, Metric

BATCH = 1000
"""So many metrics does CloudWatch take at a time; of ours they stay far below its other limit of 1 MB."""
ATTEMPTS = 5
CONNECT_SECONDS = 5
SILENCE_SECONDS = 10


class Metrics(Protocol):
    def send(self, metrics: Sequence[Metric]) -> None:
        """Hand them over. MetricsFault if not all of them may have arrived.

        Safe to repeat where it does not matter how often a number was counted: one may arrive twice.
        """


class CloudWatch:
    """AWS's. Credentials are those that the usual AWS chain finds at the time of sending."""

    def __init__(self, region: str, *, endpoint: str | None = None, client: Callable[[], Any] | None = None) -> None:
        """No request is sent before the first `send`. `endpoint` None: AWS. `client` makes the boto3 client."""
        self._open = client or partial(open_client, region, endpoint)

    def send(self, metrics: Sequence[Metric]) -> None:
        """See Metrics. Throttled, failed and unanswered requests are repeated, for a minute and a half at most."""
        if not metrics:
            return
        try:
            client = self._open()
            for start in range(0, len(metrics), BATCH):
                data = [_datum(metric) for metric in metrics[start : start + BATCH]]
                client.put_metric_data(Namespace=NAMESPACE, MetricData=data)
        except (ClientError, BotoCoreError, ResponseParserError, OSError) as error:
            raise _fault(
                f"CloudWatch did not take the metrics: {_line(error)}",
                "check which AWS credentials this machine has, and that they may do cloudwatch:PutMetricData in the"
                f" namespace {NAMESPACE}",
            ) from error


def open_client(region: str, endpoint: str | None = None) -> Any:
    """A new client; how it waits and repeats is said here and not left to what the environment sets."""
    return boto3.session.Session().client(
        "cloudwatch",
        region_name=region,
        endpoint_url=endpoint,
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=SILENCE_SECONDS,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            # A proxy from the environment has no business between us and this machine.
            **({"proxies": {}} if endpoint and is_loopback(endpoint) else {}),
        ),
    )


def _datum(metric: Metric) -> dict[str, Any]:
    return {
        "MetricName": metric.name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions],
        "Timestamp": metric.at.utc,
        "Value": metric.value,
        "Unit": metric.unit,
    }


class Inbox:
    """A file of JSON lines, 0600, in the place of CloudWatch. Several processes may send and read at the same time."""

    def __init__(self, path: Path) -> None:
        """The folder has to be there; the file is made by the first `send`."""
        self._path = path

    def send(self, metrics: Sequence[Metric]) -> None:
        """See Metrics. All of them are in the file, or none."""
        if not metrics:
            return
        lines = "".join(f"{metric.model_dump_json()}\n" for metric in metrics).encode()
        with self._locked(os.O_RDWR | os.O_CREAT) as file:
            end = _end_of_whole_lines(file)
            try:
                os.ftruncate(file, end)
                written = os.pwrite(file, lines, end)
                if written < len(lines):
                    raise OSError(None, "the disk took only a part of them")
            except OSError:
                os.ftruncate(file, end)
                raise

    def read(self) -> tuple[Metric, ...]:
        """All that was sent, oldest first. MetricsFault if the file is not one of these."""
        try:
            with self._locked(os.O_RDONLY) as file:
                content = os.pread(file, _end_of_whole_lines(file), 0)
        except FileNotFoundError:
            return ()
        try:
            return tuple(map(Metric.model_validate_json, content.splitlines()))
        except ValidationError as error:
            raise _fault(f"{self._path} holds something else than metrics", "move that file away") from error

    @contextmanager
    def _locked(self, how: int) -> Iterator[int]:
        try:
            file = os.open(self._path, how | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield file
            finally:
                os.close(file)
        except FileNotFoundError:
            if not how & os.O_CREAT:
                raise
            raise self._unusable("its folder is not there") from None
        except OSError as error:
            raise self._unusable(error.strerror or "unknown trouble") from error

    def _unusable(self, why: str) -> MetricsFault:
        return _fault(f"the metrics inbox {self._path} cannot be used: {why}", "make it usable for this user")


def _end_of_whole_lines(file: int) -> int:
    """Where a line that a killed process left incomplete begins, or the end of the file."""
    end = os.fstat(file).st_size
    while end and os.pread(file, 1, end - 1) != b"\n":
        end -= 1
    return end


def _fault(happened: str, next_step: str) -> MetricsFault:
    return MetricsFault(
        happened, safe="the backups themselves are not touched by this; only numbers about them were lost",
        next_step=next_step,
    )  # fmt: skip


def _line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:300]
