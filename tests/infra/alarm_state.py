"""In what state CloudWatch would have an alarm, by its rules for missing data: moto stores alarms and judges none.

CloudWatch looks back further than an alarm's periods, by a few that it does not tell (`further`), and takes whatever is
really there before it fills in what is missing.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

_BREACHES = {
    "LessThanThreshold": operator.lt,
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
}
_STATISTICS = {"Sum": sum, "Minimum": min, "Maximum": max}


def state(
    alarm: Mapping[str, Any], series: Iterable[tuple[datetime, float]], now: datetime, *, further: int = 2
) -> str:
    """ALARM or OK. `alarm` as describe_alarms has it; `series` are all values that were sent, in any order."""
    period, periods = timedelta(seconds=alarm["Period"]), alarm["EvaluationPeriods"]
    statistic = _STATISTICS[alarm["Statistic"]]
    known = [(at, value) for at, value in series if at < now]
    points: list[float] = []
    for back in range(periods + further):
        end = now - back * period
        values = [value for at, value in known if end - period <= at < end]
        points += [statistic(values)] if values else []
    breaches = _BREACHES[alarm["ComparisonOperator"]]
    return judged([breaches(point, alarm["Threshold"]) for point in points], alarm)


def judged(points: list[bool], alarm: Mapping[str, Any]) -> str:
    """`points`: those that are there, newest first, and whether each breaches."""
    assert alarm["TreatMissingData"] in ("breaching", "notBreaching"), "no alarm of ours may go to INSUFFICIENT_DATA"
    periods = alarm["EvaluationPeriods"]
    missing = [alarm["TreatMissingData"] == "breaching"] * periods
    evaluated = (points[:periods] + missing)[:periods]
    return "ALARM" if sum(evaluated) >= alarm.get("DatapointsToAlarm", periods) else "OK"
