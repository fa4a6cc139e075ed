"""Consent: someone repeats what only this plan's target has. No y/n, no switch that says yes to everything."""

from __future__ import annotations

import hmac
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runbooks.engine.plan import Plan
from runbooks.model.errors import ConsentNeeded, WrongTarget
from runbooks.model.record import Record
from runbooks.model.run_id import RunId


class Consent(Record):
    """Who agreed to which plan, in which words."""

    value: str
    by: str
    how: str
    digest: str


@dataclass(frozen=True)
class Consenting:
    """How this process can be given consent."""

    operator: str
    value: str | None = None
    """The value of --confirm, if one was given."""
    ask: Callable[[str], str] | None = None
    """Asks a person at a terminal to type the value; None without a terminal."""


def obtain(consenting: Consenting, plan: Plan, run_id: RunId, page: Path | None = None) -> Consent | None:
    """The consent to this plan, whose preview lies at `page`; None if the plan needs none.

    Raises ConsentNeeded if there is no value and nobody to ask, WrongTarget if the value is another one.
    """
    wanted = plan.confirmation()
    if wanted is None:
        return None
    again = f"invoke run.resume {run_id} --confirm {shlex.quote(wanted)}"
    given, how = consenting.value, "--confirm"
    if given is None and consenting.ask is not None:
        given, how = consenting.ask(wanted), "typed at a terminal"
    if not given:
        raise ConsentNeeded(
            "the preview is complete; nothing was changed in the target",
            safe="the target is as it was",
            next_step=f"read the preview, then: {again}",
            page=page,
        )
    if not hmac.compare_digest(given.encode(), wanted.encode()):
        raise WrongTarget(
            f"the value given to confirm is {given!r}, but this plan's is {wanted!r}",
            safe="the target is as it was",
            next_step=f"check which database you mean; if it is the one in the preview: {again}",
        )
    return Consent(value=given, by=consenting.operator, how=how, digest=plan.digest)
