"""The proof ladder to its top: a backup is read, restored into a throw-away PostgreSQL, compared, and its rules tried.

A fault that may be this machine's own is never told as one of the backup, and never counts as a pass.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from runbooks.backups.application import check_assertions, start_application
from runbooks.backups.catalog import opening
from runbooks.backups.fetch import fetch
from runbooks.backups.prove import prove_by_reading
from runbooks.backups.reading import Broken
from runbooks.clients.integrity import Integrity, rules, together, trees
from runbooks.clients.inventory import hold_snapshot, take_inventory
from runbooks.clients.postgres import connect
from runbooks.clients.repository import KEYS, Repository
from runbooks.clients.restore import outlook, restore
from runbooks.clients.restore_complaints import Kind
from runbooks.clients.seal import Opener
from runbooks.model.backup import Manifest, ProofRecord, Rung, Verdict, verdict_of
from runbooks.model.dsn import Dsn
from runbooks.model.errors import BloomError, CouldNotVerify, DatabaseFault, DeadlinePassed, Refused
from runbooks.model.inventory import Inventory, Weight, compare
from runbooks.model.moment import Moment
from runbooks.model.retention import Place
from runbooks.sandbox.scratch import Scratch

_NAME = "bloom-dr verify"
_MOST = 20
"""Sentences of one sort that a proof keeps."""

_OF_THIS_MACHINE = re.compile(
    r"No space left|could not (extend|write|fsync) file|[Oo]ut of (shared )?memory|could not (resize|fork)"
    r"|Too many open files|too many clients|terminating connection|server closed the connection|recovery mode"
    r"|ICU is not supported|could not (create|find|open) (locale|collation|extension control file)"
    r"|has no installation script|could not access file|could not load library|is not available"
)
"""What a server says that lacks something which the backup's own had."""


class Stopped(Exception):
    """The climb ends below the rung that was asked for."""

    def __init__(self, verdict: Verdict, *why: str) -> None:
        super().__init__(*why)
        self.verdict, self.why = verdict, why


