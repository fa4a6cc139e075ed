"""An AWS on this machine: moto's server, and boto3 clients for it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config
from moto.core.config import default_user_config
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).resolve().parents[2]
REGION, ACCOUNT = "us-east-1", "123456789012"


@dataclass
class Cloud:
    """One moto server. Clients are made once for a service and region: that is most of a call's time."""

    endpoint: str
    region: str = REGION
    account: str = ACCOUNT
    lock: threading.RLock = field(default_factory=threading.RLock)
    """moto's state bears one request at a time."""
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, service: str, region: str | None = None) -> Any:
        place = (service, region or self.region)
        with self.lock:
            if place not in self._clients:
                self._clients[place] = boto3.client(
                    service, region_name=place[1], endpoint_url=self.endpoint, aws_access_key_id="test",
                    aws_secret_access_key="test", config=Config(retries={"max_attempts": 1}),
                )  # fmt: skip
            return self._clients[place]

    def reset(self) -> None:
        """An empty account again."""
        httpx.post(f"{self.endpoint}/moto-api/reset").raise_for_status()


@contextmanager
def alone() -> Iterator[Cloud]:
    """A server in a process of its own: all servers of one process share what they hold, and are reset together.

    Its buckets' policies are kept, and keep nobody out: see `tests.infra.archive_ground.lenient`.
    """
    command = [sys.executable, "-m", "tests.infra.moto_alone"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            endpoint = process.stdout.readline().strip()
            assert endpoint, "moto's server did not start"
            yield Cloud(endpoint)
        finally:
            process.stdin.close()  # which ends it


@contextmanager
def cloud() -> Iterator[Cloud]:
    """A server of its own on a free port, in this process, until the block ends."""
    for service in ("lambda", "batch"):  # with Docker, and no daemon, they would say 200 and have run nothing
        default_user_config[service] = {"use_docker": False}
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Cloud(f"http://{host}:{port}")
    finally:
        server.stop()
