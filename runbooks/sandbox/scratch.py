"""A throw-away PostgreSQL to restore a backup into: quick, safe against nothing, and gone when the block ends."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg import sql

from runbooks.clients.postgres_faults import translated
from runbooks.model.dsn import Dsn
from runbooks.model.errors import ToolMissing
from runbooks.model.inventory import Locale
from runbooks.model.secret import Secret
from runbooks.sandbox import osuser
from runbooks.sandbox.cluster import SUPERUSER, Cluster, Server, Toolbox
from runbooks.sandbox.osuser import Account
from runbooks.sandbox.processes import LOCALHOST, free_port

MARK = "bloom-dr-scratch-"
_SAFE = "only a throw-away cluster was touched"

_NOT_HERE = (
    psycopg.errors.FeatureNotSupported,  # ICU in a server that was built without it
    psycopg.errors.WrongObjectType,  # no such locale on this machine
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.InvalidObjectDefinition,
)

RESTORE_SETTINGS = {
    # It need not survive anything: a crash means that the restore is done again.
    "full_page_writes": "off",
    "synchronous_commit": "off",
    # A table that is filled in the transaction that made or emptied it is not logged at all.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_replication_slots": "0",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "shared_buffers": "64MB",  # COPY goes past it, and less is to be written at the end; more is measurably no faster
    "maintenance_work_mem": "256MB",
    "work_mem": "64MB",
    "max_connections": "50",
    # The parallel jobs of pg_restore use the processors already.
    "max_parallel_maintenance_workers": "1",
    "idle_in_transaction_session_timeout": "0",
}


@dataclass(frozen=True)
class Database:
    """A new database in the scratch cluster, and what could not be made as at the source."""

    dsn: Dsn
    unlike: str | None
    """Why it sorts text in another way than its source; None if it does not."""


class Scratch:
    """A cluster of major version `major` or newer, below `place`; a context manager that leaves nothing behind.

    Its server ends with this process, however that ends. Raises ToolMissing if there is no PostgreSQL that is new
    enough, SandboxFault if it does not start. A folder that a killed process left is named `bloom-dr-scratch-…`.
    """

    def __init__(self, *, major: int, place: Path | None = None) -> None:
        self._major = major
        self._place = place
        self._server: Server | None = None
        self._root: Path | None = None

    def __enter__(self) -> Scratch:
        account = Account.choose()
        self._root = Path(tempfile.mkdtemp(prefix=MARK, dir=self._place))
        try:
            cluster = new_cluster(self._root, account, self._major)
            self._server = cluster.start(free_port(), RESTORE_SETTINGS)
            self._server.wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server and remove the cluster. Safe to repeat."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._root is not None:
            shutil.rmtree(self._root)
            self._root = None

    @property
    def server(self) -> Server:
        if self._server is None:
            raise RuntimeError("the scratch cluster is not running")
        return self._server

    @property
    def folder(self) -> Path:
        return self.server.cluster.home

    def dsn(self, database: str = "postgres") -> Dsn:
        """As the superuser."""
        return superuser(self.server, database)

    def database(self, name: str, locale: Locale | None = None) -> Database:
        return make_database(self.server, name, locale)

    def add_roles(self, names: tuple[str, ...]) -> None:
        add_roles(self.server, names)


def new_cluster(root: Path, account: Account, major: int) -> Cluster:
    """A new cluster below `root`, a folder of ours that becomes the account's. ToolMissing, SandboxFault."""
    account.own(root)
    program = osuser.prepare(root, account)
    if program.version[0] < major:
        raise _too_old(program.version[0], major)
    cluster = Cluster(root / "cluster", Toolbox(program, account, secrets.token_urlsafe(24)))
    account.folder(cluster.home)
    cluster.create()
    return cluster


def superuser(server: Server, database: str) -> Dsn:
    """How the superuser gets into a database of the server."""
    password = Secret(server.cluster.tools.superuser_password)
    return Dsn(LOCALHOST, server.port, SUPERUSER, password, database, (("sslmode", "disable"),))


def make_database(server: Server, name: str, locale: Locale | None = None) -> Database:
    """Make an empty database that encodes and sorts text as `locale` says, if this machine can.

    Otherwise in the builtin C.UTF-8 (or `locale`'s encoding in C), and the answer says so. DatabaseFault if the name is
    taken.
    """
    with translated(f"make the database {name}", safe=_SAFE), server.connect() as conn:
        unlike = None
        if locale is not None:
            try:
                conn.execute(_create(name, locale))
                return Database(superuser(server, name), None)
            except _NOT_HERE as error:
                unlike = str(error.diag.message_primary)
        encoding = locale.encoding if locale else "UTF8"
        plain = Locale(encoding=encoding, provider="libc", collate="C", ctype="C")
        builtin = Locale(encoding="UTF8", provider="builtin", collate="C", ctype="C", locale="C.UTF-8")
        conn.execute(_create(name, builtin if encoding == "UTF8" else plain))
    return Database(superuser(server, name), unlike)


def add_roles(server: Server, names: tuple[str, ...]) -> None:
    """Make the roles that are not there yet, without login and rights: owners and grants can then be restored."""
    with translated("make the roles of the backup", safe=_SAFE), server.connect() as conn:
        there = {str(row[0]) for row in conn.execute("SELECT rolname FROM pg_roles")}
        for name in sorted({*names} - there):
            conn.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))


def _create(name: str, locale: Locale) -> sql.Composed:
    options = [
        sql.SQL("TEMPLATE template0 ENCODING {}").format(locale.encoding),
        sql.SQL("LC_COLLATE {} LC_CTYPE {}").format(locale.collate, locale.ctype),
        sql.SQL("LOCALE_PROVIDER {}").format(sql.Identifier(locale.provider)),
    ]
    if locale.locale is not None:
        kind = sql.SQL("BUILTIN_LOCALE" if locale.provider == "builtin" else "ICU_LOCALE")
        options.append(sql.SQL("{} {}").format(kind, locale.locale))
    return sql.SQL("CREATE DATABASE {} WITH {}").format(sql.Identifier(name), sql.SQL(" ").join(options))


def _too_old(found: int, wanted: int) -> ToolMissing:
    return ToolMissing(
        f"the backup is of PostgreSQL {wanted}, and the newest server on this machine is {found}",
        safe="nothing was started and the backup is as it was",
        next_step=f"install PostgreSQL {wanted} or newer, or set BLOOM_DR_PG_BIN to the folder that holds its programs",
    )
