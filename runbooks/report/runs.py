"""Answers of `run.list`, `run.show` and `run.verify`: what the journals say, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from runbooks.engine.journal import Entry
from runbooks.engine.runs import Runs, Summary, summary
from runbooks.model.errors import ConsentNeeded
from runbooks.model.run_id import RunId
from runbooks.report.answer import Answer


def listed(runs: Runs, zone: str) -> Answer:
    """All runs, newest first; a line each for its state, its origin, and what it came to or waits for."""
    summaries = tuple(runs.summaries())
    if not summaries:
        return Answer(f"no runs in {runs.root}", {"runs": []})
    text = "\n".join(line for each in summaries for line in _listing(each, zone))
    return Answer(text, {"runs": [each.as_json() for each in summaries]})


def _listing(run: Summary, zone: str) -> Iterator[str]:
    yield f"{run.run_id:<24}{run.state}"
    if run.runbook != "?":
        yield f"    {run.runbook} on {run.environment}, {_time(run.opened, zone)} by {run.operator}"
    if run.detail:
        yield f"    {run.detail}"
    yield from (f"    {line}" for line in _next(run))


def _next(run: Summary) -> Iterator[str]:
    if run.state in ("unfinished: awaiting consent", "unfinished: executing"):
        yield f"next: invoke run.resume {run.run_id}"


def shown(runs: Runs, run_id: RunId, zone: str) -> Answer:
    """One run's journal as a story. Raises NotFound, JournalBroken."""
    reading = runs.reading(run_id)
    lines = [f"run {run_id} in {runs.folder(run_id)}"]
    lines += [line for entry in reading.entries for line in _told(entry, zone)]
    if reading.torn:
        lines.append("(the last line is incomplete: the process was killed while it wrote; run.resume cuts it off)")
    now = summary(run_id, reading)
    lines += [f"now: {now.state}", *_next(now)]
    entries = [
        {"seq": e.seq, "at": e.at.isoformat(), "event": e.event, "data": e.data, "hash": e.hash}
        for e in reading.entries
    ]
    return Answer("\n".join(lines), {"run_id": str(run_id), "torn": reading.torn, "entries": entries})


def verified(runs: Runs, run_id: RunId) -> Answer:
    """The chain re-checked. Raises JournalBroken if it does not hold: there is no answer that says it half holds."""
    reading = runs.reading(run_id)
    finished = any(entry.event == "finished" for entry in reading.entries)
    last = reading.entries[-1].hash if reading.entries else "none"
    ending = "finished" if finished else "not finished"
    text = f"{run_id}: the chain of {len(reading.entries)} lines holds; {ending}; last hash {last}"
    if reading.torn:
        text += "; an incomplete line follows, which was never acted on"
    data = {
        "run_id": str(run_id),
        "lines": len(reading.entries),
        "finished": finished,
        "torn": reading.torn,
        "last_hash": last,
    }
    return Answer(text, data)


def _told(entry: Entry, zone: str) -> Iterator[str]:
    yield f"{_time(entry.at, zone)}  {entry.event:<13} {_detail(entry)}".rstrip()
    if entry.event == "finished":
        yield from (f"    open: {item}" for item in entry.data["left_open"])


def _time(moment: datetime, zone: str) -> str:
    local = moment.astimezone(ZoneInfo(zone))
    return f"{local:%Y-%m-%d %H:%M:%S %Z} ({moment.astimezone(UTC):%H:%M:%S} UTC)"


def _detail(entry: Entry) -> str:
    data = entry.data
    match entry.event:
        case "opened":
            return f"{data['runbook']} on {data['environment']} by {data['operator']}: {_facts(data['request'])}"
        case "resumed":
            return f"by {data['operator']}"
        case "planned":
            return str(data["digest"])
        case "consented":
            return f"{data['value']} by {data['by']} ({data['how']})"
        case "step-started":
            return str(data["step"])
        case "step-noted":
            return f"{data['step']}: {_facts(data['note'])}"
        case "step-done":
            return f"{data['step']} in {data['seconds']} s"
        case "step-failed" | "failed" if data["kind"] == ConsentNeeded.__name__:
            return "stopped at the preview; it waits for consent"
        case "step-failed" | "failed":
            return f"{data['kind']}: {data['happened']}"
        case "finished":
            return f"{data['verdict']}: {data['summary']}"
        case _:
            return ""


def _facts(data: dict[str, Any]) -> str:
    """What fits into a line; the whole is in the journal and in --json."""
    told = {name.replace("_", " "): _brief(value) for name, value in data.items() if value not in (None, "", [], {})}
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _brief(value: Any) -> str:
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return ",".join(map(str, value))
    return f"({len(value)})" if isinstance(value, list | dict) else str(value)
