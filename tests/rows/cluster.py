"""One PostgreSQL cluster for tests, and pairs of databases on it: production, and a branch of an earlier moment."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from runbooks.clients import programs
from runbooks.clients.postgres import Connection, connect
from runbooks.model.dsn import Dsn

NOBODY = 65534
_numbers = itertools.count()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Dsn]:
    """A superuser's way in. Roles: shop (owns the databases, no superuser), guest (owns nothing)."""
    with tempfile.TemporaryDirectory(prefix="bloom-rows-") as folder:
        other = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            other = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            os.chown(folder, NOBODY, NOBODY)
        how = {"cwd": "/", "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}, **other}
        password = Path(folder) / "password"
        password.write_text("admin\n")
        password.chmod(0o644)
        data, initdb = Path(folder) / "data", programs.find("initdb")
        options = ["-D", data, "-U", "admin", "-N", "-E", "UTF8", "--no-locale", "-A", "scram-sha-256"]
        subprocess.run([initdb.path, *options, f"--pwfile={password}"], check=True, stdout=subprocess.DEVNULL, **how)
        port = _free_port()
        server = subprocess.Popen(
            [initdb.sibling("postgres"), "-D", data, "-p", str(port), "-F", "-k", "", "-c", "max_connections=50"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **how,
        )
        try:
            dsn = Dsn.parse(f"postgresql://admin:admin@127.0.0.1:{port}/postgres?sslmode=disable")
            with connect(dsn, application_name="test", wait=timedelta(seconds=30)) as admin:
                admin.execute("CREATE ROLE shop LOGIN PASSWORD 'sh:op\\'; CREATE ROLE guest LOGIN PASSWORD 'guest'")
            yield dsn
        finally:
            server.terminate()
            server.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def login(cluster: Dsn, database: str, role: str) -> Dsn:
    password = {"shop": "sh%3Aop%5C", "guest": "guest", "admin": "admin"}[role]
    return Dsn.parse(f"postgresql://{role}:{password}@127.0.0.1:{cluster.port}/{database}?sslmode=disable")


@dataclass(frozen=True)
class Pair:
    """Two databases with the same content until a test changes one of them."""

    production: Connection
    branch: Connection
    app: psycopg.Connection[tuple[object, ...]]
    """The application's session in production, with the settings an application has."""
    cluster: Dsn
    names: tuple[str, str]

    def dsn(self, which: int, role: str = "shop") -> Dsn:
        return login(self.cluster, self.names[which], role)


def new_database(cluster: Dsn, *, template: str = "template1", owner: str = "shop") -> str:
    name = f"shop_{next(_numbers)}"
    with psycopg.connect(**cluster.keywords(), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(*map(sql.Identifier, (name, owner, template)))
        )
        admin.execute(sql.SQL("GRANT ALL ON DATABASE {} TO guest").format(sql.Identifier(name)))
    return name


class Pairs:
    """Makes pairs and takes them away after the test."""

    def __init__(self, cluster: Dsn) -> None:
        self._cluster = cluster
        self._made: list[Pair] = []

    def __call__(self, setup: str, *, role: str = "shop", admin_setup: str = "") -> Pair:
        """Production after `setup` (as shop) and `admin_setup` (as superuser); the branch is a copy of that."""
        production = new_database(self._cluster)
        with psycopg.connect(**login(self._cluster, production, "shop").keywords(), autocommit=True) as owner:
            owner.execute(setup)
        if admin_setup:
            with psycopg.connect(**self._cluster.with_database(production).keywords(), autocommit=True) as admin:
                admin.execute(admin_setup)
        branch = new_database(self._cluster, template=production)
        sessions = [connect(login(self._cluster, name, role), application_name="test") for name in (production, branch)]
        app = psycopg.connect(**login(self._cluster, production, "shop").keywords(), autocommit=True)
        pair = Pair(sessions[0], sessions[1], app, self._cluster, (production, branch))
        self._made.append(pair)
        return pair

    def close(self) -> None:
        with psycopg.connect(**self._cluster.keywords(), autocommit=True) as admin:
            for pair in self._made:
                for session in (pair.production, pair.branch, pair.app):
                    session.close()
                for name in pair.names:
                    admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        self._made.clear()


def until(condition: object, seconds: float = 20) -> None:
    """Poll a condition with a deadline."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)
