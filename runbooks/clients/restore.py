"""Restore a dump with pg_restore, and say exactly what became of it."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from runbooks.clients.dump_process import failure, login, run
from runbooks.clients.dump_toc import read_toc
from runbooks.clients.postgres import connect
from runbooks.clients.programs import Program
from runbooks.clients.restore_archive import check_files, client_for_archive, decode
from runbooks.clients.restore_complaints import SETTINGS_SINCE, Complaint, Kind, Toleration, classify
from runbooks.clients.restore_outlook import LeftOut, Outlook, Target, foresee, require_all_tables, require_room
from runbooks.model.dsn import Dsn
from runbooks.model.errors import ProofFailed, Refused

_UNFINISHED = "the backup is as it was; what arrived in the target is not complete and not to be used"
_FINISHED = re.compile(r"finished item \d+ TABLE DATA ")
_COMPLETED = re.compile(r"errors ignored on restore: \d+")


@dataclass(frozen=True)
class RestoreResult:
    """What became of a restore that ran to its end. It is good only if `failures` is empty: see `require`."""

    complaints: tuple[Complaint, ...]
    left_out: tuple[LeftOut, ...]
    """What the target cannot take. It was said before, and is said again."""
    grants: tuple[str, ...]
    """Statements that bring the privileges back, for roles that the target has."""
    client: Program
    seconds: float

    def of(self, kind: Kind) -> tuple[Complaint, ...]:
        return tuple(complaint for complaint in self.complaints if complaint.kind is kind)

    @property
    def failures(self) -> tuple[Complaint, ...]:
        return self.of(Kind.FAILURE)

    @property
    def clean(self) -> bool:
        """Everything in the dump is in the target, and nothing was waved through."""
        return not self.left_out and not any(c.kind is not Kind.WARNING for c in self.complaints)

    def require(self) -> RestoreResult:
        """Itself; ProofFailed with each failed statement if there were any (C03)."""
        if self.failures:
            told = "; ".join(complaint.text[:300] for complaint in self.failures[:20])
            raise ProofFailed(
                f"{len(self.failures)} statements of the restore failed: {told}",
                safe=_UNFINISHED,
                next_step="drop the target, cure what the messages name, and restore into a new database",
            )
        return self


def outlook(folder: Path, dsn: Dsn, *, owners: bool = False, tables: Sequence[str] | None = None) -> Outlook:
    """What a restore of `folder` into `dsn` will do and leave out. Only reads.

    Refused if the dump is not whole, its version is unknown (C01), or the target is not empty (C07).
    """
    toc = read_toc(folder)
    with connect(dsn, application_name="bloom-dr restore") as conn:
        found = foresee(toc, Target.of(conn), owners=owners, tables=tables)
        check_files(folder, toc.entries if tables is None else found.entries)
        require_room(conn, tables)
    return found


def restore(
    folder: Path,
    dsn: Dsn,
    *,
    jobs: int,
    tables: Sequence[str] | None = None,
    owners: bool = False,
    tolerated: Sequence[Toleration] = (),
    checked: bool = False,
    time_limit: timedelta = timedelta(hours=12),
    progress: Callable[[str], None] | None = None,
) -> RestoreResult:
    """Restore the dump in `folder` into the empty database `dsn`, with `jobs` sessions.

    Owned by the role of `dsn`, without privileges; with `owners` as at the source, for which the roles must exist and
    the role of `dsn` be a superuser. With `tables` only these, without foreign keys to and triggers from others.
    `checked`: the hash of every file was compared just now; else all are decoded first, because pg_restore takes a cut
    file for a short one. A target that is not empty, and a dump that is not whole, are refused before the first write.

    Not safe to repeat: a failed restore leaves a part. Raises what `outlook` raises; ProofFailed (a file cannot be
    decoded); Refused if the target cannot take a table; and what pg_restore's early end means. Statements that failed
    while it went on are in the result.
    """
    started = time.monotonic()
    plan = outlook(folder, dsn, owners=owners, tables=tables)
    require_all_tables(plan, _cannot_take)
    client = client_for_archive(read_toc(folder))
    if not checked:
        decode(folder, plan.entries, client=client, time_limit=time_limit)
    counting = _Counting(sum(entry.kind == "TABLE DATA" for entry in plan.entries), progress)
    with login(dsn, "bloom-dr restore") as way, tempfile.TemporaryDirectory(prefix="bloom-dr-") as place:
        listed = Path(place) / "list"
        listed.write_text("".join(f"{entry.id};\n" for entry in plan.entries))
        at_once = _at_once(dsn, client, jobs)
        command: list[str | Path] = [client.path, "--format=directory", f"--jobs={at_once}", "--verbose"]
        command += ["--no-password"]
        command += [f"--use-list={listed}", "--no-tablespaces", f"--dbname={way.conninfo}"]
        command += [] if owners else ["--no-owner", "--no-privileges"]
        deadline = started + time_limit.total_seconds()
        code, story = run([*command, folder], way.environment, deadline=deadline, on_line=counting.hear)
    ended_early = code != 0 and not any(_COMPLETED.search(text) for text in story.warnings)
    if code not in (0, 1) or ended_early:
        raise failure("restore the dump", code, story, safe=_UNFINISHED)
    complaints = classify(story, tolerated)
    if code == 1 and all(complaint.kind is Kind.WARNING for complaint in complaints):
        raise failure("restore the dump", code, story, safe=_UNFINISHED)
    return RestoreResult(complaints, plan.left_out, plan.grants, client, time.monotonic() - started)


def _at_once(dsn: Dsn, client: Program, jobs: int) -> int:
    """One, where each session begins with a complaint about a setting that the older server does not have: of several
    that complain at the same time the words mix, and what is not understood is a failure (C02)."""
    with connect(dsn, application_name="bloom-dr restore") as conn:
        server = conn.info.server_version // 10000
    return 1 if any(server < since <= client.version[0] for since in SETTINGS_SINCE) else jobs


class _Counting:
    def __init__(self, total: int, progress: Callable[[str], None] | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def hear(self, line: str) -> None:
        if self._progress and _FINISHED.match(line):
            self._done += 1
            self._progress(f"restored the rows of {self._done} of {self._total} tables")


def _cannot_take(what: str) -> Refused:
    return Refused(
        what, safe="the target is as it was", next_step="give the target what is missing, or choose another target"
    )
