"""A stack that restores its main branch in place and dies on the way: `python -m tests.sandbox.dying ROOT STEP AT`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runbooks.sandbox import fork, history, timelines
from runbooks.sandbox.cluster import Cluster
from runbooks.sandbox.servers import Servers
from runbooks.sandbox.stack import Stack
from runbooks.sandbox.state import Ledger
from tests.stack import speaking_to

STEPS: dict[str, tuple[Any, str, str]] = {
    "before the copy": (fork, "copy_files", "before"),
    "after the copy": (fork, "copy_files", "after"),
    "while it recovers": (Cluster, "start", "after"),
    "before the first base": (history, "cold_copy", "before"),
    "after the first base": (history, "cold_copy", "after"),
    "before the old server stops": (Servers, "stop", "before"),
    "after the old server stopped": (Servers, "stop", "after"),
    "before the swap": (Ledger, "commit", "before"),
    "after the swap": (Ledger, "commit", "after"),
    "before the new server starts": (Servers, "start", "before"),
    "after the new server started": (Servers, "start", "after"),
    "before it is cleared up": (timelines, "clear", "before"),
}
"""Where it dies: a function of the restore, and on which side of it."""


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(function: Callable[..., Any], side: str) -> Callable[..., Any]:
    def call(*args: Any, **kw: Any) -> Any:
        if side == "before":
            die()
        result = function(*args, **kw)
        die()
        return result

    return call


def main() -> None:
    root, step, at = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    owner, name, side = STEPS[step]
    with Stack.start(root) as stack, speaking_to(stack) as api:
        wish = {"source_branch_id": api.default_branch_id, "source_timestamp": at, "preserve_under_name": "kept"}
        if owner is Ledger:
            arm_swap(owner, side)
        else:
            setattr(owner, name, deadly(getattr(owner, name), side))
        api.done("POST", f"{api.branch()}/restore", json=wish)
    raise SystemExit("it survived")


def arm_swap(owner: type[Ledger], side: str) -> None:
    """The commit that carries a timeline is the swap; the other ones go through."""
    real = owner.commit

    def commit(self: Ledger, *put: Any, **kw: Any) -> None:
        mortal = any(type(row).__name__ == "Timeline" for row in put)
        if mortal and side == "before":
            die()
        real(self, *put, **kw)
        if mortal:
            die()

    owner.commit = commit  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
