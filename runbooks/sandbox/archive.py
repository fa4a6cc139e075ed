"""The archive of a stack: an S3 server with keys of its own, started at the first demand, for as long as the stack."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbooks.model.errors import SandboxFault
from runbooks.model.secret import Secret

if TYPE_CHECKING:  # both are loaded when a server is started: most stacks never have one
    from runbooks.sandbox.s3 import S3Server

PLACE = "archive"
"""Its folder in the stack's. PostgreSQL's account has no business there."""
KEY = "restorer.key"
ROUTE = "/sandbox/archive"
"""Not Neon's, and so outside its prefix. GET looks (the facts, or null), POST starts the server first."""


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
    """Its private half, 0600."""
    metrics_file: Path
    """Where metrics go instead of CloudWatch."""
    local: Path
    """Where local copies go, if the policy wants any. It may not be there yet."""

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
        self._lock = threading.Lock()
        self._server: S3Server | None = None
        self._facts: ArchiveFacts | None = None
        self._closed = False

    def running(self) -> ArchiveFacts | None:
        """Starts nothing and waits for nobody."""
        server, facts = self._server, self._facts
        return facts if server and server.is_running else None

    def start(self) -> ArchiveFacts:
        """Of the server, which is started if it does not run; that takes seconds. Safe to repeat.

        SandboxFault, also after `stop`; ToolMissing without its program.
        """
        with self._lock:
            if self._closed:
                raise SandboxFault(
                    "the local stack is about to end",
                    safe="nothing was started",
                    next_step="invoke sandbox.up, then run the same command again",
                )
            if facts := self.running():
                return facts
            self._drop()  # one that died leaves its watcher's remains
            self._server, self._facts = self._started()
            return self._facts

    def stop(self) -> None:
        """For good. Safe to repeat. What was stored stays."""
        with self._lock:
            self._closed = True
            self._drop()

    def _drop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = self._facts = None

    def _started(self) -> tuple[S3Server, ArchiveFacts]:
        from runbooks.sandbox.s3 import S3Server

        self._home.mkdir(mode=0o700, exist_ok=True)
        recipient = _recipient(self._home / KEY)
        server = S3Server(self._home / "s3").__enter__()
        return server, ArchiveFacts(
            endpoint=server.endpoint,
            region=server.region,
            bucket=server.bucket,
            access_key=server.access_key,
            secret_key=server.secret_key,
            recipient=recipient,
            key_file=self._home / KEY,
            metrics_file=self._home / "metrics.jsonl",
            local=self._home / "backups",
        )


def _recipient(key_file: Path) -> str:
    """The public key of the pair, which is made once. UsageFault if somebody damaged the private one's file."""
    from runbooks.clients.seal import KeyPair, Opener

    if not key_file.exists():
        pair = KeyPair.new("age")
        beside = key_file.with_name(key_file.name + ".new")
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(pair.secret.reveal() + "\n")
        beside.replace(key_file)
    return Opener.having("age", [Secret(key_file.read_text())]).fingerprints[0]
