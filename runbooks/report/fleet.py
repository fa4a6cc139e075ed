"""Answer of `backup.fleet`: a line for each database, and never a good end for all if one ended otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runbooks.model.fleet import Outcome, Routine, worst
from runbooks.report.answer import Answer


def came_to(routine: Routine, stack: str, outcomes: Sequence[Outcome], *, job: str | None = None) -> Answer:
    """What all of them came to, those that ended badly last: that is where eyes are."""
    code = worst([outcome.exit_code for outcome in outcomes])
    good = [outcome for outcome in outcomes if not outcome.exit_code]
    bad = [outcome for outcome in outcomes if outcome.exit_code]
    title = f"{routine.name} of stack {stack}: {len(good)} of {len(outcomes)} done" + (
        f", {len(bad)} NOT" if bad else ""
    )
    text = [title, *(line for outcome in [*good, *bad] for line in _lines(outcome))]
    data = {
        "routine": routine.name,
        "stack": stack,
        "job": job,
        "done": len(good),
        "exit_code": code,
        "environments": [outcome.as_json() for outcome in outcomes],
    }
    return Answer("\n".join(text), data, code)


def submitted(routine: Routine, stack: str, job: str, count: int) -> Answer:
    text = (
        f"{routine.name} of stack {stack}: job {job} with {count} children is submitted; nothing is known of them yet\n"
    )
    text += f"next: {following(routine, stack, job)}"
    return Answer(text, {"routine": routine.name, "stack": stack, "job": job, "children": count})


def following(routine: Routine, stack: str, job: str) -> str:
    """The command that reports how a job goes on."""
    return f"invoke backup.fleet {' '.join(routine.together)} --stack {stack} --job {job}"


def _lines(outcome: Outcome) -> Iterator[str]:
    state = "ok" if not outcome.exit_code else f"exit code {outcome.exit_code}"
    yield f"  {outcome.environment:<32}{state:<16}{outcome.said}"
    if outcome.exit_code:
        if outcome.next_step:
            yield f"      next: {outcome.next_step}"
        if outcome.run_id:
            yield f"      its story: invoke run.show {outcome.run_id}"
        if outcome.log:
            yield f"      its log stream: {outcome.log}"
