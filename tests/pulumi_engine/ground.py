"""A copy of the project's Pulumi files, the real engine, moto and the sandbox's Neon: `pulumi` as one types it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runbooks.clients.neon import Neon
from runbooks.clients.neon_account import NeonAccount
from runbooks.model.sandbox_place import API, KEY, PROJECT
from runbooks.sandbox.aws import PORT
from runbooks.sandbox.stack import Stack
from tests.infra.cloud import Cloud
from tests.pulumi_engine.aws_provider import FAULT
from tests.pulumi_engine.neon_provider import REGION, VERSION

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMIT = 120
"""Seconds for one command."""
RECIPIENT = "age1" + "q" * 58
IMAGE = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/bloom-dr@sha256:{'ab' * 32}"


@dataclass(frozen=True)
class Ground:
    folder: Path
    """Of Pulumi.yaml. It is a copy, as Pulumi writes into the files beside it."""
    cli: Path
    environ: Mapping[str, str]
    cloud: Cloud
    account: NeonAccount
    neon: Neon
    """The project that the environments of all stacks have."""
    pg_version: int
    fault: Path
    """For `aws_provider.FAULT`."""

    @classmethod
    def make(cls, folder: Path, cli: Path, cloud: Cloud, neon: Stack) -> Ground:
        work, fault, home = folder / "project", folder / "fault", folder / "home"
        for each in (work, home, folder / "state"):
            each.mkdir()
        shutil.copy(ROOT / "Pulumi.yaml", work)
        for path in ROOT.glob("Pulumi.*.yaml"):
            told = path.read_text().replace(f"http://127.0.0.1:{PORT}", cloud.endpoint)
            (work / path.name).write_text(f"{told}  bloom-dr:policy: {work / 'policy.toml'}\n")
        (work / "policy.toml").write_text(_policy(neon))
        (work / "infra").symlink_to(ROOT / "infra")
        (work / ".venv").symlink_to(sys.prefix)
        account = NeonAccount(api=neon.api_url, key=neon.api_key)
        client = account.open(neon.project_id)
        version = client.project().pg_version
        environ = {
            "HOME": str(home),
            "PATH": os.pathsep.join([str(HERE / "plugins"), str(cli.parent), os.defpath]),
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "a test's",
            "PULUMI_HOME": str(home),
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
            "NO_COLOR": "1",
            "ENGINE_PYTHON": sys.executable,
            FAULT: str(fault),
            REGION: "aws-us-east-1",
            VERSION: str(version),
            "AWS_ENDPOINT_URL": cloud.endpoint,
            API: neon.api_url,
            PROJECT: neon.project_id,
            KEY: neon.api_key.reveal(),
            **{f"NEON_API_KEY{of}": neon.api_key.reveal() for of in ("", "_STAGING", "_DEVELOPMENT")},
        }
        return cls(work, cli, environ, cloud, account, client, version, fault)

    def pulumi(self, *words: str, fails: bool = False) -> str:
        """Run `pulumi WORDS`. What it says: all, or with --json its answer. Fails the test if it ends otherwise."""
        command = [str(self.cli), *words, "--non-interactive"]
        with subprocess.Popen(
            command, cwd=self.folder, env=dict(self.environ), text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as running:  # fmt: skip
            try:
                out, err = running.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)  # its plugins too
                out, err = running.communicate()
        assert (running.returncode > 0) == fails, f"{command} ended with {running.returncode}:\n{out}{err}"
        return out if "--json" in words else out + err

    def up(self, stack: str, *words: str, fails: bool = False) -> str:
        return self.pulumi("up", "--yes", "--skip-preview", "--stack", stack, *words, fails=fails)

    def preview(self, stack: str, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.pulumi("preview", "--json", "--stack", stack, *words))
        return found

    def changes(self, stack: str, *words: str) -> dict[tuple[str, str], str]:
        """Of `pulumi preview`."""
        return changes_of(self.preview(stack, *words))

    def state(self, stack: str) -> list[dict[str, Any]]:
        exported = json.loads(self.pulumi("stack", "export", "--stack", stack))
        found: list[dict[str, Any]] = exported["deployment"].get("resources", [])
        return found

    def guard(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`python -m infra.guard WORDS`, in the project's folder."""
        command = [sys.executable, "-m", "infra.guard", *words]
        environ = {**self.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True, timeout=LIMIT)

    @contextmanager
    def policy(self, old: str, new: str) -> Iterator[None]:
        """With another line in it, until the block ends."""
        path = self.folder / "policy.toml"
        text = path.read_text()
        assert text.count(old) == 1, f"{old} is {text.count(old)} times in the policy"
        path.write_text(text.replace(old, new))
        try:
            yield
        finally:
            path.write_text(text)


def changes_of(preview: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Type and name to operation, of all that a preview does not leave as it is."""
    found = {}
    for step in preview["steps"]:
        _, _, types, name = step["urn"].split("::")
        if step["op"] not in ("same", "refresh"):
            found[types.split("$")[-1], name] = step["op"]
    return found


def _policy(neon: Stack) -> str:
    """The repository's, with the projects of all environments in the sandbox."""
    where = f'project = "{neon.project_id}"\napi = "{neon.api_url}"'
    text, times = re.subn(r'^project = "example-.*"$', where, (ROOT / "policy.toml").read_text(), flags=re.MULTILINE)
    assert times == 3
    encryption, times = "# [backup.encryption]", text.count("# [backup.encryption]")
    assert times == 1
    return text.replace(encryption, f'[backup.encryption]\nmethod = "age"\nrecipients = ["{RECIPIENT}"]\n')
