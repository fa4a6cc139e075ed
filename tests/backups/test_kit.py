"""The offline recovery kit: its own commands, as they stand there, bring a backup back with networking cut off."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from runbooks.backups.kit import kit_of
from runbooks.clients import programs
from runbooks.clients.repository import Repository
from runbooks.clients.seal import KeyPair
from runbooks.clients.seal_gpg import home
from runbooks.model.backup import Manifest
from runbooks.model.dsn import Dsn
from runbooks.model.errors import LocalFault, NotFound, Refused, UsageFault
from runbooks.model.policy import Contact
from runbooks.model.secret import Secret
from runbooks.report.kit import free, written
from runbooks.sandbox import cluster, scratch
from runbooks.sandbox.s3 import S3Server
from runbooks.sandbox.scratch import Scratch
from tests.backups.ground import PAIR, read_again, repository, taken, the_time
from tests.clients.dump_ground import SHOP, Ground, run, value
from tests.foreign import foreign
from tests.stack import stack_root

ANA = Contact(name="Ana", how="+52 55 1234 5678", role="decides")
ODD = """CREATE TABLE "it's ""odd"" \\ ü:x" (i int); INSERT INTO "it's ""odd"" \\ ü:x" SELECT generate_series(1, 7);"""


def _cut_off() -> tuple[str, ...]:
    """What runs a command where no network is; empty if this machine lets nobody do that."""
    ways = ("unshare", "--net"), ("unshare", "--user", "--map-root-user", "--net")
    found = (way for way in ways if shutil.which("unshare"))
    return next((way for way in found if not subprocess.run([*way, "true"], capture_output=True).returncode), ())


NO_NET = _cut_off()


@dataclass(frozen=True)
class Fetched:
    """A kit, and the files of a backup, fetched with the kit's own command."""

    folder: Path
    manifest: Manifest
    blocks: tuple[str, ...]
    """The commands of RESTORE.md, with the place of the private key filled in."""

    def copied(self, to: Path) -> Fetched:
        shutil.copytree(self.folder, to)
        return replace(self, folder=to)

    def offline(self, *words: str, database: str = "restored", **environment: str) -> subprocess.CompletedProcess[str]:
        """In the kit's folder, where no network is (if this machine can do that)."""
        path = f"{programs.find('psql', at_least=17).path.parent}:/usr/bin:/bin"
        clean = {"PATH": path, "HOME": str(self.folder), "LC_ALL": "C.UTF-8"} | environment
        return subprocess.run(
            [*NO_NET, *words], cwd=self.folder, env=clean, capture_output=True, text=True, timeout=120, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def typed(self, *blocks: int, database: str = "restored", **environment: str) -> subprocess.CompletedProcess[str]:
        """Blocks of RESTORE.md, after the first of all."""
        wanted = [
            self.blocks[0].replace("DATABASE=restored", f"DATABASE={database}"),
            *(self.blocks[n] for n in blocks),
        ]
        return self.offline("sh", "-euc", "".join(wanted), **environment)

    @property
    def key(self) -> str:
        return re.findall(r"^KEY=(.*)$", self.blocks[0], re.MULTILINE)[0]

    def stored(self, name: str) -> Path:
        file = self.manifest.file(name)
        assert file is not None
        return self.folder / "fetched" / file.stored_name


VARIABLES, LIST, THAW, FETCH, DECRYPT, ROLES, RESTORE, COMPARE, AFTER = range(9)


@pytest.fixture(scope="module", autouse=True)
def _a_machine_with_stock_tools() -> None:
    for tool in ("aws", "age"):
        foreign(tool)


@pytest.fixture(scope="module")
def target() -> Iterator[tuple[Scratch, dict[str, str]]]:
    """A server that is reached by a socket in a folder too; what psql has to know for that."""
    with stack_root() as root, pytest.MonkeyPatch.context() as patch:
        root.chmod(0o777)
        patch.setitem(scratch.RESTORE_SETTINGS, "unix_socket_directories", str(root))
        patch.setattr(cluster, "_ACCESS", f"{cluster._ACCESS}local all all scram-sha-256\n")
        with Scratch(major=17) as made:
            dsn = made.dsn()
            assert dsn.password is not None
            yield (
                made,
                {
                    "PGHOST": str(root), "PGPORT": str(dsn.port), "PGUSER": dsn.user,
                    "PGPASSWORD": dsn.password.reveal(),
                },
            )  # fmt: skip


def kit_for(place: Repository, folder: Path) -> Path:
    written(kit_of(place, contacts=[ANA], zone="America/Mexico_City", now=the_time()), free(str(folder)))
    return folder


def fetched(s3: S3Server, place: Repository, manifest: Manifest, pair: KeyPair, folder: Path) -> Fetched:
    kit = kit_for(place, folder / "kit")
    key = folder / "private-key"
    key.touch(mode=0o600)
    key.write_text(pair.secret.reveal())
    text = (kit / "RESTORE.md").read_text().replace("/path/to/the/private-key", str(key))
    blocks = tuple(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert len(blocks) == 9
    login = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key.reveal()}
    for block in (LIST, THAW, FETCH):
        done = subprocess.run(
            ["sh", "-euc", blocks[VARIABLES] + blocks[block]], cwd=kit, env=os.environ | login, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        if block == LIST:
            assert f"{manifest.id}/manifest.json" in done.stdout
    return Fetched(kit, manifest, blocks)


@pytest.fixture(scope="module")
def source(ground: Ground) -> Dsn:
    return ground.database(SHOP + ODD + "GRANT SELECT ON client TO shop")


@pytest.fixture(scope="module")
def whole(s3: S3Server, source: Dsn, tmp_path_factory: pytest.TempPathFactory) -> Fetched:
    """Nobody changes this one."""
    folder = tmp_path_factory.mktemp("kit")
    place = repository(s3, environment="kit", endpoint=s3.endpoint)
    return fetched(s3, place, taken(place, source, folder), PAIR, folder)


@pytest.fixture
def mine(whole: Fetched, tmp_path: Path) -> Fetched:
    return whole.copied(tmp_path / "kit")


def rows_are_those_of(manifest: Manifest, dsn: Dsn) -> None:
    for table in manifest.inventory.tables:
        if table.kind == "table":
            assert value(dsn, f"SELECT count(*) FROM ONLY {table.name}") == table.rows, table.name


# --- it restores -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    not NO_NET,
    reason="no right to make a network namespace here (root or user namespaces): the kit is tried all the same,"
    " but nothing keeps its commands from the network",
)
def test_there_really_is_no_network(whole: Fetched, s3: S3Server) -> None:
    """The control: what works below works without it."""
    host, port = s3.endpoint.removeprefix("http://").split(":")
    ask = f"import socket; socket.create_connection(({host!r}, {port}), 5)"
    subprocess.run([sys.executable, "-c", ask], check=True)
    assert "OSError" in whole.offline(sys.executable, "-c", ask).stderr


def test_its_commands_restore_a_backup_with_networking_cut_off(
    mine: Fetched, target: tuple[Scratch, dict[str, str]]
) -> None:
    server, reached = target
    done = mine.typed(DECRYPT, ROLES, RESTORE, COMPARE, **reached)
    assert done.returncode == 0, done.stderr
    assert "every table has as many rows as the backup" in done.stdout
    assert mine.typed(COMPARE, PGCLIENTENCODING="LATIN1", **reached).returncode == 0
    rows_are_those_of(mine.manifest, server.dsn("restored"))
    assert value(server.dsn("restored"), "SELECT has_table_privilege('shop', 'client', 'SELECT')")
    assert (mine.folder / "decrypted").exists()
    assert mine.typed(AFTER, **reached).returncode == 0
    assert not (mine.folder / "decrypted").exists()


def test_the_script_in_python_makes_the_same_of_it(mine: Fetched, target: tuple[Scratch, dict[str, str]]) -> None:
    assert mine.typed(DECRYPT).returncode == 0
    python = (sys.executable, "-I", "decrypt.py", "fetched", mine.key, "by-python")
    done = mine.offline(*python)
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (mine.folder / "by-python", mine.folder / "decrypted")
    )
    assert ours == theirs
    server, reached = target
    done = mine.typed(ROLES, RESTORE, database="by_python", **reached)
    assert done.returncode == 0, done.stderr
    rows_are_those_of(mine.manifest, server.dsn("by_python"))


