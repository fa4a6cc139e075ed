"""Functions, and who may call them."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, picked

_NAMES = {
    "name": "FunctionName", "role": "Role", "handler": "Handler", "runtime": "Runtime", "description": "Description",
    "timeout": "Timeout", "memorySize": "MemorySize",
}  # fmt: skip


def _functions(cloud: Cloud, known: Properties) -> Any:
    return cloud.client("lambda", known.get("region"))


def _words(inputs: Properties) -> Properties:
    variables = (inputs.get("environment") or {}).get("variables") or {}
    return {**picked(inputs, _NAMES), "Environment": {"Variables": variables}}


def _reserve(cloud: Cloud, inputs: Properties) -> None:
    """-1, as the provider has it, is nothing reserved."""
    reserved = inputs.get("reservedConcurrentExecutions")
    if reserved is None or reserved < 0:
        _functions(cloud, inputs).delete_function_concurrency(FunctionName=inputs["name"])
    else:
        _functions(cloud, inputs).put_function_concurrency(
            FunctionName=inputs["name"], ReservedConcurrentExecutions=reserved
        )


def _create(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    made = _functions(cloud, inputs).create_function(Code={"ZipFile": inputs["code"]}, **_words(inputs))
    _reserve(cloud, inputs)
    return made["FunctionName"], {"arn": made["FunctionArn"], "codeSha256": _sum(inputs["code"])}


def _update(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    functions = _functions(cloud, inputs)
    functions.update_function_configuration(**_words(inputs))
    functions.update_function_code(FunctionName=id_, ZipFile=inputs["code"])
    _reserve(cloud, inputs)
    return {"codeSha256": _sum(inputs["code"])}


def _sum(code: bytes) -> str:
    return base64.b64encode(hashlib.sha256(code).digest()).decode()


def _read(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    functions = _functions(cloud, known)
    try:
        found = functions.get_function(FunctionName=id_)
    except functions.exceptions.ResourceNotFoundException:
        return None
    now = {ours: found["Configuration"][theirs] for ours, theirs in _NAMES.items() if ours in known}
    reserved = found.get("Concurrency", {}).get("ReservedConcurrentExecutions")
    return {**known, **now, "reservedConcurrentExecutions": reserved}


kind(
    "aws:lambda/function:Function",
    create=_create,
    update=_update,
    read=_read,
    delete=lambda cloud, id_, known: _functions(cloud, known).delete_function(FunctionName=id_) and None,
    replaced_by=frozenset({"name", "region"}),
)


def _allow(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    _functions(cloud, inputs).add_permission(
        FunctionName=inputs["function"],
        **picked(inputs, {
            "statementId": "StatementId", "action": "Action", "principal": "Principal", "sourceArn": "SourceArn",
            "sourceAccount": "SourceAccount",
        }),
    )  # fmt: skip
    return inputs["statementId"], {}


def _read_allowed(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    functions = _functions(cloud, known)
    try:
        policy = json.loads(functions.get_policy(FunctionName=known["function"])["Policy"])
    except functions.exceptions.ResourceNotFoundException:
        return None
    return known if any(each["Sid"] == id_ for each in policy["Statement"]) else None


kind(
    "aws:lambda/permission:Permission",
    create=_allow,
    read=_read_allowed,
    delete=lambda cloud, id_, known: (
        _functions(cloud, known).remove_permission(FunctionName=known["function"], StatementId=id_) and None
    ),
    replaced_by=frozenset({"statementId", "function", "action", "principal", "sourceArn", "sourceAccount", "region"}),
)
