"""The client against the sandbox: the same calls, with PostgreSQL and its history behind the API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from runbooks.clients.neon import Neon
from runbooks.clients.neon_account import NeonAccount
from runbooks.clients.neon_types import Branch
from runbooks.model.dsn import Dsn
from runbooks.model.errors import NeonFault, Refused
from runbooks.model.moment import Moment
from runbooks.sandbox.stack import Stack, now

DATABASE, ROLE = "shop", "shop_owner"


@pytest.fixture(scope="module")
def neon(shared_stack: Stack) -> Iterator[Neon]:
    """A project of this file's own."""
    account = NeonAccount(
        api=shared_stack.api_url, key=shared_stack.api_key, sleep=lambda pause: time.sleep(min(pause, 0.02))
    )
    like = account.open(shared_stack.project_id).project()
    made = account.create_project(
        name="test-neon-client",
        region_id=like.region_id,
        pg_version=like.pg_version,
        database=DATABASE,
        role=ROLE,
        history_retention=timedelta(days=1),
    )
    project = account.open(made.id)
    ask(project, project.default_branch(), "create table orders (id int); insert into orders values (1), (2)")
    yield project
    account.delete_project(made.id, name="test-neon-client")


def reach(neon: Neon, branch: Branch) -> Dsn:
    return neon.connection(branch=branch, database=DATABASE, role=ROLE)


def ask(neon: Neon, branch: Branch, statement: str) -> Any:
    with closing(psycopg.connect(**reach(neon, branch).keywords(), autocommit=True)) as session:
        cursor = session.execute(statement.encode())
        return cursor.fetchone() if cursor.description else None


def branch_at(neon: Neon, parent: Branch, moment: Moment, name: str) -> Any:
    expires_at = Moment.of(now().utc + timedelta(hours=1))
    return neon.branch_at(parent=parent, moment=moment, name=name, expires_at=expires_at, annotation={"run": name})


def accident(neon: Neon, branch: Branch) -> Moment:
    """Rows are lost; returns the moment before."""
    before = Moment.of(ask(neon, branch, "select clock_timestamp()")[0])
    ask(neon, branch, "select pg_sleep(0.01)")
    ask(neon, branch, "delete from orders")
    return before


def test_a_branch_of_the_past_has_what_production_lost_and_is_removed_afterwards(neon: Neon) -> None:
    main = neon.default_branch()
    before = accident(neon, main)
    made = branch_at(neon, main, before, "recovery-1")
    assert made.gap is not None
    assert made.gap >= timedelta(0)
    assert ask(neon, made.branch, "select count(*) from orders") == (2,)
    assert ask(neon, main, "select count(*) from orders") == (0,)
    assert branch_at(neon, main, before, "recovery-1").branch == made.branch
    for _ in range(2):
        neon.remove_branch(made.branch.id, name="recovery-1")
    assert neon.find_branch("recovery-1") is None
    ask(neon, main, "insert into orders values (1), (2)")


def test_c24_a_protected_branch_is_restored_and_protected_again(neon: Neon) -> None:
    main = neon.default_branch()
    before = accident(neon, main)
    neon.set_protected(main, True)
    with neon.unprotected(main):
        neon.restore_branch(branch=main, source=main, moment=before, preserve_under="before-restore")
    assert neon.branch(main.id).protected
    neon.set_protected(main, False)
    assert ask(neon, main, "select count(*) from orders") == (2,)


def test_c24_a_child_of_a_protected_branch_is_reached_with_its_own_password(neon: Neon) -> None:
    main = neon.default_branch()
    neon.set_protected(main, True)
    made = branch_at(neon, main, now(), "child-of-protected")
    neon.set_protected(main, False)
    assert reach(neon, made.branch).password != reach(neon, main).password
    assert ask(neon, made.branch, "select current_user") == (ROLE,)
    neon.remove_branch(made.branch.id, name="child-of-protected")


def test_a_disabled_compute_takes_no_connection_until_it_is_enabled(neon: Neon) -> None:
    main = neon.default_branch()
    (endpoint,) = neon.endpoints(main.id)
    neon.disable_endpoint(endpoint)
    with pytest.raises(psycopg.OperationalError):
        ask(neon, main, "select 1")
    neon.enable_endpoint(endpoint)
    neon.restart_endpoint(endpoint)
    assert ask(neon, main, "select 1") == (1,)


def test_a_reset_password_is_valid_at_once_and_the_old_one_is_dead(neon: Neon) -> None:
    main = neon.default_branch()
    old = reach(neon, main)
    new = neon.reset_password(branch_id=main.id, role=ROLE)
    assert reach(neon, main).password == new == neon.reveal_password(branch_id=main.id, role=ROLE)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(**old.keywords())
    assert ask(neon, main, "select 1") == (1,)


def test_a_snapshot_is_taken_once_and_deleted(neon: Neon) -> None:
    main = neon.default_branch()
    made = neon.create_snapshot(branch=main, name="forensic")
    assert neon.create_snapshot(branch=main, name="forensic").id == made.id
    neon.delete_snapshot(made.id, name="forensic")
    assert neon.snapshots() == ()


def test_a_history_beyond_the_plan_is_refused_in_neons_words(neon: Neon) -> None:
    with pytest.raises(NeonFault, match="history"):
        neon.set_history_retention(timedelta(days=31))


def test_a_database_is_made_once_empty_and_belongs_to_its_owner(neon: Neon) -> None:
    main = neon.default_branch()
    for _ in range(2):
        made = neon.create_database(branch=main, name="restored", owner=ROLE)
        assert (made.name, made.owner_name) == ("restored", ROLE)
    with closing(psycopg.connect(**reach(neon, main).with_database("restored").keywords())) as session:
        assert session.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone() == (0,)
    for statement in ("create role other", "grant other to current_user", "create database others owner other"):
        ask(neon, main, statement)
    with pytest.raises(Refused, match="belongs to other"):
        neon.create_database(branch=main, name="others", owner=ROLE)
