"""Programs of others that our work has to be readable with. A laptop may lack them; CI installs and requires them."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = "BLOOM_DR_TESTS_REQUIRE_TOOLS"
"""Set by .ci/run after it has installed them: from then on a missing one is a failure, not a skip."""
PACKAGES = {"aws": "awscli", "age": "age", "gpg": "gnupg", "chromium": "chromium"}


def foreign(program: str) -> str:
    """The path of a program in PACKAGES; without it the test is skipped, or fails where it is required."""
    if found := shutil.which(program):
        return found
    why = (
        f"tries our files with {program} itself, which is not on this machine: apt-get install {PACKAGES[program]}"
        " (.ci/run installs it, and fails this test without it)"
    )
    raise missing(why)


def missing(why: str) -> BaseException:
    """To be raised: skips the test, or fails it where everything is required to be there."""
    return (pytest.fail if os.environ.get(REQUIRED) else pytest.skip).Exception(why)
