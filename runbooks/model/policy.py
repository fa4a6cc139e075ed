"""The recovery policy: what policy.toml says, checked once at the door and frozen. policy.toml explains each key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from runbooks.model import policy_file
from runbooks.model.dsn import is_this_machine
from runbooks.model.duration import Duration, between
from runbooks.model.errors import PolicyFault, UsageFault
from runbooks.model.nearest import did_you_mean
from runbooks.model.objectives import Objective
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.policy_stack import StackPolicy
from runbooks.model.policy_targets import TargetPolicy
from runbooks.model.section import Section
from runbooks.model.zones import zone


def _matching(pattern: str, what: str) -> AfterValidator:
    form = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if not form.fullmatch(text):
            raise ValueError(f"is not {what}")
        return text

    return AfterValidator(check)


def _line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("is not a line of text")
    return text


def _zone_name(text: str) -> str:
    zone(text)
    return text


def _api_url(text: str) -> str:
    """Without a user, query or slash at the end; encrypted, unless it stays on this machine."""
    found = re.fullmatch(
        r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?((?:/[\w.~-]+)*)/?", text, re.ASCII
    )
    if found is None:
        raise ValueError("is not a URL such as https://console.neon.tech/api/v2")
    if found[1] == "http" and not is_this_machine(found[2].strip("[]")):
        raise ValueError("has to start with https://, or the API key would cross the network unencrypted")
    return text.removesuffix("/")


def _variable_name(text: str) -> str:
    if text.startswith("napi_"):
        raise ValueError("is an API key; put the key into an environment variable, its name here, and revoke this key")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text, re.ASCII):
        raise ValueError("is not the name of an environment variable")
    return text


Words = Annotated[str, AfterValidator(_line)]
Window = Annotated[Duration, between("1h", "30d", "Neon keeps no more than 30 days of history, on its Scale plan")]


class SandboxEnvironment(Section):
    """The local stand-in: where it is and how to log in is known once it runs."""

    meaningless: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("project", "api", "branch", "api_key_env"), "has no meaning beside sandbox = true"
    )

    sandbox: Literal[True]
    database: Words = "neondb"
    role: Words = "neondb_owner"
    promised_window: Window = timedelta(days=1)


class NeonEnvironment(Section):
    """A project at Neon."""

    sandbox: Literal[False] = False
    project: Annotated[str, _matching(r"[a-z0-9-]{1,60}", "a Neon project id such as quiet-lake-12345678")]
    api: Annotated[str, AfterValidator(_api_url)] = "https://console.neon.tech/api/v2"
    branch: Annotated[str, _matching(r"br-[a-z0-9-]{1,57}", "a branch id (they start with br-)")] | None = None
    """None: the project's default branch."""
    database: Words
    role: Words
    api_key_env: Annotated[str, AfterValidator(_variable_name)] = "NEON_API_KEY"
    promised_window: Window
    """What the team was promised, not what Neon has: that is read from the project."""

    def api_key(self, environ: Mapping[str, str]) -> str:
        """The Neon API key from the variable `api_key_env`. PolicyFault if that is unset or cannot be a key."""
        key = environ.get(self.api_key_env, "")
        if re.fullmatch(r"[!-~]+", key):
            return key
        raise PolicyFault(
            f"the environment variable {self.api_key_env}, which the policy names for the Neon API key, "
            + ("holds a space, line break or other character that no key has" if key else "is not set"),
            safe="nothing was started",
            next_step=f"export {self.api_key_env} with a project-scoped key from the Neon console, or use the sandbox",
        )


def _kind(table: Any) -> str:
    sandbox = table.get("sandbox") if isinstance(table, dict) else getattr(table, "sandbox", False)
    return "sandbox" if sandbox is True else "neon"


Environment = SandboxEnvironment | NeonEnvironment
_TaggedEnvironment = Annotated[
    Annotated[SandboxEnvironment, Tag("sandbox")] | Annotated[NeonEnvironment, Tag("neon")], Discriminator(_kind)
]
_Name = Annotated[str, _matching(r"[a-z][a-z0-9-]{0,30}", "a name of lower-case letters, digits and hyphens")]


