"""The restore: whole dumps come back equal, and every planted damage ends in a failure (C01-C06, C08, C35)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from runbooks.clients import programs
from runbooks.clients.dump_process import Story
from runbooks.clients.restore import RestoreResult, outlook, restore
from runbooks.clients.restore_archive import _Ends, decode
from runbooks.clients.restore_complaints import Kind, classify
from runbooks.clients.restore_outlook import contents
from runbooks.model.dsn import Dsn
from runbooks.model.errors import BloomError, DatabaseFault, NotFound, ProofFailed, Refused
from runbooks.model.inventory import Inventory
from tests.clients.dump_ground import SHOP, Ground, dumped, fake, inventory, lost, run, session, value
from tests.clients.dump_ground import ground as ground

VERSION = '[ "$1" = --version ] && { echo "pg_restore (PostgreSQL) 17.10"; exit 0; }\n'
REAL = f'"{programs.find("pg_restore", at_least=17).path}" "$@"'


@dataclass(frozen=True)
class Backup:
    folder: Path
    inventory: Inventory
    source: Dsn

    def file_of(self, table: str) -> Path:
        return self.folder / self.files[table]

    files: dict[str, str]


def backup(dsn: Dsn, folder: Path) -> Backup:
    result, found = dumped(dsn, folder)
    return Backup(folder, found, dsn, {file.table: file.name for file in result.files if file.table})


@pytest.fixture(scope="module")
def whole(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    return backup(ground.database(SHOP), tmp_path_factory.mktemp("whole") / "dump")


@pytest.fixture
def copy(whole: Backup, tmp_path: Path) -> Backup:
    """To be damaged."""
    shutil.copytree(whole.folder, tmp_path / "copy")
    return Backup(tmp_path / "copy", whole.inventory, whole.source, whole.files)


@pytest.fixture
def with_fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def install(script: str) -> None:
        fake(tmp_path / "bin", "pg_restore", VERSION + script)
        monkeypatch.setenv(programs.SETTING, str(tmp_path / "bin"))

    return install


def judged(kept: Backup, dsn: Dsn, **how: object) -> RestoreResult:
    """Restore and compare, as a verification does; AssertionError names what is lost."""
    result = restore(kept.folder, dsn, jobs=2, **how).require()  # type: ignore[arg-type]
    differences = lost(kept.inventory, inventory(dsn))
    assert not differences, [str(one) for one in differences]
    return result


@pytest.mark.parametrize("owners", [True, False])
def test_a_whole_dump_comes_back_equal(ground: Ground, whole: Backup, owners: bool) -> None:
    result = judged(whole, ground.database(), owners=owners)
    assert result.clean
    assert result.complaints == ()


def test_c05_an_ordinary_owner_gets_extensions_and_large_objects_back(ground: Ground, tmp_path: Path) -> None:
    kept = backup(
        ground.database(
            "CREATE EXTENSION citext; CREATE TABLE u (e citext PRIMARY KEY); INSERT INTO u VALUES ('A@x');"
            "CREATE TABLE doc (id int PRIMARY KEY, o oid); INSERT INTO doc VALUES (1, lo_from_bytea(0, '\\x01'))"
        ),
        tmp_path / "dump",
    )
    target = ground.database(owner="shop")
    judged(kept, target)
    assert value(target, "SELECT e FROM u") == "A@x"
    assert value(target, "SELECT lo_get(o) FROM doc") == b"\x01"


def _cut(kept: Backup) -> None:
    path = kept.file_of("public.client")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _cut_a_little(kept: Backup) -> None:
    path = kept.file_of("public.client")
    path.write_bytes(path.read_bytes()[:-3])


def _flip(kept: Backup) -> None:
    path = kept.file_of("public.client")
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 4
    path.write_bytes(octets)


def _drop(kept: Backup) -> None:
    kept.file_of("public.client").unlink()


def _empty(kept: Backup) -> None:
    kept.file_of("public.client").write_bytes(b"")


def _swap(kept: Backup) -> None:
    one, other = kept.file_of("public.visit_24"), kept.file_of("public.visit_25")
    octets = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(octets)


def _swap_with_the_empty_one(kept: Backup) -> None:
    shutil.copy(kept.file_of("public.empty"), kept.file_of("public.client"))


def _cut_large_object(kept: Backup) -> None:
    path = next(kept.folder.glob("blob_*.dat.zst"))
    path.write_bytes(path.read_bytes()[:-2])


def _cut_toc(kept: Backup) -> None:
    path = kept.folder / "toc.dat"
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = [_cut, _cut_a_little, _flip, _drop, _empty, _swap, _swap_with_the_empty_one, _cut_large_object, _cut_toc]


@pytest.mark.parametrize("checked", [False, True], ids=["decoded first", "not decoded"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damage_comes_out_well(
    ground: Ground, copy: Backup, damage: Callable[[Backup], None], checked: bool
) -> None:
    """`checked` claims wrongly that the files' hashes were compared: then the comparison of inventories is the net."""
    damage(copy)
    with pytest.raises((BloomError, AssertionError)):
        judged(copy, ground.database(), checked=checked)


