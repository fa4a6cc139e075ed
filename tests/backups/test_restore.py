"""Restoring a backup: proved, or told exactly what is missing; refused before anything could be mixed or lost."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from runbooks import restore_backup
from runbooks.backups.catalog import opening
from runbooks.backups.fetch import fetch_one
from runbooks.backups.prove import store
from runbooks.clients import programs
from runbooks.clients.archive import Archive
from runbooks.clients.dump_process import login
from runbooks.clients.neon import Neon
from runbooks.clients.postgres import connect
from runbooks.clients.postgres_lock import RESTORE, hold_lock
from runbooks.clients.repository import Repository
from runbooks.clients.seal import KeyPair
from runbooks.engine.consent import Consenting
from runbooks.engine.plan import Verdict
from runbooks.model.backup import Manifest, ProofRecord, Rung
from runbooks.model.backup import Verdict as Proved
from runbooks.model.backup_id import BackupId
from runbooks.model.dsn import Dsn
from runbooks.model.errors import (
    CouldNotVerify,
    DatabaseFault,
    LockHeld,
    NotFound,
    PolicyFault,
    ProofFailed,
    Refused,
    UsageFault,
    WrongTarget,
)
from runbooks.model.retention import Place
from runbooks.model.secret import Secret
from runbooks.restore_backup import Request
from runbooks.sandbox.s3 import S3Server
from tests.backups.ground import PAIR, START, read_again, repository, taken, the_time
from tests.backups.restoring import VARIABLE, Desk, holds
from tests.clients.dump_ground import SHOP, Ground, fake, inventory, lost, run, value
from tests.clients.dump_ground import ground as ground
from tests.clients.test_restore import C04
from tests.clients.test_restore_versions import old as old
from tests.runbooks.scenario import YES

SMALL = """
CREATE TABLE t (id serial PRIMARY KEY, name text); INSERT INTO t (name) SELECT 'n' || i FROM generate_series(1, 50) AS i
"""


@pytest.fixture(scope="module")
def shop(ground: Ground) -> Dsn:
    return ground.database(SHOP)


@pytest.fixture(scope="module")
def small(ground: Ground) -> Dsn:
    return ground.database(SMALL)


def test_c05_a_whole_backup_comes_back_proved_for_an_ordinary_login_elsewhere(
    desk: Desk, shop: Dsn, tmp_path: Path
) -> None:
    manifest = taken(desk.place, shop, tmp_path)
    read_again(desk.place, manifest)
    target = desk.target()
    ended = desk.restore(manifest.id)
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert ended.ending.left_open == ()
    assert not lost(manifest.inventory, inventory(target))
    assert value(target, "SELECT mail FROM client WHERE mail = 'MAIL7@X'") == "Mail7@x"
    assert value(target, "SELECT lo_get(o) FROM doc") == b"\x01\x02"
    assert value(target, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == "app"
    assert str(desk.environ[VARIABLE]) not in desk.written()


# --- the target: empty, another one, and named ----------------------------------------------------------------------


@pytest.fixture
def backup(desk: Desk, small: Dsn, tmp_path: Path) -> Manifest:
    """Of `small`, proved to rung 2."""
    manifest = taken(desk.place, small, tmp_path)
    read_again(desk.place, manifest)
    return manifest


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("CREATE TABLE np (v int)", "table public.np"),
        ("CREATE SEQUENCE s", "sequence public.s"),
        ("CREATE SCHEMA app AUTHORIZATION CURRENT_USER", "schema app"),
        ("SELECT lo_from_bytea(4711, 'x')", "large object 4711"),
    ],
)
def test_c07_a_target_that_holds_something_is_refused_with_a_list_and_stays_as_it_is(
    desk: Desk, backup: Manifest, script: str, told: str
) -> None:
    target = desk.target(script)
    before = holds(target)
    with pytest.raises(Refused, match=f"is not empty; it holds {told}"):
        desk.restore(backup.id, consenting=Consenting("tester"))
    assert holds(target) == before


def test_c07_what_comes_into_the_target_after_the_preview_stops_the_restore(desk: Desk, backup: Manifest) -> None:
    target = desk.target()
    plan = desk.plan(backup.id)
    run(target, "CREATE TABLE np (v int)")
    with pytest.raises(Refused, match=r"table public\.np"):
        desk.resume(consenting=Consenting("tester", value=plan.confirmation()))
    assert holds(target) == ("table public.np",)


def test_extensions_alone_are_no_content(desk: Desk, backup: Manifest) -> None:
    desk.target("CREATE EXTENSION citext")
    assert desk.restore(backup.id).ending.verdict is Verdict.PROVED


@pytest.fixture
def own_backup(desk: Desk, tmp_path: Path) -> Manifest:
    """Of the environment's own database, which is empty."""
    return taken(desk.place, desk.facts.dsn(), tmp_path)


