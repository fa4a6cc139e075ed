"""What is told of runs afterwards, and of the local stack: from the journals alone, for people and for scripts."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from runbooks.sandbox import daemon
from tests.commands.operator import CODES, ROOT, Operator, now
from tests.stack import stack_root

RECOVER = "recover.accidental-delete"


@dataclass(frozen=True)
class Failed:
    """A run that failed at its beginning: there was no stack."""

    operator: Operator
    run_id: str

    @property
    def journal(self) -> Path:
        return self.operator.runs / self.run_id / "journal.jsonl"

    def damage(self, was: str, becomes: str) -> None:
        text = self.journal.read_text()
        assert was in text
        self.journal.write_text(text.replace(was, becomes, 1))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Failed:
    folder = tmp_path_factory.mktemp("failed")
    operator = Operator(folder / "no-sandbox", folder / "runs")
    said = operator.invoke(RECOVER, "--at", now(), "--tables", "clients")
    said.stopped("SandboxFault")
    return Failed(operator, said.run_id)


@pytest.fixture
def failed(original: Failed, tmp_path: Path) -> Failed:
    """A copy of it, to be damaged."""
    shutil.copytree(original.operator.runs, tmp_path / "runs")
    return Failed(Operator(original.operator.sandbox, tmp_path / "runs"), original.run_id)


def test_a_run_is_listed_and_shown_with_what_was_asked_and_what_came_of_it(failed: Failed) -> None:
    listed = failed.operator.invoke("run.list")
    assert listed.code == 0
    assert failed.run_id in listed.out
    assert "the local stack is not running" in listed.out
    shown = failed.operator.invoke("run.show", failed.run_id)
    assert shown.code == 0
    assert "tables clients" in shown.out
    assert "SandboxFault: the local stack is not running" in shown.out
    assert "now: unfinished: surveying" in shown.out
    verified = failed.operator.json("run.verify", failed.run_id)
    assert (verified["lines"], verified["finished"], verified["torn"]) == (2, False, False)


@pytest.mark.parametrize("damage", [("not running", "not walking"), ('"seq":2', '"seq":3'), ("\n", "")])
def test_a_tampered_journal_is_told(failed: Failed, damage: tuple[str, str]) -> None:
    failed.damage(*damage)
    said = failed.operator.invoke("run.verify", failed.run_id)
    said.stopped("JournalBroken", str(failed.journal), "keep this file")


def test_a_broken_run_is_listed_as_broken_and_never_gone_on_with(failed: Failed) -> None:
    failed.damage("not running", "not walking")
    failed.operator.invoke("run.resume", failed.run_id).stopped("JournalBroken")
    (listed,) = failed.operator.json("run.list")["runs"]
    assert listed["state"] == "broken"
    shown = failed.operator.invoke("run.show", failed.run_id, "--json")
    assert shown.data["error"]["exit_code"] == shown.code == CODES["JournalBroken"]


def test_a_stack_that_is_not_there_can_be_asked_for_and_stopped(stranger: Operator) -> None:
    assert "there is no local stack" in stranger.invoke("sandbox.status").out
    down = stranger.json("sandbox.down")
    assert (down["stopped"], down["deleted"], down["running"]) == (False, False, None)


def test_a_run_that_is_not_there_or_no_run_at_all(failed: Failed) -> None:
    ana = failed.operator
    ana.invoke("run.show", "20200101-000000-aaaa").stopped("NotFound", str(ana.runs), "invoke run.list")
    ana.invoke("run.verify", "../../etc/passwd").stopped("UsageFault", "is not a run id")
    ana.invoke("recover.undo", "").stopped("UsageFault", "without a value")
    ana.invoke("recover.undo", failed.run_id).stopped("NotFound", "not a row recovery that came as far as a plan")


def test_help_after_a_positional_argument_or_in_its_place_is_help(stranger: Operator) -> None:
    for words in (("recover.undo", "--help"), ("run.resume", "20200101-000000-aaaa", "--help"), ("--help", "run.show")):
        said = stranger.invoke(*words)
        assert said.code == 0
        assert said.out.startswith("Usage:"), said
        assert "--run-id" in said.out
    assert not stranger.runs.exists(), "help started something"


@pytest.mark.parametrize("words", [("recover.acidental-delete",), ("run.list", "--yes"), ("run.show",)])
def test_what_invoke_does_not_know_starts_nothing(stranger: Operator, words: tuple[str, ...]) -> None:
    said = stranger.invoke(*words)
    assert (said.code, said.out) == (1, "")
    assert said.err.strip()
    assert "Traceback" not in said.err
    assert not stranger.runs.exists()


def test_a_reader_who_has_seen_enough_is_no_error(failed: Failed) -> None:
    reader = failed.operator.start("run.list")
    assert reader.stdout is not None
    reader.stdout.close()
    assert reader.wait(60) == 0
    assert reader.stderr is not None
    assert reader.stderr.read() == ""
    reader.stderr.close()


def test_an_answer_is_printed_in_whatever_the_terminal_can_show(failed: Failed) -> None:
    ana = failed.operator.having(BLOOM_DR_OPERATOR="María", PYTHONIOENCODING="ascii")
    ana.invoke(RECOVER, "--at", now(), "--tables", "clients").stopped("SandboxFault")
    said = ana.invoke("run.list")
    assert said.code == 0
    assert r"Mar\xeda" in said.out


def test_the_runs_folder_is_closed_to_others_and_an_unusable_one_is_told(failed: Failed, tmp_path: Path) -> None:
    for path in (failed.operator.runs, *failed.operator.runs.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    (tmp_path / "file").write_text("")
    lost = Operator(failed.operator.sandbox, tmp_path / "file" / "runs")
    lost.invoke(RECOVER, "--at", now(), "--tables", "clients").stopped("LocalFault", "BLOOM_DR_RUNS")
    assert lost.json("run.list") == {"runs": []}


@pytest.mark.long
def test_the_stack_tells_what_it_is_and_keeps_its_data_until_told_otherwise(tmp_path: Path) -> None:
    with stack_root() as root:
        one = Operator(root, tmp_path / "runs")
        try:
            assert "no local stack was running" in one.invoke("sandbox.down").out
            assert one.json("sandbox.up")["already"] is False
            assert one.json("sandbox.seed", "--clients", "100")["rows"]["clients"] == 100
            psql = one.invoke("sandbox.psql", stdin="select count(*) from clients")
            assert (psql.code, psql.out.split()[2]) == (0, "100"), psql
            one.invoke("sandbox.psql", "--branch", "nosuch").stopped("NotFound", "nosuch")
            down = one.json("sandbox.down")
            assert (down["stopped"], down["exists"], down["running"]) == (True, True, None)
            assert "its databases are in" in one.invoke("sandbox.status").out
            assert one.json("sandbox.up")["already"] is False
            assert one.json("sandbox.seed", "--clients", "100")["fresh"] is False
            assert one.json("sandbox.down", "--delete")["deleted"] is True
            assert not root.exists()
        finally:
            daemon.down(root)
            root.mkdir(exist_ok=True)  # stack_root removes it


def test_the_name_of_a_command_is_complete_by_itself(stranger: Operator) -> None:
    """`invoke --list` is what somebody types who remembers nothing: a line of help for each."""
    done = subprocess.run(
        ["invoke", "--list"], cwd=ROOT, env=stranger.environ, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert "recover.accidental-delete   Bring back rows that were deleted" in done.stdout
