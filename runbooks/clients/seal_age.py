"""age (X25519, ChaCha20-Poly1305) by pyrage: every 64 KiB are authenticated, and so is the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyrage  # type: ignore[import-untyped]

from runbooks.clients.seal_flow import Flow
from runbooks.model.secret import Secret

NO_KEY_FITS = "No matching keys found"


def recipients_of(texts: Sequence[str]) -> tuple[Any, ...]:
    """ValueError, which tells the place of the one that is no age recipient and does not quote it: it may be a key."""
    found = []
    for number, text in enumerate(texts, start=1):
        if "SECRET" in text.upper():
            raise ValueError(f"recipient {number} is a private key, which has no business on a host that writes")
        try:
            found.append(pyrage.x25519.Recipient.from_str(text.strip()))
        except pyrage.RecipientError as error:
            raise ValueError(f"recipient {number} is not an age recipient ({error})") from None
    return tuple(found)


def identities_of(keys: Sequence[Secret]) -> tuple[Any, ...]:
    """Each a key file's text: comments and empty lines are passed over. ValueError, which quotes no key."""
    found = []
    for number, key in enumerate(keys, start=1):
        lines = [line.strip() for line in key.reveal().splitlines()]
        wanted = [line for line in lines if line and not line.startswith("#")]
        if not wanted:
            raise ValueError(f"private key {number} is empty")
        for line in wanted:
            try:
                found.append(pyrage.x25519.Identity.from_str(line))
            except pyrage.IdentityError:
                raise ValueError(f"private key {number} is not an age key (AGE-SECRET-KEY-1…)") from None
    return tuple(found)


def public(identity: Any) -> str:
    return str(identity.to_public())


def new_key() -> tuple[str, Secret]:
    """The recipient and its private key."""
    made = pyrage.x25519.Identity.generate()
    return public(made), Secret(str(made))


def seal(flow: Flow, recipients: Sequence[Any]) -> None:
    """Raises pyrage's errors, for a fault of the flow too."""
    pyrage.encrypt_io(flow, flow, list(recipients))


def unseal(flow: Flow, identities: Sequence[Any]) -> str | None:
    """None, or why it failed: NO_KEY_FITS, or what is wrong with the content."""
    try:
        pyrage.decrypt_io(flow, flow, list(identities))
    except (pyrage.DecryptError, OSError) as error:
        return str(error)
    return None