def respelled(dsn: Dsn) -> dict[str, Dsn]:
    """Other ways to the same database."""
    plain = (("sslmode", "disable"),)
    return {
        "as it is": dsn,
        "pooled": replace(dsn, host=dsn.host.replace(".", "-pooler.", 1)),
        "an address": Dsn("127.0.0.1", dsn.port, dsn.user, dsn.password, dsn.database, plain),
        "a name": Dsn("localhost", dsn.port, dsn.user, dsn.password, dsn.database, plain),
        "another name": replace(dsn, host="db.example.com"),
    }


@pytest.mark.parametrize("spelling", ["as it is", "pooled", "an address", "a name", "another name"])
def test_the_backups_own_source_is_refused_however_it_is_spelled(
    desk: Desk, own_backup: Manifest, spelling: str
) -> None:
    """It is empty, so that nothing else stops it."""
    desk.name(respelled(desk.facts.dsn())[spelling])
    with pytest.raises(WrongTarget, match="environment's own database"):
        desk.restore(own_backup.id)


def test_the_backups_own_source_is_refused_behind_a_tunnel(desk: Desk, own_backup: Manifest) -> None:
    """Address and port are others: the servers themselves are the witnesses."""
    dsn = desk.facts.dsn()
    with tunnel(dsn.port) as port:
        desk.name(Dsn("localhost", port, dsn.user, dsn.password, dsn.database, (("sslmode", "disable"),)))
        with pytest.raises(WrongTarget, match="environment's own database, spelled otherwise"):
            desk.restore(own_backup.id)


@contextmanager
def tunnel(port: int) -> Iterator[int]:
    """Another port of this machine that leads to `port`."""

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as inner:
                back = threading.Thread(target=pour, args=(inner, self.request))
                back.start()
                pour(self.request, inner)
                back.join()

    def pour(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while octets := source.recv(65536):
                sink.sendall(octets)
            sink.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Forward) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.005,))
        serving.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            serving.join()


def test_the_environments_own_database_is_refused_by_name(desk: Desk, own_backup: Manifest) -> None:
    with pytest.raises(WrongTarget, match="environment's own database"):
        desk.restore(own_backup.id, "neon/neondb")


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("rdss", "'rdss' is not the name of a target; did you mean 'rds'"),
        ("neon/", "'' cannot be the name"),
        ("neon/postgres", "'postgres' cannot be the name"),
        ("neon/a/b", "'a/b' cannot be the name"),
        ("postgresql://u:geheim@h/d", "what was given with --to is not the name"),
        ("host=h password=geheim", "what was given with --to is not the name"),
    ],
)
def test_a_target_is_a_name_and_a_wrong_one_gets_the_list_of_those_there_are(desk: Desk, to: str, told: str) -> None:
    with pytest.raises(UsageFault, match=told) as refused:
        Request.parse(
            "latest", to=to, tables="", before="", local=False, policy=desk.world.policy, moment=desk.world.now()
        )
    assert "rds, neon/DATABASE" in refused.value.next_step
    assert "geheim" not in f"{refused.value.happened} {refused.value.next_step}"


@pytest.mark.parametrize("url", ["", "postgresql://app:geheim@[bad/x", "postgresql://app:geheim@db.example.com,b/x"])
def test_a_variable_that_leads_nowhere_is_named_and_never_quoted(desk: Desk, backup: Manifest, url: str) -> None:
    desk.environ[VARIABLE] = url
    with pytest.raises((UsageFault, PolicyFault), match=VARIABLE) as refused:
        desk.restore(backup.id)
    assert "geheim" not in f"{refused.value.happened} {refused.value.next_step} {desk.written()}"


def test_neon_being_lost_does_not_stop_a_restore_to_elsewhere(desk: Desk, backup: Manifest) -> None:
    desk.target()

    def lost_neon() -> Neon:
        return Neon(api="http://127.0.0.1:9/api/v2", key=Secret("napi_x"), project_id="p", patience=timedelta(0))

    world = replace(desk.world, open_neon=lost_neon)
    request = Request(backup=str(backup.id), to="rds")
    ended = desk.facts.engine().start(restore_backup.RUNBOOK, request, world, YES)
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    warnings = desk.planned(ended.run_id).preview().warnings
    assert any("could not be asked whether it is this target" in text for text in warnings)


