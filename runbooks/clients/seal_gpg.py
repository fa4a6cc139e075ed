"""OpenPGP by the `gpg` program, each time in a home of its own: the user's keys, settings and agents are left alone."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runbooks.clients.seal_flow import Flow
from runbooks.model.errors import ToolMissing
from runbooks.model.secret import Secret

BLOCK = 256 * 1024
ARMOUR = "-----BEGIN PGP"
_ALWAYS = (
    "--batch", "--no-tty", "--no-options", "--status-fd", "2", "--trust-model", "always", "--disable-dirmngr",
    "--no-auto-key-locate", "--pinentry-mode", "loopback", "--compress-algo", "none",
)  # fmt: skip


@dataclass(frozen=True)
class Said:
    """How a run of gpg ended."""

    code: int
    text: str
    """Its status lines and messages. They hold key ids, no secrets."""

    def has(self, *words: str) -> bool:
        return any(re.search(rf"^\[GNUPG:\] {word}\b", self.text, re.MULTILINE) for word in words)

    @property
    def why(self) -> str:
        """Its own messages in one line."""
        lines = [line for line in self.text.splitlines() if not line.startswith("[GNUPG:]")]
        return " ".join(" ".join(lines).split())[:300] or f"exit code {self.code}"


class Home:
    """A folder 0700 for one piece of work."""

    def __init__(self, path: Path, program: str) -> None:
        self.path, self._program = path, program

    def run(self, *arguments: str, given: bytes = b"") -> tuple[bytes, Said]:
        """For small things: keys in and out."""
        done = subprocess.run(
            self._command(arguments), input=given, capture_output=True, env=self._environment, check=False
        )
        return done.stdout, Said(done.returncode, done.stderr.decode(errors="replace"))

    def stream(self, flow: Flow, *arguments: str) -> Said:
        """The flow through gpg. After a fault of the flow gpg is ended, and the fault is the flow's to raise."""
        with (
            tempfile.TemporaryFile() as messages,
            subprocess.Popen(
                self._command(arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages,
                env=self._environment, bufsize=0,
            ) as process,
        ):  # fmt: skip
            feeder = threading.Thread(target=_feed, args=(flow, process), name="gpg")
            feeder.start()
            try:
                _drain(flow, process)
            except BaseException:
                process.kill()
                if flow.failure is None:
                    raise
            finally:
                feeder.join()
            code = process.wait()
            messages.seek(0)
            return Said(code, messages.read().decode(errors="replace"))

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin", "LC_ALL": "C", "GNUPGHOME": str(self.path)}

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [self._program, "--homedir", str(self.path), *_ALWAYS, *arguments]

    def end_agents(self) -> None:
        if gpgconf := shutil.which("gpgconf"):
            subprocess.run(
                [gpgconf, "--homedir", str(self.path), "--kill", "all"],
                env=self._environment, capture_output=True, check=False,
            )  # fmt: skip


def _feed(flow: Flow, process: subprocess.Popen[bytes]) -> None:
    """The fault of the source is kept in the flow. gpg must not take a source that broke off for one that ended."""
    assert process.stdin is not None
    try:
        while block := flow.read(BLOCK):
            process.stdin.write(block)
    except BaseException:  # noqa: BLE001 - a thread's error goes nowhere; the flow has it, and `raise_own` raises it
        process.kill()
    finally:
        try:
            process.stdin.close()
        except OSError:
            process.kill()


def _drain(flow: Flow, process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    while block := process.stdout.read(BLOCK):
        flow.write(block)


@contextmanager
def home() -> Iterator[Home]:
    """ToolMissing without gpg. Private keys that were put there go with it."""
    program = shutil.which("gpg")
    if program is None:
        raise ToolMissing(
            "the program gpg is not on this machine",
            safe="nothing was encrypted or decrypted",
            next_step="install GnuPG 2.2 or newer (`apt-get install gnupg`, `brew install gnupg`), or use age",
        )
    # A short path: the agent's socket lies there. An agent that is ending removes files while we do.
    with tempfile.TemporaryDirectory(prefix="bloom-gpg-", ignore_cleanup_errors=True) as folder:
        made = Home(Path(folder), program)
        try:
            yield made
        finally:
            made.end_agents()


def fingerprint_of(key: str) -> str:
    """The primary fingerprint of an armoured key, public or private. ValueError unless it is exactly one key."""
    with home() as at:
        shown, _ = at.run("--with-colons", "--show-keys", given=key.encode())
    lines = [line.split(":") for line in shown.decode(errors="replace").splitlines()]
    primary = [after[9] for line, after in itertools.pairwise(lines) if line[0] in ("pub", "sec") and after[0] == "fpr"]
    if len(primary) != 1:
        raise ValueError(f"it holds {len(primary)} OpenPGP keys instead of one")
    return primary[0]


def new_key(name: str) -> tuple[str, Secret]:
    """The armoured public key and the private one, without a passphrase: for the sandbox."""
    with home() as at:
        _, said = at.run("--passphrase", "", "--quick-gen-key", name, "future-default", "default", "never")
        public, _ = at.run("--armor", "--export")
        private, _ = at.run("--armor", "--export-secret-keys")
    if not private:
        raise ValueError(f"gpg made no key: {said.why}")
    return public.decode(), Secret(private.decode())


def seal(flow: Flow, recipients: Sequence[str]) -> Said:
    """To the armoured public keys. Needs no agent, so none is started."""
    with home() as at:
        arguments = ["--no-autostart"]
        for number, key in enumerate(recipients):
            path = at.path / f"recipient-{number}.asc"
            path.write_text(key)
            arguments += ["--recipient-file", str(path)]
        return at.stream(flow, *arguments, "--output", "-", "--encrypt")


def unseal(flow: Flow, keys: Sequence[Secret], passphrase: Secret | None) -> Said:
    with home() as at:
        for key in keys:
            at.run("--import", given=key.reveal().encode())
        # Also for a key without one: gpg must never come to ask.
        path = at.path / "passphrase"
        path.touch(mode=0o600)
        path.write_text((passphrase.reveal() if passphrase else "") + "\n")
        return at.stream(flow, "--passphrase-file", str(path), "--output", "-", "--decrypt")
