"""The stack that a drill makes for itself, breaks, and removes in every outcome."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from runbooks.backups.sandboxed import sandboxed
from runbooks.clients.neon import Neon
from runbooks.clients.postgres import Connection
from runbooks.clients.world import World
from runbooks.engine.consent import Consenting
from runbooks.engine.plan import Plan
from runbooks.engine.step import Run, Running
from runbooks.model.dsn import Dsn
from runbooks.model.errors import Refused
from runbooks.model.objectives import Objective
from runbooks.model.policy import SandboxEnvironment
from runbooks.model.record import Record
from runbooks.sandbox.stack import Stack

OWN = SandboxEnvironment(sandbox=True)
NAME = "drill"
"""Of the drill's own environment."""
MARK = "stack-made"
"""A file in the run's folder: the stack was made once, so a run that finds none must not go on with another."""


class DrillPlan(Plan):
    """What the tests of a drill go by."""

    clients: int
    root: str
    postgres: str
    rows_objective: Objective
    backup_objective: Objective


@dataclass(frozen=True)
class Ground:
    """The drill's own stack while the drill runs."""

    stack: Stack
    neon: Neon
    dsn: Dsn

    def dsn_of(self, database: str) -> Dsn:
        """Another database on the same branch."""
        return self.neon.connection(branch=self.neon.default_branch(), database=database, role=OWN.role)


DrillRunning = Running[World, Any]


@contextmanager
def ground(run: Run[World], root: Path) -> Iterator[Ground | None]:
    """The stack, for as long as the drill runs; removed in every outcome, as a drill leaves nothing behind.

    None if it was removed already: nothing but the end of the journal can be written then.
    """
    mark = run.folder / MARK
    if mark.exists() and not root.exists():
        yield None
        return
    try:
        with Stack.start(root) as stack:
            mark.touch(mode=0o600)
            neon = Neon(api=stack.api_url, key=stack.api_key, project_id=stack.project_id, progress=run.tell)
            dsn = neon.connection(branch=neon.default_branch(), database=OWN.database, role=OWN.role)
            yield Ground(stack, neon, dsn)
    except BaseException as error:
        try:
            shutil.rmtree(root)
        except OSError as trouble:
            error.add_note(f"besides, {root} could not be removed: {trouble}")
        raise
    shutil.rmtree(root)


def on(running: DrillRunning) -> Ground:
    """The stack. Refused if it is gone."""
    if running.held is None:
        raise Refused(
            "the drill's own stack is gone, so this drill cannot go on",
            safe="nothing else was touched",
            next_step="invoke drill.quarterly",
        )
    assert isinstance(running.held, Ground)
    return running.held


def session(running: DrillRunning, database: str = OWN.database) -> Connection:
    """A session of the application's kind: Bloom's triggers name their tables without the schema."""
    place = on(running)
    return running.world.connect(place.dsn_of(database), application_name="bloom-dr drill", search_path="public")


def own_world(running: DrillRunning) -> World:
    """The world of the real runbooks, on the drill's own target."""
    place, policy = on(running), running.world.policy
    return dataclasses.replace(
        running.world,
        name=NAME,
        environment=OWN,
        open_neon=lambda: place.neon,
        open_repository=lambda: sandboxed(NAME, policy, place.stack.archive()),
    )


def consent(running: DrillRunning) -> Consenting:
    """To what is asked about the drill's own target."""
    return Consenting(f"drill {running.id}", ask=lambda wanted: wanted)


T = TypeVar("T", bound=Record)


def note(running: DrillRunning, result: T) -> T:
    """Make the result of a step durable that looks at the drill's database, or writes to it: later steps change it."""
    running.note(result.as_json())
    return result


def noted(kind: type[T]) -> Callable[[DrillRunning], T | None]:
    """For `Step.done`: what an earlier attempt has noted stands."""
    return lambda running: kind.model_validate(running.notes[-1]) if running.notes else None