def test_a_database_on_neon_is_made_after_consent_and_labelled_until_it_is_proved(desk: Desk, backup: Manifest) -> None:
    plan = desk.plan(backup.id, "neon/made_1")
    assert plan.confirmation() == f"{desk.facts.neon().default_branch().id}/made_1/50"
    assert "made_1" not in databases(desk)
    ended = desk.resume(consenting=Consenting("tester", value=plan.confirmation()))
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert not lost(backup.inventory, inventory(desk.on_neon("made_1")))
    assert comment(desk.on_neon("made_1")) == f"restored from {backup.id} by bloom-dr run {ended.run_id}: PROVED"
    with pytest.raises(Refused, match=r"is not empty; it holds .*table public\.t"):
        desk.restore(backup.id, "neon/made_1")


def test_an_empty_database_that_is_on_neon_is_used_and_not_labelled(desk: Desk, backup: Manifest) -> None:
    run(desk.facts.dsn(), "CREATE DATABASE waiting")
    ended = desk.restore(backup.id, "neon/waiting")
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert comment(desk.on_neon("waiting")) is None


def test_a_database_that_somebody_makes_after_the_preview_is_not_touched(desk: Desk, backup: Manifest) -> None:
    plan = desk.plan(backup.id, "neon/between")
    run(desk.facts.dsn(), "CREATE DATABASE between_")
    run(desk.facts.dsn(), 'ALTER DATABASE between_ RENAME TO "between"')
    with pytest.raises(Refused, match=r"was made on branch .* since the preview"):
        desk.resume(consenting=Consenting("tester", value=plan.confirmation()))
    assert holds(desk.on_neon("between")) == ()


def databases(desk: Desk) -> set[str]:
    return {each.name for each in desk.facts.neon().databases(desk.facts.neon().default_branch().id)}


