"""The function that rotates DATABASE_URL: all four steps, against moto and a PostgreSQL behind the sandbox's Neon."""

from __future__ import annotations

import itertools
import json
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from botocore.exceptions import ClientError

from infra.rotation.fault import RotationFault
from infra.rotation.url import Url
from infra.rotation.versions import PENDING
from runbooks.sandbox.stack import Stack as Sandbox
from tests.infra.cloud import Cloud
from tests.infra.rotation_ground import STEPS, Wire, World, declared, logs_in, moved, wired, world
from tests.stack import stack_root

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Roles are left in it, each test's under names of its own."""
    with stack_root() as root, Sandbox.start(root) as running:
        yield running


@pytest.fixture(scope="module")
def account(_account: Cloud) -> Cloud:
    """With the function. Each test has secrets of its own in it."""
    _account.reset()
    declared(_account)
    return _account


@pytest.fixture
def group() -> str:
    return f"team{next(_numbers)}"


@pytest.fixture
def bloom(account: Cloud, sandbox: Sandbox, group: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """Seeded with the owner's login, as on the day of adoption, and never rotated."""
    made = world(account, sandbox, group)
    made.seed(OTHER="stays")
    made.answers(monkeypatch)
    return made


@pytest.fixture
def rotated(bloom: World) -> World:
    """The application logs in as the first of the two roles."""
    bloom.rotate()
    bloom.asked.clear()
    return bloom


def failing(world: World, step: str, token: str) -> str:
    """The step has to fail; what it said, down to the last line of its traceback. No secret may be in it."""
    with pytest.raises(RotationFault) as caught:
        world.take(step, token)
    told = "".join(traceback.format_exception(caught.value))
    passwords = {world.owner.password, *world.passwords()}
    assert [each for each in passwords if each in told] == []
    return str(caught.value)


# --- one rotation after the other


def test_the_other_role_gets_a_new_password_and_becomes_the_current_one(rotated: World) -> None:
    before = rotated.value()
    rotated.rotate()
    after = rotated.value()
    assert rotated.asked == list(STEPS)
    old, new = Url.parse(before["DATABASE_URL"]), Url.parse(after["DATABASE_URL"])
    assert (old.user, new.user) == rotated.roles
    assert old.password != new.password
    assert len(new.password) >= 43
    assert (new.rest, new.scheme) == (rotated.pooled.rest, rotated.pooled.scheme), "host, database and options stay"
    assert Url.parse(after["DATABASE_URL_DIRECT"]) == rotated.owner.as_role(new.user, new.password)
    assert after["OTHER"] == "stays"
    assert logs_in(after["DATABASE_URL"]) == logs_in(after["DATABASE_URL_DIRECT"]) == rotated.group
    assert rotated.value("AWSPREVIOUS") == before
    assert sorted(held for held in rotated.stages().values()) == [["AWSCURRENT"], ["AWSPREVIOUS"]]


def test_a_running_application_and_one_with_the_old_url_live_through_the_overlap(rotated: World) -> None:
    old = rotated.value()["DATABASE_URL"]
    with psycopg.connect(old, autocommit=True) as running:
        rotated.rotate()
        assert running.execute("select 1").fetchone() == (1,)
        assert logs_in(old) == rotated.group
        rotated.rotate()
        assert running.execute("select 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        logs_in(old)
    assert logs_in(rotated.value("AWSPREVIOUS")["DATABASE_URL"]) == rotated.group


def test_an_application_changes_over_from_the_role_that_it_had(bloom: World) -> None:
    bloom.rotate()
    assert Url.parse(bloom.value()["DATABASE_URL"]).user == bloom.roles[0]
    assert logs_in(bloom.owner.text()) == bloom.owner.user, "its password was not touched"


def test_what_one_of_the_two_creates_the_other_can_change(rotated: World) -> None:
    with psycopg.connect(rotated.owner.text(), autocommit=True) as owner:
        owner.execute(f"grant create on schema public to {rotated.group}")
    table = f"made_by_{rotated.group}"
    with psycopg.connect(rotated.value()["DATABASE_URL"], autocommit=True) as one:
        one.execute(f"create table {table} (id int)")
    rotated.rotate()
    with psycopg.connect(rotated.value()["DATABASE_URL"], autocommit=True) as other:
        other.execute(f"alter table {table} add column name text")
        assert other.execute("select count(*) from pg_stat_activity where usename = %s", [rotated.roles[1]]).fetchone()
        other.execute(f"drop table {table}")


def test_the_two_may_do_what_the_group_may_and_no_more(rotated: World) -> None:
    with psycopg.connect(rotated.value()["DATABASE_URL"], autocommit=True) as application:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            application.execute("create role intruder")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            application.execute("create table public.no_right_to_this (id int)")
    with psycopg.connect(rotated.owner.text()) as owner:
        found = owner.execute(
            "select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls "
            "from pg_roles where rolname = %s",
            [rotated.roles[0]],
        ).fetchone()
    assert found == (False,) * 5


@pytest.mark.parametrize("rewound", ["drop role {}", "alter role {} password 'of-a-day-before-yesterday'"])
def test_a_branch_restored_to_before_a_rotation_is_cured_by_the_next_one(rotated: World, rewound: str) -> None:
    """Neon restores roles and passwords with the data: what is current logs in no more, and what was before does."""
    rotated.rotate()
    with psycopg.connect(rotated.owner.text(), autocommit=True) as owner:
        owner.execute(rewound.format(rotated.roles[1]))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        logs_in(rotated.value()["DATABASE_URL"])
    assert logs_in(rotated.value("AWSPREVIOUS")["DATABASE_URL"]) == rotated.group
    rotated.rotate()
    assert logs_in(rotated.value()["DATABASE_URL"]) == rotated.group


@pytest.mark.parametrize("copied", [True, False])
def test_c29_when_it_is_set_up_the_present_login_is_tried_out_and_kept(bloom: World, copied: bool) -> None:
    """AWS says that it makes a pending version for that, and not what is in it: perhaps a copy, perhaps nothing."""
    before = bloom.value()
    if copied:
        bloom.manager.delete_secret(SecretId=bloom.secret, ForceDeleteWithoutRecovery=True)
        bloom.manager.create_secret(Name=bloom.secret, SecretString=json.dumps(before))
    bloom.manager.rotate_secret(
        SecretId=bloom.secret, RotationLambdaARN=bloom.function_arn, RotateImmediately=False,
        RotationRules={"AutomaticallyAfterDays": 90},
    )  # fmt: skip
    assert bloom.asked == ["testSecret"]
    assert bloom.value() == before


def test_c29_a_login_that_does_not_work_cannot_be_set_up_to_rotate(bloom: World) -> None:
    bloom.seed(bloom.owner.as_role("nobody", "wrong"))
    with pytest.raises(ClientError, match="logging in failed as nobody"):
        bloom.manager.rotate_secret(
            SecretId=bloom.secret, RotationLambdaARN=bloom.function_arn, RotateImmediately=False
        )


# --- C29: steps are repeated, and fail half-way


def test_c29_every_step_may_be_repeated_with_the_same_token(rotated: World) -> None:
    token, values = rotated.start(), []
    for step in STEPS[:3]:
        for _ in range(2):
            rotated.take(step, token)
            values.append(rotated.value(PENDING))
    for step in STEPS[:3]:  # again from the start, with a version that has its value
        rotated.take(step, token)
        values.append(rotated.value(PENDING))
    for step in ("finishSecret", "finishSecret", *STEPS):  # and when all is done
        rotated.take(step, token)
        values.append(rotated.value())
    assert all(value == values[0] for value in values), "a repeated step made another password"
    assert logs_in(values[0]["DATABASE_URL"]) == rotated.group
    assert rotated.stages()[token] == ["AWSCURRENT"]


def test_c29_a_finish_that_was_cut_off_is_finished_and_the_next_rotation_begins(rotated: World) -> None:
    token = rotated.rotate_until("finishSecret")
    before = next(version for version, held in rotated.stages().items() if "AWSCURRENT" in held)
    rotated.manager.update_secret_version_stage(
        SecretId=rotated.secret, VersionStage="AWSCURRENT", MoveToVersionId=token, RemoveFromVersionId=before
    )
    with pytest.raises(ClientError, match="still in progress"):
        rotated.rotate()
    rotated.take("finishSecret", token)
    assert rotated.stages() == {token: ["AWSCURRENT"], before: ["AWSPREVIOUS"]}
    rotated.rotate()


@pytest.fixture
def wire(sandbox: Sandbox) -> Iterator[Wire]:
    with wired(("127.0.0.1", Url.parse(sandbox.uri().reveal()).port)) as made:
        yield made


@pytest.fixture
def on_a_wire(account: Cloud, sandbox: Sandbox, group: str, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> World:
    made = world(account, sandbox, group, port=wire.port)
    made.seed()
    made.answers(monkeypatch)
    made.rotate()
    return made


@pytest.mark.parametrize(
    "cut", [{"cut_before": b"do $$"}, {"cut_before": b"commit"}, {"cut_after": b"commit"}], ids=lambda cut: str(cut)
)
def test_c29_a_connection_that_is_cut_while_the_password_is_set_leaves_the_current_version_usable(
    on_a_wire: World, wire: Wire, cut: dict[str, bytes]
) -> None:
    token, before = on_a_wire.rotate_until("setSecret"), on_a_wire.value()
    wire.cut_before, wire.cut_after = cut.get("cut_before"), cut.get("cut_after")
    failing(on_a_wire, "setSecret", token)
    assert on_a_wire.value() == before
    assert logs_in(before["DATABASE_URL"]) == on_a_wire.group
    wire.cut_before = wire.cut_after = None
    for step in STEPS[1:]:  # Secrets Manager tries again
        on_a_wire.take(step, token)
    assert logs_in(on_a_wire.value()["DATABASE_URL"]) == on_a_wire.group


@pytest.mark.parametrize("gone", ["pooled", "direct"])
def test_c29_a_test_that_fails_on_either_host_leaves_the_current_version_usable(
    rotated: World, wire: Wire, gone: str
) -> None:
    wire.cut_before = b"select current_user"  # this way one can log in, and ask nothing
    which = "pooled" if gone == "pooled" else "owner"
    broken = replace(rotated, **{which: moved(getattr(rotated, which).text(), wire.port)})
    broken.seed(Url.parse(rotated.value()["DATABASE_URL"]))
    broken.manager.put_secret_value(SecretId=rotated.admin, SecretString=broken.owner.text())
    token, before = broken.rotate_until("testSecret"), broken.value()
    assert f"as {broken.roles[1]} at ep-" in failing(broken, "testSecret", token)
    assert broken.value() == before
    wire.cut_before = None
    broken.take("testSecret", token)
    assert logs_in(before["DATABASE_URL"]) == broken.group


def test_c29_a_failure_reaches_secrets_manager(rotated: World) -> None:
    """What Lambda counts as an error of the function; the alarm on these is in the alarms."""
    before = rotated.value()
    with psycopg.connect(rotated.owner.text(), autocommit=True) as owner:
        owner.execute(f"create role {rotated.roles[1]} login")
    with pytest.raises(ClientError, match="is no member of"):
        rotated.rotate()
    assert rotated.asked == ["createSecret", "setSecret"]
    assert rotated.value() == before


def test_nothing_is_finished_that_has_no_value(rotated: World) -> None:
    token = rotated.start()
    assert "has no value" in failing(rotated, "setSecret", token)
    assert "has no value" in failing(rotated, "finishSecret", token)


def test_a_rotation_that_was_given_up_cannot_go_on(rotated: World) -> None:
    token = rotated.rotate_until("setSecret")
    rotated.manager.update_secret_version_stage(
        SecretId=rotated.secret, VersionStage=PENDING, RemoveFromVersionId=token
    )
    assert "given up" in failing(rotated, "setSecret", token)
    assert "given up" in failing(rotated, "finishSecret", "11111111-1111-1111-1111-111111111111")


def test_a_step_that_is_not_known_is_refused(rotated: World) -> None:
    assert "not known: deleteSecret" in failing(rotated, "deleteSecret", rotated.start())


# --- whose password is not changed


def test_a_role_of_somebody_else_keeps_its_password(rotated: World) -> None:
    with psycopg.connect(rotated.owner.text(), autocommit=True) as owner:
        owner.execute(f"create role {rotated.roles[1]} login password 'theirs-and-long-enough'")
    assert "is no member of" in failing(rotated, "setSecret", rotated.rotate_until("setSecret"))
    assert logs_in(rotated.owner.as_role(rotated.roles[1], "theirs-and-long-enough").text()) == rotated.roles[1]


def test_the_current_role_is_never_given_another_password(rotated: World) -> None:
    """Somebody has put back the other role by hand, while a rotation was under way."""
    token, before = rotated.rotate_until("setSecret"), rotated.value()
    made = rotated.manager.put_secret_value(  # in two calls, as moto would otherwise give up what is pending
        SecretId=rotated.secret, VersionStages=["BY_HAND"], SecretString=json.dumps(rotated.value(PENDING))
    )["VersionId"]
    current = next(version for version, held in rotated.stages().items() if "AWSCURRENT" in held)
    rotated.manager.update_secret_version_stage(
        SecretId=rotated.secret, VersionStage="AWSCURRENT", MoveToVersionId=made, RemoveFromVersionId=current
    )
    assert "must not be changed now" in failing(rotated, "setSecret", token)
    assert logs_in(before["DATABASE_URL"]) == rotated.group


def test_the_owner_is_never_given_another_password(rotated: World) -> None:
    token = rotated.start()
    rotated.manager.put_secret_value(
        SecretId=rotated.secret, ClientRequestToken=token, VersionStages=[PENDING],
        SecretString=rotated.manager.get_secret_value(
            SecretId=rotated.secret, VersionStage="AWSPREVIOUS"
        )["SecretString"],
    )  # fmt: skip
    assert f"logs in as {rotated.owner.user}" in failing(rotated, "setSecret", token)


def test_another_server_is_left_alone(rotated: World, sandbox: Sandbox) -> None:
    token = rotated.rotate_until("setSecret")
    elsewhere = replace(rotated.owner, rest=rotated.owner.rest.replace("ep-", "ep-other-"))
    rotated.manager.put_secret_value(SecretId=rotated.admin, SecretString=elsewhere.text())
    assert "to another server" in failing(rotated, "setSecret", token)


def test_without_a_group_there_are_no_rights_to_give(rotated: World) -> None:
    with psycopg.connect(rotated.owner.text(), autocommit=True) as owner:
        owner.execute(f"alter role {rotated.group} rename to {rotated.group}_away")
    assert f"no role {rotated.group}," in failing(rotated, "setSecret", rotated.rotate_until("setSecret"))


def test_a_role_that_does_not_become_its_group_does_not_pass(rotated: World) -> None:
    token = rotated.rotate_until("testSecret")
    with psycopg.connect(rotated.owner.text(), autocommit=True) as owner:
        owner.execute(f"alter role {rotated.roles[1]} reset role")
    assert f"is not {rotated.group} there" in failing(rotated, "testSecret", token)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("postgresql://u:planted@h/d", "not a JSON object"),
        ('["planted"]', "not a JSON object"),
        ('{"DATABASE_URL": "postgresql://u:planted@h/d"}', "not a JSON object"),
        (
            '{"DATABASE_URL": "postgresql://u:planted@h/d", "DATABASE_URL_DIRECT": "mysql://u:planted@h/d"}',
            "what should be a connection URL is not",
        ),
        (
            '{"DATABASE_URL": "postgresql://u:planted@h/d", "DATABASE_URL_DIRECT": "postgresql://v:planted@h/d"}',
            "as two roles: u and v",
        ),
    ],
)
def test_a_secret_in_another_form_is_refused_and_not_quoted(rotated: World, text: str, told: str) -> None:
    rotated.manager.put_secret_value(SecretId=rotated.secret, SecretString=text)
    token = rotated.start()
    with pytest.raises(RotationFault, match=told) as caught:
        rotated.take("createSecret", token)
    assert "planted" not in "".join(traceback.format_exception(caught.value))


# --- what is seen of a password


@pytest.fixture
def heard(sandbox: Sandbox) -> Iterator[Any]:
    """All that the server logs from now on, where somebody has it log DDL, and the text of whatever fails."""
    state = sandbox.plane.ledger.state
    login = replace(Url.parse(sandbox.uri().reveal()), user="cloud_admin", password=state.superuser_password)
    (log,) = sandbox.root.rglob("log")
    with psycopg.connect(login.text(), autocommit=True) as admin:
        for setting in (
            "log_statement = 'ddl'",
            "log_min_error_statement = 'debug5'",
            "log_error_verbosity = 'verbose'",
        ):
            admin.execute(f"alter system set {setting}")
        admin.execute("select pg_reload_conf()")
        start = log.stat().st_size
        yield lambda: log.read_bytes()[start:].decode()
        admin.execute("alter system reset all")
        admin.execute("select pg_reload_conf()")


def test_no_password_is_in_a_log_of_ddl(rotated: World, heard: Any) -> None:
    token = rotated.rotate_until("testSecret")
    new = Url.parse(rotated.value(PENDING)["DATABASE_URL"])
    with psycopg.connect(rotated.owner.text(), autocommit=True) as owner:
        owner.execute(f"alter role {new.user} password 'a-password-in-a-statement'")
    assert "a-password-in-a-statement" in heard(), "this server does log DDL"
    rotated.take("setSecret", token)
    assert new.password not in heard()


def test_no_password_is_in_the_log_when_it_cannot_be_set(rotated: World, heard: Any) -> None:
    rotated.rotate()
    token = rotated.rotate_until("setSecret")
    with psycopg.connect(rotated.owner.text(), autocommit=True) as owner:  # somebody who may not change the two
        owner.execute(f"create role weak{rotated.group} login password 'long-enough-to-log-in' in role {rotated.group}")
        weak = rotated.owner.as_role(f"weak{rotated.group}", "long-enough-to-log-in")
    rotated.manager.put_secret_value(SecretId=rotated.admin, SecretString=weak.text())
    assert "permission denied" in failing(rotated, "setSecret", token)
    assert "permission denied" in heard()
    assert Url.parse(rotated.value(PENDING)["DATABASE_URL"]).password not in heard()
