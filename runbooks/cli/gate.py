"""A migration runs only behind a backup that was just taken and proved: then this process becomes the migration.

It is replaced, not watched: so stdin, stdout, the terminal, Ctrl-C and the exit code are the migration's own.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from runbooks.cli.desk import Desk
from runbooks.engine.plan import Verdict
from runbooks.engine.step import Ended
from runbooks.model.backup import Tier
from runbooks.model.errors import CouldNotVerify, LocalFault, ProofFailed, UsageFault
from runbooks.take_backup import RUNBOOK, Request

Command = tuple[str, ...]
_DASHES = "--"
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""By Python, and what is ignored stays so in the program that comes after it."""


def command_in(argv: Sequence[str]) -> Command:
    """The words after the first `--`, as they were given: invoke's own `remainder` has lost where each of them ended.

    UsageFault if there is none, or no such program.
    """
    command = tuple(argv[argv.index(_DASHES) + 1 :]) if _DASHES in argv else ()
    if not command:
        raise _usage("no command was given to run behind the backup")
    if shutil.which(command[0]) is None:
        raise _usage(f"there is no program {command[0]!r} to run behind the backup")
    return command


def pass_through(desk: Desk, command: Command) -> NoReturn:
    """Take and prove a pre-migration backup, then become the command.

    Whatever stops the backup is raised as it is, with a note that the command was not run; for one that is not proved
    it is ProofFailed or CouldNotVerify.
    """
    try:
        ended = desk.start(RUNBOOK, Request(tier=Tier.PRE_MIGRATION))
        require_proved(ended)
    except BaseException as error:
        error.add_note(f"the command was not run: {command[0]}")
        raise
    desk.voice.ended(ended.ending)
    _become(command)


def require_proved(ended: Ended) -> None:
    """ProofFailed or CouldNotVerify for every ending but a proved one."""
    ending = ended.ending
    if ending.verdict is Verdict.PROVED:
        return
    kind = ProofFailed if ending.verdict is Verdict.FAILED else CouldNotVerify
    raise kind(
        "; ".join((f"the backup is not proved ({ending.verdict}): {ending.summary}", *ending.left_open)),
        safe="the database was only read",
        next_step=f"invoke run.show {ended.run_id} tells what was found; when its cause is gone, run this again",
    )


def _become(command: Command) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise LocalFault(
            f"{command[0]} cannot be run: {error.strerror}",
            safe="the backup is there and proved, and the command did nothing",
            next_step="cure what the message names (a script begins with a line such as #!/bin/sh), then try again",
        ) from error


def _usage(why: str) -> UsageFault:
    return UsageFault(
        why,
        safe="no backup was taken, and no command was run",
        next_step="name the command after two dashes: invoke backup.gate -- npx prisma migrate deploy",
    )
