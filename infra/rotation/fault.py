"""What ends a step of a rotation."""

from __future__ import annotations


class RotationFault(Exception):
    """The step did not succeed; what AWSCURRENT holds still works. AWS counts it as an error of the function, and the
    alarm on these rings. `happened` never holds a secret."""

    def __init__(self, happened: str) -> None:
        super().__init__(f"{happened} (the current DATABASE_URL was not changed and goes on working)")
