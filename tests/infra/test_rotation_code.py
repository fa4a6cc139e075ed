"""What Lambda gets: complete without anything from here, and the same each time."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

import boto3
import pytest

from infra import function_code
from infra.rotation.url import Url
from runbooks.sandbox.stack import Stack as Sandbox
from tests.infra.applying import zipped
from tests.infra.cloud import REGION, Cloud
from tests.infra.rotation_ground import NAMES, STEPS, declared, logs_in, world

LIMIT = 50_000_000
"""Lambda's for a zip that is sent to it."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("function")
    with zipfile.ZipFile(io.BytesIO(zipped(function_code.archive()))) as bundle:
        bundle.extractall(folder)
    return folder


def test_the_archive_is_the_same_each_time() -> None:
    one, other = (zipped(function_code.archive()) for _ in range(2))
    assert hashlib.sha256(one).digest() == hashlib.sha256(other).digest()
    names = zipfile.ZipFile(io.BytesIO(one)).namelist()
    assert names == sorted(names)
    assert len(one) < LIMIT


def test_only_sources_go_up(unpacked: Path) -> None:
    files = [path for path in unpacked.rglob("*") if path.is_file()]
    assert {path.suffix for path in files if path.name != "METADATA"} == {".py"}
    assert not [path for path in files if "__pycache__" in path.parts or "tests" in path.parts]
    own = {path.name for path in (unpacked / "rotation").iterdir()}
    assert own == {path.name for path in Path(function_code.rotation.__file__).parent.glob("*.py")}


def alone(folder: Path, code: str, *more: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run with the standard library and the archive; `more` are folders at the end of the path."""
    start = f"import sys; sys.path[:0] = [{str(folder)!r}]; sys.path += {list(more)!r}\n"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", start + code], env={"PATH": os.environ["PATH"], **environ},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


IMPORTS = """
import types
sys.modules["boto3"] = types.ModuleType("boto3")  # Lambda brings it
from rotation import entry
import pg8000
print(entry.rotate.__module__, pg8000.__version__, pg8000.__file__)
"""


def test_it_needs_nothing_but_the_standard_library_and_boto3(unpacked: Path) -> None:
    done = alone(unpacked, IMPORTS)
    assert done.returncode == 0, done.stderr
    module, version, place = done.stdout.split()
    assert f"{module}.rotate" == function_code.ENTRY
    assert version[0].isdigit()
    assert Path(place).is_relative_to(unpacked)


@pytest.mark.parametrize("package", ["scramp", "asn1crypto", "dateutil", "six.py"])
def test_no_package_of_it_is_there_for_nothing(unpacked: Path, package: str, tmp_path: Path) -> None:
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    for each in unpacked.iterdir():
        if each.name != package:
            (lacking / each.name).symlink_to(each)
    assert "ModuleNotFoundError" in alone(lacking, IMPORTS).stderr


RUN = """
import json, os
from rotation.entry import rotate
for event in json.loads(os.environ["EVENTS"]):
    rotate(event, None)
import pg8000
assert pg8000.__file__.startswith(sys.path[0])
"""


def test_it_rotates_as_lambda_would_run_it(cloud: Cloud, shared_stack: Sandbox, tmp_path: Path) -> None:
    """The zip and the variables that moto was given, in a process of their own."""
    declared(cloud, group="zipped")
    made = world(cloud, shared_stack, "zipped")
    made.secret, made.admin = (NAMES.secret("production", of) for of in ("database-url", "database-admin"))
    made.seed()
    token = made.start()
    function = cloud.client("lambda").get_function(FunctionName=NAMES.rotation_function("production"))
    code = Path(tmp_path / "code")
    with zipfile.ZipFile(io.BytesIO(zipped(function_code.archive()))) as bundle:
        bundle.extractall(code)
    arn = cloud.client("secretsmanager").describe_secret(SecretId=made.secret)["ARN"]
    events = [{"Step": step, "SecretId": arn, "ClientRequestToken": token} for step in STEPS]
    done = alone(
        code, RUN, str(Path(boto3.__file__).parents[1]), EVENTS=json.dumps(events), AWS_ENDPOINT_URL=cloud.endpoint,
        AWS_DEFAULT_REGION=REGION, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test",
        **function["Configuration"]["Environment"]["Variables"],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert function["Configuration"]["Handler"] == function_code.ENTRY
    assert Url.parse(made.value()["DATABASE_URL"]).user == "zipped_a"
    assert logs_in(made.value()["DATABASE_URL"]) == "zipped"


def test_its_failure_is_an_error_of_the_process_that_tells_no_secret(cloud: Cloud, unpacked: Path) -> None:
    manager = cloud.client("secretsmanager")
    manager.create_secret(Name="admin", SecretString="postgresql://owner:planted@db.example/d")
    token = str(uuid.uuid4())
    url = "postgresql://team_b:planted@db.example/d?sslmode=disable"
    value = json.dumps({"DATABASE_URL": url, "DATABASE_URL_DIRECT": url})
    manager.create_secret(Name="url", SecretString=value.replace("team_b", "team_a"))
    manager.put_secret_value(SecretId="url", ClientRequestToken=token, SecretString=value, VersionStages=["AWSPENDING"])
    done = alone(
        unpacked, RUN, str(Path(boto3.__file__).parents[1]), AWS_ENDPOINT_URL=cloud.endpoint, ADMIN_SECRET="admin",
        AWS_DEFAULT_REGION=REGION, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", ROLE_GROUP="team",
        EVENTS=json.dumps([{"Step": "testSecret", "SecretId": "url", "ClientRequestToken": token}]),
    )  # fmt: skip
    assert done.returncode == 1
    assert "RotationFault: the URL of db.example says sslmode=disable" in done.stderr
    assert "planted" not in done.stdout + done.stderr
