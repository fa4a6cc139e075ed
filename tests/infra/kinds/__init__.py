"""How each kind of resource is made, read, changed and removed at AWS, through boto3: one table for two doors, the
mocks in `tests.infra.applying` and the engine's provider in `tests.pulumi_engine`.

A token that is not in the table is an error: no resource can be added without being applied. Modules are named after
the services; each adds its own with `kind`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.infra.cloud import Cloud

Properties = dict[str, Any]
"""As on the wire: camelCase, whole numbers already int, secrets and assets unwrapped."""


@dataclass(frozen=True)
class Kind:
    token: str
    """For example aws:s3/bucket:Bucket."""
    create: Callable[[Cloud, Properties], tuple[str, Properties]]
    """From all inputs (`region` may be one of them) to the id and what AWS adds: arn, keyId ... ."""
    update: Callable[[Cloud, str, Properties], Properties] | None = None
    """From the id and all inputs, changed ones too, to what AWS adds. None: every change is a replacement."""
    read: Callable[[Cloud, str, Properties], Properties | None] | None = None
    """From the id and all last known properties to those that AWS has now, under the inputs' names; None: it is gone.
    Left out where nothing tests drift: what is known then stands."""
    delete: Callable[[Cloud, str, Properties], None] = lambda *_: None
    """From the id and all last known properties."""
    replaced_by: frozenset[str] = frozenset()
    """Inputs that AWS cannot change: another value is another resource."""


TABLE: dict[str, Kind] = {}


def kind(token: str, **how: Any) -> None:
    """Add a kind to the table. ValueError if it is there."""
    if token in TABLE:
        raise ValueError(f"{token} is in the table already")
    TABLE[token] = Kind(token, **how)


def load() -> Mapping[str, Kind]:
    """The whole table."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return TABLE


def picked(inputs: Properties, names: Mapping[str, str]) -> Properties:
    """Those inputs that are given, under boto3's names: {"name": "Name"}."""
    return {theirs: inputs[ours] for ours, theirs in names.items() if inputs.get(ours) is not None}


def pascal(value: Any) -> Any:
    """camelCase keys, at any depth, as PascalCase ones."""
    if isinstance(value, dict):
        return {key[:1].upper() + key[1:]: pascal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [pascal(item) for item in value]
    return value


def tag_list(inputs: Properties) -> list[dict[str, str]]:
    """The input `tags` as boto3 mostly wants it."""
    return [{"Key": key, "Value": value} for key, value in (inputs.get("tags") or {}).items()]
