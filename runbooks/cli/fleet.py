"""`backup.fleet`: all databases of a stack, in AWS Batch or by processes here; and the child that does one of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from runbooks.backups.fleet import fan_out
from runbooks.cli.local import ROOT, console
from runbooks.engine.step import Ended
from runbooks.model.aws_names import AwsNames
from runbooks.model.errors import FleetFault, Incomplete, UsageFault
from runbooks.model.fleet import FEWEST, Routine, environment_of, order
from runbooks.model.nearest import did_you_mean
from runbooks.model.policy import Policy
from runbooks.report.answer import Answer, answer_of
from runbooks.report.fleet import came_to, following, submitted

TOGETHER = 2
"""Processes at a time, where nothing else is said: each of them dumps several tables at a time."""
_MOST_TOGETHER = 64


def stack_in(policy: Policy, wanted: str) -> str:
    """The stack that was named, or that of the default environment. UsageFault if there is none."""
    known = list(policy.stacks)
    name = wanted or policy.stack_of(policy.default_environment) or ""
    if name in known:
        return name
    what = f"the policy has no stack {name!r}{did_you_mean(name, known)}" if name else "no --stack says which databases"
    raise UsageFault(
        what,
        safe="nothing was started",
        next_step=f"choose one of: --stack {', --stack '.join(known)}"
        if known
        else "write a section [stacks.NAME] into the policy",
    )


def locally(policy: Policy, stack: str, routine: Routine, together: str) -> Answer:
    """One process for each database, on this machine."""
    outcomes = fan_out(
        routine,
        policy.stacks[stack].environments,
        together=_count(together),
        root=ROOT,
        environ=os.environ,
        tell=console().say,
    )
    return came_to(routine, stack, outcomes)


def in_batch(policy: Policy, stack: str, routine: Routine, *, job: str, detach: bool) -> Answer:
    """One array job; or, with the id of one, only what it comes to."""
    from runbooks.clients.batch import Batch  # boto3 loads where AWS is spoken to

    environments = policy.stacks[stack].environments
    backup = policy.backup_of(environments[0])
    assert backup is not None  # the policy has no stacks without it
    if len(environments) < FEWEST:
        raise UsageFault(
            f"the stack {stack!r} has one database, and AWS Batch knows no array of one",
            safe="nothing was started",
            next_step=f"invoke {' '.join(routine.of(environments[0]))}; or: invoke backup.fleet with --local",
        )
    batch = Batch(backup.region)
    if not job:
        job = batch.submit(AwsNames(stack), routine, environments)
        if detach:
            return submitted(routine, stack, job, len(environments))
    console().say(f"job {job}: {len(environments)} children")
    try:
        return came_to(routine, stack, batch.follow(job, environments, console().say), job=job)
    except (KeyboardInterrupt, FleetFault) as stopped:
        stopped.add_note(f"the job goes on; what it comes to tells: {following(routine, stack, job)}")
        raise


def as_child(
    policy: Policy, stack: str, known: str, one: Callable[[str], Any], environ: Mapping[str, str] = os.environ
) -> Any:
    """What this child of an array job has to do: `one` of the environment that is its own.

    If the policy here (the image's) has other environments than the one the stack was made from (`known`), then the
    numbers of children mean something else in each, and a database may have no child: the backup is taken all the same,
    and afterwards it is Incomplete.
    """
    environments = policy.stacks[stack].environments
    value = one(environment_of(environments, environ))
    if known == order(environments) or answer_of(value).exit_code:
        return value
    if isinstance(value, Ended):
        console().ended(value.ending)
    raise Incomplete(
        "this child has done its work, but the image's policy has other environments than the stack was made from: "
        "some database may have no child at all",
        safe="what was done stands",
        next_step="build and push the image again, pulumi config set image, pulumi up; then: invoke backup.fleet",
    )


def _count(text: str) -> int:
    if not text:
        return TOGETHER
    if text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST_TOGETHER:
        return int(text)
    raise UsageFault(
        f"--together {text!r} is not a whole number from 1 to {_MOST_TOGETHER}",
        safe="nothing was started",
        next_step="leave it out, or give one: each process dumps several tables at a time",
    )


def refuse_mixed(*, local: bool, child: bool, together: str, job: str, detach: bool) -> None:
    """UsageFault for flags that contradict one another."""
    for wrong, said in (
        (local and child, "--local and --child"),
        (bool(together) and not local, "--together without --local"),
        ((local or child) and bool(job), "--job with --local or --child"),
        ((local or child or bool(job)) and detach, "--detach with --local, --child or --job"),
    ):
        if wrong:
            raise UsageFault(
                f"{said} makes no sense",
                safe="nothing was started",
                next_step="see what they do: invoke --help backup.fleet",
            )
