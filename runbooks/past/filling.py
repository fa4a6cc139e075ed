"""Fill a scratch PostgreSQL with the tables of a backup that a recovery needs, and prove that they are as they were."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runbooks.backups.arrived import compare_with
from runbooks.clients.dump_toc import parts
from runbooks.clients.postgres import Connection, Identity, identity
from runbooks.clients.postgres_faults import translated
from runbooks.clients.repository import Repository
from runbooks.clients.restore import restore
from runbooks.clients.world import World
from runbooks.engine.step import Run
from runbooks.model.backup import Manifest
from runbooks.model.dsn import Dsn
from runbooks.model.errors import CouldNotVerify, DatabaseFault, ProofFailed, Refused
from runbooks.past.reach import Name, Reach
from runbooks.past.session import open_session
from runbooks.sandbox.cluster import Server
from runbooks.sandbox.scratch import add_roles, make_database

SAFE = "nothing was changed in production"
_KEPT = ("postgres", "template0", "template1")


@dataclass(frozen=True)
class Filled:
    identity: Identity
    tables: tuple[str, ...]
    """As the inventory spells them."""
    rows: int
    unlike: str | None
    """How the server sorts text differently from the source."""


def fill(
    run: Run[World], repository: Repository, manifest: Manifest, found: Reach, server: Server, dump: Path
) -> Filled:
    """Restore the tables of `found` from the folder `dump`, which is removed as soon as they are in.

    Their foreign keys among themselves come with them: by these the survey finds what a delete took along. Refused if
    this machine cannot take them; ProofFailed if a statement failed, or what arrived is not what was backed up;
    CouldNotVerify if that cannot be told.
    """
    tables = _spelled(manifest, found.tables)
    add_roles(server, manifest.inventory.roles)
    name = "restored" if manifest.database in _KEPT else manifest.database
    made = make_database(server, name, manifest.inventory.locale)
    run.tell(f"restoring {len(tables)} tables into a PostgreSQL on this machine")
    _restore(run, repository, dump, made.dsn, tables)
    shutil.rmtree(dump)
    session = partial(open_session, run, made.dsn, f"past {run.id}")
    with closing(session()) as conn:
        _require_ties(conn, found)
        with translated("look at the restored tables", safe=SAFE):
            conn.execute("ANALYZE")
        compared = compare_with(
            session, manifest.inventory, tables=tables, sequences=(), left_out=(), jobs=repository.policy.jobs,
            lock_wait=repository.policy.lock_wait, tell=run.tell,
        )  # fmt: skip
        if compared.lost:
            raise _not_equal(manifest, compared.lost)
        if compared.uncompared:
            raise _uncompared(manifest, compared.uncompared)
        return Filled(identity(conn), tables, compared.rows, made.unlike)


def _spelled(manifest: Manifest, names: Iterable[Name]) -> tuple[str, ...]:
    there = {parts(table.name): table.name for table in manifest.inventory.tables}
    if strange := sorted(".".join(name) for name in names if name not in there):
        raise ProofFailed(
            f"the inventory of {manifest.id} lacks tables that its dump has: {', '.join(strange[:8])}",
            safe=SAFE,
            next_step=f"keep that as a proof: invoke backup.verify --id {manifest.id}; then take another backup",
        )
    return tuple(sorted(there[name] for name in names))


def _restore(run: Run[World], repository: Repository, dump: Path, target: Dsn, tables: tuple[str, ...]) -> None:
    policy = repository.policy
    try:
        restore(
            dump, target, jobs=policy.jobs, tables=tables, tolerated=policy.tolerated, checked=True,
            time_limit=policy.time_limit, progress=run.tell,
        ).require()  # fmt: skip
    except (Refused, DatabaseFault) as error:
        raise Refused(
            f"the PostgreSQL on this machine cannot take these tables: {error.happened}",
            safe=SAFE,
            next_step="give it what is missing; or restore them into the environment's own branch, with backup.restore "
            "--tables, and copy the rows from there",
        ) from error


_TIES = """
SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conparentid = 0
"""


def _require_ties(conn: Connection, found: Reach) -> None:
    """A foreign key that did not arrive would hide what a delete took along."""
    with translated("look at the restored foreign keys", safe=SAFE):
        row = conn.execute(_TIES).fetchone()
    if row is None or row[0] != len(found.ties):
        raise ProofFailed(
            f"of {len(found.ties)} foreign keys among the tables, {row and row[0]} arrived",
            safe=SAFE,
            next_step="restore the backup whole, with backup.restore, and look which of them is missing there",
        )


def _not_equal(manifest: Manifest, lost: tuple[str, ...]) -> ProofFailed:
    return ProofFailed(
        f"what was restored of {manifest.id} is not what was backed up: {'; '.join(lost[:8])}",
        safe=SAFE,
        next_step=f"keep that as a proof: invoke backup.verify --id {manifest.id}; then take an older backup, see: "
        "invoke backup.list",
    )


def _uncompared(manifest: Manifest, why: tuple[str, ...]) -> CouldNotVerify:
    return CouldNotVerify(
        f"what was restored of {manifest.id} cannot be compared with its inventory: {'; '.join(why[:8])}",
        safe=SAFE,
        next_step="take a backup of this version of the program; see: invoke backup.list",
    )
