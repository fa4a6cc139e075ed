"""Pulumi's own host of dynamic providers as a process, spoken to as the engine does: over gRPC."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from pulumi.dynamic import ResourceProvider
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.runtime import rpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

SERIALIZED = "__provider"


class Host:
    def __init__(self, port: int, provider: ResourceProvider) -> None:
        self._stub = provider_pb2_grpc.ResourceProviderStub(grpc.insecure_channel(f"127.0.0.1:{port}"))
        self.serialized = serialize_provider(provider)
        self._stub.Configure(provider_pb2.ConfigureRequest())

    def check(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> Any:
        return self._stub.Check(provider_pb2.CheckRequest(olds=self._sent(olds), news=self._sent(news)))

    def create(self, props: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        made = self._stub.Create(provider_pb2.CreateRequest(properties=self._sent(props)))
        return made.id, _received(made.properties)

    def diff(self, id_: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> Any:
        return self._stub.Diff(provider_pb2.DiffRequest(id=id_, olds=self._sent(olds), news=self._sent(news)))

    def differs(self, id_: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
        return bool(self.diff(id_, olds, news).changes == provider_pb2.DiffResponse.DIFF_SOME)

    def update(self, id_: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dict[str, Any]:
        asked = provider_pb2.UpdateRequest(id=id_, olds=self._sent(olds), news=self._sent(news))
        return _received(self._stub.Update(asked).properties)

    def read(self, id_: str, props: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Outputs and inputs."""
        read = self._stub.Read(provider_pb2.ReadRequest(id=id_, properties=self._sent(props)))
        return _received(read.properties), _received(read.inputs)

    def delete(self, id_: str, props: Mapping[str, Any]) -> None:
        self._stub.Delete(provider_pb2.DeleteRequest(id=id_, properties=self._sent(props)))

    def _sent(self, props: Mapping[str, Any]) -> Any:
        return asyncio.run(rpc.serialize_properties({**props, SERIALIZED: self.serialized}, {}))


def _received(struct: Any) -> dict[str, Any]:
    found: dict[str, Any] = rpc.deserialize_properties(struct)
    found.pop(SERIALIZED)
    return found


@contextmanager
def host(provider: ResourceProvider, environ: Mapping[str, str]) -> Iterator[Host]:
    """With `environ` added to its environment, as the shell of whoever types `pulumi up` has it."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pulumi.dynamic"], stdout=subprocess.PIPE, env={**os.environ, **environ}, text=True
    )
    try:
        assert process.stdout is not None
        yield Host(int(process.stdout.readline()), provider)
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()
