"""`backup.fleet`: all databases of a stack, by processes here or by children of AWS Batch; well only if all are."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runbooks.model.fleet import INDEX, order
from runbooks.model.policy import SandboxEnvironment
from tests.commands.operator import CODES, LIMIT, Operator
from tests.stack import session, until

pytest.importorskip("pulumi_aws", reason="the jobs are those that the Pulumi program declares: make infra")

from tests.infra import cloud as clouds
from tests.infra.cloud import Cloud
from tests.infra.schedule_ground import NAMES, applied, backup_policy, fire, schedules

FLEET = ("backup.fleet", "--stack", "production")
DAILY = (*FLEET, "--tier", "daily")
PAIR = ("first", "second")
ALERTS = "".join(f'{to} = {{ kind = "email", address = "a@example.com" }}\n' for to in ("page", "mail", "chat"))


def policy(databases: dict[str, str], *, stacked: tuple[str, ...] | None = None) -> str:
    """Environments of one sandbox, each with a database of its own, in one stack."""
    environments = "".join(
        f'[environments.{name}]\nsandbox = true\ndatabase = "{database}"\n' for name, database in databases.items()
    )
    return (
        f'default_environment = "first"\nlocal_timezone = "UTC"\n{environments}'
        '[backup]\nbucket = "bloom-test"\nregion = "us-east-1"\n'
        f"[stacks.production]\nenvironments = {json.dumps(list(stacked or databases))}\n"
        'operators = ["arn:aws:iam::123456789012:user/a"]\n'
        f"[stacks.production.alerts]\n{ALERTS}"
    )


def having(operator: Operator, folder: Path, text: str) -> Operator:
    path = folder / "policy.toml"
    path.write_text(text)
    return operator.having(BLOOM_DR_POLICY=str(path))


@pytest.fixture(scope="session")
def two_databases(operator: Operator) -> Operator:
    with operator.database() as conn:
        conn.execute("create database second_one")
    with second(operator) as conn:
        conn.execute("create table notes as select n, 'a note' as text from generate_series(1, 50) as n")
    return operator


@contextmanager
def second(operator: Operator) -> Iterator[Any]:
    with operator.api() as api, session(api.uri(database="second_one")) as conn:
        yield conn


@pytest.fixture
def keeper(two_databases: Operator, tmp_path: Path) -> Operator:
    """Of a stack with two databases."""
    return having(two_databases, tmp_path, policy({"first": "neondb", "second": "second_one"}))


def backups(operator: Operator, environment: str) -> dict[str, Any]:
    found = operator.json("backup.list", "--env", environment)["backups"]
    return {one["id"]: one for one in found}


# --- by processes on this machine -------------------------------------------------------------------------------------


def test_every_database_gets_a_proved_backup_of_its_own(keeper: Operator) -> None:
    before = {name: backups(keeper, name) for name in PAIR}
    answer = keeper.json(*DAILY, "--local")
    assert (answer["routine"], answer["done"], answer["exit_code"]) == ("take-daily", 2, 0)
    assert [one["environment"] for one in answer["environments"]] == list(PAIR)
    rows = {}
    for name in PAIR:
        (added,) = {*backups(keeper, name)} - {*before[name]}
        found = backups(keeper, name)[added]
        assert found["rung"] >= 2
        assert added.startswith(f"{name}/")
        rows[name] = found["rows"]
    assert rows["second"] == 50
    assert rows["first"] > 50


def test_one_that_fails_stops_no_other_and_the_whole_is_not_ok(two_databases: Operator, tmp_path: Path) -> None:
    lame = having(two_databases, tmp_path, policy({"first": "nowhere", "second": "second_one"}))
    before = backups(lame, "second")
    said = lame.invoke(*DAILY, "--local", "--together", "1")
    assert said.code == 11, said
    assert said.out.splitlines()[0] == "take-daily of stack production: 1 of 2 done, 1 NOT"
    assert "second" in said.out.splitlines()[1], "those that failed come last"
    assert "nowhere" in said.out
    assert "next:" in said.out
    assert len(backups(lame, "second")) == len(before) + 1


def test_if_all_fail_alike_their_code_is_the_answer(two_databases: Operator, tmp_path: Path) -> None:
    lame = having(two_databases, tmp_path, policy({"first": "nowhere", "second": "nowhere_else"}))
    said = lame.invoke(*DAILY, "--local", "--json")
    codes = {one["exit_code"] for one in said.data["environments"]}
    assert codes == {said.code} == {said.data["exit_code"]}
    assert said.code not in (0, 11)


def test_their_age_is_judged_together_too(keeper: Operator) -> None:
    """Nothing else is due in these archives: they were taken a moment ago, or are not there at all."""
    said = keeper.invoke(*FLEET, "--fresh", "--local", "--json")
    assert said.data["routine"] == "fresh"
    singly = [keeper.invoke("backup.fresh", "--env", name, "--json").code for name in PAIR]
    assert [one["exit_code"] for one in said.data["environments"]] == singly


def test_who_interrupts_the_fleet_interrupts_all_of_it(keeper: Operator) -> None:
    before = {name: set(backups(keeper, name)) for name in PAIR}
    with keeper.database() as one, second(keeper) as other:
        for conn, table in ((one, "clients"), (other, "notes")):
            conn.execute(f"begin; lock table {table} in access exclusive mode")
        fleet = keeper.start(*DAILY, "--local")
        try:
            with keeper.database() as watching:
                until(lambda: _waiting(watching) == 2)
                fleet.send_signal(signal.SIGTERM)
                _, story = fleet.communicate(timeout=LIMIT)
                assert fleet.returncode == 130, story
                assert until(lambda: _waiting(watching) == 0)
        finally:
            fleet.kill()
            fleet.wait()
    assert {name: set(backups(keeper, name)) for name in PAIR} == before


def _waiting(conn: Any) -> int:
    found = conn.execute("select count(*) from pg_locks where not granted").fetchone()
    return int(found[0])


# --- what a child does ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aws() -> Iterator[Cloud]:
    """An account with the stack's schedules and jobs in it, as `pulumi up` leaves it."""
    with clouds.cloud() as running:
        running.reset()
        sandbox = SandboxEnvironment(sandbox=True)
        applied(running, dict.fromkeys(PAIR, sandbox), backup=backup_policy(encryption=None), protect=False)
        yield running


