"""The throw-away cluster: of a version that fits, with the source's locale where it can be had, and gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbooks.clients.postgres import connect
from runbooks.model.errors import DatabaseFault, ToolMissing
from runbooks.model.inventory import Locale
from runbooks.sandbox.processes import command_line
from runbooks.sandbox.scratch import MARK, Scratch
from tests.stack import until


@pytest.fixture(scope="module")
def scratch() -> Iterator[Scratch]:
    with Scratch(major=17) as running:
        yield running


@pytest.fixture
def place() -> Iterator[Path]:
    """Not below pytest's own folder: as root that one is closed to the account PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="bloom-dr-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def answer(scratch: Scratch, database: str, query: str) -> object:
    with connect(scratch.dsn(database), application_name="test") as conn:
        row = conn.execute(query.encode()).fetchone()
        return row[0] if row else None


def test_it_is_tuned_for_a_restore_and_open_to_this_machine_only(scratch: Scratch) -> None:
    wanted = {"fsync": "off", "full_page_writes": "off", "wal_level": "minimal", "listen_addresses": "127.0.0.1"}
    assert {name: answer(scratch, "postgres", f"SHOW {name}") for name in wanted} == wanted


def test_nothing_is_left_after_the_block_also_after_an_error(place: Path) -> None:
    seen: list[int] = []

    def fail_inside() -> None:
        with Scratch(major=17, place=place) as running:
            seen.append(running.server.process.pid)
            assert len(list(place.glob(f"{MARK}*"))) == 1
            raise RuntimeError("the restore failed")

    with pytest.raises(RuntimeError, match="the restore failed"):
        fail_inside()
    assert list(place.iterdir()) == []
    assert command_line(seen[0]) == ""


def test_the_server_ends_with_its_process_however_that_ends(place: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from runbooks.sandbox.scratch import Scratch\n"
        f"with Scratch(major=17, place=Path({str(place)!r})) as s:\n"
        "    print((s.folder / 'data' / 'postmaster.pid').read_text().split()[0], flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert "postgres" in command_line(pid)
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: not command_line(pid))


def test_a_source_newer_than_every_server_here_is_refused_and_nothing_is_left(place: Path) -> None:
    with pytest.raises(ToolMissing, match=r"of PostgreSQL 99, and the newest server on this machine is \d+"):
        Scratch(major=99, place=place).__enter__()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "locale",
    [
        Locale(encoding="UTF8", provider="builtin", collate="C", ctype="C", locale="C.UTF-8"),
        Locale(encoding="UTF8", provider="libc", collate="C", ctype="C"),
        Locale(encoding="LATIN1", provider="libc", collate="C", ctype="C"),
        Locale(encoding="SQL_ASCII", provider="libc", collate="C", ctype="C"),
    ],
    ids=str,
)
def test_a_database_has_the_locale_of_its_source(scratch: Scratch, locale: Locale) -> None:
    name = f"like_{abs(hash(locale))}"
    assert scratch.database(name, locale).unlike is None
    assert answer(scratch, name, "SHOW server_encoding") == locale.encoding
    provider = answer(scratch, name, "SELECT datlocprovider FROM pg_database WHERE datname = current_database()")
    assert provider == {"libc": "c", "builtin": "b"}[locale.provider]


@pytest.mark.parametrize(
    "locale",
    [
        Locale(encoding="UTF8", provider="icu", collate="xx_XX", ctype="xx_XX", locale="de-DE"),
        Locale(encoding="UTF8", provider="libc", collate="xx_XX.UTF-8", ctype="xx_XX.UTF-8"),
        Locale(encoding="LATIN1", provider="libc", collate="xx_XX", ctype="xx_XX"),
    ],
    ids=str,
)
def test_a_locale_that_this_machine_lacks_is_told_and_the_encoding_is_kept(scratch: Scratch, locale: Locale) -> None:
    name = f"unlike_{abs(hash(locale))}"
    made = scratch.database(name, locale)
    assert made.unlike
    assert answer(scratch, name, "SHOW server_encoding") == locale.encoding


def test_a_name_that_is_taken_is_an_error(scratch: Scratch) -> None:
    scratch.database("once")
    with pytest.raises(DatabaseFault, match="already exists"):
        scratch.database("once")


def test_roles_are_added_once_and_cannot_log_in(scratch: Scratch) -> None:
    scratch.add_roles(("neondb_owner", 'strange "role"', "cloud_admin"))
    scratch.add_roles(("neondb_owner", "other"))
    found = answer(
        scratch,
        "postgres",
        "SELECT array_agg(rolname::text ORDER BY rolname) FROM pg_roles WHERE rolname !~ '^pg_' AND NOT rolcanlogin",
    )
    assert found == ["neondb_owner", "other", 'strange "role"']


def test_the_password_of_the_superuser_is_not_shown(scratch: Scratch) -> None:
    secret = scratch.server.cluster.tools.superuser_password
    assert secret not in repr(scratch.dsn()) + str(scratch.dsn()) + repr(scratch.server)
