"""Take one backup: one snapshot, its inventory, its dump; each file is sealed and uploaded while the dump goes on.

The manifest is written last. Whatever fails before that leaves no backup, and what was uploaded is removed again as
far as locks and rights allow.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import psycopg

from runbooks.backups.shipping import Order, Shipping
from runbooks.clients.dump import DumpResult, dump, globals_sql
from runbooks.clients.inventory import hold_snapshot, take_inventory
from runbooks.clients.postgres import Connection
from runbooks.clients.repository import Repository
from runbooks.clients.world import Connect
from runbooks.model.backup import Encryption, Manifest
from runbooks.model.backup_id import BackupId
from runbooks.model.errors import Refused
from runbooks.model.inventory import Inventory
from runbooks.model.moment import Moment

GLOBALS = "globals.sql"
_NAME = "bloom-dr backup"


def take(
    repository: Repository,
    order: Order,
    *,
    connect: Connect,
    clock: Callable[[], Moment],
    tell: Callable[[str], None],
) -> Manifest:
    """The backup, stored whole; its manifest. Not proved yet.

    Raises what the database, pg_dump and the archive raise (see `dump` and `Archive.put`); then there is no manifest in
    the archive. If only the archive failed and local copies are kept, the local one is whole, and the error says so.
    Not safe to repeat under the same id.
    """
    _require_free(repository, order.id)
    shipping = Shipping(repository, order)
    try:
        with _emptied(order.workspace), shipping:
            inventory, dumped, snapshot = _read_database(repository, order, shipping, connect, tell)
            roles = order.workspace / GLOBALS
            roles.write_bytes(globals_sql(order.dsn, client=dumped.client))
            shipping.hand_over(roles, None)
            files = shipping.finish(tell)
        manifest = Manifest(
            id=order.id, environment=repository.environment, database=order.dsn.database, tier=order.tier,
            started=Moment.of(order.id.started.utc), finished=clock(), lsn=snapshot[0], server_version=snapshot[1],
            client_version=".".join(map(str, dumped.client.version)), tool_version=version("bloom-dr"),
            encryption=Encryption(method=order.sealer.method, recipients=order.fingerprints),
            inventory=dumped.completed(inventory), files=files,
        )  # fmt: skip
        shipping.close_up(manifest)
    except BaseException as error:
        shipping.withdraw(error)
        raise
    return manifest


def _require_free(repository: Repository, backup: BackupId) -> None:
    if repository.archive.exists(backup.manifest_key):
        raise Refused(
            f"there already is a backup {backup}",
            safe="it was not replaced",
            next_step="wait a second, then take the backup again",
        )


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """The folder, new and empty; it holds readable rows, so nothing of it stays."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700, parents=True)
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read_database(
    repository: Repository, order: Order, shipping: Shipping, connect: Connect, tell: Callable[[str], None]
) -> tuple[Inventory, DumpResult, tuple[str, int]]:
    """Inventory and dump of one snapshot, at the same time; the snapshot's LSN and the server's version."""
    policy = repository.policy
    sessions = _Sessions(lambda: connect(order.dsn, application_name=f"{_NAME} inventory"))
    with (
        connect(order.dsn, application_name=f"{_NAME} snapshot") as conn,
        hold_snapshot(conn, lock_wait=policy.lock_wait, progress=tell) as snapshot,
        ThreadPoolExecutor(1, thread_name_prefix="inventory") as pool,
    ):
        looking = pool.submit(take_inventory, sessions.open, snapshot.id, policy.jobs, progress=tell)

        def on_file(path: Path, table: str | None) -> None:
            if looking.done():
                looking.result()  # without an inventory there is nothing to compare with: no need to go on
            shipping.hand_over(path, table)

        try:
            dumped = dump(
                order.dsn, snapshot.id, order.workspace / "dump", jobs=policy.jobs, lock_wait=policy.lock_wait,
                time_limit=policy.time_limit, on_file=on_file, progress=tell,
            )  # fmt: skip
            return looking.result(), dumped, (snapshot.lsn, conn.info.server_version)
        except BaseException:
            sessions.stop()
            raise


class _Sessions:
    """Sessions that can be stopped from outside."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._opened: list[Connection] = []

    def open(self) -> Connection:
        self._opened.append(self._connect())
        return self._opened[-1]

    def stop(self) -> None:
        for session in self._opened:
            with suppress(psycopg.Error):
                session.cancel_safe(timeout=5)
