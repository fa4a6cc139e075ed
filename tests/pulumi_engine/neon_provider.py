"""The engine's provider `neon` of the tests, in place of `pulumi-neon`: makes its projects in the sandbox.

It is as careless as that one is known to be (C26): every change is a replacement, and a delete deletes the project.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

from runbooks.clients.neon_account import NeonAccount
from runbooks.model.secret import Secret
from tests.pulumi_engine.provider import Provider, changes, difference, plain, serve, told, with_added

REGION, VERSION = "ENGINE_NEON_REGION", "ENGINE_NEON_VERSION"
"""Environment variables: where the provider would make its projects."""


class NeonProjects(Provider):
    def __init__(self, account: NeonAccount) -> None:
        self.account = account

    @told
    def Check(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    @told
    def Diff(self, request: Any, context: Any) -> Any:
        changed = changes(request.old_inputs, request.news)
        return difference(changed, changed)

    @told
    def Create(self, request: Any, context: Any) -> Any:
        project = self.account.create_project(
            name=plain(request.properties)["name"], region_id=os.environ[REGION], pg_version=int(os.environ[VERSION]),
            database="neondb", role="neondb_owner", history_retention=timedelta(days=1),
        )  # fmt: skip
        neon = self.account.open(project.id)
        branch = neon.default_branch()
        dsn = neon.connection(branch=branch, database="neondb", role="neondb_owner")
        password = neon.reveal_password(branch_id=branch.id, role="neondb_owner").reveal()
        uri = f"postgresql://{dsn.user}:{password}@{dsn.host}/neondb"
        made = {"identifier": project.id, "connection_uri": uri, "connection_uri_pooler": uri}
        outputs = with_added(request.properties, made | {"default_role_password": password})
        return provider_pb2.CreateResponse(id=project.id, properties=outputs)

    @told
    def Read(self, request: Any, context: Any) -> Any:
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    @told
    def Delete(self, request: Any, context: Any) -> Any:
        self.account.delete_project(request.id, name=plain(request.properties)["name"])
        return empty_pb2.Empty()


if __name__ == "__main__":
    key = Secret(os.environ["SANDBOX_NEON_API_KEY"])
    serve(NeonProjects(NeonAccount(api=os.environ["SANDBOX_NEON_API_URL"], key=key)))
