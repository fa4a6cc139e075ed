"""Restore an old single-file backup into an empty database, and count what arrived."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from runbooks.backups.legacy import LegacyFacts, beginning, inspect, opened
from runbooks.backups.legacy_arrived import Arrived
from runbooks.backups.legacy_choice import Choice
from runbooks.backups.legacy_stream import Unzipped
from runbooks.backups.legacy_text import DumpText, Rows, Statement
from runbooks.clients.postgres import Connection, connect
from runbooks.clients.postgres_faults import translate, translated
from runbooks.clients.restore_complaints import Complaint, Kind, Toleration
from runbooks.clients.restore_outlook import LeftOut, require_room
from runbooks.model.dsn import Dsn
from runbooks.model.errors import BloomError, DatabaseFault, DeadlinePassed, ProofFailed

UNFINISHED = "the backup is as it was; what arrived in the target is not complete and not to be used"
_AGAIN = "drop the target, cure what the message names, and restore into a new database"
_NAME = "bloom-dr restore"


@dataclass(frozen=True)
class LegacyResult:
    """Of a restore that ran to its end, and whose rows, sequences and large objects are those of the file."""

    facts: LegacyFacts
    complaints: tuple[Complaint, ...]
    """Harmless and tolerated ones; any other would have ended the restore."""
    left_out: tuple[LeftOut, ...]
    """What the target cannot take; `outlook` says it before."""
    skipped: tuple[tuple[str, int], ...]
    """What was left out on purpose, and how many statements that were: owners, privileges, …"""
    grants: tuple[str, ...]
    """Statements that bring the privileges back, for roles that the target has."""
    rows: int
    """Counted in the target, and equal to the file's."""
    unpopulated: tuple[str, ...]
    """Materialized views without data, which had none at the source."""
    unproved: tuple[str, ...]
    seconds: float

    @property
    def clean(self) -> bool:
        """Everything in the dump is in the target, and nothing was waved through."""
        return not self.left_out and not any(c.kind is Kind.TOLERATED for c in self.complaints)


def outlook(facts: LegacyFacts, dsn: Dsn) -> tuple[LeftOut, ...]:
    """What a restore into `dsn` will leave out. Only reads. Refused if the target is not empty (C07)."""
    with connect(dsn, application_name=_NAME) as conn:
        require_room(conn, None)
        choice = Choice.of(conn, owners=False)
    for text in facts.special:
        choice.wants(text)
    return tuple(choice.left_out)


def restore(
    path: Path,
    dsn: Dsn,
    *,
    owners: bool = False,
    tolerated: Sequence[Toleration] = (),
    facts: LegacyFacts | None = None,
    time_limit: timedelta = timedelta(hours=12),
    progress: Callable[[str], None] | None = None,
) -> LegacyResult:
    """Run the dump in `path` in the empty database `dsn`, and stop at the first statement that fails (C03).

    Owned by the role of `dsn`, without privileges; with `owners` as at the source, for which the roles must exist and
    the role of `dsn` be a superuser. `facts`: of an `inspect` just now; else the file is inspected first, so that one
    that is not whole is refused before the target is touched.

    Not safe to repeat: a failed restore leaves a part. Raises what `inspect` and `outlook` raise; ProofFailed with the
    statement that failed, or if the target differs from the file in the end; DeadlinePassed; errors of the connection.
    """
    started = time.monotonic()
    facts = facts or inspect(path, progress=progress)
    with connect(dsn, application_name=_NAME, statement_timeout="0", lock_timeout="0") as conn:
        require_room(conn, None)
        choice = Choice.of(conn, owners=owners)
        with _TimeLimit(conn, started + time_limit.total_seconds()) as limit, opened(path) as source:
            run = _Run(conn, choice, tolerated, limit)
            _replay(source, facts, run, progress)
    left = max(1, round(started + time_limit.total_seconds() - time.monotonic()))
    with connect(dsn, application_name=_NAME, statement_timeout=f"{left}s") as conn:
        with translated("count what arrived in the target", safe=UNFINISHED):
            found = Arrived(conn, facts)
    if found.differences:
        told = "; ".join(found.differences[:20])
        raise ProofFailed(f"the target is not what the file says: {told}", safe=UNFINISHED, next_step=_AGAIN)
    return LegacyResult(
        facts=facts,
        complaints=(*choice.dropped, *run.complaints),
        left_out=tuple(choice.left_out),
        skipped=tuple(sorted(choice.skipped.items())),
        grants=tuple(choice.grants),
        rows=found.rows,
        unpopulated=found.unpopulated,
        unproved=facts.unknown,
        seconds=time.monotonic() - started,
    )