@pytest.mark.parametrize("passphrase", ["", pytest.param("open sesame", marks=pytest.mark.long)])
def test_what_gpg_encrypted_is_decrypted_too_and_its_private_key_stays_nowhere(
    s3: S3Server, environment: str, ground: Ground, tmp_path: Path, passphrase: str
) -> None:
    foreign("gpg")
    pair = gpg_pair(passphrase)
    encryption = {"method": "gpg", "recipients": [pair.recipient]}
    place = repository(s3, environment=environment, endpoint=s3.endpoint, encryption=encryption)
    manifest = taken(place, ground.database("CREATE TABLE t (i int); INSERT INTO t VALUES (1)"), tmp_path)
    kit = fetched(s3, place, manifest, pair, tmp_path)
    given = {}
    if passphrase:
        (tmp_path / "passphrase").write_text(passphrase + "\n")
        given = {"GPG_PASSPHRASE_FILE": str(tmp_path / "passphrase")}
    for program, script, out in (("sh", "decrypt.sh", "one"), (sys.executable, "decrypt.py", "other")):
        with TemporaryDirectory(prefix="k") as short:  # gpg's agent has its socket below it
            done = kit.offline(program, script, "fetched", kit.key, out, TMPDIR=short, **given)
            assert done.returncode == 0, done.stderr
            assert not list(Path(short).iterdir()), "the private key stayed in a keyring"
        assert {path.name for path in (kit.folder / out).iterdir()} == {"dump", "globals.sql", "check.sql"}