def at(operator: Operator, aws: Cloud) -> Operator:
    return operator.having(
        AWS_ENDPOINT_URL=aws.endpoint, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_REGION=aws.region
    )


def test_child_1_of_what_the_schedule_starts_takes_the_backup_of_the_second_database(
    keeper: Operator, aws: Cloud
) -> None:
    """From the schedule that AWS stores to a backup that lies in the archive."""
    job = fire(aws, schedules(aws)["take-daily"])["jobId"]
    (found,) = aws.client("batch").describe_jobs(jobs=[f"{job}:1"])["jobs"]
    before = {name: set(backups(keeper, name)) for name in PAIR}
    said = keeper.having(**{INDEX: "1"}).invoke(*found["container"]["command"])
    assert said.code == 0, said
    assert "PROVED" in said.err
    assert set(backups(keeper, "first")) == before["first"]
    (added,) = set(backups(keeper, "second")) - before["second"]
    assert added in said.out


@pytest.mark.parametrize(
    ("name", "says", "code"), [("fresh", "weekly backups are STALE", "Stale"), ("verify", "reached rung 5", None)]
)
def test_the_other_schedules_start_commands_that_are_understood(
    keeper: Operator, aws: Cloud, name: str, says: str, code: str | None
) -> None:
    """There is a daily backup here, and never a weekly one."""
    assert keeper.invoke("backup.take", "--tier", "daily", "--env", "second").code == 0
    job = fire(aws, schedules(aws)[name])["jobId"]
    (found,) = aws.client("batch").describe_jobs(jobs=[f"{job}:1"])["jobs"]
    said = keeper.having(**{INDEX: "1"}).invoke(*found["container"]["command"])
    assert said.code == (CODES[code] if code else 0), said
    assert says in said.out


def test_a_child_of_an_older_image_does_its_work_and_still_does_not_end_well(keeper: Operator) -> None:
    """Its policy knows other environments than the stack: some database may be nobody's."""
    before = backups(keeper, "second")
    grown = order([*PAIR, "third"])
    said = keeper.having(**{INDEX: "1"}).invoke(*FLEET, "--child", "--order", grown, "--tier", "daily")
    assert len(backups(keeper, "second")) == len(before) + 1
    said.stopped("Incomplete", "PROVED", "some database may have no child at all", "build and push the image")


