"""What there is: every backup and nothing else, with what is known against it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbooks.backups.catalog import Listed, catalog, look_at
from runbooks.clients.archive_types import Cold, Readable
from runbooks.clients.repository import Repository
from runbooks.model.backup import Rung, Tier
from runbooks.model.errors import LocalFault, NotFound
from runbooks.model.moment import Moment
from runbooks.model.retention import Place
from runbooks.report.answer import Answer
from runbooks.report.backups import listed
from runbooks.sandbox.s3 import S3Server
from tests.backups.ground import repository, the_time
from tests.backups.planted import Planted, ago, in_archive, in_folder, keys, planted

ZONE = "America/Mexico_City"
AT = datetime(2025, 12, 3, 2, tzinfo=UTC)


def put(s3: S3Server, *keys: str, content: bytes = b"x") -> None:
    for key in keys:
        s3.client().put_object(Bucket=s3.bucket, Key=key, Body=content)


def told(where: Repository, now: datetime | None = None, **how: Any) -> Answer:
    wishes = {"place": Place.ARCHIVE, "before": None, "now": Moment.of(now) if now else the_time(), "zone": ZONE}
    return listed(where, **wishes | how)


def the_one(where: Repository, place: Place = Place.ARCHIVE) -> Listed:
    (one,) = catalog(where, place).backups
    return one


# --- never fooled --------------------------------------------------------------------------------------------------


def test_only_backups_of_this_environment_are_listed_whatever_lies_around_them(s3: S3Server, environment: str) -> None:
    mine = planted(environment, AT)
    in_archive(s3, [mine, planted(f"{environment}2", AT), planted(f"x{environment}", AT)])
    stamp = "bloom_backup_20251203_020000"
    strange = [
        f"{environment}/.bloom-dr-probe-0011223344556677",
        f"{environment}/evidence/2024.txt",
        f"{environment}/drills/20251203-143000-k7qx/bloom_backup_20251203_020000/manifest.json",
        f"{environment}/drills/2025/12/{stamp}/manifest.json",
        f"{environment}/2025/12/{stamp}_old/manifest.json",
        f"{environment}/2025/12/{stamp}/sub/manifest.json",
        f"{environment}/2025/11/{stamp}/manifest.json",
        f"{environment}/2025/12/x{stamp}/manifest.json",
        f"{environment}/2025/12/bloom_backup_20251203_250000/manifest.json",
        f"{environment}/2025/12/{stamp}.sql.gz.part",
        f"{environment}/{environment}/2025/12/{stamp}/manifest.json",
        f"{mine.id}/proof-yesterday.json",
        f"{mine.id}/.manifest.json.new",
    ]
    put(s3, *strange)
    put(s3, f"{environment}/2025/12/{stamp}.sql.gz")
    # Some S3 services show a folder as an object.
    put(s3, f"{environment}/2025/", content=b"")
    found = catalog(repository(s3, environment=environment))
    assert [one.id for one in found.backups] == [mine.id]
    assert found.backups[0].manifest == mine.manifest
    assert found.backups[0].stored_size == sum(map(len, mine.objects.values()))
    assert [one.backup.key for one in found.legacy] == [f"{environment}/2025/12/{stamp}.sql.gz"]
    assert found.foreign == len(strange) + 1


def test_a_backup_behind_the_first_thousand_keys_is_found(s3: S3Server, environment: str) -> None:
    """A page of S3 holds 1,000 keys."""
    client = s3.client()
    for number in range(1005):
        client.put_object(Bucket=s3.bucket, Key=f"{environment}/2025/11/note-{number:05}", Body=b"")
    last = planted(environment, AT)
    in_archive(s3, [last])
    found = catalog(repository(s3, environment=environment))
    assert ([one.id for one in found.backups], found.foreign) == ([last.id], 1005)


@pytest.mark.long
def test_400_backups_are_listed_in_a_few_seconds(s3: S3Server) -> None:
    in_archive(s3, [planted("many", AT - timedelta(days=number)) for number in range(400)])
    where = repository(s3, environment="many")
    started = time.monotonic()
    text = told(where).text
    assert time.monotonic() - started < 8
    assert text.count("many/20") >= 400


# --- what is known against a backup --------------------------------------------------------------------------------


def test_what_every_backup_has_is_listed(s3: S3Server, environment: str) -> None:
    lock = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    in_archive(s3, [planted(environment, AT, tier=Tier.WEEKLY, proved=Rung.EQUAL, lock=lock)])
    where = repository(s3, environment=environment)
    one = the_one(where)
    assert (one.tier, one.standing.rung, one.locked_until) == (Tier.WEEKLY, Rung.EQUAL, Moment(lock))
    text = told(where, AT + timedelta(days=2, hours=3)).text
    row = next(line for line in text.splitlines() if str(one.id) in line)
    for word in ("2025-12-02 20:00 CST", "weekly", "2d3h", "1,234", "4 equal", "STANDARD", f"{lock:%Y-%m-%d %H:%M}"):
        assert word in row
    (data,) = told(where, AT + timedelta(days=2, hours=3)).data["backups"]
    assert (data["rows"], data["rung"], data["verified"], data["age_seconds"]) == (1234, 4, True, 51 * 3600)


def test_half_a_backup_is_named_as_none(s3: S3Server, environment: str) -> None:
    in_archive(s3, [planted(environment, AT, half=True, tier=Tier.WEEKLY)])
    where = repository(s3, environment=environment)
    one = the_one(where)
    assert (one.complete, one.usable, one.tier) == (False, False, Tier.WEEKLY), "the tags tell the tier"
    text = told(where).text
    assert "HALF" in text
    assert "has no manifest, so it is none" in text
    assert "NO backup is verified" in text


def test_proofs_alone_are_half_a_backup_whose_tier_is_known(s3: S3Server, environment: str) -> None:
    """What a clean-up that was killed has left: were its tier not known, it would stay for years."""
    whole = planted(environment, AT)
    in_archive(s3, [whole])
    where = repository(s3, environment=environment)
    for key in (whole.id.manifest_key, *map(whole.id.file_key, whole.files)):
        where.archive.delete(key)
    one = the_one(where)
    assert (one.complete, one.tier) == (False, Tier.DAILY)


def test_a_standing_failure_is_shouted_and_the_backup_is_not_verified(s3: S3Server, environment: str) -> None:
    in_archive(s3, [planted(environment, AT, proved=Rung.INTEGRAL, failed=Rung.DECODED)])
    where = repository(s3, environment=environment)
    assert not the_one(where).verified(Rung.REREAD)
    text = told(where).text
    assert "!! BROKEN beyond rung 2 (decoded)" in text
    assert "proof-20251203T031000Z.json; do not rely on it" in text
    assert "NO backup is verified" in text


def _drop(client: Any, one: Planted) -> None:
    client.delete_object(Key=one.id.file_key("toc.dat.age"))


def _cut(client: Any, one: Planted) -> None:
    client.put_object(Key=one.id.file_key("toc.dat.age"), Body=b"short")


def _exchange(client: Any, one: Planted) -> None:
    other = planted(one.id.environment, one.id.started.utc - timedelta(days=1))
    client.put_object(Key=one.id.manifest_key, Body=other.manifest.to_bytes())


def _garble(client: Any, one: Planted) -> None:
    client.put_object(Key=one.id.manifest_key, Body=b"{}")


def _rot(client: Any, one: Planted) -> None:
    client.put_object(Key=one.id.manifest_key, Body=one.manifest.to_bytes(), Metadata={"sha256": "0" * 64})


def _borrow(client: Any, one: Planted) -> None:
    other = planted(one.id.environment, one.id.started.utc - timedelta(days=1), proved=Rung.INTEGRAL)
    client.put_object(Key=one.proofs[0].key, Body=other.proofs[0].to_bytes())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_drop, "files of it are gone: toc.dat.age"),
        (_cut, "have not the size that was stored: toc.dat.age"),
        (_exchange, "its manifest is that of"),
        (_garble, "is not what this program writes"),
        (_rot, "is damaged"),
        (_borrow, "is the proof of"),
    ],
)
def test_a_backup_with_trouble_is_never_taken_for_a_good_one(
    s3: S3Server, environment: str, damage: Any, words: str
) -> None:
    class InBucket:
        def __getattr__(self, name: str) -> Any:
            return lambda **wishes: getattr(s3.client(), name)(Bucket=s3.bucket, **wishes)

    one = planted(environment, AT)
    in_archive(s3, [one])
    damage(InBucket(), one)
    where = repository(s3, environment=environment)
    assert words in str(the_one(where).trouble)
    assert not the_one(where).usable
    assert words in str(look_at(where, one.id).trouble)
    assert words in told(where).text
    assert the_one(where).as_copy().standing.failure is not None


@pytest.mark.parametrize(("storage_class", "takes"), [("GLACIER", "5h"), ("DEEP_ARCHIVE", "12h"), ("GLACIER_IR", None)])
def test_c18_what_is_cold_says_how_long_a_thaw_takes(
    s3: S3Server, environment: str, storage_class: str, takes: str | None
) -> None:
    in_archive(s3, [planted(environment, AT, storage_class=storage_class)])
    where = repository(s3, environment=environment)
    one = the_one(where)
    assert one.storage_class == storage_class
    assert isinstance(one.access, Cold if takes else Readable)
    assert one.manifest is not None, "its manifest stays readable"
    assert (f"takes up to {takes}" in told(where).text) is bool(takes)


# --- local copies --------------------------------------------------------------------------------------------------


def test_a_local_folder_is_listed_like_the_archive(s3: S3Server, environment: str, tmp_path: Path) -> None:
    mine = planted(environment, AT)
    in_folder(tmp_path, [mine, planted(f"{environment}2", AT), planted(environment, AT + timedelta(1), half=True)])
    (tmp_path / environment / "notes.txt").write_text("x")
    where = repository(s3, environment=environment, local=tmp_path)
    found = catalog(where, Place.LOCAL)
    assert [one.complete for one in found.backups] == [True, False]
    assert (found.backups[0].id, found.foreign) == (mine.id, 1)
    assert look_at(where, mine.id, Place.LOCAL) == found.backups[0]
    text = told(where, place=Place.LOCAL).text
    assert str(tmp_path) in text
    assert "STALE" not in text, "the age of backups is judged by the archive"
    with pytest.raises(NotFound, match="keeps no local copies"):
        catalog(repository(s3, environment=environment), Place.LOCAL)


def test_a_local_folder_that_cannot_be_read_is_no_empty_one(s3: S3Server, environment: str, tmp_path: Path) -> None:
    assert catalog(repository(s3, environment=environment, local=tmp_path / "none"), Place.LOCAL).backups == ()
    (tmp_path / environment).write_text("not a folder")
    with pytest.raises(LocalFault, match="cannot be read"):
        catalog(repository(s3, environment=environment, local=tmp_path), Place.LOCAL)


# --- before an incident --------------------------------------------------------------------------------------------


def before(where: Repository, moment: datetime) -> tuple[str, Any]:
    answer = told(where, before=Moment.of(moment))
    return answer.text, answer.data["offer"]


def test_before_an_incident_the_newest_verified_readable_one_is_marked_with_what_is_lost(
    s3: S3Server, environment: str
) -> None:
    days = [planted(environment, AT + timedelta(days=number)) for number in range(3)]
    in_archive(s3, days)
    where = repository(s3, environment=environment)
    text, offer = before(where, days[1].id.started.utc + timedelta(hours=5, minutes=30))
    assert offer["take"] == {"id": str(days[1].id), "lost_seconds": 5.5 * 3600}
    (marked,) = [line for line in text.splitlines() if line.startswith("> ")]
    assert str(days[1].id) in marked
    assert str(days[2].id) not in text, "it was taken after the incident"
    assert "lost with it: what was written in the 5h30m from 2025-12-03 20:00:00.000 CST (2025-12-04 02:00" in text
    assert f"invoke backup.restore {days[1].id} --to TARGET" in text


def test_one_that_was_being_taken_at_that_moment_is_not_the_one_to_take(s3: S3Server, environment: str) -> None:
    """It takes four minutes; the damage may be in it."""
    days = [planted(environment, AT + timedelta(days=number)) for number in range(2)]
    in_archive(s3, days)
    text, offer = before(repository(s3, environment=environment), days[1].id.started.utc + timedelta(minutes=3))
    assert offer["take"]["id"] == str(days[0].id)
    assert "it was being taken at that moment" in text


def test_what_is_cold_broken_half_or_unproved_is_passed_over_and_told(s3: S3Server, environment: str) -> None:
    wishes: list[dict[str, Any]] = [
        {}, {"storage_class": "GLACIER"}, {"proved": None}, {"failed": Rung.REREAD}, {"half": True}
    ]  # fmt: skip
    each = [planted(environment, AT + timedelta(days=number), **wish) for number, wish in enumerate(wishes)]
    in_archive(s3, each)
    text, offer = before(repository(s3, environment=environment), AT + timedelta(days=6))
    assert {name: one["id"] for name, one in offer.items()} == {
        "take": str(each[0].id), "colder": str(each[1].id), "unproved": str(each[2].id)
    }  # fmt: skip
    assert "takes up to 5h" in text
    assert f"invoke backup.verify --id {each[2].id} --rung 2" in text


def test_without_a_verified_one_nothing_is_offered_but_an_old_file_is_named(s3: S3Server, environment: str) -> None:
    in_archive(s3, [planted(environment, AT, proved=Rung.REREAD)])
    old = f"{environment}/2025/12/bloom_backup_20251201_020000.sql.gz"
    put(s3, old, f"{environment}/2025/12/bloom_backup_20251204_010000.sql.gz")
    where = repository(s3, environment=environment)
    text, offer = before(where, AT + timedelta(days=1))
    assert offer["take"] is None
    assert "NONE from before then is verified (rung 2)" in text
    assert f"surely from before then: {old}" in text
    text, _ = before(where, AT - timedelta(days=30))
    assert "there is none from before then" in text


def test_an_empty_archive_says_so_and_what_to_do(s3: S3Server, environment: str) -> None:
    where = repository(s3, environment=environment)
    assert not keys(where)
    answer = told(where)
    assert answer.exit_code == 0
    assert "there is none\nnext: invoke backup.take --tier daily" in answer.text
    assert "STALE" in answer.text
    assert answer.data["backups"] == []


def test_the_newest_verified_one_is_named_at_the_end(s3: S3Server, environment: str) -> None:
    each = [planted(environment, ago(days=number), proved=Rung(number)) for number in (1, 2, 3)]
    in_archive(s3, each)
    last = told(repository(s3, environment=environment)).text.splitlines()[-1]
    assert last == f"the newest verified backup is {each[1].id}, 2d old, proved to rung 2 decoded"
