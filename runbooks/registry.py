"""Every runbook, in the order in which the index page lists them."""

from __future__ import annotations

from runbooks import (
    accidental_delete,
    drill,
    find_moment,
    prune_backups,
    restore_backup,
    sync_backups,
    take_backup,
    undo_recovery,
    verify_backup,
)
from runbooks.engine.step import AnyRunbook
from runbooks.model.errors import NotFound

RUNBOOKS: tuple[AnyRunbook, ...] = (
    accidental_delete.RUNBOOK,
    find_moment.RUNBOOK,
    undo_recovery.RUNBOOK,
    restore_backup.RUNBOOK,
    take_backup.RUNBOOK,
    verify_backup.RUNBOOK,
    prune_backups.RUNBOOK,
    sync_backups.RUNBOOK,
    drill.RUNBOOK,
)


def runbook_named(name: str) -> AnyRunbook:
    """The runbook that a journal names. Raises NotFound."""
    for runbook in RUNBOOKS:
        if runbook.name == name:
            return runbook
    raise NotFound(
        f"this version knows no runbook {name!r}",
        safe="nothing was changed",
        next_step="go on with the version that started the run; this one has: invoke --list",
    )
