"""A loss, its recovery, the same again, a conflict, and the way back: what a person and a script are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from invoke import Collection, Task

from tests.commands.operator import CODES, Operator, Said, now

RECOVER = "recover.accidental-delete"


def lost(operator: Operator, *statements: str) -> str:
    """A moment, and after it the accident."""
    moment = now()
    for statement in statements:
        operator.sql(statement)
    return moment


def consented(operator: Operator, *words: str) -> Said:
    """Preview, then the command that it printed, with `--json`."""
    preview = operator.invoke(*words)
    assert preview.code == CODES["ConsentNeeded"], preview
    return operator.paste(f"{preview.pasted} --json")


def test_rows_come_back_the_second_run_finds_nothing_to_do_and_undo_takes_them_away(operator: Operator) -> None:
    whole, branches = operator.checksums(), operator.branches()
    moment = lost(operator, "delete from reservations where client_id in (50, 51)")
    broken = operator.checksums()
    words = (RECOVER, "--at", moment, "--tables", "reservations")

    preview = operator.invoke(*words)
    first = operator.paste(f"{preview.pasted} --json")
    assert first.code == 0
    assert preview.out == ""
    _no_secret_is_told(operator, first.data["run_id"], preview, first)
    assert first.data["verdict"] == "proved"
    assert operator.checksums() == whole | {"audit_log": broken["audit_log"], **_moved(whole, broken, "audit_log")}
    assert operator.branches() == branches

    with operator.nothing_changes():
        again = operator.invoke(*words, "--json")
    assert again.code == 0
    assert again.data["verdict"] == "nothing missing"
    assert "nothing was changed" in again.data["summary"]
    assert ["rows inserted", "0"] in again.data["facts"]

    back = consented(operator, "recover.undo", first.data["run_id"])
    assert (back.code, back.data["verdict"]) == (0, "proved")
    assert operator.checksums() == broken
    with operator.nothing_changes():
        assert operator.json("recover.undo", first.data["run_id"])["facts"][0] == ["rows deleted", "0"]


def _no_secret_is_told(operator: Operator, run_id: str, *said: Said) -> None:
    with operator.api() as api:
        password = urlsplit(api.uri()).password
        key = api.client.headers["Authorization"].removeprefix("Bearer ")
    assert password
    commands = ("run.show", run_id), ("run.show", run_id, "--json"), ("sandbox.up", "--json"), ("sandbox.status",)
    answers = [*said, *(operator.invoke(*words) for words in commands)]
    for text in (*(each.out + each.err for each in answers), operator.written()):
        assert password not in text
        assert key not in text


def _moved(whole: dict[str, str], broken: dict[str, str], name: str) -> dict[str, str]:
    """What the delete itself did to that table, its partitions and sequences: the recovery leaves it alone."""
    return {each: state for each, state in broken.items() if each.startswith(name) and whole[each] != state}


def test_a_row_in_conflict_is_listed_and_the_rest_comes_back(operator: Operator) -> None:
    operator.sql("update clients set referred_by = null where referred_by in (60, 61)")
    moment = lost(
        operator,
        "delete from clients where id in (60, 61)",
        "insert into clients (full_name, email, city) values ('Otra', 'cliente.60@correo.example', 'Puebla')",
    )
    said = consented(operator, RECOVER, "--at", moment, "--tables", "clients")
    assert (said.code, said.data["verdict"]) == (CODES["Incomplete"], "incomplete")
    assert operator.sql("select id from clients where id in (60, 61)") == [(61,)]
    assert operator.sql("select full_name from clients where email = 'cliente.60@correo.example'") == [("Otra",)]
    (about,) = [item for item in said.data["left_open"] if "public.clients:" in item]
    assert "clients_email_key" in about
    assert "(60)" in about
    assert f"open: {about}" in said.err
    shown = operator.invoke("run.show", said.data["run_id"])
    assert f"open: {about}" in shown.out


def test_every_command_that_reports_does_so_in_json(operator: Operator) -> None:
    import tasks

    silent = {"sandbox.psql", "sandbox.aws", "docs.pages", "backup.gate"}
    for name, task in _all_tasks(tasks.namespace).items():
        assert ("json" in {a.name for a in task.get_arguments()}) == (name not in silent), name
    assert operator.json("sandbox.up")["already"] is True
    assert operator.json("sandbox.status")["running"]["root"] == str(operator.sandbox)
    assert operator.invoke("sandbox.seed", "--clients", "200", "--json").data["error"]["kind"] == "Refused"
    assert operator.json("run.list")["runs"]


def _all_tasks(namespace: Collection) -> dict[str, Task[Any]]:
    return {name: namespace[name] for name in namespace.task_names}


@pytest.mark.long
def test_who_stops_reading_does_not_stop_a_recovery(operator: Operator) -> None:
    moment = lost(operator, "delete from payments where id = 20")
    preview = operator.invoke(RECOVER, "--at", moment, "--tables", "payments")
    process = operator.start(*preview.pasted.split()[1:])
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    assert process.wait(60) == 0
    assert operator.sql("select id from payments where id = 20") == [(20,)]


@pytest.mark.long
def test_the_drill_leaves_a_report_and_nothing_else(operator: Operator) -> None:
    with operator.nothing_changes():
        answer = operator.json("drill.quarterly", "--clients", "100")
    assert answer["verdict"] == "proved"
    report = Path(dict(answer["facts"])["report"])
    assert "PASS" in report.read_text()
    told = json.loads(report.with_suffix(".json").read_text())
    assert (told["run_id"], told["counts_for"]) == (answer["run_id"], None)
    assert (answer["results"]["keep"]["keys"], answer["results"]["measure"]["names"]) == ([], [])
    assert not list(operator.sandbox.parent.glob(f"*{answer['run_id']}*"))
