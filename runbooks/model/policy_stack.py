"""The sections [stacks.NAME] of the policy: what `pulumi up --stack NAME` provisions, and for whom."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from runbooks.model.policy_backup import BUCKET
from runbooks.model.section import Section
from runbooks.model.texts import Words, matching, one_of

Region = Annotated[str, matching(r"[a-z]{2}(-[a-z]+)+-\d", "an AWS region such as us-east-1")]
Principal = Annotated[
    str,
    matching(
        r"arn:aws[a-z-]*:(iam|sts)::\d{12}:(user|role|assumed-role)/[\w+=,.@/-]{1,512}",
        "the ARN of a user or role (whole accounts and * would let in everybody of that account)",
    ),
]
Name = Annotated[str, matching(r"[a-z][a-z0-9-]{0,30}", "a name of lower-case letters, digits and hyphens")]


class PagerDuty(Section):
    """Its integration URL is a secret: `pulumi config set --secret pagerdutyUrl`."""

    kind: Literal["pagerduty"]


class Email(Section):
    """One mailbox. AWS sends it a link that somebody has to click before the first alarm can arrive."""

    kind: Literal["email"]
    address: Annotated[str, matching(r"[^@\s,<>]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", "an e-mail address")]


class Slack(Section):
    """A channel, through AWS Chatbot; the workspace is authorised there once, by hand."""

    kind: Literal["slack"]
    workspace: Annotated[str, matching(r"T[A-Z0-9]{8,12}", "the id of a Slack workspace (T and capital letters)")]
    channel: Annotated[str, matching(r"[CG][A-Z0-9]{8,12}", "the id of a Slack channel (C and capital letters)")]


_KINDS = ("pagerduty", "email", "slack")


def _kind(table: Any) -> Any:
    kind = table.get("kind") if isinstance(table, dict) else getattr(table, "kind", None)
    return kind if kind in _KINDS else "email"


Receiver = Annotated[
    Annotated[PagerDuty, Tag("pagerduty")] | Annotated[Email, Tag("email")] | Annotated[Slack, Tag("slack")],
    Discriminator(_kind),
]


class Alerts(Section):
    """Who is told. Each of the three has to reach somebody: an alarm that nobody hears is none (C31)."""

    page: Receiver
    """Somebody has to act now: no verified backup, a trail stopped, a delete attempted."""
    mail: Receiver
    """Somebody has to look today: sizes, proofs and drills that are overdue."""
    chat: Receiver
    """Somebody has to know: a sync that failed, a restorer at work."""


class Replica(Section):
    """A second copy of the bucket, in another region and, if wanted, in another account."""

    region: Region
    role: (
        Annotated[str, matching(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]{1,512}", "the ARN of a role")] | None
    ) = None
    """What Pulumi assumes to make the bucket in that account; None: the same account."""


class NewProject(Section):
    """A Neon project to be made. Without this section the environment's is adopted: never made, never deleted."""

    name: Words
    region: Annotated[str, matching(r"(aws|azure)-[a-z0-9-]+", "a region of Neon such as aws-us-east-1")]
    pg_version: Annotated[int, Field(ge=14, le=18)] = 17
    organization: (
        Annotated[str, matching(r"org-[a-z0-9-]{1,57}", "a Neon organization id (they start with org-)")] | None
    ) = None


def _one_or_more(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("is empty")
    if len(set(names)) < len(names):
        raise ValueError("names something twice")
    return names


class StackPolicy(Section):
    """One stack. Its bucket holds the backups of all its environments, each below a prefix of its own."""

    environments: Annotated[tuple[Name, ...], Field(strict=False), AfterValidator(_one_or_more)]
    """Of this policy. One: a Fargate task takes its backups; several: a Batch array job, with one child for each."""
    bucket: Annotated[str, matching(BUCKET, "the name of a bucket (without s3://)")] | None = None
    """None: the one of [backup]. Two stacks cannot have the same."""
    alerts: Alerts
    replica: Replica | None = None
    operators: Annotated[tuple[Principal, ...], Field(strict=False), AfterValidator(_one_or_more)]
    """Who may become restorer or pruner; and writer, as somebody has to take the backup before a migration."""
    auditors: Annotated[tuple[Principal, ...], Field(strict=False)] = ()
    """Who may read the audit log."""
    applications: Annotated[tuple[Principal, ...], Field(strict=False)] = ()
    """What may read DATABASE_URL: the roles that the application's services run as."""
    login: Annotated[Literal["mfa", "identity-center"], one_of("mfa", "identity-center")] = "mfa"
    """identity-center: AWS tells no role of the second factor there: it is asked for at its own door."""
    github: (
        Annotated[str, matching(r"[\w.-]{1,39}/[\w.-]{1,100}", "a GitHub repository such as bloom/bloom-dr")] | None
    ) = None
    """Whose Actions may take and verify backups, in the GitHub environment named as the stack; None: nobody's."""
    runner: Annotated[Literal["fargate", "elsewhere"], one_of("fargate", "elsewhere")] = "fargate"
    """elsewhere: what `invoke schedule.render` has written takes, judges and verifies them, and the stack watches."""
    writer_hosts: Annotated[tuple[Principal, ...], Field(strict=False)] = ()
    """Roles of machines elsewhere that take backups unattended."""
    verifier_hosts: Annotated[tuple[Principal, ...], Field(strict=False)] = ()
    """Roles of machines elsewhere that verify them. Other ones: who writes backups has nothing that opens them."""
    rotation_days: Annotated[int, Field(ge=1, le=365)] = 90
    heartbeat_hours: Annotated[int, Field(ge=25, le=36)] = 26
    """So long after the last verified backup the pager rings: more than a day, for late runs and 25-hour days."""
    unverified_days: Annotated[int, Field(ge=1, le=60)] = 8
    """So long may it be since a backup was last restored and compared."""
    drill_days: Annotated[int, Field(ge=7, le=400)] = 100
    """So long may it be since the last drill that passed."""
    logical_replication: bool = False
    """Once on, Neon cannot switch it off again."""
    snapshots: bool = True
    """Whether Neon takes a snapshot of the branch each night, beside the backups here."""
    new_project: NewProject | None = None
