"""Which moments can be asked for. PostgreSQL would answer some of the others with newer data and say nothing (C25)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbooks.model.moment import Moment
from runbooks.sandbox import history
from runbooks.sandbox.history import Point, Settled, choose, needed, wants_base
from runbooks.sandbox.records import Base, Timeline
from tests.stack import Api, Clock

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> Moment:
    return Moment.of(BEGAN + timedelta(seconds=seconds))


def timeline(*stops: float, first: int = 1) -> Timeline:
    bases = tuple(
        Base(number=first + place, start_lsn=int(stop), stop_lsn=int(stop), stop_at=at(stop), settled_at=at(stop))
        for place, stop in enumerate(stops)
    )
    return Timeline(id="t", project_id="p", began_at=at(0), began_lsn=0, bases=bases)


def asked(api: Api, moment: str) -> tuple[int, str]:
    answer = api.client.post(f"{api.project}/branches", json={"branch": {"parent_timestamp": moment}})
    return answer.status_code, answer.json()["message"]


def test_c25_the_future_is_refused(steady_api: Api) -> None:
    status, message = asked(steady_api, Moment.of(datetime.now(UTC) + timedelta(hours=1)).iso())
    assert status == 400
    assert "in the future" in message


def test_c25_a_moment_before_the_first_base_is_refused(steady_api: Api) -> None:
    created = steady_api.call("GET", steady_api.branch())["branch"]["created_at"]
    status, message = asked(steady_api, created)
    assert status == 400
    assert "outside of the history" in message


def test_c25_the_window_is_the_project_s_and_changes_with_it(clocked_api: Api, clock: Clock) -> None:
    api = clocked_api
    now = clock()
    clock.ahead = timedelta(hours=7)
    api.done("POST", f"{api.project}/branches", json={"branch": {"parent_timestamp": now.iso(), "name": "in"}})
    body = {"project": {"history_retention_seconds": 21_600}}
    assert api.call("PATCH", api.project, json=body)["project"]["history_retention_seconds"] == 21_600
    assert asked(api, now.iso())[0] == 400
    api.call("PATCH", api.project, json={"project": {"history_retention_seconds": 0}})
    assert asked(api, Moment.of(clock().utc - timedelta(seconds=1)).iso())[0] == 400, "0 switches history off"


def test_c25_more_than_the_plan_allows_is_refused(steady_api: Api) -> None:
    body = {"project": {"history_retention_seconds": 31 * 86_400}}
    refusal = steady_api.call("PATCH", steady_api.project, json=body, expect=400)
    assert "exceeds allowed maximum" in refusal["message"]


@pytest.mark.parametrize(
    "text",
    ["2026-03-01T12:00:00", "2026-03-01", "yesterday", "1772366400", "2026-13-01T12:00:00Z", "2026-03-01T12:00Z", ""],
)
def test_a_timestamp_that_is_not_rfc_3339_with_a_zone_is_refused(steady_api: Api, text: str) -> None:
    assert asked(steady_api, text)[0] == 400


@pytest.mark.parametrize(
    ("lsn", "why"), [("0/0", "outside"), ("FFFFFF/0", "not yet written"), ("17", "not an LSN"), ("0/XYZ", "not an LSN")]
)
def test_an_lsn_that_is_not_in_the_history_is_refused(steady_api: Api, lsn: str, why: str) -> None:
    answer = steady_api.client.post(f"{steady_api.project}/branches", json={"branch": {"parent_lsn": lsn}})
    assert (answer.status_code, why in answer.json()["message"]) == (400, True)


def test_a_timestamp_and_an_lsn_together_are_refused(steady_api: Api) -> None:
    wish: dict[str, Any] = {"parent_timestamp": "2026-03-01T12:00:00Z", "parent_lsn": "0/1"}
    steady_api.call("POST", f"{steady_api.project}/branches", json={"branch": wish}, expect=400)


def test_the_newest_base_that_is_not_later_is_chosen() -> None:
    kept = timeline(1, 10, 20)
    assert choose(kept, Point(at=at(19.999)))[0].number == 2
    assert choose(kept, Point(at=at(20)))[0].number == 3
    assert choose(kept, Point(lsn=10))[0].number == 2


def test_before_the_first_base_there_is_only_the_beginning() -> None:
    base, point = choose(timeline(1, 10), Point(at=at(0.5)))
    assert (base.number, point) == (1, Point())


def test_once_the_first_base_is_dropped_the_history_begins_at_the_oldest_one_kept() -> None:
    assert history.earliest(timeline(1, 10)) == at(0)
    assert history.earliest(timeline(10, 20, first=2)) == at(10)
    assert history.earliest_lsn(timeline(10, 20, first=2)) == 10


def test_the_base_from_before_the_window_is_kept_because_the_window_begins_after_it() -> None:
    assert [base.number for base in needed(timeline(1, 10, 20, 30), at(25))] == [3, 4]
    assert [base.number for base in needed(timeline(1, 10), at(0))] == [1, 2]
    assert [base.number for base in needed(timeline(1, 10), at(99))] == [2]


def test_too_many_bases_are_thinned_out_without_making_the_window_shorter() -> None:
    kept = needed(timeline(*range(1, 20)), at(1))
    assert len(kept) == history.MOST_BASES
    assert (kept[0].number, kept[-1].number) == (1, 19)


def test_a_new_base_is_due_after_much_wal_or_an_hour_of_some() -> None:
    much, some, none = history.NEW_BASE_AFTER_BYTES + 2, 2_000_000, 10
    for written, seconds, due in ((much, 5, True), (some, 5, False), (some, 3700, True), (none, 3700, False)):
        assert wants_base(timeline(1), Settled(lsn=1 + written, at=at(1 + seconds))) is due
