"""Dump and restore between major versions: an older server of this machine, where there is one (C02)."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbooks.clients import programs
from runbooks.clients.postgres import connect
from runbooks.clients.restore import restore
from runbooks.clients.restore_complaints import Kind
from runbooks.model.dsn import Dsn
from runbooks.model.errors import ToolMissing
from runbooks.sandbox.osuser import Account
from runbooks.sandbox.processes import free_port
from tests.clients.dump_ground import SHOP, Ground, dumped, inventory, lost, run, value
from tests.clients.dump_ground import ground as ground


@pytest.fixture(scope="module")
def old() -> Iterator[Dsn]:
    """A superuser's way into a server older than 17."""
    try:
        initdb = programs.search("initdb", at_least=14, environment={}, root=Path("/"), wheel=None)
    except ToolMissing:
        initdb = None
    if initdb is None or initdb.version[0] >= 17:
        pytest.skip("no PostgreSQL 14 to 16 on this machine")
    with tempfile.TemporaryDirectory(prefix="bloom-old-") as name:
        account, folder = Account.choose(), Path(name)
        account.own(folder)
        account.write(folder / "password", "admin\n")
        options = ["-U", "admin", "-N", "-E", "UTF8", "--no-locale", "-A", "scram-sha-256"]
        account.run(initdb.path, "-D", folder / "data", *options, f"--pwfile={folder / 'password'}")
        port = free_port()
        server = subprocess.Popen(
            [initdb.sibling("postgres"), "-D", folder / "data", "-p", str(port), "-F", "-k", ""],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **account.spawning(),
        )  # fmt: skip
        try:
            dsn = Dsn.parse(f"postgresql://admin:admin@127.0.0.1:{port}/postgres?sslmode=disable")
            with connect(dsn, application_name="test") as conn:
                conn.execute("CREATE DATABASE source TEMPLATE template0")
                conn.execute("CREATE DATABASE target TEMPLATE template0")
            yield dsn
        finally:
            server.terminate()
            server.wait(30)


def test_a_backup_of_an_older_server_comes_back_equal_in_a_newer_one(old: Dsn, ground: Ground, tmp_path: Path) -> None:
    """So the hash of the rows is the same in both versions."""
    source, target = old.with_database("source"), ground.database()
    run(source, SHOP)
    _, expected = dumped(source, tmp_path / "dump")
    restore(tmp_path / "dump", target, jobs=2).require()
    assert not lost(expected, inventory(target))
    assert value(target, "SELECT count(*) FROM client") == 3000


def test_c02_the_one_setting_that_an_older_target_lacks_is_told_and_nothing_else_is_waved_through(
    old: Dsn, ground: Ground, tmp_path: Path
) -> None:
    target = old.with_database("target")
    _, expected = dumped(ground.database(SHOP), tmp_path / "dump")
    result = restore(tmp_path / "dump", target, jobs=2).require()
    assert {complaint.kind for complaint in result.complaints} == {Kind.HARMLESS}
    assert all("transaction_timeout" in complaint.text for complaint in result.complaints)
    assert not lost(expected, inventory(target))
