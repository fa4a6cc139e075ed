"""The data is needed elsewhere, or Neon is lost: restore a backup into an empty database, and prove what arrived.

Survey: the backup, what is proved of it, the target, and what of the backup the target will not take. Nothing is ever
restored over something: a target that is not empty is refused, and so is the backup's own source under any spelling.

A backup in cold storage is two decisions, so its plan is another one with a consent of its own: to have it thawed.
That costs money and changes nothing but the archive; and what a restore will do cannot be told before the files can be
read, so nobody can consent to it yet. The run then ends with StillCold; the same command, later, has a new preview.

Killed in the middle, a run makes a database that it made itself anew. One that was there before is left as it is, and
the run says by which statements it is emptied.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

from runbooks.backups import thaw
from runbooks.backups.arrived import Comparison, LeftOut, compare_with
from runbooks.backups.choice import MEANING, named
from runbooks.backups.legacy import LegacyFacts
from runbooks.backups.legacy_arrived import Arrived
from runbooks.backups.prospect import UNTOUCHED, Prospect, Wish, look, require_possible, still_cold
from runbooks.backups.refill import Restored, fetch_dump, refill
from runbooks.backups.source import Foreseen, manifest_of
from runbooks.backups.target import (
    check_name,
    drop,
    exists,
    label,
    labelled,
    login,
    oid_of,
    open_session,
    session,
)
from runbooks.backups.workspace import workspace
from runbooks.clients.postgres import Connection
from runbooks.clients.postgres_lock import RESTORE as RESTORE_LOCK
from runbooks.clients.postgres_lock import hold_lock
from runbooks.clients.restore_outlook import contents, in_the_way, require_room
from runbooks.clients.world import World
from runbooks.engine.deadline import deadline
from runbooks.engine.plan import Ending, Plan, Preview, Table, Verdict
from runbooks.engine.step import Effect, Run, Runbook, Running, Step
from runbooks.model.backup_id import LegacyBackup
from runbooks.model.duration import spell
from runbooks.model.errors import ConsentNeeded, Refused, UsageFault
from runbooks.model.moment import Moment
from runbooks.model.policy import Policy
from runbooks.model.record import Record

_SHOWN = 40


class Request(Wish):
    @classmethod
    def parse(
        cls, backup: str, *, to: str, tables: str, before: str, local: bool, policy: Policy, moment: Moment
    ) -> Request:
        """From the command line; empty texts: not given. `moment`: now. Raises UsageFault."""
        if not to:
            raise UsageFault(
                "a restore needs a target: the name of one, never a URL",
                safe="nothing was started",
                next_step=f"into a new database on the environment's Neon branch: "
                f"invoke backup.restore {backup} --to neon/restored",
            )
        wanted = named(backup)
        check_name(policy, to)
        if before and wanted is not None:
            raise UsageFault(
                "--before chooses among the backups, and one is named already",
                safe="nothing was started",
                next_step=f"invoke backup.restore latest --before '{before}', with the same --to",
            )
        if tables and isinstance(wanted, LegacyBackup):
            raise UsageFault(
                "single tables cannot be taken out of an old single-file backup",
                safe="nothing was started",
                next_step=f"restore it whole, and copy the tables from there: invoke backup.restore {backup} --to {to}",
            )
        return cls(
            backup=backup,
            before=Moment.parse(before, now=moment.utc) if before else None,
            to=to,
            tables=_split(tables),
            local=local,
        )


class RestorePlan(Plan):
    about: Prospect

    @property
    def thaws(self) -> bool:
        """This is the plan of a thaw, and of nothing else."""
        return not self.about.chill.readable

    def confirmation(self) -> str:
        """Target, database and rows; of a thaw: the word, the backup's name, and the number of files."""
        about = self.about
        if self.thaws:
            return f"thaw/{about.source.key.rsplit('/', 1)[1]}/{len(about.chill.cold)}"
        return f"{about.destination.place}/{about.destination.database}/{about.what.rows}"

    def preview(self) -> Preview:
        return _preview_of_thaw(self.about) if self.thaws else _preview(self.about)


class Warm(Record):
    files: int


class Made(Record):
    by_us: bool


class Proved(Record):
    compared: Comparison


class Labelled(Record):
    text: str | None


# --- survey and plan ------------------------------------------------------------------------------------------------


def survey(run: Run[World], request: Request) -> Prospect:
    """Reads the archive and the target; see `prospect`."""
    return look(run.world, request, str(run.id), run.tell)


