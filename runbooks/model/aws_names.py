"""What things are called at AWS. Who provisions them and who uses them both read the names here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Identity(StrEnum):
    """Who may do what with the backups. No one of them may do everything."""

    WRITER = "writer"
    """Takes backups: puts and lists; opens nothing, deletes nothing."""
    VERIFIER = "verifier"
    """Reads and decrypts, and stores proofs."""
    PRUNER = "pruner"
    """Deletes what is not locked; a person, with a second factor."""
    RESTORER = "restorer"
    """Reads, decrypts and thaws; a person, with a second factor."""
    DRILL = "drill"
    """Leaves reports of drills below a prefix of its own."""
    AUDITOR = "auditor"
    """Reads the audit log; a person."""


REPLICATION = "everything"
"""The rule that copies the archive to its replica."""


@dataclass(frozen=True)
class AwsNames:
    """The names of one stack's things. They say whose they are: several stacks may share an account."""

    stack: str
    secret_suffix: str = ""
    """For a day when the names of deleted secrets are still taken, as they are for weeks (C28)."""

    @property
    def prefix(self) -> str:
        return f"bloom-dr-{self.stack}"

    def role(self, identity: Identity) -> str:
        return f"{self.prefix}-{identity}"

    def service_role(self, of: str) -> str:
        """What an AWS service becomes for us: `scheduler` starts tasks, `execution` prepares their containers."""
        return f"{self.prefix}-{of}"

    @property
    def boundary(self) -> str:
        """The policy that no role of the stack can go beyond, whatever is attached to it."""
        return f"{self.prefix}-boundary"

    def bucket(self, archive: str, of: str) -> str:
        """Beside the bucket `archive`: that of its `logs`, its `replica`, or the `audit`."""
        return f"{archive}-{of}"

    def key_alias(self, of: str) -> str:
        """Of the customer key of `archive`, `alerts`, `audit`, or of an environment's secrets (`NAME-database`)."""
        return f"alias/{self.prefix}-{of}"

    def topic(self, severity: str) -> str:
        """`severity` is a field of `policy_stack.Alerts`."""
        return f"{self.prefix}-{severity}"

    def chat(self, channel: str) -> str:
        """What AWS Chatbot calls its way into the Slack channel with this id."""
        return f"{self.prefix}-{channel}"

    def secret(self, environment: str, of: str) -> str:
        """`of` is `database-url` (rotated), `database-admin` (for the rotation), `neon-api-key` or `backup-key`."""
        return f"bloom-dr/{environment}/{of}{'-' if self.secret_suffix else ''}{self.secret_suffix}"

    def rotation_function(self, environment: str) -> str:
        """Its role is called the same."""
        return f"{self.prefix}-{environment}-rotation"

    def rotation_log_group(self, environment: str) -> str:
        """Lambda takes no other."""
        return f"/aws/lambda/{self.rotation_function(environment)}"

    @property
    def trail(self) -> str:
        return f"{self.prefix}-trail"

    @property
    def trail_log_group(self) -> str:
        return f"/bloom-dr/{self.stack}/trail"

    @property
    def task_log_group(self) -> str:
        return f"/bloom-dr/{self.stack}/tasks"

    @property
    def cluster(self) -> str:
        return self.prefix

    @property
    def job_queue(self) -> str:
        return f"{self.prefix}-fleet"

    def job_definition(self, job: str) -> str:
        """For a fleet, and the ECS task's family for one database. `job` is a `fleet.Job`."""
        return f"{self.prefix}-{job}"

    @property
    def schedule_group(self) -> str:
        return self.prefix

    @property
    def stopped_rule(self) -> str:
        """Of EventBridge: tasks and jobs that ended badly become dead letters."""
        return f"{self.prefix}-stopped"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}-dead-letters"

    @property
    def dashboard(self) -> str:
        return self.prefix

    def alarm(self, what: str, environment: str | None = None, tier: str | None = None) -> str:
        """For example BackupFailed. Of one environment and tier, or of the whole stack."""
        return "-".join(part for part in (self.prefix, environment, tier, what) if part)
