"""What a Dockerfile and its .dockerignore say, as far as ours say it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.rest)


def instructions(text: str) -> list[Instruction]:
    """In their order, with continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def stages(text: str) -> list[list[Instruction]]:
    """Each from its FROM on; what stands before the first is left out."""
    found: list[list[Instruction]] = []
    for each in instructions(text):
        if each.word == "FROM":
            found.append([])
        if found:
            found[-1].append(each)
    return found


def copied(stage: list[Instruction]) -> Iterator[tuple[str, str]]:
    """Source and target of everything that comes from outside."""
    for each in stage:
        if each.word == "COPY" and not each.rest.startswith("--from"):
            *sources, target = each.words
            yield from ((source, target) for source in sources)


def goes_in(path: Path, ignore: str) -> bool:
    """Whether a path (from the context's root) is sent to the builder: the last pattern that fits decides."""
    sent = True
    for line in ignore.splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            wanted = pattern.startswith("!")
            if _fits(path, pattern.removeprefix("!").rstrip("/")):
                sent = wanted
    return sent


def _fits(path: Path, pattern: str) -> bool:
    """The path itself, or a folder above it."""
    every = [path, *path.parents][:-1]
    if pattern.startswith("**/"):
        return any(fnmatchcase(each.name, pattern.removeprefix("**/")) for each in every)
    return any(fnmatchcase(str(each), pattern) and str(each).count("/") == pattern.count("/") for each in every)
