"""`python -m tests.infra.moto_alone`: moto's server on a free port, which it prints, until its standard input ends."""

from __future__ import annotations

import sys

from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket

from tests.infra.cloud import cloud

if __name__ == "__main__":
    FakeBucket.get_permission = lambda *_: PermissionResult.NEUTRAL
    with cloud() as running:
        print(running.endpoint, flush=True)  # noqa: T201
        sys.stdin.read()
