"""Mocks that apply: what the program declares is made in moto, so that tests ask AWS's own API what is there."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime import mocks as pulumi_mocks
from pulumi.runtime import rpc, set_all_config, settings

from tests.infra import kinds, strict
from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties

unfinished: list[str] = []
"""Stacks whose program was stopped by what it raised, since the last `swept`."""


def swept() -> None:
    """Forget what stopped programs left unawaited: a later test would be told of it, as a failure of its own."""
    if unfinished:
        unfinished.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            gc.collect()


@dataclass(frozen=True)
class Declared:
    """One resource, as the program declared it."""

    name: str
    token: str
    inputs: Properties
    secrets: frozenset[str]
    """Inputs that hold something secret, at any depth."""
    id: str
    outputs: Properties
    protect: bool
    retain: bool
    depends_on: frozenset[str]
    """URNs, from dependsOn and from the inputs."""
    aliases: tuple[Any, ...]
    ignored: tuple[str, ...]
    """ignoreChanges."""
    secret_outputs: tuple[str, ...]
    urn: str
    parent: str


@dataclass
class Stack:
    """What a program declared and exported."""

    declared: dict[str, Declared] = field(default_factory=dict)
    """By token and name: `stack["aws:s3/bucket:Bucket", "archive"]`."""
    exported: Properties = field(default_factory=dict)

    def __getitem__(self, place: tuple[str, str]) -> Declared:
        token, name = place
        found = [each for each in self.declared.values() if each.token == token and each.name == name]
        assert len(found) == 1, (
            f"{len(found)} of {token} {name}; there are {sorted(each.name for each in self.of(token))}"
        )
        return found[0]

    def of(self, token: str) -> list[Declared]:
        return [each for each in self.declared.values() if each.token == token]

    def needs(self, one: Declared, other: Declared) -> bool:
        """Whether `one` is made only after `other`, directly or through others."""
        todo, seen = list(one.depends_on), set()
        while todo:
            if (urn := todo.pop()) == other.urn:
                return True
            if urn not in seen and urn in self.declared:
                seen.add(urn)
                todo += self.declared[urn].depends_on
        return False


class _Applying(pulumi_mocks.Mocks):
    def __init__(self, cloud: Cloud, stack: Stack) -> None:
        self.cloud, self.stack, self.table = cloud, stack, kinds.load()
        self.made: dict[str, tuple[str, Properties, Properties, frozenset[str]]] = {}

    def new_resource(self, args: pulumi_mocks.MockResourceArgs) -> tuple[str, Properties]:
        if not args.custom:
            return "", args.inputs
        secrets = frozenset(key for key, value in args.inputs.items() if _is_secret(value))
        inputs: Properties = wire(args.inputs)
        with self.cloud.lock:
            if args.typ.startswith("aws:"):
                strict.check(args.typ, inputs)
            if args.typ not in self.table:
                raise NotImplementedError(f"{args.typ} is in no module of tests/infra/kinds: it would go untested")
            id_, added = self.table[args.typ].create(self.cloud, inputs)
            outputs = {**args.inputs, **added}
            self.made[f"{args.typ}::{args.name}"] = (id_, inputs, {**inputs, **added}, secrets)
        return id_, outputs

    def call(self, args: pulumi_mocks.MockCallArgs) -> Properties:
        return answered(self.cloud, args.token, args.args)


def answered(cloud: Cloud, token: str, args: Mapping[str, Any]) -> Properties:
    """The answer to a call (an invoke) of the provider."""
    if token == "aws:index/getCallerIdentity:getCallerIdentity":
        found = cloud.client("sts").get_caller_identity()
        return {"accountId": found["Account"], "arn": found["Arn"], "userId": found["UserId"], "id": found["Account"]}
    if token == "aws:index/getRegion:getRegion":
        return {"region": cloud.region, "id": cloud.region, "description": cloud.region, "endpoint": ""}
    if token == "aws:index/getPartition:getPartition":
        return {"partition": "aws", "dnsSuffix": "amazonaws.com", "id": "aws", "reverseDnsPrefix": "com.amazonaws"}
    if token == "aws:index/getAvailabilityZones:getAvailabilityZones":
        zones = cloud.client("ec2").describe_availability_zones()["AvailabilityZones"]
        names, ids = [zone["ZoneName"] for zone in zones], [zone["ZoneId"] for zone in zones]
        return {"names": names, "zoneIds": ids, "id": cloud.region, "groupNames": [cloud.region]}
    raise NotImplementedError(f"no test answers the call {token}")


class _Monitor(pulumi_mocks.MockMonitor):
    """Keeps what the mocks themselves are not shown: options, dependencies."""

    mocks: _Applying

    def RegisterResource(self, request: Any) -> Any:
        answer = super().RegisterResource(request)
        urn = answer.urn
        if (made := self.mocks.made.get(f"{request.type}::{request.name}")) is not None:
            needed = set(request.dependencies)
            for each in request.propertyDependencies.values():
                needed |= set(each.urns)
            self.mocks.stack.declared[urn] = Declared(
                name=request.name, token=request.type, inputs=made[1], secrets=made[3], id=made[0], outputs=made[2],
                protect=request.protect, retain=request.retainOnDelete, depends_on=frozenset(needed),
                aliases=tuple(request.aliases), ignored=tuple(request.ignoreChanges),
                secret_outputs=tuple(request.additionalSecretOutputs), urn=urn, parent=request.parent,
            )  # fmt: skip
        return answer


def apply(cloud: Cloud, program: Callable[[], None], config: Mapping[str, str], secret: tuple[str, ...] = (),
          stack: str = "production") -> Stack:  # fmt: skip
    """Carry out a Pulumi program against moto. Whatever a resource or the program raises is raised.

    `config` has keys such as `bloom-dr:image`; `secret` names those that are secrets.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it tells of each failure a second time
    with _loops():
        try:
            return _applied(cloud, program, config, secret, stack)
        except BaseException:
            unfinished.append(stack)
            raise


