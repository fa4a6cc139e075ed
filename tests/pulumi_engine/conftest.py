"""The engine, built once for a machine; and a ground with all four stacks for a file's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from runbooks.sandbox.stack import Stack
from tests.infra import cloud as clouds
from tests.pulumi_engine.cli import CannotBuild, command_line
from tests.pulumi_engine.ground import Ground

REQUIRED = "REQUIRE_ENGINE"
"""1: a machine that cannot build the engine fails these tests instead of skipping them. CI sets it."""


@pytest.fixture(scope="session")
def cli() -> Path:
    return built_or_skipped(os.environ)


def built_or_skipped(environ: Mapping[str, str]) -> Path:
    try:
        return command_line()
    except CannotBuild as why:
        if environ.get(REQUIRED) == "1":
            raise
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def ground(cli: Path, tmp_path_factory: pytest.TempPathFactory, shared_stack: Stack) -> Iterator[Ground]:
    with clouds.alone() as cloud:
        yield Ground.make(tmp_path_factory.mktemp("engine"), cli, cloud, shared_stack)
