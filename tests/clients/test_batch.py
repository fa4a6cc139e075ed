"""An array job is watched until all its children have ended, and none of them is taken for done without saying so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from runbooks.clients.batch import AT_A_TIME, Batch
from runbooks.model.aws_names import AwsNames
from runbooks.model.backup import Tier
from runbooks.model.errors import FleetFault
from runbooks.model.fleet import Routine, order

ENVIRONMENTS = ("one", "two")
DAILY = Routine.take(Tier.DAILY)


class Aws:
    """Answers as AWS Batch does: a job has one state after the other, at each look the next."""

    def __init__(self, *looks: dict[str, Any], refusing: Exception | None = None) -> None:
        self.looks: Iterator[dict[str, Any]] = iter(looks)
        self.now: dict[str, Any] = {}
        self.submitted: list[dict[str, Any]] = []
        self.asked: list[int] = []
        self.refusing = refusing

    def submit_job(self, **words: Any) -> dict[str, Any]:
        if self.refusing:
            raise self.refusing
        self.submitted.append(words)
        return {"jobId": "job-1", "jobName": words["jobName"]}

    def describe_jobs(self, jobs: Sequence[str]) -> dict[str, Any]:
        self.asked.append(len(jobs))
        if ":" not in jobs[0]:
            self.now = next(self.looks, self.now)
            return {"jobs": [self.now["parent"]] if self.now else []}
        return {"jobs": [child for child in self.now.get("children", []) if child["jobId"] in jobs]}


def look(status: str, *children: dict[str, Any], size: int | None = None) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for child in children:
        counts[child["status"]] = counts.get(child["status"], 0) + 1
    array = {"size": len(children) if size is None else size, "statusSummary": counts}
    numbered = [{"jobId": f"job-1:{index}", **child} for index, child in enumerate(children)]
    return {"parent": {"status": status, "arrayProperties": array}, "children": numbered[::-1]}


def child(status: str, code: int | None = None, **more: Any) -> dict[str, Any]:
    container = {} if code is None else {"exitCode": code}
    return {"status": status, "container": container | more}


GOOD, BAD = child("SUCCEEDED", 0, logStreamName="writer/a"), child("FAILED", 30, reason="it ended", logStreamName="b")


def batch(aws: Aws, told: list[str] | None = None) -> Batch:
    return Batch("us-east-1", client=lambda: aws, sleep=lambda seconds: (told or []).append(str(seconds)))


def test_it_submits_one_child_for_each_environment_to_the_stacks_own_queue() -> None:
    aws = Aws()
    assert batch(aws).submit(AwsNames("pair"), DAILY, ENVIRONMENTS) == "job-1"
    (words,) = aws.submitted
    assert words == {
        "jobName": "take-daily",
        "jobQueue": "bloom-dr-pair-fleet",
        "jobDefinition": "bloom-dr-pair-take",
        "arrayProperties": {"size": 2},
        "containerOverrides": {
            "command": ["backup.fleet", "--child", "--stack", "pair", "--order", order(ENVIRONMENTS), "--tier", "daily"]
        },
    }


def test_it_waits_until_all_have_ended_and_says_how_far_they_are() -> None:
    told: list[str] = []
    aws = Aws(
        look("PENDING", child("RUNNABLE"), child("RUNNABLE")),
        look("RUNNING", GOOD, child("RUNNING")),
        look("FAILED", GOOD, child("RUNNING")),  # the whole is lost already, the last child is not over
        look("FAILED", GOOD, BAD),
    )
    outcomes = batch(aws).follow("job-1", ENVIRONMENTS, told.append)
    assert [(one.environment, one.exit_code, one.log) for one in outcomes] == [("one", 0, "writer/a"), ("two", 30, "b")]
    assert outcomes[1].said == "failed: it ended"
    assert told == ["2 runnable", "1 succeeded, 1 running", "1 succeeded, 1 running"]


@pytest.mark.parametrize("children", [(GOOD,), (child("FAILED"), GOOD)], ids=["unknown", "never began"])
def test_a_child_that_says_nothing_is_not_done(children: tuple[dict[str, Any], ...]) -> None:
    outcomes = batch(Aws(look("SUCCEEDED", *children, size=2))).follow("job-1", ENVIRONMENTS, str)
    assert sorted(one.exit_code for one in outcomes) == [0, 31]


def test_a_job_of_another_size_is_not_read_with_the_names_of_today() -> None:
    with pytest.raises(FleetFault, match="3 children, and the stack 2"):
        batch(Aws(look("SUCCEEDED", GOOD, GOOD, GOOD))).follow("job-1", ENVIRONMENTS, str)


def test_a_job_that_batch_has_forgotten_is_no_good_end() -> None:
    with pytest.raises(FleetFault, match="knows no job"):
        batch(Aws()).follow("job-1", ENVIRONMENTS, str)


def test_thousands_are_asked_for_a_hundred_at_a_time() -> None:
    names = [f"e{index}" for index in range(250)]
    aws = Aws(look("SUCCEEDED", *[GOOD] * 250))
    assert len(batch(aws).follow("job-1", names, str)) == 250
    assert aws.asked == [1, AT_A_TIME, AT_A_TIME, 50]


@pytest.mark.parametrize(
    "refusal",
    [
        ClientError({"Error": {"Code": "ClientException", "Message": "no\nsuch queue"}}, "SubmitJob"),
        NoCredentialsError(),
    ],
)
def test_a_refusal_is_told_and_nothing_was_started(refusal: Exception) -> None:
    with pytest.raises(FleetFault, match="could not be started") as refused:
        batch(Aws(refusing=refusal)).submit(AwsNames("pair"), DAILY, ENVIRONMENTS)
    assert refused.value.safe == "no job was started"
    assert "\n" not in refused.value.happened
