"""What a stack is told: its section of the policy, and what only Pulumi's configuration can hold. Checked before any
resource is declared, so that nothing is half provisioned because of a typing mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pulumi

from runbooks.model.aws_names import AwsNames
from runbooks.model.errors import PolicyFault
from runbooks.model.nearest import did_you_mean
from runbooks.model.policy import Environment, Policy
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.policy_stack import PagerDuty, StackPolicy

HERE = Path(__file__).resolve().parent
_IMAGE = re.compile(r"[a-z0-9][\w./:-]*@sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """One stack, whole and checked."""

    stack: str
    policy: Policy
    section: StackPolicy
    """[stacks.NAME] of the policy."""
    backup: BackupPolicy
    """With this stack's bucket."""
    environments: Mapping[str, Environment]
    """Those of this stack, in its order."""
    names: AwsNames
    pagerduty_url: pulumi.Output[str] | None
    """A secret; there if one of the receivers is PagerDuty."""
    image: str | None
    """What the tasks run, by its digest; there if the stack runs them itself."""
    github_provider: str | None
    """The account's identity provider for GitHub, if another stack has made it: an account can have only one."""
    rotates: bool
    """Whether DATABASE_URL has a value yet, so that its password can take turns."""

    @property
    def is_sandbox(self) -> bool:
        """Throw-away: nothing is protected, and names are free again at once."""
        return all(environment.sandbox for environment in self.environments.values())

    @classmethod
    def read(cls, config: pulumi.Config, stack: str) -> Settings:
        """From the policy (config `policy`: its path from the project's folder) and Pulumi's configuration.

        PolicyFault names the field that is wrong or missing.
        """
        path = HERE.parent / (config.get("policy") or "policy.toml")
        policy = Policy.load(path)
        section = _section(policy, stack)
        backup = policy.backup_of(section.environments[0])
        assert backup is not None  # the policy has no stacks without it
        receivers = (section.alerts.page, section.alerts.mail, section.alerts.chat)
        return cls(
            stack=stack,
            policy=policy,
            section=section,
            backup=backup,
            environments={name: policy.environments[name] for name in section.environments},
            names=AwsNames(stack, secret_suffix=_suffix(config)),
            pagerduty_url=_pagerduty(config) if any(isinstance(each, PagerDuty) for each in receivers) else None,
            image=_image(config) if section.runner == "fargate" else None,
            github_provider=_github(config),
            rotates=_flag(config, "rotate"),
        )


def _section(policy: Policy, stack: str) -> StackPolicy:
    if stack in policy.stacks:
        return policy.stacks[stack]
    known = list(policy.stacks)
    raise _fault(
        f"the policy has no section [stacks.{stack}]{did_you_mean(stack, known)}",
        f"choose one of: pulumi stack select {', '.join(known)}"
        if known
        else "write one, as the policy.toml here shows",
    )


def _pagerduty(config: pulumi.Config) -> pulumi.Output[str]:
    url = config.get("pagerdutyUrl")
    if url is None or not re.fullmatch(r"https://[\w.-]+/\S+", url, re.ASCII):
        what = "is not set" if url is None else "is not an https URL"
        raise _fault(
            f"an alarm of this stack goes to PagerDuty, and the configuration bloom-dr:pagerdutyUrl {what}",
            "pulumi config set --secret pagerdutyUrl with the URL of the Amazon CloudWatch integration",
        )
    found = config.require_secret("pagerdutyUrl")
    assert isinstance(found, pulumi.Output)
    return found


def _image(config: pulumi.Config) -> str:
    image = config.get("image")
    if image is None:
        raise _fault(
            "the stack takes its backups in Fargate, and the configuration bloom-dr:image is not set",
            'pulumi config set image REPOSITORY@sha256:... (see docs/adopt.md), or runner = "elsewhere" in the policy',
        )
    if not _IMAGE.fullmatch(image):
        raise _fault(
            "the configuration bloom-dr:image does not end with a digest (@sha256: and 64 hexadecimal digits)",
            "take the digest that docker push printed: a tag can be moved to another image",
        )
    return image


def _github(config: pulumi.Config) -> str | None:
    arn = config.get("githubProvider")
    if arn is None or re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:oidc-provider/[\w./-]+", arn, re.ASCII):
        return arn
    raise _fault(
        "the configuration bloom-dr:githubProvider is not the ARN of an OpenID Connect provider",
        "aws iam list-open-id-connect-providers shows it",
    )


def _suffix(config: pulumi.Config) -> str:
    """For the names of secrets, where those without one still wait for their deletion (C28)."""
    text = config.get("secretSuffix") or ""
    if not re.fullmatch(r"[a-z0-9]{0,12}", text, re.ASCII):
        raise _fault(
            "the configuration bloom-dr:secretSuffix is not up to 12 lower-case letters and digits",
            "pulumi config set secretSuffix 2",
        )
    return text


def _flag(config: pulumi.Config, key: str) -> bool:
    text = config.get(key) or "false"
    if text not in ("true", "false"):
        raise _fault(f"the configuration bloom-dr:{key} is neither true nor false", f"pulumi config set {key} true")
    return text == "true"


def _fault(happened: str, next_step: str) -> PolicyFault:
    return PolicyFault(happened, safe="nothing was declared, and no cloud was called", next_step=next_step)
