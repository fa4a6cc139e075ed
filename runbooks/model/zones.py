"""IANA time zones, from the `tzdata` package only.

`zoneinfo` prefers the machine's own zone files, and a machine last updated before October 2022 still gives Mexico
summer time: an hour's error in the moment that is recovered. One pinned source means one answer everywhere.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

from runbooks.model.nearest import nearest

_ABBREVIATION = re.compile(r"[A-Z]{1,5}|[A-Z]{3}\d[A-Z]{3}", re.ASCII)
_OFFSET_NAME = re.compile(r"(?:UTC|GMT)[+-]\d{1,2}(?::?\d\d)?", re.ASCII | re.IGNORECASE)
_UNAMBIGUOUS = frozenset({"UTC", "GMT"})
_NO_PLACE = frozenset({"Factory"})


@cache
def names() -> frozenset[str]:
    """Every zone name that `zone` accepts."""
    listed = resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8").split()
    return frozenset(
        name for name in listed if name in _UNAMBIGUOUS or not (_ABBREVIATION.fullmatch(name) or name in _NO_PLACE)
    )


@cache
def zone(name: str) -> ZoneInfo:
    """The zone called `name`, spelled as IANA does. ValueError says why not, and which name may be meant."""
    if name not in names():
        raise ValueError(_why_not(name))
    with resources.files("tzdata.zoneinfo").joinpath(name).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def _why_not(name: str) -> str:
    if _OFFSET_NAME.fullmatch(name):
        return f"'{name}' is not a zone name: write the offset alone, such as -06:00"
    close = nearest(name, names(), count=3)
    if _ABBREVIATION.fullmatch(name):
        return (
            f"'{name}' is an abbreviation and ambiguous (CST alone stands for Mexico, Cuba and China): "
            "use an IANA name such as America/Mexico_City, or an offset such as -06:00"
        )
    if close:
        return f"'{name}' is not a zone in the IANA list; nearest: {', '.join(close)}"
    return f"'{name}' is not a zone in the IANA list; names look like America/Mexico_City"
