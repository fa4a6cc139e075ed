"""Whole projects: brought back, made once, deleted only when they are the ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from runbooks.clients.neon_types import Project
from runbooks.model.errors import NotFound, Refused, WrongTarget
from tests.fakes.neon_http import FakeNeon, busy, cut_after, cut_before, gateway_after, half_after
from tests.fakes.neon_memory import PROJECT

LOST = pytest.mark.parametrize(
    "lost", [cut_after, cut_before, half_after, gateway_after, busy], ids=lambda fault: fault.__name__
)


@pytest.fixture
def fake() -> Iterator[FakeNeon]:
    with FakeNeon() as fake:
        yield fake


def create(fake: FakeNeon, **other: Any) -> Project:
    asked: dict[str, Any] = {
        "name": "shop-rebuilt",
        "region_id": "aws-eu-central-1",
        "pg_version": 17,
        "database": "shop",
        "role": "shop_owner",
        "history_retention": timedelta(days=7),
    }
    return fake.account().create_project(**{**asked, **other})


@LOST
def test_a_deleted_project_is_found_and_brought_back(fake: FakeNeon, lost: Any) -> None:
    account = fake.account(org_id="org-1")
    account.delete_project(PROJECT, name="shop")
    (gone,) = account.recoverable_projects()
    assert gone.id == PROJECT
    fake.fail("POST", "/recover", lost)
    assert account.recover_project(PROJECT).name == "shop"
    assert account.recover_project(PROJECT).name == "shop", "a project that lives is returned"
    assert account.recoverable_projects() == ()
    assert {one.query.get("org_id") for one in fake.seen if one.path == "/projects"} == {"org-1"}


def test_a_project_that_cannot_be_brought_back_is_not_found(fake: FakeNeon) -> None:
    with pytest.raises(NotFound):
        fake.account().recover_project("gone-for-good-000001")


@LOST
def test_a_project_is_made_once_and_ready_also_when_the_answer_is_lost(fake: FakeNeon, lost: Any) -> None:
    fake.polls = 2
    fake.page_size = 1
    fake.fail("POST", "/projects", lost)
    made = create(fake)
    assert create(fake).id == made.id
    assert [each["name"] for each in fake.projects.values()] == ["shop", "shop-rebuilt"]
    assert not any(fake.pending.values())
    neon = fake.account().open(made.id)
    assert neon.default_branch().project_id == made.id


def test_the_name_of_another_kind_of_project_is_refused(fake: FakeNeon) -> None:
    with pytest.raises(Refused, match="exists, but in aws-eu-central-1 with PostgreSQL 17"):
        create(fake, name="shop", pg_version=18)
    assert fake.changes() == []


def test_two_projects_of_one_name_are_refused(fake: FakeNeon) -> None:
    fake.projects["quiet-lake-999999"] = fake.projects[PROJECT] | {"id": "quiet-lake-999999"}
    with pytest.raises(Refused, match="2 projects are named shop"):
        create(fake, name="shop")


@LOST
def test_a_project_is_deleted_only_under_its_own_name(fake: FakeNeon, lost: Any) -> None:
    with pytest.raises(WrongTarget, match="is named shop, not Shop"):
        fake.account().delete_project(PROJECT, name="Shop")
    assert PROJECT in fake.projects
    fake.fail("DELETE", ".*", lost)
    for _ in range(2):
        fake.account().delete_project(PROJECT, name="shop")
    assert fake.projects == {}
