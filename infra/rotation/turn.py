"""One rotation: the role whose turn it is gets a new password and becomes the current one.

The other keeps its password until the next rotation, so that applications that are running, or that hold the URL of
yesterday, lose nothing. Secrets Manager asks for four steps, and for any of them as often as it likes.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from . import roles
from .fault import RotationFault
from .url import Url
from .versions import CURRENT, PENDING, Value, Versions

ENTROPY = 32
"""Octets in a password. Neon wants 60 bits."""


@dataclass(frozen=True)
class Turn:
    versions: Versions
    admin_secret: str
    """The secret with a URL, direct and not pooled, of a role that may make and change the two."""
    group: str

    def take(self, step: str) -> None:
        """RotationFault; with the same token, safe to repeat at any time."""
        todo = {"createSecret": self._create, "setSecret": self._set, "testSecret": self._test,
                "finishSecret": self._finish}.get(step)  # fmt: skip
        if todo is None:
            raise RotationFault(f"Secrets Manager asks for a step that is not known: {step}")
        stages = self.versions.stages().get(self.versions.token)
        if stages is None or not {CURRENT, PENDING} & set(stages):
            raise RotationFault("the version to be made is neither pending nor current: its rotation was given up")
        if CURRENT not in stages:
            todo()
        elif PENDING in stages:
            self.versions.promote()  # the rest of a finish that was cut off

    def _create(self) -> None:
        if self.versions.pending() is not None:
            return
        current = self.versions.current()
        role = roles.other_than(current.user, self.group)
        self.versions.keep(current.as_role(role, secrets.token_urlsafe(ENTROPY)))

    def _set(self) -> None:
        wanted, current, admin = self._wanted(), self.versions.current(), self._admin()
        if wanted.user not in roles.pair_of(self.group) or wanted.user == current.user:
            raise RotationFault(f"the pending version logs in as {wanted.user}, whose password must not be changed now")
        if admin.place != wanted.direct.place:
            raise RotationFault(f"the admin's URL leads to {admin.host}, and DATABASE_URL_DIRECT to another server")
        roles.give(admin, self.group, wanted.user, wanted.direct.password)

    def _test(self) -> None:
        """Without a pending value Secrets Manager only tries out whether this function can do its work."""
        tested = self.versions.pending() or self.versions.current()
        for url in (tested.direct, tested.pooled):
            roles.check(url, self.group)

    def _finish(self) -> None:
        self._wanted()
        self.versions.promote()

    def _wanted(self) -> Value:
        wanted = self.versions.pending()
        if wanted is None:
            raise RotationFault("the pending version has no value")
        return wanted

    def _admin(self) -> Url:
        found: Any = self.versions.client.get_secret_value(SecretId=self.admin_secret, VersionStage=CURRENT)
        return Url.parse(found["SecretString"].strip())
