"""Buckets and what belongs to them. Each companion is one setting of a bucket: its id is the bucket's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, pascal, tag_list


def _s3(cloud: Cloud, known: Properties) -> Any:
    return cloud.client("s3", known.get("region"))


def _create_bucket(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    region, name = inputs.get("region") or cloud.region, inputs["bucket"]
    elsewhere = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    lock = {"ObjectLockEnabledForBucket": True} if inputs.get("objectLockEnabled") else {}
    _s3(cloud, inputs).create_bucket(Bucket=name, **elsewhere, **lock)
    _tag_bucket(cloud, inputs)
    return name, {
        "arn": f"arn:aws:s3:::{name}",
        "region": region,
        "bucketDomainName": f"{name}.s3.amazonaws.com",
        "bucketRegionalDomainName": f"{name}.s3.{region}.amazonaws.com",
    }


def _tag_bucket(cloud: Cloud, inputs: Properties) -> None:
    if inputs.get("tags"):
        _s3(cloud, inputs).put_bucket_tagging(Bucket=inputs["bucket"], Tagging={"TagSet": tag_list(inputs)})


def _update_bucket(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    _tag_bucket(cloud, inputs)
    return {}


def _read_bucket(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    try:
        _s3(cloud, known).head_bucket(Bucket=id_)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchBucket"):
            return None
        raise
    return known


def _delete_bucket(cloud: Cloud, id_: str, known: Properties) -> None:
    s3 = _s3(cloud, known)
    if known.get("forceDestroy"):
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=id_):
            for each in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
                s3.delete_object(Bucket=id_, Key=each["Key"], VersionId=each["VersionId"])
    s3.delete_bucket(Bucket=id_)


kind(
    "aws:s3/bucket:Bucket",
    create=_create_bucket,
    update=_update_bucket,
    read=_read_bucket,
    delete=_delete_bucket,
    replaced_by=frozenset({"bucket", "bucketPrefix", "objectLockEnabled", "region"}),
)


@dataclass(frozen=True)
class Setting:
    """One setting of a bucket: how it is put, how it looks when it is got, and which inputs it is made of."""

    put: str
    argument: str
    """What boto3 calls the whole of it."""
    get: str | None
    """boto3's operation; None: it cannot be read back."""
    delete: str | None
    """boto3's operation; None: AWS has no such call, the setting stays."""
    to_aws: Callable[[Properties], Any]
    of_answer: Callable[[Any], Any]
    """The same form as `to_aws` gives."""
    to_inputs: Callable[[Any], Properties]
    """Of that form, back to inputs."""

    def create(self, cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
        self.update(cloud, inputs["bucket"], inputs)
        return inputs["bucket"], {}

    def update(self, cloud: Cloud, id_: str, inputs: Properties) -> Properties:
        getattr(_s3(cloud, inputs), self.put)(Bucket=id_, **{self.argument: self.to_aws(inputs)})
        return {}

    def read(self, cloud: Cloud, id_: str, known: Properties) -> Properties | None:
        """What is known where AWS has just that; else what AWS has, under the inputs' names."""
        if self.get is None:
            return known
        try:
            answer = getattr(_s3(cloud, known), self.get)(Bucket=id_)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        found = self.of_answer({key: value for key, value in answer.items() if key != "ResponseMetadata"})
        return known if _same(found, self.to_aws(known)) else {**known, **self.to_inputs(found)}

    def remove(self, cloud: Cloud, id_: str, known: Properties) -> None:
        if self.delete is not None:
            getattr(_s3(cloud, known), self.delete)(Bucket=id_)


def _same(one: Any, other: Any) -> bool:
    """As JSON documents, where they are texts of such."""
    if isinstance(one, str) and isinstance(other, str):
        return bool(json.loads(one) == json.loads(other))
    return bool(one == other)


def _camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _camel(item) for key, item in value.items()}
    return [_camel(item) for item in value] if isinstance(value, list) else value


