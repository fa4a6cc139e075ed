"""The known name closest to a mistyped one, for the sentence "did you mean ...?"."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str], *, count: int = 1) -> tuple[str, ...]:
    """Up to `count` of `known`, closest first, upper and lower case alike; empty if none is close."""
    by_lower = {name.lower(): name for name in sorted(known)}
    return tuple(by_lower[match] for match in get_close_matches(word.lower(), by_lower, n=count, cutoff=0.6))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing if no known name is close."""
    return "".join(f"; did you mean '{name}'?" for name in nearest(word, known))
