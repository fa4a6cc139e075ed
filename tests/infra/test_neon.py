"""The Neon project of a stack: what is demanded of it is set, drift is seen, and nothing is ever taken away from it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pulumi
import pytest
from pulumi.runtime.rpc import UNKNOWN

from infra.neon import NIGHTLY, NeonProject, NeonProjectArgs
from neon_posture.provider import PostureProvider
from runbooks.clients.neon import Neon
from runbooks.clients.neon_account import NeonAccount
from runbooks.clients.neon_types import SnapshotTime
from runbooks.model.errors import NotFound, PolicyFault, Refused, WrongTarget
from runbooks.model.policy import NeonEnvironment, SandboxEnvironment
from runbooks.model.policy_stack import StackPolicy
from runbooks.model.sandbox_place import API, KEY, PROJECT
from runbooks.sandbox.stack import Stack
from tests.infra.applying import apply
from tests.infra.cloud import Cloud
from tests.infra.dynamic_host import Host, host
from tests.infra.kinds.neon import MADE, PASSWORD

DAY = 86_400
Inputs = dict[str, Any]
MAIL = {"kind": "email", "address": "a@example.com"}
ALERTS = {"page": MAIL, "mail": MAIL, "chat": MAIL}
OPERATORS = ("arn:aws:iam::123456789012:user/on-call",)


def inputs(**change: Any) -> Inputs:
    return {
        "api": "https://console.neon.tech/api/v2",
        "api_key_env": KEY,
        "project": "quiet-lake-123456",
        "history_seconds": 7 * DAY,
        "protected": True,
        "snapshots": [dict(NIGHTLY)],
        "logical_replication": False,
        **change,
    }


# --- what is refused before anything is asked of Neon ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"history_seconds": 0}, "history_seconds"),
        ({"history_seconds": 31 * DAY}, "history_seconds"),
        ({"history_seconds": 7200.5}, "history_seconds"),
        ({"protected": "yes"}, "protected"),
        ({"project": "Quiet Lake"}, "project"),
        ({"branch": "main"}, "branch"),
        ({"api": "http://neon.example/api/v2"}, "api"),
        ({"api_key_env": "napi-key"}, "api_key_env"),
        ({"snapshots": [{**NIGHTLY, "hour": 24}]}, "snapshots.0.hour"),
        ({"snapshots": [{**NIGHTLY, "frequency": "hourly"}]}, "snapshots.0.frequency"),
        ({"snapshots": [{"frequency": "daily", "hour": 3}]}, "snapshots.0.retention_seconds"),
        ({"snapshots": [{**NIGHTLY, "retention_seconds": 36 * DAY}]}, "snapshots.0.retention_seconds"),
    ],
)
def test_an_input_that_neon_does_not_take_is_refused_by_its_name(wrong: Inputs, place: str) -> None:
    failures = PostureProvider().check({}, inputs(**wrong)).failures
    assert [each.property for each in failures] == [place]


def test_inputs_as_the_wire_brings_them_are_taken() -> None:
    floats = inputs(history_seconds=604800.0, snapshots=[{**NIGHTLY, "hour": 3.0}], branch=None, branch_id=None)
    assert PostureProvider().check({}, floats).failures == []
    assert not PostureProvider().diff("x", floats, inputs()).changes


def test_a_project_that_is_still_to_be_made_is_no_wrong_input_but_any_other_is_still_found() -> None:
    assert PostureProvider().check({}, inputs(project=UNKNOWN)).failures == []
    failures = PostureProvider().check({}, inputs(project=UNKNOWN, history_seconds=1)).failures
    assert [each.property for each in failures] == ["history_seconds"]


@pytest.mark.parametrize("moved", ["other-lake-123456", UNKNOWN])
def test_c26_another_project_is_a_replacement_which_the_guard_stops(moved: str) -> None:
    assert PostureProvider().diff("x", inputs(), inputs(project=moved)).replaces == ["project"]
    assert PostureProvider().diff("x", inputs(), inputs(history_seconds=8 * DAY)).replaces == []


def test_what_neon_cannot_take_back_is_refused_in_the_preview() -> None:
    on, off = inputs(logical_replication=True), inputs()
    assert [each.property for each in PostureProvider().check(on, off).failures] == ["logical_replication"]
    assert PostureProvider().check(off, on).failures == []


@pytest.mark.parametrize(("held", "changes"), [(6 * DAY, True), (7 * DAY, False), (30 * DAY, False)])
def test_c25_a_history_longer_than_promised_is_no_drift_and_a_shorter_one_is(held: int, changes: bool) -> None:
    assert PostureProvider().diff("x", inputs(history_seconds=float(held)), inputs()).changes is changes


# --- against the sandbox's Neon --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def neon(shared_stack: Stack) -> Neon:
    """A project of this file's own, in the region that a new one would be asked for."""
    account = NeonAccount(api=shared_stack.api_url, key=shared_stack.api_key)
    version = account.open(shared_stack.project_id).project().pg_version
    return account.open(
        account.create_project(
            name="posture", region_id="aws-us-east-1", pg_version=version, database="neondb", role="neondb_owner",
            history_retention=timedelta(days=1),
        ).id
    )  # fmt: skip


