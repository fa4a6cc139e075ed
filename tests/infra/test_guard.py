"""The guard, on recorded previews. The engine's tests run it on what the real engine says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra import guard
from runbooks.model.errors import Refused, UsageFault

BUCKET, ALARM = "aws:s3/bucket:Bucket", "aws:cloudwatch/metricAlarm:MetricAlarm"
TASK = "aws:ecs/taskDefinition:TaskDefinition"


def urn(token: str, name: str = "it") -> str:
    return f"urn:pulumi:production::bloom-dr::bloom-dr:infra:Archive${token}::{name}"


def step(op: str, token: str = BUCKET, **old: Any) -> dict[str, Any]:
    return {"op": op, "urn": urn(token), "oldState": {"urn": urn(token), "type": token, **old}}


def preview(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """As the engine of 3.274 writes it: what stays the same is counted, and shown only if asked for."""
    counted: dict[str, int] = {"same": 7}
    for each in steps:
        counted[each["op"]] = counted.get(each["op"], 0) + 1
    return {"config": {}, "steps": list(steps), "diagnostics": [], "changeSummary": counted, **more}


TAKEN_AWAY = ["delete", "replace", "create-replacement", "delete-replaced", "discard", "remove-pending-replace", "xyz"]


@pytest.mark.parametrize("op", TAKEN_AWAY)
@pytest.mark.parametrize("token", sorted(guard.STATEFUL))
def test_c26_what_holds_data_is_not_taken_away(op: str, token: str) -> None:
    with pytest.raises(Refused, match=f"would {op} .*{token}::it"):
        guard.check(preview(step("create", ALARM), step(op, token)))


@pytest.mark.parametrize("op", TAKEN_AWAY)
@pytest.mark.parametrize("kept", ["protect", "retainOnDelete"])
def test_what_was_protected_stays_so_although_the_change_no_longer_protects_it(op: str, kept: str) -> None:
    with pytest.raises(Refused, match=ALARM):
        guard.check(preview(step(op, ALARM, **{kept: True}) | {"newState": {"protect": False}}))


@pytest.mark.parametrize("op", sorted(guard.HARMLESS))
def test_what_changes_or_adds_passes(op: str) -> None:
    guard.check(preview(step(op, protect=True)))


@pytest.mark.parametrize("op", ["delete", "replace"])
def test_what_holds_nothing_may_go(op: str) -> None:
    guard.check(preview(step(op, ALARM)))


def test_a_new_revision_of_a_task_passes_and_the_end_of_it_does_not() -> None:
    replaced = [step(op, TASK, retainOnDelete=True) for op in ("create-replacement", "replace", "delete-replaced")]
    guard.check(preview(*replaced))
    for op in set(TAKEN_AWAY) - guard.REPLACED:
        with pytest.raises(Refused, match=f"would {op}"):
            guard.check(preview(step(op, TASK, retainOnDelete=True)))


@pytest.mark.parametrize("op", sorted(guard.REPLACED))
def test_only_revisions_that_nobody_protected_may_be_replaced(op: str) -> None:
    assert not guard.REVISIONS & guard.STATEFUL
    with pytest.raises(Refused):
        guard.check(preview(step(op, TASK, protect=True, retainOnDelete=True)))
    with pytest.raises(Refused):
        guard.check(preview(step(op, ALARM, retainOnDelete=True)))


def test_every_resource_is_named_and_only_the_one_let_go_passes() -> None:
    key = "aws:kms/key:Key"
    both = preview(step("delete"), step("replace", key))
    with pytest.raises(Refused) as caught:
        guard.check(both)
    assert all(urn(token) in str(caught.value) for token in (BUCKET, key))
    with pytest.raises(Refused) as caught:
        guard.check(both, allowed=[urn(key)])
    assert urn(key) not in str(caught.value)
    guard.check(both, allowed=[urn(key), urn(BUCKET)])


@pytest.mark.parametrize(
    "broken",
    [
        {}, [], None, {"steps": []}, {"steps": "none", "changeSummary": {}}, {"steps": [{}], "changeSummary": {}},
        {"steps": [{"op": "same", "urn": "x"}], "changeSummary": {"same": 1}},
        preview() | {"changeSummary": {"delete": 1}},
        preview(diagnostics=[{"severity": "error", "message": "preview failed"}]),
    ],
)  # fmt: skip
def test_a_preview_that_is_not_whole_passes_nothing(broken: Any) -> None:
    with pytest.raises(UsageFault, match="cannot be judged"):
        guard.check(broken)


def test_the_command_says_what_and_ends_with_its_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "preview.json"
    file.write_text(json.dumps(preview(step("delete"))))
    assert guard.main([str(file)]) == Refused.exit_code
    assert urn(BUCKET) in capsys.readouterr().err
    assert guard.main([str(file), "--allow", urn(BUCKET)]) == 0
    file.write_text(file.read_text()[:-5])
    assert guard.main([str(file)]) == UsageFault.exit_code
    assert guard.main([str(tmp_path / "none.json")]) == UsageFault.exit_code


def test_without_pulumi_nothing_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert guard.main(["--stack", "production"]) == UsageFault.exit_code
