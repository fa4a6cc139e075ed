"""Stores that a real server here cannot play: framing kept as content (C14), sizes of 5 TiB (C15), Glacier (C18)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.clients.archive import Archive
from runbooks.clients.archive_parts import LARGEST_PART, MIB, Content, Part, part_size, parts_of
from runbooks.clients.archive_types import Cold, Readable, Thawing, access_of
from runbooks.clients.archive_upload import Checksums
from runbooks.model.errors import ArchiveFault, Refused, StillCold
from runbooks.model.moment import Moment
from tests.fakes.s3_small import BUCKET, PROBED, SmallS3

TIB = 1024 * 1024 * MIB
KEY = "production/2025/12/toc.dat.age"


def now() -> Moment:
    return Moment.of(datetime.now(UTC))


def archive_on(small: SmallS3, checksums: Checksums = "required") -> Archive:
    return Archive(
        BUCKET, region="us-east-1", checksums=checksums, clock=now, client=small.client, sleep=lambda _: None
    )


def put(archive: Archive) -> None:
    archive.put(KEY, b"PGDMP" * 100, tags={}, storage_class="STANDARD")


@pytest.mark.parametrize("checksums", ["required", "supported"])
@pytest.mark.parametrize("lies", [False, True])
def test_c14_a_store_that_keeps_the_framing_is_found_out_before_a_backup_is_sent(
    checksums: Checksums, lies: bool
) -> None:
    with SmallS3(frames=True, lies=lies) as small:
        with pytest.raises(ArchiveFault, match="does not give back"):
            put(archive_on(small, checksums))
        assert small.objects == {}
        assert not [each for each in small.seen if each.startswith("PUT") and PROBED not in each]


@pytest.mark.parametrize("checksums", ["required", "supported"])
def test_c14_framing_that_begins_after_the_trial_is_seen_by_the_size(checksums: Checksums) -> None:
    with SmallS3() as small:
        archive = archive_on(small, checksums)
        put(archive)
        small.objects.clear()
        small.frames = True
        with pytest.raises(ArchiveFault, match="bytes instead of 500"):
            put(archive)
        assert small.objects == {}, "what is wrong does not stay"


def test_c14_a_store_that_shows_no_checksum_is_read_back_or_refused() -> None:
    with SmallS3(shows_checksums=False) as small:
        put(archive_on(small, "supported"))
        small.objects.clear()
        with pytest.raises(ArchiveFault, match="shows no SHA-256"):
            put(archive_on(small, "required"))
        assert small.objects == {}
        small.flips = True
        with pytest.raises(ArchiveFault, match="read back"):
            put(archive_on(small, "supported"))
        assert small.objects == {}


def test_c15_60_gib_fit_where_parts_of_5_mib_would_not() -> None:
    sixty = 60 * 1024 * MIB
    assert -(-sixty // (5 * MIB)) > 10_000
    assert len(list(parts_of(sixty))) <= 10_000
    assert len(list(parts_of(sixty, most=1_000))) <= 1_000


def test_c15_5_tib_fit_and_what_no_part_can_hold_is_refused() -> None:
    assert len(list(parts_of(5 * TIB))) <= 10_000
    assert part_size(10_000 * LARGEST_PART) == LARGEST_PART
    with pytest.raises(Refused, match="5 GiB"):
        part_size(10_000 * LARGEST_PART + 1)


@given(st.integers(0, 5 * TIB), st.sampled_from([100, 1_000, 10_000]))
def test_c15_parts_cover_all_of_it_once(size: int, most: int) -> None:
    step = part_size(min(size, most * LARGEST_PART), most=most)
    assert 5 * MIB <= step <= LARGEST_PART
    size = min(size, most * LARGEST_PART)
    parts = list(parts_of(size, most=most))
    assert 1 <= len(parts) <= most
    assert [each.number for each in parts] == list(range(1, len(parts) + 1))
    assert parts[0].offset == 0
    assert all(one.offset + one.size == next_.offset for one, next_ in itertools.pairwise(parts))
    assert parts[-1].offset + parts[-1].size == size
    assert {each.size for each in parts[:-1]} <= {step}


@given(st.binary(max_size=300), st.data())
def test_a_window_reads_its_stretch_wherever_it_is_sought(content: bytes, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(content)))
    size = data.draw(st.integers(0, len(content) - offset))
    at = data.draw(st.integers(0, size))
    with Content(content).window(Part(1, offset, size)) as window:
        assert window.seek(0, os.SEEK_END) == size
        assert window.seek(at) == window.tell() == at
        assert b"".join(iter(lambda: window.read(7), b"")) == content[offset + at : offset + size]


THAWED = 'ongoing-request="false", expiry-date="Fri, 21 Nov 2025 00:00:00 GMT"'
THAWED_UNTIL = Readable(Moment.of(datetime(2025, 11, 21, tzinfo=UTC)))


@pytest.mark.parametrize(
    ("storage_class", "restore", "status", "access"),
    [
        ("STANDARD", "", "", Readable()),
        ("STANDARD_IA", "", "", Readable()),
        ("GLACIER_IR", "", "", Readable()),
        ("INTELLIGENT_TIERING", "", "", Readable()),
        ("GLACIER", "", "", Cold(timedelta(hours=5))),
        ("DEEP_ARCHIVE", "", "", Cold(timedelta(hours=12))),
        ("INTELLIGENT_TIERING", "", "DEEP_ARCHIVE_ACCESS", Cold(timedelta(hours=12))),
        ("GLACIER", 'ongoing-request="true"', "", Thawing(timedelta(hours=5))),
        ("DEEP_ARCHIVE", 'ongoing-request="true"', "", Thawing(timedelta(hours=12))),
        ("GLACIER", THAWED, "", THAWED_UNTIL),
        ("DEEP_ARCHIVE", THAWED, "", THAWED_UNTIL),
    ],
)
def test_c18_a_head_tells_what_is_readable_now(storage_class: str, restore: str, status: str, access: object) -> None:
    with SmallS3() as small:
        small.cold("a", storage_class, restore, status)
        found = archive_on(small).head("a")
    assert (found.storage_class, found.access) == (storage_class, access)


def test_c18_a_thaw_is_asked_for_once() -> None:
    with SmallS3() as small:
        archive = archive_on(small)
        small.cold("a", "DEEP_ARCHIVE")
        assert archive.thaw("a", 3) == Thawing(timedelta(hours=12))
        assert archive.thaw("a", 3) == Thawing(timedelta(hours=12))
        assert small.seen.count("POST restore") == 1
        small.objects["a"].restore = THAWED
        assert archive.thaw("a", 3) == THAWED_UNTIL
        assert archive.read("a") == b"frozen"
        small.cold("b", "STANDARD")
        assert archive.thaw("b", 3) == Readable()
        assert small.seen.count("POST restore") == 1


@pytest.mark.parametrize("read", [Archive.read, Archive.open])
def test_c18_reading_a_cold_object_has_an_error_of_its_own(read: Callable[[Archive, str], object]) -> None:
    with SmallS3() as small:
        small.cold("a", "GLACIER")
        with pytest.raises(StillCold, match="cold storage"):
            read(archive_on(small), "a")


def test_c18_a_thaw_that_another_asked_for_meanwhile_is_under_way() -> None:
    with SmallS3() as small:
        small.cold("a", "GLACIER", restore="unheard of")
        assert archive_on(small).thaw("a", 3) == Thawing(timedelta(hours=5))


def test_a_class_nobody_knows_yet_counts_as_readable() -> None:
    assert access_of({"StorageClass": "EXPRESS_ONEZONE"}) == Readable()
