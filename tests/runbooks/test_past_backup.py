"""C25: a moment older than Neon's history is refused with the backup that has it; and the rows come back from there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from runbooks import accidental_delete, undo_recovery
from runbooks.backups.catalog import look_at
from runbooks.clients.archive import Archive
from runbooks.engine.consent import Consenting
from runbooks.engine.plan import Verdict
from runbooks.engine.step import Ended
from runbooks.model.backup import Manifest, Tier
from runbooks.model.backup_id import BackupId
from runbooks.model.errors import ConsentNeeded, NotFound, OutsideWindow, ProofFailed, Refused, UsageFault
from runbooks.model.moment import Moment
from runbooks.model.run_id import RunId
from runbooks.past.backup import PastBackup
from runbooks.past.folder import folder_of, remove
from tests.runbooks.ground import Facts, journal_text
from tests.runbooks.past_scenario import assert_nothing_left, back_up, servers_below
from tests.runbooks.scenario import YES
from tests.stack import Stack, stack_root

TABLES = """
DROP SCHEMA public CASCADE; CREATE SCHEMA public;
CREATE TYPE mood AS ENUM ('well', 'ill');
CREATE TABLE town (id int PRIMARY KEY, name text);
CREATE TABLE client (id int PRIMARY KEY, name text, town int REFERENCES town, mood mood DEFAULT 'well');
CREATE TABLE "Booking" (id int PRIMARY KEY, client int REFERENCES client ON DELETE CASCADE);
CREATE TABLE line (id int PRIMARY KEY, booking int REFERENCES "Booking" ON DELETE CASCADE, note text);
CREATE TABLE letter (id int PRIMARY KEY, client int REFERENCES client ON DELETE SET NULL);
CREATE TABLE invoice (id int PRIMARY KEY, client int REFERENCES client);
CREATE TABLE event (id int, client int REFERENCES client ON DELETE CASCADE, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE event_low PARTITION OF event FOR VALUES FROM (0) TO (5);
CREATE TABLE event_high PARTITION OF event FOR VALUES FROM (5) TO (50);
CREATE TABLE apart (id int PRIMARY KEY, filler text);
INSERT INTO town SELECT n, 'town ' || n FROM generate_series(1, 3) AS n;
INSERT INTO client SELECT n, 'client ' || n, 1 + n % 3 FROM generate_series(1, 10) AS n;
INSERT INTO "Booking" SELECT n, 1 + n % 10 FROM generate_series(1, 40) AS n;
INSERT INTO line SELECT n, 1 + n % 40, 'a line' FROM generate_series(1, 80) AS n;
INSERT INTO letter SELECT n, 1 + n FROM generate_series(1, 9) AS n;
INSERT INTO invoice VALUES (1, 2);
INSERT INTO event SELECT n, 1 + n % 10 FROM generate_series(1, 20) AS n;
INSERT INTO apart SELECT n, md5(n::text) FROM generate_series(1, 2000) AS n
"""
NEEDED_OF_CLIENT = ("client", "line", "letter", "invoice", "event_low", "event_high")
BOOK = accidental_delete.RUNBOOK


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    with stack_root() as root, Stack.start(root) as stack:
        yield stack


@dataclass
class Ground:
    """Tables as new, a proved backup of them, and a moment after it at which all was well."""

    facts: Facts
    backup: BackupId
    moment: Moment

    def do(self, sql: str) -> None:
        with self.facts.session() as conn:
            conn.execute(sql)  # type: ignore[call-overload]

    def value(self, sql: str) -> Any:
        with self.facts.session() as conn:
            return conn.execute(sql).fetchone()[0]  # type: ignore[call-overload,index]

    def request(self, *tables: str, backup: str | None = "latest", **more: Any) -> accidental_delete.Request:
        return accidental_delete.Request(at=self.moment, tables=tables, from_backup=backup, **more)

    def recover(self, *tables: str, **more: Any) -> Ended:
        return self.facts.engine().start(BOOK, self.request(*tables, **more), self.facts.world(), YES)

    def preview(self, *tables: str, **more: Any) -> RunId:
        run_id = RunId.new(datetime.now(UTC))
        with pytest.raises(ConsentNeeded):
            self.facts.engine().start(
                BOOK, self.request(*tables, **more), self.facts.world(), Consenting("tester"), run_id
            )
        return run_id

    def resume(self, run_id: RunId) -> Ended:
        return self.facts.engine().resume(BOOK, run_id, self.facts.world(), YES)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where readable rows may lie: PostgreSQL's account has to reach it."""
    with stack_root() as home:
        home.chmod(0o711)
        monkeypatch.setenv("BLOOM_DR_SANDBOX", str(home / "sandbox"))
        yield home
        assert_nothing_left(home)


@pytest.fixture(scope="module")
def backed_up(running: Stack, tmp_path_factory: pytest.TempPathFactory) -> tuple[BackupId, Moment]:
    facts = Facts.of(running, tmp_path_factory.mktemp("backup"), archive=True)
    with facts.session() as conn:
        conn.execute(TABLES)
    return back_up(facts)


@pytest.fixture
def ground(running: Stack, backed_up: tuple[BackupId, Moment], home: Path, tmp_path: Path) -> Ground:
    facts = Facts.of(running, tmp_path / "runs", archive=True)
    with facts.session() as conn:
        conn.execute(TABLES)
    return Ground(facts, *backed_up)


@contextmanager
def short_history(facts: Facts) -> Iterator[None]:
    before = facts.neon().project().history_retention
    facts.neon().set_history_retention(timedelta(0))
    try:
        yield
    finally:
        facts.neon().set_history_retention(before)


def test_c25_outside_the_window_it_is_refused_with_the_newest_proved_backup_and_the_command(ground: Ground) -> None:
    request = ground.request("client", backup=None, where="id = 3")
    with short_history(ground.facts), pytest.raises(OutsideWindow) as refused:
        ground.facts.engine().start(BOOK, request, ground.facts.world(), YES)
    assert "possible are moments after" in refused.value.happened
    assert str(ground.backup) in refused.value.happened
    assert refused.value.next_step.endswith(
        f"invoke recover.accidental-delete --at {ground.moment.iso()} --tables client --where 'id = 3' --env sandbox "
        f"--from-backup {ground.backup}"
    )
    assert ground.facts.branch_names() == {"main"}


def test_c25_outside_the_window_without_an_older_backup_it_says_that_there_is_none(ground: Ground) -> None:
    ground.moment = Moment.of(ground.backup.started.utc - timedelta(minutes=5))
    with pytest.raises(OutsideWindow) as refused:
        ground.recover("client", backup=None)
    assert "no backup of sandbox that was finished by then is proved" in refused.value.happened


def test_c25_outside_the_window_an_archive_that_does_not_answer_hides_nothing(ground: Ground) -> None:
    world = replace(ground.facts.world(), open_repository=lambda: replace(ground.facts.repository(), archive=Down()))
    with short_history(ground.facts), pytest.raises(OutsideWindow) as refused:
        ground.facts.engine().start(BOOK, ground.request("client", backup=None), world, YES)
    assert "possible are moments after" in refused.value.happened
    assert "whether a backup is older could not be found out: no answer" in refused.value.happened


class Down:
    def objects(self, prefix: str) -> Iterator[Any]:
        raise Refused("no answer", safe="nothing was read", next_step="invoke backup.list")


class Opened:
    """Which objects of the archive a run reads the content of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: set[str] = set()
        original = Archive.open

        def opening(archive: Archive, key: str, *more: Any, **other: Any) -> BinaryIO:
            self.keys.add(key)
            return original(archive, key, *more, **other)

        monkeypatch.setattr(Archive, "open", opening)


def test_c25_rows_come_back_from_the_backup_proved_and_only_their_files_are_fetched(
    ground: Ground, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.do("UPDATE client SET name = 'later' WHERE id = 5; INSERT INTO client VALUES (11, 'new')")
    before = ground.value("SELECT string_agg(l::text, ';' ORDER BY id) FROM line AS l")
    letters = ground.value("SELECT string_agg(t::text, ';' ORDER BY id) FROM letter AS t")
    ground.do("UPDATE invoice SET client = 4; DELETE FROM client WHERE id IN (2, 3, 11)")
    opened = Opened(monkeypatch)
    with short_history(ground.facts):
        ended = ground.recover("client")
    told = "30 rows are back, 2 that were there are set back, as in the state of backup"
    assert ended.ending.summary.startswith(told)
    assert str(ground.backup) in ended.ending.summary
    assert before == ground.value("SELECT string_agg(l::text, ';' ORDER BY id) FROM line AS l")
    assert ground.value("SELECT string_agg(name, ' ' ORDER BY id) FROM client WHERE id IN (2, 3, 5)") == (
        "client 2 client 3 later"
    )
    assert ground.value("SELECT count(*) FROM client WHERE id = 11") == 0
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert letters == ground.value("SELECT string_agg(t::text, ';' ORDER BY id) FROM letter AS t")
    manifest = manifest_of(ground.facts, ground.backup)
    tables = {file.table for file in manifest.files if manifest.id.file_key(file.stored_name) in opened.keys}
    assert tables == {None, 'public."Booking"', *(f"public.{name}" for name in NEEDED_OF_CLIENT)}
    assert_nothing_left(home)


def manifest_of(facts: Facts, backup: BackupId) -> Manifest:
    manifest = look_at(facts.repository(), backup).manifest
    assert manifest is not None
    return manifest


def test_the_preview_says_what_is_not_in_it_and_where_it_lies_and_hours_later_the_run_goes_on(ground: Ground) -> None:
    ground.do("DELETE FROM line WHERE id <= 3")
    run_id = ground.preview("line")
    place = folder_of(run_id)
    assert place.stat().st_mode & 0o777 == 0o700
    assert not servers_below(place), "a server has no business while nobody needs it"
    assert not (place / "dump").exists()
    preview = plan_of(ground, run_id).preview()
    facts = dict(preview.facts)
    assert str(ground.backup) in facts["state of"]
    assert facts["proved of it"].startswith("rung 2")
    assert str(place) in facts["lies readable in"]
    assert facts["restored and compared"] == "80 rows of 1 tables: public.line"
    assert any("will not come back" in told and "come back as they were then" in told for told in preview.warnings)
    assert any("without --from-backup" in told for told in preview.warnings)
    password = (place / "password").read_text()
    ended = ground.resume(run_id)
    assert ended.ending.verdict is Verdict.PROVED, ended.ending
    assert password not in journal_text(ground.facts)
    undone = ground.facts.engine().start(
        undo_recovery.RUNBOOK, undo_recovery.Request(recovery=str(run_id)), ground.facts.world(), YES
    )
    assert undone.ending.verdict is Verdict.PROVED


def test_tables_that_were_not_fetched_are_not_there_so_that_no_condition_takes_them_for_empty(ground: Ground) -> None:
    ground.do("DELETE FROM line WHERE id <= 3")
    with pytest.raises(UsageFault):
        ground.recover("line", where='booking IN (SELECT id FROM public."Booking" WHERE client = 3)')


def test_a_restored_backup_that_is_gone_is_said_and_nothing_is_written(ground: Ground) -> None:
    ground.do("DELETE FROM line WHERE id <= 3")
    run_id = ground.preview("line")
    remove(folder_of(run_id))
    with pytest.raises(NotFound, match="is gone"):
        ground.resume(run_id)
    assert ground.value("SELECT count(*) FROM line") == 77


def test_a_survey_that_fails_leaves_nothing(ground: Ground, home: Path) -> None:
    ground.do("ALTER TABLE line ALTER COLUMN note TYPE varchar(20)")
    with pytest.raises(Refused, match="on the branch"):
        ground.recover("line")
    assert_nothing_left(home)


@pytest.fixture
def other(ground: Ground) -> Iterator[Ground]:
    """With a backup of its own, which may be spoiled; it is gone afterwards."""
    ground.backup, ground.moment = back_up(ground.facts)
    yield ground
    archive = ground.facts.repository().archive
    for each in list(archive.objects(ground.backup.prefix)):
        archive.delete(each.key)


def test_a_damaged_file_is_refused_before_consent(other: Ground) -> None:
    archive, manifest = other.facts.repository().archive, manifest_of(other.facts, other.backup)
    key = next(manifest.id.file_key(file.stored_name) for file in manifest.files if file.table == "public.line")
    content = bytearray(archive.read(key))
    content[-20] ^= 1
    spoil(other.facts, key, bytes(content))
    with pytest.raises(ProofFailed, match="is damaged"):
        other.preview("client")


def spoil(facts: Facts, key: str, content: bytes) -> None:
    archive, repository = facts.repository().archive, facts.repository()
    archive.delete(key)
    archive.put(key, content, tags=repository.tags(Tier.DAILY, "data"), storage_class="STANDARD")


def test_a_backup_whose_rows_are_not_its_inventorys_is_refused_before_consent(other: Ground) -> None:
    manifest = manifest_of(other.facts, other.backup)
    tables = tuple(
        table.model_copy(update={"content": table.content[:-1] + ("0" if table.content[-1] != "0" else "1")})
        if table.name == "public.line"
        else table
        for table in manifest.inventory.tables
    )
    lying = manifest.model_copy(update={"inventory": manifest.inventory.model_copy(update={"tables": tables})})
    for each in list(other.facts.repository().archive.objects(other.backup.prefix)):
        if "/proof-" in each.key:
            other.facts.repository().archive.delete(each.key)
    spoil(other.facts, manifest.id.manifest_key, lying.to_bytes())
    with pytest.raises(ProofFailed, match=r"not what was backed up: .*public\.line"):
        other.preview("client", backup=str(other.backup))


def test_an_unproved_backup_that_was_named_is_told_in_the_preview(other: Ground) -> None:
    archive = other.facts.repository().archive
    for each in list(archive.objects(other.backup.prefix)):
        if "/proof-" in each.key:
            archive.delete(each.key)
    other.do("DELETE FROM line WHERE id <= 3")
    run_id = other.preview("line", backup=str(other.backup))
    assert any("too little is proved" in told for told in past_of(other, run_id).warnings("UTC"))
    remove(folder_of(run_id))


def plan_of(ground: Ground, run_id: RunId) -> accidental_delete.RecoveryPlan:
    entries = ground.facts.engine().runs.reading(run_id).entries
    plan = next(entry.data["plan"] for entry in entries if entry.event == "planned")
    return accidental_delete.RecoveryPlan.model_validate(plan)


def past_of(ground: Ground, run_id: RunId) -> PastBackup:
    past = plan_of(ground, run_id).past
    assert isinstance(past, PastBackup)
    return past


def test_without_a_proved_backup_from_before_the_moment_nothing_is_begun(ground: Ground) -> None:
    ground.moment = Moment.of(ground.backup.started.utc - timedelta(minutes=5))
    with pytest.raises(NotFound, match="is proved and can be read now"):
        ground.recover("client")
    with pytest.raises(Refused, match="was started after"):
        ground.recover("client", backup=str(ground.backup))
    ground.moment = Moment.of(datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(OutsideWindow, match="in the future"):
        ground.recover("client")


def test_an_old_single_file_is_refused_where_the_command_is_read() -> None:
    with pytest.raises(UsageFault, match="old single file"):
        accidental_delete.Request.parse(
            at="2025-12-03T14:30Z", tables="client", now=datetime.now(UTC),
            from_backup="production/2025/12/bloom_backup_20251203_020000.sql.gz",
        )  # fmt: skip
