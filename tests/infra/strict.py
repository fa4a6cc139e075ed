"""Inputs against the types that the provider's own package declares: the mocks would let a misspelt nested key pass."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import typing
from collections.abc import Mapping
from typing import Any

import pulumi_aws
from pulumi import _types


class UnknownInput(AssertionError):
    """An input that the resource does not have, or of another type."""


def check(token: str, inputs: Mapping[str, Any]) -> None:
    """UnknownInput names the first input, at any depth, that the provider's package does not know."""
    for name, value in inputs.items():
        known = _properties(_args_class(token))
        if name not in known:
            raise UnknownInput(f"{token} has no input {name}")
        _check(f"{token} {name}", known[name], value)


@functools.cache
def _classes() -> Mapping[str, tuple[str, str]]:
    """Token to module and class, out of the map that the package registers for itself."""
    source = inspect.getsource(pulumi_aws)
    text = source[source.index("resource_modules=") :]
    start = text.index('"""') + 3
    found = {}
    for module in json.loads(text[start : text.index('"""', start)]):
        for token, name in module["classes"].items():
            found[token] = (module["fqn"], name)
    return found


@functools.cache
def _args_class(token: str) -> type:
    package, name = _classes()[token]
    module = importlib.import_module(f"{package}.{_snake(name)}")
    # Where a nested type has the same name, the resource's own arguments are called InitArgs.
    found = getattr(module, f"{name}InitArgs", None) or getattr(module, f"{name}Args")
    assert isinstance(found, type)
    return found


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


@functools.cache
def _properties(args: type) -> Mapping[str, Any]:
    """Name on the wire to type."""
    return dict(_types.input_type_types(args))


def _check(place: str, wanted: Any, value: Any) -> None:
    wanted = _types.unwrap_type(wanted) if wanted is not None else None
    if value is None or wanted in (None, Any):
        return
    if isinstance(value, list):
        item = (typing.get_args(wanted) or (None,))[0]
        for each in value:
            _check(place, item, each)
    elif isinstance(value, dict) and isinstance(wanted, type) and _types.is_input_type(wanted):
        known = _properties(wanted)
        for name, each in value.items():
            if name not in known:
                raise UnknownInput(f"{place} has no input {name}")
            _check(f"{place}.{name}", known[name], each)
    elif wanted in (str, bool) and not isinstance(value, wanted):
        if not (wanted is str and isinstance(value, bytes)):
            raise UnknownInput(f"{place} is {type(value).__name__}, not {wanted.__name__}")
    elif wanted in (int, float) and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise UnknownInput(f"{place} is {type(value).__name__}, not a number")
