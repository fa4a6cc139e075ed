"""The stand-in for AWS, and what tells Pulumi where the sandbox is."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import yaml

from runbooks.cli import stack as commands
from runbooks.model.errors import SandboxFault
from runbooks.model.sandbox_place import KEY, SandboxPlace
from runbooks.sandbox import aws
from runbooks.sandbox.place import FACTS
from runbooks.sandbox.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
SERVING = "from runbooks.sandbox.aws import serve; serve(lambda url: print(url, flush=True), port=0)"


def test_it_answers_as_aws_until_it_is_interrupted() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVING], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        s3 = boto3.client("s3", endpoint_url=running.stdout.readline().strip(), **keys)
        s3.create_bucket(Bucket="here")
        assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == ["here"]
        running.send_signal(signal.SIGINT)
    assert running.returncode == 0, "to be interrupted is how it ends"


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SandboxFault, match="is taken"):
        aws.serve(lambda _: None, port=taken.getsockname()[1])


def test_the_stack_of_the_sandbox_cannot_reach_a_real_account() -> None:
    config = yaml.safe_load((ROOT / "Pulumi.sandbox.yaml").read_text())["config"]
    (endpoints,) = config["aws:endpoints"]
    assert set(endpoints.values()) == {f"http://127.0.0.1:{aws.PORT}"}
    assert (config["aws:accessKey"], config["aws:secretKey"]) == ("test", "test")


def test_the_shell_is_told_where_the_sandbox_is(shared_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOOM_DR_SANDBOX", str(shared_stack.root))
    assert (shared_stack.root / FACTS).exists()
    answer = commands.exports()
    shell = f"{answer.text}\nexec env"
    told = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True, env={"PATH": os.defpath})
    environ = dict(line.split("=", 1) for line in told.stdout.splitlines())
    assert SandboxPlace.read(environ) == SandboxPlace(shared_stack.api_url, shared_stack.project_id)
    assert environ[KEY] == shared_stack.api_key.reveal()
    assert all(shlex.split(line)[0] == "export" for line in answer.text.splitlines())


def test_without_a_running_stack_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOOM_DR_SANDBOX", str(tmp_path / "none"))
    with pytest.raises(SandboxFault, match="not running"):
        commands.exports()
