from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbooks.model.dsn import Dsn
from tests.rows.cluster import Pairs
from tests.rows.cluster import cluster as cluster


@pytest.fixture
def pairs(cluster: Dsn) -> Iterator[Pairs]:
    made = Pairs(cluster)
    yield made
    made.close()
