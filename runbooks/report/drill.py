"""The report of a drill: the strategy's quarterly checklist, filled in with what was measured. Markdown and JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from runbooks.model.errors import LocalFault
from runbooks.model.moment import Moment
from runbooks.model.objectives import Mark, Measured, Objective, judge
from runbooks.model.record import Record


class Check(Record):
    """One claim of the drill and whether it held."""

    claim: str
    held: bool
    found: str


class Test(Record):
    """One test of the checklist."""

    name: str
    incident: Moment
    moment: Moment
    recovery_run: str
    rto_seconds: float
    rto_allowed_seconds: float
    rpo_seconds: float | None
    """None: it could not be measured."""
    rpo_allowed_seconds: float
    judged: str
    result: str
    """PASS, FAIL or COULD NOT VERIFY."""
    checks: tuple[Check, ...]

    @classmethod
    def judged_by(
        cls,
        objective: Objective,
        measured: Measured,
        *,
        name: str,
        incident: Moment,
        moment: Moment,
        recovery_run: str,
        checks: tuple[Check, ...],
    ) -> Test:
        """A test passes if every check held and the objective was kept. Pure."""
        verdict = judge(objective, measured)
        passed = {Mark.PASSED: "PASS", Mark.MISSED: "FAIL"}.get(verdict.overall, "COULD NOT VERIFY")
        return cls(
            name=name,
            incident=incident,
            moment=moment,
            recovery_run=recovery_run,
            rto_seconds=measured.rto.total_seconds(),
            rto_allowed_seconds=objective.rto.total_seconds(),
            rpo_seconds=None if measured.rpo is None else measured.rpo.total_seconds(),
            rpo_allowed_seconds=objective.rpo.total_seconds(),
            judged=verdict.text,
            result=passed if all(check.held for check in checks) else "FAIL",
            checks=checks,
        )


class DrillReport(Record):
    run_id: str
    operator: str
    written: Moment
    zone: str
    postgres: str
    rows: int
    bytes: int
    tests: tuple[Test, ...]


def write(report: DrillReport, folder: Path) -> tuple[Path, Path]:
    """Write `drill.md` and `drill.json` (0600) into a run's folder; safe to repeat. Raises LocalFault."""
    pages = Environment(
        loader=PackageLoader("runbooks.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=False,
    )  # fmt: skip
    text = pages.get_template("drill.md.j2").render(report=report)
    markdown, data = folder / "drill.md", folder / "drill.json"
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
