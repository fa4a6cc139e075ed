"""Whole Neon projects: bring a deleted one back, make a new one. Needs a key that may do so, not the project's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import quote

from runbooks.clients.neon import Neon
from runbooks.clients.neon_reader import the_time
from runbooks.clients.neon_request import GONE, Answer, Clock, Progress, Request, Sleep
from runbooks.clients.neon_settings import other_name
from runbooks.clients.neon_types import JsonObject, Operation, Project, RecoverableProject, read, read_all
from runbooks.model.dsn import Secret
from runbooks.model.errors import Refused

_KEPT = "a deleted project can be brought back for 7 days"
_OTHERS = "no existing project was changed"


class NeonAccount:
    """The projects of one account or organisation. Methods raise NotFound, LoginRefused, NeonFault."""

    def __init__(
        self,
        *,
        api: str,
        key: Secret,
        org_id: str | None = None,
        clock: Clock = the_time,
        sleep: Sleep = time.sleep,
        progress: Progress | None = None,
        patience: timedelta = timedelta(minutes=5),
    ) -> None:
        """`org_id` is needed with a personal key of somebody who belongs to several organisations."""
        from runbooks.clients.neon_http import Wire  # httpx loads slowly; a list of tasks does without

        self._wire = Wire(api=api, key=key, clock=clock, sleep=sleep, progress=progress, patience=patience)
        self._api, self._key, self._org_id = api, key, org_id
        self._clock, self._sleep, self._progress, self._patience = clock, sleep, progress, patience

    def __repr__(self) -> str:
        return f"NeonAccount({self._org_id or ''})"

    def open(self, project_id: str) -> Neon:
        """A client for one project, with this account's key."""
        return Neon(
            api=self._api,
            key=self._key,
            project_id=project_id,
            clock=self._clock,
            sleep=self._sleep,
            progress=self._progress,
            patience=self._patience,
        )

    def recoverable_projects(self) -> tuple[RecoverableProject, ...]:
        """Deleted projects that can still be brought back: Neon keeps them for 7 days."""
        pages = self._pages({"recoverable": "true"}, "listing the recoverable projects")
        return tuple(project for page in pages for project in read_all(RecoverableProject, page, "projects"))

    def recover_project(self, project_id: str) -> Project:
        """Bring a deleted project back: branches, computes, connection strings. One that lives is returned as it is."""
        found = self._find(project_id)
        if found is not None:
            return found
        change = Request("POST", f"{_path(project_id)}/recover", f"recovering project {project_id}", _KEPT)
        self._wire.once(change, lambda: self._find(project_id))
        return self.open(project_id).project()

    def create_project(
        self, *, name: str, region_id: str, pg_version: int, database: str, role: str, history_retention: timedelta
    ) -> Project:
        """A new project, ready to connect to. Repeating it returns the one of this name.

        Refused if several have the name, or the one that has it is of another region or version.
        """
        found = self._find_named(name)
        if found is None:
            project: JsonObject = {
                "name": name,
                "region_id": region_id,
                "pg_version": pg_version,
                "history_retention_seconds": int(history_retention.total_seconds()),
                "branch": {"database_name": database, "role_name": role},
                **({"org_id": self._org_id} if self._org_id else {}),
            }
            change = Request("POST", "projects", f"making project {name}", _OTHERS, body={"project": project})
            outcome = self._wire.once(change, lambda: self._find_named(name))
            found = read(Project, outcome.body, "project") if isinstance(outcome, Answer) else outcome
            self._finish(found.id, outcome)
        if (found.region_id, found.pg_version) != (region_id, pg_version):
            raise Refused(
                f"project {name} ({found.id}) exists, but in {found.region_id} with PostgreSQL {found.pg_version}",
                safe="nothing was changed",
                next_step="start a new run, which takes a new name",
            )
        return found

    def delete_project(self, project_id: str, *, name: str) -> None:
        """Delete the project that has this id and exactly this name; done already is done. Else WrongTarget.

        Neon keeps it recoverable for 7 days.
        """
        found = self._find(project_id)
        if found is None:
            return
        if found.name != name:
            raise other_name("project", project_id, found.name, name)
        self._wire.once(
            Request("DELETE", _path(project_id), f"deleting project {name}", _KEPT, accept=GONE),
            lambda: None if self._find(project_id) else True,
        )

    def _find(self, project_id: str) -> Project | None:
        answer = self._wire.get(_path(project_id), what=f"reading project {project_id}", accept=GONE)
        return None if answer.status in GONE else read(Project, answer.body, "project")

    def _find_named(self, name: str) -> Project | None:
        pages = self._pages({}, "listing the projects")
        found = [each for page in pages for each in read_all(RecoverableProject, page, "projects") if each.name == name]
        if len(found) > 1:
            raise Refused(
                f"{len(found)} projects are named {name}: {', '.join(each.id for each in found)}",
                safe="nothing was changed",
                next_step="rename or delete the wrong ones in the Neon Console, then run it again",
            )
        return self._find(found[0].id) if found else None

    def _finish(self, project_id: str, outcome: Answer | Project) -> None:
        """Wait for what making the project has set off, until its branch can be connected to."""
        project = self.open(project_id)
        if isinstance(outcome, Answer):
            project.wait(read_all(Operation, outcome.body, "operations"))
        else:
            project.wait(project.running_operations())
        project.ready(project.default_branch())

    def _pages(self, query: JsonObject, what: str) -> Iterator[JsonObject]:
        mine = {"org_id": self._org_id} if self._org_id else {}
        return self._wire.pages("projects", "projects", {"limit": 400, **mine, **query}, cursor="cursor", what=what)


def _path(project_id: str) -> str:
    return f"projects/{quote(project_id, safe='')}"