class Objectives(Section):
    """What each disaster may cost. The defaults are the strategy's."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))

    accidental_delete: Objective = Objective(rto=timedelta(minutes=30), rpo=timedelta(minutes=5))
    corruption: Objective = Objective(rto=timedelta(hours=2), rpo=timedelta(hours=24))
    provider_loss: Objective = Objective(rto=timedelta(hours=4), rpo=timedelta(hours=24))


_LOCK = between("1s", "5m", "a shorter wait never gets a lock, a longer one holds up everybody behind it")
_STATEMENT = between("1s", "1d", "a recovery has to end")
_CONNECT = between("30s", "10m", "a sleeping Neon compute may need half a minute to wake")


class Recovery(Section):
    """How long a recovery waits, and how long its branch lives."""

    branch_lifetime: Annotated[Duration, between("1h", "30d", "Neon takes no expiry beyond 30 days")] = timedelta(
        hours=12
    )
    lock_timeout: Annotated[Duration, _LOCK] = timedelta(seconds=5)
    statement_timeout: Annotated[Duration, _STATEMENT] = timedelta(minutes=10)
    connect_wait: Annotated[Duration, _CONNECT] = timedelta(seconds=30)


class Contact(Section):
    name: Words
    how: Words
    role: Words


class Policy(Section):
    """The whole file. Frozen; made by `load`."""

    default_environment: str
    local_timezone: Annotated[str, AfterValidator(_zone_name)]
    environments: Mapping[_Name, _TaggedEnvironment]
    objectives: Objectives = Objectives()
    recovery: Recovery = Recovery()
    backup: BackupPolicy | None = None
    """None: this team takes no backups with this program."""
    targets: Mapping[_Name, TargetPolicy] = {}
    """Where backups may be restored to, beside the environments' own Neon branches."""
    stacks: Mapping[_Name, StackPolicy] = {}
    """What Pulumi provisions."""
    contacts: Annotated[tuple[Contact, ...], Field(strict=False)] = ()
    """In the order in which they are called."""

    @model_validator(mode="after")
    def _default_exists(self) -> Policy:
        if self.default_environment not in self.environments:
            raise ValueError(f"default_environment: {self._no_such_environment(self.default_environment)}")
        return self

    @model_validator(mode="after")
    def _stacks_stand_apart(self) -> Policy:
        home: dict[str, str] = {}
        buckets: dict[str, str] = {}
        for name, stack in self.stacks.items():
            for environment in stack.environments:
                if environment not in self.environments:
                    raise ValueError(f"stacks.{name}.environments: {self._no_such_environment(environment)}")
                if (other := home.setdefault(environment, name)) != name:
                    raise ValueError(f"stacks.{name}.environments: {environment!r} is in the stack {other!r} already")
            if self.backup is None:
                raise ValueError(f"stacks.{name}: a stack needs a section [backup]")
            bucket = stack.bucket or self.backup.bucket
            if (other := buckets.setdefault(bucket, name)) != name:
                raise ValueError(
                    f"stacks.{name}.bucket: is the bucket of the stack {other!r} too; give it one of its own"
                )
        return self

    def stack_of(self, environment: str) -> str | None:
        """The name of the stack that provisions for an environment; None: no stack does."""
        return next((name for name, stack in self.stacks.items() if environment in stack.environments), None)

    def backup_of(self, environment: str) -> BackupPolicy | None:
        """[backup], with the bucket of the environment's stack. None: this team takes no backups with this program."""
        stack = self.stack_of(environment)
        if self.backup is None or stack is None or (bucket := self.stacks[stack].bucket) is None:
            return self.backup
        return self.backup.model_copy(update={"bucket": bucket})

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read and check a policy file. Every failure is one PolicyFault that names file, key and what is wrong."""
        content = policy_file.read(path)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise policy_file.fault(path, error) from None

    def environment(self, name: str) -> Environment:
        """The environment called `name`. UsageFault if the policy has none, with those it has."""
        if name not in self.environments:
            raise UsageFault(
                self._no_such_environment(name),
                safe="nothing was started",
                next_step=f"choose one of: {', '.join(self.environments)}",
            )
        return self.environments[name]

    def objective(self, scenario: str) -> Objective:
        """What may be lost in a scenario such as `accidental-delete`. UsageFault if there is no such scenario."""
        known = {field.alias or name: name for name, field in Objectives.model_fields.items()}
        if scenario not in known:
            raise UsageFault(
                f"the policy knows no scenario {scenario!r}{did_you_mean(scenario, known)}",
                safe="nothing was started",
                next_step=f"choose one of: {', '.join(known)}",
            )
        objective: Objective = getattr(self.objectives, known[scenario])
        return objective

    def _no_such_environment(self, name: str) -> str:
        known = list(self.environments)
        return f"the policy has no environment {name!r}, only {', '.join(known) or 'none'}{did_you_mean(name, known)}"
