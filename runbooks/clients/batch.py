"""AWS Batch: an array job is submitted, and watched until each of its children has ended."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from runbooks.model.aws_names import AwsNames
from runbooks.model.errors import CouldNotVerify, FleetFault
from runbooks.model.fleet import Outcome, Routine

AT_A_TIME = 100
"""So many jobs can be asked for in one request."""
_ENDED = ("SUCCEEDED", "FAILED")


class Batch:
    """Of one region. Credentials are those that the usual AWS chain finds. Every failure is a FleetFault."""

    def __init__(
        self,
        region: str,
        *,
        client: Callable[[], Any] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        interval: float = 15,
    ) -> None:
        """No request is sent before it is used. `interval`: seconds between two looks at a job."""
        self._open = client or partial(_client, region)
        self._sleep, self._interval = sleep, interval

    def submit(self, names: AwsNames, routine: Routine, environments: Sequence[str]) -> str:
        """The id of the new array job. Not safe to repeat: a second one is a second set of backups."""
        with _told("the fleet could not be started", "no job was started"):
            answer = self._open().submit_job(
                jobName=routine.name,
                jobQueue=names.job_queue,
                jobDefinition=names.job_definition(routine.job),
                arrayProperties={"size": len(environments)},
                containerOverrides={"command": list(routine.child(names.stack, environments))},
            )
        return str(answer["jobId"])

    def follow(self, job: str, environments: Sequence[str], tell: Callable[[str], None]) -> tuple[Outcome, ...]:
        """Wait until all children have ended, and what each came to. There is no deadline but those of the jobs."""
        with _told(f"the job {job} cannot be followed", "the job goes on"):
            client = self._open()
            parent, found = self._wait(client, job, len(environments), tell)
        size = parent.get("arrayProperties", {}).get("size")
        if size != len(environments):
            raise FleetFault(
                f"the job {job} has {size} children, and the stack {len(environments)} environments: "
                "which child was whose cannot be told",
                safe="the job has ended; what it did stands in the archive",
                next_step="invoke backup.list with --env of each",
            )
        return tuple(_outcome(name, found.get(index)) for index, name in enumerate(environments))

    def _wait(
        self, client: Any, job: str, count: int, tell: Callable[[str], None]
    ) -> tuple[Mapping[str, Any], dict[int, Mapping[str, Any]]]:
        """The job and its children, all of them at their end: that of the whole may be known before the last one's."""
        while True:
            parent = _one(client, job)
            if parent["status"] in _ENDED:
                found = _children(client, job, count)
                if all(child["status"] in _ENDED for child in found.values()):
                    return parent, found
            tell(_progress(parent))
            self._sleep(self._interval)


def _client(region: str) -> Any:
    config = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 8, "mode": "standard"})
    return boto3.session.Session().client("batch", region_name=region, config=config)


def _one(client: Any, job: str) -> Mapping[str, Any]:
    jobs = client.describe_jobs(jobs=[job])["jobs"]
    if not jobs:
        raise FleetFault(
            f"AWS Batch knows no job {job} (it forgets them a week after their end)",
            safe="nothing was started",
            next_step="invoke backup.list tells what lies in the archive",
        )
    found: Mapping[str, Any] = jobs[0]
    return found


def _children(client: Any, job: str, count: int) -> dict[int, Mapping[str, Any]]:
    """By their number, which is the end of their id."""
    found = {}
    for start in range(0, count, AT_A_TIME):
        wanted = [f"{job}:{index}" for index in range(start, min(start + AT_A_TIME, count))]
        for child in client.describe_jobs(jobs=wanted)["jobs"]:
            found[int(child["jobId"].rsplit(":", 1)[1])] = child
    return found


def _progress(parent: Mapping[str, Any]) -> str:
    summary = parent.get("arrayProperties", {}).get("statusSummary", {})
    told = ", ".join(f"{count} {state.lower()}" for state, count in summary.items() if count)
    return f"{told or parent['status'].lower()}"


def _outcome(environment: str, child: Mapping[str, Any] | None) -> Outcome:
    if child is None or child["status"] not in _ENDED:
        said = "AWS Batch does not say how it ended"
        return Outcome(environment=environment, exit_code=CouldNotVerify.exit_code, said=said)
    container = child.get("container", {})
    log = container.get("logStreamName")
    if child["status"] == "SUCCEEDED":
        return Outcome(environment=environment, exit_code=0, said="done", log=log)
    why = container.get("reason") or child.get("statusReason") or "no reason is given"
    code = container.get("exitCode") or CouldNotVerify.exit_code
    return Outcome(environment=environment, exit_code=code, said=f"failed: {why}", log=log)


@contextmanager
def _told(what: str, safe: str) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        why = re.sub(r"\s+", " ", str(error))[:300]
        raise FleetFault(
            f"{what}: {why}",
            safe=safe,
            next_step="check which AWS credentials this machine has and that the stack is up; then look with: "
            "aws batch list-jobs --job-queue with the stack's queue",
        ) from error
