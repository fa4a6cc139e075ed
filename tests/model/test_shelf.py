"""A listing is never fooled: neither by other prefixes, nor by look-alike names, nor by other people's objects."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.model.backup_id import BackupId, LegacyBackup
from runbooks.model.moment import Moment
from runbooks.model.shelf import Folder, sort_keys
from tests.model.test_backup_id import TEXT

ID = BackupId.parse(TEXT)
LOOK_ALIKES = [
    "evidence/2024.txt",
    "",
    "/",
    "production/",
    "production/2025/12/",
    TEXT,
    f"{TEXT}/",
    f"/{TEXT}/manifest.json",
    f"old/{TEXT}/manifest.json",
    f"{TEXT}/manifest.json.bak/x",
    f"{TEXT}/sub/manifest.json",
    f"{TEXT}/../manifest.json",
    f"{TEXT}//manifest.json",
    f"{TEXT}/manifest.json\n",
    f"{TEXT}/proof-yesterday.json",
    f"{TEXT}/proof-20251203T021500Z.json.tmp",
    f"{TEXT}/.DS_Store",
    f"{TEXT}_copy/manifest.json",
    f"{TEXT} /manifest.json",
    f"{TEXT.upper()}/manifest.json",
    f"{TEXT.replace('2025/12', '2025/11')}/manifest.json",
    f"{TEXT.replace('20251203', '20251299')}/manifest.json",
    f"{TEXT.replace('bloom', 'bIoom')}/manifest.json",
    f"{TEXT.replace('20251203', '２０２５１２０３')}/manifest.json",
    f"{TEXT}.sql.gz.1",
    f"{TEXT}.sql.gz/manifest.json",
    "staging/bloom_backup_20251203_020000.sql.gz",
]


@pytest.mark.parametrize("key", LOOK_ALIKES)
def test_c19_a_foreign_object_is_left_alone(key: str) -> None:
    shelf = sort_keys([key, ID.manifest_key])
    assert shelf.foreign == (key,)
    assert [folder.id for folder in shelf.backups] == [ID]
    assert shelf.legacy == ()


def test_c19_a_prefix_that_begins_alike_is_another_environment() -> None:
    other = BackupId.new("production-eu", ID.started.utc)
    shelf = sort_keys([other.manifest_key, ID.manifest_key])
    assert {folder.id.environment for folder in shelf.backups} == {"production", "production-eu"}
    assert not other.manifest_key.startswith(ID.prefix)


def test_a_folder_tells_what_lies_in_it_and_a_missing_manifest_makes_it_half() -> None:
    proofs = [ID.proof_key(Moment(ID.started.utc + timedelta(hours=hours))) for hours in (1, 2)]
    keys = [proofs[1], ID.file_key("toc.dat.age"), proofs[0], ID.file_key("1.dat.age")]
    expected = Folder(ID, complete=False, files=("1.dat.age", "toc.dat.age"), proofs=tuple(proofs))
    assert sort_keys(keys).backups == (expected,)
    assert sort_keys([*keys, ID.manifest_key]).backups[0].complete


def test_the_report_of_a_drill_is_neither_a_backup_nor_foreign() -> None:
    run = "production/drills/20251203-143000-k7qx"
    found = sort_keys([f"{run}/drill.md", f"{run}/drill.json", f"{run}/bloom_backup_20251203_020000/manifest.json"])
    assert found.reports == (f"{run}/drill.json", f"{run}/drill.md")
    assert found.foreign == (f"{run}/bloom_backup_20251203_020000/manifest.json",)
    assert not found.backups


def test_old_backups_are_listed_apart() -> None:
    shelf = sort_keys([f"{TEXT}.sql.gz", ID.manifest_key])
    assert shelf.legacy == (LegacyBackup(datetime(2025, 12, 3, 2), "production"),)  # noqa: DTZ001 - its zone is unknown
    assert len(shelf.backups) == 1


def test_more_than_a_thousand_backups_are_all_there_oldest_first() -> None:
    first = datetime(2023, 1, 1, 2, tzinfo=UTC)
    several = [BackupId.new("production", first + timedelta(days=day)) for day in range(1500)]
    assert [folder.id for folder in sort_keys(id_.manifest_key for id_ in reversed(several)).backups] == several


days = st.datetimes(timezones=st.just(UTC))
names = st.sampled_from(["manifest.json", "toc.dat.age", "3345.dat.zst.age", "proof-20251203T021500Z.json"])
our_keys = st.builds(lambda day, name: BackupId.new("production", day).prefix + name, days, names)
reports = st.sampled_from([f"production/drills/20251203-143000-k7qx/drill.{kind}" for kind in ("json", "md")])
any_keys = reports | our_keys | our_keys.map(lambda key: key[:-1]) | st.sampled_from(LOOK_ALIKES) | st.text(max_size=30)


@settings(max_examples=60)
@given(st.lists(any_keys, unique=True, max_size=12))
def test_every_key_is_in_exactly_one_place_whatever_the_order(keys: list[str]) -> None:
    shelf = sort_keys(keys)
    places = Counter(shelf.foreign) + Counter(shelf.reports) + Counter(old.key for old in shelf.legacy)
    for folder in shelf.backups:
        places.update(folder.id.prefix + name for name in folder.files)
        places.update(folder.proofs)
        places.update([folder.id.manifest_key] if folder.complete else [])
    assert places == Counter(keys)
    assert sort_keys(reversed(keys)) == shelf
