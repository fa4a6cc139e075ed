"""One PostgreSQL cluster for tests, and pairs of databases on it: production, and a branch of an earlier moment."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import TupleRow

from runbooks.clients import programs
from runbooks.clients.postgres import Connection, connect
from runbooks.model.dsn import Dsn
from runbooks.rows.applied import Applied
from runbooks.rows.apply import apply
from runbooks.rows.found import Request
from runbooks.rows.plan import Plan, make_plan
from runbooks.rows.proof import Proof, prove_recovery
from runbooks.rows.survey import survey

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
            server.send_signal(signal.SIGQUIT)  # at once: nothing in it is worth a checkpoint
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
    """Two databases with the same content until a test changes one of them, and our sessions in them."""

    production: Connection
    branch: Connection
    app: Connection
    """The application's own session in production, as the owner and with an application's settings."""
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


_RESET = """
DO $$
DECLARE found record;
BEGIN
    FOR found IN SELECT evtname FROM pg_event_trigger LOOP
        EXECUTE format('DROP EVENT TRIGGER %I', found.evtname);
    END LOOP;
    FOR found IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', found.nspname);
    END LOOP;
    EXECUTE format('ALTER DATABASE %I RESET ALL', current_database());
    EXECUTE format('GRANT ALL ON DATABASE %I TO guest', current_database());
END $$;
CREATE SCHEMA public AUTHORIZATION shop;
GRANT USAGE ON SCHEMA public TO PUBLIC;
"""


class Pairs:
    """Gives the one pair of databases of the test session a new content.

    Both run the same statements, so those must be deterministic: no now(), no random().
    """

    def __init__(self, cluster: Dsn, names: tuple[str, str]) -> None:
        self._cluster = cluster
        self._names = names
        self._sessions: list[Connection] = []

    def __call__(self, setup: str, *, role: str = "shop", before: str = "", after: str = "") -> Pair:
        """Both databases after `setup` as shop, with `before` and `after` as superuser."""
        self.close()
        for name in self._names:
            for user, statements in (("admin", _RESET + before), ("shop", setup), ("admin", after)):
                with psycopg.connect(**login(self._cluster, name, user).keywords(), autocommit=True) as session:
                    session.execute("SET client_min_messages TO warning; SET default_transaction_read_only TO off")
                    session.execute(statements.encode())
        dsns = [login(self._cluster, name, role) for name in self._names]
        self._sessions = [connect(dsn, application_name="test", lock_timeout="300ms") for dsn in dsns]
        app = psycopg.connect(**login(self._cluster, self._names[0], "shop").keywords(), autocommit=True)
        self._sessions.append(app)
        return Pair(*self._sessions, self._cluster, self._names)

    def close(self) -> None:
        while self._sessions:
            self._sessions.pop().close()


def until(condition: object, seconds: float = 20) -> None:
    """Poll a condition with a deadline."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


class CommitsWhenWaitedFor(threading.Thread):
    """Commits (or rolls back) the open transaction of a session as soon as another session waits for it."""

    def __init__(self, session: Connection, pair: Pair, *, rollback: bool = False) -> None:
        super().__init__()
        self._session, self._dsn, self._rollback = session, pair.cluster, rollback
        self.start()

    def run(self) -> None:
        question = "SELECT count(*) FROM pg_locks WHERE NOT granted AND %s = ANY (pg_blocking_pids(pid))"
        with psycopg.connect(**self._dsn.keywords(), autocommit=True) as watcher:
            pid = self._session.info.backend_pid
            until(lambda: watcher.execute(question, (pid,)).fetchone() != (0,))
        self._session.rollback() if self._rollback else self._session.commit()


@dataclass(frozen=True)
class Recovery:
    """One recovery from survey to proof."""

    plan: Plan
    applied: Applied
    proof: Proof
    undo: Path


def recover(
    pair: Pair,
    folder: Path,
    *tables: str,
    where: str | None = None,
    request: Request | None = None,
    after: Connection | None = None,
    accept: Iterable[str] = (),
    between: Callable[[], None] = lambda: None,
    run: str = "run",
) -> Recovery:
    """Survey, plan, apply and prove; every record takes the way through JSON that it takes through the journal.

    `between` is what somebody does after the plan was made.
    """
    found = survey(pair.production, pair.branch, request or Request.parse(tables, where), after=after)
    plan = Plan.model_validate_json(make_plan(found, accept_triggers=accept).model_dump_json())
    between()
    undo = folder / f"{run}.undo.jsonl"
    applied = apply(pair.production, pair.branch, plan, run_id=run, undo_path=undo, before_commit=lambda _: None)
    applied = Applied.model_validate_json(applied.model_dump_json())
    return Recovery(plan, applied, prove_recovery(pair.production, pair.branch, plan, applied), undo)


def texts(session: psycopg.Connection[TupleRow], table: str) -> list[str]:
    """All rows of a table as PostgreSQL writes them, sorted; the same settings on both sides."""
    rows = session.execute(f'SELECT t::text FROM {table} AS t ORDER BY t::text COLLATE "C"'.encode())
    return [row[0] for row in rows]


def value(session: psycopg.Connection[TupleRow], query: str) -> object:
    row = session.execute(query.encode()).fetchone()
    return row[0] if row else None