def gpg_pair(passphrase: str) -> KeyPair:
    """As `KeyPair.new`, but with a passphrase."""
    with home() as at:
        given = ("--passphrase", passphrase)
        at.run(*given, "--quick-gen-key", "test", "future-default", "default", "never")
        public, _ = at.run("--armor", "--export")
        private, _ = at.run(*given, "--armor", "--export-secret-keys")
    return KeyPair("gpg", public.decode(), Secret(private.decode()))


# --- it does not say whole when it is not ----------------------------------------------------------------------------


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def as_if_stored_so(kit: Fetched, name: str) -> None:
    """The manifest says of it what is there now."""
    path = kit.folder / "fetched" / "manifest.json"
    file = kit.manifest.file(name)
    assert file is not None
    found = hashlib.sha256(kit.stored(name).read_bytes()).hexdigest()
    path.write_text(path.read_text().replace(file.stored_sha256, found))


DAMAGES = {
    "a bit is flipped": ("toc.dat.age is not what was stored", lambda kit: flipped(kit.stored("toc.dat"))),
    "a file is gone": ("globals.sql.age is missing", lambda kit: kit.stored("globals.sql").unlink()),
    "a file is cut": ("toc.dat.age is not what was stored", lambda kit: os.truncate(kit.stored("toc.dat"), 300)),
    "no manifest": ("manifest.json", lambda kit: (kit.folder / "fetched" / "manifest.json").unlink()),
    "an empty manifest": (
        "Bloom DR writes it",
        lambda kit: (kit.folder / "fetched" / "manifest.json").write_text("{}"),
    ),
    "encrypted badly": (
        "toc.dat.age cannot be decrypted",
        lambda kit: (flipped(kit.stored("toc.dat")), as_if_stored_so(kit, "toc.dat")),
    ),
    "another's content": (
        "globals.sql is not what was dumped",
        lambda kit: (
            shutil.copy(kit.stored("toc.dat"), kit.stored("globals.sql")),
            as_if_stored_so(kit, "globals.sql"),
        ),
    ),
}


