"""Answer of `schedule.render`: files for a scheduler, shown or written, and what is left to do by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runbooks.model.container import KEY_TEXT
from runbooks.model.errors import LocalFault, PolicyFault, Refused, UsageFault
from runbooks.model.fleet import Job
from runbooks.model.policy import Policy
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.schedule_entry import KEYS, Installation, RenderedFile
from runbooks.model.schedule_github import ROLES
from runbooks.model.schedules import Format, render
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
    there = Installation(environment, needed(named), stack=policy.stack_of(environment), **places)
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
        "variables": {job.value: list(_variables(form, there, job)) for job in Job},
        "files": [{"name": file.name, "content": file.content} for file in files],
        "written": [{"path": str(path), "state": state} for path, state in written.items()],
        "install": list(steps),
    }


def _shown(files: tuple[RenderedFile, ...], steps: tuple[str, ...]) -> str:
    """All that is not a file's own content is a comment to every scheduler: it may be piped."""
    parts = [f"# ---- {file.name}\n{file.content}" for file in files]
    return "\n".join([*parts, "# ---- how to install", *(f"# {step}".rstrip() for step in steps)])


def _told(written: dict[Path, str], steps: tuple[str, ...]) -> str:
    return "\n".join([*(f"{state:<10}{path}" for path, state in written.items()), "", "how to install:", *steps])


def _keys(policy: BackupPolicy) -> Iterator[str]:
    if policy.encryption is None:
        yield "first choose who can open the backups, in [backup.encryption] of the policy: until then every run fails"


def _variables(form: Format, there: Installation, job: Job) -> tuple[str, ...]:
    return there.github_secrets(job) if form is Format.GITHUB else there.variables_of(job)


def _install(form: Format, there: Installation, files: tuple[RenderedFile, ...]) -> Iterator[str]:
    if form is Format.GITHUB:
        yield from _on_github(there)
        return
    mine, verifiers = ([f for f in files if (f.job is Job.VERIFY) is apart] for apart in (False, True))
    yield from _place(there, Job.TAKE)
    yield from _secrets(there, Job.TAKE, "writer")
    yield from _secrets(there, Job.JUDGE, "verifier (the writer reads no reports of drills)")
    yield from _start(form, there.user_of(Job.TAKE), mine)
    yield ""
    yield "on another machine, if there is one: whoever takes backups holds no key that opens them"
    user = there.user_of(Job.VERIFY)
    yield from _place(there, Job.VERIFY)
    yield f"a home for {user}, where there is room for the largest backup, decrypted and restored"
    yield from _secrets(there, Job.VERIFY, "verifier")
    yield f"    in {KEYS} the path of the private key file, 0600 and owned by {user}; no Neon key"
    yield from _start(form, user, verifiers)


def _on_github(there: Installation) -> Iterator[str]:
    where = "" if there.stack is None else f" --env {there.stack}"
    yield "commit the files to the default branch: GitHub runs schedules from no other"
    if there.stack is not None:
        yield f"gh api -X PUT 'repos/{{owner}}/{{repo}}/environments/{there.stack}'   # the roles trust no other"
    yield from (f"gh secret set {name}{where}" for name in there.variables)
    yield f"gh variable set {ROLES[Job.TAKE]}{where}   # ARN of the role that may write backups and metrics"
    yield f"gh variable set {ROLES[Job.VERIFY]}{where}   # ARN of the role that reads backups and drills"
    yield f"gh secret set {KEY_TEXT}{where} < PRIVATE-KEY-FILE"
    yield "    better: not at GitHub, where the Neon key is too, but on a machine that takes no backups: leave out the"
    yield "    workflow that verifies, and have that machine do it: invoke schedule.render --format systemd"
    yield "have the age of the newest backup watched from elsewhere: BackupAge and BackupSuccess in CloudWatch"


def _place(there: Installation, job: Job) -> Iterator[str]:
    user = there.user_of(job)
    yield f"the product stands in {there.folder}, with `make .venv/.ready` done there, and {user} may read it"


def _secrets(there: Installation, job: Job, identity: str) -> Iterator[str]:
    file, names = there.secrets_of(job), ", ".join(there.variables_of(job))
    yield f"test -e {file} || install -D -m 600 -o {there.user_of(job)} /dev/null {file}   # in it:"
    yield f"    {names}, one NAME='value' a line"
    yield f"    AWS_PROFILE likewise, of a profile that becomes the {identity};"
    yield "    or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, if the machine has no role that may"
    yield f"    BLOOM_DR_POLICY likewise, if the policy is not {there.folder}/policy.toml"


def _start(form: Format, user: str, files: list[RenderedFile]) -> Iterator[str]:
    if form is Format.CRON:
        yield f"crontab -u {user} {files[0].name}   # REPLACES that user's crontab: one user for each environment"
        return
    yield f"install -m 644 -t /etc/systemd/system {' '.join(file.name for file in files)}"
    yield "systemctl daemon-reload"
    yield f"systemctl enable --now {' '.join(file.name for file in files if file.name.endswith('.timer'))}"
    yield f"systemctl start {files[0].name}   # a first time now, as the timer will start it"


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