@contextmanager
def _loops() -> Iterator[None]:
    """One for this thread; all that are made meanwhile are closed, as Pulumi leaves those of its threads open."""
    made, original = [], asyncio.new_event_loop

    def kept() -> asyncio.AbstractEventLoop:
        made.append(original())
        return made[-1]

    asyncio.new_event_loop = kept
    try:
        asyncio.set_event_loop(kept())
        yield
    finally:
        asyncio.new_event_loop = original
        asyncio.set_event_loop(None)
        for loop in made:
            loop.close()


def _applied(
    cloud: Cloud, program: Callable[[], None], config: Mapping[str, str], secret: tuple[str, ...], stack: str
) -> Stack:
    result = Stack()
    applying = _Applying(cloud, result)
    settings.set_root_resource(None)  # or the outputs of an earlier stack would be among this one's
    pulumi_mocks.set_mocks(applying, project="bloom-dr", stack=stack, preview=False, monitor=_Monitor(applying))
    set_all_config(dict(config), list(secret))
    exported: dict[str, Any] = {}

    @pulumi.runtime.test
    def run() -> Any:
        program()
        root = settings.get_root_resource()
        outputs = getattr(root, "outputs", {})
        return pulumi.Output.all(**outputs).apply(exported.update)

    run()
    result.exported = exported
    return result


def _is_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get(rpc._special_sig_key) == rpc._special_secret_sig or any(map(_is_secret, value.values()))
    return isinstance(value, list) and any(map(_is_secret, value))


def wire(value: Any) -> Any:
    """Without the wrapping of the wire: secrets as they are, whole numbers as int, archives as their zip's bytes."""
    if isinstance(value, dict):
        if value.get(rpc._special_sig_key) == rpc._special_secret_sig:
            return wire(value["value"])
        return {key: wire(item) for key, item in value.items()}
    if isinstance(value, list):
        return [wire(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, pulumi.AssetArchive | pulumi.FileArchive):
        return zipped(value)
    return value


def zipped(archive: pulumi.Archive) -> bytes:
    """What the provider would send of it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        _add(bundle, archive, Path())
    return buffer.getvalue()


def _add(bundle: zipfile.ZipFile, asset: Any, place: Path) -> None:
    if isinstance(asset, pulumi.AssetArchive):
        for name, each in asset.assets.items():
            _add(bundle, each, place / name)
    elif isinstance(asset, pulumi.FileArchive):
        folder = Path(asset.path)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                bundle.write(path, str(place / path.relative_to(folder)))
    elif isinstance(asset, pulumi.FileAsset):
        bundle.write(asset.path, str(place))
    elif isinstance(asset, pulumi.StringAsset):
        bundle.writestr(str(place), asset.text)
    else:
        raise NotImplementedError(f"{type(asset).__name__} in an archive")
