"""Where the sandbox is, for programs that are no part of it: `invoke sandbox.env` exports it, `infra` reads it.

The names are not those of Neon's own tools: a key of the sandbox never takes the place of one for production.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from runbooks.model.dsn import is_this_machine
from runbooks.model.errors import PolicyFault

API, PROJECT, KEY = "SANDBOX_NEON_API_URL", "SANDBOX_NEON_PROJECT_ID", "SANDBOX_NEON_API_KEY"
"""Environment variables."""


@dataclass(frozen=True)
class SandboxPlace:
    """The sandbox's Neon; its key stays in the variable KEY."""

    api: str
    project: str

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> SandboxPlace:
        """PolicyFault if a variable is not set, or the address is not on this machine."""
        missing = [name for name in (API, PROJECT, KEY) if not environ.get(name)]
        if missing:
            raise _fault(f"not set: {', '.join(missing)}")
        host = _host(environ[API])
        if not host or not is_this_machine(host):
            raise _fault(f"{API} is not an address on this machine")
        return cls(environ[API], environ[PROJECT])


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _fault(what: str) -> PolicyFault:
    return PolicyFault(
        f"where the sandbox is cannot be told from the environment: {what}",
        safe="nothing was started",
        next_step='invoke sandbox.up, then: eval "$(invoke sandbox.env)"',
    )
