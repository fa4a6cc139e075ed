"""Neon's: a project, as `pulumi-neon` would make it, and the posture of one, which is only written down.

What the posture really does is tested against the sandbox's Neon, and by the engine's tests.
"""

from __future__ import annotations

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind

MADE = "made-lake-12345678"
PASSWORD = "planted-pw-5512"


def _create_project(_cloud: Cloud, _inputs: Properties) -> tuple[str, Properties]:
    uri = f"postgresql://neondb_owner:{PASSWORD}@ep-x.example/neondb"
    return MADE, {
        "identifier": MADE, "connection_uri": uri, "connection_uri_pooler": uri, "default_role_password": PASSWORD,
    }  # fmt: skip


def _adopt(_cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    return inputs["project"], {"branch_id": inputs.get("branch") or "br-default-000001"}


kind("neon:resource:Project", create=_create_project)
kind("pulumi-python:dynamic/neon:Posture", create=_adopt, replaced_by=frozenset({"project"}))