def climb(
    repository: Repository,
    manifest: Manifest,
    *,
    up_to: Rung,
    opener: Opener | None,
    place: Place,
    workspace: Path,
    by: str,
    clock: Callable[[], Moment],
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[ProofRecord, ...]:
    """Prove a backup up to a rung. The last record is the verdict; one before it keeps what held nevertheless.

    `workspace`: a folder of ours which the account that PostgreSQL runs as can enter (see `workspace.py`). What is put
    there holds readable rows, and is removed when this ends in whatever way. Nothing else is changed; safe to repeat.
    An archive or a machine that fails is a "could not verify" with its words. Raises DeadlinePassed.
    """
    started = time.monotonic()
    climbing = _Climb(repository, manifest, opener, place, workspace, tell)
    verdict, why = Verdict.PASSED, tuple[str, ...]()
    try:
        climbing.go(up_to)
    except Broken as broken:
        climbing.rung, verdict, why = broken.rung, Verdict.FAILED, (str(broken),)
    except Stopped as stopped:
        verdict, why = stopped.verdict, stopped.why
    except DeadlinePassed:
        raise
    except BloomError as error:
        verdict, why = Verdict.COULD_NOT_VERIFY, (f"{error.happened}; {error.next_step}",)

    def record(verdict: Verdict, details: Iterable[str]) -> ProofRecord:
        return ProofRecord(
            backup=manifest.id, at=clock(), rung=climbing.rung, verdict=verdict, by=by, details=tuple(details),
            seconds=time.monotonic() - started, manifest=manifest.digest,
        )  # fmt: skip

    held = verdict is Verdict.COULD_NOT_VERIFY and climbing.rung > Rung.UPLOADED
    return (
        *((record(Verdict.PASSED, climbing.details),) if held else ()),
        record(verdict, (*why, *climbing.details)),
    )


@dataclass
class _Climb:
    repository: Repository
    manifest: Manifest
    opener: Opener | None
    place: Place
    workspace: Path
    tell: Callable[[str], None]
    rung: Rung = Rung.UPLOADED
    details: list[str] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)
    """In what the server that it is tried on differs from its own."""

    def go(self, up_to: Rung) -> None:
        """Raises Broken, Stopped, and what archive and machine raise; `rung` is what held until then."""
        if self.opener is None or up_to <= Rung.DECODED:
            self._read(up_to)
            return
        with ThreadPoolExecutor(2, thread_name_prefix="ladder") as pool:
            # The server is stopped first: that ends what its sessions still do, and with it the pool's threads.
            with _starting(pool, Scratch(major=self._major, place=self.workspace)) as starting:
                folder = self.workspace / "dump"
                try:
                    fetch(
                        opening(self.repository, self.manifest.id, self.place), self.manifest, folder, self.opener,
                        tell=self.tell,
                    )  # fmt: skip
                except CouldNotVerify:  # no key that fits; its bytes can still be looked at
                    self._read(up_to)
                self.rung = Rung.DECODED
                dsn = self._restore(starting.result(), folder)
                self.rung = Rung.RESTORED
                if up_to > Rung.RESTORED:
                    self._examine(dsn, up_to, pool)

    @property
    def _major(self) -> int:
        return self.manifest.server_version // 10000

    def _read(self, up_to: Rung) -> None:
        """Rungs 1 and 2, without a file on the disk."""
        record = prove_by_reading(
            opening(self.repository, self.manifest.id, self.place), self.manifest,
            None if up_to is Rung.REREAD else self.opener, by="", clock=lambda: self.manifest.started, tell=self.tell,
        )  # fmt: skip
        self.rung = record.rung
        if record.verdict is Verdict.FAILED:
            raise Stopped(Verdict.FAILED, *record.details)
        if record.rung < up_to:
            no_key = f"no private key is given on this machine ({KEYS}), so it was not decrypted"
            raise Stopped(Verdict.COULD_NOT_VERIFY, *((no_key,) if self.opener is None else record.details))
        self.details += record.details

    # --- rung 3 ----------------------------------------------------------------------------------------------------

    def _restore(self, scratch: Scratch, folder: Path) -> Dsn:
        """Into a new database, as like the source's as this machine can make it."""
        inventory, policy = self.manifest.inventory, self.repository.policy
        scratch.add_roles(inventory.roles)
        taken = self.manifest.database in ("postgres", "template0", "template1")
        made = scratch.database("restored" if taken else self.manifest.database, inventory.locale)
        self._note_differences(scratch.server.cluster.tools.program.version, made.unlike)
        self._look_ahead(folder, made.dsn)
        try:
            done = restore(
                folder, made.dsn, jobs=policy.jobs, owners=True, tolerated=policy.tolerated, checked=True,
                time_limit=policy.time_limit, progress=self.tell,
            )  # fmt: skip
        except DeadlinePassed as error:
            raise Stopped(Verdict.COULD_NOT_VERIFY, error.happened) from error
        except (DatabaseFault, Refused) as error:
            raise self._blamed([error.happened]) from error
        for kind in (Kind.HARMLESS, Kind.TOLERATED, Kind.WARNING):
            self.details += _few(
                f"{kind}: {each.text[:500]}{f' ({each.reason})' if each.reason else ''}" for each in done.of(kind)
            )
        if done.failures:
            why = [f"the restore failed at: {each.text[:500]}" for each in done.failures]
            raise self._blamed([*why, *self._lost(made.dsn)])
        self.details.append(f"restored in {done.seconds:.1f} s by pg_restore {'.'.join(map(str, done.client.version))}")
        return made.dsn

    def _look_ahead(self, folder: Path, dsn: Dsn) -> None:
        """What this server cannot take is said before, and is no fault of the backup."""
        left_out = outlook(folder, dsn, owners=True).left_out
        told = [f"{one.what} is not restored here: {one.reason}" for one in left_out]
        # No restore brings these: they would begin to fetch rows from another server.
        by_design = [text for text in told if text.startswith("SUBSCRIPTION ")]
        if len(told) > len(by_design):
            raise Stopped(Verdict.COULD_NOT_VERIFY, *_few(told))
        self.details += _few(by_design)

    def _lost(self, dsn: Dsn) -> list[str]:
        """After a restore that failed: what it cost."""
        try:
            differences = compare(self.manifest.inventory, self._inventory(dsn))
        except BloomError as error:
            return [f"what is missing after that could not be counted: {error.happened}"]
        return [str(each) for each in differences if each.weight is Weight.DATA]

    def _note_differences(self, version: tuple[int, int], unlike: str | None) -> None:
        if version[0] != self._major:
            self.unlike.append(f"it was tried on PostgreSQL {version[0]}, and comes from {self._major}")
        if unlike is not None:
            self.unlike.append(f"text is sorted here in another way than at its source: {unlike}")
        self.details += self.unlike

    def _blamed(self, why: list[str]) -> Stopped:
        """Failed, unless it may well be due to this machine."""
        if self.unlike or any(_OF_THIS_MACHINE.search(each) for each in why):
            return Stopped(Verdict.COULD_NOT_VERIFY, *_few(why))
        return Stopped(Verdict.FAILED, *_few(why))

    # --- rungs 4 and 5 ---------------------------------------------------------------------------------------------

    def _examine(self, dsn: Dsn, up_to: Rung, pool: ThreadPoolExecutor) -> None:
        """Inventory and integrity are read at the same time."""
        checking = [pool.submit(self._looked, part, dsn) for part in (rules, trees) if up_to is Rung.INTEGRAL]
        self._compare(self._inventory(dsn))
        self.rung = Rung.EQUAL
        if checking:
            self._judge(together(*(part.result() for part in checking)))
            policy = self.repository.policy
            self._require(check_assertions(dsn, policy.assertions, time_limit=policy.time_limit))
            if policy.boot_command is not None:
                # Last, as only the application may write there.
                self._require(start_application(policy.boot_command, dsn, self.workspace, policy.time_limit))
            self.rung = Rung.INTEGRAL

    def _inventory(self, dsn: Dsn) -> Inventory:
        policy = self.repository.policy
        session = partial(connect, dsn, application_name=f"{_NAME} inventory")
        with session() as conn, hold_snapshot(conn, lock_wait=policy.lock_wait) as snapshot:
            return take_inventory(session, snapshot.id, policy.jobs, progress=self.tell)

    def _compare(self, found: Inventory) -> None:
        differences = compare(self.manifest.inventory, found)
        self.details += _few(str(each) for each in differences if each.weight is Weight.SURROUNDINGS)
        verdict = verdict_of(differences)
        if verdict is not Verdict.PASSED:
            raise Stopped(verdict, *_few(str(each) for each in differences if each.weight is not Weight.SURROUNDINGS))
        self.details.append(f"{found.rows:,} rows of {len(found.tables):,} tables are those of the snapshot")

    def _looked(self, look: Callable[..., Integrity], dsn: Dsn) -> Integrity:
        with connect(dsn, application_name=f"{_NAME} integrity") as conn:
            return look(conn, progress=self.tell)

    def _judge(self, found: Integrity) -> None:
        self.details += _few(f"as at the source: {each}" for each in found.findings if each.inherited)
        if found.broken:
            raise self._blamed([str(each) for each in found.broken])
        if found.not_checked:
            raise Stopped(Verdict.COULD_NOT_VERIFY, *_few(f"not checked: {each}" for each in found.not_checked))
        self.details.append(
            f"integrity holds: {', '.join(f'{n:,} x {what}' for what, n in found.checked.items() if n)}"
        )

    def _require(self, answers: Iterable[tuple[Verdict, str]]) -> None:
        """All of them, the worst first."""
        found = list(answers)
        for verdict in (Verdict.FAILED, Verdict.COULD_NOT_VERIFY):
            if why := [text for each, text in found if each is verdict]:
                raise Stopped(verdict, *_few(why))
        self.details += _few(text for _, text in found)


@contextmanager
def _starting(pool: ThreadPoolExecutor, scratch: Scratch) -> Iterator[Future[Scratch]]:
    """Begin to start it, while the files arrive. It is closed in the end, however far it came."""
    starting = pool.submit(scratch.__enter__)
    try:
        yield starting
    finally:
        wait([starting])
        scratch.close()


def _few(texts: Iterable[str]) -> list[str]:
    found = list(texts)
    return found[:_MOST] + ([f"and {len(found) - _MOST:,} more like these"] if len(found) > _MOST else [])
