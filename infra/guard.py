"""Stops a deployment that would delete or replace what holds data, or what a recovery needs: `python -m infra.guard`.

Pulumi's own `protect` says the same, until the commit that takes a resource away takes its `protect` away too. The
guard goes by what the state holds now. It runs before `pulumi up`, in CI and by hand; docs/adopt.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runbooks.model.errors import BloomError, Refused, UsageFault

HARMLESS = frozenset({"same", "create", "update", "refresh", "read", "import"})
"""Steps that leave what is there. Every other one, also one not known here, takes something away."""
REPLACED = frozenset({"replace", "create-replacement", "delete-replaced"})
"""Steps of which something new of the same name comes out."""
REVISIONS = frozenset({"aws:ecs/taskDefinition:TaskDefinition"})
"""May be replaced unless they are protected: each change is a new revision, and AWS keeps the old ones."""
STATEFUL = frozenset(
    {
        "aws:cloudtrail/trail:Trail",
        "aws:cloudwatch/logGroup:LogGroup",
        "aws:kms/alias:Alias",
        "aws:kms/key:Key",
        "aws:kms/replicaKey:ReplicaKey",
        "aws:s3/bucket:Bucket",
        "aws:secretsmanager/secret:Secret",
        "aws:sns/topic:Topic",
        "aws:sqs/queue:Queue",
        "neon:resource:Project",
        "pulumi-python:dynamic/neon:Posture",
    }
)
"""Held to be so even where the state does not say `protect`."""


@dataclass(frozen=True)
class Step:
    op: str
    urn: str
    type: str
    protected: bool
    retained: bool
    """Both in the state of now."""

    @property
    def takes_away(self) -> bool:
        if self.op in HARMLESS or (self._revises and not self.protected):
            return False
        return self.protected or self.retained or self.type in STATEFUL

    @property
    def _revises(self) -> bool:
        return self.type in REVISIONS and self.op in REPLACED


def steps_of(preview: Any) -> list[Step]:
    """Of the answer of `pulumi preview --json`. UsageFault if it is not one, or not a whole one. Pure."""
    try:
        steps = [_step(each) for each in preview["steps"]]
        counted = sum(count for op, count in preview["changeSummary"].items() if op != "same")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise _unusable("it is not an answer of pulumi preview --json") from None
    if any(each.get("severity") == "error" for each in preview.get("diagnostics") or []):
        raise _unusable("the preview failed before its end")
    if counted > (shown := sum(step.op != "same" for step in steps)):
        raise _unusable(f"it counts {counted} changes and shows {shown} of them")
    return steps


def _step(each: Mapping[str, Any]) -> Step:
    old = each.get("oldState") or {}
    urn = str(each["urn"])
    kept = bool(old.get("protect")), bool(old.get("retainOnDelete"))
    return Step(str(each["op"]), urn, urn.split("::")[2].split("$")[-1], *kept)


def check(preview: Any, allowed: Sequence[str] = ()) -> None:
    """Refused, naming each resource that would be lost. `allowed`: URNs that a person has let go. Pure."""
    lost = [step for step in steps_of(preview) if step.takes_away and step.urn not in allowed]
    if lost:
        raise Refused(
            "; ".join(f"pulumi up would {step.op} {step.urn}" for step in lost),
            safe="nothing was deployed",
            next_step="find out what in the change causes it: pulumi preview --diff. A rename needs aliases=. If it is "
            "really meant, and what is in there is kept elsewhere: python -m infra.guard --allow URN",
        )


def preview_of(stack: str) -> Any:
    """Runs `pulumi preview --json`. UsageFault if it fails: what is not known is not allowed."""
    command = ["pulumi", "preview", "--stack", stack, "--json", "--non-interactive"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise _unusable("there is no program pulumi on the PATH") from None
    if ended.returncode != 0:
        raise _unusable(f"pulumi preview ended with {ended.returncode}: {_why(ended.stdout) or ended.stderr.strip()}")
    return _parsed(ended.stdout)


def _why(answer: str) -> str:
    """The errors among the diagnostics of a preview that failed."""
    try:
        told = json.loads(answer)["diagnostics"]
        return "; ".join(each["message"].strip() for each in told if each.get("severity") == "error")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise _unusable("it is not JSON, or only a part of it") from None


def _unusable(why: str) -> UsageFault:
    return UsageFault(
        f"the preview cannot be judged: {why}",
        safe="nothing was deployed",
        next_step="run pulumi preview by hand, cure what it says, then run this again",
    )


def main(words: Sequence[str]) -> int:
    """0: nothing would be lost. Otherwise the exit code of the error that is told."""
    parser = argparse.ArgumentParser(prog="python -m infra.guard", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--stack", help="preview this stack")
    source.add_argument("preview", nargs="?", type=Path, help="a file with the answer of pulumi preview --json")
    parser.add_argument("--allow", action="append", default=[], metavar="URN", help="a resource that is let go")
    given = parser.parse_args(words)
    try:
        check(preview_of(given.stack) if given.stack else _parsed(_read(given.preview)), given.allow)
    except BloomError as error:
        sys.stderr.write(f"refused: {error.happened}\n  safe: {error.safe}\n  next: {error.next_step}\n")
        return error.exit_code
    sys.stdout.write("nothing that holds data would be deleted or replaced\n")
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise _unusable(str(error)) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