def plan(request: Request, survey: Prospect) -> RestorePlan:
    """Pure. StillCold while a thaw is under way; Refused if the target cannot take this backup."""
    require_possible(survey)
    return RestorePlan(about=survey)


def _preview_of_thaw(about: Prospect) -> Preview:
    chill = about.chill
    return Preview(
        title=f"ask for the thaw of {about.source.key}",
        target=f"{len(chill.cold)} objects in {chill.storage_class}, {chill.size / 1e6:,.1f} MB: S3 makes copies that "
        f"can be read for {thaw.DAYS} days, and charges for it",
        facts=(
            ("takes", f"up to {spell(chill.takes)}"),
            ("then", f"the same command shows what it will restore into {about.destination}, and asks again"),
        ),
        tables=(),
        warnings=about.passed_over,
        undo="not needed: the copies go away by themselves, and no database is touched",
    )


def _preview(about: Prospect) -> Preview:
    what, source = about.what, about.source
    made = ", which this run makes" if about.destination.missing else ""
    return Preview(
        title=f"restore {source.key}" + (f", tables {', '.join(about.tables)}" if about.tables else ""),
        target=f"{what.rows:,} rows into the {'new' if made else 'empty'} {about.destination}{made}"
        if about.tables is None
        else f"{what.rows:,} rows of {len(about.tables)} tables into {about.destination}{made}",
        facts=(
            ("state of", _state(about)),
            ("not in it", f"everything written in the {_age(about)} since"),
            ("tier", source.tier),
            ("proved so far", f"rung {int(source.rung)}: {MEANING[source.rung]}"),
            ("to be fetched", f"{about.files:,} files, {what.size / 1e6:,.1f} MB decrypted, removed again"),
            ("target", f"PostgreSQL {_version(about.found.identity.server_version)}, as {about.destination.role}"),
            ("restored by", f"{what.client}, up to {about.jobs} at a time, owned by {about.destination.role}"),
        ),
        tables=tuple(_left_out_tables(what)),
        warnings=tuple(_warnings(about)),
        undo=f"drop database {about.destination.database}"
        if about.tables is None or about.destination.missing
        else f"drop the tables {', '.join(about.tables)}",
    )


def _left_out_tables(what: Foreseen) -> Iterator[Table]:
    if what.left_out:
        yield Table(
            title="will not be restored",
            head=("what", "why"),
            rows=tuple((each.what, each.reason) for each in what.left_out),
        )
    if wanted := _wanted_grants(what.grants):
        yield Table(
            title="privileges are not restored; these are told again at the end",
            head=("statement",),
            rows=tuple((" ".join(each.split()),) for each in wanted[:_SHOWN]),
        )


def _warnings(about: Prospect) -> Iterator[str]:
    if about.source.legacy:
        yield "an old file has no inventory: its rows will be counted, but nobody can say whether they are right"
    elif about.source.rung < about.verified_rung:
        yield (
            f"nothing says yet that this backup is good: {MEANING[about.source.rung]}; what arrives is compared with "
            f"its inventory, and invoke backup.verify --id {about.source.key} tries it without a target"
        )
    yield from (f"passed over: {text}" for text in about.passed_over)
    if about.doubt is not None:
        yield f"the environment's own database could not be asked whether it is this target: {about.doubt}"
    if about.unlike:
        yield f"text may be sorted differently there: {'; '.join(about.unlike)}"


def _state(about: Prospect) -> str:
    told = about.source.started.both(about.zone)
    return f"{told} at the latest: the file's clock had no zone" if about.source.legacy else f"shortly after {told}"


def _age(about: Prospect) -> str:
    return spell(timedelta(seconds=max(0, round((about.at.utc - about.source.started.utc).total_seconds()))))


def _version(number: int) -> str:
    return f"{number // 10000}.{number % 10000}"


# --- steps ----------------------------------------------------------------------------------------------------------


@contextmanager
def _locked(run: Run[World], plan: RestorePlan) -> Iterator[Connection | None]:
    """Holds the restore lock (C33): in the target, or on Neon, where it may not be there yet, in the environment's own
    database beside it. A thaw needs none: asking twice is asking once."""
    if plan.thaws:
        yield None
        return
    about, world = plan.about, run.world
    there = about.destination
    beside = there.branch is not None
    with session(world, there, about.found.identity, str(run.id), run.tell, beside=beside) as conn:
        with hold_lock(
            conn, run.id, world.operator, purpose=RESTORE_LOCK, zone=about.zone, progress=run.tell
        ):  # fmt: skip
            yield conn


