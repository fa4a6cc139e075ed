"""The proof ladder: a whole backup reaches its top, each damage is caught at its rung, and nothing stays behind."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard

from runbooks.backups import ladder
from runbooks.backups.application import check_assertions, environment
from runbooks.backups.ladder import climb
from runbooks.backups.workspace import MARK, workspace
from runbooks.clients.archive import Archive
from runbooks.clients.repository import Repository
from runbooks.clients.restore_outlook import LeftOut, Outlook
from runbooks.clients.seal import KeyPair
from runbooks.model.backup import Manifest, ProofRecord, Rung, StoredFile, Verdict, standing
from runbooks.model.dsn import Dsn
from runbooks.model.inventory import Locale
from runbooks.model.policy_backup import Assertion
from runbooks.model.retention import Place
from runbooks.sandbox.processes import command_line
from runbooks.sandbox.s3 import S3Server
from runbooks.sandbox.scratch import Database, Scratch
from tests.backups.ground import PAIR, repository, taken, the_time
from tests.clients.dump_ground import SHOP, Ground, run
from tests.fakes.s3_proxy import S3Proxy, error
from tests.stack import stack_root, until

SMALL = """
CREATE TABLE p (i int PRIMARY KEY); INSERT INTO p SELECT generate_series(1, 50);
CREATE TABLE c (i int PRIMARY KEY, p int REFERENCES p); INSERT INTO c SELECT i, i FROM generate_series(1, 50) AS i;
CREATE TABLE rightly_empty (i int);
"""
HOLDS = {"name": "every child has a parent", "sql": "SELECT count(*) = 50 FROM c"}
FAILS = {"name": "nobody is called 7", "sql": "SELECT count(*) = 0 FROM c WHERE i = 7"}


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """Where workspaces are made: PostgreSQL's account has to get there."""
    with stack_root() as folder:
        folder.chmod(0o711)
        yield folder


@dataclass(frozen=True)
class Backup:
    """A backup with a local copy, which a test may change."""

    where: Repository
    manifest: Manifest
    root: Path

    @property
    def folder(self) -> Path:
        assert self.where.local is not None
        return self.where.local / str(self.manifest.id)

    def policy(self, **settings: Any) -> Backup:
        policy = type(self.where.policy).model_validate(self.where.policy.model_dump(by_alias=True) | settings)
        return replace(self, where=replace(self.where, policy=policy))

    def manifested(self, **settings: Any) -> Backup:
        return replace(self, manifest=self.manifest.model_copy(update=settings))

    def of_table(self, table: str) -> StoredFile:
        return next(file for file in self.manifest.files if file.table == table)

    def rewritten(self, file: StoredFile, change: Callable[[bytes], bytes], pair: KeyPair = PAIR) -> Backup:
        """As if this had been dumped: the manifest's hashes fit."""
        plain, sealed = self.folder.parent / "plain", self.folder / file.stored_name
        with sealed.open("rb") as source, plain.open("wb") as sink:
            PAIR.opener().unseal(source, sink)
        unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(plain.read_bytes())
        plain.write_bytes(zstandard.compress(change(unpacked)))
        with plain.open("rb") as source, sealed.open("wb") as sink:
            passed = pair.sealer().seal(source, sink)
        now = file.model_copy(
            update={
                "size": passed.size_in, "sha256": passed.sha256_in,
                "stored_size": passed.size_out, "stored_sha256": passed.sha256_out,
            }
        )  # fmt: skip
        return self.manifested(files=tuple(now if one.name == file.name else one for one in self.manifest.files))

    def climbed(self, up_to: Rung = Rung.INTEGRAL, place: Place = Place.LOCAL, **how: Any) -> tuple[ProofRecord, ...]:
        settings: dict[str, Any] = {"opener": PAIR.opener(), "tell": lambda text: None} | how
        with workspace(self.root) as folder:
            records = climb(
                self.where, self.manifest, up_to=up_to, place=place, workspace=folder, by="test", clock=the_time,
                **settings,
            )  # fmt: skip
        assert not list(self.root.glob(f"{MARK}*")), "readable rows were left behind"
        return records

    def judged(self, verdict: Verdict, rung: Rung, **how: Any) -> str:
        """What the last record says, if it says that."""
        record = self.climbed(**how)[-1]
        told = "\n".join(record.details)
        assert (record.verdict, record.rung) == (verdict, rung), told
        return told


