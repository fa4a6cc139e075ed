"""A PostgreSQL that outlives the process that made it: as files, with a server on them only while somebody needs it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runbooks.model.errors import NotFound
from runbooks.sandbox import osuser
from runbooks.sandbox.cluster import Cluster, Server, Toolbox, running
from runbooks.sandbox.osuser import Account
from runbooks.sandbox.processes import reap
from runbooks.sandbox.scratch import RESTORE_SETTINGS, new_cluster

_PASSWORD = "password"
_DURABLE: Mapping[str, str] = {
    # Between two servers the machine may have been switched off; what a proof compares with must not be half of it.
    "fsync": "on",
    "autovacuum": "off",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
}


@dataclass(frozen=True)
class Kept:
    """The cluster in `folder`, which is of its own."""

    folder: Path

    @contextmanager
    def filling(self, major: int) -> Iterator[Server]:
        """A new cluster, of version `major` or newer, for the block that fills it; on the disk when the block has
        ended well. ToolMissing, SandboxFault."""
        cluster = new_cluster(self.folder, Account.choose(), major)
        secret = os.open(self.folder / _PASSWORD, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(secret, "w") as file:
            file.write(cluster.tools.superuser_password)
            file.flush()
            os.fsync(file.fileno())
        with running(cluster, RESTORE_SETTINGS) as server:
            yield server
        cluster.tools.account.run(cluster.tools.tool("initdb"), "--sync-only", "--pgdata", cluster.data)

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Its server, for the block. It ends with this process too, however that ends. NotFound, SandboxFault."""
        with running(self._cluster(), _DURABLE) as server:
            yield server

    def remove(self) -> None:
        """End the server that a killed process may have left, and delete everything. Safe to repeat. OSError."""
        reap(self.folder / "cluster" / "data")
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _cluster(self) -> Cluster:
        try:
            password = (self.folder / _PASSWORD).read_text()
        except FileNotFoundError as gone:
            raise NotFound(
                f"there is no PostgreSQL in {self.folder}",
                safe="no database was touched",
                next_step="start a new run (invoke run.list shows this one), which makes its own",
            ) from gone
        account = Account.choose()
        return Cluster(self.folder / "cluster", Toolbox(osuser.prepare(self.folder, account), account, password))
