"""`backup.gate -- COMMAND`: the command runs behind a proved backup, as if it had been typed; else it does not run."""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runbooks.cli import gate
from runbooks.cli.gate import command_in, require_proved
from runbooks.clients import programs
from runbooks.engine.plan import Ending, Verdict
from runbooks.engine.step import Ended
from runbooks.model.errors import BloomError, UsageFault
from runbooks.model.run_id import RunId
from tests.clients.dump_ground import fake
from tests.commands.operator import LIMIT, Operator, lines_until

GATE = ("backup.gate", "--")
PYTHON = (sys.executable, "-c")


def ended(verdict: Verdict) -> Ended:
    open_ends = () if verdict is Verdict.PROVED else ("the key of the process that took it is gone",)
    at = datetime(2025, 12, 3, tzinfo=UTC)
    ending = Ending(verdict=verdict, summary="a backup", left_open=open_ends)
    return Ended(RunId.parse("20251203-020000-aaaa"), Path("runs"), ending, {}, "hash", at, at)


# --- what it decides -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.PROVED])
def test_no_ending_but_a_proved_one_lets_a_command_through(verdict: Verdict) -> None:
    with pytest.raises(BloomError) as stopped:
        require_proved(ended(verdict))
    wanted = "ProofFailed" if verdict is Verdict.FAILED else "CouldNotVerify"
    assert type(stopped.value).__name__ == wanted
    assert stopped.value.happened.endswith("a backup; the key of the process that took it is gone")


