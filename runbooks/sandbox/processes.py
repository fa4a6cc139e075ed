"""Ports and processes: what is free, what runs, and how a server left by an earlier supervisor is ended."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from datetime import timedelta
from pathlib import Path

from runbooks.model.errors import SandboxFault

LOCALHOST = "127.0.0.1"
STOP_LIMIT = timedelta(seconds=20)


def reap(data: Path) -> None:
    """End a server that an earlier supervisor left on `data`, and clear its pid file.

    The number in a pid file may meanwhile belong to anybody, so only a postgres on this very directory is signalled.
    """
    pid = _pid(data)
    if pid is not None:
        until = time.monotonic() + STOP_LIMIT.total_seconds()
        sent = None
        while _is_server_on(pid, data):
            # Its watcher is stopping it already; a second SIGINT does no harm, an immediate stop comes later.
            wanted = signal.SIGINT if time.monotonic() < until - 10 else signal.SIGQUIT
            if wanted != sent:
                os.kill(pid, wanted)
                sent = wanted
            if time.monotonic() > until:
                raise SandboxFault(
                    f"process {pid}, a server left by an earlier run, does not end",
                    safe="its data is complete on disk",
                    next_step=f"end process {pid} by hand, then `invoke sandbox.up`",
                )
            time.sleep(0.01)
    (data / "postmaster.pid").unlink(missing_ok=True)


def free_port() -> int:
    """A port that is free now, below the range the system hands out for outgoing connections."""
    for _ in range(200):
        port = random.randrange(20_000, 32_000)
        if is_free(port):
            return port
    raise SandboxFault(
        "no free port between 20000 and 32000", safe="nothing was started", next_step="stop what listens there"
    )


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As PostgreSQL does: a connection that lingers from before is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError:
            return False
    return True


def _pid_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def status(data: Path) -> str | None:
    """Line 8 of the pid file, PostgreSQL's own word on its state: starting, ready, stopping."""
    lines = _pid_file(data)
    return lines[7].strip() if len(lines) > 7 else None


def _pid(data: Path) -> int | None:
    lines = _pid_file(data)
    return abs(int(lines[0])) if lines and lines[0].lstrip("-").isdigit() else None


def _is_server_on(pid: int, data: Path) -> bool:
    command = command_line(pid)
    return "postgres" in command and str(data) in command


def command_line(pid: int) -> str:
    """What process `pid` was started with; empty if there is none, or only a zombie."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    done = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()
