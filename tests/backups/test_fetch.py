"""Fetching a backup's files: as they were dumped, or the file is named; nothing is left open to others."""

from __future__ import annotations

import hashlib
import shutil
import stat
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest

from runbooks.backups.catalog import opening
from runbooks.backups.fetch import fetch, fetch_one
from runbooks.backups.reading import Broken
from runbooks.clients import programs
from runbooks.clients.repository import Repository
from runbooks.clients.seal import KeyPair
from runbooks.model.backup import Manifest, Rung
from runbooks.model.errors import ArchiveFault, CouldNotVerify, LocalFault
from runbooks.model.retention import Place
from runbooks.sandbox.s3 import S3Server
from tests.backups.ground import PAIR, repository, taken
from tests.clients.dump_ground import SHOP, Ground

OPENER = PAIR.opener()


@pytest.fixture(scope="module")
def kept(s3: S3Server, ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, Manifest]:
    """One backup, with a local copy, that no test changes."""
    place = tmp_path_factory.mktemp("fetch")
    where = repository(s3, environment="fetched", local=place / "copies")
    return where, taken(where, ground.database(SHOP), place)


@pytest.mark.parametrize("place", Place)
def test_the_files_are_those_that_were_dumped_and_stock_pg_restore_reads_them(
    kept: tuple[Repository, Manifest], place: Place, tmp_path: Path
) -> None:
    where, manifest = kept
    folder = tmp_path / "new" / "dump"
    fetch(opening(where, manifest.id, place), manifest, folder, OPENER)
    assert {path.name for path in folder.iterdir()} == {file.name for file in manifest.files}
    for file in manifest.files:
        path = folder / file.name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    listed = subprocess.run(
        [programs.find("pg_restore", at_least=17).path, "--list", folder], check=True, capture_output=True
    )
    assert b"TABLE DATA public client" in listed.stdout


def test_only_the_named_files_are_read(kept: tuple[Repository, Manifest], tmp_path: Path) -> None:
    where, manifest = kept
    opened: list[str] = []
    whole = opening(where, manifest.id, Place.ARCHIVE)

    def watching(name: str) -> object:
        opened.append(name)
        return whole(name)

    fetch(watching, manifest, tmp_path / "part", OPENER, names={"toc.dat"})  # type: ignore[arg-type]
    assert opened == ["toc.dat.age"]
    assert (tmp_path / "part" / "toc.dat").read_bytes() == fetch_one(whole, manifest, "toc.dat", OPENER)
    with pytest.raises(Broken, match=r"lacks 99999\.dat\.zst"):
        fetch_one(whole, manifest, "99999.dat.zst", OPENER)


def test_fetching_again_replaces_what_is_there(kept: tuple[Repository, Manifest], tmp_path: Path) -> None:
    where, manifest = kept
    folder = tmp_path / "dump"
    folder.mkdir()
    (folder / "toc.dat").write_bytes(b"of an earlier attempt")
    fetch(opening(where, manifest.id, Place.LOCAL), manifest, folder, OPENER)
    assert (folder / "toc.dat").stat().st_size == next(f.size for f in manifest.files if f.name == "toc.dat")


def damaged(kept: tuple[Repository, Manifest], tmp_path: Path) -> Repository:
    where, _ = kept
    assert where.local is not None
    shutil.copytree(where.local, tmp_path / "damaged")
    return repository_at(where, tmp_path / "damaged")


def repository_at(where: Repository, local: Path) -> Repository:
    return Repository(where.environment, where.policy, where.archive, local, where.metrics, where.open_keys)


@pytest.mark.parametrize(("how", "rung"), [("flip", Rung.UPLOADED), ("cut", Rung.UPLOADED), ("drop", Rung.UPLOADED)])
def test_a_damaged_file_is_named_and_does_not_stay(
    kept: tuple[Repository, Manifest], tmp_path: Path, how: str, rung: Rung
) -> None:
    where, manifest = damaged(kept, tmp_path), kept[1]
    victim = max(manifest.files, key=lambda file: file.size)
    path = tmp_path / "damaged" / str(manifest.id) / victim.stored_name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if how != "drop":
        path.write_bytes(content if how == "flip" else content[:-1000])
    with pytest.raises(Broken, match=victim.stored_name) as broken:
        fetch(opening(where, manifest.id, Place.LOCAL), manifest, tmp_path / "dump", OPENER)
    assert broken.value.rung is rung
    assert not (tmp_path / "dump" / victim.name).exists()


def test_without_the_right_key_nothing_is_said_about_the_backup(
    kept: tuple[Repository, Manifest], tmp_path: Path
) -> None:
    where, manifest = kept
    with pytest.raises(CouldNotVerify, match="cannot be opened here"):
        fetch(opening(where, manifest.id, Place.ARCHIVE), manifest, tmp_path / "dump", KeyPair.new("age").opener())
    assert not list((tmp_path / "dump").iterdir())


def test_a_full_disk_is_told_before_anything_is_read(
    kept: tuple[Repository, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, kept[1].size - 1))

    def nothing_is_opened(name: str) -> object:
        raise AssertionError(name)

    with pytest.raises(LocalFault, match="MB are free"):
        fetch(nothing_is_opened, kept[1], tmp_path / "dump", OPENER)  # type: ignore[arg-type]


def test_the_first_failure_ends_the_reading_of_all_others(kept: tuple[Repository, Manifest], tmp_path: Path) -> None:
    """A large file that is still on its way does not keep whoever waits; what the archive said is what is raised."""
    manifest = kept[1]
    smallest = min(manifest.files, key=lambda file: file.stored_size).stored_name

    class Endless:
        def __enter__(self) -> Endless:
            return self

        def __exit__(self, *_: object) -> None: ...

        def close(self) -> None: ...

        def read(self, size: int = -1) -> bytes:
            return b"x" * 10

    def silent(name: str) -> object:
        if name == smallest:
            raise ArchiveFault("no answer", safe="nothing", next_step="nothing")
        return Endless()

    wanted = [max(manifest.files, key=lambda file: file.stored_size).name, "toc.dat"]
    names = {*wanted, next(file.name for file in manifest.files if file.stored_name == smallest)}

    class Anything:
        fingerprints = OPENER.fingerprints

        def unseal(self, source: Endless, sink: object) -> None:
            while source.read(10):
                pass

    with pytest.raises(ArchiveFault, match="no answer"):
        fetch(silent, manifest, tmp_path / "dump", Anything(), names=names)  # type: ignore[arg-type]
    assert not list((tmp_path / "dump").iterdir())