@pytest.mark.parametrize("damage", [_cut, _cut_a_little, _drop, _empty, _cut_toc])
def test_c03_a_cut_dump_is_refused_before_the_target_is_touched(
    ground: Ground, copy: Backup, damage: Callable[[Backup], None]
) -> None:
    damage(copy)
    target = ground.database()
    with pytest.raises((Refused, ProofFailed)):
        restore(copy.folder, target, jobs=2)
    with session(target) as conn:
        assert contents(conn) == ()


def test_decoding_names_the_table_whose_file_is_cut(copy: Backup) -> None:
    assert decode(copy.folder) > 100_000
    _cut_a_little(copy)
    with pytest.raises(ProofFailed, match=r"TABLE DATA public\.client"):
        decode(copy.folder)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 100])
def test_the_ends_of_tables_are_counted_however_the_octets_arrive(size: int) -> None:
    octets = b"COPY a FROM stdin;\n\\.\n\n\nCOPY b FROM stdin;\n1\t\\\\.\n2\n\\.\n\n\nCOPY c (x) FROM stdin;\n\\.\n"
    found = _Ends()
    for start in range(0, len(octets), size):
        found.take(octets[start : start + size])
    assert (found.ends, found.octets) == (3, len(octets))


def test_c01_a_dump_from_the_future_is_refused_before_the_target_is_touched(ground: Ground, copy: Backup) -> None:
    path = copy.folder / "toc.dat"
    octets = bytearray(path.read_bytes())
    octets[6] = 0x20
    path.write_bytes(octets)
    target = ground.database()
    with pytest.raises(Refused, match=r"pg_dump 17\.\d+"):
        restore(copy.folder, target, jobs=2)
    with session(target) as conn:
        assert contents(conn) == ()


def test_c07_a_target_that_is_not_empty_is_refused_and_told(ground: Ground, whole: Backup) -> None:
    target = ground.database(
        "CREATE TABLE \"My np\" (v int); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"
    )
    with pytest.raises(Refused, match=r'function public\.f\(\), table public\."My np"'):
        restore(whole.folder, target, jobs=2)


def test_c03_a_restore_that_went_on_after_errors_is_a_failure(ground: Ground, whole: Backup) -> None:
    target = ground.database("DROP SCHEMA public")
    result = restore(whole.folder, target, jobs=2)
    assert result.failures
    with pytest.raises(ProofFailed, match='schema "public" does not exist'):
        result.require()
    assert not result.clean


