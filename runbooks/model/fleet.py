"""A fleet: all databases of a stack at once, each by a process of its own. What is done, by whom, and what it came to.

The stack that schedules it and the child that does it both read the words here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from runbooks.model.backup import Tier
from runbooks.model.errors import (
    UNEXPECTED,
    CouldNotVerify,
    Incomplete,
    PolicyFault,
    ProofFailed,
    UsageFault,
    every_error,
)
from runbooks.model.record import Record

INDEX = "AWS_BATCH_JOB_ARRAY_INDEX"
"""What AWS Batch calls a child's number, counted from 0."""
FEWEST, MOST = 2, 10_000
"""Children of an array job, as AWS Batch allows them."""


class Job(StrEnum):
    """A kind of container, by whose rights and which secrets it has."""

    TAKE = "take"
    """The writer's rights, and Neon's key."""
    JUDGE = "judge"
    """The verifier's rights, as reports of drills are read too, and Neon's key."""
    VERIFY = "verify"
    """The verifier's rights, and the private key: whoever has that one has no way into a database."""


@dataclass(frozen=True)
class Routine:
    """What is done for one database, and for each of a fleet."""

    name: str
    alone: tuple[str, ...]
    """The command for one environment, but for its name."""
    together: tuple[str, ...]
    """The flags of `backup.fleet` for the same."""
    job: Job

    @classmethod
    def take(cls, tier: Tier) -> Routine:
        words = ("--tier", tier.value)
        return cls(f"take-{tier}", ("backup.take", *words), words, Job.TAKE)

    @classmethod
    def verify(cls, last: int) -> Routine:
        """The newest so many, restored and compared."""
        return cls("verify", ("backup.verify", "--last", str(last)), ("--verify", str(last)), Job.VERIFY)

    @classmethod
    def fresh(cls) -> Routine:
        """How old the newest are."""
        return cls("fresh", ("backup.fresh",), ("--fresh",), Job.JUDGE)

    @classmethod
    def parse(cls, tier: str, *, verify: str, fresh: bool) -> Routine:
        """Empty texts: not given. UsageFault unless exactly one of the three is."""
        if [bool(tier), bool(verify), fresh].count(True) != 1:
            raise _usage("exactly one of --tier, --verify N and --fresh says what is done")
        if fresh:
            return cls.fresh()
        if verify:
            if not (verify.isascii() and verify.isdigit() and 1 <= int(verify) <= 1000):
                raise _usage(f"--verify {verify!r} is not a whole number from 1 to 1000")
            return cls.verify(int(verify))
        if tier not in [each.value for each in Tier]:
            raise _usage(f"{tier!r} is not a tier of backups, as {', '.join(Tier)} are")
        return cls.take(Tier(tier))

    def of(self, environment: str) -> tuple[str, ...]:
        """The words after `invoke` for one environment."""
        return (*self.alone, "--env", environment)

    def child(self, stack: str, environments: Sequence[str]) -> tuple[str, ...]:
        """The words after `invoke` for each child of a fleet: which one it is, its environment variables say."""
        return ("backup.fleet", "--child", "--stack", stack, "--order", order(environments), *self.together)


def order(environments: Sequence[str]) -> str:
    """A mark of which environments there are, and in which order: a child's number means nothing without it."""
    return hashlib.sha256("\n".join(environments).encode()).hexdigest()[:12]


def environment_of(environments: Sequence[str], environ: Mapping[str, str]) -> str:
    """The one of the child that this process is. UsageFault outside of an array job; PolicyFault if there is none."""
    index = environ.get(INDEX, "")
    if not (index.isascii() and index.isdigit()):
        raise UsageFault(
            f"--child is for jobs of AWS Batch: {INDEX} is {'not a number' if index else 'not set'}",
            safe="nothing was started",
            next_step="invoke backup.fleet without --child; or invoke backup.take with --env for one database",
        )
    if int(index) >= len(environments):
        raise PolicyFault(
            f"this is child {index} of a fleet, and in the policy here the stack has {len(environments)} environments",
            safe="nothing was started",
            next_step="the image is older than the stack: build and push it, pulumi config set image, pulumi up",
        )
    return environments[int(index)]


class Outcome(Record):
    """What it came to for one environment."""

    environment: str
    exit_code: int
    said: str
    """One line for people."""
    run_id: str | None = None
    next_step: str | None = None
    log: str | None = None
    """Where in AWS's logs its story is."""

    @classmethod
    def read(cls, environment: str, exit_code: int, answer: str, story: str = "") -> Outcome:
        """Of a command that was called with --json, and what it said on stderr.

        A good exit code without a good answer is no good ending.
        """
        code = exit_code if exit_code >= 0 else 128 - exit_code
        data = _object(answer)
        error = data.get("error")
        if isinstance(error, dict):
            said, next_step, run_id = (error.get(name) for name in ("happened", "next_step", "run_id"))
            return cls(
                environment=environment, exit_code=code or CouldNotVerify.exit_code, said=str(said),
                run_id=run_id and str(run_id), next_step=next_step and str(next_step),
            )  # fmt: skip
        said = ": ".join(str(data[name]) for name in ("verdict", "summary") if name in data)
        if not data:
            last = "".join(story.strip().splitlines()[-1:])[:200]
            code, said = code or CouldNotVerify.exit_code, f"it ended without an answer{last and ': '}{last}"
        run_id = data.get("run_id")
        return cls(environment=environment, exit_code=code, said=said or "done", run_id=run_id and str(run_id))


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def worst(codes: Sequence[int]) -> int:
    """The exit code of a fleet: 0 only if all are. A failed proof outranks all, then one that could not be made."""
    for code in (ProofFailed.exit_code, CouldNotVerify.exit_code):
        if code in codes:
            return code
    bad = {code for code in codes if code}
    if not bad:
        return 0 if codes else Incomplete.exit_code
    if not bad <= {kind.exit_code for kind in every_error()}:
        return UNEXPECTED
    return bad.pop() if len(bad) == 1 and 0 not in codes else Incomplete.exit_code


def _usage(happened: str) -> UsageFault:
    return UsageFault(
        happened,
        safe="nothing was started",
        next_step="invoke backup.fleet --tier daily; what else there is: invoke --help backup.fleet",
    )