@pytest.mark.parametrize(
    ("index", "kind", "says"),
    [(None, "UsageFault", f"{INDEX} is not set"), ("2", "PolicyFault", "this is child 2 of a fleet")],
)
def test_a_child_of_nobody_takes_no_backup(keeper: Operator, index: str | None, kind: str, says: str) -> None:
    child = keeper if index is None else keeper.having(**{INDEX: index})
    child.invoke(*FLEET, "--child", "--order", order(PAIR), "--tier", "daily").stopped(kind, says)


# --- in AWS Batch -----------------------------------------------------------------------------------------------------


def test_the_fleet_is_submitted_and_followed_to_its_end(keeper: Operator, aws: Cloud) -> None:
    answer = at(keeper, aws).json(*DAILY)
    assert (answer["done"], answer["exit_code"]) == (2, 0)
    (parent,) = aws.client("batch").describe_jobs(jobs=[answer["job"]])["jobs"]
    assert parent["jobQueue"].endswith(f"/{NAMES.job_queue}")
    assert parent["container"]["command"][:2] == ["backup.fleet", "--child"]
    again = at(keeper, aws).json(*DAILY, "--job", answer["job"])
    assert again == answer


def test_what_is_submitted_by_hand_is_what_the_schedule_starts(keeper: Operator, aws: Cloud) -> None:
    def kind_of(job: str) -> Any:
        (found,) = aws.client("batch").describe_jobs(jobs=[job])["jobs"]
        return found["jobDefinition"], found["jobQueue"], found["container"]["command"], found["arrayProperties"]

    by_hand = at(keeper, aws).json(*DAILY)["job"]
    assert kind_of(by_hand) == kind_of(fire(aws, schedules(aws)["take-daily"])["jobId"])


def test_children_that_failed_are_never_ok(keeper: Operator, aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_SIMPLE_BATCH_FAIL_AFTER", "0")  # the server is in this process
    said = at(keeper, aws).invoke(*DAILY)
    assert said.code == 31, said
    assert said.out.splitlines()[0] == "take-daily of stack production: 0 of 2 done, 2 NOT"


def test_who_does_not_wait_is_told_how_to_follow(keeper: Operator, aws: Cloud) -> None:
    said = at(keeper, aws).invoke(*DAILY, "--detach")
    assert said.code == 0
    assert "nothing is known of them yet" in said.out
    command = said.out.split("next: ")[1].strip()
    assert at(keeper, aws).paste(command).out.startswith("take-daily of stack production: 2 of 2 done")


def test_where_no_stack_is_up_nothing_is_started(keeper: Operator, aws: Cloud, tmp_path: Path) -> None:
    elsewhere = at(keeper, aws).having(AWS_REGION="eu-central-1")
    text = (tmp_path / "policy.toml").read_text().replace("us-east-1", "eu-central-1")
    having(elsewhere, tmp_path, text).invoke(*DAILY).stopped("FleetFault", "no job was started", "fleet")


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "exactly one of --tier, --verify N and --fresh"),
        (("--tier", "daily", "--fresh"), "exactly one of"),
        (("--tier", "dayly"), "'dayly' is not a tier"),
        (("--tier", "daily", "--stack", "prodction"), "did you mean 'production'?"),
        (("--tier", "daily", "--together", "4"), "--together without --local"),
        (("--tier", "daily", "--local", "--together", "0"), "--together '0'"),
        (("--tier", "daily", "--local", "--child"), "--local and --child"),
        (("--tier", "daily", "--local", "--job", "x"), "--job with --local"),
        (("--tier", "daily", "--local", "--detach"), "--detach with"),
    ],
)
def test_what_makes_no_sense_is_refused(stranger: Operator, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    someone = having(stranger, tmp_path, policy({"first": "a", "second": "b"}))
    someone.invoke("backup.fleet", *words).stopped("UsageFault", says)


def test_one_database_is_no_fleet_at_aws(stranger: Operator, tmp_path: Path) -> None:
    said = having(stranger, tmp_path, policy({"first": "neondb"})).invoke("backup.fleet", "--tier", "daily")
    said.stopped("UsageFault", "AWS Batch knows no array of one", "invoke backup.take --tier daily --env first")


def test_without_stacks_there_is_no_fleet(stranger: Operator, tmp_path: Path) -> None:
    text = policy({"first": "neondb"}).split("[stacks")[0]
    having(stranger, tmp_path, text).invoke("backup.fleet", "--tier", "daily").stopped("UsageFault", "[stacks.NAME]")
