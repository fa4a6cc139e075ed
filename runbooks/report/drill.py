"""The report of a drill: the strategy's quarterly checklist, filled in with what was measured. Markdown and JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from runbooks.model.drill import DATA, TEXT, DrillReport
from runbooks.model.errors import LocalFault


def write(report: DrillReport, folder: Path) -> tuple[Path, Path]:
    """Write `drill.md` and, last, `drill.json` (0600) into a run's folder; safe to repeat. Raises LocalFault."""
    pages = Environment(
        loader=PackageLoader("runbooks.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=False,
    )  # fmt: skip
    text = pages.get_template("drill.md.j2").render(report=report)
    markdown, data = folder / TEXT, folder / DATA
    _replace(markdown, text)
    _replace(data, json.dumps(report.as_json(), ensure_ascii=False, indent=2) + "\n")
    return markdown, data


def _replace(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    try:
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        new.replace(path)
    except OSError as trouble:
        raise LocalFault(
            f"cannot write {path}: {trouble.strerror}",
            safe="the drill's results are in the journal beside it",
            next_step="free space there, then: invoke run.list and run.resume",
        ) from trouble