@pytest.fixture
def wanted(neon: Neon, shared_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    """Of a project that has none of it yet, except what Neon cannot take back."""
    monkeypatch.setenv(KEY, shared_stack.api_key.reveal())
    main = neon.set_protected(neon.default_branch(), False)
    neon.set_history_retention(timedelta(days=1))
    neon.set_snapshot_schedule(main, [])
    decodes = neon.project().settings.enable_logical_replication
    return inputs(api=shared_stack.api_url, project=neon.project_id, logical_replication=decodes)


@pytest.fixture
def engine_side(shared_stack: Stack) -> Iterator[Host]:
    with host(PostureProvider(), {KEY: shared_stack.api_key.reveal()}) as running:
        yield running


def test_a_project_is_adopted_drift_is_seen_and_mended_and_delete_leaves_all_as_it_is(
    engine_side: Host, neon: Neon, wanted: Inputs, shared_stack: Stack
) -> None:
    assert list(engine_side.check({}, wanted).failures) == []
    id_, state = engine_side.create(wanted)
    main = neon.default_branch()
    assert (id_, state["branch_id"]) == (neon.project_id, main.id)
    assert main.protected
    assert neon.project().history_retention == timedelta(days=7)
    assert neon.snapshot_schedule(main.id) == (SnapshotTime(**NIGHTLY),)
    assert not engine_side.differs(id_, state, wanted)
    assert shared_stack.api_key.reveal() not in json.dumps(state) + engine_side.serialized

    changed_at = _updated(neon)
    assert engine_side.create(wanted) == (id_, state)
    assert _updated(neon) == changed_at, "what is as wanted is left alone"

    neon.set_protected(main, False)
    neon.set_history_retention(timedelta(hours=6))
    neon.set_snapshot_schedule(main, [])
    seen, now = engine_side.read(id_, state)
    assert (seen["protected"], seen["history_seconds"], seen["snapshots"]) == (False, 6 * 3600, [])
    assert now["history_seconds"] == 6 * 3600, "the next check compares with what is, not with what was asked"
    assert engine_side.differs(id_, seen, wanted)
    assert engine_side.update(id_, seen, wanted) == state

    engine_side.delete(id_, state)
    assert engine_side.read(id_, state)[0] == state


def _updated(neon: Neon) -> Any:
    body = neon._get(neon._path(), "reading the project")
    branch = neon._get(neon._path("branches", neon.default_branch().id), "reading the branch")
    return body["project"]["updated_at"], branch["branch"]["updated_at"]


def test_a_refusal_reaches_the_person_with_what_is_safe_and_what_to_do(engine_side: Host, wanted: Inputs) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        engine_side.create({**wanted, "region": "aws-eu-central-1"})
    told = str(caught.value.details())
    assert "and the policy wants aws-eu-central-1" in told
    assert "safe: nothing of it was changed" in told
    assert "next: " in told


def test_an_adoption_shortens_no_history(neon: Neon, wanted: Inputs) -> None:
    neon.set_history_retention(timedelta(days=30))
    made = PostureProvider().create(wanted)
    assert neon.project().history_retention == timedelta(days=30)
    assert made.outs is not None
    assert made.outs["history_seconds"] == 30 * DAY
    assert not PostureProvider().diff(made.id, made.outs, wanted).changes


def test_a_project_in_another_place_than_the_policy_wants_is_refused(neon: Neon, wanted: Inputs) -> None:
    here = {"region": "aws-us-east-1", "pg_version": float(neon.project().pg_version)}
    assert PostureProvider().create({**wanted, **here}).id == neon.project_id
    for elsewhere in ({"region": "aws-eu-central-1"}, {"pg_version": 16}):
        with pytest.raises(WrongTarget, match="and the policy wants"):
            PostureProvider().create({**wanted, **elsewhere})


def test_a_project_or_branch_that_is_gone_is_a_failure_and_no_drift(wanted: Inputs) -> None:
    for gone in ({"project": "none-lake-123456"}, {"branch": "br-none-000001"}):
        with pytest.raises(NotFound):
            PostureProvider().read("x", {**wanted, **gone})


def test_without_its_key_nothing_is_asked_of_neon(wanted: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY)
    with pytest.raises(PolicyFault, match=KEY):
        PostureProvider().create(wanted)


def test_logical_replication_goes_on_and_is_never_switched_off(neon: Neon, wanted: Inputs) -> None:
    on, off = ({**wanted, "logical_replication": each} for each in (True, False))
    PostureProvider().create(on)
    main = neon.set_protected(neon.default_branch(), False)
    with pytest.raises(Refused, match="cannot switch it off again"):
        PostureProvider().update(neon.project_id, {}, off)
    assert not neon.branch(main.id).protected, "a refused update does not do the rest"
    assert neon.project().settings.enable_logical_replication


# --- as the program declares it --------------------------------------------------------------------------------------


def declared(cloud: Cloud, args: NeonProjectArgs) -> Any:
    def program() -> None:
        made = NeonProject(args.environment, args)
        pulumi.export("project", made.project_id)
        pulumi.export("branch", made.branch_id)

    return apply(cloud, program, {})


def production(**section: Any) -> NeonProjectArgs:
    environment = NeonEnvironment.model_validate(
        {"project": "quiet-lake-123456", "branch": "br-main-000001", "database": "neondb", "role": "neondb_owner",
         "api_key_env": "NEON_API_KEY_X", "promised_window": "7d"}
    )  # fmt: skip
    stack = {"environments": ["production"], "alerts": ALERTS, "operators": OPERATORS, **section}
    return NeonProjectArgs.of("production", environment, StackPolicy.model_validate(stack), {})


POSTURE, NEW = "pulumi-python:dynamic/neon:Posture", "neon:resource:Project"


def test_c26_an_adopted_project_is_named_by_its_id_and_nothing_that_pulumi_could_delete(cloud: Cloud) -> None:
    stack = declared(cloud, production())
    posture = stack[POSTURE, "production"]
    assert stack.of(NEW) == []
    assert (posture.protect, posture.retain) == (True, True)
    assert stack.exported == {"project": "quiet-lake-123456", "branch": "br-main-000001"}
    asked = {name: posture.inputs[name] for name in inputs()}
    assert asked == inputs(api_key_env="NEON_API_KEY_X")
    assert PostureProvider().check({}, posture.inputs).failures == []


def test_c26_a_project_that_is_made_once_is_kept_and_nothing_of_it_is_a_change_later(cloud: Cloud) -> None:
    new = {"name": "Bloom", "region": "aws-us-east-1", "organization": "org-a-1"}
    stack = declared(cloud, production(new_project=new))
    project, posture = stack[NEW, "production"], stack[POSTURE, "production"]
    assert project.inputs == {"name": "Bloom", "org_id": "org-a-1"}
    assert (project.protect, project.retain, set(project.ignored)) == (True, True, {"name", "org_id"})
    assert set(project.ignored) >= set(project.inputs), "every input, or a rename in the policy replaces the database"
    assert posture.inputs["project"] == MADE
    assert "branch" not in posture.inputs, "the id in the policy is of another project"
    assert (posture.inputs["region"], posture.inputs["pg_version"]) == ("aws-us-east-1", 17)
    assert stack.needs(posture, project)


def test_the_password_of_a_new_project_is_marked_as_secret(cloud: Cloud) -> None:
    stack = declared(cloud, production(new_project={"name": "Bloom", "region": "aws-us-east-1"}))
    project = stack[NEW, "production"]
    holding = {name for name, value in project.outputs.items() if PASSWORD in str(value)}
    assert holding == set(project.secret_outputs)


def test_without_snapshots_the_schedule_is_empty_and_not_left_open(cloud: Cloud) -> None:
    assert declared(cloud, production(snapshots=False))[POSTURE, "production"].inputs["snapshots"] == []


def test_the_sandbox_is_found_by_its_variables_and_not_protected(cloud: Cloud) -> None:
    section = StackPolicy.model_validate({"environments": ["sandbox"], "alerts": ALERTS, "operators": OPERATORS})
    there = {API: "http://127.0.0.1:4000/api/v2", PROJECT: "small-lake-123456", KEY: "secret-key"}
    sandbox = SandboxEnvironment(sandbox=True)
    posture = declared(cloud, NeonProjectArgs.of("sandbox", sandbox, section, there))[POSTURE, "sandbox"]
    assert (posture.inputs["api"], posture.inputs["project"]) == (there[API], there[PROJECT])
    assert (posture.protect, posture.retain) == (False, False)
    assert "secret-key" not in str(posture)

    def without(change: Mapping[str, str]) -> None:
        NeonProjectArgs.of("sandbox", sandbox, section, change)

    with pytest.raises(PolicyFault, match=PROJECT):
        without({name: value for name, value in there.items() if name != PROJECT})
    with pytest.raises(PolicyFault, match="not an address on this machine"):
        without({**there, API: "https://console.neon.tech/api/v2"})


def test_no_module_of_infra_hides_one_of_pythons_own() -> None:
    """Pulumi runs the program with infra/ itself first on the path: infra/types.py would be everybody's `types`."""
    names = {path.stem for path in (Path(__file__).parents[2] / "infra").glob("*.py")} - {"__init__", "__main__"}
    assert not names & set(sys.stdlib_module_names)
