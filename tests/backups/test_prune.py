"""A clean-up: what the preview named is gone, all else is there, and a good backup is there at every instant."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbooks import prune_backups
from runbooks.backups.catalog import Listed, catalog
from runbooks.backups.clearing import remove
from runbooks.clients.archive import Archive
from runbooks.clients.repository import Repository
from runbooks.engine.plan import Verdict
from runbooks.engine.step import Ended
from runbooks.model.backup import ProofRecord, Rung, Tier
from runbooks.model.backup import Verdict as Proved
from runbooks.model.errors import (
    ArchiveFault,
    ConsentNeeded,
    CouldNotVerify,
    LoginRefused,
    NotFound,
    Refused,
    UsageFault,
)
from runbooks.model.moment import Moment
from runbooks.model.retention import Place
from runbooks.prune_backups import RUNBOOK, Request
from runbooks.sandbox.s3 import S3Server
from tests.backups.desk import NOBODY, Desk
from tests.backups.ground import repository, the_time
from tests.backups.planted import Planted, ago, in_archive, in_folder, keys, planted
from tests.fakes.s3_proxy import S3Proxy, error, says

BOTH = Request.parse("")
MONTH = {"local_days": 30, "s3_days": 30, "storage_class": "STANDARD"}
RULES = {"tiers": {"daily": MONTH}, "keep_verified": 1}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "runs")


@pytest.fixture
def where(s3: S3Server, environment: str) -> Repository:
    return repository(s3, environment=environment, **RULES)


def old_and_new(environment: str, old: int = 3) -> tuple[list[Planted], Planted]:
    """Past their retention, and one that is verified."""
    return [planted(environment, ago(days=40 + number)) for number in range(old)], planted(environment, ago(days=1))


def there(where: Repository, place: Place = Place.ARCHIVE) -> list[Listed]:
    return list(catalog(where, place).backups)


def ids(where: Repository, place: Place = Place.ARCHIVE) -> set[str]:
    return {str(one.id) for one in there(where, place)}


def left(ended: Ended) -> str:
    return "\n".join(ended.ending.left_open)


def measured(where: Repository) -> list[tuple[str, float]]:
    return [(metric.name, metric.value) for metric in where.metrics.metrics]  # type: ignore[attr-defined]


# --- what goes and what stays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", Place)
def test_c13_weeks_of_failed_backups_push_no_good_one_out(
    s3: S3Server, environment: str, desk: Desk, tmp_path: Path, place: Place
) -> None:
    day0 = datetime(2025, 1, 1, 2, tzinfo=UTC)
    bad: list[dict[str, Any]] = [{"proved": None}, {"failed": Rung.REREAD}, {"half": True}]
    history = [planted(environment, day0 + timedelta(days=number)) for number in (1, 2, 3)]
    history += [
        planted(environment, day0 + timedelta(days=number), **bad[number % 3]) for number in range(4, 41)
    ]  # fmt: skip
    where = repository(s3, environment=environment, local=tmp_path / "copies", **RULES)
    in_archive(s3, history if place is Place.ARCHIVE else [])
    in_folder(tmp_path / "copies", history)
    for day in (41, 200):
        desk = Desk(tmp_path / f"runs{day}", now=lambda day=day: day0 + timedelta(days=day))  # type: ignore[misc]
        ended = desk.start(RUNBOOK, Request(places=(place,)), where)
        assert ended.ending.verdict is Verdict.PROVED if day == 41 else Verdict.NOTHING_MISSING
        good = [one.id for one in there(where, place) if one.verified(Rung.DECODED)]
        assert good == [history[2].id], "the last good one, and no other that is that old"


def test_all_versions_of_what_goes_are_deleted_and_nothing_else_is_touched(
    s3: S3Server, environment: str, where: Repository, desk: Desk
) -> None:
    """C19: evidence, old files, other environments, foreign objects and the probes of uploads stay."""
    old, new = old_and_new(environment)
    neighbour = planted(f"{environment}2", ago(days=400))
    in_archive(s3, [*old, new, neighbour])
    in_archive(s3, old)  # a second version of each object
    client, stamp = s3.client(), old[0].id.started.utc
    foreign = {
        f"{environment}/evidence/2024.txt",
        f"{environment}/.bloom-dr-probe-0011223344556677",
        f"{environment}/{stamp:%Y/%m}/bloom_backup_{stamp:%Y%m%d_%H%M%S}.sql.gz",
        f"{old[0].id}/sub/notes.txt",
        f"{old[0].id}_old/manifest.json",
    }
    for key in foreign:
        client.put_object(Bucket=s3.bucket, Key=key, Body=b"x")
    ended = desk.start(RUNBOOK, BOTH, where)
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert keys(where) == {*foreign, *new.objects}
    assert keys(repository(s3, environment=f"{environment}2")) == {*neighbour.objects}
    versions = client.list_object_versions(Bucket=s3.bucket, Prefix=f"{environment}/")
    left_over = {each["Key"] for kind in ("Versions", "DeleteMarkers") for each in versions.get(kind, [])}
    assert left_over == keys(where), "versions or markers of a deleted backup are left"
    assert measured(where) == [("PruneFailure", 0)]


def test_the_preview_changes_nothing_and_tells_each_reason(
    s3: S3Server, environment: str, where: Repository, desk: Desk
) -> None:
    old, new = old_and_new(environment)
    in_archive(s3, [*old, new, planted(environment, ago(days=50), tier=Tier.PRE_MIGRATION)])
    before = keys(where)
    with pytest.raises(ConsentNeeded) as asked:
        desk.start(RUNBOOK, BOTH, where, NOBODY)
    assert f"--confirm bloom-backups/{environment}/3" in asked.value.next_step
    assert asked.value.page
    assert f"bloom-backups/{environment}/3" not in asked.value.page.read_text()
    assert keys(where) == before
    journal = (desk.runs / "20251203-143000-k7qx" / "journal.jsonl").read_text()
    for reason in ("past its retention", "a pre-migration backup before its release", "within its retention"):
        assert reason in journal
    assert desk.resume(RUNBOOK, where).ending.verdict is Verdict.PROVED
    assert keys(where) < before


def test_nothing_due_needs_no_consent(s3: S3Server, environment: str, where: Repository, desk: Desk) -> None:
    in_archive(s3, [planted(environment, ago(days=1))])
    ended = desk.start(RUNBOOK, BOTH, where, NOBODY)
    assert ended.ending.verdict is Verdict.NOTHING_MISSING
    assert len(there(where)) == 1


def test_half_backups_go_after_a_week_even_if_only_proofs_are_left(
    s3: S3Server, environment: str, where: Repository, desk: Desk
) -> None:
    _, new = old_and_new(environment)
    halves = [planted(environment, ago(days=days), half=True) for days in (3, 8)]
    proofs_only = planted(environment, ago(days=9))
    in_archive(s3, [new, *halves, proofs_only])
    for key in (proofs_only.id.manifest_key, *map(proofs_only.id.file_key, proofs_only.files)):
        where.archive.delete(key)
    assert desk.start(RUNBOOK, BOTH, where).ending.verdict is Verdict.PROVED
    assert ids(where) == {str(new.id), str(halves[0].id)}


def test_a_local_copy_that_the_archive_does_not_hold_stays(
    s3: S3Server, environment: str, desk: Desk, tmp_path: Path
) -> None:
    tiers = {"daily": MONTH | {"s3_days": 90}}
    where = repository(s3, environment=environment, local=tmp_path / "copies", tiers=tiers, keep_verified=1)
    old, new = old_and_new(environment)
    in_folder(tmp_path / "copies", [*old, new])
    in_archive(s3, [old[0], new])
    ended = desk.start(RUNBOOK, Request.parse("local"), where)
    assert ended.ending.verdict is Verdict.PROVED
    assert ids(where, Place.LOCAL) == {str(each.id) for each in (*old[1:], new)}
    assert ids(where) == {str(old[0].id), str(new.id)}
    assert not (tmp_path / "copies" / str(old[0].id)).exists()


def test_a_local_half_goes_if_the_archive_knows_its_tier_else_it_is_told(
    s3: S3Server, environment: str, desk: Desk, tmp_path: Path
) -> None:
    where = repository(s3, environment=environment, local=tmp_path / "copies", **RULES)
    known, unknown = (planted(environment, ago(days=days), half=True) for days in (39, 38))
    _, new = old_and_new(environment)
    in_folder(tmp_path / "copies", [known, unknown, new])
    (tmp_path / "copies" / str(known.id) / "a note (1).txt").write_text("not ours")
    in_archive(s3, [known, new])
    with pytest.raises(ConsentNeeded):
        desk.start(RUNBOOK, Request.parse("local"), where, NOBODY)
    assert "nobody knows its tier" in (desk.runs / "20251203-143000-k7qx" / "journal.jsonl").read_text()
    assert desk.resume(RUNBOOK, where).ending.verdict is Verdict.PROVED
    assert ids(where, Place.LOCAL) == {str(unknown.id), str(new.id)}
    assert [path.name for path in (tmp_path / "copies" / str(known.id)).iterdir()] == ["a note (1).txt"]


def test_without_local_copies_only_the_archive_is_cleaned(where: Repository, desk: Desk) -> None:
    assert desk.start(RUNBOOK, BOTH, where).ending.verdict is Verdict.NOTHING_MISSING
    with pytest.raises(NotFound, match="keeps no local copies"):
        Desk(desk.runs / "other").start(RUNBOOK, Request.parse("local"), where)
    with pytest.raises(UsageFault, match="'cellar' is not a place"):
        Request.parse("cellar")


# --- locks ---------------------------------------------------------------------------------------------------------


def test_c19_what_is_locked_stays_with_its_date_and_does_not_fail_the_run(
    s3: S3Server, environment: str, where: Repository, desk: Desk
) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    old, new = old_and_new(environment)
    locked = planted(environment, ago(days=60), lock=until)
    in_archive(s3, [*old, new, locked])
    ended = desk.start(RUNBOOK, BOTH, where)
    assert ended.ending.verdict is Verdict.PROVED
    assert ids(where) == {str(new.id), str(locked.id)}
    assert Moment(until).iso() in (desk.runs / "20251203-143000-k7qx" / "journal.jsonl").read_text()


def test_c19_a_lock_on_one_file_keeps_the_whole_backup_and_is_told(
    s3: S3Server, environment: str, where: Repository, desk: Desk
) -> None:
    """Nobody saw it in the plan; its manifest goes first, so it must not go before all files may."""
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    old, new = old_and_new(environment)
    in_archive(s3, [*old, new])
    s3.client().put_object_retention(
        Bucket=s3.bucket, Key=old[1].id.file_key("toc.dat.age"),
        Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until},
    )  # fmt: skip
    ended = desk.start(RUNBOOK, BOTH, where)
    assert ended.ending.verdict is Verdict.INCOMPLETE
    assert f"{old[1].id} is left: " in left(ended)
    assert Moment(until).iso() in left(ended)
    assert [(one.id, one.complete, one.trouble) for one in there(where)] == [
        (old[1].id, True, None), (new.id, True, None)
    ]  # fmt: skip
    assert measured(where) == [("PruneFailure", 1)]


# --- the world changes between plan and deletion -------------------------------------------------------------------


def _gone(s3: S3Server, where: Repository, new: Planted) -> None:
    where.archive.delete(new.id.manifest_key)


def _lost_a_file(s3: S3Server, where: Repository, new: Planted) -> None:
    where.archive.delete(new.id.file_key("toc.dat.age"))


def _found_broken(s3: S3Server, where: Repository, new: Planted) -> None:
    record = ProofRecord(backup=new.id, at=the_time(), rung=Rung.DECODED, verdict=Proved.FAILED, by="x", seconds=1)
    s3.client().put_object(Bucket=s3.bucket, Key=record.key, Body=record.to_bytes())


@pytest.mark.parametrize("change", [_gone, _lost_a_file, _found_broken])
def test_c13_nothing_is_deleted_once_the_newest_verified_one_is_no_more(
    s3: S3Server, environment: str, where: Repository, desk: Desk, change: Any
) -> None:
    old, new = old_and_new(environment)
    in_archive(s3, [*old, new])
    with pytest.raises(ConsentNeeded):
        desk.start(RUNBOOK, BOTH, where, NOBODY)
    change(s3, where, new)
    before = keys(where)
    with pytest.raises(Refused, match="is not to be deleted any more"):
        desk.resume(RUNBOOK, where)
    assert keys(where) == before
    assert measured(where) == [("PruneFailure", 1)]


def test_c13_it_stops_in_the_middle_when_the_newest_verified_one_goes(
    s3: S3Server, environment: str, where: Repository, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = old_and_new(environment)
    in_archive(s3, [*old, new])

    def and_another(*which: Any) -> int:
        where.archive.delete(new.id.manifest_key)
        return remove(*which)

    monkeypatch.setattr(prune_backups, "remove", and_another)
    with pytest.raises(Refused, match=r"not enough verified newer backups|one of the newest verified"):
        desk.start(RUNBOOK, BOTH, where)
    assert [one.id for one in there(where) if one.verified(Rung.DECODED)] == [old[1].id, old[0].id]


def test_a_longer_retention_since_the_plan_stops_it(s3: S3Server, environment: str, desk: Desk) -> None:
    where = repository(s3, environment=environment, **RULES)
    old, new = old_and_new(environment)
    in_archive(s3, [*old, new])
    with pytest.raises(ConsentNeeded):
        desk.start(RUNBOOK, BOTH, where, NOBODY)
    later = repository(s3, environment=environment, keep_verified=1)
    with pytest.raises(Refused, match="within its retention"):
        desk.resume(RUNBOOK, later)
    assert len(there(where)) == 4


def test_half_a_backup_that_is_whole_by_now_is_left(
    s3: S3Server, environment: str, where: Repository, desk: Desk
) -> None:
    _, new = old_and_new(environment)
    half = planted(environment, ago(days=40), half=True)
    in_archive(s3, [half, new])
    with pytest.raises(ConsentNeeded):
        desk.start(RUNBOOK, BOTH, where, NOBODY)
    in_archive(s3, [replace(half, half=False)])
    ended = desk.resume(RUNBOOK, where)
    assert ended.ending.verdict is Verdict.INCOMPLETE
    assert "is whole now" in left(ended)
    assert len(there(where)) == 2


def test_what_somebody_else_deleted_meanwhile_is_no_trouble(
    s3: S3Server, environment: str, where: Repository, desk: Desk
) -> None:
    old, new = old_and_new(environment)
    in_archive(s3, [*old, new])
    with pytest.raises(ConsentNeeded):
        desk.start(RUNBOOK, BOTH, where, NOBODY)
    remove(where, old[0].id, Place.ARCHIVE)
    assert desk.resume(RUNBOOK, where).ending.verdict is Verdict.PROVED
    assert ids(where) == {str(new.id)}


# --- an ending says what is true -----------------------------------------------------------------------------------


def test_what_should_have_stayed_and_is_gone_is_a_failure(
    s3: S3Server, environment: str, where: Repository, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = old_and_new(environment)
    other = planted(environment, ago(days=2))
    in_archive(s3, [*old, new, other])

    def too_much(*which: Any) -> int:
        remove(where, other.id, Place.ARCHIVE)
        return remove(*which)

    monkeypatch.setattr(prune_backups, "remove", too_much)
    ended = desk.start(RUNBOOK, BOTH, where)
    assert ended.ending.verdict is Verdict.FAILED
    assert f"{other.id} was to stay" in left(ended)


def test_what_is_reported_as_deleted_and_is_there_is_a_failure(
    s3: S3Server, environment: str, where: Repository, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = old_and_new(environment)
    in_archive(s3, [*old, new])
    monkeypatch.setattr(prune_backups, "remove", lambda *_: 4)
    ended = desk.start(RUNBOOK, BOTH, where)
    assert ended.ending.verdict is Verdict.FAILED
    assert measured(where) == [("PruneFailure", 1)]


# --- rights, faults, kills -----------------------------------------------------------------------------------------


def behind(proxy: S3Proxy, s3: S3Server, environment: str) -> Repository:
    archive = Archive(s3.bucket, region=s3.region, clock=the_time, client=proxy.client, sleep=lambda _: None)
    return repository(s3, environment=environment, archive=archive, **RULES)


def test_the_writers_credentials_are_refused_and_the_pruners_go_on(
    s3: S3Server, environment: str, desk: Desk, where: Repository
) -> None:
    old, new = old_and_new(environment)
    in_archive(s3, [*old, new])
    before = keys(where)
    with S3Proxy(s3) as proxy:
        proxy.fail_always("delete_object", says(403, "AccessDenied"))
        writer = behind(proxy, s3, environment)
        with pytest.raises(LoginRefused) as refused:
            desk.start(RUNBOOK, BOTH, writer)
    assert "0 of 3 backups were deleted" in refused.value.safe
    assert "s3:DeleteObjectVersion" in refused.value.next_step
    assert "invoke run.resume 20251203-143000-k7qx" in refused.value.next_step
    assert keys(where) == before
    assert measured(writer) == [("PruneFailure", 1)]
    assert desk.resume(RUNBOOK, where).ending.verdict is Verdict.PROVED
    assert ids(where) == {str(new.id)}


_environments = itertools.count()


def faults_from(s3: S3Server, tmp_path: Path, step: int) -> None:
    """The archive fails from a call on; nothing that looks whole lacks a file; resumed, it comes to its end."""
    for number in itertools.count(0, step):
        environment = f"prunefault{next(_environments)}"
        old, new = old_and_new(environment, old=2)
        in_archive(s3, [*old, new])
        where, desk = repository(s3, environment=environment, **RULES), Desk(tmp_path / environment)
        with S3Proxy(s3) as proxy:
            faulty = behind(proxy, s3, environment)
            with pytest.raises(ConsentNeeded):
                desk.start(RUNBOOK, BOTH, faulty, NOBODY)
            proxy.fail_from(number, error)
            calls = len(proxy.seen)
            try:
                desk.resume(RUNBOOK, faulty)
                failed = False
            except (ArchiveFault, CouldNotVerify):
                failed = True
            assert failed or len(proxy.seen) - calls <= number
        assert all(one.trouble is None for one in there(where)), "half a deletion looks like a backup"
        assert str(new.id) in ids(where)
        if not failed:
            break
        ended = desk.resume(RUNBOOK, where)
        assert ended.ending.verdict is Verdict.PROVED
        assert ids(where) == {str(new.id)}
    assert number > 20, "the calls were not counted"


def test_an_archive_that_fails_on_the_way_leaves_halves_that_are_gone_on_with(s3: S3Server, tmp_path: Path) -> None:
    faults_from(s3, tmp_path, 23)


@pytest.mark.long
def test_an_archive_that_fails_at_any_call_leaves_halves_that_are_gone_on_with(s3: S3Server, tmp_path: Path) -> None:
    faults_from(s3, tmp_path, 1)


def test_interrupted_at_any_file_of_a_local_copy_the_rest_goes_on_resume(
    s3: S3Server, environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where half a backup of that age would still be left alone."""
    tiers = {"daily": {"local_days": 1, "s3_days": 90, "storage_class": "STANDARD"}}
    old, new = planted(environment, ago(days=3)), planted(environment, ago(hours=3))
    in_archive(s3, [old, new])
    unlink = Path.unlink
    for point in itertools.count(1):
        copies, desk = tmp_path / f"copies{point}", Desk(tmp_path / f"runs{point}")
        where = repository(s3, environment=environment, local=copies, tiers=tiers, keep_verified=1)
        in_folder(copies, [old, new])
        numbers = itertools.count(1)

        def interrupted(path: Path, *, missing_ok: bool = False, copies: Path = copies, point: int = point) -> None:
            if copies in path.parents and next(numbers) == point:  # noqa: B023
                raise KeyboardInterrupt
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", interrupted)
        try:
            ended = desk.start(RUNBOOK, Request.parse("local"), where)
        except KeyboardInterrupt:
            assert all(one.trouble is None for one in there(where, Place.LOCAL))
            monkeypatch.undo()
            ended = desk.resume(RUNBOOK, where)
        else:
            break
        assert ended.ending.verdict is Verdict.PROVED
        assert ids(where, Place.LOCAL) == {str(new.id)}
    assert point == len(old.objects) + 1
