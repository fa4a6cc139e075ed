"""Whether the newest is new enough, and the ages that alarms go by: what nobody knows is never sent as a number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbooks.backups.drill_records import keep
from runbooks.clients.archive import PROBE
from runbooks.clients.archive_wire import Wire
from runbooks.clients.neon import Neon
from runbooks.clients.neon_types import Window
from runbooks.clients.postgres import connect
from runbooks.clients.repository import Repository
from runbooks.clients.world import World
from runbooks.model.backup import Rung, Tier
from runbooks.model.errors import ArchiveFault, LoginRefused, MetricsFault, PolicyFault, Refused, Stale, WrongTarget
from runbooks.model.moment import Moment
from runbooks.model.policy import Policy, SandboxEnvironment
from runbooks.model.retention import Place
from runbooks.model.secret import Secret
from runbooks.report.answer import Answer
from runbooks.report.backups import listed
from runbooks.report.fresh import fresh
from runbooks.sandbox.s3 import S3Server
from runbooks.sandbox.stack import Stack
from tests.backups.ground import repository
from tests.backups.planted import ago, in_archive, planted
from tests.model.test_drill import RUN, a_test, report
from tests.runbooks.ground import ROOT

AT = datetime(2025, 12, 3, 2, tzinfo=UTC)
NOON = AT + timedelta(hours=12)
NIGHTLY = {"local_days": 30, "s3_days": 90, "storage_class": "STANDARD", "schedule": "0 2 * * *"}
ONLY_DAILY = {"tiers": {"daily": NIGHTLY, "weekly": {"local_days": 60, "s3_days": 365, "storage_class": "STANDARD"}}}
WEEK = timedelta(days=7)


@dataclass
class Reaching:
    """Neon, as far as it is asked: how far back it goes."""

    reach: timedelta

    def default_branch(self) -> None:
        return None

    def window(self, branch: None, now: Moment) -> Window:
        earliest = Moment(now.utc - self.reach)
        return Window(earliest=earliest, latest=now, because="it is so", zone="UTC")


def judged(where: Repository, now: datetime, neon: Callable[[], Any] = lambda: Reaching(WEEK)) -> Answer:
    world = World(
        name=where.environment,
        environment=SandboxEnvironment(sandbox=True, promised_window=timedelta(days=2)),
        policy=Policy.load(ROOT / "policy.toml"),
        operator="tester",
        now=lambda: Moment.of(now),
        open_neon=neon,
        connect=connect,
        open_repository=lambda: where,
    )
    return fresh(world)


def sent(where: Repository) -> dict[str, float]:
    return {metric.name: metric.value for metric in where.metrics.metrics}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("wishes", "is_fresh"),
    [
        ([{}], True),
        ([], False),
        ([{"half": True}], False),
        ([{"proved": None}], False),
        ([{"proved": Rung.REREAD}], False),
        ([{"failed": Rung.REREAD}], False),
        ([{"tier": Tier.PRE_MIGRATION}], False),
    ],
)
def test_c16_only_a_verified_backup_of_the_bucket_is_fresh(
    s3: S3Server, environment: str, wishes: list[dict[str, Any]], is_fresh: bool
) -> None:
    """C16, C30: judged by what lies there, by whoever reads it; silence is an alarm."""
    in_archive(s3, [planted(environment, AT, **wish) for wish in wishes])
    where = repository(s3, environment=environment, **ONLY_DAILY)
    answer = judged(where, NOON)
    assert answer.exit_code == (0 if is_fresh else Stale.exit_code), answer.text
    assert answer.data["fresh"] is is_fresh
    assert ("STALE" in answer.text, "\nnext: " in answer.text) == (not is_fresh, not is_fresh)
    known = {"BackupAge", "RestoreWindow"} if is_fresh else {"RestoreWindow"}
    assert sent(where).keys() == known, "no age where there is no backup: missing data is the alarm"


def test_c30_a_day_later_the_same_backup_is_stale_and_its_age_is_sent(s3: S3Server, environment: str) -> None:
    in_archive(s3, [planted(environment, AT), planted(environment, AT + timedelta(days=1), proved=None)])
    where = repository(s3, environment=environment, **ONLY_DAILY)
    answer = judged(where, NOON + timedelta(days=1))
    assert answer.exit_code == Stale.exit_code
    assert "the newest verified one is 1d12h old" in answer.text
    assert "is newer and not verified: invoke backup.verify --id" in answer.text
    age = where.metrics.metrics[0]  # type: ignore[attr-defined]
    assert (age.name, age.value, age.unit) == ("BackupAge", 36 * 3600, "Seconds")
    assert age.dimensions == (("Environment", environment), ("Tier", "daily"))


def test_every_scheduled_tier_has_to_be_fresh(s3: S3Server, environment: str) -> None:
    in_archive(s3, [planted(environment, AT)])
    answer = judged(repository(s3, environment=environment), NOON)
    assert answer.exit_code == Stale.exit_code
    assert [each["fresh"] for each in answer.data["tiers"]] == [True, False]
    assert "invoke backup.take --tier weekly" in answer.text


def test_a_backup_from_the_future_neither_is_fresh_nor_hides_one_that_is(s3: S3Server, environment: str) -> None:
    in_archive(s3, [planted(environment, AT + timedelta(days=400), proved=Rung.INTEGRAL)])
    where = repository(s3, environment=environment, **ONLY_DAILY)
    assert judged(where, NOON).exit_code == Stale.exit_code
    assert sent(where).keys() == {"RestoreWindow"}
    in_archive(s3, [planted(environment, AT, proved=Rung.INTEGRAL)])
    assert judged(where, NOON).exit_code == 0
    assert sent(where)["VerifiedAge"] == 12 * 3600
    told = listed(where, place=Place.ARCHIVE, before=None, now=Moment(NOON), zone="UTC")
    assert "in the future" in told.text


def test_the_newest_that_was_restored_and_compared_counts_whatever_its_tier(s3: S3Server, environment: str) -> None:
    wishes: list[dict[str, Any]] = [
        {"proved": Rung.INTEGRAL},
        {"proved": Rung.INTEGRAL, "tier": Tier.WEEKLY},
        {"proved": Rung.EQUAL},
        {"proved": Rung.INTEGRAL, "failed": Rung.EQUAL},
    ]
    each = [planted(environment, AT - timedelta(days=4 - day), **wish) for day, wish in enumerate(wishes)]
    in_archive(s3, each)
    where = repository(s3, environment=environment, **ONLY_DAILY)
    answer = judged(where, NOON)
    assert sent(where)["VerifiedAge"] == timedelta(days=3, hours=12).total_seconds()
    assert answer.data["newest_restored"] == str(each[1].id)
    assert "the newest backup that was restored and compared is 3d12h old" in answer.text


# --- drills --------------------------------------------------------------------------------------------------------


def drilled(where: Repository, at: datetime, *tests: Any) -> str:
    """A report in the archive, of a run that was opened then; its run."""
    run = f"{at:%Y%m%d-%H%M%S}-k7qx"
    one = report(*tests, counts_for=where.environment, run_id=run, written=Moment.of(at))
    keep(where, one, {"drill.json": one.model_dump_json().encode(), "drill.md": b"# a drill"})
    return run


@pytest.fixture
def good(s3: S3Server, environment: str) -> Repository:
    """All that is to be known but a drill."""
    in_archive(s3, [planted(environment, AT, proved=Rung.INTEGRAL)])
    return repository(s3, environment=environment, **ONLY_DAILY)


def test_only_a_drill_that_was_proved_has_an_age_however_many_failed_since(good: Repository) -> None:
    assert judged(good, NOON).data["last_drill"] is None
    assert "DrillAge" not in sent(good)
    drilled(good, AT - timedelta(days=100))
    run = drilled(good, AT - timedelta(days=50))
    drilled(good, AT - timedelta(days=2), a_test("accidental-delete"), a_test("corruption", held=False))
    answer = judged(good, NOON)
    assert (answer.exit_code, answer.data["last_drill"]) == (0, run)
    assert sent(good)["DrillAge"] == timedelta(days=50, hours=12).total_seconds()


def test_reports_of_drills_are_no_backups_and_nothing_foreign(good: Repository) -> None:
    before = listed(good, place=Place.ARCHIVE, before=None, now=Moment(NOON), zone="UTC")
    drilled(good, AT)
    tags = good.archive.head(f"{good.environment}/drills/20251203-020000-k7qx/drill.json").tags
    assert tags == {"environment": good.environment, "part": "report"}, "no rule for backups hits it"
    assert listed(good, place=Place.ARCHIVE, before=None, now=Moment(NOON), zone="UTC") == before


def test_who_leaves_a_report_touches_nothing_outside_of_that_folder(
    good: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its role has no other rights: not even the object that tries out the archive may lie elsewhere."""
    calls: list[tuple[str, str]] = []
    real = Wire.call

    def watched(self: Wire, operation: str, **arguments: Any) -> dict[str, Any]:
        calls.append((operation, arguments["Key"]))
        return real(self, operation, **arguments)

    monkeypatch.setattr(Wire, "call", watched)
    drilled(good, AT)
    assert {operation for operation, _ in calls} == {"put_object", "get_object", "head_object", "delete_object"}
    assert all(key.startswith(f"{good.environment}/drills/") for _, key in calls), calls
    assert all(PROBE in key for operation, key in calls if operation == "delete_object"), "and it may be refused"


