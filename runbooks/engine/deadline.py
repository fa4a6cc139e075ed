"""A deadline that really ends what runs under it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

from runbooks.model.errors import DeadlinePassed


@contextmanager
def deadline(limit: timedelta, what: str, by_hand: str) -> Iterator[None]:
    """Raise DeadlinePassed inside the block when `limit` has passed. Deadlines nest; the nearest one counts.

    Works by SIGALRM, so only in the main thread; elsewhere the block runs without one (the clients' own timeouts
    hold there). The exception may come between any two instructions: a step has to survive that as it survives a kill.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def passed(_signal: int, _frame: FrameType | None) -> None:
        raise DeadlinePassed(
            f"{what} took longer than its deadline of {limit}",
            safe="the step is recorded as unfinished; what it did is checked before anything is repeated",
            next_step=f"invoke run.resume, or by hand: {by_hand}",
        )

    outer = signal.getitimer(signal.ITIMER_REAL)[0]
    if outer and outer <= limit.total_seconds():
        yield
        return
    started = time.monotonic()
    previous = signal.signal(signal.SIGALRM, passed)
    signal.setitimer(signal.ITIMER_REAL, limit.total_seconds())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - started), 0.001))
