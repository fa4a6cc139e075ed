"""The name of a backup is read back exactly as it was written, and nothing else is one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from runbooks.model.backup_id import MANIFEST, BackupId, LegacyBackup, is_file_name, is_proof_name
from runbooks.model.errors import UsageFault
from runbooks.model.moment import Moment

TEXT = "production/2025/12/bloom_backup_20251203_020000"
environments = st.sampled_from(["a", "production", "production-eu", "p" * 31, "x-", "z9"])
moments = st.datetimes(timezones=st.just(UTC))
ids = st.builds(BackupId.new, environments, moments)
file_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,9}(\.[A-Za-z0-9_-]{1,5}){0,2}", fullmatch=True)

# Spelling and parsing


def test_one_timestamp_in_utc_makes_the_whole_name() -> None:
    mexico = timezone(timedelta(hours=-6))
    started = datetime(2025, 12, 31, 23, 30, 0, 999_999, tzinfo=mexico)
    id_ = BackupId.new("production", started)
    assert str(id_) == "production/2026/01/bloom_backup_20260101_053000"
    assert id_.manifest_key == f"{id_}/manifest.json"
    assert id_.file_key("3345.dat.zst.age") == f"{id_}/3345.dat.zst.age"
    at = Moment.of(datetime(2026, 1, 1, 5, 45, 0, 999_999, tzinfo=UTC))
    assert id_.proof_key(at) == f"{id_}/proof-20260101T054500Z.json"


@given(ids)
def test_a_name_is_read_back_exactly(id_: BackupId) -> None:
    assert BackupId.parse(str(id_)) == id_


@given(st.text(max_size=60) | st.from_regex(r"[a-z]+/\d{4}/\d\d/bloom_backup_\d{8}_\d{6}.?", fullmatch=True))
def test_what_is_read_is_spelled_back_exactly(text: str) -> None:
    try:
        id_ = BackupId.parse(text)
    except UsageFault:
        return
    assert str(id_) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT + "/",
        TEXT + "\n",
        " " + TEXT,
        "/" + TEXT,
        "../" + TEXT,
        "production/../" + TEXT,
        TEXT + ".sql.gz",
        TEXT.replace("/", "\\"),
        TEXT.replace("/2025/12/", "/2025/11/"),
        TEXT.replace("/2025/12/", "/2024/12/"),
        TEXT.replace("1203", "1232"),
        TEXT.replace("020000", "240000"),
        TEXT.replace("020000", "020060"),
        TEXT.replace("production", "Production"),
        TEXT.replace("production", "9production"),
        TEXT.replace("production", "p" * 32),
        TEXT.replace("production", "pröduction"),
        TEXT.replace("20251203", "2025120٣"),
        TEXT.replace("2025", "２０２５"),
        TEXT.replace("020000", "0٢0000"),
        TEXT.replace("bloom", "gloom"),
        TEXT.replace("production/", "production//"),
        "x" * 10_000,
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageFault, match="is not the id of a backup") as caught:
        BackupId.parse(text)
    assert len(caught.value.happened) < 250


def test_a_strange_environment_or_a_naive_time_makes_no_id() -> None:
    now = datetime(2025, 12, 3, tzinfo=UTC)
    for environment in ("", "a/b", "..", "A", "production\n"):
        with pytest.raises(ValueError, match="not the name of an environment"):
            BackupId.new(environment, now)
    with pytest.raises(ValueError, match="without a zone"):
        BackupId.new("production", datetime(2025, 12, 3))  # noqa: DTZ001 - that is the point
    with pytest.raises(ValueError, match="whole seconds"):
        BackupId(Moment.of(now + timedelta(microseconds=1)), "production")


@given(st.lists(ids, max_size=6))
def test_ids_sort_by_time_across_environments(several: list[BackupId]) -> None:
    assert [id_.started for id_ in sorted(several)] == sorted(id_.started for id_ in several)


@given(ids)
def test_an_id_goes_through_json_as_its_text(id_: BackupId) -> None:
    adapter = TypeAdapter(BackupId)
    assert adapter.dump_json(id_) == f'"{id_}"'.encode()
    assert adapter.validate_json(adapter.dump_json(id_)) == adapter.validate_python(id_) == id_


def test_pydantic_refuses_what_parse_refuses() -> None:
    with pytest.raises(ValidationError, match="is not the id of a backup"):
        TypeAdapter(BackupId).validate_python(TEXT + "/")


# Keys


@given(ids, file_names, moments)
def test_every_key_of_a_backup_leads_back_to_it(id_: BackupId, name: str, at: datetime) -> None:
    proof = id_.proof_key(Moment(at))
    keys = {id_.manifest_key: MANIFEST, id_.file_key(name): name, proof: proof.removeprefix(id_.prefix)}
    assert len(keys) == 3, "a file may take the place of the manifest or of a proof"
    for key, rest in keys.items():
        assert BackupId.of_key(key) == (id_, rest)
    assert is_proof_name(keys[proof])
    assert not is_proof_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a/b", "../x", "a\\b", ".hidden", "-x", "a..b", "x.", "a b", "a\n", "é", "x" * 201),
        *("manifest.json", "proof-20251203T021500Z.json", "proof-anything"),
    ],
)
def test_a_file_cannot_leave_its_folder_or_pose_as_manifest_or_proof(name: str) -> None:
    assert not is_file_name(name)
    with pytest.raises(ValueError, match="is not a name for a file of a backup"):
        BackupId.parse(TEXT).file_key(name)


@pytest.mark.parametrize(
    "name", ["toc.dat.age", "3345.dat.zst.age", "globals.sql.gpg", "blobs_16999.toc", "blob_1.dat"]
)
def test_the_names_of_pg_dump_are_file_names(name: str) -> None:
    assert BackupId.parse(TEXT).file_key(name) == f"{TEXT}/{name}"


def test_a_key_outside_of_a_backup_has_no_id() -> None:
    moved = TEXT.replace("/12/", "/11/")
    for key in (TEXT, TEXT + "/", TEXT + "x/toc.dat", f"a/{TEXT}/toc.dat", TEXT + ".sql.gz", f"{moved}/toc.dat"):
        assert BackupId.of_key(key) is None, key


# Old backups


@given(environments, st.datetimes())
def test_the_key_of_an_old_backup_is_read_back_exactly(environment: str, wall: datetime) -> None:
    legacy = LegacyBackup(wall.replace(microsecond=0), environment)
    assert LegacyBackup.of_key(legacy.key) == legacy
    assert BackupId.of_key(legacy.key) is None


@pytest.mark.parametrize(
    "key",
    [
        TEXT,
        TEXT + ".sql",
        TEXT + ".sql.gz.part",
        TEXT + ".sql.gz/x",
        TEXT + ".sqlxgz",
        "bloom_backup_20251203_020000.sql.gz",
        "production/2025/11/bloom_backup_20251203_020000.sql.gz",
        "production/2025/12/bloom_backup_20251203_029900.sql.gz",
        "production/2025/12/my_bloom_backup_20251203_020000.sql.gz",
    ],
)
def test_a_look_alike_is_no_old_backup(key: str) -> None:
    assert LegacyBackup.of_key(key) is None


@given(st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1)), st.integers(-12 * 60, 14 * 60))  # noqa: DTZ001
def test_wherever_the_old_script_ran_its_moment_lies_in_the_span(wall: datetime, offset: int) -> None:
    legacy = LegacyBackup(wall, "production")
    real = wall.replace(tzinfo=timezone(timedelta(minutes=offset)))
    assert legacy.earliest <= real <= legacy.latest


def test_the_span_of_an_old_backup_ends_with_the_calendar() -> None:
    for wall in (datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)):  # noqa: DTZ001
        legacy = LegacyBackup(wall, "production")
        assert legacy.earliest <= legacy.latest