def test_a_report_is_kept_only_where_it_counts_and_never_replaced(good: Repository) -> None:
    for other in ("staging", None):
        with pytest.raises(WrongTarget, match=f"this is the archive of {good.environment}"):
            keep(good, report(counts_for=other), {"drill.json": b"", "drill.md": b""})
    run = drilled(good, AT)
    with pytest.raises(Refused, match="already holds something else"):
        drilled(good, AT, a_test("corruption"))
    assert judged(good, NOON).data["last_drill"] == run


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not a report that this program writes"),
        (b'{"proved": true}', "is not a report that this program writes"),
        (lambda there: report(counts_for="staging"), "counts for staging"),
        (lambda there: report(counts_for=None), "counts for no environment"),
        (lambda there: report(counts_for=there, run_id="20251203-143000-abcd"), "is the report of another drill"),
        (lambda there: report(counts_for=there, written=Moment(AT + WEEK)), "is from the future"),
    ],
    ids=["empty", "other json", "another environment", "none", "another run", "future"],
)
def test_what_only_looks_like_a_newer_report_is_told_and_changes_no_age(
    good: Repository, s3: S3Server, content: Any, why: str
) -> None:
    drilled(good, AT - timedelta(days=50))
    if callable(content):
        content = content(good.environment).model_dump_json().encode()
    s3.client().put_object(Bucket=s3.bucket, Key=f"{good.environment}/drills/{RUN}/drill.json", Body=content)
    answer = judged(good, NOON)
    assert sent(good)["DrillAge"] == timedelta(days=50, hours=12).total_seconds()
    assert answer.exit_code == ArchiveFault.exit_code
    assert why in answer.text
    assert answer.data["fresh"] is True


