"""Answer of `schedule.render`: files for a scheduler, shown or written, and what is left to do by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runbooks.model.errors import LocalFault, PolicyFault, Refused, UsageFault
from runbooks.model.policy import Policy
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.schedules import Format, Installation, RenderedFile, render
from runbooks.model.variables import needed
from runbooks.report.answer import Answer


def rendered(policy: Policy, environment: str, form: Format, *, out: Path | None = None, **places: str) -> Answer:
    """The schedules of one environment. With `out` they are written below that folder, else shown.

    `places` are folder, secrets and user of Installation. UsageFault, PolicyFault; Refused, before anything is written,
    if a file is there with other content; LocalFault. Safe to repeat.
    """
    if policy.backup is None:
        raise PolicyFault(
            "the policy has no section [backup], so there is nothing to schedule",
            safe="nothing was rendered",
            next_step="write one, as policy.toml of this project shows",
        )
    named = policy.environment(environment)
    if named.sandbox:
        real = [name for name, each in policy.environments.items() if not each.sandbox]
        raise UsageFault(
            f"{environment} is a sandbox, and what is in it is not worth a schedule",
            safe="nothing was rendered",
            next_step=f"name another environment: --env {' or --env '.join(real)}"
            if real
            else "add the environment whose data matters to the policy",
        )
    there = Installation(environment, needed(named), **places)
    files = render(policy.backup, form, there)
    written = _write(out, files) if out else {}
    steps = (*_keys(policy.backup), *_install(form, there, files))
    text = _told(written, steps) if out else _shown(files, steps)
    return Answer(text, _data(form, there, files, written, steps))


def _data(
    form: Format, there: Installation, files: tuple[RenderedFile, ...], written: dict[Path, str], steps: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "format": form.value,
        "environment": there.environment,
        "variables": list(there.variables),
        "files": [{"name": file.name, "content": file.content} for file in files],
        "written": [{"path": str(path), "state": state} for path, state in written.items()],
        "install": list(steps),
    }


def _shown(files: tuple[RenderedFile, ...], steps: tuple[str, ...]) -> str:
    """All that is not a file's own content is a comment to every scheduler: it may be piped."""
    parts = [f"# ---- {file.name}\n{file.content}" for file in files]
    return "\n".join([*parts, "# ---- how to install", *(f"# {step}" for step in steps)])


def _told(written: dict[Path, str], steps: tuple[str, ...]) -> str:
    return "\n".join([*(f"{state:<10}{path}" for path, state in written.items()), "", "how to install:", *steps])


def _keys(policy: BackupPolicy) -> Iterator[str]:
    if policy.encryption is None:
        yield "first choose who can open the backups, in [backup.encryption] of the policy: until then every run fails"


def _install(form: Format, there: Installation, files: tuple[RenderedFile, ...]) -> Iterator[str]:
    names = ", ".join(there.variables)
    if form is Format.GITHUB:
        yield "commit the files to the default branch: GitHub runs schedules from no other"
        yield from (f"gh secret set {name}" for name in there.variables)
        yield "gh variable set BLOOM_BACKUP_ROLE   # ARN of the role that may write backups and metrics"
        yield "have the age of the newest backup watched from elsewhere: BackupAge and BackupSuccess in CloudWatch"
        return
    yield f"the product stands in {there.folder}, with `make .venv/.ready` done there, and {there.user} may read it"
    yield f"test -e {there.secrets} || install -D -m 600 -o {there.user} /dev/null {there.secrets}   # in it:"
    yield f"    {names}, one NAME='value' a line"
    yield "    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY likewise, if the machine has no role of its own"
    yield f"    BLOOM_DR_POLICY likewise, if the policy is not {there.folder}/policy.toml"
    if form is Format.CRON:
        yield f"crontab -u {there.user} {files[0].name}   # REPLACES that user's crontab: one user for each environment"
    else:
        units = " ".join(file.name for file in files)
        yield f"install -m 644 -t /etc/systemd/system {units}"
        yield "systemctl daemon-reload"
        yield f"systemctl enable --now {' '.join(file.name for file in files if file.name.endswith('.timer'))}"
        yield f"systemctl start {files[0].name}   # a first backup now, as the timer will take it"


def _write(out: Path, files: tuple[RenderedFile, ...]) -> dict[Path, str]:
    """What became of each file. All are looked at before the first is written."""
    found = {out / file.name: _state(out / file.name, file.content) for file in files}
    others = [str(path) for path, state in found.items() if state == "differs"]
    if others:
        raise Refused(
            f"there are files with other content: {', '.join(others)}",
            safe="no file was written",
            next_step="compare them, then move them away, or choose another folder with --out",
        )
    for file in files:
        if found[out / file.name] == "written":
            _write_new(out / file.name, file.content)
    return found


def _state(path: Path, content: str) -> str:
    try:
        return "unchanged" if path.read_bytes() == content.encode() else "differs"
    except FileNotFoundError:
        return "written"
    except OSError as trouble:
        raise _unusable(path, trouble) from trouble


def _write_new(path: Path, content: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            with os.fdopen(file, "w", encoding="utf-8") as stream:
                os.fchmod(file, 0o644)  # whatever the umask: it holds no secret, and schedulers have to read it
                stream.write(content)
        except OSError:
            path.unlink()
            raise
    except OSError as trouble:
        raise _unusable(path, trouble) from trouble


def _unusable(path: Path, trouble: OSError) -> LocalFault:
    return LocalFault(
        f"{path} cannot be written: {trouble.strerror}",
        safe="no file that was there is changed",
        next_step="choose another folder with --out, then repeat it",
    )