def _replay(source: Any, facts: LegacyFacts, run: _Run, progress: Callable[[str], None] | None) -> None:
    unzipped, done = Unzipped(source), 0
    text = DumpText(unzipped)
    try:
        for piece in text:
            run.take(piece, text.encoding)
            if progress and isinstance(piece, Rows):
                done += 1
                progress(f"restored the rows of {done} of {len(facts.tables)} tables")
    except BloomError as error:
        raise _unfinished(error) from error
    if unzipped.sha256 != facts.sha256:
        raise ProofFailed("the file was changed while it was restored", safe=UNFINISHED, next_step=_AGAIN)


def _unfinished(error: BloomError) -> BloomError:
    """The same error; what was safe before the first statement is not now."""
    return type(error)(error.happened, safe=UNFINISHED, next_step=error.next_step)


class _Run:
    """Runs pieces of the dump, one after the other."""

    def __init__(self, conn: Connection, choice: Choice, tolerated: Sequence[Toleration], limit: _TimeLimit) -> None:
        self._conn, self._choice, self._tolerated, self._limit = conn, choice, tolerated, limit
        self.complaints: list[Complaint] = []

    def take(self, piece: Statement | Rows, encoding: str) -> None:
        self._limit.check()
        told = piece.text[:300] if piece.text.startswith((b"INSERT ", b"SELECT ", b"COPY ")) else piece.text
        text = told.decode(encoding, errors="replace")
        if not self._choice.wants(text):
            return
        with self._judged(beginning(text)), self._conn.cursor() as cursor:
            if isinstance(piece, Statement):
                cursor.execute(piece.text, prepare=False)
            else:
                with cursor.copy(piece.text) as copy:
                    for block in piece:
                        copy.write(block)

    @contextmanager
    def _judged(self, told: str) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            self._limit.check(error)
            fault = translate(error, f"run a statement of the dump ({told})", safe=UNFINISHED, next_step=_AGAIN)
            if fault is None:
                raise
            for one in self._tolerated:
                if one.message in fault.happened and not self._conn.broken:
                    self.complaints.append(Complaint(Kind.TOLERATED, fault.happened, one.reason))
                    return
            raise (_said_by_the_dump(fault) if _is_of_the_dump(error, fault) else fault) from error


def _is_of_the_dump(error: psycopg.Error, fault: BloomError) -> bool:
    """Not of the server: out of memory or disk, a system call, a corruption."""
    return isinstance(fault, DatabaseFault) and not (error.sqlstate or "").startswith(("53", "58", "F0", "XX"))


def _said_by_the_dump(fault: BloomError) -> ProofFailed:
    return ProofFailed(fault.happened, safe=UNFINISHED, next_step=_AGAIN)


class _TimeLimit:
    """Cancels what the session runs when its time is over. The dump itself lifts all limits of its session."""

    def __init__(self, conn: Connection, deadline: float) -> None:
        self._conn, self._deadline = conn, deadline
        self._ended = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._watch, name="time limit", daemon=True)

    def __enter__(self) -> _TimeLimit:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        if self._ended.wait(max(0.0, self._deadline - time.monotonic())):
            return
        self._over = True
        while True:  # one that arrives between two statements cancels nothing
            with suppress(psycopg.Error):
                self._conn.cancel_safe(timeout=5)
            if self._ended.wait(0.5):
                return

    def check(self, error: BaseException | None = None) -> None:
        if self._over:
            raise DeadlinePassed(
                "the restore was still at work when its time was over",
                safe=UNFINISHED,
                next_step="look at what slows it down, or raise time_limit in the [backup] section of the policy",
            ) from error
