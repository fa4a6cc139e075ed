"""What the test providers of the engine have in common: the wire, and what changes between two sets of inputs."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Mapping
from concurrent import futures
from functools import wraps
from threading import Event
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.output import Unknown
from pulumi.runtime import rpc
from pulumi.runtime.proto import ResourceProviderServicer, plugin_pb2, provider_pb2, provider_pb2_grpc

from tests.infra.applying import wire

Properties = dict[str, Any]
Method = Callable[[Any, Any, Any], Any]


def told(method: Method) -> Method:
    """What goes wrong is told to the engine, and by it to the person."""

    @wraps(method)
    def carried_out(self: Any, request: Any, context: Any) -> Any:
        try:
            return method(self, request, context)
        except Exception as error:  # noqa: BLE001 - it ends in the engine's own error
            context.abort(grpc.StatusCode.UNKNOWN, f"{error!r}\n{traceback.format_exc()}")

    return carried_out


class Provider(ResourceProviderServicer):
    """Secrets come unwrapped, as it accepts none. Without a Handshake the engine creates nothing in a preview, and
    unknown values come only to Check and Diff."""

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="0.0.1")

    def GetSchema(self, request: Any, context: Any) -> Any:
        return provider_pb2.GetSchemaResponse(schema="{}")

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.DiffResponse()

    def Configure(self, request: Any, context: Any) -> Any:
        return provider_pb2.ConfigureResponse()

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()


def plain(struct: Any) -> Properties:
    """As the table of kinds wants it. What is not known yet is None, and an archive of which only the hash is kept."""
    whole = struct_pb2.Struct()
    json_format.ParseDict(_without_hollow(json_format.MessageToDict(struct)), whole)
    found: Properties = wire(_known(rpc.deserialize_properties(whole, keep_unknowns=True)))
    return found


def _without_hollow(value: Any) -> Any:
    """Pulumi's state keeps no content of an archive; an empty one cannot be read."""
    if isinstance(value, dict):
        if value.get(rpc._special_sig_key) == rpc._special_archive_sig and not {"assets", "path", "uri"} & set(value):
            return None
        return {key: _without_hollow(item) for key, item in value.items()}
    return [_without_hollow(item) for item in value] if isinstance(value, list) else value


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_known(item) for item in value]
    return None if isinstance(value, Unknown) or value == rpc.UNKNOWN else value


def with_added(struct: Any, added: Mapping[str, Any]) -> Any:
    """Outputs: the inputs as they came, archives and all, and what the provider adds."""
    outputs = struct_pb2.Struct()
    outputs.CopyFrom(struct)
    outputs.MergeFrom(asyncio.run(rpc.serialize_properties(dict(added), {})))
    return outputs


def drifted(struct: Any, before: Properties, now: Properties) -> Any:
    """`struct` with those of its properties that `now` has otherwise than `before`."""
    changed = {name: now.get(name) for name in before if name in struct and before[name] != now.get(name)}
    result = struct_pb2.Struct()
    result.CopyFrom(struct)
    for name, value in changed.items():
        result.fields.pop(name)
        if value is not None:
            result.MergeFrom(asyncio.run(rpc.serialize_properties({name: value}, {})))
    return result


def changes(old: Any, new: Any) -> list[str]:
    """Names of the inputs that differ; an archive differs if its content does."""
    before, after = ({k: _comparable(v) for k, v in json_format.MessageToDict(each).items()} for each in (old, new))
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("hash") or {key: _comparable(item) for key, item in value.items()}
    return [_comparable(item) for item in value] if isinstance(value, list) else value


def difference(changed: list[str], replaces: list[str]) -> Any:
    some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
    return provider_pb2.DiffResponse(
        changes=some if changed else none, diffs=changed, replaces=replaces, deleteBeforeReplace=bool(replaces)
    )


def serve(provider: Provider) -> None:
    """Until the engine ends it. One call at a time: moto's state bears no more."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=1), options=[("grpc.max_receive_message_length", 100_000_000)]
    )
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)  # noqa: T201
    server.start()
    try:
        Event().wait()
    except KeyboardInterrupt:
        server.stop(0)
