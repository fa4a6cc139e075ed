"""The report of a drill as data, and where it lies in the archive of the environment that it counts for."""

from __future__ import annotations

import re

from runbooks.model.backup_id import ENVIRONMENT
from runbooks.model.moment import Moment
from runbooks.model.objectives import Mark, Measured, Objective, judge
from runbooks.model.record import Record
from runbooks.model.run_id import RunId

DRILLED = ("accidental-delete", "corruption")
"""The objectives that a drill tests, by their names in the policy. A drill of fewer proves nothing."""
DATA, TEXT = "drill.json", "drill.md"
"""What a report is made of, in the run's folder and in the archive: for programs and for people."""


class Check(Record):
    """One claim of the drill and whether it held."""

    claim: str
    held: bool
    found: str


class Test(Record):
    """One test of the checklist."""

    scenario: str
    """One of DRILLED."""
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

    @property
    def held(self) -> bool:
        """Every check held: what the recovery took is the time of a recovery, not of a failure."""
        return all(check.held for check in self.checks)

    @classmethod
    def judged_by(
        cls,
        objective: Objective,
        measured: Measured,
        *,
        scenario: str,
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
            scenario=scenario,
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
    counts_for: str | None = None
    """The environment in whose archive it is kept; None: it is kept in the run's folder alone, and counts nowhere."""
    operator: str
    written: Moment
    zone: str
    postgres: str
    rows: int
    bytes: int
    tests: tuple[Test, ...]

    @property
    def proved(self) -> bool:
        """Every objective that a drill tests was tested, and each test passed."""
        tested = {test.scenario for test in self.tests}
        return tested == {*DRILLED} and all(test.result == "PASS" and test.held for test in self.tests)


_KEY = re.compile(rf"{ENVIRONMENT}/drills/(?P<run>[a-z0-9-]+)/(?P<name>{re.escape(DATA)}|{re.escape(TEXT)})", re.ASCII)


def drills_prefix(environment: str) -> str:
    """What all reports of an environment lie below, with the slash at the end. No backup lies there."""
    return f"{environment}/drills/"


def report_key(environment: str, run: RunId, name: str) -> str:
    """`production/drills/20251203-143000-k7qx/drill.json`; `name` is DATA or TEXT. ValueError for anything else."""
    key = f"{drills_prefix(environment)}{run}/{name}"
    if run_of_report(key) != run:
        raise ValueError(f"{key!r} is not where a report of a drill lies")
    return key


def run_of_report(key: str) -> RunId | None:
    """Whose report, or a part of it, lies under a key; None for every other key."""
    found = _KEY.fullmatch(key)
    return RunId(found["run"]) if found and RunId.is_one(found["run"]) else None
