"""One database: what is scheduled is what AWS stores, and when it fires a task runs with no more than it needs."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase

import pytest

from infra.boundary import limits
from infra.fargate import ROLES, SIZES
from infra.schedule import LOG_DAYS
from runbooks.model.aws_names import Identity
from runbooks.model.container import KEY_TEXT, SCRATCH
from runbooks.model.fleet import Job
from tests.infra.applying import Stack
from tests.infra.cloud import ACCOUNT, REGION, Cloud
from tests.infra.schedule_ground import (
    BOUNDARY,
    IMAGE,
    KEY,
    NAMES,
    SECRETS,
    TICKING,
    applied,
    fire,
    matches,
    neon,
    rights,
    schedules,
    task_definition,
)

PRODUCTION = {"production": neon("NEON_KEY_PRODUCTION")}
CLOUDWATCH_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288)
FARGATE_MEMORY = {1024: range(2048, 8193, 1024), 2048: range(4096, 16385, 1024)}
"""MB for each number of processor units, of those in use here."""


@pytest.fixture(scope="module")
def account(_account: Cloud) -> Cloud:
    """One for the whole file: its tests only look."""
    _account.reset()
    return _account


@pytest.fixture(scope="module")
def stack(account: Cloud) -> Stack:
    return applied(account, PRODUCTION)


# --- schedules --------------------------------------------------------------------------------------------------------


def test_the_policys_tiers_are_scheduled_in_utc_to_the_minute(account: Cloud, stack: Stack) -> None:
    found = schedules(account)
    assert {name: one["ScheduleExpression"] for name, one in found.items()} == {
        "take-daily": "cron(0 2 * * ? *)",
        "take-weekly": "cron(0 4 ? * 1 *)",
        "fresh": "cron(0 7 * * ? *)",
        "verify": "cron(0 9 ? * 1 *)",
    }
    for one in found.values():
        assert (one["ScheduleExpressionTimezone"], one["State"]) == ("UTC", "ENABLED")
        assert one["FlexibleTimeWindow"] == {"Mode": "OFF"}


def test_a_start_that_is_refused_is_tried_for_an_hour_and_then_a_dead_letter(account: Cloud, stack: Stack) -> None:
    letters = account.client("sqs").get_queue_url(QueueName=NAMES.dead_letters)["QueueUrl"]
    kept = account.client("sqs").get_queue_attributes(QueueUrl=letters, AttributeNames=["All"])["Attributes"]
    assert (kept["SqsManagedSseEnabled"], kept["MessageRetentionPeriod"]) == ("true", str(14 * 24 * 3600))
    assert stack.exported["deadLetters"] == kept["QueueArn"]
    for one in schedules(account).values():
        assert one["Target"]["DeadLetterConfig"] == {"Arn": kept["QueueArn"]}
        assert one["Target"]["RetryPolicy"] == {"MaximumRetryAttempts": 12, "MaximumEventAgeInSeconds": 3600}


COMMANDS = {
    "take-daily": (Job.TAKE, ["backup.take", "--tier", "daily", "--env", "production"]),
    "take-weekly": (Job.TAKE, ["backup.take", "--tier", "weekly", "--env", "production"]),
    "fresh": (Job.JUDGE, ["backup.fresh", "--env", "production"]),
    "verify": (Job.VERIFY, ["backup.verify", "--last", "7", "--env", "production"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_when_it_fires_a_task_of_the_right_kind_runs_the_command(account: Cloud, stack: Stack, name: str) -> None:
    job, command = COMMANDS[name]
    (task,) = fire(account, schedules(account)[name])["tasks"]
    assert task["taskDefinitionArn"] == task_definition(account, job)["taskDefinitionArn"]
    assert task["clusterArn"].endswith(f"/{NAMES.cluster}")
    (container,) = task_definition(account, job)["containerDefinitions"]
    (override,) = json.loads(schedules(account)[name]["Target"]["Input"])["containerOverrides"]
    assert override == {"name": container["name"], "command": command}


def test_the_task_runs_in_the_stacks_own_network(account: Cloud, stack: Stack) -> None:
    network = schedules(account)["take-daily"]["Target"]["EcsParameters"]["NetworkConfiguration"]["awsvpcConfiguration"]
    assert sorted(network["Subnets"]) == sorted(each.id for each in stack.of("aws:ec2/subnet:Subnet"))
    assert network["SecurityGroups"] == [each.id for each in stack.of("aws:ec2/securityGroup:SecurityGroup")]
    assert network["AssignPublicIp"] == "ENABLED", "there is no NAT: without it no image could be fetched"


# --- tasks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", Job)
def test_a_task_writes_to_its_scratch_folder_only_and_its_image_cannot_be_swapped(
    account: Cloud, stack: Stack, job: Job
) -> None:
    found = task_definition(account, job)
    (container,) = found["containerDefinitions"]
    assert container["image"] == IMAGE
    assert container["readonlyRootFilesystem"] is True
    assert container["user"] == "10001:10001"
    assert [mount["containerPath"] for mount in container["mountPoints"]] == [SCRATCH]
    assert found["volumes"] == [{"name": container["mountPoints"][0]["sourceVolume"]}]
    assert container["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    assert not container.get("privileged")
    assert found["requiresCompatibilities"] == ["FARGATE"]
    assert found["networkMode"] == "awsvpc"


@pytest.mark.parametrize("job", Job)
def test_sizes_are_pairs_that_fargate_knows(account: Cloud, stack: Stack, job: Job) -> None:
    found, size = task_definition(account, job), SIZES[job]
    assert (found["cpu"], found["memory"]) == (str(size.cpu), str(size.memory))
    assert size.memory in FARGATE_MEMORY[size.cpu]
    assert 21 <= found["ephemeralStorage"]["sizeInGiB"] <= 200
    assert found["containerDefinitions"][0]["memory"] <= size.memory


def test_nobody_has_both_a_way_into_the_database_and_the_key_of_its_backups(account: Cloud, stack: Stack) -> None:
    held = {}
    for job in Job:
        found = task_definition(account, job)
        (container,) = found["containerDefinitions"]
        held[job] = {one["name"]: one["valueFrom"] for one in container["secrets"]}
        assert found["taskRoleArn"].endswith(f"role/{NAMES.role(ROLES[job])}")
        assert found["executionRoleArn"].endswith(f"role/{NAMES.service_role('execution')}")
    neon_key = {"NEON_KEY_PRODUCTION": f"{SECRETS}/production/neon-api-key-AbCdEf"}
    private_key = {KEY_TEXT: f"{SECRETS}/production/backup-key-AbCdEf"}
    assert held == {Job.TAKE: neon_key, Job.JUDGE: neon_key, Job.VERIFY: private_key}


def test_the_environment_of_a_task_holds_no_secret(account: Cloud, stack: Stack) -> None:
    (container,) = task_definition(account, Job.TAKE)["containerDefinitions"]
    assert {one["name"]: one["value"] for one in container["environment"]} == {
        "AWS_REGION": REGION,
        "BLOOM_DR_OPERATOR": "bloom-dr-production-take",
    }


def test_logs_are_kept_for_a_time_that_cloudwatch_knows(account: Cloud, stack: Stack) -> None:
    (group,) = account.client("logs").describe_log_groups(logGroupNamePrefix=NAMES.task_log_group)["logGroups"]
    assert group["retentionInDays"] == LOG_DAYS
    assert LOG_DAYS in CLOUDWATCH_DAYS
    (container,) = task_definition(account, Job.TAKE)["containerDefinitions"]
    assert container["logConfiguration"]["options"]["awslogs-group"] == group["logGroupName"]


# --- rights -----------------------------------------------------------------------------------------------------------


def test_scheduler_may_start_these_tasks_in_this_cluster_and_write_dead_letters(account: Cloud, stack: Stack) -> None:
    found = {statement["Action"][0]: statement for statement in rights(account, NAMES.service_role("scheduler"))}
    assert set(found) == {"ecs:RunTask", "iam:PassRole", "sqs:SendMessage"}
    families = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/{NAMES.prefix}"
    assert found["ecs:RunTask"]["Resource"] == [f"{families}-{job}:*" for job in Job]
    assert found["ecs:RunTask"]["Condition"]["ArnEquals"]["ecs:cluster"].endswith(f":cluster/{NAMES.cluster}")
    roles = (NAMES.role(Identity.WRITER), NAMES.role(Identity.VERIFIER), NAMES.service_role("execution"))
    assert found["iam:PassRole"]["Resource"] == [f"arn:aws:iam::{ACCOUNT}:role/{role}" for role in roles]
    passed = found["iam:PassRole"]["Condition"]
    assert passed == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    assert found["sqs:SendMessage"]["Resource"] == [stack.exported["deadLetters"]]


def test_the_execution_role_reads_the_named_secrets_through_secrets_manager_only(account: Cloud, stack: Stack) -> None:
    found = {statement["Action"][0]: statement for statement in rights(account, NAMES.service_role("execution"))}
    secrets = found["secretsmanager:GetSecretValue"]["Resource"]
    assert secrets == [f"{SECRETS}/production/neon-api-key-AbCdEf", f"{SECRETS}/production/backup-key-AbCdEf"]
    assert found["kms:Decrypt"]["Resource"] == [KEY]
    via = {"StringEquals": {"kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com"}}
    assert found["kms:Decrypt"]["Condition"] == via
    repository = found["ecr:BatchCheckLayerAvailability"]["Resource"]
    assert repository == [f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/bloom-dr"]
    everywhere = [name for name, statement in found.items() if statement["Resource"] == ["*"]]
    assert everywhere == ["ecr:GetAuthorizationToken"], "AWS knows no resource for it"


@pytest.mark.parametrize(
    ("of", "service", "only"),
    [
        (
            "scheduler",
            "scheduler.amazonaws.com",
            {
                "aws:SourceAccount": ACCOUNT,
                "aws:SourceArn": f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule-group/{NAMES.schedule_group}",
            },
        ),
        ("execution", "ecs-tasks.amazonaws.com", {"aws:SourceAccount": ACCOUNT}),
    ],
)
def test_services_become_these_roles_for_this_account_only_and_within_the_boundary(
    account: Cloud, stack: Stack, of: str, service: str, only: dict[str, str]
) -> None:
    role = account.client("iam").get_role(RoleName=NAMES.service_role(of))["Role"]
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": service}
    assert trust["Condition"] == {"StringEquals": only}
    assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == BOUNDARY


@pytest.mark.parametrize("of", ["scheduler", "execution"])
def test_the_boundary_takes_nothing_from_these_roles(account: Cloud, stack: Stack, of: str) -> None:
    """Or tasks would not start, and only AWS would say so."""
    allowed = limits(NAMES, "bloom-test", ACCOUNT)
    wanted = [
        (action, resource)
        for statement in rights(account, NAMES.service_role(of))
        for action in statement["Action"]
        for resource in statement["Resource"]
    ]
    assert len(wanted) > 3
    for action, resource in wanted:
        assert any(
            any(fnmatchcase(action, each) for each in one["Action"])
            and any(fnmatchcase(resource, each) for each in one["Resource"])
            for one in allowed
        ), f"{action} on {resource}"


# --- network ----------------------------------------------------------------------------------------------------------


def test_nothing_comes_in_and_only_https_and_postgres_go_out(account: Cloud, stack: Stack) -> None:
    ec2 = account.client("ec2")
    (declared,) = stack.of("aws:ec2/securityGroup:SecurityGroup")
    (group,) = ec2.describe_security_groups(GroupIds=[declared.id])["SecurityGroups"]
    assert group["IpPermissions"] == []
    outward = {
        (one["IpProtocol"], one["FromPort"], one["ToPort"], address["CidrIp"])
        for one in group["IpPermissionsEgress"]
        for address in one["IpRanges"]
    }
    assert outward == {
        ("tcp", 443, 443, "0.0.0.0/0"),
        ("tcp", 5432, 5432, "0.0.0.0/0"),
        ("udp", 53, 53, "10.91.0.0/24"),
    }


def test_two_zones_each_have_a_subnet_with_a_way_out_and_s3_has_a_gateway(account: Cloud, stack: Stack) -> None:
    ec2 = account.client("ec2")
    ids = [each.id for each in stack.of("aws:ec2/subnet:Subnet")]
    subnets = ec2.describe_subnets(SubnetIds=ids)["Subnets"]
    assert len({subnet["AvailabilityZone"] for subnet in subnets}) == 2
    (table,) = stack.of("aws:ec2/routeTable:RouteTable")
    (found,) = ec2.describe_route_tables(RouteTableIds=[table.id])["RouteTables"]
    assert {one["SubnetId"] for one in found["Associations"] if "SubnetId" in one} == set(ids)
    assert {route["GatewayId"][:3] for route in found["Routes"] if "GatewayId" in route} >= {"igw"}
    (endpoint,) = ec2.describe_vpc_endpoints()["VpcEndpoints"]
    assert (endpoint["ServiceName"], endpoint["RouteTableIds"]) == (f"com.amazonaws.{REGION}.s3", [table.id])
    (vpc,) = stack.of("aws:ec2/vpc:Vpc")
    asked = ec2.describe_vpc_attribute(VpcId=vpc.id, Attribute="enableDnsHostnames")
    assert asked["EnableDnsHostnames"]["Value"] is True


# --- what ends badly --------------------------------------------------------------------------------------------------


def test_a_task_that_ends_badly_or_never_begins_is_a_dead_letter(account: Cloud, stack: Stack) -> None:
    rule = account.client("events").describe_rule(Name=NAMES.stopped_rule)
    pattern = json.loads(rule["EventPattern"])
    cluster = schedules(account)["take-daily"]["Target"]["Arn"]
    for detail, dead in (
        ({"containers": [{"exitCode": 0}]}, False),
        ({"containers": [{"exitCode": 21}]}, True),
        ({"containers": [{"exitCode": 137}]}, True),
        ({"containers": [{}], "stopCode": "TaskFailedToStart"}, True),
        ({"containers": [{"exitCode": 0}], "stopCode": "EssentialContainerExited"}, False),
        ({"containers": [{"exitCode": 1}], "clusterArn": f"{cluster}-of-others"}, False),
        ({"containers": [{}], "lastStatus": "RUNNING"}, False),
    ):
        event = {
            "source": "aws.ecs",
            "detail-type": "ECS Task State Change",
            "detail": {"clusterArn": cluster, "lastStatus": "STOPPED"} | detail,
        }
        assert matches(pattern, event) is dead, detail
    (target,) = account.client("events").list_targets_by_rule(Rule=NAMES.stopped_rule)["Targets"]
    assert target["Arn"] == stack.exported["deadLetters"]


def test_only_this_rule_may_write_to_the_dead_letters(account: Cloud, stack: Stack) -> None:
    sqs = account.client("sqs")
    url = sqs.get_queue_url(QueueName=NAMES.dead_letters)["QueueUrl"]
    policy = json.loads(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"])
    (statement,) = policy["Statement"]
    rule = account.client("events").describe_rule(Name=NAMES.stopped_rule)["Arn"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Action"] == "sqs:SendMessage"
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": rule}}
    target = stack["aws:cloudwatch/eventTarget:EventTarget", "stopped"]
    assert stack.needs(target, stack["aws:sqs/queuePolicy:QueuePolicy", "dead-letters"])


# --- the stack --------------------------------------------------------------------------------------------------------

REPLACED = {"aws:ecs/cluster:Cluster", "aws:ecs/taskDefinition:TaskDefinition"}
"""By a new image, or a second database: to protect them would refuse that."""


def test_a_destroy_by_mistake_stops_no_backup_and_what_the_policy_dropped_can_stop(stack: Stack) -> None:
    """What cannot be protected stays at AWS all the same: Pulumi only forgets it."""
    own = [one for one in stack.declared.values() if not one.name.startswith("role-")]
    assert len(own) > 20
    assert {one.token for one in own if not one.protect} == REPLACED
    assert {one.token for one in own if not one.retain} == TICKING


def test_a_new_image_makes_new_revisions_that_the_schedules_start(account: Cloud, stack: Stack) -> None:
    before = schedules(account)["take-daily"]["Target"]["EcsParameters"]["TaskDefinitionArn"]
    assert before.endswith(":1"), "a revision: what is scheduled is what was tested"