@pytest.mark.parametrize(
    ("how", "script", "said"),
    [
        ("dies by signal 9", "kill -9 $$", "was killed by SIGKILL"),
        ("fails silently", "exit 1", "exit code 1"),
        ("ignores errors that it does not tell", "echo 'pg_restore: warning: errors ignored on restore: 3' >&2; exit 1",
         "exit code 1"),
        ("gives up", "echo 'pg_restore: error: a worker process died unexpectedly' >&2; exit 1", "died unexpectedly"),
        ("fails in another way", f"{REAL}; exit 3", "exit code 3"),
    ],
)  # fmt: skip
def test_c03_an_end_that_is_not_understood_is_no_restore(
    ground: Ground, whole: Backup, with_fake: Callable[[str], None], how: str, script: str, said: str
) -> None:
    del how
    with_fake(script)
    with pytest.raises(DatabaseFault, match=said):
        restore(whole.folder, ground.database(), jobs=2, checked=True)


def test_a_restore_that_did_nothing_is_seen_by_the_comparison(
    ground: Ground, whole: Backup, with_fake: Callable[[str], None]
) -> None:
    with_fake("exit 0")
    with pytest.raises(AssertionError, match=r"public\.client: it expected, nothing found"):
        judged(whole, ground.database(), checked=True)


C04 = """
CREATE TABLE t (i int PRIMARY KEY); INSERT INTO t VALUES (1); ALTER TABLE t OWNER TO shop;
GRANT SELECT ON t TO plat_super;
ALTER DEFAULT PRIVILEGES FOR ROLE plat_admin IN SCHEMA public GRANT ALL ON TABLES TO plat_super WITH GRANT OPTION;
CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION f(); COMMENT ON EVENT TRIGGER et IS 'ours';
CREATE PUBLICATION p FOR ALL TABLES; CREATE PUBLICATION q FOR TABLE t;
CREATE EXTENSION citext;
CREATE SUBSCRIPTION s CONNECTION 'host=192.0.2.1' PUBLICATION p
    WITH (connect = false, enabled = false, slot_name = NONE);
"""


@pytest.fixture
def provider(ground: Ground, tmp_path: Path) -> Backup:
    """A dump with roles that the target does not have, and things that only a superuser can create."""
    run(ground.admin(), "CREATE ROLE plat_super; CREATE ROLE plat_admin SUPERUSER")
    source = ground.database(C04)
    kept = backup(source, tmp_path / "dump")
    run(source, "DROP SUBSCRIPTION s; DROP OWNED BY plat_super, plat_admin")
    run(ground.admin(), "DROP ROLE plat_super; DROP ROLE plat_admin")
    return kept


def test_c04_roles_of_the_provider_do_not_stop_the_rows(ground: Ground, provider: Backup) -> None:
    target = ground.database(owner="shop")
    before = outlook(provider.folder, target)
    result = judged(provider, target)
    assert value(target, "SELECT count(*) FROM t") == 1
    assert value(target, "SELECT tableowner FROM pg_tables WHERE tablename = 't'") == "shop"
    assert value(target, "SELECT string_agg(pubname, ',') FROM pg_publication") == "q"
    assert {one.what: one.reason for one in result.left_out} == {
        "EVENT TRIGGER et": "only a superuser can create it",
        "PUBLICATION p": "only a superuser can publish all tables",
        "SUBSCRIPTION s": "it would fetch changes from another server",
    }
    assert before.left_out == result.left_out
    assert not result.clean
    assert result.complaints == ()
    assert any("GRANT SELECT ON TABLE public.t TO plat_super" in statement for statement in result.grants)


def test_c04_a_scratch_server_takes_owners_and_privileges_too(ground: Ground, provider: Backup) -> None:
    target = ground.database()
    assert {"plat_super", "plat_admin", "shop"} <= {*provider.inventory.roles}
    ground.scratch.add_roles(provider.inventory.roles)
    try:
        result = judged(provider, target, owners=True)
        assert [one.what for one in result.left_out] == ["SUBSCRIPTION s"]
        assert value(target, "SELECT has_table_privilege('plat_super', 't', 'SELECT')") is True
        assert value(target, "SELECT tableowner FROM pg_tables WHERE tablename = 't'") == "shop"
    finally:
        run(target, "DROP OWNED BY plat_super, plat_admin")
        run(ground.admin(), "DROP ROLE plat_super; DROP ROLE plat_admin")


