"""Sealing a backup's files to public keys, and opening them again: age, or GPG as the alternative.

The writer holds no private key. Both work on streams, in constant memory, and tell size and SHA-256 of both sides.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

from runbooks.clients import seal_age, seal_gpg
from runbooks.clients.seal_flow import Flow, Passed
from runbooks.model.errors import ArchiveFault, LoginRefused, PolicyFault, UsageFault
from runbooks.model.secret import Secret

__all__ = ["KeyPair", "Opener", "Passed", "Sealer"]

Method = Literal["age", "gpg"]
NOT_USED = "what was written so far must not be used; the sealed file itself is as it was"


@dataclass(frozen=True)
class Sealer:
    """Encrypts to every recipient: each of their private keys opens what it makes."""

    method: Method
    recipients: tuple[str, ...]
    """age: `age1…`. gpg: armoured public keys."""
    fingerprints: tuple[str, ...]
    """age: the recipients themselves. gpg: the primary keys' fingerprints."""
    _ready: tuple[Any, ...] = field(repr=False, compare=False, default=())

    @classmethod
    def to(cls, method: Method, recipients: Sequence[str]) -> Sealer:
        """PolicyFault if there is no recipient, or one that nothing can be sealed to (expired, for signing only)."""
        if not recipients:
            raise _unusable("no recipient is named")
        if method == "age":
            try:
                ready = seal_age.recipients_of(recipients)
            except ValueError as error:
                raise _unusable(str(error)) from None
            return cls("age", tuple(recipients), tuple(str(each) for each in ready), ready)
        found = []
        for number, key in enumerate(recipients, start=1):
            try:
                found.append(seal_gpg.fingerprint_of(key))
            except ValueError as error:
                raise _unusable(f"recipient {number} is no armoured OpenPGP public key: {error}") from None
            if "PRIVATE KEY" in key:
                raise _unusable(f"recipient {number} is a private key, which has no business on a host that writes")
            said = seal_gpg.seal(Flow(io.BytesIO(), io.BytesIO()), [key])
            if said.code != 0:
                raise _unusable(f"nothing can be sealed to {found[-1]}: {said.why}")
        return cls("gpg", tuple(recipients), tuple(found))

    @property
    def suffix(self) -> str:
        return f".{self.method}"

    def seal(self, source: BinaryIO, sink: BinaryIO) -> Passed:
        """Encrypt all of `source` into `sink`. Neither is closed. For any number of threads.

        LocalFault for a fault of either; another error of the source or the sink comes as it is.
        """
        flow = Flow(source, sink)
        if self.method == "age":
            try:
                seal_age.seal(flow, self._ready)
            except Exception:
                flow.raise_own()
                raise
        else:
            said = seal_gpg.seal(flow, self.recipients)
            flow.raise_own()
            if said.code != 0:
                raise ArchiveFault(
                    f"gpg did not encrypt: {said.why}",
                    safe="what was written so far is not used",
                    next_step="check the recipients in [backup.encryption] of the policy, then repeat this",
                )
        return flow.passed()


@dataclass(frozen=True)
class Opener:
    """Decrypts with private keys. Its repr shows none."""

    method: Method
    keys: tuple[Secret, ...]
    fingerprints: tuple[str, ...]
    """As a Sealer's: what this opens is sealed to one of them."""
    passphrase: Secret | None = None
    _ready: tuple[Any, ...] = field(repr=False, compare=False, default=())

    @classmethod
    def having(cls, method: Method, keys: Sequence[Secret], *, passphrase: Secret | None = None) -> Opener:
        """`keys`: the texts of age key files, or armoured private keys of gpg. UsageFault if one cannot be read."""
        if not keys:
            raise _unreadable("no private key is given")
        try:
            if method == "age":
                ready = seal_age.identities_of(keys)
                return cls("age", tuple(keys), tuple(map(seal_age.public, ready)), None, ready)
            return cls("gpg", tuple(keys), tuple(seal_gpg.fingerprint_of(each.reveal()) for each in keys), passphrase)
        except ValueError as error:
            raise _unreadable(str(error)) from None

    def unseal(self, source: BinaryIO, sink: BinaryIO) -> Passed:
        """Decrypt all of `source` into `sink`. What is in the sink counts only when this returns: gpg hands out
        content before it has seen that the end is right.

        LoginRefused if no key fits; ArchiveFault if the content is cut, damaged or not sealed at all; LocalFault for a
        fault of the source or the sink, other errors of theirs as they are.
        """
        flow = Flow(source, sink)
        if self.method == "age":
            trouble = seal_age.unseal(flow, self._ready)
            flow.raise_own()
            if trouble == seal_age.NO_KEY_FITS:
                raise self._no_key("no private key given fits")
            if trouble:
                raise _damaged(trouble)
            return flow.passed()
        said = seal_gpg.unseal(flow, self.keys, self.passphrase)
        flow.raise_own()
        if said.code == 0 and said.has("DECRYPTION_OKAY"):
            return flow.passed()
        if said.has("BAD_PASSPHRASE", "MISSING_PASSPHRASE", "ERROR pkdecrypt_failed"):
            raise self._no_key("the private key has a passphrase, and the one given is not it")
        if said.has("NO_SECKEY") and not said.has("DECRYPTION_INFO"):
            raise self._no_key("no private key given fits")
        raise _damaged(said.why)

    def _no_key(self, why: str) -> LoginRefused:
        return LoginRefused(
            f"the file cannot be opened: {why} (given: {', '.join(self.fingerprints)})",
            safe="nothing was decrypted",
            next_step="compare the fingerprints with those in the backup's manifest, then give the right private key",
        )


@dataclass(frozen=True)
class KeyPair:
    """A new pair: for the sandbox, and for a first set-up."""

    method: Method
    recipient: str
    secret: Secret

    @classmethod
    def new(cls, method: Method, *, name: str = "bloom-dr sandbox") -> KeyPair:
        """`name` is gpg's user id. The private key has no passphrase."""
        made = seal_age.new_key() if method == "age" else seal_gpg.new_key(name)
        return cls(method, *made)

    def sealer(self) -> Sealer:
        return Sealer.to(self.method, [self.recipient])

    def opener(self) -> Opener:
        return Opener.having(self.method, [self.secret])


def _unusable(why: str) -> PolicyFault:
    cure = "name public keys in [backup.encryption] recipients of the policy: age1…, or armoured OpenPGP keys"
    return PolicyFault(why, safe="nothing was encrypted", next_step=cure)


def _unreadable(why: str) -> UsageFault:
    cure = "give the text of the private key file as its program wrote it"
    return UsageFault(why, safe="nothing was decrypted", next_step=cure)


def _damaged(why: str) -> ArchiveFault:
    return ArchiveFault(
        f"the sealed file is cut, damaged or not what it should be: {' '.join(why.split())[:200]}",
        safe=NOT_USED,
        next_step="fetch it again and compare its SHA-256 with the manifest's; if it differs, use another backup",
    )