def _thaw(running: Running[World, RestorePlan]) -> Warm:
    """In the plan of a thaw this step asks, and the run ends here."""
    about = running.plan.about
    if not running.plan.thaws:
        return Warm(files=about.files)
    chill = thaw.ask(running.world.repository, (*about.chill.cold, *about.chill.thawing), running.tell)
    if not chill.readable:
        raise still_cold(about, chill)
    raise ConsentNeeded(
        f"the files of {about.source.key} can be read now, and this run had consent to their thaw only",
        safe=UNTOUCHED,
        next_step="start the restore, and read its preview: "
        f"invoke backup.restore {about.source.key} --to {about.destination.name}",
    )


def _make(running: Running[World, RestorePlan]) -> Made:
    there = running.plan.about.destination
    if not there.missing:
        return Made(by_us=False)
    neon = running.world.neon
    branch = neon.branch(str(there.branch))
    if not running.notes and exists(running.world, branch, there.database):
        raise Refused(
            f"a database {there.database} was made on branch {there.branch_name} since the preview",
            safe="it was not touched",
            next_step="choose another name, or start a new restore, whose preview looks into that database",
        )
    running.note({"making": there.database})
    neon.create_database(branch=branch, name=there.database, owner=there.role)
    return Made(by_us=True)


def _is_made(running: Running[World, RestorePlan]) -> Made | None:
    there = running.plan.about.destination
    if not there.missing:
        return Made(by_us=False)
    branch = running.world.neon.branch(str(there.branch))
    return Made(by_us=True) if running.notes and exists(running.world, branch, there.database) else None


def _restore(running: Running[World, RestorePlan]) -> Restored:
    about, repository = running.plan.about, running.world.repository
    with _target(running) as conn:
        left = in_the_way(contents(conn), about.tables)
        if left:
            _require_ours(running, conn, left)
    with workspace() as folder:
        started = time.monotonic()
        dump = fetch_dump(repository, about, folder, running.tell)
        fetched = time.monotonic()
        if left:
            _start_over(running)
        _claim(running)
        with deadline(repository.policy.time_limit, "the restore", "raise time_limit in [backup] of the policy"):
            restored = refill(repository, about, dump, login(running.world, about.destination), running.tell)
    seconds = {"fetch_seconds": round(fetched - started, 3), "restore_seconds": round(time.monotonic() - fetched, 3)}
    restored = restored.model_copy(update=seconds)
    with _target(running) as conn:
        running.note({"oid": oid_of(conn), "restored": restored.as_json()})
    return restored


def _is_restored(running: Running[World, RestorePlan]) -> Restored | None:
    """What an attempt noted when its restore had ended well, if the database is still that one."""
    noted = [note for note in running.notes if "restored" in note]
    if not noted or not _is_there(running):
        return None
    with _target(running) as conn:
        if oid_of(conn) != noted[-1]["oid"] or not in_the_way(contents(conn), running.plan.about.tables):
            return None
    return Restored.model_validate(noted[-1]["restored"])


def _is_there(running: Running[World, RestorePlan]) -> bool:
    there = running.plan.about.destination
    if there.branch is None:
        return True
    return exists(running.world, running.world.neon.branch(there.branch), there.database)


def _claim(running: Running[World, RestorePlan]) -> None:
    """Note which empty database is about to be filled, before anything is in it; and let it say so itself."""
    about = running.plan.about
    with _target(running) as conn:
        require_room(conn, about.tables)
        running.note({"filling": oid_of(conn)})
        if about.destination.missing:
            label(conn, _unfinished(running))


def _unfinished(running: Running[World, RestorePlan]) -> str:
    source = running.plan.about.source.key
    return f"UNFINISHED, not to be used: bloom-dr run {running.id} is restoring {source} here"


def _require_ours(running: Running[World, RestorePlan], conn: Connection, left: tuple[str, ...]) -> None:
    """Refused unless everything in the target is the half that an earlier attempt of this run left there."""
    there = running.plan.about.destination
    filled = {note["filling"] for note in running.notes if "filling" in note}
    if not filled:
        require_room(conn, running.plan.about.tables)
    if oid_of(conn) in filled and labelled(conn) == _unfinished(running):
        return
    half = "; this run was stopped in the middle, so that is not complete and not to be used" if filled else ""
    raise Refused(
        f"{there} holds {', '.join(left[:10])}{' and more' if len(left) > 10 else ''}{half}",
        safe="nothing was written to it by this attempt, and the backup is as it was",
        next_step=f'if nobody uses it: DROP DATABASE "{there.database}"; CREATE DATABASE "{there.database}"; '
        f"then go on: invoke run.resume {running.id}",
    )


