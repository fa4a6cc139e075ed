"""What the image starts: `invoke WORDS`, after a private key that came in a variable was put into a file.

A variable is around every program that is started later, the team's own among them; a file is for whoever opens it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from runbooks.cli.local import ROOT, console
from runbooks.clients.repository import KEYS
from runbooks.model.container import KEY_TEXT, SCRATCH
from runbooks.model.errors import LocalFault


def main() -> NoReturn:
    """Become `invoke` with the words of the command line."""
    try:
        environ = with_key_in_file(os.environ, Path(os.environ.get("TMPDIR", SCRATCH)))
    except LocalFault as fault:
        console().error(fault)
        sys.exit(fault.exit_code)
    words = [sys.executable, "-m", "invoke", "--search-root", str(ROOT), *sys.argv[1:]]
    os.execve(sys.executable, words, environ)


def with_key_in_file(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The variables, with the key's text replaced by the path of a new file (0600) in `folder`. LocalFault."""
    kept = {name: value for name, value in environ.items() if name != KEY_TEXT}
    text = environ.get(KEY_TEXT, "")
    if not text.strip():
        return kept
    path = folder / "private.key"
    try:
        path.unlink(missing_ok=True)  # of a container that was started again
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as trouble:
        raise LocalFault(
            f"the private key cannot be put into {path}: {trouble.strerror}",
            safe="nothing was started",
            next_step=f"mount a folder at {SCRATCH} that this user may write to, then start it again",
        ) from trouble
    others = kept.get(KEYS)
    return kept | {KEYS: f"{others}:{path}" if others else str(path)}


if __name__ == "__main__":
    main()
