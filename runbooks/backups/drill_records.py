"""Reports of drills in the archive of the environment that they count for: kept, and found again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from runbooks.clients.repository import Repository
from runbooks.model.drill import DATA, TEXT, DrillReport, drills_prefix, report_key, run_of_report
from runbooks.model.errors import ArchiveFault, NotFound, WrongTarget
from runbooks.model.freshness import EARLY
from runbooks.model.moment import Moment
from runbooks.model.run_id import RunId


@dataclass(frozen=True)
class Drills:
    """What the archive knows of drills."""

    newest: DrillReport | None
    """Of the proved ones."""
    doubts: tuple[str, ...]
    """Newer reports that could not be read, or are not what they should be, and why."""


def keep(repository: Repository, report: DrillReport, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Store the files of a report, DATA last: without it there is none. Their keys. Safe to repeat with the same files.

    WrongTarget if it counts for another environment; else raises as `Archive.put`.
    """
    if report.counts_for != repository.environment:
        raise WrongTarget(
            f"the drill counts for {report.counts_for}, and this is the archive of {repository.environment}",
            safe="nothing was stored",
            next_step=f"invoke drill.quarterly --for {repository.environment}",
        )
    keys = []
    for name in (TEXT, DATA):
        key = report_key(repository.environment, RunId(report.run_id), name)
        tags = {"environment": repository.environment, "part": "report"}  # no tier: no rule of the bucket removes it
        home = drills_prefix(repository.environment)  # who leaves reports may write nowhere else
        repository.archive.put(key, files[name], tags=tags, storage_class="STANDARD", home=home)
        keys.append(key)
    return tuple(keys)


def drills(repository: Repository, now: Moment) -> Drills:
    """Looked for from the newest report on, as far as one that is proved. Raises as `Archive.objects`."""
    doubts: list[str] = []
    for key in _newest_first(repository):
        report = _read(repository, key, now, doubts)
        if report is not None and report.proved:
            return Drills(report, tuple(doubts))
    return Drills(None, tuple(doubts))


def _newest_first(repository: Repository) -> Iterator[str]:
    """By the time at which their runs were opened, with which their ids begin."""
    lying = (each.key for each in repository.archive.objects(drills_prefix(repository.environment)))
    yield from sorted((key for key in lying if run_of_report(key) and key.endswith(f"/{DATA}")), reverse=True)


def _read(repository: Repository, key: str, now: Moment, doubts: list[str]) -> DrillReport | None:
    """None, and a doubt, for what cannot be read or is not the report that belongs there."""
    try:
        report = DrillReport.model_validate_json(repository.archive.read(key))
    except ValidationError:
        doubts.append(f"{key} is not a report that this program writes")
    except (ArchiveFault, NotFound) as error:
        doubts.append(f"{key} could not be read: {error.happened}")
    else:
        if why := _why_not(report, key, repository.environment, now):
            doubts.append(f"{key} {why}")
        else:
            return report
    return None


def _why_not(report: DrillReport, key: str, environment: str, now: Moment) -> str | None:
    if report.run_id != str(run_of_report(key)):
        return f"is the report of another drill, {report.run_id}"
    if report.counts_for != environment:
        return f"counts for {report.counts_for or 'no environment'}"
    if report.written.utc > now.utc + EARLY:
        return "is from the future"
    return None
