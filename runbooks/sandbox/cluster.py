"""One PostgreSQL data directory and the server on it: make, configure, start, connect, stop.

A server runs in the foreground under a small shell that holds a pipe from us. Letting go of the pipe is how it is
stopped, and the pipe also closes when we die, by SIGKILL too: no server outlives its supervisor.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from runbooks.clients.programs import Program
from runbooks.model.errors import SandboxFault
from runbooks.sandbox.osuser import Account
from runbooks.sandbox.processes import LOCALHOST, STOP_LIMIT, birth, free_port, reap, status

SUPERUSER = "cloud_admin"
START_LIMIT = timedelta(minutes=5)

# SIGINT is a fast shutdown, SIGQUIT an immediate one. The watcher ends before the shell does, so that it can never
# signal a process that got the server's number later.
_WATCHED = """
exec 3<&0 </dev/null
"$@" 3<&- & server=$!
( trap 'kill $nap 2>/dev/null; exit' TERM
  read line <&3
  kill -INT $server
  sleep 10 & nap=$!
  wait $nap
  kill -QUIT $server ) & watcher=$!
exec 3<&-
wait $server
code=$?
kill $watcher 2>/dev/null
exit $code
"""

_COMMON: dict[str, str] = {
    "listen_addresses": LOCALHOST,
    "unix_socket_directories": "",  # no path to be too long, no file to be left behind
    "password_encryption": "scram-sha-256",
    "fsync": "off",  # nothing here has to survive a power cut
    "synchronous_commit": "on",  # an acknowledged commit is in the file, where branches read it
    "full_page_writes": "on",  # base backups need it
    "max_connections": "100",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "dynamic_shared_memory_type": "mmap",  # /dev/shm of a container is small
    "max_wal_size": "1GB",
    "min_wal_size": "32MB",
    "wal_init_zero": "off",
    "wal_recycle": "off",
    "timezone": "GMT",  # the one zone that needs no zone files
    "log_timezone": "GMT",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "jit": "off",
    "idle_in_transaction_session_timeout": "5min",
}

_ACCESS = f"""# Written by the sandbox. Passwords for everybody, the superuser too: trust would hand every account
# of this machine a superuser, and with it a shell.
host all all {LOCALHOST}/32 scram-sha-256
host replication {SUPERUSER} {LOCALHOST}/32 scram-sha-256
"""


@dataclass(frozen=True)
class Toolbox:
    """What every cluster of a stack shares."""

    program: Program
    account: Account
    superuser_password: str = field(repr=False)

    def tool(self, name: str) -> Path:
        return self.program.sibling(name)


@dataclass(frozen=True)
class Cluster:
    """A data directory at `home/data`, its log at `home/log`."""

    home: Path
    tools: Toolbox

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def wal(self) -> Path:
        return self.data / "pg_wal"

    def create(self) -> None:
        """A new, empty cluster in UTF8 with the builtin C.UTF-8 locale, as Neon's are."""
        account = self.tools.account
        secret = self.home / "initdb-password"
        account.write(secret, self.tools.superuser_password + "\n")
        try:
            account.run(
                self.tools.tool("initdb"), "--pgdata", self.data, "--username", SUPERUSER, "--pwfile", secret,
                "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--locale-provider", "builtin",
                "--builtin-locale", "C.UTF-8", "--no-sync", "--no-instructions",
            )  # fmt: skip
        finally:
            secret.unlink()

    def start(self, port: int, settings: Mapping[str, str]) -> Server:
        """Start on 127.0.0.1:`port`. Returns at once; `wait` on the answer waits until it takes connections."""
        reap(self.data)
        last = birth(self.data)  # a server that was killed leaves its file, saying `ready`
        write = self.tools.account.write
        write(self.data / "postgresql.conf", _written(_COMMON | {"port": str(port)} | dict(settings)))
        write(self.data / "postgresql.auto.conf", "")
        write(self.data / "pg_hba.conf", _ACCESS)
        log = self.home / "log"
        with log.open("ab") as out:
            log.chmod(0o600)
            process = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHED, "watched", self.tools.program.path, "-D", self.data],
                stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True, **self.tools.account.spawning(),
            )  # fmt: skip
        return Server(self, port, process, last)

    def last_words(self) -> str:
        return "\n".join((self.home / "log").read_text(errors="replace").splitlines()[-4:])


@dataclass(frozen=True)
class Server:
    """A running (or starting) server on a cluster."""

    cluster: Cluster
    port: int
    process: subprocess.Popen[bytes]
    last: str | None
    """Who wrote the pid file before."""

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait(self, limit: timedelta = START_LIMIT) -> Server:
        """Until it takes connections; SandboxFault with its last words if it ends or takes longer than `limit`."""
        until = time.monotonic() + limit.total_seconds()
        while status(self.cluster.data, unlike=self.last) != "ready":
            if not self.alive:
                self.stop()
                raise _not_started(self.cluster, "ended while it started")
            if time.monotonic() > until:
                self.stop()
                raise _not_started(self.cluster, f"was not ready after {limit}")
            time.sleep(0.005)
        return self

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A session of the superuser, autocommit."""
        return psycopg.connect(
            host=LOCALHOST, port=self.port, user=SUPERUSER, password=self.cluster.tools.superuser_password,
            dbname=database, autocommit=True, connect_timeout=10, application_name="sandbox", sslmode="disable",
        )  # fmt: skip

    def release(self) -> None:
        """Begin a fast shutdown; `stop` waits for its end."""
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()

    def stop(self) -> None:
        """Stop and wait. The shell escalates after 10 s. Safe to repeat."""
        self.release()
        try:
            self.process.wait(STOP_LIMIT.total_seconds())
        except subprocess.TimeoutExpired as error:
            raise SandboxFault(
                f"a server of the sandbox does not stop ({self.cluster.data})",
                safe="its data is complete on disk",
                next_step=f"end process {self.process.pid} and its children by hand, then `invoke sandbox.up`",
            ) from error


@contextmanager
def running(cluster: Cluster, settings: Mapping[str, str], limit: timedelta = START_LIMIT) -> Iterator[Server]:
    """A server on a spare port for as long as the block runs."""
    server = cluster.start(free_port(), settings)
    try:
        yield server.wait(limit)
    finally:
        server.stop()


def copy_files(source: Path, target: Path, account: Account) -> None:
    """Copy a data directory without its WAL and slots. Never by hard link: PostgreSQL writes into pages in place."""
    account.folder(target)
    entries = [entry for entry in source.iterdir() if entry.name not in _LEFT_OUT]
    clone = ("cp", "-Rpc") if shutil.which("sw_vers") else ("cp", "-a", "--reflink=auto")
    account.run(*clone, *entries, target)
    for name in ("pg_wal", "pg_wal/archive_status", "pg_wal/summaries", "pg_replslot", "pg_dynshmem"):
        account.folder(target / name)


_LEFT_OUT = frozenset({"pg_wal", "pg_replslot", "postmaster.pid", "postmaster.opts", "recovery.signal", "pg_dynshmem"})


def _written(settings: Mapping[str, str]) -> str:
    quoted = {name: value.replace("\\", "\\\\").replace("'", "''") for name, value in settings.items()}
    return "".join(f"{name} = '{value}'\n" for name, value in quoted.items())


def _not_started(cluster: Cluster, how: str) -> SandboxFault:
    return SandboxFault(
        f"a server of the sandbox {how}: {cluster.last_words()}",
        safe="its data directory is as it was",
        next_step=f"read {cluster.home / 'log'}; `invoke sandbox.down` and `invoke sandbox.up` try again",
    )