def _setting(name: str, setting: Setting) -> None:
    kind(
        f"aws:s3/{name[:1].lower()}{name[1:]}:{name}",
        create=setting.create,
        update=setting.update,
        read=setting.read,
        delete=setting.remove,
        replaced_by=frozenset({"bucket", "region"}),
    )


_setting(
    "BucketVersioning",
    Setting(
        "put_bucket_versioning", "VersioningConfiguration", "get_bucket_versioning", None,
        to_aws=lambda inputs: {"Status": inputs["versioningConfiguration"]["status"]},
        of_answer=lambda answer: {"Status": answer.get("Status", "Disabled")},
        to_inputs=lambda found: {"versioningConfiguration": {"status": found["Status"]}},
    ),
)  # fmt: skip


def _encryption(inputs: Properties) -> Any:
    rules = []
    for rule in inputs["rules"]:
        default = rule["applyServerSideEncryptionByDefault"]
        names = {"sseAlgorithm": "SSEAlgorithm", "kmsMasterKeyId": "KMSMasterKeyID"}
        rules.append(
            {
                "ApplyServerSideEncryptionByDefault": {names[key]: value for key, value in default.items()},
                "BucketKeyEnabled": rule.get("bucketKeyEnabled", False),
            }
        )
    return {"Rules": rules}


def _encryption_inputs(found: Any) -> Properties:
    names = {"SSEAlgorithm": "sseAlgorithm", "KMSMasterKeyID": "kmsMasterKeyId"}
    return {
        "rules": [
            {
                "applyServerSideEncryptionByDefault": {
                    names[key]: value for key, value in rule["ApplyServerSideEncryptionByDefault"].items()
                },
                "bucketKeyEnabled": rule.get("BucketKeyEnabled", False),
            }
            for rule in found["Rules"]
        ]
    }


_setting(
    "BucketServerSideEncryptionConfiguration",
    Setting(
        "put_bucket_encryption", "ServerSideEncryptionConfiguration", "get_bucket_encryption",
        "delete_bucket_encryption", to_aws=_encryption,
        of_answer=lambda answer: answer["ServerSideEncryptionConfiguration"], to_inputs=_encryption_inputs,
    ),
)  # fmt: skip

_setting(
    "BucketOwnershipControls",
    Setting(
        "put_bucket_ownership_controls", "OwnershipControls", "get_bucket_ownership_controls",
        "delete_bucket_ownership_controls",
        to_aws=lambda inputs: {"Rules": [pascal(inputs["rule"])]},
        of_answer=lambda answer: answer["OwnershipControls"],
        to_inputs=lambda found: {"rule": _camel(found["Rules"][0])},
    ),
)  # fmt: skip