def test_c04_tables_that_need_an_extension_the_target_lacks_stop_the_restore(ground: Ground, tmp_path: Path) -> None:
    kept = backup(
        ground.database(
            "CREATE EXTENSION pageinspect; CREATE EXTENSION citext; CREATE TABLE u (e citext); CREATE TABLE v (i int)"
        ),
        tmp_path / "dump",
    )
    seen = outlook(kept.folder, ground.database(owner="shop"))
    assert [one.what for one in seen.left_out] == ["EXTENSION pageinspect"]
    assert seen.lost_tables == ()
    toc = kept.folder / "toc.dat"  # as if the extension were one that no server here has
    toc.write_bytes(toc.read_bytes().replace(b"\x06\x00\x00\x00citext\x00\x09", b"\x06\x00\x00\x00nitext\x00\x09"))
    target = ground.database()
    with pytest.raises(Refused, match=r"TABLE public\.u.*EXTENSION nitext: the target does not have this extension"):
        restore(kept.folder, target, jobs=1)
    with session(target) as conn:
        assert contents(conn) == ()


def test_c06_a_table_that_arrives_empty_is_red_and_named(ground: Ground, tmp_path: Path) -> None:
    kept = backup(
        ground.database(
            """
            CREATE TABLE zcat (code text PRIMARY KEY); INSERT INTO zcat VALUES ('x');
            CREATE FUNCTION ok(text) RETURNS boolean LANGUAGE sql STABLE
                AS 'SELECT EXISTS (SELECT 1 FROM public.zcat WHERE code = $1)';
            CREATE TABLE aitem (id int PRIMARY KEY, code text CHECK (ok(code))); INSERT INTO aitem VALUES (1, 'x');
            CREATE TABLE price (sku text PRIMARY KEY, c int); INSERT INTO price VALUES ('a', 1);
            CREATE FUNCTION total() RETURNS bigint LANGUAGE plpgsql STABLE
                AS 'BEGIN RETURN (SELECT sum(c) FROM price); END';
            CREATE MATERIALIZED VIEW mv AS SELECT 1::bigint AS s;
            """
        ),
        tmp_path / "dump",
    )
    target = ground.database()
    result = restore(kept.folder, target, jobs=1)
    found = [str(one) for one in lost(kept.inventory, inventory(target))]
    assert found == ["table public.aitem: 1 rows expected, 0 rows found"]
    assert "aitem" in result.failures[0].text
    assert "(1, x)" not in result.failures[0].text, "values of rows have no place in a report"
    with pytest.raises(ProofFailed):
        result.require()


def test_c06_a_view_that_cannot_be_refreshed_is_named(ground: Ground, tmp_path: Path) -> None:
    body = "LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT sum(c) FROM {}); END'"
    total = f"CREATE OR REPLACE FUNCTION total() RETURNS bigint {body}"
    source = ground.database("CREATE TABLE price (c int); INSERT INTO price VALUES (1)")
    run(source, f"{total.format('public.price')}; CREATE MATERIALIZED VIEW mv AS SELECT total() AS s")
    run(source, total.format("price"))
    kept = backup(source, tmp_path / "dump")
    target = ground.database()
    result = restore(kept.folder, target, jobs=2)
    assert result.failures
    assert "materialized view public.mv: data expected, none (never refreshed) found" in [
        str(one) for one in lost(kept.inventory, inventory(target))
    ]


def test_c08_tables_that_point_at_each_other_come_back_for_an_ordinary_login(ground: Ground, tmp_path: Path) -> None:
    kept = backup(
        ground.database(
            "CREATE TABLE dept (id int PRIMARY KEY, boss int);"
            "CREATE TABLE emp (id int PRIMARY KEY, dept int REFERENCES dept);"
            "ALTER TABLE dept ADD FOREIGN KEY (boss) REFERENCES emp;"
            "INSERT INTO dept VALUES (1, NULL); INSERT INTO emp VALUES (1, 1); UPDATE dept SET boss = 1",
            owner="shop",
        ),
        tmp_path / "dump",
    )
    assert judged(kept, ground.database(owner="shop")).clean


