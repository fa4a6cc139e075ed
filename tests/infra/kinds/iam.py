"""Roles, policies, and who vouches for identities from elsewhere. All of it global."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, picked, tag_list


def _document(found: Any) -> str:
    """boto3 has them parsed already."""
    return found if isinstance(found, str) else json.dumps(found)


def _kept(known: str, found: Any) -> str:
    """The text that is known, where it says the same."""
    now = _document(found)
    return known if json.loads(known) == json.loads(now) else now


def _create_role(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    role = cloud.client("iam").create_role(
        AssumeRolePolicyDocument=_document(inputs["assumeRolePolicy"]), Tags=tag_list(inputs),
        **picked(inputs, {
            "name": "RoleName", "path": "Path", "description": "Description",
            "maxSessionDuration": "MaxSessionDuration", "permissionsBoundary": "PermissionsBoundary",
        }),
    )["Role"]  # fmt: skip
    return role["RoleName"], {"arn": role["Arn"], "uniqueId": role["RoleId"], "name": role["RoleName"]}


def _update_role(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    iam = cloud.client("iam")
    iam.update_assume_role_policy(RoleName=id_, PolicyDocument=_document(inputs["assumeRolePolicy"]))
    iam.update_role(
        RoleName=id_,
        **picked(inputs, {"description": "Description", "maxSessionDuration": "MaxSessionDuration"}),
    )
    if inputs.get("permissionsBoundary"):
        iam.put_role_permissions_boundary(RoleName=id_, PermissionsBoundary=inputs["permissionsBoundary"])
    return {}


def _read_role(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    iam = cloud.client("iam")
    try:
        role = iam.get_role(RoleName=id_)["Role"]
    except iam.exceptions.NoSuchEntityException:
        return None
    found = {
        "assumeRolePolicy": _kept(_document(known["assumeRolePolicy"]), role["AssumeRolePolicyDocument"]),
        "maxSessionDuration": role["MaxSessionDuration"],
        "permissionsBoundary": role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn"),
    }
    return known | {name: value for name, value in found.items() if name in known}


def _delete_role(cloud: Cloud, id_: str, known: Properties) -> None:
    cloud.client("iam").delete_role(RoleName=id_)


kind(
    "aws:iam/role:Role",
    create=_create_role,
    update=_update_role,
    read=_read_role,
    delete=_delete_role,
    replaced_by=frozenset({"name", "path"}),
)


def _create_inline(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    id_ = f"{inputs['role']}:{inputs['name']}"
    _update_inline(cloud, id_, inputs)
    return id_, {}


def _update_inline(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    cloud.client("iam").put_role_policy(
        RoleName=inputs["role"], PolicyName=inputs["name"], PolicyDocument=_document(inputs["policy"])
    )
    return {}


def _read_inline(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    iam = cloud.client("iam")
    try:
        found = iam.get_role_policy(RoleName=known["role"], PolicyName=known["name"])["PolicyDocument"]
    except iam.exceptions.NoSuchEntityException:
        return None
    return {**known, "policy": _kept(_document(known["policy"]), found)}


def _delete_inline(cloud: Cloud, id_: str, known: Properties) -> None:
    cloud.client("iam").delete_role_policy(RoleName=known["role"], PolicyName=known["name"])


kind(
    "aws:iam/rolePolicy:RolePolicy",
    create=_create_inline,
    update=_update_inline,
    read=_read_inline,
    delete=_delete_inline,
    replaced_by=frozenset({"name", "role"}),
)


def _create_policy(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    arn = cloud.client("iam").create_policy(
        PolicyDocument=_document(inputs["policy"]), Tags=tag_list(inputs),
        **picked(inputs, {"name": "PolicyName", "path": "Path", "description": "Description"}),
    )["Policy"]["Arn"]  # fmt: skip
    return arn, {"arn": arn}


def _update_policy(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    """As the provider does: a new default version, and the old one goes."""
    iam = cloud.client("iam")
    before = iam.get_policy(PolicyArn=id_)["Policy"]["DefaultVersionId"]
    iam.create_policy_version(PolicyArn=id_, PolicyDocument=_document(inputs["policy"]), SetAsDefault=True)
    iam.delete_policy_version(PolicyArn=id_, VersionId=before)
    return {}


def _read_policy(cloud: Cloud, id_: str, known: Properties) -> Properties | None:
    iam = cloud.client("iam")
    try:
        version = iam.get_policy(PolicyArn=id_)["Policy"]["DefaultVersionId"]
    except iam.exceptions.NoSuchEntityException:
        return None
    found = iam.get_policy_version(PolicyArn=id_, VersionId=version)["PolicyVersion"]["Document"]
    return {**known, "policy": _kept(_document(known["policy"]), found)}


kind(
    "aws:iam/policy:Policy",
    create=_create_policy,
    update=_update_policy,
    read=_read_policy,
    delete=lambda cloud, id_, known: cloud.client("iam").delete_policy(PolicyArn=id_),
    replaced_by=frozenset({"name", "path", "description"}),
)


def _create_attachment(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    cloud.client("iam").attach_role_policy(RoleName=inputs["role"], PolicyArn=inputs["policyArn"])
    return f"{inputs['role']}/{inputs['policyArn']}", {}


def _delete_attachment(cloud: Cloud, id_: str, known: Properties) -> None:
    iam = cloud.client("iam")
    with suppress(iam.exceptions.NoSuchEntityException):
        iam.detach_role_policy(RoleName=known["role"], PolicyArn=known["policyArn"])


kind(
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    create=_create_attachment,
    delete=_delete_attachment,
    replaced_by=frozenset({"role", "policyArn"}),
)


def _create_provider(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    arn = cloud.client("iam").create_open_id_connect_provider(
        Url=inputs["url"], ClientIDList=inputs["clientIdLists"],
        ThumbprintList=inputs.get("thumbprintLists") or ["0" * 40],
    )["OpenIDConnectProviderArn"]  # fmt: skip
    return arn, {"arn": arn}


kind(
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider",
    create=_create_provider,
    delete=lambda cloud, id_, known: (
        cloud.client("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=id_) and None
    ),
    replaced_by=frozenset({"url"}),
)