def test_an_older_report_that_cannot_be_read_is_nobodys_business(good: Repository, s3: S3Server) -> None:
    run = drilled(good, AT)
    key = f"{good.environment}/drills/20240101-000000-k7qx/drill.json"
    s3.client().put_object(Bucket=s3.bucket, Key=key, Body=b"?")
    answer = judged(good, NOON)
    assert (answer.exit_code, answer.data["last_drill"]) == (0, run)


def test_a_report_without_its_data_is_none(good: Repository, s3: S3Server) -> None:
    s3.client().put_object(Bucket=s3.bucket, Key=f"{good.environment}/drills/{RUN}/drill.md", Body=b"PASS")
    assert judged(good, NOON).data["last_drill"] is None


# --- Neon, and who hears -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reach", "less"), [(timedelta(hours=6), True), (WEEK, False), (timedelta(), True)])
def test_the_window_is_what_neon_says_and_one_shorter_than_promised_is_told(
    good: Repository, reach: timedelta, less: bool
) -> None:
    answer = judged(good, NOON, lambda: Reaching(reach))
    assert sent(good)["RestoreWindow"] == reach.total_seconds()
    assert ("LESS than the promised 2d" in answer.text) is less


def test_where_neon_does_not_answer_the_rest_is_sent_and_it_is_no_success(good: Repository, neon_stack: Stack) -> None:
    neon = Neon(api=neon_stack.api_url, key=Secret("wrong"), project_id=neon_stack.project_id)
    drilled(good, AT)
    answer = judged(good, NOON, lambda: neon)
    assert answer.exit_code == LoginRefused.exit_code
    assert sent(good).keys() == {"BackupAge", "VerifiedAge", "DrillAge"}, "never a window of 0"
    assert answer.data["restore_window_seconds"] is None
    assert "also: " in answer.text
    stale = judged(good, NOON + WEEK, lambda: neon)
    assert stale.exit_code == Stale.exit_code


def test_the_real_window_of_a_young_branch_is_its_own_history(good: Repository, neon_stack: Stack) -> None:
    neon = Neon(api=neon_stack.api_url, key=neon_stack.api_key, project_id=neon_stack.project_id)
    now = datetime.now(UTC)
    judged(good, now, lambda: neon)
    begun = neon.default_branch().history_begins
    assert sent(good)["RestoreWindow"] == (Moment.of(now).utc - begun.utc).total_seconds()


def test_a_metric_that_is_not_taken_is_no_success(good: Repository) -> None:
    class Deaf:
        def send(self, metrics: Any) -> None:
            raise MetricsFault("nobody hears", safe="all", next_step="none")

    deaf = dataclasses.replace(good, metrics=Deaf())
    for now, code in ((NOON, MetricsFault.exit_code), (NOON + WEEK, Stale.exit_code)):
        answer = judged(deaf, now)
        assert (answer.exit_code, answer.data["metrics_trouble"]) == (code, "nobody hears")


def test_where_nothing_is_scheduled_nothing_is_called_fresh(s3: S3Server, environment: str) -> None:
    tiers = {name: {"local_days": 1, "s3_days": 1, "storage_class": "STANDARD"} for name in ("daily", "weekly")}
    with pytest.raises(PolicyFault, match="schedules no backups"):
        judged(repository(s3, environment=environment, tiers=tiers), ago())
