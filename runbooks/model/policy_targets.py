"""The sections [targets.NAME] of the policy: databases outside of Neon that a backup may be restored into."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

from runbooks.model.errors import PolicyFault
from runbooks.model.section import Section


def _variable(text: str) -> str:
    if "://" in text or "=" in text or "@" in text:
        raise ValueError(
            "is a connection string; put it into an environment variable, its name here, and change its password"
        )
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text, re.ASCII):
        raise ValueError("is not the name of an environment variable")
    return text


class TargetPolicy(Section):
    """One database, by the name of the environment variable that holds its URL: a secret is in no file."""

    url_env: Annotated[str, AfterValidator(_variable)]

    def url(self, environ: Mapping[str, str]) -> str:
        """The connection string. PolicyFault, which never quotes it, if the variable is not set."""
        text = environ.get(self.url_env, "").strip()
        if not text:
            raise PolicyFault(
                f"the environment variable {self.url_env}, which the policy names for a restore target, is not set",
                safe="nothing was started",
                next_step=f"export {self.url_env} with the postgresql:// URL of the empty database to restore into",
            )
        return text
