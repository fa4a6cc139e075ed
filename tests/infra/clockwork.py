"""What S3 does by lifecycle rules, written down from its documentation: neither moto nor any other stand-in does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from infra.lifecycle import HIDDEN_DAYS, Rule

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Fate:
    """Of one object, from its upload on. None: never."""

    cools: datetime | None
    into: str | None
    hidden: datetime | None
    """Then there is a delete marker on top of it, and the version can still be brought back."""
    gone: datetime | None


def fate(rules: Iterable[Rule], tags: Mapping[str, str], uploaded: datetime) -> Fate:
    """Of an object of more than 128 KiB (smaller ones stay in their class)."""
    reached = [rule for rule in rules if rule.tags.items() <= tags.items()]
    cools = min(((due(uploaded, rule.cools[0]), rule.cools[1]) for rule in reached if rule.cools), default=None)
    hidden = min((due(uploaded, rule.ends) for rule in reached if rule.ends is not None), default=None)
    gone = None if hidden is None else due(hidden, HIDDEN_DAYS)
    return Fate(cools[0] if cools else None, cools[1] if cools else None, hidden, gone)


def due(start: datetime, days: int) -> datetime:
    """S3 adds the days to the time of day, and rounds up to the next midnight, UTC."""
    moment = start + days * DAY
    midnight = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    return midnight if midnight == moment else midnight + DAY


def refused_by_aws(rules: Iterable[Mapping[str, object]]) -> list[str]:
    """What S3 would say to these rules, as they are stored. moto takes them all."""
    found, ids = [], []
    for rule in rules:
        name, expiration = rule["ID"], rule.get("Expiration", {})
        moves = rule.get("Transitions", [])
        tagged = "Tags" in rule["Filter"].get("And", {}) or "Tag" in rule["Filter"]  # type: ignore[attr-defined]
        ids.append(name)
        if name in ids[:-1]:
            found.append(f"{name}: a second rule of this name")
        if not (expiration or moves or "NoncurrentVersionExpiration" in rule):
            found.append(f"{name}: no action")
        if tagged and ("AbortIncompleteMultipartUpload" in rule or "ExpiredObjectDeleteMarker" in expiration):  # type: ignore[operator]
            found.append(f"{name}: not with tags")
        for move in moves:  # type: ignore[attr-defined]
            if move["StorageClass"] == "STANDARD_IA" and move["Days"] < 30:
                found.append(f"{name}: STANDARD_IA before day 30")
            if expiration.get("Days", 10**6) <= move["Days"]:  # type: ignore[attr-defined]
                found.append(f"{name}: ends before it moves")
    return found