def _start_over(running: Running[World, RestorePlan]) -> None:
    """Drop what an earlier attempt left half, and make the database anew."""
    there, neon = running.plan.about.destination, running.world.neon
    running.tell(f"an earlier attempt left {there.database} half restored; it is dropped and made again")
    drop(running.held, there.database)
    neon.create_database(branch=neon.branch(str(there.branch)), name=there.database, owner=there.role)


@contextmanager
def _target(running: Running[World, RestorePlan]) -> Iterator[Connection]:
    about = running.plan.about
    with session(running.world, about.destination, about.found.identity, str(running.id), running.tell) as conn:
        yield conn


def _prove(running: Running[World, RestorePlan]) -> Proved:
    """In sessions of its own: what others can read."""
    about, policy = running.plan.about, running.world.repository.policy
    dsn = login(running.world, about.destination)
    opened = partial(open_session, running.world, dsn, f"{running.id} proof", running.tell, statement_timeout="0")
    if about.old is not None:
        with _target(running) as conn:
            return Proved(compared=_counted(conn, about.old))
    with _target(running):
        manifest = manifest_of(running.world.repository, about.source)
    return Proved(
        compared=compare_with(
            opened, manifest.inventory, tables=about.tables, sequences=about.what.sequences,
            left_out=running.result(RESTORE).left_out, jobs=about.jobs, lock_wait=policy.lock_wait, tell=running.tell,
        )
    )  # fmt: skip


def _counted(conn: Connection, old: LegacyFacts) -> Comparison:
    found = Arrived(conn, old)
    return Comparison(
        rows=found.rows, tables=len(old.tables), sequences=len(old.sequences), lost=tuple(found.differences)
    )


def _label(running: Running[World, RestorePlan]) -> Labelled:
    about = running.plan.about
    if not about.destination.missing:
        return Labelled(text=None)
    text = _final_label(running)
    with _target(running) as conn:
        label(conn, text)
    return Labelled(text=text)


def _final_label(running: Running[World, RestorePlan]) -> str:
    verdict, left_open = judged(running.plan, running.result(RESTORE), running.result(PROVE).compared)
    told = f"{verdict.upper()}, {len(left_open)} things left open" if left_open else verdict.upper()
    return f"restored from {running.plan.about.source.key} by bloom-dr run {running.id}: {told}"


def _is_labelled(running: Running[World, RestorePlan]) -> Labelled | None:
    if not running.plan.about.destination.missing:
        return Labelled(text=None)
    with _target(running) as conn:
        text = labelled(conn)
    return Labelled(text=text) if text == _final_label(running) else None


THAW: Step[World, RestorePlan, Warm] = Step(
    name="thaw",
    effect=Effect.CREATES,
    why="files in Glacier are asked for once each; with a consent of its own, and then the run ends here",
    by_hand="aws s3api restore-object for each object below the backup's prefix",
    deadline=timedelta(hours=1),
    result=Warm,
    run=_thaw,
)
MAKE: Step[World, RestorePlan, Made] = Step(
    name="make-database",
    effect=Effect.CREATES,
    why="only for neon/NAME, and only if it is not there: a new place has nothing that could be overwritten",
    by_hand="make an empty database in the Neon console",
    deadline=timedelta(minutes=15),
    result=Made,
    run=_make,
    done=_is_made,
)
RESTORE: Step[World, RestorePlan, Restored] = Step(
    name="restore",
    effect=Effect.CREATES,
    why="files are fetched, decrypted and compared before the first statement, and removed again in every outcome",
    by_hand="decrypt the files with age or gpg, then pg_restore --no-owner --no-privileges -d TARGET FOLDER",
    deadline=timedelta(days=8),
    result=Restored,
    run=_restore,
    done=_is_restored,
    repeatable=False,
)
PROVE: Step[World, RestorePlan, Proved] = Step(
    name="prove",
    effect=Effect.READS,
    why="each row, sequence and large object is compared with what the dump's own snapshot held",
    by_hand="count the rows of each table and compare them with the manifest",
    deadline=timedelta(days=2),
    result=Proved,
    run=_prove,
)
LABEL: Step[World, RestorePlan, Labelled] = Step(
    name="label",
    effect=Effect.CREATES,
    why="until here a database that this run made says of itself that it is not to be used; now it says what it is",
    by_hand="COMMENT ON DATABASE, or nothing: no row depends on it",
    deadline=timedelta(minutes=10),
    result=Labelled,
    run=_label,
    done=_is_labelled,
)


