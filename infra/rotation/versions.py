"""The versions of one secret in Secrets Manager, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .fault import RotationFault
from .url import Url

POOLED, DIRECT = "DATABASE_URL", "DATABASE_URL_DIRECT"
CURRENT, PENDING = "AWSCURRENT", "AWSPENDING"


@dataclass(frozen=True, repr=False)
class Value:
    """The JSON object that applications read."""

    pooled: Url
    direct: Url
    others: Mapping[str, Any]
    """Whatever else somebody keeps in there."""

    @classmethod
    def parse(cls, text: str) -> Value:
        """RotationFault, which quotes nothing, if it is not what applications expect."""
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in (POOLED, DIRECT)):
            raise RotationFault(f"the secret is not a JSON object with the texts {POOLED} and {DIRECT}")
        pooled, direct = Url.parse(found[POOLED]), Url.parse(found[DIRECT])
        if pooled.user != direct.user:
            raise RotationFault(f"{POOLED} and {DIRECT} log in as two roles: {pooled.user} and {direct.user}")
        return cls(pooled, direct, {name: each for name, each in found.items() if name not in (POOLED, DIRECT)})

    @property
    def user(self) -> str:
        return self.direct.user

    def as_role(self, user: str, password: str) -> Value:
        return replace(self, pooled=self.pooled.as_role(user, password), direct=self.direct.as_role(user, password))

    def text(self) -> str:
        return json.dumps({POOLED: self.pooled.text(), DIRECT: self.direct.text(), **self.others})


@dataclass(frozen=True)
class Versions:
    """`client` is boto3's for Secrets Manager; `token` names the version that this rotation makes."""

    client: Any
    secret_id: str
    token: str

    def stages(self) -> Mapping[str, list[str]]:
        found: Mapping[str, list[str]] = self.client.describe_secret(SecretId=self.secret_id)["VersionIdsToStages"]
        return found

    def current(self) -> Value:
        # Without a stage one gets whatever version Secrets Manager considers the default.
        found = self.client.get_secret_value(SecretId=self.secret_id, VersionStage=CURRENT)
        return Value.parse(found["SecretString"])

    def pending(self) -> Value | None:
        """None: the version is there and has no value yet."""
        try:
            found = self.client.get_secret_value(SecretId=self.secret_id, VersionId=self.token, VersionStage=PENDING)
        except self.client.exceptions.ResourceNotFoundException:
            return None
        return Value.parse(found["SecretString"])

    def keep(self, value: Value) -> None:
        self.client.put_secret_value(
            SecretId=self.secret_id, ClientRequestToken=self.token, SecretString=value.text(), VersionStages=[PENDING]
        )

    def promote(self) -> None:
        """Make this version the current one. Afterwards none is pending, or the next rotation would be refused."""
        stages = self.stages()
        before = [version for version, held in stages.items() if CURRENT in held]
        if before != [self.token]:
            self.client.update_secret_version_stage(
                SecretId=self.secret_id,
                VersionStage=CURRENT,
                MoveToVersionId=self.token,
                **({"RemoveFromVersionId": before[0]} if before else {}),
            )
        if PENDING in stages[self.token]:
            self.client.update_secret_version_stage(
                SecretId=self.secret_id, VersionStage=PENDING, RemoveFromVersionId=self.token
            )
