"""When backups are taken, judged and restored for proof: EventBridge Scheduler starts a task of Fargate, or for several
databases an array job of AWS Batch. What could not be started, or ended badly, is a dead letter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.fargate import ROLES, Runner, Work, allow, tasks
from infra.fleet import jobs
from infra.keys import Statement, document
from infra.network import Network, NetworkArgs
from infra.timetable import check
from runbooks.model.aws_names import AwsNames, Identity
from runbooks.model.container import KEY_TEXT
from runbooks.model.fleet import FEWEST, Job
from runbooks.model.policy import Environment
from runbooks.model.policy_backup import BackupPolicy
from runbooks.model.timetable import planned

LOG_DAYS = 365
"""One of those that CloudWatch knows."""
LETTER_DAYS = 14
RETRY = aws.scheduler.ScheduleTargetRetryPolicyArgs(maximum_retry_attempts=12, maximum_event_age_in_seconds=3600)
"""For a start that AWS refuses. Within the hour that the pager leaves beyond a day."""
_ECR = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/([^@:]+)@")


@dataclass(frozen=True)
class ScheduleArgs:
    names: AwsNames
    environments: Mapping[str, Environment]
    """Those of the stack, in its order."""
    backup: BackupPolicy
    image: str
    """By its digest."""
    roles: Mapping[Identity, aws.iam.Role]
    boundary_arn: pulumi.Input[str]
    neon_keys: Mapping[str, pulumi.Input[str]]
    """Environment to the ARN of the secret with its Neon API key. Those of sandboxes are not looked at."""
    backup_key: pulumi.Input[str]
    """ARN of the secret with a private key that opens the backups: for the verifier."""
    secret_key_arns: Sequence[pulumi.Input[str]]
    """Of the KMS keys that these secrets are encrypted with."""
    account: str
    region: str
    zones: Sequence[str]
    """Two availability zones or more."""
    protect: bool


class Schedule(pulumi.ComponentResource):
    """Network, tasks or jobs, logs, schedules and their dead letters."""

    dead_letters_arn: pulumi.Output[str]
    log_group_name: pulumi.Output[str]

    def __init__(self, name: str, args: ScheduleArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """PolicyFault before anything is declared: see `timetable.check`."""
        check(args.environments, args.backup)
        super().__init__("bloom-dr:infra:Schedule", name, None, opts)
        self._name, self._args = name, args
        self._kept = pulumi.ResourceOptions(parent=self, protect=args.protect, retain_on_delete=args.protect)
        # What starts something by itself. Not retained, or what the policy dropped would go on for ever.
        self._ticking = pulumi.ResourceOptions(parent=self, protect=args.protect)
        logs = aws.cloudwatch.LogGroup(
            "tasks", name=args.names.task_log_group, retention_in_days=LOG_DAYS, opts=self._kept
        )
        self._letters = aws.sqs.Queue(
            "dead-letters",
            name=args.names.dead_letters,
            sqs_managed_sse_enabled=True,
            message_retention_seconds=LETTER_DAYS * 24 * 3600,
            opts=self._kept,
        )
        runner = self._runner(self._works(logs))
        self._schedules(runner, self._starter(runner))
        self._tell_of(runner.failures)
        self.dead_letters_arn, self.log_group_name = self._letters.arn, logs.name
        self.register_outputs({"dead_letters_arn": self._letters.arn, "log_group_name": logs.name})

    # What runs, and as whom

    def _runner(self, works: Mapping[Job, Work]) -> Runner:
        name, args, environments = self._name, self._args, tuple(self._args.environments)
        network = Network(
            name,
            NetworkArgs(args.names.prefix, args.region, args.zones, args.protect),
            pulumi.ResourceOptions(parent=self),
        )
        # A new image replaces definitions, and a second database the cluster: these cannot be protected. But nothing of
        # them is deleted at AWS either, so that a destroy by mistake stops no backup.
        opts = pulumi.ResourceOptions(parent=self, retain_on_delete=args.protect)
        if len(environments) < FEWEST:
            return tasks(name, args.names, environments[0], works, network, opts)
        return jobs(name, args.names, environments, works, network, args.backup, opts)

    def _works(self, logs: aws.cloudwatch.LogGroup) -> dict[Job, Work]:
        args, execution = self._args, self._executing(logs)
        return {
            job: Work(
                job=job,
                names=args.names,
                image=args.image,
                region=args.region,
                task_role_arn=args.roles[ROLES[job]].arn,
                execution_role_arn=execution.arn,
                log_group=logs.name,
                secrets=secrets,
                command=("backup.list", "--env", next(iter(args.environments))),
            )
            for job, secrets in self._secrets().items()
        }

    def _secrets(self) -> dict[Job, dict[str, pulumi.Input[str]]]:
        """Nobody has both: who opens backups gets into no database, and the other way round.

        Environments that name the same variable share a key: the first one's.
        """
        args = self._args
        keys: dict[str, pulumi.Input[str]] = {}
        for name, environment in args.environments.items():
            if not environment.sandbox:
                keys.setdefault(environment.api_key_env, args.neon_keys[name])
        return {Job.TAKE: keys, Job.JUDGE: keys, Job.VERIFY: {KEY_TEXT: args.backup_key}}

    def _executing(self, logs: aws.cloudwatch.LogGroup) -> aws.iam.Role:
        """Prepares the containers: fetches image and secrets, and opens their logs."""
        args = self._args
        held = self._secrets()
        secrets = [*held[Job.TAKE].values(), *held[Job.VERIFY].values()]
        through = {"StringEquals": {"kms:ViaService": f"secretsmanager.{args.region}.amazonaws.com"}}
        rights = [
            allow(["logs:CreateLogStream", "logs:PutLogEvents"], [pulumi.Output.concat(logs.arn, ":*")]),
            allow(["secretsmanager:GetSecretValue"], secrets),
            allow(["kms:Decrypt"], args.secret_key_arns, through),
            *_pull(args.image),
        ]
        only = {"StringEquals": {"aws:SourceAccount": args.account}}
        return self._role("execution", "ecs-tasks.amazonaws.com", only, rights)

    def _starter(self, runner: Runner) -> aws.iam.Role:
        """What Scheduler becomes: for the schedules of this stack's group only."""
        args = self._args
        group = f"arn:aws:scheduler:{args.region}:{args.account}:schedule-group/{args.names.schedule_group}"
        only = {"StringEquals": {"aws:SourceAccount": args.account, "aws:SourceArn": group}}
        rights = [*runner.rights, allow(["sqs:SendMessage"], [self._letters.arn])]
        return self._role("scheduler", "scheduler.amazonaws.com", only, rights)

    def _role(self, of: str, service: str, only: Mapping[str, Any], rights: Sequence[Statement]) -> aws.iam.Role:
        trust: Statement = {
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": "sts:AssumeRole",
            "Condition": only,
        }
        role = aws.iam.Role(
            of,
            name=self._args.names.service_role(of),
            assume_role_policy=document([trust]),
            permissions_boundary=self._args.boundary_arn,
            opts=self._kept,
        )
        aws.iam.RolePolicy(of, name=of, role=role.name, policy=document(rights), opts=self._kept)
        return role

    # When, and who hears of it

    def _schedules(self, runner: Runner, starter: aws.iam.Role) -> None:
        args = self._args
        group = aws.scheduler.ScheduleGroup(self._name, name=args.names.schedule_group, opts=self._kept)
        for routine, cron in planned(args.backup):
            call = runner.call(routine)
            aws.scheduler.Schedule(
                routine.name,
                name=routine.name,
                group_name=group.name,
                description=f"invoke {' '.join(routine.alone)}",
                schedule_expression=cron.aws(),
                schedule_expression_timezone="UTC",
                flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(mode="OFF"),
                state="ENABLED",
                target=aws.scheduler.ScheduleTargetArgs(
                    arn=call.arn,
                    role_arn=starter.arn,
                    input=pulumi.Output.json_dumps(call.input, sort_keys=True),
                    ecs_parameters=call.ecs,
                    retry_policy=RETRY,
                    dead_letter_config=aws.scheduler.ScheduleTargetDeadLetterConfigArgs(arn=self._letters.arn),
                ),
                opts=self._ticking,
            )

    def _tell_of(self, failures: Mapping[str, Any]) -> None:
        """They become dead letters too. The alarm on these belongs to the alarms."""
        rule = aws.cloudwatch.EventRule(
            "stopped",
            name=self._args.names.stopped_rule,
            description="A task or job of the backups ended badly",
            event_pattern=pulumi.Output.json_dumps(failures, sort_keys=True),
            opts=self._ticking,
        )
        deliver: Statement = {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": self._letters.arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": rule.arn}},
        }
        policy = aws.sqs.QueuePolicy(
            "dead-letters", queue_url=self._letters.url, policy=document([deliver]), opts=self._kept
        )
        opts = pulumi.ResourceOptions.merge(self._ticking, pulumi.ResourceOptions(depends_on=[policy]))
        aws.cloudwatch.EventTarget(
            "stopped", rule=rule.name, arn=self._letters.arn, target_id="dead-letters", opts=opts
        )


def _pull(image: str) -> list[Statement]:
    """From AWS's own registry; any other has to give the image to everybody."""
    found = _ECR.match(image)
    if found is None:
        return []
    account, region, repository = found.groups()
    verbs = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    return [
        allow(["ecr:GetAuthorizationToken"], ["*"]),
        allow(verbs, [f"arn:aws:ecr:{region}:{account}:repository/{repository}"]),
    ]
