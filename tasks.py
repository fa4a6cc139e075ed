"""Switchboard: text in, a runbook or routine called, an exit code out. It decides nothing.

Only invoke and the standard library load here, so that `invoke --list` is instant; the rest loads when it is called.
"""

from __future__ import annotations

from pathlib import Path

from invoke import Collection, Exit

from runbooks.cli.backup_commands import backup, schedule
from runbooks.cli.command import command
from runbooks.cli.recover_commands import recover

HERE = Path(__file__).resolve().parent
JSON = "print the answer as JSON on stdout"
RUN = "id of the run, as invoke run.list shows it; may be given without the flag"
COUNTS = "environment for which it counts: the report is kept in its archive, and its alarms hear of it"
CONFIRM = "the value that the preview printed: consent to change that target"

run, drill, sandbox, docs = (Collection(name) for name in ("run", "drill", "sandbox", "docs"))


@command(drill, "quarterly", for_=COUNTS, clients="how many clients to seed (default 2000)", json=JSON)
def quarterly(c, for_="", clients="2000", json=False):
    """Break and recover a real database on this machine; report measured RTO and RPO. Touches only what it makes."""
    from runbooks.cli.desk import Desk
    from runbooks.drill import RUNBOOK, Request

    desk = Desk(c, "sandbox", "", as_json=json)
    return desk.start(RUNBOOK, Request.parse(clients, for_, policy=desk.world.policy))


@command(run, "list", dry=True, json=JSON)
def run_list(c, json=False):
    """All runs, newest first, and what state each is in."""
    from runbooks.cli.local import runs, zone
    from runbooks.report.runs import listed

    return listed(runs(), zone())


@command(run, "show", dry=True, run_id=RUN, json=JSON)
def run_show(c, run_id, json=False):
    """The story of run RUN_ID: every line of its journal."""
    from runbooks.cli.local import runs, zone
    from runbooks.model.run_id import RunId
    from runbooks.report.runs import shown

    return shown(runs(), RunId.parse(run_id), zone())


@command(run, "preview", dry=True, run_id=RUN, html="write it as a page to this new file; - is stdout", json=JSON)
def run_preview(c, run_id, html="", json=False):
    """What run RUN_ID showed before consent, again; as a page for whoever has to approve with --html FILE."""
    from runbooks.cli.local import runbook_name_of, runs, zone
    from runbooks.model.run_id import RunId
    from runbooks.registry import runbook_named
    from runbooks.report.previews import shown_again

    wanted = RunId.parse(run_id)
    return shown_again(runs(), wanted, runbook_named(runbook_name_of(wanted)), zone(), html, as_json=json)


@command(run, "verify", dry=True, run_id=RUN, json=JSON)
def run_verify(c, run_id, json=False):
    """Re-check the hash chain of the journal of run RUN_ID."""
    from runbooks.cli.local import runs
    from runbooks.model.run_id import RunId
    from runbooks.report.runs import verified

    return verified(runs(), RunId.parse(run_id))


@command(run, "resume", dry=True, run_id=RUN, confirm=CONFIRM, json=JSON)
def run_resume(c, run_id, confirm="", json=False):
    """Go on with run RUN_ID: after consent, a failure, or a kill. Every option is in its journal."""
    from runbooks.cli.desk import Desk
    from runbooks.cli.local import environment_of, runbook_name_of
    from runbooks.model.run_id import RunId
    from runbooks.registry import runbook_named

    resumed = RunId.parse(run_id)
    runbook = runbook_named(runbook_name_of(resumed))
    return Desk(c, environment_of(resumed), confirm, as_json=json).resume(runbook, resumed)


@command(sandbox, "up", json=JSON)
def sandbox_up(c, json=False):
    """Start the local stack: PostgreSQL with point-in-time recovery behind a Neon API. No account needed."""
    from runbooks.cli import stack

    return stack.up()


@command(sandbox, "down", delete="also delete its databases", json=JSON)
def sandbox_down(c, delete=False, json=False):
    """Stop the local stack; its data stays unless --delete is given."""
    from runbooks.cli import stack

    return stack.down(delete=delete)


@command(sandbox, "status", dry=True, json=JSON)
def sandbox_status(c, json=False):
    """Is the local stack running, and where."""
    from runbooks.cli import stack

    return stack.status()


@command(sandbox, "env", dry=True, json=JSON)
def sandbox_env(c, json=False):
    """Print where the local stack is, key too, for: eval "$(invoke sandbox.env)"."""
    from runbooks.cli import stack

    return stack.exports()


@command(sandbox, "aws")
def sandbox_aws(c):
    """Run a stand-in for AWS on this machine, empty, until Ctrl-C: for pulumi up --stack sandbox."""
    from runbooks.cli import stack
    from runbooks.cli.desk import Desk

    return stack.aws(Desk(c, "sandbox", "", as_json=False).voice.say)


@command(sandbox, "seed", clients="how many clients (default 2000)", json=JSON)
def sandbox_seed(c, clients="2000", json=False):
    """Fill the local stack with the Bloom-like example data."""
    from runbooks.cli import stack
    from runbooks.cli.desk import Desk

    desk = Desk(c, "sandbox", "", as_json=json)
    return stack.seeded(desk.dsn(), clients, desk.voice.say)


@command(sandbox, "psql", branch="branch id or name (default: the default branch)")
def sandbox_psql(c, branch=""):
    """A psql session on a branch of the local stack."""
    from runbooks.cli.desk import Desk
    from runbooks.clients.programs import find

    Desk(c, "sandbox", "", as_json=False).become_psql(find("psql").path, branch)


@command(docs, "pages", check="only compare, exit 1 when stale")
def docs_pages(c, check=False):
    """Bring the generated parts of docs/ up to date with the code."""
    from runbooks.engine.pages import stale
    from runbooks.registry import RUNBOOKS

    pages = [str(page.relative_to(HERE)) for page in stale(HERE / "docs", RUNBOOKS, write=not check)]
    if check and pages:
        raise Exit(f"stale: {', '.join(pages)}; run: invoke docs.pages", code=1)
    return {"stale" if check else "rewritten": pages}


namespace = Collection(recover, run, drill, sandbox, docs, backup, schedule)
