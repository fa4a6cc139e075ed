"""Every way a run can end other than well: what happened, what is safe, what to do next, and a stable exit code.

Exit codes are a contract for scripts: a number never changes its meaning, and an unknown one means failure.
`docs/errors.md` is generated from this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar


class BloomError(Exception):
    """A failure told to a person. Raise a subclass; the three sentences are all mandatory.

    `happened` starts in lower case and names the thing; `safe` says what was not touched or is still intact;
    `next_step` names a command that exists. None of them may carry a secret: they are printed and journalled.
    """

    exit_code: ClassVar[int]
    meaning: ClassVar[str]
    """One line for `docs/errors.md`: when this code is given."""

    def __init__(self, happened: str, *, safe: str, next_step: str) -> None:
        super().__init__(happened)
        if not (happened and safe and next_step):
            raise ValueError("an error says what happened, what is safe and what to do next")
        self.happened = happened
        self.safe = safe
        self.next_step = next_step

    def with_cleanup_trouble(self, trouble: BaseException) -> BloomError:
        """Attach what went wrong while cleaning up after this error; it never replaces this error. Returns self."""
        self.add_note(f"while cleaning up: {trouble}")
        return self


class UsageFault(BloomError):
    exit_code = 2
    meaning = "the command line or a value in it is not understood; nothing was started"


class PolicyFault(BloomError):
    exit_code = 3
    meaning = "the policy file is missing, malformed or contradicts itself"


class ConsentNeeded(BloomError):
    exit_code = 10
    meaning = "the preview is done and nothing was changed; the run waits for `--confirm` with the value it printed"

    def __init__(self, happened: str, *, safe: str, next_step: str, page: Path | None = None) -> None:
        """`page`: the preview as a file that can be sent to whoever has to approve."""
        super().__init__(happened, safe=safe, next_step=next_step)
        self.page = page


class Incomplete(BloomError):
    exit_code = 11
    meaning = "the run ended and everything it did is proved, but not everything that was asked for could be done"


class OutsideWindow(BloomError):
    exit_code = 12
    meaning = "the asked moment is not in the history that Neon still holds"


class WrongTarget(BloomError):
    exit_code = 13
    meaning = "a database is not the one it has to be, or two that must differ are the same one"


class LockHeld(BloomError):
    exit_code = 14
    meaning = "another recovery is at work on the same database"


class NotFound(BloomError):
    exit_code = 15
    meaning = "a table, column, branch, project, database or run that was named does not exist"


class Refused(BloomError):
    exit_code = 16
    meaning = "going on could lose or falsify data, so the run stopped before it changed anything"


class NeonFault(BloomError):
    exit_code = 20
    meaning = "the Neon API refused, failed or answered something that cannot be right"


class DatabaseUnreachable(BloomError):
    exit_code = 21
    meaning = "no connection to a database within the time allowed"


class LoginRefused(BloomError):
    exit_code = 22
    meaning = "a database or the Neon API did not accept our credentials or our rights"


class DatabaseFault(BloomError):
    exit_code = 23
    meaning = "a statement failed; its transaction was rolled back"


class ToolMissing(BloomError):
    exit_code = 24
    meaning = "a program this needs (psql, postgres) is not on this machine, or is too old"


class LocalFault(BloomError):
    exit_code = 25
    meaning = "a local file or folder could not be read or written (disk full, no permission)"


class SandboxFault(BloomError):
    exit_code = 26
    meaning = "the local stack could not be started, or is not running"


class TableLocked(BloomError):
    exit_code = 27
    meaning = "another session kept a table or row locked for longer than we wait; our transaction was rolled back"


class ArchiveFault(BloomError):
    exit_code = 28
    meaning = "the archive (S3) refused, failed or holds something else than it should"


class StillCold(BloomError):
    exit_code = 29
    meaning = "an object of the archive is in cold storage (Glacier): its thaw is to be asked for, or is under way"


class ProofFailed(BloomError):
    exit_code = 30
    meaning = "what was written was compared with what it should be, and differs"


class CouldNotVerify(BloomError):
    exit_code = 31
    meaning = "the proof could not be carried out; this is never counted as a pass"


class JournalBroken(BloomError):
    exit_code = 32
    meaning = "a run's journal was altered or cut, so nothing in it can be relied on"


class ObjectiveMissed(BloomError):
    exit_code = 33
    meaning = "a drill recovered the data, but slower or with more loss than the policy allows"


class DeadlinePassed(BloomError):
    exit_code = 34
    meaning = "a step took longer than its deadline"


class MetricsFault(BloomError):
    exit_code = 35
    meaning = "numbers about backups did not reach CloudWatch: the backups are untouched, but an alarm may be wrong"


class Stale(BloomError):
    exit_code = 36
    meaning = "no verified backup is as new as the schedule promises"


class FleetFault(BloomError):
    exit_code = 37
    meaning = "AWS Batch refused or failed; what it has begun goes on, and its outcome may be unknown"


INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM; the run can be resumed."""

UNEXPECTED = 1
"""Exit code of a fault in this program itself."""


def every_error() -> Iterator[type[BloomError]]:
    """All error classes that carry an exit code, by code."""
    yield from sorted(BloomError.__subclasses__(), key=lambda kind: kind.exit_code)
