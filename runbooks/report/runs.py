"""Answers of `run.list`, `run.show` and `run.verify`: what the journals say, and nothing else."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from runbooks.engine.journal import Entry
from runbooks.engine.runs import Runs
from runbooks.model.moment import Moment
from runbooks.model.run_id import RunId
from runbooks.report.answer import Answer


def listed(runs: Runs, zone: str) -> Answer:
    """All runs, newest first."""
    summaries = tuple(runs.summaries())
    if not summaries:
        return Answer(f"no runs in {runs.root}", {"runs": []})
    lines = [
        f"{s.run_id:<24} {s.state:<30} {s.runbook:<26} {s.environment:<12} "
        f"{Moment.of(s.opened).both(zone)}  {s.operator}" + (f"\n{'':<25}{s.detail}" if s.detail else "")
        for s in summaries
    ]
    return Answer("\n".join(lines), {"runs": [s.as_json() for s in summaries]})


def shown(runs: Runs, run_id: RunId, zone: str) -> Answer:
    """One run's journal as a story. Raises NotFound, JournalBroken."""
    reading = runs.reading(run_id)
    lines = [f"run {run_id} in {runs.folder(run_id)}"]
    lines += [f"{_time(entry, zone)}  {entry.event:<13} {_detail(entry)}" for entry in reading.entries]
    if reading.torn:
        lines.append("(the last line is incomplete: the process was killed while it wrote; run.resume cuts it off)")
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


def _time(entry: Entry, zone: str) -> str:
    local = entry.at.astimezone(ZoneInfo(zone))
    return f"{local:%Y-%m-%d %H:%M:%S %Z} ({entry.at:%H:%M:%S} UTC)"


def _detail(entry: Entry) -> str:
    data = entry.data
    match entry.event:
        case "opened":
            return f"{data['runbook']} on {data['environment']} by {data['operator']}"
        case "planned":
            return str(data["digest"])
        case "consented":
            return f"{data['value']} by {data['by']} ({data['how']})"
        case "step-started":
            return str(data["step"])
        case "step-noted":
            return f"{data['step']}: {data['note']}"
        case "step-done":
            return f"{data['step']} in {data['seconds']} s"
        case "step-failed" | "failed":
            return f"{data['kind']}: {data['happened']}"
        case "finished":
            return f"{data['verdict']}: {data['summary']}"
        case _:
            return ""
