"""Whatever happened before, a clean-up leaves a good backup, and says why it keeps or drops each one."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.model.backup import BackupId, ProofRecord, Rung, Standing, Tier, Verdict
from runbooks.model.moment import Moment
from runbooks.model.policy_backup import BackupPolicy, Encryption, TierPolicy, Tiers
from runbooks.model.retention import HALF_LIFE, Copy, Place, PrunePlan, Reason, plan_prune

DAY_0 = datetime(2025, 1, 1, 2, tzinfo=UTC)
GOOD = Standing(rung=Rung.DECODED, failure=None)
UNPROVED = Standing(rung=Rung.UPLOADED, failure=None)


def day(number: float) -> Moment:
    return Moment(DAY_0 + timedelta(days=number))


def id_of(number: float, environment: str = "production") -> BackupId:
    return BackupId.new(environment, day(number).utc)


def failed(number: float) -> Standing:
    id_ = id_of(number)
    record = ProofRecord(backup=id_, at=id_.started, rung=Rung.REREAD, verdict=Verdict.FAILED, by="test", seconds=1)
    return Standing(rung=Rung.INTEGRAL, failure=record)


def copy(
    number: float,
    standing: Standing = GOOD,
    *,
    place: Place = Place.ARCHIVE,
    tier: Tier = Tier.DAILY,
    complete: bool = True,
    locked: float | None = None,
    environment: str = "production",
) -> Copy:
    until = None if locked is None else day(locked)
    id_ = id_of(number, environment)
    return Copy(id=id_, place=place, tier=tier, complete=complete, standing=standing, locked_until=until)


def policy(keep_verified: int = 1, tiers: Tiers | None = None, rung: Rung = Rung.DECODED) -> BackupPolicy:
    return BackupPolicy(
        bucket="bloom-backups",
        region="eu-central-1",
        encryption=Encryption(method="age", recipients=("age1" + "q" * 58,)),
        keep_verified=keep_verified,
        verified_rung=int(rung),
        tiers=tiers or Tiers(),
    )


def told(plan: PrunePlan) -> dict[float, Reason]:
    """Reason by day."""
    return {(entry.copy_of.id.started.utc - DAY_0) / timedelta(days=1): entry.reason for entry in plan.entries}


def dropped(copies: list[Copy], rules: BackupPolicy, now: Moment) -> set[tuple[BackupId, Place]]:
    return {(each.id, each.place) for each in plan_prune(copies, rules, now).dropped}


MONTH = TierPolicy(local_days=30, s3_days=30, storage_class="STANDARD")

# C13: retention deletes the last good backup


@pytest.mark.parametrize("bad", ["unproved", "failed", "half"])
@pytest.mark.parametrize("keep_verified", [1, 2, 7])
def test_c13_after_weeks_of_failed_backups_the_last_good_ones_are_still_there(bad: str, keep_verified: int) -> None:
    history = [copy(number) for number in (1, 2, 3)]
    for number in range(4, 41):
        standing = failed(number) if bad == "failed" else UNPROVED
        history.append(copy(number, standing, complete=bad != "half"))
    plan = plan_prune(history, policy(keep_verified, Tiers(daily=MONTH)), day(40.5))
    reasons = told(plan)
    good = [number for number in (1, 2, 3) if reasons[number] is Reason.LAST_GOOD]
    assert good == [1, 2, 3][-keep_verified:]
    assert {reasons[number] for number in range(4, 10)} == {Reason.NOTHING_NEWER}
    assert all(each.id.started < day(3) for each in plan.dropped)


def test_c13_the_same_holds_years_later() -> None:
    history = [copy(1), copy(2), *(copy(number, UNPROVED) for number in range(3, 10))]
    plan = plan_prune(history, policy(), day(20_000))
    assert [each.id for each in plan.dropped] == [id_of(1)]


def test_c13_a_verified_new_backup_releases_what_is_past_its_retention() -> None:
    history = [copy(1), copy(2, UNPROVED), copy(3, failed(3)), copy(4, UNPROVED, complete=False), copy(100)]
    assert told(plan_prune(history, policy(), day(100))) == {
        1: Reason.EXPIRED,
        2: Reason.EXPIRED,
        3: Reason.EXPIRED,
        4: Reason.HALF,
        100: Reason.YOUNG,
    }


def test_c13_neither_another_environment_nor_the_other_place_is_a_reason_to_drop() -> None:
    history = [copy(1), copy(900, environment="staging"), copy(900, place=Place.LOCAL)]
    plan = plan_prune(history, policy(), day(1000))
    assert (id_of(1), Place.ARCHIVE) in {(each.id, each.place) for each in plan.kept}


def test_a_backup_counts_as_verified_from_the_rung_of_the_policy_on() -> None:
    history = [copy(1), copy(100, Standing(rung=Rung.RESTORED, failure=None))]
    assert told(plan_prune(history, policy(rung=Rung.RESTORED), day(100)))[1] is Reason.EXPIRED
    assert told(plan_prune(history, policy(rung=Rung.EQUAL), day(100)))[1] is Reason.NOTHING_NEWER


# The tiers of the strategy


@pytest.mark.parametrize(
    ("tier", "place", "days"),
    [
        (Tier.DAILY, Place.LOCAL, 30),
        (Tier.DAILY, Place.ARCHIVE, 90),
        (Tier.WEEKLY, Place.LOCAL, 60),
        (Tier.WEEKLY, Place.ARCHIVE, 365),
        (Tier.PRE_MIGRATION, Place.ARCHIVE, 1095),
    ],
)
def test_each_tier_stays_exactly_as_long_as_the_strategy_says(tier: Tier, place: Place, days: int) -> None:
    history = [copy(0, place=place, tier=tier), copy(2000, place=place), copy(0, tier=tier)]
    history = list({(each.id, each.place): each for each in history}.values())
    last = Moment(day(days).utc - timedelta(microseconds=1))
    assert (id_of(0), place) not in dropped(history, policy(), last)
    assert (id_of(0), place) in dropped(history, policy(), day(days))


def test_a_local_pre_migration_backup_stays_for_ever() -> None:
    history = [copy(0, place=Place.LOCAL, tier=Tier.PRE_MIGRATION), copy(90_000, place=Place.LOCAL)]
    assert told(plan_prune(history, policy(), day(100_000)))[0] is Reason.PRE_MIGRATION


def test_a_broken_or_half_pre_migration_backup_stays_until_its_release_too() -> None:
    for broken in (copy(0, failed(0), tier=Tier.PRE_MIGRATION), copy(0, tier=Tier.PRE_MIGRATION, complete=False)):
        assert told(plan_prune([broken, copy(500)], policy(), day(1094)))[0] is Reason.PRE_MIGRATION
        assert len(plan_prune([broken, copy(500)], policy(), day(1095)).dropped) == 1


def test_c19_a_locked_backup_is_kept_with_the_date_of_its_release() -> None:
    (entry, _) = plan_prune([copy(0, locked=365), copy(200)], policy(), day(300)).entries
    assert (entry.keep, entry.reason, entry.until) == (True, Reason.LOCKED, day(365))
    assert str(entry) == f"keep archive {id_of(0)}: locked (until 2026-01-01 02:00 UTC)"
    assert len(plan_prune([copy(0, locked=365), copy(200)], policy(), day(365)).dropped) == 1


def test_half_a_backup_is_left_alone_while_it_may_still_be_written() -> None:
    history = [copy(0, UNPROVED, complete=False), copy(1)]
    age = HALF_LIFE / timedelta(days=1)
    assert told(plan_prune(history, policy(), day(age - 0.01)))[0] is Reason.YOUNG
    assert told(plan_prune(history, policy(), day(age)))[0] is Reason.HALF


def test_a_local_copy_stays_until_the_archive_holds_the_backup_whole() -> None:
    local = [copy(0, place=Place.LOCAL), copy(35, place=Place.LOCAL)]
    for archived in ([], [copy(0, complete=False)], [copy(0, failed(0))]):
        plan = plan_prune([*local, *archived], policy(), day(40))
        reasons = {entry.copy_of.place: entry.reason for entry in plan.entries if entry.copy_of.id == id_of(0)}
        assert reasons[Place.LOCAL] is Reason.NOT_SENT
    assert dropped([*local, copy(0)], policy(), day(40)) == {(id_of(0), Place.LOCAL)}
    assert dropped(local, policy(), day(90)) == {(id_of(0), Place.LOCAL)}, "past the archive's retention as well"


def test_a_backup_from_the_future_is_young() -> None:
    assert told(plan_prune([copy(0), copy(50)], policy(), day(40))) == {0: Reason.YOUNG, 50: Reason.YOUNG}


def test_a_backup_that_is_listed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="listed twice"):
        plan_prune([copy(0), copy(0, UNPROVED)], policy(), day(1))


# Over random histories

standings = st.sampled_from([GOOD, UNPROVED, Standing(rung=Rung.INTEGRAL, failure=None), failed(0)])
copies_of_any_kind = st.builds(
    copy,
    st.integers(0, 60),
    standings,
    place=st.sampled_from(Place),
    tier=st.sampled_from(Tier),
    complete=st.sampled_from([True, True, True, False]),
    locked=st.none() | st.integers(0, 120),
    environment=st.sampled_from(["production", "staging"]),
)
histories = st.lists(copies_of_any_kind, max_size=14, unique_by=lambda each: (each.id, each.place))
nows = st.integers(0, 150).map(day)
short = st.integers(1, 40)
tiers = st.builds(
    lambda local, s3: TierPolicy(local_days=local, s3_days=s3, storage_class="STANDARD"), short | st.none(), short
)
policies = st.builds(
    policy,
    st.integers(1, 3),
    st.builds(lambda a, b, c: Tiers(daily=a, weekly=b, **{"pre-migration": c}), tiers, tiers, tiers),
)
over_random_histories = settings(max_examples=80)


def is_verified(each: Copy) -> bool:
    return each.complete and each.standing.failure is None and each.standing.rung >= Rung.DECODED


@over_random_histories
@given(histories, policies, nows)
def test_every_copy_has_exactly_one_entry_and_one_fitting_reason(
    history: list[Copy], rules: BackupPolicy, now: Moment
) -> None:
    plan = plan_prune(history, rules, now)
    assert Counter(entry.copy_of for entry in plan.entries) == Counter(history)
    assert len(plan.kept) + len(plan.dropped) == len(history)
    for entry in plan.entries:
        assert entry.keep == (entry.reason not in (Reason.EXPIRED, Reason.HALF))
        assert entry.until is None or (entry.keep and entry.until > now)
    assert plan_prune(history[::-1], rules, now) == plan


@over_random_histories
@given(histories, policies, nows)
def test_c13_the_newest_verified_backups_always_remain(history: list[Copy], rules: BackupPolicy, now: Moment) -> None:
    kept = plan_prune(history, rules, now).kept
    for environment in ("production", "staging"):
        for place in Place:
            verified = sorted(
                (
                    each
                    for each in history
                    if is_verified(each) and (each.id.environment, each.place) == (environment, place)
                ),
                key=lambda each: each.id,
            )
            assert set(verified[-rules.keep_verified :]) <= set(kept)


@over_random_histories
@given(histories, policies, nows)
def test_nothing_is_dropped_that_is_locked_unreleased_young_or_without_enough_verified_newer_ones(
    history: list[Copy], rules: BackupPolicy, now: Moment
) -> None:
    plan = plan_prune(history, rules, now)
    for gone in plan.dropped:
        assert gone.locked_until is None or gone.locked_until <= now
        days = rules.tiers[gone.tier].local_days if gone.place is Place.LOCAL else rules.tiers[gone.tier].s3_days
        if gone.complete or gone.tier is Tier.PRE_MIGRATION:
            assert days is not None
            assert gone.id.started.utc + timedelta(days=days) <= now.utc
        shelf = (gone.id.environment, gone.place)
        newer = [
            each
            for each in plan.kept
            if is_verified(each) and (each.id.environment, each.place) == shelf and each.id > gone.id
        ]
        assert len(newer) >= rules.keep_verified


@over_random_histories
@given(histories, policies, nows, st.integers(0, 60))
def test_with_time_only_more_is_dropped(history: list[Copy], rules: BackupPolicy, now: Moment, later: int) -> None:
    then = Moment(now.utc + timedelta(days=later))
    assert dropped(history, rules, now) <= dropped(history, rules, then)


@over_random_histories
@given(histories, copies_of_any_kind, policies, nows)
def test_a_further_backup_only_adds_to_what_is_dropped_and_an_unverified_one_changes_nothing(
    history: list[Copy], further: Copy, rules: BackupPolicy, now: Moment
) -> None:
    history = [each for each in history if each.id != further.id]
    before, after = dropped(history, rules, now), dropped([*history, further], rules, now)
    assert before <= after
    if not is_verified(further):
        assert after - {(further.id, further.place)} == before


@over_random_histories
@given(histories, policies, nows)
def test_a_clean_up_that_is_repeated_finds_nothing_more(history: list[Copy], rules: BackupPolicy, now: Moment) -> None:
    assert plan_prune(plan_prune(history, rules, now).kept, rules, now).dropped == ()