_SWITCHES = {name: pascal({name: 0}).popitem()[0] for name in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")}  # noqa: E501 # fmt: skip

_setting(
    "BucketPublicAccessBlock",
    Setting(
        "put_public_access_block", "PublicAccessBlockConfiguration", "get_public_access_block",
        "delete_public_access_block",
        to_aws=lambda inputs: {theirs: bool(inputs.get(ours)) for ours, theirs in _SWITCHES.items()},
        of_answer=lambda answer: answer["PublicAccessBlockConfiguration"],
        to_inputs=_camel,
    ),
)  # fmt: skip

_setting(
    "BucketPolicy",
    Setting(
        "put_bucket_policy", "Policy", "get_bucket_policy", "delete_bucket_policy",
        to_aws=lambda inputs: inputs["policy"],
        of_answer=lambda answer: answer["Policy"],
        to_inputs=lambda found: {"policy": found},
    ),
)  # fmt: skip


def _lifecycle(inputs: Properties) -> Any:
    return {"Rules": [_rule(rule) for rule in inputs["rules"]]}


def _rule(rule: Properties) -> Properties:
    found: Properties = pascal({key: value for key, value in rule.items() if key not in ("id", "filter")})
    found["ID"] = rule["id"]
    wanted = dict(rule["filter"])
    if "and" in wanted:
        both = dict(wanted["and"])
        tags = [{"Key": key, "Value": value} for key, value in sorted(both.pop("tags", {}).items())]
        found["Filter"] = {"And": {**pascal(both), "Tags": tags}}
    elif "tag" in wanted:
        found["Filter"] = {"Tag": pascal(wanted["tag"])}
    else:
        found["Filter"] = {"Prefix": wanted.get("prefix", "")}
    return found


def _lifecycle_answer(answer: Any) -> Any:
    """Tags have no order."""
    for rule in answer["Rules"]:
        rule.get("Filter", {}).get("And", {}).get("Tags", []).sort(key=lambda tag: tag["Key"])
    return {"Rules": answer["Rules"]}


def _lifecycle_inputs(found: Any) -> Properties:
    rules = []
    for rule in found["Rules"]:
        turned = _camel({key: value for key, value in rule.items() if key not in ("ID", "Filter")})
        turned["id"] = rule["ID"]
        wanted = _camel(rule["Filter"])
        if "and" in wanted and "tags" in wanted["and"]:
            wanted["and"]["tags"] = {tag["key"]: tag["value"] for tag in wanted["and"]["tags"]}
        turned["filter"] = wanted
        rules.append(turned)
    return {"rules": rules}


_setting(
    "BucketLifecycleConfiguration",
    Setting(
        "put_bucket_lifecycle_configuration", "LifecycleConfiguration", "get_bucket_lifecycle_configuration",
        "delete_bucket_lifecycle", to_aws=_lifecycle,
        of_answer=_lifecycle_answer, to_inputs=_lifecycle_inputs,
    ),
)  # fmt: skip

_setting(
    "BucketLogging",
    Setting(
        "put_bucket_logging", "BucketLoggingStatus", "get_bucket_logging", None,
        to_aws=lambda inputs: {
            "LoggingEnabled": {"TargetBucket": inputs["targetBucket"], "TargetPrefix": inputs["targetPrefix"]}
        },
        of_answer=lambda answer: answer,
        to_inputs=lambda found: {
            "targetBucket": found.get("LoggingEnabled", {}).get("TargetBucket", ""),
            "targetPrefix": found.get("LoggingEnabled", {}).get("TargetPrefix", ""),
        },
    ),
)  # fmt: skip


def _lock(answer: Any) -> Any:
    """moto adds the years that nobody asked for, as 0."""
    found = answer["ObjectLockConfiguration"]
    kept = found.get("Rule", {}).get("DefaultRetention", {})
    for unit in ("Days", "Years"):
        if kept.get(unit) == 0:
            kept.pop(unit)
    return found


_setting(
    "BucketObjectLockConfiguration",
    Setting(
        "put_object_lock_configuration", "ObjectLockConfiguration", "get_object_lock_configuration", None,
        to_aws=lambda inputs: {
            "ObjectLockEnabled": "Enabled", **({"Rule": pascal(inputs["rule"])} if inputs.get("rule") else {})
        },
        of_answer=_lock,
        to_inputs=lambda found: {"rule": _camel(found.get("Rule"))},
    ),
)  # fmt: skip


def _replication(inputs: Properties) -> Any:
    return {"Role": inputs["role"], "Rules": [_replicated(rule) for rule in inputs["rules"]]}


def _replicated(rule: Properties) -> Properties:
    found: Properties = pascal({key: value for key, value in rule.items() if key != "id"})
    found["ID"] = rule["id"]
    found["Filter"] = {"Prefix": rule["filter"].get("prefix", "")}
    to = found["Destination"]
    if "EncryptionConfiguration" in to:
        to["EncryptionConfiguration"] = {"ReplicaKmsKeyID": to["EncryptionConfiguration"]["ReplicaKmsKeyId"]}
    return found


# moto forgets SourceSelectionCriteria, so there is nothing to compare with.
_setting(
    "BucketReplicationConfig",
    Setting(
        "put_bucket_replication", "ReplicationConfiguration", None, "delete_bucket_replication",
        to_aws=_replication, of_answer=lambda answer: answer, to_inputs=lambda found: {},
    ),
)  # fmt: skip
