"""The past as a backup: the tables that a recovery needs, in a PostgreSQL on this machine for as long as the run lasts.

Only their files are fetched. What arrived is compared with the backup's inventory before anybody looks at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from runbooks.backups.catalog import opening
from runbooks.backups.choice import MEANING, resolve_tables
from runbooks.backups.fetch import fetch_one
from runbooks.backups.reading import Broken
from runbooks.backups.source import Source, fetch_files, is_broken, source_of
from runbooks.clients import programs
from runbooks.clients.dump_toc import NAME as TOC
from runbooks.clients.dump_toc import Toc, parse_toc, parts
from runbooks.clients.postgres import Connection, Expected, Identity, prove
from runbooks.clients.repository import Repository
from runbooks.clients.seal import Opener
from runbooks.clients.world import World
from runbooks.engine.step import Run
from runbooks.model.backup import Manifest, Rung
from runbooks.model.duration import spell
from runbooks.model.errors import BloomError, NotFound, Refused, ToolMissing
from runbooks.model.moment import Moment
from runbooks.model.record import Record
from runbooks.past import folder as places
from runbooks.past.choice import choose
from runbooks.past.filling import SAFE, Filled, fill
from runbooks.past.reach import Reach, reach
from runbooks.past.session import open_session
from runbooks.rows.names import TableName
from runbooks.sandbox.kept import Kept
from runbooks.sandbox.osuser import NEEDS
from runbooks.sandbox.scratch import superuser


class PastBackup(Record):
    kind: Literal["backup"] = "backup"
    at: Moment
    """As it was asked for. The state is older: that of the backup."""
    source: Source
    lsn: str
    finished: Moment
    verified_rung: Rung
    """What the policy wants to be proved of a backup."""
    passed_over: tuple[str, ...]
    history_reaches: bool
    """Neon's history still has the moment."""
    tables: tuple[str, ...]
    """Those that were restored."""
    rows: int
    files: int
    size: int
    """Of these files, decrypted."""
    folder: str
    expires: Moment
    system_identifier: str
    database: str
    unlike: str | None
    """How the scratch server sorts text differently."""

    def state(self, zone: str) -> str:
        """Of when its rows are."""
        return f"backup {self.source.key}, shortly after {self.source.started.both(zone)}"

    def facts(self, zone: str) -> tuple[tuple[str, str], ...]:
        source = self.source
        return (
            ("state of", self.state(zone)),
            ("as of LSN", self.lsn),
            ("asked for", self.at.both(zone)),
            ("proved of it", f"rung {int(source.rung)}: {MEANING[source.rung]}"),
            (
                "fetched",
                f"{self.files:,} files, {self.size / 1e6:,.1f} MB decrypted; the whole backup has "
                f"{source.stored_size / 1e6:,.1f} MB",
            ),
            (
                "restored and compared",
                f"{self.rows:,} rows of {len(self.tables)} tables: {', '.join(self.tables)}",
            ),
            (
                "lies readable in",
                f"{self.folder} (0700), until the last step of this run removes it; if nobody goes on, it expires "
                f"{self.expires.both(zone)}",
            ),
        )

    def warnings(self, zone: str) -> Iterator[str]:
        started, source = self.source.started.both(zone), self.source
        age = spell(self.at.utc - self.source.started.utc)
        yield (
            f"what was written in the {age} between the backup and the moment is not in it: rows made after {started} "
            "will not come back, and rows changed after it come back as they were then"
        )
        if self.history_reaches:
            yield "Neon's history still has the moment: without --from-backup the rows come back as they were at it"
        if source.rung < self.verified_rung:
            yield f"of this backup too little is proved: {MEANING[source.rung]}; its tables were compared just now"
        if self.finished > self.at:
            yield "the backup was still being taken at the moment; its state is of shortly after its start"
        yield from (f"passed over: {text}" for text in self.passed_over)
        if self.unlike is not None:
            yield f"this machine sorts text in another way than production: {self.unlike}"

    @property
    def if_left(self) -> str:
        """What it means if it cannot be removed."""
        return f"{self.folder} holds readable rows; remove it by hand: rm -r {self.folder}"

    @contextmanager
    def session(self, run: Run[World], zone: str) -> Iterator[Connection]:
        """A session on its server, which is started for the block; proved to be the surveyed one. NotFound if it is
        gone (expired, removed, or of another machine); WrongTarget, SandboxFault."""
        place = Path(self.folder)
        with places.in_use(place) as there:
            if not there:
                raise NotFound(
                    f"the restored backup in {place} is gone; it was to expire at {self.expires.both(zone)}",
                    safe="no row was written by this attempt",
                    next_step=f"see how far the run came: invoke run.show {run.id}; then start a new one",
                )
            with Kept(place).running() as server:
                with closing(open_session(run, superuser(server, self.database), f"past {run.id}")) as session:
                    prove(session, Expected(system_identifier=self.system_identifier, database=self.database))
                    yield session

    def require_apart(self, run: Run[World], target_branch: str) -> None:
        """A server of this machine is none of Neon's; and the survey asks the servers."""

    def remove(self, run: Run[World]) -> str:
        """Delete it with every readable row; what was removed. Safe to repeat. LocalFault."""
        places.remove(Path(self.folder))
        return self.folder