def comment(dsn: Dsn) -> object:
    return value(
        dsn, "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    )


def test_c33_two_operators_cannot_fill_one_target(desk: Desk, backup: Manifest) -> None:
    target = desk.target()
    with connect(target, application_name="other") as other, hold_lock(other, "run-1", "ana@bloom", purpose=RESTORE):
        with pytest.raises(LockHeld, match=r"another restore is at work on this database: .*run-1 ana@bloom"):
            desk.restore(backup.id)
    assert holds(target) == ()
    with connect(desk.facts.dsn(), application_name="other") as other:
        with hold_lock(other, "run-1", "ana@bloom", purpose=RESTORE), pytest.raises(LockHeld):
            desk.restore(backup.id, "neon/both")
    assert "both" not in databases(desk)


def test_a_target_that_is_older_than_the_source_is_refused(desk: Desk, backup: Manifest) -> None:
    desk.target()
    about = desk.plan(backup.id).about
    old = about.found.identity.model_copy(update={"server_version": 160004})
    older = about.model_copy(update={"found": about.found.model_copy(update={"identity": old})})
    with pytest.raises(Refused, match=r"is of PostgreSQL 17, and .* runs 16"):
        restore_backup.plan(Request(backup=str(backup.id), to="rds"), older)


# --- what a target cannot take, and what failed ----------------------------------------------------------------------


def test_c04_what_an_ordinary_login_cannot_have_is_told_before_and_after(
    desk: Desk, ground: Ground, tmp_path: Path
) -> None:
    run(ground.admin(), "CREATE ROLE plat_super; CREATE ROLE plat_admin SUPERUSER")
    source = ground.database(C04)
    try:
        manifest = taken(desk.place, source, tmp_path)
    finally:
        run(source, "DROP SUBSCRIPTION s; DROP OWNED BY plat_super, plat_admin")
        run(ground.admin(), "DROP ROLE plat_super; DROP ROLE plat_admin")
    target = desk.target()
    assert value(target, "SELECT count(*) FROM pg_roles WHERE rolname IN ('plat_super', 'plat_admin', 'shop')") == 0
    plan = desk.plan(manifest.id)
    foretold = {row[0]: row[1] for row in plan.preview().tables[0].rows}
    assert foretold == {
        "EVENT TRIGGER et": "only a superuser can create it",
        "PUBLICATION p": "only a superuser can publish all tables",
        "SUBSCRIPTION s": "it would fetch changes from another server",
    }
    ended = desk.resume(consenting=Consenting("tester", value=plan.confirmation()))
    assert ended.ending.verdict is Verdict.INCOMPLETE, ended.ending
    told = "\n".join(ended.ending.left_open)
    for what in foretold:
        assert f"was not restored: {what}" in told
    assert "run this where the privilege is wanted: GRANT SELECT ON TABLE public.t TO plat_super" in told
    assert value(target, "SELECT count(*) FROM t") == 1
    assert value(target, "SELECT tableowner FROM pg_tables WHERE tablename = 't'") == "app"


def test_settings_of_the_database_are_named_before_and_after_and_their_statements_are_in_the_backup(
    desk: Desk, ground: Ground, tmp_path: Path
) -> None:
    source = ground.database("CREATE SCHEMA app; CREATE TABLE app.t (i int)")
    name = source.database
    run(source, f'ALTER DATABASE {name} SET search_path = app, "Odd, one"')
    run(source, f"ALTER ROLE shop IN DATABASE {name} SET app.token = 'it''s secret'")
    manifest = taken(desk.place, source, tmp_path)
    target = desk.target()
    plan = desk.plan(manifest.id)
    settings = [f"ALTER DATABASE {name} SET search_path", f"ALTER ROLE shop IN DATABASE {name} SET app.token"]
    assert [row[0] for row in plan.preview().tables[0].rows] == settings
    ended = desk.resume(consenting=Consenting("tester", value=plan.confirmation()))
    assert ended.ending.verdict is Verdict.INCOMPLETE, ended.ending
    assert [each.split(": a dump")[0] for each in ended.ending.left_open] == [
        f"was not restored: {s}" for s in settings
    ]
    assert "secret" not in desk.written()
    opener = desk.place.opener()
    assert opener is not None
    written = fetch_one(opening(desk.place, manifest.id, Place.ARCHIVE), manifest, "globals.sql", opener).decode()
    statements = [line for line in written.splitlines() if "DATABASE" in line and line.startswith("ALTER")]
    run(ground.admin(), f"ALTER DATABASE {name} RESET ALL; ALTER ROLE shop IN DATABASE {name} RESET ALL")
    for statement in statements:
        run(ground.admin(), statement)
    again = value(
        source,
        "SELECT array_agg(c ORDER BY c) FROM pg_db_role_setting s, unnest(setconfig) AS c"
        f" WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = '{name}')",
    )
    assert again == ["app.token=it's secret", 'search_path=app, "Odd, one"']
    assert value(target, "SELECT count(*) FROM app.t") == 0


def test_c04_a_table_that_the_target_cannot_take_stops_it_before_the_first_statement(
    desk: Desk, ground: Ground, tmp_path: Path
) -> None:
    source = ground.database("CREATE EXTENSION isn; CREATE TABLE book (i isbn)")
    manifest = rewritten(desk.place, taken(desk.place, source, tmp_path), _other_extension, tmp_path)
    target = desk.target()
    with pytest.raises(Refused, match=r"cannot take TABLE public\.book.*EXTENSION nix: the target does not have"):
        desk.restore(manifest.id)
    assert holds(target) == ()


def _other_extension(toc: bytes) -> bytes:
    """As if it were an extension that no server here has."""
    return toc.replace(b"\x03\x00\x00\x00isn\x00\x09", b"\x03\x00\x00\x00nix\x00\x09")


def _from_the_future(toc: bytes) -> bytes:
    return toc[:6] + b"\x7f" + toc[7:]


def test_c01_a_dump_from_the_future_is_refused_before_the_target_is_touched(
    desk: Desk, backup: Manifest, tmp_path: Path
) -> None:
    manifest = rewritten(desk.place, backup, _from_the_future, tmp_path)
    target = desk.target()
    with pytest.raises(Refused, match=r"written by pg_dump 17.* in archive version 1\.127"):
        desk.restore(manifest.id)
    assert holds(target) == ()


def rewritten(place: Repository, manifest: Manifest, change: Callable[[bytes], bytes], tmp_path: Path) -> Manifest:
    """A whole backup like `manifest`, with another table of contents."""
    opener = place.opener()
    assert opener is not None
    toc = change(fetch_one(opening(place, manifest.id, Place.ARCHIVE), manifest, "toc.dat", opener))
    sealed = io.BytesIO()
    place.sealer().seal(io.BytesIO(toc), sealed)
    now = BackupId.new(place.environment, manifest.id.started.utc + timedelta(hours=1))
    files = []
    for file in manifest.files:
        content = place.archive.read(manifest.id.file_key(file.stored_name))
        if file.name == "toc.dat":
            content = sealed.getvalue()
            file = file.model_copy(
                update={
                    "size": len(toc), "sha256": hashlib.sha256(toc).hexdigest(),
                    "stored_size": len(content), "stored_sha256": hashlib.sha256(content).hexdigest(),
                }
            )  # fmt: skip
        files.append(file)
        place.archive.put(now.file_key(file.stored_name), content, tags={}, storage_class="STANDARD")
    new = Manifest.model_validate(
        manifest.model_dump()
        | {"id": now, "started": now.started, "finished": now.started, "files": [each.model_dump() for each in files]}
    )
    place.archive.put(now.manifest_key, new.to_bytes(), tags={}, storage_class="STANDARD")
    return new


C06 = """
CREATE TABLE zcat (code text PRIMARY KEY); INSERT INTO zcat VALUES ('x');
CREATE FUNCTION ok(text) RETURNS boolean LANGUAGE sql STABLE
    AS 'SELECT EXISTS (SELECT 1 FROM public.zcat WHERE code = $1)';
CREATE TABLE aitem (id int PRIMARY KEY, code text CHECK (ok(code))); INSERT INTO aitem VALUES (1, 'x');
"""


@pytest.mark.parametrize("to", ["rds", "neon/half"])
def test_c03_a_restore_with_failed_statements_is_no_restore_and_names_them(
    desk: Desk, ground: Ground, tmp_path: Path, to: str
) -> None:
    manifest = taken(desk.place, ground.database(C06), tmp_path, at=None)
    target = desk.target() if to == "rds" else desk.on_neon("half")
    jobs = desk.place.policy.model_copy(update={"jobs": 1})
    desk.place = replace(desk.place, policy=jobs)
    with pytest.raises(ProofFailed, match=r"1 statements of the restore failed: .*aitem") as failed:
        desk.restore(manifest.id, to)
    assert "not complete and not to be used" in failed.value.safe
    if to != "rds":
        assert str(comment(target)).startswith("UNFINISHED, not to be used")


@pytest.mark.parametrize("harm", ["DELETE FROM public.t WHERE id = 7", "UPDATE public.t SET name = 'x' WHERE id = 7",
                                  "SELECT setval('public.t_id_seq', 3)", "DROP INDEX public.by_name"])  # fmt: skip
def test_what_arrived_otherwise_than_it_was_backed_up_is_told_as_a_failure(
    desk: Desk, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """As if pg_restore had failed without saying so."""
    manifest = taken(desk.place, ground.database(SMALL + "; CREATE INDEX by_name ON t (name)"), tmp_path)
    real = programs.find("pg_restore", at_least=17)
    script = (
        f'[ "$1" = --version ] && exec "{real.path}" "$1"\n"{real.path}" "$@" || exit\n'
        f'for a; do case $a in --dbname=*) "{real.sibling("psql")}" "${{a#--dbname=}}" -qc "{harm}";; esac; done'
    )
    fake(tmp_path / "bin", "pg_restore", script)
    monkeypatch.setenv(programs.SETTING, str(tmp_path / "bin"))
    ended = desk.restore(manifest.id, "neon/harmed")
    assert ended.ending.verdict is Verdict.FAILED, ended.ending
    assert "they are NOT what was backed up" in ended.ending.summary
    assert "FAILED, 1 things left open" in str(comment(desk.on_neon("harmed")))
    run(desk.facts.dsn(), "DROP DATABASE harmed")


def test_c08_tables_that_point_at_each_other_come_back_for_an_ordinary_login(
    desk: Desk, ground: Ground, tmp_path: Path
) -> None:
    source = ground.database(
        "CREATE TABLE dept (id int PRIMARY KEY, boss int);"
        "CREATE TABLE emp (id int PRIMARY KEY, dept int REFERENCES dept);"
        "ALTER TABLE dept ADD FOREIGN KEY (boss) REFERENCES emp;"
        "INSERT INTO dept VALUES (1, NULL); INSERT INTO emp VALUES (1, 1); UPDATE dept SET boss = 1"
    )
    manifest = taken(desk.place, source, tmp_path)
    target = desk.target()
    ended = desk.restore(manifest.id)
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert value(target, "SELECT boss FROM dept") == 1
    assert value(target, "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated") == 2


def test_c09_a_plain_insert_works_after_a_restore_whatever_the_sequence_does(
    desk: Desk, ground: Ground, tmp_path: Path
) -> None:
    source = ground.database(
        "CREATE TABLE o (id bigint GENERATED BY DEFAULT AS IDENTITY (INCREMENT 7 START 3) PRIMARY KEY, v int);"
        'CREATE SCHEMA "S x"; CREATE TABLE "S x"."T" (id serial PRIMARY KEY);'
        "INSERT INTO o (v) SELECT 1 FROM generate_series(1, 50);"
        'INSERT INTO "S x"."T" SELECT FROM generate_series(1, 5)'
    )
    manifest = taken(desk.place, source, tmp_path)
    target = desk.target()
    assert desk.restore(manifest.id).ending.verdict is Verdict.PROVED
    assert value(target, "INSERT INTO o (v) VALUES (2) RETURNING id") == 3 + 50 * 7
    assert value(target, 'INSERT INTO "S x"."T" DEFAULT VALUES RETURNING id') == 6
    desk.target()
    ended = desk.restore(manifest.id, tables=('"S x"."T"',))
    assert ended.ending.verdict is Verdict.PROVED, ended.ending


def test_c02_an_older_target_of_the_sources_version_gets_all_but_one_known_setting(
    desk: Desk, old: Dsn, tmp_path: Path
) -> None:
    run(old, "CREATE DATABASE before_restore")
    run(old, "CREATE DATABASE after_restore")
    source, target = old.with_database("before_restore"), old.with_database("after_restore")
    run(source, SMALL)
    manifest = taken(desk.place, source, tmp_path)
    desk.name(target)
    ended = desk.restore(manifest.id)
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    told = [text for name, text in ended.ending.facts if name == "harmless"]
    assert told
    assert all("transaction_timeout" in text for text in told)
    assert value(target, "SELECT count(*) FROM t") == 50


# --- the backup: whole, known, and opened ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "flip", "gone"])
def test_c03_a_damaged_file_is_refused_before_the_target_is_touched(
    desk: Desk, s3: S3Server, backup: Manifest, how: str
) -> None:
    file = next(each for each in backup.files if each.table == "public.t")
    key = backup.id.file_key(file.stored_name)
    content = desk.place.archive.read(key)
    client = s3.client()
    if how == "gone":
        client.delete_object(Bucket=s3.bucket, Key=key)
    else:
        damaged = content[:-30] if how == "cut" else content[:-30] + bytes([content[-30] ^ 1]) + content[-29:]
        client.put_object(Bucket=s3.bucket, Key=key, Body=damaged)
    target = desk.target()
    with pytest.raises((ProofFailed, Refused), match=file.stored_name) as failed:
        desk.restore(backup.id)
    assert "target" in failed.value.safe
    assert holds(target) == ()


def test_a_known_failure_and_half_a_backup_are_refused_and_another_one_is_named(
    desk: Desk, s3: S3Server, backup: Manifest
) -> None:
    desk.target()
    store(
        desk.place, backup.tier,
        ProofRecord(
            backup=backup.id, at=the_time(), rung=Rung.DECODED, verdict=Proved.FAILED, by="test",
            details=("the restore failed at: x",), seconds=1,
        ),
    )  # fmt: skip
    with pytest.raises(Refused, match="is known to be broken: the restore failed at: x") as refused:
        desk.restore(backup.id)
    assert f"backup.restore latest --before {backup.id.started.iso()}" in refused.value.next_step
    s3.client().delete_object(Bucket=s3.bucket, Key=backup.id.manifest_key)
    with pytest.raises(Refused, match="half a backup"):
        desk.restore(backup.id)


def test_an_unproved_backup_is_restored_and_the_preview_says_that_nobody_knows(
    desk: Desk, small: Dsn, tmp_path: Path
) -> None:
    manifest = taken(desk.place, small, tmp_path)
    desk.target()
    assert any("nothing says yet that this backup is good" in text for text in desk.preview(manifest.id).warnings)
    read_again(desk.place, manifest)
    assert not desk.preview(manifest.id).warnings


def test_latest_takes_a_proved_one_and_says_what_is_lost_by_it(desk: Desk, small: Dsn, tmp_path: Path) -> None:
    desk.target()
    days = [START + timedelta(days=count) for count in range(3)]
    first, second, third = (taken(desk.place, small, tmp_path, at=at) for at in days)
    for one in (first, second):
        read_again(desk.place, one)
    assert desk.plan("latest").about.source.key == str(second.id)
    assert any(f"passed over: {third.id}, 1d newer, is not proved" in text for text in desk.preview("latest").warnings)
    assert desk.plan("latest", before=second.id.started).about.source.key == str(first.id)
    with pytest.raises(NotFound, match=r"no usable backup of .* before"):
        desk.plan("latest", before=first.id.started)


def test_c17_whoever_has_the_restorers_key_can_restore_and_the_writer_cannot(desk: Desk, backup: Manifest) -> None:
    target = desk.target()
    place = desk.place
    desk.place = replace(place, open_keys=lambda _: None)
    with pytest.raises(UsageFault, match="no private key"):
        desk.restore(backup.id)
    other = KeyPair.new("age")
    desk.place = replace(place, open_keys=lambda _: other.opener())
    with pytest.raises(CouldNotVerify, match="cannot be opened here"):
        desk.restore(backup.id)
    assert holds(target) == ()
    desk.place = replace(place, open_keys=lambda _: PAIR.opener())
    assert desk.restore(backup.id).ending.verdict is Verdict.PROVED


def test_a_local_copy_is_restored_without_the_archive(
    desk: Desk, s3: S3Server, environment: str, small: Dsn, tmp_path: Path
) -> None:
    desk.place = repository(s3, environment=environment, local=tmp_path / "copies")
    manifest = taken(desk.place, small, tmp_path)
    for file in manifest.files:
        s3.client().delete_object(Bucket=s3.bucket, Key=manifest.id.file_key(file.stored_name))
    desk.target()
    assert desk.restore(manifest.id, local=True).ending.verdict is Verdict.PROVED


def test_another_environments_backup_is_not_mistaken_for_ones_own(desk: Desk, backup: Manifest) -> None:
    desk.target()
    with pytest.raises(UsageFault, match="is a backup of production") as refused:
        desk.restore(str(backup.id).replace(desk.place.environment, "production"))
    assert "--env production" in refused.value.next_step


# --- single tables ---------------------------------------------------------------------------------------------------


class Watched(Archive):
    """Keeps the keys of what was fetched."""

    opened: tuple[str, ...] = ()

    def open(self, key: str) -> BinaryIO:
        self.opened = (*self.opened, key)
        return super().open(key)


def test_a_single_table_comes_back_without_the_rest_of_the_backup_being_fetched(
    desk: Desk, s3: S3Server, environment: str, shop: Dsn, tmp_path: Path
) -> None:
    manifest = taken(desk.place, shop, tmp_path)
    target = desk.target()
    archive = Watched(s3.bucket, region=s3.region, endpoint=s3.endpoint, clock=the_time, client=s3.client)
    desk.place = repository(s3, environment=environment, archive=archive)
    ended = desk.restore(manifest.id, tables=('"Big Shop"."Order"',))
    assert ended.ending.verdict is Verdict.INCOMPLETE, ended.ending
    assert any("FK CONSTRAINT" in text for text in ended.ending.left_open), "its key to client cannot come along"
    wanted = {f.stored_name for f in manifest.files if f.name == "toc.dat" or f.table == '"Big Shop"."Order"'}
    assert len(wanted) == 2
    assert {key.rpartition("/")[2] for key in archive.opened} == wanted
    assert value(target, 'SELECT count(*) FROM "Big Shop"."Order"') == 5000
    assert value(target, "SELECT to_regclass('public.client') IS NULL")
    expected = next(each for each in manifest.inventory.tables if each.name == '"Big Shop"."Order"')
    assert inventory(target).tables == (expected,)


def test_tables_join_a_target_that_has_others_and_never_one_that_has_them(
    desk: Desk, ground: Ground, tmp_path: Path
) -> None:
    source = ground.database(
        "CREATE TABLE one (id serial PRIMARY KEY); CREATE TABLE two (id int);"
        "INSERT INTO one SELECT FROM generate_series(1, 9)"
    )
    manifest = taken(desk.place, source, tmp_path)
    target = desk.target("CREATE TABLE two (id text)")
    with pytest.raises(Refused, match=r"table public\.two"):
        desk.restore(manifest.id, tables=("one", "two"))
    ended = desk.restore(manifest.id, tables=("one",))
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert value(target, "INSERT INTO one DEFAULT VALUES RETURNING id") == 10
    desk.target("CREATE SEQUENCE one_id_seq")
    with pytest.raises(Refused, match=r"has already what comes with these tables: sequence public\.one_id_seq"):
        desk.restore(manifest.id, tables=("one",))


def test_a_misspelt_table_is_named_with_the_one_that_may_be_meant(desk: Desk, backup: Manifest) -> None:
    desk.target()
    with pytest.raises(NotFound, match=r"the backup has no table public\.tt; did you mean 'public\.t'"):
        desk.restore(backup.id, tables=("t", "public.tt"))


# --- stopped in the middle -------------------------------------------------------------------------------------------


@pytest.fixture
def dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """pg_restore does its work and dies of it; call the answer to cure it."""
    real = programs.find("pg_restore", at_least=17).path
    script = f'[ "$1" = --version ] && exec "{real}" "$1"\n"{real}" "$@"\nkill -9 $$'
    fake(tmp_path / "bin", "pg_restore", script)
    monkeypatch.setenv(programs.SETTING, str(tmp_path / "bin"))
    return lambda: monkeypatch.delenv(programs.SETTING)


def test_a_database_that_the_run_made_is_made_anew_after_a_stop_in_the_middle(
    desk: Desk, backup: Manifest, dying: Callable[[], None]
) -> None:
    with pytest.raises(DatabaseFault, match="SIGKILL"):
        desk.restore(backup.id, "neon/stopped")
    target = desk.on_neon("stopped")
    assert holds(target)
    dying()
    with connect(target, application_name="psql"), pytest.raises(DatabaseFault, match="being accessed by other users"):
        desk.resume()
    assert holds(target), "it was dropped under somebody's hands"
    ended = desk.resume()
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert not lost(backup.inventory, inventory(target))


def test_a_half_restored_database_that_somebody_took_over_is_not_dropped(
    desk: Desk, backup: Manifest, dying: Callable[[], None]
) -> None:
    with pytest.raises(DatabaseFault):
        desk.restore(backup.id, "neon/taken_over")
    dying()
    run(desk.on_neon("taken_over"), "COMMENT ON DATABASE taken_over IS 'production since noon'")
    with pytest.raises(Refused, match="stopped in the middle"):
        desk.resume()
    assert holds(desk.on_neon("taken_over"))


def test_a_database_that_was_there_before_is_left_half_and_the_run_says_how_to_empty_it(
    desk: Desk, backup: Manifest, dying: Callable[[], None]
) -> None:
    target = desk.target()
    with pytest.raises(DatabaseFault):
        desk.restore(backup.id)
    dying()
    with pytest.raises(Refused, match="stopped in the middle, so that is not complete") as refused:
        desk.resume()
    assert f'DROP DATABASE "{target.database}"; CREATE DATABASE "{target.database}"' in refused.value.next_step
    admin = desk.second.admin()
    run(admin, f'DROP DATABASE "{target.database}"')
    run(admin, f'CREATE DATABASE "{target.database}" OWNER app TEMPLATE template0')
    ended = desk.resume()
    assert ended.ending.verdict is Verdict.PROVED, ended.ending


# --- old single files ------------------------------------------------------------------------------------------------


def old_file(desk: Desk, dsn: Dsn, *, cut: int = 0) -> str:
    program = programs.find("pg_dump", at_least=17)
    with login(dsn, "test") as way:
        text = subprocess.run(
            [program.path, f"--dbname={way.conninfo}"], env=way.environment, check=True, capture_output=True
        ).stdout
    packed = gzip.compress(text)
    key = f"{desk.place.environment}/2025/12/bloom_backup_20251202_020000.sql.gz"
    desk.place.archive.put(key, packed[: len(packed) - cut], tags={}, storage_class="STANDARD")
    return key


def test_an_old_file_comes_back_counted_and_is_never_called_proved(desk: Desk, shop: Dsn) -> None:
    key = old_file(desk, shop)
    target = desk.target()
    assert any("no inventory" in text for text in desk.preview(key).warnings)
    ended = desk.restore(key)
    assert ended.ending.verdict is Verdict.COULD_NOT_VERIFY, ended.ending
    assert any("no inventory was taken with it" in text for text in ended.ending.left_open)
    assert value(target, "SELECT count(*) FROM client") == 3000
    ended = desk.restore(key, "neon/old_file")
    assert ended.ending.verdict is Verdict.COULD_NOT_VERIFY
    assert "COULD NOT VERIFY" in str(comment(desk.on_neon("old_file")))


def test_c12_a_cut_old_file_is_refused_before_the_target_is_touched(desk: Desk, small: Dsn) -> None:
    key = old_file(desk, small, cut=40)
    target = desk.target()
    with pytest.raises(ProofFailed):
        desk.restore(key)
    assert holds(target) == ()


def test_single_tables_of_an_old_file_are_refused(desk: Desk) -> None:
    key = "production/2025/12/bloom_backup_20251202_020000.sql.gz"
    with pytest.raises(UsageFault, match="single tables"):
        Request.parse(
            key, to="rds", tables="t", before="", local=False, policy=desk.world.policy, moment=desk.world.now()
        )
