"""Where the command line cannot be built: who skips, who fails, and that both say why."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pulumi_engine import cli
from tests.pulumi_engine.conftest import REQUIRED, built_or_skipped


@pytest.fixture(params=["", "go version 1.20.3", "go1.26.5"], ids=["no Go", "an unknown one", "an older one"])
def machine_without_go(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    if request.param:
        (tmp_path / "go").write_text(f"#!/bin/sh\necho {request.param}\n")
        (tmp_path / "go").chmod(0o755)


@pytest.mark.usefixtures("machine_without_go")
def test_without_go_the_tests_are_skipped_with_the_reason_and_fail_where_the_engine_is_required() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"need Go 1\.\d+\.\d+ to build Pulumi's command line"):
        built_or_skipped({})
    with pytest.raises(cli.CannotBuild, match="need Go"):
        built_or_skipped({REQUIRED: "1"})


def test_what_was_built_once_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nonexistent")
    built = cli._folder() / "pulumi"
    built.parent.mkdir(parents=True)
    built.touch()
    assert cli.command_line() == built
    assert built.is_relative_to(tmp_path)


def test_the_sources_of_the_command_line_name_no_registry() -> None:
    for name in ("go.mod", "go.sum", "tools.go", "cli.py"):
        text = (cli.HERE / name).read_text()
        assert "://" not in text
        assert "GOPROXY" not in text
