"""The one way to make a task. Loads only invoke and the standard library: `invoke --list` is typed under stress."""

from __future__ import annotations

import functools
import inspect
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task

Body = Callable[..., Any]


def command(group: Collection, name: str, *, dry: bool = False, **help_texts: str) -> Callable[[Body], Body]:
    """Register `body(c, …)` as a task of `group`; `dry` says that it changes nothing under `invoke --dry`.

    Arguments without a default are positional, all others are flags whose values are text (or switches); a flag with an
    empty value is refused. Whatever the body returns is printed on stdout, as text or with `--json` as JSON. A
    BloomError becomes three sentences on stderr and its exit code; anything else stays a traceback and exit code 1.
    """
    task = f"{group.name}.{name}"

    def register(body: Body) -> Body:
        @functools.wraps(body)
        def carried_out(c: Context, **given: Any) -> None:
            if "--help" in given.values():  # invoke takes it for the value of a required argument
                _show_help(task)
                return
            if c.config.run.dry and not dry:
                call = functools.partial(_refuse_dry, task)
            elif empty := [flag for flag, value in given.items() if value == ""]:
                call = functools.partial(_refuse_empty, task, empty[0].strip("_").replace("_", "-"))
            else:
                call = functools.partial(body, c, **{flag: v for flag, v in given.items() if v is not None})
            _answer(call, as_json=bool(given.get("json")))

        signature = inspect.signature(body)
        carried_out.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[_telling_unset(parameter) for parameter in signature.parameters.values()]
        )
        positional = [p.name for p in signature.parameters.values() if p.default is p.empty][1:]
        # Automatic short flags would give -c, -d, -y meanings that nobody chose.
        made: Task[Any] = Task(carried_out, name=name, positional=positional, help=help_texts, auto_shortflags=False)
        group.add_task(made, name=name)
        return body

    return register


def _telling_unset(parameter: inspect.Parameter) -> inspect.Parameter:
    """With None for its text default: a flag that was not given must differ from one given as `--env=$UNSET`."""
    return parameter.replace(default=None) if isinstance(parameter.default, str) else parameter


def _answer(call: Callable[[], Any], *, as_json: bool) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup stays nohup
            signal.signal(number, _interrupt)
    try:
        code = _carry_out(call, as_json=as_json)
    except KeyboardInterrupt as stopped:
        code = _interrupted(getattr(stopped, "__notes__", ()), as_json=as_json)
    if code:
        raise Exit(code=code)


def _carry_out(call: Callable[[], Any], *, as_json: bool) -> int:
    from runbooks.cli.local import console
    from runbooks.engine.step import Ended
    from runbooks.model.errors import BloomError
    from runbooks.report.answer import answer_of, of_error, of_fault

    try:
        value = call()
        if isinstance(value, Ended):
            console().ended(value.ending)
        answer = answer_of(value)
    except BloomError as error:
        console().error(error)
        answer = of_error(error, console().run_id)
    except Exception as fault:
        if as_json:
            _say(of_fault(fault, console().run_id).data)
        raise
    _say(answer.data if as_json else answer.text)
    return answer.exit_code


def _interrupted(notes: Sequence[str], *, as_json: bool) -> int:
    from runbooks.cli.local import console
    from runbooks.report.answer import of_interruption

    console().interrupted(notes)
    answer = of_interruption(console().run_id)
    _say(answer.data if as_json else answer.text)
    return answer.exit_code


def _say(answer: Any) -> None:
    """On stdout. That nobody reads it (any more) changes nothing in what was done."""
    from runbooks.engine.console import printable

    text = printable(answer) if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, indent=2)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if text:
            print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_help(task: str) -> None:
    from invoke.main import program

    program.run(["invoke", "--help", task], exit=False)


def _refuse_dry(task: str) -> NoReturn:
    from runbooks.model.errors import UsageFault

    raise UsageFault(
        f"{task} has no dry form",
        safe="nothing was started",
        next_step=f"see what it does with: invoke --help {task}",
    )


def _refuse_empty(task: str, flag: str) -> NoReturn:
    from runbooks.model.errors import UsageFault

    raise UsageFault(
        f"--{flag} was given without a value",
        safe="nothing was started",
        next_step=f"give it one, or leave it out; what it means: invoke --help {task}",
    )


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt
