"""The preview as a page that can be sent to whoever has to approve: one HTML file, nothing in it runs or is fetched.

Names and rows in it are what the application's users have typed. Every value goes through `_shown` and is escaped, by
the template's settings and not at each place; the policy in the page's head lets a browser load nothing, should that
fail. The value that consent has to repeat is not on it: it is given at a terminal, by someone who has read one there.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from runbooks.engine.console import printable
from runbooks.engine.plan import Previewed
from runbooks.model.errors import LocalFault

FILE_NAME = "preview.html"
LONGEST = 2000
"""Signs of one value that are shown: a page has to stay one that can be sent. `invoke run.preview --json` has all."""


def page(previewed: Previewed, zone: str) -> str:
    """The page, without its last line break: the same text for the same preview. `zone`: where its reader is."""
    style = _pages().get_template("preview.css.j2").render()
    fingerprint = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _pages().get_template("preview.html.j2").render(
        previewed=previewed,
        preview=previewed.preview,
        plan=previewed.digest.removeprefix("sha256:")[:12],
        planned=previewed.planned.both(zone),
        good_until=previewed.preview.good_until and previewed.preview.good_until.both(zone),
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{fingerprint}'; base-uri 'none'; form-action 'none'",
    )  # fmt: skip


def keep_page(previewed: Previewed, folder: Path, zone: str) -> Path:
    """Write the page (0600) into the run's own folder; safe to repeat. Where it lies. Raises LocalFault."""
    path = folder / FILE_NAME
    new = path.with_name(path.name + ".new")
    try:
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(page(previewed, zone) + "\n")
        new.replace(path)
    except OSError as trouble:
        raise LocalFault(
            f"cannot write the preview to {path}: {trouble.strerror}",
            safe="the plan is in the journal beside it, and nothing was carried out",
            next_step=f"free space there, then: invoke run.resume {previewed.run_id}",
        ) from trouble
    return path


@functools.cache
def _pages() -> Environment:
    return Environment(
        loader=PackageLoader("runbooks.engine"), undefined=StrictUndefined, autoescape=True, finalize=_shown,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def _shown(value: Any) -> str:
    """A value as a person can read it; jinja2 escapes what comes from here, except the page's own style."""
    if isinstance(value, Markup):
        return value
    text = str(value)
    more = len(text) - LONGEST
    return printable(text[:LONGEST]) + (f" … and {more:,} more signs" if more > 0 else "")