def make_backup_past(
    run: Run[World], text: str, at: Moment, named: tuple[TableName, ...], target: Identity, *, history_reaches: bool
) -> PastBackup:
    """Fetch and restore what a recovery of rows of the `named` tables needs of the backup called `text`.

    Nothing is left behind if that fails. Every refusal that needs no file comes before the first file. Raises what
    `choose` raises; NotFound for a table that the backup does not have; Refused, ToolMissing if it cannot be restored
    here; ProofFailed if a file, or what arrived of it, is not what it was; and what an archive raises.
    """
    repository = run.world.repository
    opener = repository.require_opener()
    run.tell(f"reading what backups of {repository.environment} there are")
    chosen = choose(repository, text, at)
    source, manifest = source_of(chosen.backup), chosen.backup.manifest
    assert manifest is not None  # `choose` gives no other
    _require_same(manifest, target)
    wanted = [parts(name) for name in resolve_tables(manifest.inventory, tuple(map(str, named)))]
    toc = _contents(repository, source, manifest, opener)
    found = reach(toc, wanted)
    names = _files(toc, found)
    place, now = places.folder_of(run.id), run.world.now()
    expires = Moment.of(now.utc + run.world.policy.recovery.branch_lifetime)
    try:
        with places.fresh(place, expires, now):
            fetch_files(repository, source, place / "dump", opener, names, run.tell)
            made = _restored(run, repository, manifest, found, place)
    except BaseException as error:
        _remove_after(error, place)
        raise
    return PastBackup(
        at=at, source=source, lsn=manifest.lsn, finished=manifest.finished,
        verified_rung=Rung(repository.policy.verified_rung), passed_over=chosen.passed_over,
        history_reaches=history_reaches, tables=made.tables, rows=made.rows, files=len(names),
        size=sum(file.size for file in manifest.files if file.name in names), folder=str(place), expires=expires,
        system_identifier=made.identity.system_identifier, database=made.identity.database, unlike=made.unlike,
    )  # fmt: skip


def _require_same(manifest: Manifest, target: Identity) -> None:
    """The backup is of the database that the rows go to, and the server here can speak for its version."""
    if manifest.database != target.database:
        raise Refused(
            f"{manifest.id} is a backup of database {manifest.database}, and the rows are to go into {target.database}",
            safe=SAFE,
            next_step=f"name the database that it is of: --database {manifest.database}",
        )
    here = programs.find("postgres", at_least=NEEDS).version[0]
    if here != target.server_major:
        raise ToolMissing(
            f"rows can be compared between servers of one major version only: production runs PostgreSQL "
            f"{target.server_major}, and this machine has {here}",
            safe=SAFE,
            next_step=f"set BLOOM_DR_PG_BIN to the folder that holds the programs of PostgreSQL {target.server_major}",
        )


def _contents(repository: Repository, source: Source, manifest: Manifest, opener: Opener) -> Toc:
    try:
        return parse_toc(fetch_one(opening(repository, source.backup, source.place), manifest, TOC, opener))
    except Broken as broken:
        raise is_broken(source.key, broken) from broken


def _files(toc: Toc, found: Reach) -> tuple[str, ...]:
    """As the dump calls them."""
    rows = {e.file for e in toc.of_kind("TABLE DATA") if e.file and (e.schema, e.name) in found.tables}
    return tuple(sorted({TOC, *rows}))


def _restored(run: Run[World], repository: Repository, manifest: Manifest, found: Reach, place: Path) -> Filled:
    with Kept(place).filling(manifest.server_version // 10000) as server:
        return fill(run, repository, manifest, found, server, place / "dump")


def _remove_after(error: BaseException, place: Path) -> None:
    try:
        places.remove(place)
    except BloomError as trouble:
        error.add_note(f"besides, {trouble.happened}; {trouble.next_step}")
