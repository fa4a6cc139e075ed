"""The engine's provider `aws` of the tests: the table of kinds, the same that the mocks apply, behind the engine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

from tests.infra import kinds, strict
from tests.infra.applying import answered
from tests.infra.cloud import Cloud
from tests.infra.kinds import Kind
from tests.pulumi_engine.provider import Provider, changes, difference, drifted, plain, serve, told, with_added

FAULT = "ENGINE_FAULT"
"""Environment variable with a path. A file there says what goes wrong once: `fails TOKEN` or `dies TOKEN`, the token
being that of the resource that is to be made then."""


class Aws(Provider):
    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.table = cloud, kinds.load()

    @told
    def Configure(self, request: Any, context: Any) -> Any:
        """As the stack's file has it; without endpoints there, those of the environment."""
        told_endpoints = json.loads(plain(request.args).get("endpoints", "[]"))
        if told_endpoints:
            self.cloud = _Named(told_endpoints[0])
        return provider_pb2.ConfigureResponse()

    @told
    def Check(self, request: Any, context: Any) -> Any:
        strict.check(_token(request), plain(request.news))
        return provider_pb2.CheckResponse(inputs=request.news)

    @told
    def Diff(self, request: Any, context: Any) -> Any:
        kind, changed = self._kind(request), changes(request.old_inputs, request.news)
        return difference(changed, [each for each in changed if kind.update is None or each in kind.replaced_by])

    @told
    def Create(self, request: Any, context: Any) -> Any:
        _fail_if_asked(request)
        id_, added = self._kind(request).create(self.cloud, plain(request.properties))
        return provider_pb2.CreateResponse(id=id_, properties=with_added(request.properties, added))

    @told
    def Read(self, request: Any, context: Any) -> Any:
        known = plain(request.properties)
        read = self._kind(request).read
        now = read(self.cloud, request.id, known) if read else known
        if now is None:
            return provider_pb2.ReadResponse()
        outputs, inputs = (drifted(each, known, now) for each in (request.properties, request.inputs))
        return provider_pb2.ReadResponse(id=request.id, properties=outputs, inputs=inputs)

    @told
    def Update(self, request: Any, context: Any) -> Any:
        update = self._kind(request).update
        assert update is not None
        added = update(self.cloud, request.id, plain(request.news))
        known = plain(request.olds)  # what AWS added at the beginning stays: arn, keyId ...
        kept = {name: value for name, value in known.items() if name not in plain(request.old_inputs)}
        return provider_pb2.UpdateResponse(properties=with_added(request.news, {**kept, **added}))

    @told
    def Delete(self, request: Any, context: Any) -> Any:
        self._kind(request).delete(self.cloud, request.id, plain(request.properties))
        return empty_pb2.Empty()

    @told
    def Invoke(self, request: Any, context: Any) -> Any:
        found = answered(self.cloud, request.tok, plain(request.args))
        return provider_pb2.InvokeResponse(**{"return": with_added(request.args, found)})

    def _kind(self, request: Any) -> Kind:
        token = _token(request)
        if token not in self.table:
            raise NotImplementedError(f"{token} is in no module of tests/infra/kinds: it would go untested")
        return self.table[token]


class _Named(Cloud):
    """Only services that the stack's file has an endpoint for: calls to any other would go to the real AWS."""

    def __init__(self, endpoints: dict[str, str]) -> None:
        (one,) = set(endpoints.values())
        super().__init__(one)
        self.named = endpoints.keys()

    def client(self, service: str, region: str | None = None) -> Any:
        if service not in self.named:
            raise LookupError(f"Pulumi.sandbox.yaml has no endpoint for {service}")
        return super().client(service, region)


def _token(request: Any) -> str:
    return str(request.type or request.urn.split("::")[2].split("$")[-1])


def _fail_if_asked(request: Any) -> None:
    path = Path(os.environ[FAULT])
    how, token = path.read_text().split() if path.exists() else ("", "")
    if token == _token(request):
        path.unlink()
        if how == "dies":
            os._exit(1)
        raise ConnectionError("AWS does not answer (a fault that the test asked for)")


if __name__ == "__main__":
    serve(Aws(Cloud(os.environ["AWS_ENDPOINT_URL"])))
