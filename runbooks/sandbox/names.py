"""Ids and hosts that look like Neon's."""

from __future__ import annotations

import random
import re
import secrets

DOMAIN = "sandbox.localhost"
"""RFC 6761: never leaves the machine, even when a resolver is asked."""

_FIRST = (
    "amber", "autumn", "bold", "broad", "calm", "clear", "cold", "crimson", "damp", "dawn", "deep", "dry",
    "early", "fancy", "gentle", "green", "hidden", "icy", "late", "little", "long", "misty", "morning", "old",
    "orange", "patient", "plain", "proud", "quiet", "rapid", "rough", "round", "shy", "silent", "small", "snowy",
    "soft", "spring", "still", "summer", "sweet", "twilight", "wandering", "white", "wild", "winter", "wispy",
    "young",
)  # fmt: skip
_SECOND = (
    "bird", "bread", "breeze", "brook", "bush", "cake", "cell", "cloud", "dew", "dream", "dust", "field", "fire",
    "firefly", "flower", "fog", "forest", "frost", "glade", "glitter", "grass", "hall", "haze", "hill", "king",
    "lake", "leaf", "math", "meadow", "mode", "moon", "morning", "mud", "night", "paper", "pine", "pond", "rain",
    "resonance", "rice", "river", "salad", "scene", "sea", "shadow", "shape", "silence", "sky", "smoke", "snow",
    "sound", "star", "sun", "surf", "term", "thunder", "tooth", "tree", "truth", "union", "violet", "voice",
    "water", "waterfall", "wave", "wind", "wood",
)  # fmt: skip


def project_id() -> str:
    return _words()


def branch_id() -> str:
    return f"br-{_words()}"


def endpoint_id() -> str:
    return f"ep-{_words()}"


def snapshot_id() -> str:
    return f"snap-{_words()}"


def timeline_id() -> str:
    return secrets.token_hex(16)


def password() -> str:
    return f"npg_{secrets.token_urlsafe(18)}"


def host(endpoint: str, *, pooled: bool = False) -> str:
    """The pooled form inserts `-pooler` into the first label, as Neon's does."""
    return f"{endpoint}{'-pooler' if pooled else ''}.{DOMAIN}"


def lsn(value: int) -> str:
    return f"{value >> 32:X}/{value & 0xFFFFFFFF:X}"


def read_lsn(text: str) -> int:
    """ValueError if `text` is not an LSN such as 0/1E19478."""
    found = re.fullmatch(r"([0-9A-F]{1,8})/([0-9A-F]{1,8})", text, re.ASCII | re.IGNORECASE)
    if not found:
        raise ValueError(f"not an LSN: {text!r}")
    return (int(found[1], 16) << 32) + int(found[2], 16)


def _words() -> str:
    return f"{random.choice(_FIRST)}-{random.choice(_SECOND)}-{random.randrange(100_000, 1_000_000)}"
