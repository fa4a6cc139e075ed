"""The dashboard shows what is really sent, beside what was promised."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.dashboard import MOST_ALARMS, MOST_LINES, MOST_LINES_OF_ALL, body
from infra.watches import Watched, watched
from runbooks.model.backup import Tier
from runbooks.model.drill import DRILLED
from runbooks.model.metrics import EVERY_SERIES
from runbooks.model.policy import Objectives
from tests.infra.alarm_ground import alarmed, neon, watched_of
from tests.infra.archive_ground import NAMES
from tests.infra.cloud import ACCOUNT, REGION, Cloud

OF = watched_of({"production": neon("7d"), "billing": neon("1d")})


def shown(of: Watched) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(body(of, watched(of), Objectives(), ACCOUNT, REGION))["widgets"]
    return found


@pytest.fixture(scope="module")
def widgets() -> list[dict[str, Any]]:
    return shown(OF)


def test_each_line_is_a_series_with_all_its_dimensions_and_none_is_left_out(widgets: list[dict[str, Any]]) -> None:
    shown = {tuple(line) for each in widgets for line in each["properties"].get("metrics", [])}
    places: dict[str, list[tuple[str | None, Tier | None, str | None]]] = {
        "tier": [(name, tier, None) for name in OF.environments for tier in Tier],
        "environment": [(name, None, None) for name in OF.environments],
        "test": [(name, None, test) for name in OF.environments for test in DRILLED],
        "stack": [(None, None, None)],
    }
    wanted = set()
    for series in EVERY_SERIES:
        namespace = series.namespace("production" if series.by == "stack" else None)
        for environment, tier, test in places[series.by]:
            flat = [word for pair in series.dimensions(environment, tier, test=test) for word in pair]
            wanted.add((namespace, series.name, *flat))
    assert shown == wanted


def test_drills_are_shown_against_the_objectives(widgets: list[dict[str, Any]]) -> None:
    marks = {each["properties"]["title"]: each["properties"].get("annotations") for each in widgets}
    assert marks["RTO of drills"] == {"horizontal": [
        {"label": "objective of accidental-delete", "value": 1800.0},
        {"label": "objective of corruption", "value": 7200.0},
    ]}  # fmt: skip
    assert [each["value"] for each in marks["RPO of drills"]["horizontal"]] == [300.0, 86_400.0]
    assert [each["value"] for each in marks["How far back Neon can go"]["horizontal"]] == [604_800.0, 86_400.0]


def test_all_alarms_are_on_it_and_no_two_widgets_lie_on_each_other(widgets: list[dict[str, Any]]) -> None:
    assert widgets[0]["type"] == "alarm"
    names = [arn.rsplit(":", 1)[1] for arn in widgets[0]["properties"]["alarms"]]
    assert names == [watch.name(NAMES) for watch in watched(OF)]
    laid_out(widgets)


def laid_out(widgets: list[dict[str, Any]]) -> None:
    assert len(widgets) <= 500, "AWS's"
    assert len({(each["x"], each["y"]) for each in widgets}) == len(widgets)
    assert all(each["x"] + each["width"] <= 24 for each in widgets)


@pytest.mark.parametrize("number", [1, 40, 60, 61, 200])
def test_a_fleets_dashboard_has_all_alarms_and_no_more_lines_than_aws_takes(number: int) -> None:
    of = watched_of({f"e{each}": neon() for each in range(number)})
    widgets = shown(of)
    laid_out(widgets)
    chunks = [each["properties"]["alarms"] for each in widgets if each["type"] == "alarm"]
    assert [arn.rsplit(":", 1)[1] for chunk in chunks for arn in chunk] == [each.name(NAMES) for each in watched(of)]
    assert all(1 <= len(chunk) <= MOST_ALARMS == 100 for chunk in chunks)
    graphs = [each["properties"]["metrics"] for each in widgets if each["type"] == "metric"]
    assert all(1 <= len(lines) <= MOST_LINES == 500 for lines in graphs)
    lines = sum(map(len, graphs))
    assert lines <= MOST_LINES_OF_ALL == 2500
    left_out = {name for name in of.environments if not any(name in line for each in graphs for line in each)}
    told = [each["properties"]["markdown"] for each in widgets if each["type"] == "text"]
    assert bool(told) is bool(left_out)
    assert not left_out or max(map(len, graphs)) > 480 or lines > 2400, "it could show more"
    assert all(f"the first {number - len(left_out)} of {number} environments" in text for text in told)


def test_it_is_what_cloudwatch_stores_and_the_same_each_time(cloud: Cloud) -> None:
    alarmed(cloud, OF)
    stored = cloud.client("cloudwatch").get_dashboard(DashboardName=NAMES.dashboard)["DashboardBody"]
    assert stored == body(OF, watched(OF), Objectives(), ACCOUNT, REGION)
