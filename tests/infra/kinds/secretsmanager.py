"""Secrets, who may read them, and how often they rotate."""

from __future__ import annotations

import json
from typing import Any

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, picked, tag_list


def _manager(cloud: Cloud, known: Properties) -> Any:
    return cloud.client("secretsmanager", known.get("region"))


def _create_secret(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    names = {"name": "Name", "description": "Description", "kmsKeyId": "KmsKeyId"}
    arn = _manager(cloud, inputs).create_secret(Tags=tag_list(inputs), **picked(inputs, names))["ARN"]
    return arn, {"arn": arn}


def _update_secret(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    names = {"description": "Description", "kmsKeyId": "KmsKeyId"}
    _manager(cloud, inputs).update_secret(SecretId=id_, **picked(inputs, names))
    return {}


def _read_secret(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    manager = _manager(cloud, known)
    try:
        found = manager.describe_secret(SecretId=id_)
    except manager.exceptions.ResourceNotFoundException:
        return None
    if found.get("DeletedDate"):
        return None
    return {**known, "kmsKeyId": found.get("KmsKeyId"), "description": found.get("Description")}


def _delete_secret(cloud: Cloud, id_: str, known: Properties) -> None:
    """0 days: at once."""
    days = known.get("recoveryWindowInDays", 30)
    how: Properties = {"RecoveryWindowInDays": days} if days else {"ForceDeleteWithoutRecovery": True}
    _manager(cloud, known).delete_secret(SecretId=id_, **how)


kind(
    "aws:secretsmanager/secret:Secret",
    create=_create_secret,
    update=_update_secret,
    read=_read_secret,
    delete=_delete_secret,
    replaced_by=frozenset({"name", "region"}),
)


def _update_policy(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    _manager(cloud, inputs).put_resource_policy(
        SecretId=inputs["secretArn"], ResourcePolicy=inputs["policy"],
        **picked(inputs, {"blockPublicPolicy": "BlockPublicPolicy"}),
    )  # fmt: skip
    return {}


def _read_policy(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    found = _manager(cloud, known).get_resource_policy(SecretId=id_).get("ResourcePolicy")
    if found is None:
        return None
    return known if json.loads(found) == json.loads(known["policy"]) else {**known, "policy": found}


kind(
    "aws:secretsmanager/secretPolicy:SecretPolicy",
    create=lambda cloud, inputs: (inputs["secretArn"], _update_policy(cloud, inputs["secretArn"], inputs)),
    update=_update_policy,
    read=_read_policy,
    delete=lambda cloud, id_, known: _manager(cloud, known).delete_resource_policy(SecretId=id_) and None,
    replaced_by=frozenset({"secretArn", "region"}),
)


def _rotate(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    days = inputs["rotationRules"]["automaticallyAfterDays"]
    _manager(cloud, inputs).rotate_secret(
        SecretId=inputs["secretId"], RotationLambdaARN=inputs["rotationLambdaArn"],
        RotationRules={"AutomaticallyAfterDays": days},
        RotateImmediately=inputs.get("rotateImmediately", True),  # as AWS, and the provider
    )  # fmt: skip
    return {"rotationEnabled": True}


def _read_rotation(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    found = _manager(cloud, known).describe_secret(SecretId=id_)
    if not found.get("RotationEnabled"):
        return None
    days = found["RotationRules"]["AutomaticallyAfterDays"]
    return {**known, "rotationRules": {"automaticallyAfterDays": days}, "rotationLambdaArn": found["RotationLambdaARN"]}


kind(
    "aws:secretsmanager/secretRotation:SecretRotation",
    create=lambda cloud, inputs: (inputs["secretId"], _rotate(cloud, inputs["secretId"], inputs)),
    update=_rotate,
    read=_read_rotation,
    delete=lambda cloud, id_, known: _manager(cloud, known).cancel_rotate_secret(SecretId=id_) and None,
    replaced_by=frozenset({"secretId", "region"}),
)