# --- ending ---------------------------------------------------------------------------------------------------------


def judged(plan: RestorePlan, restored: Restored, compared: Comparison) -> tuple[Verdict, tuple[str, ...]]:
    """What it came to, and all that is open. Pure."""
    wrong = [
        *(f"not as backed up: {each}" for each in compared.lost),
        *(f"does not hold: {e}" for e in compared.broken),
    ]
    unknown = [
        *(f"could not be compared: {each}" for each in compared.uncompared),
        *(f"could not be checked: {each}" for each in compared.not_checked),
        *restored.unproved,
    ]
    missing = [
        *(f"was not restored: {each}" for each in _all_left_out(plan, restored)),
        *(f"follows from that: {each}" for each in compared.foretold),
        *(f"was passed over, as the policy tolerates: {e.text}" for e in restored.complaints if e.kind == "tolerated"),
        *(
            f"run this where the privilege is wanted: {' '.join(each.split())}"
            for each in _wanted_grants(restored.grants)
        ),
    ]
    verdict = Verdict.PROVED
    if missing:
        verdict = Verdict.INCOMPLETE
    if unknown:
        verdict = Verdict.COULD_NOT_VERIFY
    if wrong:
        verdict = Verdict.FAILED
    return verdict, (*wrong, *unknown, *missing)


def _all_left_out(plan: RestorePlan, restored: Restored) -> tuple[LeftOut, ...]:
    """What was told before is told again, even if the restore itself forgot."""
    return tuple(dict.fromkeys((*plan.about.what.left_out, *restored.left_out)))


_PROVIDERS = re.compile(r"\b(cloud_admin|neon_superuser|neon_service|rdsadmin|rds_superuser|doadmin|azuresu)\b")


def _wanted_grants(grants: tuple[str, ...]) -> tuple[str, ...]:
    """Without those to and by the roles of a provider, which every one of its databases carries and no other has."""
    return tuple(each for each in grants if not _PROVIDERS.search(each))


def ending(plan: RestorePlan, results: Mapping[str, Record]) -> Ending:
    """PROVED only if the inventories are equal and nothing of the backup was left out."""
    restored, proved = results[RESTORE.name], results[PROVE.name]
    assert isinstance(restored, Restored)
    assert isinstance(proved, Proved)
    about, compared = plan.about, proved.compared
    verdict, left_open = judged(plan, restored, compared)
    noise = len(restored.grants) - len(_wanted_grants(restored.grants))
    return Ending(
        verdict=verdict,
        summary=f"{compared.rows:,} rows of {compared.tables:,} tables are in {about.destination}"
        + (
            f", as they were {_state(about)}"
            if verdict is not Verdict.FAILED
            else ", and they are NOT what was backed up"
        ),
        facts=(
            ("backup", about.source.key),
            ("not in it", f"everything written in the {_age(about)} before this restore was planned"),
            ("fetched in", f"{restored.fetch_seconds:,.1f} s"),
            ("restored in", f"{restored.restore_seconds:,.1f} s"),
            *(("harmless", f"{e.text} ({e.reason})") for e in restored.complaints if e.kind == "harmless"),
            *(("warning", e.text) for e in restored.complaints if e.kind == "warning"),
            *(("left out on purpose", each) for each in restored.skipped),
            *((("provider's own privileges", f"{noise} statements left out"),) if noise else ()),
            *(("other surroundings", each) for each in compared.surroundings),
            *(("odd, as at the source", each) for each in compared.inherited),
        ),
        left_open=left_open,
    )


RUNBOOK: Runbook[World, Request, Prospect, RestorePlan] = Runbook(
    name="backup.restore",
    symptom="the data is needed in another database: Neon is lost, or something older than its history is wanted",
    may_be_lost="nothing is overwritten; what was written after the backup is not in it",
    takes="about a minute for each GB; hours more if the backup is in Glacier",
    request=Request,
    survey_type=Prospect,
    plan_type=RestorePlan,
    survey=survey,
    plan=plan,
    steps=(THAW, MAKE, RESTORE, PROVE, LABEL),
    ending=ending,
    guard=_locked,
    page="restore-backup",
)


def _split(text: str) -> tuple[str, ...]:
    """Comma-separated names; a comma inside double quotes belongs to the name."""
    return tuple(part.strip() for part in re.findall(r'(?:"[^"]*"|[^,"])+', text) if part.strip())
