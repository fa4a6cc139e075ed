"""The journal: what was written stays written, and nothing else can pass for it."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbooks.engine.journal import FILE_NAME, Journal, read
from runbooks.model.errors import JournalBroken, LocalFault, LockHeld, NotFound


class Ticking:
    def __init__(self) -> None:
        self.at = datetime(2025, 12, 3, 14, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


def written(folder: Path, lines: int = 3) -> Path:
    journal = Journal.create(folder, now=Ticking())
    for number in range(lines):
        journal.append("step-done", {"step": "ñandú", "number": number, "nested": {"b": [1, None], "a": "x\ny"}})
    journal.close()
    return folder / FILE_NAME


def test_what_was_appended_reads_back_in_order(tmp_path: Path) -> None:
    reading = read(written(tmp_path))
    assert [e.data["number"] for e in reading.entries] == [0, 1, 2]
    assert [e.seq for e in reading.entries] == [1, 2, 3]
    assert not reading.torn


def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    assert stat.S_IMODE(written(tmp_path).stat().st_mode) == 0o600


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data())
def test_any_changed_character_breaks_the_chain(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / os.urandom(4).hex()
    folder.mkdir()
    path = written(folder)
    raw = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(raw) - 2))
    raw[where] ^= data.draw(st.sampled_from([1, 2, 4, 16]))
    path.write_bytes(raw)
    with pytest.raises(JournalBroken):
        read(path)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_line_taken_out_breaks_the_chain(tmp_path: Path, victim: int) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[victim]
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalBroken, match=f"line {victim + 1} "):
        read(path)


def test_a_line_rewritten_with_its_own_valid_hash_breaks_the_next_one(tmp_path: Path) -> None:
    path = written(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    forged = written(other).read_bytes().splitlines(keepends=True)
    lines = path.read_bytes().splitlines(keepends=True)
    changed = json.loads(forged[1])
    changed["data"]["number"] = 7
    lines[1] = json.dumps(changed).encode() + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalBroken):
        read(path)


def test_a_writer_killed_anywhere_inside_a_line_loses_that_line_only(tmp_path: Path) -> None:
    whole = written(tmp_path).read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(1, last + 1):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / FILE_NAME).write_bytes(whole[: len(whole) - cut])
        journal = Journal.resume(folder, now=Ticking())
        assert len(journal.entries) == 2
        journal.append("resumed")
        journal.close()
        reading = read(folder / FILE_NAME)
        assert [e.event for e in reading.entries] == ["step-done", "step-done", "resumed"]
        assert not reading.torn


def test_two_processes_cannot_write_one_journal(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, now=Ticking())
    journal.append("opened", {})
    with pytest.raises(LockHeld):
        Journal.resume(tmp_path, now=Ticking())
    journal.close()
    Journal.resume(tmp_path, now=Ticking()).close()


def test_a_missing_journal_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Journal.resume(tmp_path, now=Ticking())


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = written(tmp_path)
    before = path.read_bytes()
    pid = os.fork()
    if pid == 0:  # the limit on file size stands in for the full disk: the same short write, then an error
        code = 1
        try:
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, len(before) + 100))
            journal = Journal.resume(tmp_path, now=Ticking())
            try:
                journal.append("step-done", {"long": "x" * 500})
            except LocalFault as fault:
                code = 0 if "invoke" in fault.next_step else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert path.read_bytes() == before


def test_a_lock_that_a_killed_process_left_to_a_child_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    path = written(tmp_path)
    left_behind = os.open(path, os.O_RDONLY)
    fcntl.flock(left_behind, fcntl.LOCK_EX)
    ends = threading.Timer(0.2, os.close, [left_behind])
    ends.start()
    Journal.resume(tmp_path, now=Ticking()).close()
    ends.join()