@pytest.mark.parametrize("script", ["decrypt.sh", "decrypt.py"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_backup_is_named_and_leaves_nothing_to_restore(mine: Fetched, script: str, damage: str) -> None:
    words, spoil = DAMAGES[damage]
    spoil(mine)
    done = mine.offline("sh" if script == "decrypt.sh" else sys.executable, script, "fetched", mine.key, "out")
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in mine.folder.iterdir() if path.name.startswith("out")]


@pytest.mark.parametrize("script", ["decrypt.sh", "decrypt.py"])
def test_a_key_that_does_not_fit_is_told(mine: Fetched, tmp_path: Path, script: str) -> None:
    stranger = tmp_path / "stranger"
    stranger.write_text(KeyPair.new("age").secret.reveal())
    done = mine.offline("sh" if script == "decrypt.sh" else sys.executable, script, "fetched", str(stranger), "out")
    assert done.returncode == 1
    assert "cannot be decrypted with this key" in done.stderr


@pytest.mark.parametrize("script", ["decrypt.sh", "decrypt.py"])
def test_what_is_there_is_not_written_over(mine: Fetched, script: str) -> None:
    (mine.folder / "out").mkdir()
    done = mine.offline("sh" if script == "decrypt.sh" else sys.executable, script, "fetched", mine.key, "out")
    assert done.returncode == 1
    assert "is there already" in done.stderr


def test_a_row_that_did_not_arrive_fails_the_comparison(mine: Fetched, target: tuple[Scratch, dict[str, str]]) -> None:
    server, reached = target
    done = mine.typed(DECRYPT, ROLES, RESTORE, database="short", **reached)
    assert done.returncode == 0, done.stderr
    for broken in ('DELETE FROM "it\'s ""odd"" \\ ü:x" WHERE i = 3', "DROP TABLE empty"):
        run(server.dsn("short"), broken)
        done = mine.typed(COMPARE, database="short", **reached)
        assert done.returncode == 3
        assert "these are not the rows of the backup" in done.stderr or 'relation "public.empty"' in done.stderr
    assert "every table has as many rows" not in done.stdout


# --- what is in it ---------------------------------------------------------------------------------------------------


def test_it_names_whom_to_call_and_what_is_needed_and_no_secret(whole: Fetched, s3: S3Server) -> None:
    text = (whole.folder / "RESTORE.md").read_text()
    for wanted in (
        "1. Ana, +52 55 1234 5678 (decides)", PAIR.recipient, str(whole.manifest.id), s3.bucket, s3.endpoint,
        "PostgreSQL 17 or newer", "citext 1.6, hstore", "shop", "restore-object",
    ):  # fmt: skip
        assert wanted in text, wanted
    everything = "".join(path.read_text() for path in whole.folder.iterdir() if path.is_file())
    for secret in (PAIR.secret.reveal(), s3.secret_key.reveal(), s3.access_key):
        assert secret not in everything


def test_its_scripts_need_nothing_of_this_project(whole: Fetched) -> None:
    tree = ast.parse((whole.folder / "decrypt.py").read_text(), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"pyrage"}
    assert sysconfig.get_paths()["purelib"] not in (whole.folder / "decrypt.sh").read_text()
    for name in ("decrypt.sh", "decrypt.py"):
        assert not re.search(r"runbooks|invoke|bloom_dr", (whole.folder / name).read_text())


def test_a_folder_with_something_in_it_is_left_alone(s3: S3Server, whole: Fetched, tmp_path: Path) -> None:
    place = repository(s3, environment="kit", endpoint=s3.endpoint)
    kit = kit_for(place, tmp_path / "new" / "kit")
    assert stat.S_IMODE(kit.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in kit.iterdir()}
    assert modes == {"RESTORE.md": 0o600, "decrypt.sh": 0o700, "decrypt.py": 0o700}
    (kit / "RESTORE.md").write_text("written by hand")
    with pytest.raises(Refused, match="is not empty"):
        kit_for(place, kit)
    assert (kit / "RESTORE.md").read_text() == "written by hand"
    (tmp_path / "file").touch()
    with pytest.raises(LocalFault, match="file cannot be written: Not a directory"):
        kit_for(place, tmp_path / "file")
    with pytest.raises(UsageFault, match="no folder was named"):
        free("")


def test_without_a_backup_there_is_nothing_to_make_a_kit_of(s3: S3Server, environment: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no usable backup"):
        kit_for(repository(s3, environment=environment), tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


def test_the_newest_verified_backup_is_the_one_it_names(
    s3: S3Server, environment: str, source: Dsn, tmp_path: Path
) -> None:
    place = repository(s3, environment=environment)
    verified, newer = taken(place, source, tmp_path), taken(place, source, tmp_path)
    assert kit_of(place, contacts=[], zone="UTC", now=the_time()).example.id == str(newer.id)
    read_again(place, verified)
    kit = kit_of(place, contacts=[], zone="UTC", now=the_time())
    assert (kit.example.id, kit.example.rung) == (str(verified.id), 2)
    written(kit, tmp_path / "kit")
    assert "the policy names nobody" in (tmp_path / "kit" / "RESTORE.md").read_text()
