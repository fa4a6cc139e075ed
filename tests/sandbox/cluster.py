"""A plain PostgreSQL cluster for tests, with one role that is no superuser and owns its databases."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from runbooks.clients import programs
from runbooks.model.dsn import Dsn

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
NOBODY = 65534
_numbers = itertools.count()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Dsn]:
    """A superuser's way in; the cluster dies with the session."""
    with tempfile.TemporaryDirectory(prefix="bloom-cluster-") as folder:
        # PostgreSQL refuses to run as root.
        other = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        if other:
            os.chown(folder, NOBODY, NOBODY)
        password = Path(folder) / "password"
        password.write_text("admin\n")
        password.chmod(0o644)
        data = Path(folder) / "data"
        initdb = programs.find("initdb")
        subprocess.run(
            [initdb.path, "-D", data, "-U", "admin", "-N", "-E", "UTF8", "-A", "scram-sha-256", f"--pwfile={password}"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            env=ENVIRONMENT,
            **other,
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        dsn = Dsn.parse(f"postgresql://admin:admin@127.0.0.1:{port}/postgres?sslmode=disable")
        server = subprocess.Popen(
            [initdb.sibling("postgres"), "-D", data, "-p", str(port), "-F", "-k", ""],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=ENVIRONMENT,
            **other,
        )
        try:
            _wait_until_up(dsn)
            yield dsn
        finally:
            # A fast shutdown: it does not wait for connections that a failed test left open.
            server.send_signal(signal.SIGINT)
            server.wait(30)


def _wait_until_up(dsn: Dsn) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with psycopg.connect(**dsn.keywords()) as conn:
                conn.execute("create role bloom login password 'bloom'")
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@pytest.fixture
def database(cluster: Dsn) -> Dsn:
    """A new, empty database, as its owner."""
    name = f"bloom_{next(_numbers)}"
    with psycopg.connect(**cluster.keywords(), autocommit=True) as conn:
        conn.execute(sql.SQL("create database {} owner bloom").format(sql.Identifier(name)))
    return Dsn.parse(f"postgresql://bloom:bloom@127.0.0.1:{cluster.port}/{name}?sslmode=disable")
