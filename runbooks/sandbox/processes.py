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
NOBODYS_PID = 2_000_000_000
"""Beyond the highest number of any system."""


def reap(data: Path) -> None:
    """End a server that an earlier supervisor left on `data`.

    The number in a pid file may meanwhile belong to anybody, so only a postgres on this very directory is signalled.
    """
    pid = _pid(data)
    if pid is None:
        return
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
    if command_line(pid):
        _disown(data)


def _disown(data: Path) -> None:
    """Put a number that no process has into a pid file whose number is a stranger's now.

    The file stays: by its other lines PostgreSQL finds out whether sessions of the dead server are still at work.
    """
    lines = _pid_file(data)
    (data / "postmaster.pid").write_text("\n".join([str(NOBODYS_PID), *lines[1:], ""]))


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


def status(data: Path, *, unlike: str | None = None) -> str | None:
    """PostgreSQL's own word on its state: starting, ready, stopping. None while the file is that of server `unlike`."""
    lines = _pid_file(data)
    return lines[7].strip() if len(lines) > 7 and _birth(lines) != unlike else None


def birth(data: Path) -> str | None:
    """What tells the server that wrote the pid file from any later one: its number and start time."""
    return _birth(_pid_file(data))


def _birth(lines: list[str]) -> str | None:
    return f"{lines[0]} {lines[2]}" if len(lines) > 2 else None


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
