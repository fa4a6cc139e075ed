"""A drill that counts for an environment: its report is kept in the archive there, and its alarms hear of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from pydantic import ValidationError

from runbooks.backups.drill_records import keep
from runbooks.clients.world import World
from runbooks.drills.ground import DrillRunning
from runbooks.engine.step import Effect, Run, Step
from runbooks.model.drill import DATA, TEXT, DrillReport
from runbooks.model.errors import BloomError, LocalFault, MetricsFault
from runbooks.model.metrics import of_drill, of_failed_drill
from runbooks.model.record import Record


class Kept(Record):
    keys: tuple[str, ...]
    """In the archive; none for a drill that counts for no environment."""


class Sent(Record):
    names: tuple[str, ...]
    """Of metrics."""


@contextmanager
def failure_told(run: Run[World], counts_for: str | None) -> Iterator[None]:
    """To the alarms of the environment that it was to count for."""
    try:
        yield
    except MetricsFault:
        raise  # nobody would hear of this either
    except Exception as error:
        if counts_for is not None:
            try:
                run.world.repository_of(counts_for).metrics.send(of_failed_drill(counts_for, run.world.now()))
            except BloomError as trouble:
                error.add_note(f"besides, the failure could not be measured: {trouble.happened}")
        raise


def _keep(running: DrillRunning) -> Kept:
    """Whatever came of the drill: a report of one that failed is worth as much."""
    environment: str | None = running.plan.counts_for
    if environment is None:
        return Kept(keys=())
    files, report = _written(running)
    try:
        return Kept(keys=keep(running.world.repository_of(environment), report, files))
    except BloomError as error:
        error.safe = f"what the drill found is in {running.folder}; {error.safe}"
        error.next_step = f"{error.next_step}; then: invoke drill.quarterly --for {environment}"
        raise


def _written(running: DrillRunning) -> tuple[dict[str, bytes], DrillReport]:
    """The report as it lies in the run's folder."""
    try:
        files = {name: (running.folder / name).read_bytes() for name in (TEXT, DATA)}
        return files, DrillReport.model_validate_json(files[DATA])
    except (OSError, ValidationError) as error:
        raise LocalFault(
            f"the report in {running.folder} cannot be read any more",
            safe="the drill's results are in the journal beside it",
            next_step=f"invoke drill.quarterly --for {running.plan.counts_for}",
        ) from error


def _measure(running: DrillRunning) -> Sent:
    if running.plan.counts_for is None:
        return Sent(names=())
    _, report = _written(running)
    metrics = of_drill(report)
    running.world.repository_of(running.plan.counts_for).metrics.send(metrics)
    return Sent(names=tuple(metric.name for metric in metrics))


KEEP = Step(
    name="keep",
    effect=Effect.CREATES,
    why="with --for: whether that environment's next drill is due is judged by the reports in its archive",
    by_hand="copy drill.md and drill.json from the run's folder to ENVIRONMENT/drills/RUN_ID/ in the bucket",
    deadline=timedelta(minutes=10),
    result=Kept,
    run=_keep,
)
MEASURE = Step(
    name="measure",
    effect=Effect.CREATES,
    why="with --for: the alarms of that environment hear of the drill, and of nothing that was not measured in it",
    by_hand="nothing: the report is there, and goes into the age of the last drill",
    deadline=timedelta(minutes=10),
    result=Sent,
    run=_measure,
)