def test_a_proved_one_lets_it_through() -> None:
    require_proved(ended(Verdict.PROVED))


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.COULD_NOT_VERIFY])
def test_behind_a_backup_that_is_not_proved_it_says_that_nothing_was_run(
    verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[Any] = []
    monkeypatch.setattr(gate, "_become", became.append)
    desk: Any = SimpleNamespace(start=lambda *_: ended(verdict), voice=SimpleNamespace(ended=lambda _: None))
    with pytest.raises(BloomError) as stopped:
        gate.pass_through(desk, ("migrate", "deploy"))
    assert stopped.value.__notes__ == ["the command was not run: migrate"]
    assert not became


def test_words_stay_as_they_were_given() -> None:
    words = ("sh", "-c", 'echo "two  words" --', "", "--", "*")
    assert command_in(["invoke", "backup.gate", "--env", "sandbox", "--", *words]) == words


@pytest.mark.parametrize("words", [(), ("--",), ("--", ""), ("--", "no-such-program"), ("--", "/etc/passwd")])
def test_without_a_command_that_can_be_run_nothing_is_started(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageFault, match="behind the backup"):
        command_in(["invoke", "backup.gate", *words])


# --- as a process ----------------------------------------------------------------------------------------------------


def backups(operator: Operator) -> list[str]:
    """Ids of the pre-migration backups that are verified."""
    found = operator.json("backup.list")["backups"]
    return [one["id"] for one in found if one["tier"] == "pre-migration" and one["rung"] >= 2]


def marking(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """A command that shows that it was run."""
    mark = folder / "was-run"
    return mark, (*PYTHON, f"open({str(mark)!r}, 'w').close()")


def test_the_command_runs_behind_a_proved_backup_as_if_it_had_been_typed(operator: Operator, tmp_path: Path) -> None:
    """Its words, stdin, stdout, folder, signals and exit code are its own; not a word of ours is on its stdout."""
    before = backups(operator)
    script = (
        "import os, signal, sys; print(sys.argv[1:], input(), os.getcwd(), os.environ['MINE']); "
        "print(signal.getsignal(signal.SIGPIPE) is not None, signal.getsignal(signal.SIGTERM)); sys.exit(7)"
    )
    mine = operator.having(MINE="as before")
    said = mine.invoke(*GATE, *PYTHON, script, "two  words", "", "--env", stdin="typed\n")
    assert said.code == 7, said
    assert said.out == f"['two  words', '', '--env'] typed {os.getcwd()} as before\nTrue 0\n"  # noqa: PTH109
    assert "PROVED" in said.err
    (added,) = {*backups(operator)} - {*before}
    assert added in said.err


def test_a_command_that_is_killed_tells_so(operator: Operator) -> None:
    killed = "invoke backup.gate -- sh -c 'kill -TERM $$'"
    assert operator.paste(f"{killed}; exit $?").code == 128 + signal.SIGTERM


def test_a_broken_pipe_ends_the_command_as_it_does_without_us(operator: Operator) -> None:
    """Python ignores SIGPIPE, and a program that it becomes would go on writing."""
    said = operator.invoke(*GATE, "sh", "-c", "(yes; echo $? >&2) | head -1")
    assert said.out == "y\n"
    assert said.err.splitlines()[-1] == "141", said.err


def test_ctrl_c_reaches_the_command_once_and_its_code_is_the_answer(operator: Operator) -> None:
    script = (
        "import signal, sys, time; hits = []; signal.signal(signal.SIGINT, lambda *_: hits.append(1));"
        "print('ready', file=sys.stderr, flush=True);"
        "end = time.monotonic() + 60\n"
        "while not hits and time.monotonic() < end: time.sleep(0.01)\n"
        "time.sleep(0.2); sys.exit(40 + len(hits))"
    )
    process = operator.start(*GATE, *PYTHON, script)
    try:
        lines_until(process, "ready")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.communicate(timeout=LIMIT)
        assert process.returncode == 41
    finally:
        process.kill()


def test_a_backup_that_fails_stops_the_command_and_says_so(operator: Operator, tmp_path: Path) -> None:
    before = backups(operator)
    mark, command = marking(tmp_path)
    real = programs.find("pg_dump", at_least=17)
    fake(tmp_path / "bin", "pg_dump", '[ "$1" = --version ] && { echo "pg_dump (PostgreSQL) 17.10"; exit 0; }; exit 1')
    fake(tmp_path / "bin", "pg_dumpall", f'exec "{real.sibling("pg_dumpall")}" "$@"')
    said = operator.having(BLOOM_DR_PG_BIN=str(tmp_path / "bin")).invoke(*GATE, *command)
    said.stopped("DatabaseFault", f"the command was not run: {sys.executable}")
    assert not mark.exists()
    assert backups(operator) == before


def test_ctrl_c_during_the_backup_stops_the_command_too(operator: Operator, tmp_path: Path) -> None:
    mark, command = marking(tmp_path)
    process = operator.start(*GATE, *command)
    lines_until(process, "take")
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert f"the command was not run: {sys.executable}" in told
    assert not mark.exists()


def test_a_command_that_turns_out_not_to_run_is_told_and_the_backup_stays(operator: Operator, tmp_path: Path) -> None:
    script = tmp_path / "no-first-line"
    script.write_bytes(b"\x7fELF and nothing more")
    script.chmod(0o755)
    before = backups(operator)
    said = operator.invoke(*GATE, str(script))
    said.stopped("LocalFault", "cannot be run: Exec format error", "the backup is there and proved")
    assert len(backups(operator)) == len(before) + 1


@pytest.mark.parametrize("words", [("backup.gate",), ("backup.gate", "--")])
def test_no_command_is_a_mistake_that_starts_nothing(stranger: Operator, words: tuple[str, ...]) -> None:
    stranger.invoke(*words).stopped("UsageFault", "no command was given", "invoke backup.gate -- ")


def test_an_environment_that_is_not_there_is_told_before_the_command_is_thought_of(stranger: Operator) -> None:
    stranger.invoke("backup.gate", "--env", "productoin", "--", "true").stopped("UsageFault", "productoin")


def test_a_preview_of_a_gate_does_not_exist(stranger: Operator) -> None:
    stranger.invoke("--dry", *GATE, "true").stopped("UsageFault", "backup.gate has no dry form")
