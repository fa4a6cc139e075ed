from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbooks.model.dsn import Dsn
from tests.rows.cluster import Pairs, new_database
from tests.rows.cluster import cluster as cluster


@pytest.fixture(scope="session")
def databases(cluster: Dsn) -> tuple[str, str]:
    return new_database(cluster), new_database(cluster)


@pytest.fixture
def pairs(cluster: Dsn, databases: tuple[str, str]) -> Iterator[Pairs]:
    made = Pairs(cluster, databases)
    yield made
    made.close()