@pytest.fixture(scope="module")
def kept(s3: S3Server, ground: Ground, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """Nobody changes this one."""
    place = tmp_path_factory.mktemp("kept")
    where = repository(s3, environment="climbed", local=place / "copies")
    return Backup(where, taken(where, ground.database(SMALL), place), root)


@pytest.fixture
def small(kept: Backup, tmp_path: Path) -> Backup:
    """A copy of it."""
    shutil.copytree(kept.folder, tmp_path / "copies" / str(kept.manifest.id))
    return replace(kept, where=replace(kept.where, local=tmp_path / "copies"))


@pytest.fixture
def quick(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one cluster of all tests instead of a new one each time."""

    class Shared:
        def __init__(self, *, major: int, place: Path) -> None:
            self.server, self.add_roles = ground.scratch.server, ground.scratch.add_roles

        def __enter__(self) -> Shared:
            return self

        def database(self, name: str, locale: Locale) -> Database:
            return Database(ground.database(), None)

        def close(self) -> None: ...

    monkeypatch.setattr(ladder, "Scratch", Shared)


# --- whole ---------------------------------------------------------------------------------------------------------


def test_c04_c35_a_whole_backup_reaches_the_top_whatever_happened_to_the_database_since(
    s3: S3Server, environment: str, ground: Ground, root: Path, tmp_path: Path
) -> None:
    """Roles that are nowhere else, an event trigger, an empty table; rows that came and went after the dump."""
    dsn = ground.database(
        SHOP + "CREATE ROLE plat_super; CREATE ROLE plat_admin SUPERUSER;"
        "CREATE TABLE t (i int PRIMARY KEY); ALTER TABLE t OWNER TO shop; GRANT SELECT ON t TO plat_super;"
        "ALTER DEFAULT PRIVILEGES FOR ROLE plat_admin IN SCHEMA public"
        " GRANT ALL ON TABLES TO plat_super WITH GRANT OPTION;"
        "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION f(); CREATE PUBLICATION q FOR ALL TABLES;"
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=9' PUBLICATION p"
        " WITH (connect = false, enabled = false, create_slot = false, slot_name = NONE);"
    )
    where = repository(s3, environment=environment)
    backup = Backup(where, taken(where, dsn, tmp_path), root)
    run(dsn, 'DROP SUBSCRIPTION s; INSERT INTO empty VALUES (1), (2), (3); DELETE FROM "Big Shop"."Order"')
    run(dsn, "DROP OWNED BY plat_super, plat_admin; DROP ROLE plat_super; DROP ROLE plat_admin")
    told = backup.judged(Verdict.PASSED, Rung.INTEGRAL, place=Place.ARCHIVE)
    assert "8,501 rows of 9 tables are those of the snapshot" in told
    assert "integrity holds: 1 x foreign key" in told
    assert "SUBSCRIPTION s is not restored here" in told


@pytest.mark.parametrize("up_to", [Rung.REREAD, Rung.DECODED, Rung.RESTORED, Rung.EQUAL])
def test_no_rung_beyond_the_asked_one_is_claimed(kept: Backup, quick: None, up_to: Rung) -> None:
    kept.judged(Verdict.PASSED, up_to, up_to=up_to)


# --- each damage at its rung ---------------------------------------------------------------------------------------


def without(*rows: bytes) -> Callable[[bytes], bytes]:
    return lambda text: b"".join(line for line in text.splitlines(keepends=True) if line.strip() not in rows)


def test_a_changed_byte_is_caught_when_it_is_read(small: Backup, quick: None) -> None:
    path = small.folder / small.of_table("public.c").stored_name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert "has other content than was stored" in small.judged(Verdict.FAILED, Rung.UPLOADED)


def test_a_missing_file_is_caught_when_it_is_read(small: Backup, quick: None) -> None:
    victim = small.of_table("public.c").stored_name
    (small.folder / victim).unlink()
    assert f"{victim} is missing" in small.judged(Verdict.FAILED, Rung.UPLOADED)


def test_a_file_sealed_to_somebody_else_is_caught_when_it_is_decrypted(small: Backup, quick: None) -> None:
    broken = small.rewritten(small.of_table("public.c"), bytes, KeyPair.new("age"))
    assert "is not encrypted to the keys" in broken.judged(Verdict.FAILED, Rung.REREAD)


def test_rows_without_a_parent_are_caught_by_the_restore_which_says_what_is_lost(small: Backup, quick: None) -> None:
    broken = small.rewritten(small.of_table("public.p"), without(b"7"))
    told = broken.judged(Verdict.FAILED, Rung.DECODED)
    assert "violates foreign key constraint" in told
    assert "table public.p: 50 rows expected, 49 rows found" in told


def test_a_lost_row_is_caught_by_the_comparison(small: Backup, quick: None) -> None:
    broken = small.rewritten(small.of_table("public.c"), without(b"7\t7"))
    told = broken.judged(Verdict.FAILED, Rung.RESTORED)
    assert told.startswith("table public.c: 50 rows expected, 49 rows found")


def test_a_changed_value_is_caught_by_the_comparison(small: Backup, quick: None) -> None:
    broken = small.rewritten(small.of_table("public.c"), lambda text: text.replace(b"7\t7\n", b"7\t8\n", 1))
    assert "table public.c: content " in broken.judged(Verdict.FAILED, Rung.RESTORED)


def test_a_broken_assertion_of_the_team_is_caught_at_the_top(kept: Backup, quick: None) -> None:
    told = kept.policy(assertions=[HOLDS, FAILS]).judged(Verdict.FAILED, Rung.EQUAL)
    assert told.startswith("assertion 'nobody is called 7' does not hold: it gives false instead of true")
    assert "assertion 'every child has a parent' holds" in kept.policy(assertions=[HOLDS]).judged(
        Verdict.PASSED, Rung.INTEGRAL
    )


def test_c06_a_table_that_arrives_empty_is_red_and_says_how_many_rows_it_should_have(
    s3: S3Server, environment: str, ground: Ground, root: Path, tmp_path: Path, quick: None
) -> None:
    dsn = ground.database(
        """
        CREATE TABLE price (sku text PRIMARY KEY, c int); INSERT INTO price VALUES ('a', 1);
        CREATE FUNCTION total() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT sum(c) FROM public.price';
        CREATE MATERIALIZED VIEW mv AS SELECT total() s;
        CREATE OR REPLACE FUNCTION total() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT sum(c) FROM price';
        CREATE TABLE zcat (code text PRIMARY KEY); INSERT INTO zcat VALUES ('x');
        CREATE FUNCTION ok(text) RETURNS boolean LANGUAGE sql STABLE
            AS 'SELECT EXISTS (SELECT 1 FROM public.zcat WHERE code = $1)';
        CREATE TABLE aitem (id int PRIMARY KEY, code text CHECK (ok(code))); INSERT INTO aitem VALUES (1, 'x');
        """
    )
    where = repository(s3, environment=environment, jobs=1)
    backup = Backup(where, taken(where, dsn, tmp_path), root)
    told = backup.judged(Verdict.FAILED, Rung.DECODED, place=Place.ARCHIVE)
    assert "table public.aitem: 1 rows expected, 0 rows found" in told
    assert "materialized view public.mv" in told


# --- could not verify ----------------------------------------------------------------------------------------------


def kept_rung(records: tuple[ProofRecord, ...]) -> Rung:
    """What remains proved beside a "could not verify"."""
    assert [record.verdict for record in records] == [Verdict.PASSED, Verdict.COULD_NOT_VERIFY]
    found = standing(records)
    assert found.failure is None
    return found.rung


def test_without_a_key_its_bytes_are_proved_and_no_more_is_said(kept: Backup, quick: None) -> None:
    records = kept.climbed(opener=None)
    assert kept_rung(records) is Rung.REREAD
    assert "no private key is given on this machine (BLOOM_DR_KEYS)" in records[-1].details[0]
    assert kept_rung(kept.climbed(opener=KeyPair.new("age").opener())) is Rung.REREAD


def test_without_a_postgresql_that_is_new_enough_it_says_so_and_keeps_what_held(kept: Backup) -> None:
    records = kept.manifested(server_version=990001).climbed()
    assert kept_rung(records) is Rung.DECODED
    assert "the backup is of PostgreSQL 99" in records[-1].details[0]


def test_what_this_server_cannot_take_is_named_before_anything_is_restored(
    kept: Backup, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = Outlook((), (LeftOut("EXTENSION vector", "the target does not have this extension"),), (), ())
    monkeypatch.setattr(ladder, "outlook", lambda *_, **__: lacking)
    monkeypatch.setattr(ladder, "restore", None)
    records = kept.climbed()
    assert kept_rung(records) is Rung.DECODED
    assert records[-1].details[0].startswith("EXTENSION vector is not restored here: the target does not have")


def test_a_restore_that_fails_on_another_major_version_is_no_fault_of_the_backup(small: Backup, quick: None) -> None:
    told = small.manifested(server_version=160004).judged(Verdict.PASSED, Rung.INTEGRAL)
    assert "it was tried on PostgreSQL 17, and comes from 16" in told
    broken = small.rewritten(small.of_table("public.p"), without(b"7")).manifested(server_version=160004)
    assert kept_rung(broken.climbed()) is Rung.DECODED


def test_a_full_disk_under_the_server_is_no_fault_of_the_backup() -> None:
    stopped = ladder._Climb.__new__(ladder._Climb)
    stopped.unlike = []
    for text in (
        "could not extend file: No space left on device",
        "out of memory",
        "ICU is not supported in this build",
    ):
        assert stopped._blamed([text]).verdict is Verdict.COULD_NOT_VERIFY
    assert stopped._blamed(["duplicate key value"]).verdict is Verdict.FAILED


def test_an_archive_that_does_not_answer_is_no_fault_of_the_backup(kept: Backup, s3: S3Server, quick: None) -> None:
    with S3Proxy(s3) as proxy:
        proxy.fail_from(1, error)
        archive = Archive(s3.bucket, region=s3.region, clock=the_time, client=proxy.client, sleep=lambda _: None)
        (record,) = replace(kept, where=replace(kept.where, archive=archive)).climbed(place=Place.ARCHIVE)
    assert (record.verdict, record.rung) == (Verdict.COULD_NOT_VERIFY, Rung.UPLOADED)


# --- the application -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "verdict", "told"),
    [
        ("SELECT true", Verdict.PASSED, "holds"),
        ("SELECT NULL::boolean", Verdict.FAILED, "NULL instead of true"),
        ("SELECT 1", Verdict.FAILED, "no boolean instead of true"),
        ("SELECT true, true", Verdict.FAILED, "2 columns instead of true"),
        ("SELECT true FROM generate_series(1, 2)", Verdict.FAILED, "more than one row instead of true"),
        ("SELECT true WHERE false", Verdict.FAILED, "no row instead of true"),
        ("CREATE TABLE x (i int)", Verdict.FAILED, "read-only"),
        ("COMMIT; CREATE TABLE x (i int)", Verdict.FAILED, "could not be asked"),
        ("SELECT nope", Verdict.FAILED, "could not be asked"),
        ("SELECT pg_sleep(60) IS NULL", Verdict.COULD_NOT_VERIFY, "was not answered"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", Verdict.COULD_NOT_VERIFY, "could not be asked"),
    ],
)
def test_an_assertion_holds_only_with_one_true(ground: Ground, sql: str, verdict: Verdict, told: str) -> None:
    dsn = ground.database()
    (answer,) = check_assertions(dsn, [Assertion(name="a", sql=sql)], time_limit=timedelta(seconds=1))
    assert answer[0] is verdict
    assert told in answer[1]
    with ground.scratch.server.connect(dsn.database) as conn:
        assert conn.execute("SELECT to_regclass('x')").fetchone() == (None,)


BOOT = "import os, sys; sys.exit(0 if os.environ['DATABASE_URL'].startswith('postgresql://') and {} else 3)"
BOOTS = {
    "it starts": (
        [sys.executable, "-c", BOOT.format("'BLOOM_DR_KEYS' not in os.environ")],
        Verdict.PASSED, "ended with exit code 0",
    ),
    "it does not": (
        [sys.executable, "-c", "import os; print('bad ' + os.environ['DATABASE_URL']); raise SystemExit(3)"],
        Verdict.FAILED, "exit code 3; its last words: bad postgresql://cloud_admin:***@",
    ),
    "there is none": (["/nowhere/app", "boot"], Verdict.COULD_NOT_VERIFY, "/nowhere/app cannot be started"),
    "it asks": ([sys.executable, "-c", "input()"], Verdict.FAILED, "EOFError"),
}  # fmt: skip


@pytest.mark.parametrize("how", BOOTS)
def test_the_application_is_started_on_the_restored_database(
    kept: Backup, quick: None, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, verdict, told = BOOTS[how]
    monkeypatch.setenv("BLOOM_DR_KEYS", "/secret/key")
    rung = Rung.INTEGRAL if verdict is Verdict.PASSED else Rung.EQUAL
    assert told in kept.policy(boot_command=command).judged(verdict, rung)


def test_an_application_that_never_ends_is_ended_with_all_that_it_started(ground: Ground, tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid; wait"]
    ((verdict, told),) = ladder.start_application(command, ground.admin(), tmp_path, timedelta(seconds=0.3))
    assert verdict is Verdict.COULD_NOT_VERIFY
    assert "had not ended" in told
    until(lambda: "sleep" not in command_line(int((tmp_path / "pid").read_text())))


def test_an_application_gets_nothing_of_this_machine_but_paths_and_language() -> None:
    given = {"PATH": "/bin", "LC_ALL": "C", "AWS_SECRET_ACCESS_KEY": "x", "SMTP_HOST": "mail", "PGHOST": "production"}
    found = environment(Dsn.parse("postgresql://u:p%40w@127.0.0.1:5999/d?sslmode=disable"), given)
    assert found["DATABASE_URL"] == "postgresql://u:p%40w@127.0.0.1:5999/d?sslmode=disable"
    assert found["PGHOST"] == "127.0.0.1"
    assert not {"AWS_SECRET_ACCESS_KEY", "SMTP_HOST"} & found.keys()


# --- what is left behind -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["fetched", "restored the rows", "inventory"])
def test_c35_an_interrupted_proof_leaves_neither_rows_nor_a_server(
    kept: Backup, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Scratch] = []

    class Watched(Scratch):
        def __enter__(self) -> Scratch:
            made.append(self)
            return super().__enter__()

    def tell(text: str) -> None:
        if text.startswith(at):
            raise KeyboardInterrupt

    monkeypatch.setattr(ladder, "Scratch", Watched)
    if at == "fetched":
        monkeypatch.setattr(ladder, "fetch", lambda *_, tell, **__: tell("fetched"))
    with pytest.raises(KeyboardInterrupt):
        kept.climbed(tell=tell)
    assert not list(kept.root.glob(f"{MARK}*")), "readable rows were left behind"
    (scratch,) = made
    with pytest.raises(RuntimeError, match="not running"):
        _ = scratch.server


def test_what_a_killed_process_left_is_removed_by_the_next_and_a_living_ones_is_not(root: Path) -> None:
    left = root / f"{MARK}left"
    (left / "dump").mkdir(parents=True)
    (left / "dump" / "1.dat").write_text("rows")
    with workspace(root) as one:
        assert not left.exists()
        with workspace(root) as other:
            assert one.is_dir()
            assert one != other
    assert not list(root.glob(f"{MARK}*"))
