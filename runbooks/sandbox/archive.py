"""The archive of a stack: an S3 server with keys of its own, started at the first demand, for as long as the stack."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runbooks.clients.seal import KeyPair
from runbooks.model.secret import Secret
from runbooks.sandbox.s3 import S3Server

PLACE = "archive"
"""Its folder in the stack's."""


@dataclass(frozen=True)
class ArchiveFacts:
    """How a running archive is reached, and the keys to its backups."""

    endpoint: str
    region: str
    bucket: str
    access_key: str
    secret_key: Secret
    recipient: str
    """The age public key that backups are sealed to."""
    key_file: Path
    """Its private half."""
    metrics_file: Path
    """Where metrics go instead of CloudWatch."""
    local: Path
    """Where local copies go, if the policy wants any."""

    def reveal(self) -> dict[str, Any]:
        """As JSON, for whoever holds the stack's key: with the secret."""
        return {name: value.reveal() if isinstance(value, Secret) else str(value) for name, value in vars(self).items()}

    @classmethod
    def of(cls, told: dict[str, Any]) -> ArchiveFacts:
        """The inverse of `reveal`."""
        paths = {name: Path(told[name]) for name in ("key_file", "metrics_file", "local")}
        return cls(**told | paths | {"secret_key": Secret(told["secret_key"])})


class SandboxArchive:
    """Starts nothing until it is asked. For any number of threads."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._server: S3Server | None = None
        self._starting = threading.Lock()

    @property
    def running(self) -> bool:
        return self._server is not None

    def facts(self) -> ArchiveFacts:
        """Of the server, which is started if it is not there yet; that takes seconds. SandboxFault, ToolMissing."""
        with self._starting:
            if self._server is None:
                self._home.mkdir(mode=0o700, exist_ok=True)
                pair = _pair(self._home)
                self._server = S3Server(self._home / "s3").__enter__()
            else:
                pair = _pair(self._home)
            server = self._server
            return ArchiveFacts(
                endpoint=server.endpoint,
                region=server.region,
                bucket=server.bucket,
                access_key=server.access_key,
                secret_key=server.secret_key,
                recipient=pair,
                key_file=self._home / "restorer.key",
                metrics_file=self._home / "metrics.jsonl",
                local=self._home / "backups",
            )

    def stop(self) -> None:
        """Safe to repeat. What was stored stays."""
        with self._starting:
            if self._server is not None:
                self._server.stop()
                self._server = None


def _pair(home: Path) -> str:
    """The public key of the pair, which is made once."""
    public = home / "restorer.pub"
    if not public.exists():
        pair = KeyPair.new("age")
        _write(home / "restorer.key", pair.secret.reveal())
        _write(public, json.dumps(pair.recipient))  # last: with it the pair is whole
    return str(json.loads(public.read_text()))


def _write(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)
