"""Operations: work that goes on after the answer, one job at a time per project, as on Neon."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass

from runbooks.model.moment import Moment
from runbooks.sandbox.faults import Fault
from runbooks.sandbox.records import Operation
from runbooks.sandbox.state import Ledger

log = logging.getLogger(__name__)

INTERRUPTED = "the sandbox was stopped while this ran"


@dataclass(frozen=True)
class Task:
    """One operation of a job: what Neon calls it, and what is done."""

    action: str
    work: Callable[[], object]
    branch_id: str | None = None
    endpoint_id: str | None = None


class Jobs:
    def __init__(self, ledger: Ledger, clock: Callable[[], Moment]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="sandbox-job")
        self._at_work: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._gate = threading.RLock()
        self._last: dict[str, Future[None]] = {}

    @contextmanager
    def admission(self, project_id: str) -> Iterator[None]:
        """For a request that changes something: refused with 423 while an operation of the project is not over.

        Held from the check to the scheduling, so that two requests cannot both find the project at rest.
        """
        with self._gate:
            if self.is_busy(project_id):
                raise Fault.BUSY()
            yield

    def is_busy(self, project_id: str) -> bool:
        return any(not each.is_over for each in self._ledger.of(Operation, project_id))

    def schedule(
        self, project_id: str, tasks: Sequence[Task], *, give_up: Callable[[], object] = lambda: None
    ) -> tuple[Operation, ...]:
        """Record the operations and run them one after the other, in the background.

        When one fails it is `failed`, the ones after it are `cancelled`, and `give_up` clears what was begun.
        """
        if not tasks:
            return ()
        now = self._clock()
        rows = tuple(
            Operation(
                id=str(uuid.uuid4()), project_id=project_id, branch_id=task.branch_id, endpoint_id=task.endpoint_id,
                action=task.action, created_at=now, updated_at=now,
            )
            for task in tasks
        )  # fmt: skip
        self._ledger.commit(*rows)
        self._last[project_id] = self._pool.submit(self._run, project_id, list(zip(rows, tasks, strict=True)), give_up)
        return rows

    def settle(self, project_id: str) -> None:
        """Wait until the operations scheduled last are over, well or not."""
        if project_id in self._last:
            wait([self._last[project_id]])

    @contextmanager
    def at_rest(self, project_id: str) -> Iterator[None]:
        """For internal chores: waits for the running job, and makes the next one wait. No request is refused."""
        with self._lock_of(project_id):
            yield

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def fail_unfinished(self) -> list[Operation]:
        """After a crash: what had not ended never will. Returns those operations."""
        open_ones = [each for each in self._ledger.state.operations.values() if not each.is_over]
        for row in open_ones:
            self._ledger.change(row, status="failed", error=INTERRUPTED, updated_at=self._clock())
        return open_ones

    def _lock_of(self, project_id: str) -> threading.Lock:
        with self._gate:
            return self._at_work[project_id]

    def _run(self, project_id: str, work: list[tuple[Operation, Task]], give_up: Callable[[], object]) -> None:
        with self._lock_of(project_id):
            for place, (row, task) in enumerate(work):
                began = time.monotonic()
                self._ledger.change(row, status="running", updated_at=self._clock())
                try:
                    task.work()
                except BaseException as error:
                    # Whatever it is, the client has to read it in the operation, and the project must not stay busy.
                    log.exception("operation %s failed", task.action)
                    self._abandon(work[place:], error, give_up)
                    raise
                spent = round((time.monotonic() - began) * 1000)
                self._ledger.change(row, status="finished", updated_at=self._clock(), duration_ms=spent)

    def _abandon(self, rest: list[tuple[Operation, Task]], error: BaseException, give_up: Callable[[], object]) -> None:
        try:
            give_up()
        except BaseException as trouble:
            error.add_note(f"while clearing up: {trouble}")
            raise error from trouble
        finally:
            text = "; ".join((str(error), *getattr(error, "__notes__", ())))
            for place, (row, _) in enumerate(rest):
                status = "cancelled" if place else "failed"
                self._ledger.change(row, status=status, error=None if place else text, updated_at=self._clock())
