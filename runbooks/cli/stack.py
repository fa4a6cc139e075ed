"""Answers of `sandbox.up`, `sandbox.down`, `sandbox.status` and `sandbox.seed`: where the local stack is, what now."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from runbooks.model.dsn import Dsn
from runbooks.model.errors import SandboxFault, UsageFault
from runbooks.model.sandbox_place import API, KEY, PROJECT
from runbooks.report.answer import Answer, plain
from runbooks.sandbox import daemon
from runbooks.sandbox.archive import ArchiveFacts
from runbooks.sandbox.daemon import Running
from runbooks.sandbox.place import FACTS


def up() -> Answer:
    running = daemon.up(daemon.default_root())
    words = "the local stack was running already" if running.already else "the local stack runs"
    return Answer(f"{words}\n{_where(running)}\nnext: invoke sandbox.seed, then invoke sandbox.psql", plain(running))


def down(*, delete: bool) -> Answer:
    root = daemon.default_root()
    was = daemon.status(root)
    daemon.down(root, delete=delete)
    now = daemon.status(root)
    words = "the local stack is stopped" if was.running else "no local stack was running"
    if now.exists:
        words += f"; its databases stay in {root} (invoke sandbox.down --delete removes them)"
    elif was.exists:
        words += f"; {root} is removed"
    return Answer(words, plain(now) | {"stopped": was.running is not None, "deleted": was.exists and not now.exists})


def status() -> Answer:
    found = daemon.look(daemon.default_root())
    if found.running:
        text = f"the local stack runs\n{_where(found.running)}\n{_archive(found.archive)}"
    elif found.exists:
        text = f"the local stack does not run; its databases are in {found.root}\nnext: invoke sandbox.up"
    else:
        text = f"there is no local stack in {found.root}\nnext: invoke sandbox.up"
    return Answer(text, plain(found))


def exports() -> Answer:
    """Shell lines for `eval`: where the sandbox's Neon is, for `pulumi up --stack sandbox`. Raises SandboxFault."""
    running = daemon.status(daemon.default_root()).running
    if running is None:
        raise SandboxFault(
            "the local stack is not running",
            safe="nothing was started",
            next_step="invoke sandbox.up",
        )
    found = {API: running.api_url, PROJECT: running.project_id, KEY: running.api_key.reveal()}
    return Answer("\n".join(f"export {name}={shlex.quote(value)}" for name, value in found.items()), found)


def aws(say: Callable[[str], None]) -> Answer:
    """Returns when it is interrupted. Raises ToolMissing, SandboxFault."""
    from runbooks.sandbox.aws import serve

    def ready(url: str) -> None:
        say(f"AWS stand-in at {url}, empty and only as long as this runs; Ctrl-C ends it. In another shell:")
        say('  eval "$(invoke sandbox.env)" && pulumi up --stack sandbox')

    serve(ready)
    return Answer("", {})


def seeded(dsn: Dsn, clients: str, say: Callable[[str], None]) -> Answer:
    """Raises UsageFault, and what `seed` raises."""
    from runbooks.sandbox.seed import seed  # the other commands here need no driver

    if not clients.isdecimal():
        raise UsageFault(
            f"{clients!r} is not a number of clients",
            safe="no database was touched",
            next_step="invoke sandbox.seed --clients 2000",
        )
    made = seed(dsn, clients=int(clients), progress=say)
    lines = [f"{table:<22}{count:>12,}" for table, count in made.rows]
    words = "seeded" if made.fresh else "was seeded already; nothing was changed"
    text = "\n".join([f"{words}: {made.total:,} rows, {made.bytes / 1e6:.1f} MB", *lines])
    return Answer(text, plain(made) | {"rows": dict(made.rows)})


def _where(running: Running) -> str:
    return (
        f"  API      {running.api_url} (its key is in {running.root / FACTS})\n"
        f"  project  {running.project_id}, default branch {running.default_branch_id}\n"
        f"  folder   {running.root}"
    )


def _archive(facts: ArchiveFacts | None) -> str:
    if facts is None:
        return "  archive  does not run; the first command that needs it starts it"
    return (
        f"  archive  {facts.endpoint}, bucket {facts.bucket} (its private key is {facts.key_file})\n"
        f"           local copies in {facts.local}, metrics in {facts.metrics_file}"
    )