def test_c35_rows_that_came_after_the_snapshot_and_empty_tables_are_no_loss(ground: Ground, tmp_path: Path) -> None:
    source = ground.database(SHOP)
    kept = backup(source, tmp_path / "dump")
    run(source, "INSERT INTO doc VALUES (2), (3), (4); DELETE FROM client WHERE id < 100")
    judged(kept, ground.database())


def test_single_tables_come_with_what_belongs_to_them_and_nothing_else(ground: Ground, copy: Backup) -> None:
    for table, name in copy.files.items():
        if table != "public.client":
            (copy.folder / name).unlink()
    target = ground.database()
    result = restore(copy.folder, target, jobs=2, tables=["public.client"]).require()
    found = inventory(target)
    assert [one.name for one in found.tables] == ["public.client"]
    assert found.tables[0] == next(one for one in copy.inventory.tables if one.name == "public.client")
    assert [(one.name, one.last_value) for one in found.sequences] == [("public.client_id_seq", 3000)]
    assert value(target, "INSERT INTO client (name) VALUES ('next') RETURNING id") == 3001
    assert result.failures == ()
    left_out = {one.what.partition(" public.")[0] for one in result.left_out}
    assert left_out >= {"TRIGGER", "FK CONSTRAINT Big Shop.Order Order_client_fkey"}
    assert any(one.what.startswith("BLOBS") for one in result.left_out)
    assert not result.clean, "what hangs on the table is missing, and that is said"
    with pytest.raises(Refused, match=r"holds table public\.client"):
        restore(copy.folder, target, jobs=2, tables=["public.client"])


def test_a_table_whose_schema_and_name_need_quotes_is_found(ground: Ground, whole: Backup) -> None:
    target = ground.database()
    restore(whole.folder, target, jobs=2, tables=['"Big Shop"."Order"']).require()
    assert value(target, 'SELECT count(*) FROM "Big Shop"."Order"') == 5000
    with pytest.raises(NotFound, match=r"no table public\.nothing"):
        restore(whole.folder, target, jobs=2, tables=["public.nothing"])


@dataclass(frozen=True)
class Tolerated:
    message: str
    reason: str


FAILED = "pg_restore: error: could not execute query: ERROR: "


def heard(*lines: str) -> Story:
    story = Story("pg_restore")
    for line in lines:
        story.hear(line)
    return story


def test_c02_a_setting_that_an_older_server_lacks_is_harmless_and_nothing_else_is() -> None:
    story = heard(
        f'{FAILED} unrecognized configuration parameter "transaction_timeout"',
        "Command was: SET transaction_timeout = 0;",
        f'{FAILED} unrecognized configuration parameter "my.setting"',
        "Command was: SET my.setting = 0;",
        f'{FAILED} schema "shop" already exists',
        "Command was: CREATE SCHEMA shop;",
        "pg_restore: warning: errors ignored on restore: 3",
    )
    kinds = [(one.kind, bool(one.reason)) for one in classify(story, ())]
    assert kinds == [(Kind.HARMLESS, True), (Kind.FAILURE, False), (Kind.FAILURE, False)]


def test_what_the_policy_tolerates_is_told_with_its_reason() -> None:
    story = heard(f'{FAILED} role "old" does not exist')
    (one,) = classify(story, [Tolerated('role "old"', "it left the company")])
    assert (one.kind, one.reason) == (Kind.TOLERATED, "it left the company")
    (other,) = classify(story, [Tolerated('role "new"', "it left the company")])
    assert other.kind is Kind.FAILURE


def test_values_of_rows_are_in_no_complaint() -> None:
    story = heard(
        'pg_restore: error: COPY failed for table "a": ERROR:  duplicate key value violates unique constraint "a_pkey"',
        "DETAIL:  Key (mail)=(secret@x) already exists.",
        'CONTEXT:  COPY a, line 1: "secret@x"',
    )
    (one,) = classify(story, ())
    assert "secret" not in one.text
    assert "a_pkey" in one.text
