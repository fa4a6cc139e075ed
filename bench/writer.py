"""A writer beside a benchmark: `python -m bench.writer ABOVE` updates the rows of visits whose id is above ABOVE, one
at a time, 200 a second, until its input ends; then it prints how long each update took, in seconds, as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from runbooks.clients import postgres
from runbooks.model.dsn import Dsn

PROJECT = Path(__file__).parent.parent
EACH_SECOND = 200


def updates(production: Dsn, above: int, during: Callable[[], object]) -> list[float]:
    """The seconds that each update took while `during` ran."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.writer", str(above)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=PROJECT,
        env=os.environ | {"PRODUCTION": production.reveal_url()},
        text=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()  # it has begun
        try:
            during()
        finally:
            told, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the writer ended with {process.returncode}")
    took: list[float] = json.loads(told)
    return took


def main(above: int) -> None:
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    took: list[float] = []
    with postgres.connect(Dsn.parse(os.environ["PRODUCTION"]), application_name="bloom-dr bench writer") as conn:
        ids = [id for (id,) in conn.execute("select id from public.visits where id > %s", [above])]
        print("begun", flush=True)
        first = time.perf_counter()
        for number in itertools.count():
            due = first + number / EACH_SECOND
            late = due < time.perf_counter()  # the one before took long: this one has been waiting since
            if ended.wait(max(0.0, due - time.perf_counter())):
                break
            sent = due if late else time.perf_counter()
            conn.execute("update public.visits set price = price + 1 where id = %s", [ids[number % len(ids)]])
            took.append(time.perf_counter() - sent)
    print(json.dumps(took))


if __name__ == "__main__":
    main(int(sys.argv[1]))
