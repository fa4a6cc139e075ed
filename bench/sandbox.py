"""The sandbox beside PostgreSQL's own programs: nothing to a database, a branch of the past, a restore in place."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from bench import by_hand
from bench.by_hand import Hand, hand
from bench.comparison import Comparison
from bench.data import folder
from bench.measure import Command, Measured, side_by_side
from runbooks.clients import postgres
from runbooks.clients.neon import Neon
from runbooks.model.dsn import Dsn
from runbooks.model.moment import Moment
from runbooks.sandbox.seed import seed
from runbooks.sandbox.stack import Stack

PROJECT = Path(__file__).parent.parent
CLIENTS = 215_000
"""About 500 MB."""


def run(runs: int, say: Callable[[str], None]) -> tuple[Comparison, ...]:
    with folder() as kept:
        place = kept / "sandbox"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            return (_nothing_to_database(place, runs, say), *_past(place, runs, say))
        finally:
            shutil.rmtree(place)


def _nothing_to_database(place: Path, runs: int, say: Callable[[str], None]) -> Comparison:
    root, empty = place / "up", place / "up-by-hand"
    with hand(empty) as peer:
        ours, theirs = side_by_side(
            [
                Command(
                    "bloom-dr",
                    "invoke sandbox.up; invoke sandbox.down",
                    [sys.executable, "-m", "bench.ours", "up", root],
                    folder=PROJECT,
                    prepare=lambda: shutil.rmtree(root, ignore_errors=True),
                    counts_memory=False,
                ),
                _by_hand(peer, by_hand.UP, prepare=lambda: peer.run("rm -rf data")),
            ],
            runs=runs,
            say=say,
        )
    note = "ours also makes a project with an API, a base backup and WAL kept for point-in-time recovery"
    return Comparison("Nothing to a first query, and down again", ours, (theirs,), notes=(note,))


def _past(place: Path, runs: int, say: Callable[[str], None]) -> tuple[Comparison, Comparison]:
    with ExitStack() as closing:
        stack = closing.enter_context(Stack.start(place / "stack"))
        production = Dsn.parse(stack.uri().reveal())
        peer = closing.enter_context(hand(place / "by-hand"))
        seed(production, clients=CLIENTS, progress=say)
        by_hand.production(peer, CLIENTS, say)
        time.sleep(3)  # the sandbox takes a base backup by itself after so much WAL
        moments = _history(production), _history(peer.dsn)
        by_hand.archive(peer)
        size = f"{_size(production) / 1e6:.0f} MB"
        branch = _branch(stack, peer, moments, size, runs, say)
        _remove_branches(_client(stack))
        _remove_by_hand(peer)
        return branch, _restore(stack, production, peer, moments[1], size, runs, say)


def _history(dsn: Dsn) -> Moment:
    """Some work, a moment to go back to, and some work after it."""
    with postgres.connect(dsn, application_name="bloom-dr bench", search_path="public") as conn:
        work = "update clients set phone = phone || '.' where id %% 10 = %s"
        conn.execute(work, [1])
        row = conn.execute("select clock_timestamp()").fetchone()
        conn.execute(work, [2])
    assert row
    return Moment.of(row[0])


def _branch(
    stack: Stack, peer: Hand, moments: tuple[Moment, Moment], size: str, runs: int, say: Callable[[str], None]
) -> Comparison:
    ours, theirs = side_by_side(
        [
            Command(
                "bloom-dr",
                "a branch of the sandbox at a moment, by its Neon API, to the first query on it",
                [sys.executable, "-m", "bench.ours", "branch", moments[0].iso()],
                environment={
                    "BENCH_API": stack.api_url,
                    "BENCH_KEY": stack.api_key.reveal(),
                    "BENCH_PROJECT": stack.project_id,
                },
                folder=PROJECT,
                prepare=lambda: _remove_branches(_client(stack)),
                counts_memory=False,
            ),
            _by_hand(peer, by_hand.BRANCH, prepare=lambda: _remove_by_hand(peer), MOMENT=str(moments[1].utc)),
        ],
        runs=runs,
        say=say,
    )
    note = (
        "by hand replays little, from a base backup taken just before; the sandbox from the one it happened to take,"
        " and its branch has a base backup of its own, so that it can be branched in its turn"
    )
    return Comparison(f"A branch of a {size} database at a past moment", ours, (theirs,), notes=(note,))


def _restore(
    stack: Stack, production: Dsn, peer: Hand, moment: Moment, size: str, runs: int, say: Callable[[str], None]
) -> Comparison:
    neon = _client(stack)

    def ours() -> None:
        branch = neon.default_branch()
        neon.restore_branch(
            branch=branch, source=branch, moment=Moment.of(datetime.now(UTC)), preserve_under=f"before-{uuid4()}"
        )

    def theirs() -> None:
        peer.run(by_hand.RESTORE, MOMENT=str(moment.utc))

    gaps: dict[str, list[float]] = {"bloom-dr": [], "by hand": []}
    for number in range(1, runs + 1):
        for who, dsn, restore in (("bloom-dr", production, ours), ("by hand", peer.dsn, theirs)):
            gaps[who].append(downtime(dsn, restore))
            say(f"{who}: run {number} of {runs}: {gaps[who][-1]:.2f} s down")
        peer.run("rm -rf old")
    shown = {"bloom-dr": "a restore in place by the Neon API", "by hand": _one_line(by_hand.RESTORE)}
    mine, other = (Measured(who, shown[who], tuple(seconds), None) for who, seconds in gaps.items())
    return Comparison(
        f"Downtime of restoring a {size} database in place",
        mine,
        (other,),
        notes=("the longest time without an answer to a new session that asks every 5 ms",),
    )


def downtime(dsn: Dsn, change: Callable[[], None]) -> float:
    """The longest time without a successful query by a new session while `change` runs and until one succeeds after."""
    answered = [time.perf_counter()]
    keywords: dict[str, Any] = dict(dsn.keywords())
    ended = threading.Event()

    def ask() -> None:
        done = False
        while not done:
            done = ended.is_set()  # and then one more answer
            try:
                with psycopg.connect(**keywords, connect_timeout=2) as conn:
                    conn.execute("select 1")
            except psycopg.OperationalError:
                done = False
            else:
                answered.append(time.perf_counter())
            time.sleep(0.005)

    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(ask)
        try:
            change()
        finally:
            ended.set()
        asking.result()
    return max(after - before for before, after in pairwise(answered))


def _by_hand(peer: Hand, script: str, prepare: Callable[[], object], **values: str) -> Command:
    return Command(
        "by hand",
        _one_line(script),
        ["sh", "-ec", script],
        environment=peer.environment(**values),
        folder=peer.folder,
        account=peer.account,
        prepare=prepare,
        counts_memory=False,
    )


def _one_line(script: str) -> str:
    return "; ".join(script.strip().splitlines())


def _client(stack: Stack) -> Neon:
    return Neon(api=stack.api_url, key=stack.api_key, project_id=stack.project_id)


def _remove_branches(neon: Neon) -> None:
    for branch in neon.branches():
        if branch.name.startswith("bench-"):
            neon.remove_branch(branch.id, name=branch.name)


def _remove_by_hand(peer: Hand) -> None:
    peer.run("if [ -d branch ]; then pg_ctl -D branch -m fast -w stop; rm -rf branch; fi")


def _size(dsn: Dsn) -> int:
    with postgres.connect(dsn, application_name="bloom-dr bench") as conn:
        row = conn.execute("select pg_database_size(current_database())").fetchone()
    assert row
    return int(row[0])
