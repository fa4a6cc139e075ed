"""The answer of `backup.fresh`: whether backups are as new as the schedule promises, and all ages that alarms go by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from runbooks.backups.catalog import Catalog, catalog
from runbooks.backups.drill_records import drills
from runbooks.clients.repository import Repository
from runbooks.clients.world import World
from runbooks.model.backup import Rung, Tier
from runbooks.model.backup_id import BackupId
from runbooks.model.drill import DrillReport
from runbooks.model.duration import spell
from runbooks.model.errors import ArchiveFault, BloomError, MetricsFault, PolicyFault, Stale
from runbooks.model.freshness import Freshness, judge
from runbooks.model.metrics import Metric, of_ages, of_drill_age, of_verified_age, of_window
from runbooks.model.moment import Moment
from runbooks.report.answer import Answer

T = TypeVar("T")
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class _Seen:
    """None: there is none, or it could not be seen, and then a trouble says why. Neither is ever sent as a number."""

    tiers: tuple[Freshness, ...]
    verified: BackupId | None
    """The newest backup that was proved to the highest rung."""
    drill: DrillReport | None
    reach: timedelta | None
    """How far back Neon can go."""

    def metrics(self, environment: str, now: Moment) -> tuple[Metric, ...]:
        return (
            *of_ages(environment, self.tiers),
            *of_verified_age(environment, None if self.verified is None else self.verified.started, now),
            *of_drill_age(environment, self.drill, now),
            *(() if self.reach is None else of_window(environment, self.reach, now)),
        )


def fresh(world: World) -> Answer:
    """Whether each scheduled tier has a verified backup as new as it promises; exit code of Stale if not (C16, C30).

    Backups and drills are judged by the archive alone, and Neon is asked how far back it can go. All of it is sent as
    metrics. What cannot be seen or sent stops nothing else, is told, and is no success: the exit code is that of its
    error. PolicyFault if nothing is scheduled; raises as `catalog`.
    """
    repository, now, troubles = world.repository, world.now(), list[BloomError]()
    if not any(repository.policy.tiers[tier].cron for tier in Tier):
        raise PolicyFault(
            "the policy schedules no backups, so nothing says how old the newest may be",
            safe="nothing was judged",
            next_step="set `schedule` in [backup.tiers.daily] of the policy",
        )
    found = catalog(repository)
    seen = _Seen(
        tiers=judged(repository, found, now),
        verified=_verified(found, now),
        drill=_tried(lambda: _drill(repository, now, troubles), troubles),
        reach=_tried(lambda: _reach(world, now), troubles),
    )
    _tried(lambda: repository.metrics.send(seen.metrics(repository.environment, now)), troubles)
    stale = [each for each in seen.tiers if not each.fresh]
    text = [
        *map(str, seen.tiers),
        *_cures(stale, found, repository.policy.verified_rung),
        *_others(seen, world, now),
        *(f"also: {trouble.happened}; next: {trouble.next_step}" for trouble in troubles),
    ]
    code = Stale.exit_code if stale else troubles[0].exit_code if troubles else 0
    return Answer("\n".join(text), _data(seen, repository.environment, now, troubles), code)


def judged(repository: Repository, found: Catalog, now: Moment) -> tuple[Freshness, ...]:
    """Each scheduled tier, by what the archive holds."""
    policy = repository.policy
    return judge(policy, found.newest_verified(policy.verified_rung, now), now)


def as_data(each: Freshness) -> dict[str, Any]:
    age = each.age
    return {**each.as_json(), "age_seconds": None if age is None else age.total_seconds()}


def _tried(look: Callable[[], T], troubles: list[BloomError]) -> T | None:
    try:
        return look()
    except BloomError as trouble:
        troubles.append(trouble)
        return None


def _verified(found: Catalog, now: Moment) -> BackupId | None:
    one = found.newest(lambda one: one.verified(max(Rung)) and one.id.started <= now)
    return None if one is None else one.id


def _drill(repository: Repository, now: Moment, troubles: list[BloomError]) -> DrillReport | None:
    kept = drills(repository, now)
    if kept.doubts:
        trouble = ArchiveFault(
            f"a drill may be newer than what is known: {'; '.join(kept.doubts)}",
            safe="no drill is taken for newer than its report says",
            next_step=f"invoke drill.quarterly --for {repository.environment}",
        )
        troubles.append(trouble)
    return kept.newest


def _reach(world: World, now: Moment) -> timedelta:
    window = world.neon.window(world.target_branch(), now)
    return max(timedelta(), window.latest.utc - window.earliest.utc)


def _cures(stale: Iterable[Freshness], found: Catalog, rung: int) -> Iterator[str]:
    for each in stale:
        newer = found.newest(lambda one, each=each: one.tier is each.tier and one.usable and not one.verified(rung))  # type: ignore[misc]
        if newer is not None and (each.newest is None or newer.id.started > each.newest):
            yield f"next: {newer.id} is newer and not verified: invoke backup.verify --id {newer.id} --rung {rung}"
        else:
            yield f"next: find out why none was taken; then invoke backup.take --tier {each.tier}"


def _others(seen: _Seen, world: World, now: Moment) -> Iterator[str]:
    """Known facts only: what could not be seen is told as trouble."""
    if seen.verified is None:
        yield "no backup was restored and compared yet: invoke backup.verify --latest"
    else:
        yield f"the newest backup that was restored and compared is {_age(seen.verified.started, now)} old"
    if seen.drill is not None:
        yield f"the last drill that passed, {seen.drill.run_id}, is {_age(seen.drill.written, now)} old"
    if seen.reach is not None:
        promised = world.environment.promised_window
        less = f", which is LESS than the promised {spell(promised)}" if seen.reach < promised else ""
        yield f"Neon can go back {spell(seen.reach // _SECOND * _SECOND)}{less}"


def _age(since: Moment, now: Moment) -> str:
    return spell(max(timedelta(), now.utc - since.utc) // _SECOND * _SECOND)


def _data(seen: _Seen, environment: str, now: Moment, troubles: Iterable[BloomError]) -> dict[str, Any]:
    unsent = [trouble.happened for trouble in troubles if isinstance(trouble, MetricsFault)]
    return {
        "environment": environment,
        "fresh": all(each.fresh for each in seen.tiers),
        "tiers": [as_data(each) for each in seen.tiers],
        "newest_restored": seen.verified and str(seen.verified),
        "last_drill": seen.drill and seen.drill.run_id,
        "restore_window_seconds": None if seen.reach is None else seen.reach.total_seconds(),
        "metrics_trouble": unsent[0] if unsent else None,
        "troubles": [trouble.happened for trouble in troubles],
    }
