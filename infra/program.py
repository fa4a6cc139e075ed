"""All components of a stack, in the order in which they need one another."""

from __future__ import annotations

from infra.settings import Settings


def provision(settings: Settings) -> None:
    """Declare everything, and export what the runbooks and people need to know."""
