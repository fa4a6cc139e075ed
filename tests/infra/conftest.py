"""An empty account for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.infra import cloud as clouds
from tests.infra.applying import swept
from tests.infra.cloud import Cloud


@pytest.fixture(scope="session")
def _account() -> Iterator[Cloud]:
    with clouds.cloud() as running:
        yield running


@pytest.fixture(autouse=True)
def _sweep() -> Iterator[None]:
    yield
    swept()


@pytest.fixture
def cloud(_account: Cloud) -> Cloud:
    _account.reset()
    return _account
