"""A secret as `pulumi up` makes it in moto, a database in the sandbox's Neon, and a wire between the two."""

from __future__ import annotations

import json
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from moto.awslambda_simple.models import LambdaSimpleBackend
from moto.secretsmanager.exceptions import InvalidRequestException

from infra import rotation
from infra.rotation.fault import RotationFault
from infra.rotation.turn import Turn
from infra.rotation.url import Url
from infra.rotation.versions import CURRENT, Versions
from infra.secret import DatabaseSecret, DatabaseSecretArgs
from runbooks.model.aws_names import AwsNames
from runbooks.sandbox.stack import Stack as Sandbox
from tests.infra.applying import Stack, apply
from tests.infra.cloud import ACCOUNT, REGION, Cloud

NAMES = AwsNames("production")
APP = f"arn:aws:iam::{ACCOUNT}:role/bloom-app"
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/{NAMES.boundary}"
GROUP_SQL = Path(rotation.__file__).with_name("group.sql")
STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
DATABASE_URL, ADMIN = NAMES.secret("production", "database-url"), NAMES.secret("production", "database-admin")


def secret_args(**settings: Any) -> DatabaseSecretArgs:
    usual: dict[str, Any] = {
        "names": NAMES, "environment": "production", "account": ACCOUNT, "region": REGION, "boundary_arn": BOUNDARY,
        "readers": [APP], "rotates": False, "rotation_days": 90, "protect": True,
    }  # fmt: skip
    return DatabaseSecretArgs(**usual | settings)


def declared(cloud: Cloud, **settings: Any) -> Stack:
    return apply(cloud, lambda: DatabaseSecret("production", secret_args(**settings)) and None, {})


def make_group(owner: str, group: str) -> None:
    """What docs/adopt.md has the owner of the database do, under a name of this test's own."""
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(re.sub(r"\bbloom_app\b", group, GROUP_SQL.read_text()))


@dataclass
class Wire:
    """Stands between the function and the server; can be cut at a word."""

    upstream: tuple[str, int]
    port: int = 0
    cut_before: bytes | None = None
    """The connection ends instead of carrying these octets to the server."""
    cut_after: bytes | None = None
    """They reach the server, and its answer is lost."""

    def carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.upstream) as server:
            answers = threading.Thread(target=self._back, args=(server, client))
            answers.start()
            with suppress(OSError):
                while octets := client.recv(65536):
                    if self.cut_before and self.cut_before in octets:
                        break
                    if self.cut_after and self.cut_after in octets:
                        client.shutdown(socket.SHUT_WR)  # first, so that no answer gets through
                        server.sendall(octets)
                        break
                    server.sendall(octets)
                server.shutdown(socket.SHUT_WR)
            answers.join()

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while octets := server.recv(65536):
                client.sendall(octets)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def wired(upstream: tuple[str, int]) -> Iterator[Wire]:
    wire, carried = Wire(upstream), []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        wire.port = listening.getsockname()[1]

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    carried.append(threading.Thread(target=wire.carry, args=(client,)))
                    carried[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield wire
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for each in carried:
                each.join()


@dataclass
class World:
    """One environment's secret, and the database that it leads to."""

    manager: Any
    """boto3's client for Secrets Manager."""
    function_arn: str
    secret: str
    admin: str
    """The names of the two secrets."""
    owner: Url
    pooled: Url
    group: str
    asked: list[str] = field(default_factory=list)
    """The steps that moto asked the function for."""

    @property
    def roles(self) -> tuple[str, str]:
        return f"{self.group}_a", f"{self.group}_b"

    def seed(self, user: Url | None = None, **more: str) -> None:
        """As a person would, by hand."""
        first = user or self.owner
        value = {
            "DATABASE_URL": self.pooled.as_role(first.user, first.password).text(),
            "DATABASE_URL_DIRECT": self.owner.as_role(first.user, first.password).text(),
            **more,
        }
        self.manager.put_secret_value(SecretId=self.secret, SecretString=json.dumps(value))
        self.manager.put_secret_value(SecretId=self.admin, SecretString=f"{self.owner.text()}\n")

    def value(self, stage: str = CURRENT) -> dict[str, str]:
        found = self.manager.get_secret_value(SecretId=self.secret, VersionStage=stage)["SecretString"]
        read: dict[str, str] = json.loads(found)
        return read

    def stages(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = self.manager.describe_secret(SecretId=self.secret)["VersionIdsToStages"]
        return {version: sorted(held) for version, held in found.items() if held}

    def passwords(self) -> list[str]:
        """Of all versions."""
        found = []
        for version in self.stages():
            with suppress(self.manager.exceptions.ResourceNotFoundException):
                text = self.manager.get_secret_value(SecretId=self.secret, VersionId=version)["SecretString"]
                found.append(Url.parse(json.loads(text)["DATABASE_URL"]).password)
        return found

    def start(self) -> str:
        """What Secrets Manager does before it calls anybody: a pending version without a value."""
        token = str(uuid.uuid4())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LambdaSimpleBackend, "invoke", lambda *_, **__: b"")
            self.manager.rotate_secret(
                SecretId=self.secret, ClientRequestToken=token, RotationLambdaARN=self.function_arn
            )
        return token

    def take(self, step: str, token: str) -> None:
        Turn(Versions(self.manager, self.secret, token), self.admin, self.group).take(step)

    def rotate(self) -> None:
        """All of it, as moto asks for it."""
        self.manager.rotate_secret(
            SecretId=self.secret, ClientRequestToken=str(uuid.uuid4()), RotationLambdaARN=self.function_arn
        )

    def rotate_until(self, step: str) -> str:
        """The token of a rotation of which everything before `step` is done."""
        token = self.start()
        for each in STEPS[: STEPS.index(step)]:
            self.take(each, token)
        return token

    def answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """moto's function is ours from now on."""

        def invoke(_: object, function_name: str, qualifier: object, body: str, *__: object, **___: object) -> bytes:
            event = json.loads(body)
            self.asked.append(event["Step"])
            try:
                self.take(event["Step"], event["ClientRequestToken"])
            except RotationFault as fault:  # AWS would have answered long before, and tell of it in the audit log
                raise InvalidRequestException(str(fault)) from fault
            return b"null"

        monkeypatch.setattr(LambdaSimpleBackend, "invoke", invoke)


def world(cloud: Cloud, sandbox: Sandbox, group: str, port: int | None = None) -> World:
    """Two secrets of its own beside the declared ones, and its own group of roles; no values yet. `port`: of a wire in
    front of the server."""
    owner, pooled = sandbox.uri().reveal(), sandbox.uri(pooled=True).reveal()
    make_group(owner, group)
    manager = cloud.client("secretsmanager")
    secret, admin = (NAMES.secret(group, of) for of in ("database-url", "database-admin"))
    for name in (secret, admin):
        manager.create_secret(Name=name)
    function = cloud.client("lambda").get_function(FunctionName=NAMES.rotation_function("production"))
    return World(
        manager, function["Configuration"]["FunctionArn"], secret, admin, moved(owner, port), moved(pooled, port), group
    )


def moved(text: str, port: int | None) -> Url:
    return Url.parse(re.sub(r":\d+/", f":{port}/", text) if port else text)


def logs_in(text: str) -> str:
    """Who one is after logging in with this URL; psycopg.OperationalError if it does not."""
    with psycopg.connect(text, connect_timeout=10) as connection:
        row = connection.execute("select current_user::text").fetchone()
    assert row is not None
    return str(row[0])
