"""The dump: whole, or an error. Real pg_dump for what it does, stand-ins for what it must never do."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from runbooks.clients import programs
from runbooks.clients.dump import dump, globals_sql
from runbooks.clients.dump_preflight import client_for, preflight
from runbooks.clients.dump_toc import parse_toc, parts, read_toc, sequences
from runbooks.clients.dump_watch import Watch
from runbooks.clients.inventory import hold_snapshot, take_inventory
from runbooks.clients.programs import Program
from runbooks.model.dsn import Dsn
from runbooks.model.errors import (
    BloomError,
    DatabaseFault,
    DeadlinePassed,
    LocalFault,
    LoginRefused,
    ProofFailed,
    Refused,
    TableLocked,
    ToolMissing,
)
from tests.clients.dump_ground import SECOND, SHOP, Ground, dumped, fake, inventory, run, session, value
from tests.clients.dump_ground import ground as ground
from tests.rows.cluster import until

VERSION = '[ "$1" = --version ] && { echo "pg_dump (PostgreSQL) 17.10"; exit 0; }\n'
FOLDER = "for a; do case $a in --file=*) out=${a#--file=};; esac; done\n"
REAL = f'"{programs.find("pg_dump", at_least=17).path}" "$@"'
LIMITS = {"jobs": 2, "lock_wait": SECOND, "time_limit": 30 * SECOND}


@pytest.fixture(scope="module")
def shop(ground: Ground) -> Dsn:
    """For tests that only read."""
    return ground.database(SHOP)


@pytest.fixture
def with_fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def install(script: str) -> None:
        fake(tmp_path / "bin", "pg_dump", VERSION + FOLDER + script)
        monkeypatch.setenv(programs.SETTING, str(tmp_path / "bin"))

    return install


def looked_twice(dsn: Dsn) -> list[str]:
    heard: list[str] = []
    with session(dsn) as conn:
        watch = Watch(conn, "bloom-dr dump 1234", heard.append)
        watch.look()
        watch.look()
    return heard


def test_every_file_is_finished_when_it_is_handed_over(shop: Dsn, tmp_path: Path) -> None:
    given: dict[str, bytes] = {}
    result, _ = dumped(shop, tmp_path / "dump", on_file=lambda path, _: given.update({path.name: path.read_bytes()}))
    there = {path.name: path.read_bytes() for path in (tmp_path / "dump").iterdir()}
    assert given == there
    assert list(given)[-1] == "toc.dat"
    assert [(file.name, file.size) for file in result.files] == [(name, len(octets)) for name, octets in given.items()]


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_each_table_has_a_file_that_names_it_as_the_inventory_does(shop: Dsn, tmp_path: Path, jobs: int) -> None:
    result, found = dumped(shop, tmp_path / "dump", jobs=jobs)
    tables = {one.name for one in found.tables if one.kind == "table"}
    assert {file.table for file in result.files if file.table} == tables
    assert '"Big Shop"."Order"' in tables


def test_files_may_go_as_soon_as_they_are_handed_over(shop: Dsn, tmp_path: Path) -> None:
    result, _ = dumped(shop, tmp_path / "dump", on_file=lambda path, _: path.unlink())
    assert not list((tmp_path / "dump").iterdir())
    assert len(result.files) == len(result.toc.files) + 1 + 1  # the large object's own file, and toc.dat


def test_a_file_is_handed_over_while_pg_dump_is_still_at_work(
    shop: Dsn, tmp_path: Path, with_fake: Callable[[str], None]
) -> None:
    """Disk use stays bounded only if the first files can go before the last come."""
    with_fake(
        f'{REAL} 2> "{tmp_path}/said" || exit; cat "{tmp_path}/said" >&2\n'
        f'until [ -e "{tmp_path}/seen" ]; do sleep 0.05; done'
    )
    dumped(shop, tmp_path / "dump", on_file=lambda path, table: (tmp_path / "seen").touch())


def test_the_folder_is_closed_to_others(shop: Dsn, tmp_path: Path) -> None:
    dumped(shop, tmp_path / "dump")
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "dump", *(tmp_path / "dump").iterdir())} == {0}


def test_the_table_of_contents_is_read_as_pg_restore_reads_it(shop: Dsn, tmp_path: Path) -> None:
    result, _ = dumped(shop, tmp_path / "dump")
    tool = result.client.sibling("pg_restore")
    listed = subprocess.run([tool, "-l", tmp_path / "dump"], capture_output=True, text=True, check=True).stdout
    lines = [line for line in listed.splitlines() if line and not line.startswith(";")]
    ours = [f"{e.id}; {e.catalog} {e.oid} {e.kind} {e.schema or '-'} {e.name} {e.owner}" for e in result.toc.entries]
    unlisted = ("ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE")
    assert [line for line in ours if line.split()[3] not in unlisted] == lines


def test_no_cut_table_of_contents_is_taken_for_a_whole_one(shop: Dsn, tmp_path: Path) -> None:
    dumped(shop, tmp_path / "dump")
    whole = (tmp_path / "dump" / "toc.dat").read_bytes()
    assert parse_toc(whole).database == shop.database
    for cut in (*range(400), *range(400, len(whole), 97)):
        with pytest.raises(Refused):
            parse_toc(whole[:cut])
    with pytest.raises(Refused):
        parse_toc(whole + b"\0")


def test_c01_a_table_of_contents_from_the_future_names_its_client(shop: Dsn, tmp_path: Path) -> None:
    dumped(shop, tmp_path / "dump")
    path = tmp_path / "dump" / "toc.dat"
    octets = bytearray(path.read_bytes())
    octets[6] = 0x20
    path.write_bytes(octets)
    with pytest.raises(Refused, match=r"pg_dump 17\.\d+ in archive version 1\.32"):
        read_toc(tmp_path / "dump")


def test_names_are_taken_apart_and_sequences_found_under_them() -> None:
    assert parts('"My ""x"."a.b"') == ('My "x', "a.b")
    assert parts("public.t") == ("public", "t")


def test_sequences_stand_where_the_dump_sets_them(ground: Ground, tmp_path: Path) -> None:
    """They belong to no snapshot: one that moved after the inventory is dumped as it stands then."""
    shop = ground.database(SHOP)
    with session(shop) as conn, hold_snapshot(conn, lock_wait=SECOND) as snapshot:
        found = take_inventory(lambda: session(shop), snapshot.id, 1)
        run(shop, "SELECT nextval('client_id_seq')")
        result = dump(shop, snapshot.id, tmp_path / "dump", **LIMITS)
    assert {s.name: s.last_value for s in found.sequences}["public.client_id_seq"] == 3000
    completed = result.completed(found)
    assert {s.name: s.last_value for s in completed.sequences} == {
        "public.client_id_seq": 3001,
        '"Big Shop"."Order_id_seq"': -5000,
    }
    with pytest.raises(ValueError, match=r"does not set public\.other"):
        sequences(result.toc, [*(s.name for s in found.sequences), "public.other"])


def test_c35_rows_added_after_the_snapshot_are_not_in_the_dump(ground: Ground, tmp_path: Path) -> None:
    shop = ground.database(SHOP)
    with session(shop) as conn, hold_snapshot(conn, lock_wait=SECOND) as snapshot:
        run(shop, "INSERT INTO empty SELECT generate_series(1, 9999)")
        result = dump(shop, snapshot.id, tmp_path / "dump", **LIMITS)
    file = next(file for file in result.files if file.table == "public.empty")
    assert file.size < 100


@pytest.mark.parametrize(
    ("how", "script", "kind", "said"),
    [
        ("exits 1 at once", "exit 1", DatabaseFault, "ended with exit code 1: it said nothing"),
        ("writes 1 KB, then exits 1", 'mkdir "$out"; head -c 1024 /dev/zero > "$out/toc.dat"; exit 1', DatabaseFault,
         "exit code 1"),
        ("exits 0 without output", "exit 0", ProofFailed, "no table of contents"),
        ("exits 0 with an empty folder", 'mkdir "$out"; exit 0', ProofFailed, "no table of contents"),
        ("exits 0 with 1 KB of nothing", 'mkdir "$out"; head -c 1024 /dev/zero > "$out/toc.dat"', Refused, "begin"),
        ("dies by signal 9", "kill -9 $$", DatabaseFault, "was killed by SIGKILL"),
        ("dies after a whole dump", f"{REAL} || exit; kill -9 $$", DatabaseFault, "was killed by SIGKILL"),
        ("fails after a whole dump", f"{REAL} || exit; exit 3", DatabaseFault, "exit code 3"),
        ("loses a file", f'{REAL} || exit; rm "$out"/*.dat.zst; exit 0', ProofFailed, "no such file"),
        ("empties a file", f'{REAL} || exit; f=$(ls "$out"/[0-9]*.zst | head -1); : > "$f"', ProofFailed, "is empty"),
        ("adds a file", f'{REAL} || exit; echo x > "$out/more"', ProofFailed, "does not name: more"),
        ("the disk is full", "echo 'pg_dump: error: could not write: No space left on device' >&2; exit 1", LocalFault,
         "No space left"),
    ],
)  # fmt: skip
def test_c12_a_dump_that_failed_is_never_taken_for_one(
    shop: Dsn,
    tmp_path: Path,
    with_fake: Callable[[str], None],
    how: str,
    script: str,
    kind: type[BloomError],
    said: str,
) -> None:
    del how
    with_fake(script if "--verbose" in script else script.replace('"$@"', '"$@" 2>/dev/null'))
    with pytest.raises(kind, match=said):
        dumped(shop, tmp_path / "dump")


def test_c12_a_dump_without_the_rows_of_a_table_is_none(
    shop: Dsn, tmp_path: Path, with_fake: Callable[[str], None]
) -> None:
    with_fake(f"exec {REAL} --exclude-table-data=public.client")
    with pytest.raises(ProofFailed, match=r"no data of public\.client"):
        dumped(shop, tmp_path / "dump")


def test_c08_a_warning_is_kept_and_is_no_failure(shop: Dsn, tmp_path: Path, with_fake: Callable[[str], None]) -> None:
    with_fake(
        "echo 'pg_dump: warning: there are circular foreign-key constraints on this table:' >&2\n"
        f"echo 'pg_dump: detail: dept' >&2\nexec {REAL}"
    )
    result, _ = dumped(shop, tmp_path / "dump")
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("there are circular foreign-key constraints")


def test_c01_a_client_older_than_the_server_is_refused_with_both_versions(
    shop: Dsn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path / "bin", "pg_dump", 'echo "pg_dump (PostgreSQL) 14.9"')
    monkeypatch.setenv(programs.SETTING, str(tmp_path / "bin"))
    with session(shop) as conn:
        old = programs.find("pg_dump")
        with pytest.raises(Refused, match=r"14\.9.*PostgreSQL 17") as refused:
            preflight(conn, old)
        assert refused.value.exit_code == 16
        with pytest.raises(ToolMissing, match=r"PostgreSQL 17.*14\.9"):
            client_for(conn)
    with pytest.raises(ToolMissing, match=r"PostgreSQL 17.*14\.9"):
        dumped(shop, tmp_path / "dump")
    assert not (tmp_path / "dump").exists()


def test_preflight_knows_the_database(shop: Dsn) -> None:
    with session(shop) as conn:
        facts = preflight(conn, client_for(conn))
    assert (facts.server_major, facts.database, facts.role) == (17, shop.database, "cloud_admin")
    assert facts.bytes > 5_000_000
    assert facts.tables == 7
    assert facts.notes == ()


def test_foreign_tables_are_named_as_not_in_the_dump(ground: Ground) -> None:
    dsn = ground.database(
        "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;"
        "CREATE FOREIGN TABLE away (i int) SERVER far"
    )
    with session(dsn) as conn:
        assert "public.away" in preflight(conn, client_for(conn)).notes[0]


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("CREATE TABLE secret (i int)", "may not read public.secret"),
        ("CREATE SCHEMA s; CREATE TABLE s.t (i int); GRANT SELECT ON s.t TO shop", "may not read s.t"),
        ("CREATE SEQUENCE numbers", "may not read public.numbers"),
        ("CREATE TABLE t (i int); GRANT SELECT ON t TO shop; ALTER TABLE t ENABLE ROW LEVEL SECURITY", "hides rows of"),
    ],
)
def test_a_role_that_does_not_see_everything_is_refused(ground: Ground, script: str, named: str) -> None:
    dsn = ground.database(script)
    with session(ground.login(dsn.database, "shop")) as conn, pytest.raises(LoginRefused, match=named):
        preflight(conn, client_for(conn))


def test_c10_a_lock_ends_the_dump_with_the_table_and_its_holder(ground: Ground, tmp_path: Path) -> None:
    dsn = ground.database("CREATE TABLE busy (i int)")
    heard: list[str] = []
    with session(dsn) as conn, psycopg.connect(**dsn.keywords(), application_name="migration") as other:
        conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        snapshot = conn.execute("SELECT pg_export_snapshot()").fetchone()[0]  # type: ignore[index]
        other.execute("LOCK TABLE busy IN ACCESS EXCLUSIVE MODE")
        limits = LIMITS | {"lock_wait": 1.5 * SECOND}
        with pytest.raises(TableLocked) as caught:
            dump(dsn, snapshot, tmp_path / "dump", progress=heard.append, **limits)
        assert f"table public.busy is locked by process {other.info.backend_pid} (migr" in caught.value.happened
    assert any("the dump waits" in what for what in heard)


def test_c10_a_migration_that_waits_for_the_dump_is_told_of(ground: Ground) -> None:
    shop = ground.database(SHOP)
    with psycopg.connect(**shop.keywords(), application_name="bloom-dr dump 1234") as ours:
        ours.execute("LOCK TABLE client IN ACCESS SHARE MODE")
        migration = threading.Thread(target=run, args=(shop, "ALTER TABLE client ADD more_still int"))
        migration.start()
        until(lambda: value(shop, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IS NOT NULL") > 0)
        told = looked_twice(shop)
    migration.join()
    assert len(told) == 1
    assert "waits until the dump lets go of table public.client" in told[0]


def test_a_dump_beyond_its_time_is_ended(shop: Dsn, tmp_path: Path, with_fake: Callable[[str], None]) -> None:
    with_fake("echo 'pg_dump: reading schemas' >&2; exec sleep 60")
    started = time.monotonic()
    with pytest.raises(DeadlinePassed, match="reading schemas"):
        dumped(shop, tmp_path / "dump", time_limit=timedelta(seconds=1))
    assert time.monotonic() - started < 15


def test_trouble_with_a_file_ends_the_dump_and_its_sessions(shop: Dsn, tmp_path: Path) -> None:
    def fail(path: Path, table: str | None) -> None:
        raise RuntimeError("the upload failed")

    with pytest.raises(RuntimeError, match="the upload failed"):
        dumped(shop, tmp_path / "dump", on_file=fail)
    question = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'bloom-dr dump%'"
    until(lambda: value(shop, question) == 0)


def test_the_password_is_in_no_argument_and_no_variable(
    shop: Dsn, tmp_path: Path, with_fake: Callable[[str], None]
) -> None:
    with_fake(f'echo "$@" > "{tmp_path}/seen"; env >> "{tmp_path}/seen"; exec {REAL}')
    dumped(shop, tmp_path / "dump")
    seen = (tmp_path / "seen").read_text()
    assert shop.password is not None
    assert "--snapshot=" in seen
    assert "PGPASSFILE=" in seen
    assert shop.password.reveal() not in seen
    passfile = next(line for line in seen.splitlines() if line.startswith("PGPASSFILE=")).partition("=")[2]
    assert not Path(passfile).exists()


def test_variables_of_the_environment_lead_nowhere_else(
    shop: Dsn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {"PGHOST": "nowhere.example", "PGPORT": "1", "PGDATABASE": "nothing", "PGHOSTADDR": "192.0.2.1"}
    for name, text in elsewhere.items():
        monkeypatch.setenv(name, text)
    result, _ = dumped(shop, tmp_path / "dump")
    assert result.toc.database == shop.database


def test_the_pooler_is_never_dumped_through(shop: Dsn, tmp_path: Path, with_fake: Callable[[str], None]) -> None:
    pooled = Dsn(
        "ep-quiet-lake-123456-pooler.sandbox.localhost", shop.port, shop.user, shop.password, shop.database,
        (("hostaddr", "127.0.0.1"), ("sslmode", "disable")),
    )  # fmt: skip
    with_fake(f'echo "$@" > "{tmp_path}/seen"; exec {REAL}')
    dumped(pooled, tmp_path / "dump")
    assert "ep-quiet-lake-123456.sandbox" in (tmp_path / "seen").read_text()


def test_c02_the_roles_are_written_down_without_passwords_and_alike_each_time(ground: Ground) -> None:
    first, second = globals_sql(ground.admin()), globals_sql(ground.admin())
    assert first == second
    assert b"CREATE ROLE shop" in first
    assert b"SCRAM" not in first
    assert b"restrict" not in first


def test_a_client_that_is_named_is_used(shop: Dsn, tmp_path: Path) -> None:
    client = Program(fake(tmp_path, "pg_dump", f"echo used > {tmp_path}/used; exec {REAL}"), (17, 10), "host")
    with session(shop) as conn, hold_snapshot(conn, lock_wait=SECOND) as snapshot:
        dump(shop, snapshot.id, tmp_path / "dump", client=client, **LIMITS)
    assert (tmp_path / "used").exists()


def test_an_inventory_after_the_dump_is_the_same(shop: Dsn, tmp_path: Path) -> None:
    _, found = dumped(shop, tmp_path / "dump")
    assert inventory(shop) == found
