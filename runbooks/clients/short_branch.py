"""A branch of the past for the length of a block: made, used, removed, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runbooks.clients.neon import Neon
from runbooks.clients.neon_types import Branch, BranchAt
from runbooks.model.errors import BloomError
from runbooks.model.moment import Moment
from runbooks.model.run_id import RunId

_RUN = "bloom-dr-run"


@contextmanager
def short_branch(
    neon: Neon, *, parent: Branch, moment: Moment, name: str, expires_at: Moment, run: RunId
) -> Iterator[BranchAt]:
    """The branch `name` with the data of `parent` at `moment`, as `Neon.branch_at` makes it or finds it.

    It is gone after the block. Only a process that is killed leaves it, until `expires_at`, or until the same call of
    the same run finds it and removes it then. If it cannot be removed after an error, the error says so in a note.
    """
    try:
        made = neon.branch_at(
            parent=parent, moment=moment, name=name, expires_at=expires_at, annotation={_RUN: str(run)}
        )
        yield made
    except BaseException as error:
        _remove_after(error, neon, name, run)
        raise
    neon.remove_branch(made.branch.id, name=name)


def _remove_after(error: BaseException, neon: Neon, name: str, run: RunId) -> None:
    """By its name, as it may have been made although no answer came; only if it is this run's."""
    try:
        found = neon.find_branch(name)
        if found and neon.annotation(found.id).get(_RUN) == str(run):
            neon.remove_branch(found.id, name=name)
    except BloomError as trouble:
        error.add_note(f"besides, branch {name} could not be removed; it expires by itself: {trouble}")
