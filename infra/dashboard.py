"""One page for whoever asks how the backups are, or is in the middle of a recovery. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from typing import Any

from infra.watches import DAY, DEVIATION, Watch, Watched
from runbooks.model import metrics
from runbooks.model.backup import Tier
from runbooks.model.drill import DRILLED
from runbooks.model.metrics import Series
from runbooks.model.policy import Objectives

Json = dict[str, Any]
_WIDTH, _HEIGHT = 12, 6
"""Of a widget, in a grid of 24 columns."""
MOST_ALARMS, MOST_LINES, MOST_LINES_OF_ALL = 100, 500, 2500
"""Alarms of a widget, metrics of a widget, metrics of a dashboard. AWS's."""


def body(of: Watched, watches: Sequence[Watch], objectives: Objectives, account: str, region: str) -> str:
    """The dashboard, as CloudWatch takes it. The same policy makes the same text.

    All alarms are on it. Of a fleet too large for it the graphs are of its first environments, and it says so.
    """
    alarms = [f"arn:aws:cloudwatch:{region}:{account}:alarm:{watch.name(of.names)}" for watch in watches]
    shown = _shown(of, objectives, region)
    widgets = [*_alarms(alarms), *_left_out(of, shown), *_Page(shown, region).graphs(objectives)]
    placed = [{**widget, **_place(index)} for index, widget in enumerate(widgets)]
    return json.dumps({"start": "-P14D", "periodOverride": "inherit", "widgets": placed}, sort_keys=True)


def _alarms(arns: Sequence[str]) -> Iterator[Json]:
    for start in range(0, len(arns), MOST_ALARMS):
        yield {"type": "alarm", "properties": {"title": "Alarms", "alarms": arns[start : start + MOST_ALARMS]}}


def _shown(of: Watched, objectives: Objectives, region: str) -> Watched:
    """With as many of the environments as the graphs have room for."""
    lines = [len(each["properties"]["metrics"]) for each in _Page(_first(of, 1), region).graphs(objectives)]
    return _first(of, min(MOST_LINES // max(lines), MOST_LINES_OF_ALL // sum(lines)))


def _first(of: Watched, number: int) -> Watched:
    return replace(of, environments=dict(islice(of.environments.items(), number)))


def _left_out(of: Watched, shown: Watched) -> Iterator[Json]:
    if len(shown.environments) < len(of.environments):
        text = (
            f"The graphs are of the first {len(shown.environments)} of {len(of.environments)} environments: a dashboard"
            " has room for no more. The alarms are of all."
        )
        yield {"type": "text", "properties": {"markdown": text}}


def _place(index: int) -> Json:
    return {
        "x": index % 2 * _WIDTH,
        "y": index // 2 * _HEIGHT,
        "width": _WIDTH,
        "height": _HEIGHT,
    }


class _Page:
    def __init__(self, of: Watched, region: str) -> None:
        self._of, self._region = of, region

    def graphs(self, objectives: Objectives) -> list[Json]:
        promised = {name: each.promised_window for name, each in self._of.environments.items()}
        goals = {test: getattr(objectives, test.replace("-", "_")) for test in DRILLED}
        section, rung = self._of.section, self._of.backup.verified_rung
        return [
            self._graph("Proved backups a day", "Sum", self._tiers(metrics.BACKUP_SUCCESS)),
            self._graph("Age of the newest proved backup", "Maximum", self._tiers(metrics.BACKUP_AGE)),
            self._graph("Size", "Maximum", self._tiers(metrics.BACKUP_SIZE)),
            self._graph(
                "How far a size is from usual", "Maximum", self._tiers(metrics.BACKUP_SIZE_DEVIATION),
                [("alarm", DEVIATION)],
            ),
            self._graph("Duration", "Maximum", self._tiers(metrics.BACKUP_DURATION)),
            self._graph(
                "How far backups are proved", "Maximum", self._tiers(metrics.VERIFIED_RUNG),
                [("counts as proved", rung)],
            ),
            self._graph(
                "Since a backup was restored and compared", "Maximum", self._environments(metrics.VERIFIED_AGE),
                [("alarm", section.unverified_days * DAY)],
            ),
            self._graph(
                "How far back Neon can go", "Minimum", self._environments(metrics.RESTORE_WINDOW),
                [(f"promised for {name}", _seconds(window)) for name, window in promised.items()],
            ),
            self._graph(
                "RTO of drills", "Maximum", self._tests(metrics.DRILL_RTO),
                [(f"objective of {test}", _seconds(goal.rto)) for test, goal in goals.items()],
            ),
            self._graph(
                "RPO of drills", "Maximum", self._tests(metrics.DRILL_RPO),
                [(f"objective of {test}", _seconds(goal.rpo)) for test, goal in goals.items()],
            ),
            self._graph(
                "Since the last drill that passed", "Maximum", self._environments(metrics.DRILL_AGE),
                [("alarm", section.drill_days * DAY)],
            ),
            self._graph("Drills that passed", "Minimum", self._environments(metrics.DRILL_SUCCESS)),
            self._graph(
                "What failed", "Sum",
                [*self._tiers(metrics.BACKUP_FAILURE), *self._tiers(metrics.VERIFY_FAILURE),
                 *self._environments(metrics.SYNC_ERRORS), *self._environments(metrics.PRUNE_FAILURE)],
            ),
            self._graph("What the audit trail counted", "Sum", self._stack()),
        ]  # fmt: skip

    def _graph(
        self, title: str, statistic: str, lines: Iterable[list[str]], marks: Iterable[tuple[str, float]] = ()
    ) -> Json:
        properties: Json = {
            "title": title,
            "region": self._region,
            "view": "timeSeries",
            "stat": statistic,
            "period": DAY,
            "metrics": list(lines),
        }
        if levels := [{"label": label, "value": value} for label, value in marks]:
            properties["annotations"] = {"horizontal": levels}
        return {"type": "metric", "properties": properties}

    def _tiers(self, series: Series) -> list[list[str]]:
        return [
            _line(series.namespace(), series, series.dimensions(environment, tier))
            for environment in self._of.environments
            for tier in Tier
        ]

    def _environments(self, series: Series) -> list[list[str]]:
        return [
            _line(series.namespace(), series, series.dimensions(environment)) for environment in self._of.environments
        ]

    def _tests(self, series: Series) -> list[list[str]]:
        return [
            _line(series.namespace(), series, series.dimensions(environment, test=test))
            for environment in self._of.environments
            for test in DRILLED
        ]

    def _stack(self) -> list[list[str]]:
        space = self._of.names.stack
        return [
            _line(series.namespace(space), series, series.dimensions())
            for series in metrics.EVERY_SERIES
            if series.by == "stack"
        ]


def _line(namespace: str, series: Series, dimensions: Iterable[tuple[str, str]]) -> list[str]:
    return [namespace, series.name, *(word for dimension in dimensions for word in dimension)]


def _seconds(length: timedelta) -> float:
    return length.total_seconds()
