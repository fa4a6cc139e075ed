"""Commands about backups. Like tasks.py it decides nothing, and loads invoke and the standard library only."""

from __future__ import annotations

from typing import Any

from invoke.collection import Collection
from invoke.context import Context

from runbooks.cli.command import command

ENV = "environment of the policy (default: its default_environment)"
JSON = "print the answer as JSON on stdout"

backup, schedule = Collection("backup"), Collection("schedule")


@command(backup, "take", tier="daily, weekly or pre-migration", env=ENV, json=JSON)
def backup_take(c: Context, tier: str = "", env: str = "", json: bool = False) -> Any:
    """Back up the database to the archive, and prove what lies there."""
    from runbooks.cli.desk import Desk
    from runbooks.take_backup import RUNBOOK, Request

    request = Request.parse(tier)
    return Desk(c, env, "", as_json=json).start(RUNBOOK, request)


@command(
    backup,
    "verify",
    id="a backup's id, as invoke backup.list shows it",
    latest="the newest one",
    last="so many of the newest",
    rung="how far to prove it: 1 read, 2 decrypted and decoded, 3 restored, 4 compared, 5 rules tried (default 5)",
    local="the local copies instead of the archive",
    env=ENV,
    json=JSON,
)
def backup_verify(
    c: Context,
    id: str = "",
    latest: bool = False,
    last: str = "",
    rung: str = "",
    local: bool = False,
    env: str = "",
    json: bool = False,
) -> Any:
    """Prove backups by restoring them into a throw-away PostgreSQL, and keep the proof beside them."""
    from runbooks.cli.desk import Desk
    from runbooks.verify_backup import RUNBOOK, Request

    request = Request.parse(id, latest=latest, last=last, rung=rung, local=local)
    return Desk(c, env, "", as_json=json).start(RUNBOOK, request)


@command(
    backup,
    "list",
    dry=True,
    before="those from before an incident, and which to take: '2025-12-03 14:30 America/Mexico_City'",
    local="the local copies instead of the archive",
    env=ENV,
    json=JSON,
)
def backup_list(c: Context, before: str = "", local: bool = False, env: str = "", json: bool = False) -> Any:
    """What backups there are, what is proved of each, and whether it can be read now."""
    from runbooks.cli.desk import Desk
    from runbooks.model.moment import Moment
    from runbooks.model.retention import Place
    from runbooks.report.backups import listed

    desk = Desk(c, env, "", as_json=json)
    moment = Moment.parse(before, now=desk.now()) if before else None
    world, place = desk.world, Place.LOCAL if local else Place.ARCHIVE
    return listed(world.repository, place=place, before=moment, now=world.now(), zone=world.policy.local_timezone)


@command(backup, "fresh", env=ENV, json=JSON)
def backup_fresh(c: Context, env: str = "", json: bool = False) -> Any:
    """Is there a verified backup as new as the schedule promises? Ends with 36 if not; tells the alarms all ages."""
    from runbooks.cli.desk import Desk
    from runbooks.report.fresh import fresh

    return fresh(Desk(c, env, "", as_json=json).world)


@command(
    backup,
    "restore",
    dry=True,
    id="a backup's id or the key of an old .sql.gz, as invoke backup.list shows it, or: latest",
    to="where to: a name of [targets] in the policy, or neon/DATABASE, which is made if it is not there",
    tables="only these tables, separated by commas",
    before="with latest: the newest one from before that moment: '2025-12-03 14:30 America/Mexico_City'",
    local="from the local copies instead of the archive",
    confirm="the value that the preview printed: consent to fill that target, or to pay for a thaw",
    env=ENV,
    json=JSON,
)
def backup_restore(
    c: Context,
    id: str,
    to: str = "",
    tables: str = "",
    before: str = "",
    local: bool = False,
    confirm: str = "",
    env: str = "",
    json: bool = False,
) -> Any:
    """Restore backup ID into an empty database, and prove what arrived there."""
    from runbooks.cli.desk import Desk
    from runbooks.restore_backup import RUNBOOK, Request

    desk = Desk(c, env, confirm, as_json=json)
    policy, now = desk.world.policy, desk.world.now()
    request = Request.parse(id, to=to, tables=tables, before=before, local=local, policy=policy, moment=now)
    return desk.start(RUNBOOK, request)


@command(
    backup,
    "prune",
    dry=True,
    place="archive or local (default: both)",
    env=ENV,
    confirm="the value that the preview printed: consent to delete these backups",
    json=JSON,
)
def backup_prune(c: Context, place: str = "", env: str = "", confirm: str = "", json: bool = False) -> Any:
    """Delete backups that are past their retention and stand behind verified newer ones."""
    from runbooks.cli.desk import Desk
    from runbooks.prune_backups import RUNBOOK, Request

    request = Request.parse(place)
    return Desk(c, env, confirm, as_json=json).start(RUNBOOK, request)


