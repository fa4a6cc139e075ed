"""Customer keys."""

from __future__ import annotations

import json

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, tag_list


def _create_key(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    kms = cloud.client("kms", inputs.get("region"))
    key = kms.create_key(
        Description=inputs.get("description", ""), Policy=inputs["policy"], Tags=_tags(inputs),
        MultiRegion=inputs.get("multiRegion", False),
    )["KeyMetadata"]  # fmt: skip
    if inputs.get("enableKeyRotation"):
        kms.enable_key_rotation(KeyId=key["KeyId"])
    return key["KeyId"], {"arn": key["Arn"], "keyId": key["KeyId"]}


def _tags(inputs: Properties) -> list[dict[str, str]]:
    return [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in tag_list(inputs)]


def _update_key(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    kms = cloud.client("kms", inputs.get("region"))
    kms.put_key_policy(KeyId=id_, PolicyName="default", Policy=inputs["policy"])
    kms.update_key_description(KeyId=id_, Description=inputs.get("description", ""))
    return {}


def _read_key(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    kms = cloud.client("kms", known.get("region"))
    key = kms.describe_key(KeyId=id_)["KeyMetadata"]
    if key["KeyState"] == "PendingDeletion":
        return None
    policy = json.loads(kms.get_key_policy(KeyId=id_, PolicyName="default")["Policy"])
    same = policy == json.loads(known["policy"])
    rotates = kms.get_key_rotation_status(KeyId=id_)["KeyRotationEnabled"]
    return {**known, "policy": known["policy"] if same else json.dumps(policy), "enableKeyRotation": rotates}


def _delete_key(cloud: Cloud, id_: str, known: Properties) -> None:
    days = known.get("deletionWindowInDays", 30)
    cloud.client("kms", known.get("region")).schedule_key_deletion(KeyId=id_, PendingWindowInDays=days)


kind(
    "aws:kms/key:Key",
    create=_create_key,
    update=_update_key,
    read=_read_key,
    delete=_delete_key,
    replaced_by=frozenset({"multiRegion", "region"}),
)


def _create_alias(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    kms = cloud.client("kms", inputs.get("region"))
    kms.create_alias(AliasName=inputs["name"], TargetKeyId=inputs["targetKeyId"])
    key = kms.describe_key(KeyId=inputs["targetKeyId"])["KeyMetadata"]["Arn"]
    return inputs["name"], {"arn": f"{key.rsplit(':', 1)[0]}:{inputs['name']}", "targetKeyArn": key}


def _update_alias(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    cloud.client("kms", inputs.get("region")).update_alias(AliasName=id_, TargetKeyId=inputs["targetKeyId"])
    return {}


def _read_alias(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    pages = cloud.client("kms", known.get("region")).get_paginator("list_aliases").paginate()
    found = {alias["AliasName"]: alias.get("TargetKeyId") for page in pages for alias in page["Aliases"]}
    return {**known, "targetKeyId": found[id_]} if id_ in found else None


kind(
    "aws:kms/alias:Alias",
    create=_create_alias,
    update=_update_alias,
    read=_read_alias,
    delete=lambda cloud, id_, known: cloud.client("kms", known.get("region")).delete_alias(AliasName=id_),
    replaced_by=frozenset({"name", "region"}),
)
