"""Which backup stands in for a branch: never one that may hold the loss, nor one that nobody can read now."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbooks.clients.repository import Repository
from runbooks.model.backup import Rung
from runbooks.model.errors import NotFound, Refused, StillCold, UsageFault
from runbooks.model.moment import Moment
from runbooks.past.choice import choose
from runbooks.sandbox.s3 import S3Server
from tests.backups.ground import repository
from tests.backups.planted import Planted, in_archive, planted
from tests.stack import stack_root

AT = datetime(2025, 12, 3, 14, 30, tzinfo=UTC)
_names = itertools.count(1)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with stack_root() as root, S3Server(root / "s3") as server:
        yield server


class Shelf:
    """Backups of an environment of its own, each so many hours before the moment that is asked for."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.where: Repository = repository(server, environment=f"e{next(_names)}")

    def put(self, hours: float, **wishes: Any) -> Planted:
        one = planted(self.where.environment, AT - timedelta(hours=hours), **wishes)
        in_archive(self.server, [one])
        return one

    def choose(self, text: str = "latest") -> tuple[str, tuple[str, ...]]:
        chosen = choose(self.where, text, Moment.of(AT))
        return str(chosen.backup.id), chosen.passed_over


@pytest.fixture
def shelf(s3: S3Server) -> Shelf:
    return Shelf(s3)


def test_latest_is_the_newest_proved_one_that_was_finished_by_the_moment(shelf: Shelf) -> None:
    shelf.put(48)
    wanted = shelf.put(24)
    shelf.put(3 / 60)  # planted ones take four minutes: still under way at the moment
    shelf.put(-1)
    assert shelf.choose() == (str(wanted.id), ())


def test_c18_newer_ones_that_are_cold_or_unproved_are_passed_over_and_told(shelf: Shelf) -> None:
    wanted = shelf.put(24)
    cold, unproved = shelf.put(12, storage_class="GLACIER"), shelf.put(6, proved=Rung.REREAD)
    shelf.put(5, failed=Rung.REREAD)
    shelf.put(4, half=True)
    taken, told = shelf.choose()
    assert taken == str(wanted.id)
    assert [text.split(" ")[0] for text in told] == [str(cold.id), str(unproved.id)]


def test_one_that_was_under_way_at_the_moment_is_taken_by_its_name_and_a_later_one_is_not(shelf: Shelf) -> None:
    assert shelf.choose(str(shelf.put(3 / 60).id))[1] == ()
    with pytest.raises(Refused, match="started after"):
        shelf.choose(str(shelf.put(-1).id))


def test_c18_a_cold_one_is_said_to_be_cold_with_the_command_that_has_it_thawed(shelf: Shelf) -> None:
    cold = shelf.put(12, storage_class="DEEP_ARCHIVE")
    with pytest.raises(StillCold, match="up to 12h") as refused:
        shelf.choose(str(cold.id))
    assert f"invoke backup.restore {cold.id}" in refused.value.next_step
    with pytest.raises(NotFound, match="in cold storage"):
        shelf.choose()


@pytest.mark.parametrize("wishes", [{"half": True}, {"failed": Rung.REREAD}])
def test_what_must_not_be_relied_on_is_not_taken_by_its_name_either(shelf: Shelf, wishes: dict[str, Any]) -> None:
    bad = shelf.put(12, **wishes)
    with pytest.raises(Refused):
        shelf.choose(str(bad.id))
    with pytest.raises(NotFound):
        shelf.choose()


def test_an_unproved_one_alone_is_named_with_the_command_that_proves_it(shelf: Shelf) -> None:
    unproved = shelf.put(12, proved=None)
    with pytest.raises(NotFound) as refused:
        shelf.choose()
    assert f"invoke backup.verify --id {unproved.id}" in refused.value.next_step
    assert shelf.choose(str(unproved.id))[0] == str(unproved.id)


def test_a_backup_of_another_environment_is_refused(shelf: Shelf, s3: S3Server) -> None:
    with pytest.raises(UsageFault, match="is a backup of"):
        shelf.choose(str(Shelf(s3).put(12).id))
