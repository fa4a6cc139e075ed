"""The offline recovery kit as a folder: instructions and two scripts that need nothing of this program."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from runbooks.backups.kit import Kit
from runbooks.model.errors import LocalFault, Refused, UsageFault
from runbooks.report.answer import Answer

_DO = "invoke backup.kit --out DIR"
_FILES = {
    "RESTORE.md": "kit_restore.md.j2",
    "decrypt.sh": "kit_decrypt.sh.j2",
    "decrypt.py": "kit_decrypt.py.j2",
}


def free(text: str) -> Path:
    """The folder that a kit may be written to: one that is not there yet, or empty. UsageFault, Refused, LocalFault."""
    if not text:
        raise UsageFault(
            "no folder was named for the kit", safe="nothing was written", next_step=f"name a new one: {_DO}"
        )
    folder = Path(text).expanduser()
    with _writing(folder):
        if folder.exists() and any(folder.iterdir()):
            raise Refused(
                f"{folder} is not empty, and an old kit and a new one must not mix",
                safe="nothing was written",
                next_step=f"name a new folder: {_DO}",
            )
    return folder


def written(kit: Kit, folder: Path) -> Answer:
    """Write the kit into a `free` folder (0700, made if it is not there): no secret, files 0600, scripts 0700.

    LocalFault, also if a file of it is there already; what was written before stays.
    """
    pages = Environment(
        loader=PackageLoader("runbooks.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    endpoint = f"--endpoint-url {kit.endpoint} " if kit.endpoint else ""
    texts = {name: pages.get_template(source).render(kit=kit, endpoint=endpoint) for name, source in _FILES.items()}
    with _writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name, text in texts.items():
            _new(folder / name, text, 0o600 if name.endswith(".md") else 0o700)
    return _answer(kit, folder)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalFault(
            f"{error.filename or folder} cannot be written: {error.strerror}",
            safe="no backup was touched",
            next_step=f"cure what the message names, then make the kit in a new folder: {_DO}",
        ) from error


def _new(path: Path, text: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _answer(kit: Kit, folder: Path) -> Answer:
    lines = [
        f"the offline recovery kit of {kit.environment} is in {folder}",
        *(f"  {name}" for name in _FILES),
        "print RESTORE.md, and keep the folder where neither AWS nor Neon is needed to reach it",
        "there is no key in it, and none belongs there: keep the private key elsewhere, and write down where",
        "next: try it out, with a fetched backup on a machine without network",
    ]
    data = {"folder": str(folder), "files": sorted(_FILES), "facts": kit.as_json()}
    return Answer("\n".join(lines), data)