@command(
    backup,
    "break",
    id="a whole backup's id, as invoke backup.list shows it; only a copy of it is damaged",
    how="cut, flip, truncate-table, drop-file, swap-files, wrong-key or lost-rows",
    env=ENV,
    json=JSON,
)
def backup_break(c: Context, id: str = "", how: str = "", env: str = "", json: bool = False) -> Any:
    """Damage a copy of a backup in the sandbox, and see which rung of the proof catches it."""
    from runbooks.backups.damage import How
    from runbooks.cli.desk import Desk
    from runbooks.model.backup_id import BackupId
    from runbooks.report.damage import broken

    backup_id, chosen = BackupId.parse(id), How.parse(how)
    desk = Desk(c, env, "", as_json=json)
    return broken(desk.world, backup_id, chosen, tell=desk.voice.say)


@command(backup, "gate", env=f"{ENV}; all that follows -- is the command")
def backup_gate(c: Context, env: str = "") -> Any:
    """Run a command, such as a migration, only behind a backup that was just proved: invoke backup.gate -- COMMAND"""
    import sys

    from runbooks.cli.desk import Desk
    from runbooks.cli.gate import command_in, pass_through

    command = command_in(sys.argv)
    pass_through(Desk(c, env, "", as_json=False), command)


@command(backup, "kit", out="new folder for the kit", env=ENV, json=JSON)
def backup_kit(c: Context, out: str = "", env: str = "", json: bool = False) -> Any:
    """A folder with all that a restore without this program needs but the backup and its key: to print and to keep."""
    from runbooks.backups.kit import kit_of
    from runbooks.cli.desk import Desk
    from runbooks.report.kit import free, written

    folder, world = free(out), Desk(c, env, "", as_json=json).world
    policy = world.policy
    kit = kit_of(world.repository, contacts=policy.contacts, zone=policy.local_timezone, now=world.now())
    return written(kit, folder)


@command(
    backup,
    "keys",
    new="make an age pair: a new file for its private key; nothing else is needed for it",
    env=ENV,
    json=JSON,
)
def backup_keys(c: Context, new: str = "", env: str = "", json: bool = False) -> Any:
    """Who can open the backups, tried on one file of the newest; or a new pair of keys."""
    from pathlib import Path

    from runbooks.report.keys import keys, made

    if new:
        return made(Path(new))
    from runbooks.cli.desk import Desk

    return keys(Desk(c, env, "", as_json=json).world.repository)


@command(backup, "sync", env=ENV, json=JSON)
def backup_sync(c: Context, env: str = "", json: bool = False) -> Any:
    """Send local copies that the archive does not hold whole, and prove what arrived."""
    from runbooks.cli.desk import Desk
    from runbooks.sync_backups import RUNBOOK, Request

    return Desk(c, env, "", as_json=json).start(RUNBOOK, Request())


@command(
    backup,
    "fleet",
    tier="take backups: daily, weekly or pre-migration",
    verify="prove so many of the newest of each",
    fresh="judge their age",
    stack="stack of the policy whose databases are meant (default: that of the default environment)",
    local="by processes on this machine instead of AWS Batch",
    together="with --local: so many at a time (default 2)",
    job="submit nothing, and tell what that job comes to",
    detach="do not wait for the job",
    child="what AWS Batch starts: do it for the one database that this child is there for",
    order="with --child: which environments the stack was made from",
    json=JSON,
)
def backup_fleet(
    c: Context,
    tier: str = "",
    verify: str = "",
    fresh: bool = False,
    stack: str = "",
    local: bool = False,
    together: str = "",
    job: str = "",
    detach: bool = False,
    child: bool = False,
    order: str = "",
    json: bool = False,
) -> Any:
    """For each database of a stack at once: take backups, prove them, or judge their age. Ends well only if all do."""
    from runbooks.cli import fleet
    from runbooks.cli.local import load_policy
    from runbooks.model.fleet import Routine

    routine = Routine.parse(tier, verify=verify, fresh=fresh)
    fleet.refuse_mixed(local=local, child=child, together=together, job=job, detach=detach)
    policy = load_policy()
    name = fleet.stack_in(policy, stack)
    if local:
        return fleet.locally(policy, name, routine, together)
    if not child:
        return fleet.in_batch(policy, name, routine, job=job, detach=detach)

    def one(environment: str) -> Any:
        if fresh:
            return backup_fresh(c, env=environment, json=json)
        if verify:
            return backup_verify(c, last=verify, env=environment, json=json)
        return backup_take(c, tier=tier, env=environment, json=json)

    return fleet.as_child(policy, name, order, one)


@command(
    schedule,
    "render",
    format="cron, systemd or github-actions",
    env=ENV,
    folder="where the product stands on the machine that takes the backups (default /srv/bloom-dr)",
    user="who takes them there (default bloom-dr)",
    secrets="file there with NAME=value lines (default /etc/bloom-dr/secrets.env)",
    out="folder to write the files to (default: they are printed)",
    json=JSON,
)
def schedule_render(
    c: Context,
    format: str = "",
    env: str = "",
    folder: str = "",
    user: str = "",
    secrets: str = "",
    out: str = "",
    json: bool = False,
) -> Any:
    """Files that make a scheduler take the policy's backups, with all that a job needs around it."""
    from pathlib import Path

    from runbooks.cli.local import load_policy
    from runbooks.model.schedules import Format
    from runbooks.report.schedules import rendered

    form = Format.parse(format)
    policy = load_policy()
    places = {name: text for name, text in (("folder", folder), ("user", user), ("secrets", secrets)) if text}
    return rendered(policy, env or policy.default_environment, form, out=Path(out) if out else None, **places)
