"""A process that carries out a run and kills itself with signal 9 at a chosen point: `python -m tests.runbooks.killed`.

Points are counted where the process touches something outside itself: lines of the journal, places in the source that
speak to a database or change an object of the archive after the consent (each place once), calls that change something
at Neon, what a drill leaves where it counts, servers of its own. It exits with 0 if the run ended before that.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg

from runbooks.clients.archive import Archive
from runbooks.clients.archive_wire import Wire
from runbooks.clients.metrics import Inbox
from runbooks.engine.journal import Journal
from runbooks.model.drill import run_of_report
from runbooks.model.run_id import RunId
from runbooks.sandbox.cluster import Cluster, Server
from runbooks.sandbox.kept import Kept
from tests.runbooks.ground import Facts
from tests.runbooks.past_scenario import RowsFromBackup
from tests.runbooks.scenario import YES
from tests.runbooks.scenarios import SCENARIOS


def main() -> None:
    order = json.loads(sys.stdin.read())
    scenarios = SCENARIOS | {RowsFromBackup.name: RowsFromBackup}
    facts, runbook = Facts(**order["facts"]), scenarios[order["scenario"]].runbook
    request = runbook.request.model_validate(order["request"])
    ARM[order["kind"]](order["point"], order["side"])
    facts.engine().start(runbook, request, facts.world(), YES, RunId.parse(order["run_id"]))


def _armed(
    kind: type, name: str, point: int, side: str, counts: Callable[..., bool] = lambda *_, **__: True,
    numbers: Iterator[int] | None = None,
) -> None:  # fmt: skip
    original, numbers = getattr(kind, name), numbers or itertools.count(1)

    def killing(*args: Any, **kwargs: Any) -> Any:
        number = next(numbers) if counts(*args, **kwargs) else 0
        if (number, side) == (point, "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        answer = original(*args, **kwargs)
        if (number, side) == (point, "after"):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(kind, name, killing)


def _journal(point: int, side: str) -> None:
    _armed(Journal, "append", point, side)


def _statement(point: int, side: str) -> None:
    """Every exchange with a database server from the consent on: statements, COPY data, COMMIT."""
    _armed(psycopg.Connection, "wait", point, side, counts=_new_places())


def _object(point: int, side: str) -> None:
    """Calls that change something in the archive; `after` is the answer that is lost."""
    changing = ("put", "delete", "complete", "create", "upload", "restore", "abort")
    fresh = _new_places()
    _armed(Wire, "call", point, side, counts=lambda _, name, **__: name.startswith(changing) and fresh())


def _report(point: int, side: str) -> None:
    """What a drill leaves in an archive and sends; the stores and metrics of the runbooks inside it do not count."""
    numbers = itertools.count(1)
    _armed(Archive, "put", point, side, lambda _, key, *__, **___: run_of_report(key) is not None, numbers)
    _armed(Inbox, "send", point, side, lambda _, metrics: metrics[0].name.startswith("Drill"), numbers)


def _new_places() -> Callable[..., bool]:
    """Tells, from the consent on, whether a place in the source comes by for the first time."""
    append, executing, seen = Journal.append, [], set()

    def watching(self: Journal, event: str, data: Any = None) -> Any:
        entry = append(self, event, data)
        if event in ("consented", "executing"):
            executing.append(event)
        return entry

    def is_new_place(*_: Any, **__: Any) -> bool:
        frames = (frame for frame in traceback.extract_stack() if "/runbooks/" in frame.filename)
        ours = [(frame.filename, frame.lineno) for frame in frames if "/tests/" not in frame.filename]
        place = tuple(ours[-3:])
        fresh = bool(executing) and place not in seen
        seen.add(place)
        return fresh

    Journal.append = watching  # type: ignore[method-assign]
    return is_new_place


def _change(point: int, side: str) -> None:
    """Calls that change something at Neon; `after` is the answer that is lost."""
    _armed(httpx.Client, "send", point, side, counts=lambda _client, request, **_: request.method != "GET")


def _server(point: int, side: str) -> None:
    """Where a run makes, starts, stops and removes a PostgreSQL of its own, the survey included."""
    numbers = itertools.count(1)
    for kind, name in ((Cluster, "create"), (Cluster, "start"), (Server, "stop"), (Kept, "remove")):
        _armed(kind, name, point, side, numbers=numbers)


ARM = {
    "journal": _journal, "statement": _statement, "change": _change, "object": _object, "report": _report,
    "server": _server,
}  # fmt: skip

if __name__ == "__main__":
    main()
