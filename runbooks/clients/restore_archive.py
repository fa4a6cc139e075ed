"""Is a dump whole? Asked of its files alone, before a target is touched.

pg_restore does not ask: it loads the part that is left of a cut zstd file, and succeeds.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from runbooks.clients import programs
from runbooks.clients.dump_process import clean_environment, how_it_ended, run
from runbooks.clients.dump_toc import Entry, Toc, read_toc
from runbooks.clients.programs import Program
from runbooks.model.errors import ProofFailed, Refused

_SAFE = "no database was touched"
_END = b"\n\\.\n"
"""Ends the rows of a table. A backslash among the values is doubled, so nothing else looks like it."""


def client_for_archive(toc: Toc) -> Program:
    """A pg_restore that is not older than the pg_dump that wrote the archive; ToolMissing if there is none."""
    major = toc.client_version.split(".")[0]
    return programs.find("pg_restore", at_least=int(major) if major.isdigit() else None)


def check_files(folder: Path, entries: Iterable[Entry]) -> None:
    """Refused, with the names, unless each data file of `entries` is in `folder` and not empty."""
    data = [entry for entry in entries if entry.file]
    wrong = [f"{entry.file} ({entry})" for entry in data if not _has_content(folder / str(entry.file))]
    if wrong:
        raise Refused(
            f"the dump is not whole: missing or empty are {', '.join(wrong[:8])}",
            safe=_SAFE,
            next_step="fetch the files again, or use another backup",
        )


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0 or path.suffix == ".toc"
    except FileNotFoundError:
        return False


def decode(
    folder: Path,
    entries: Iterable[Entry] | None = None,
    *,
    client: Program | None = None,
    time_limit: timedelta = timedelta(hours=4),
) -> int:
    """Decompress the rows of all tables (of `entries`) and see each table's end; how many octets there were.

    Refused if a file is missing, ProofFailed if one is cut or cannot be decompressed. A changed value inside the rows
    is not noticed, nor a cut large object: that is what the hashes of the files are for.
    """
    toc = read_toc(folder)
    chosen = toc.entries if entries is None else tuple(entries)
    check_files(folder, chosen)
    client = client or client_for_archive(toc)
    deadline = time.monotonic() + time_limit.total_seconds()
    tables = [entry for entry in chosen if entry.kind == "TABLE DATA" and entry.file]
    ends, octets, said = _ends(folder, client, tables, deadline)
    if said is None and ends == len(tables):
        return octets
    broken = [str(entry) for entry in tables if _ends(folder, client, [entry], deadline)[0] != 1]
    which = ", ".join(broken[:8]) or said or "there are more ends than tables"
    raise ProofFailed(
        f"not every file of the dump can be decoded to its end: {which}",
        safe=_SAFE,
        next_step="fetch the files again, or use another backup",
    )


def _ends(folder: Path, client: Program, tables: list[Entry], deadline: float) -> tuple[int, int, str | None]:
    """How many tables' rows ended, how many octets there were, and how pg_restore failed."""
    found = _Ends()
    with tempfile.TemporaryDirectory(prefix="bloom-dr-") as place:
        listed = Path(place) / "list"
        listed.write_text("".join(f"{entry.id};\n" for entry in tables))
        code, story = run(
            [client.path, "--data-only", f"--use-list={listed}", "--file=-", folder],
            clean_environment(),
            deadline=deadline,
            stdout=subprocess.PIPE,
            on_output=found.take,
        )
    return found.ends, found.octets, None if code == 0 else f"pg_restore {how_it_ended(code)}: {story.worst()}"


class _Ends:
    def __init__(self) -> None:
        self.ends = 0
        self.octets = 0
        self._carried = b""

    def take(self, octets: bytes) -> None:
        self.octets += len(octets)
        # The ends do not overlap and are four octets long: three carried ones can hold no whole end.
        both = self._carried + octets[:3]
        self.ends += both.count(_END) + octets.count(_END)
        self._carried = (self._carried + octets)[-3:]
