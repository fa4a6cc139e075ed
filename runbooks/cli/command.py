"""The one way to make a task. Loads only invoke and the standard library: `invoke --list` is typed under stress."""

from __future__ import annotations

import functools
import inspect
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task

Body = Callable[..., Any]


def command(group: Collection, name: str, *, dry: bool = False, **help_texts: str) -> Callable[[Body], Body]:
    """Register `body(c, …)` as a task of `group`; `dry` says that it changes nothing under `invoke --dry`.

    Arguments without a default are positional, all others are flags whose values are text (or switches). Whatever the
    body returns is printed on stdout, as text or with `--json` as JSON. A BloomError becomes three sentences on stderr
    and its exit code; anything else stays a traceback and exit code 1.
    """

    def register(body: Body) -> Body:
        @functools.wraps(body)
        def carried_out(c: Context, **given: Any) -> None:
            if "--help" in given.values():  # invoke takes it for the value of a required argument
                print(inspect.getdoc(body), file=sys.stderr)  # noqa: T201
                return
            refuse = c.config.run.dry and not dry
            call = (
                functools.partial(_refuse_dry, f"{group.name}.{name}")
                if refuse
                else functools.partial(body, c, **given)
            )
            _answer(call, as_json=bool(given.get("json")))

        parameters = list(inspect.signature(body).parameters.values())[1:]
        positional = [p.name for p in parameters if p.default is p.empty]
        # Automatic short flags would give -c, -d, -y meanings that nobody chose.
        group.add_task(
            Task(carried_out, name=name, positional=positional, help=help_texts, auto_shortflags=False), name=name
        )
        return body

    return register


def _answer(body: Callable[[], Any], *, as_json: bool) -> None:
    from runbooks.cli.desk import console
    from runbooks.engine.step import Ended
    from runbooks.model.errors import INTERRUPTED, BloomError
    from runbooks.report.answer import answer_of, of_error

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        value = body()
        if isinstance(value, Ended):
            console().ended(value.ending)
        answer = answer_of(value)
    except BloomError as error:
        console().error(error)
        answer = of_error(error)
    except KeyboardInterrupt:
        raise Exit("interrupted; the run can be resumed: invoke run.list", code=INTERRUPTED) from None
    text = json.dumps(answer.data, ensure_ascii=False, indent=2) if as_json else answer.text
    if text:
        print(text)  # noqa: T201
    if answer.exit_code:
        raise Exit(code=answer.exit_code)


def _refuse_dry(task: str) -> None:
    from runbooks.model.errors import UsageFault

    raise UsageFault(
        f"{task} has no dry form",
        safe="nothing was started",
        next_step=f"see what it does with: invoke --help {task}",
    )


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt
