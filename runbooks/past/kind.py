"""The kinds of past that a recovery can read from. All have the same methods."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from runbooks.past.backup import PastBackup
from runbooks.past.branch import PastBranch

Past: TypeAlias = Annotated[PastBranch | PastBackup, Field(discriminator="kind")]
