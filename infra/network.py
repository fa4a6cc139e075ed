"""A small network for the tasks alone. They call out to Neon, to AWS and to nobody else, and nobody calls in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

import pulumi
import pulumi_aws as aws

RANGE = IPv4Network("10.91.0.0/24")
OPEN = {"https": ("tcp", 443, "0.0.0.0/0"), "postgres": ("tcp", 5432, "0.0.0.0/0"), "dns": ("udp", 53, str(RANGE))}
"""What may leave: Neon's addresses change, so the ports are what can be said. TLS and passwords do the rest."""


@dataclass(frozen=True)
class NetworkArgs:
    prefix: str
    """Of what people see as names."""
    region: str
    zones: Sequence[str]
    """Two of the region's availability zones: when one is down the other still takes backups."""
    protect: bool


class Network(pulumi.ComponentResource):
    """Two public subnets without a way in; S3 is reached by a gateway, at no cost for what flows."""

    subnet_ids: Sequence[pulumi.Output[str]]
    security_group_id: pulumi.Output[str]

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions) -> None:
        super().__init__("bloom-dr:infra:Network", name, None, opts)
        self._kept = pulumi.ResourceOptions(parent=self, protect=args.protect, retain_on_delete=args.protect)
        tags = {"Name": args.prefix}
        vpc = aws.ec2.Vpc(
            name, cidr_block=str(RANGE), enable_dns_hostnames=True, enable_dns_support=True, tags=tags, opts=self._kept
        )
        gateway = aws.ec2.InternetGateway(name, vpc_id=vpc.id, tags=tags, opts=self._kept)
        routes = aws.ec2.RouteTable(name, vpc_id=vpc.id, tags=tags, opts=self._kept)
        aws.ec2.Route(
            name, route_table_id=routes.id, destination_cidr_block="0.0.0.0/0", gateway_id=gateway.id, opts=self._kept
        )
        aws.ec2.VpcEndpoint(
            name,
            vpc_id=vpc.id,
            service_name=f"com.amazonaws.{args.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[routes.id],
            tags=tags,
            opts=self._kept,
        )
        self.subnet_ids = self._subnets(name, args, vpc, routes)
        self.security_group_id = self._security_group(name, args, vpc)
        self.register_outputs({"subnet_ids": self.subnet_ids, "security_group_id": self.security_group_id})

    def _subnets(
        self, name: str, args: NetworkArgs, vpc: aws.ec2.Vpc, routes: aws.ec2.RouteTable
    ) -> list[pulumi.Output[str]]:
        made = []
        for count, (zone, block) in enumerate(zip(args.zones[:2], RANGE.subnets(1), strict=True)):
            subnet = aws.ec2.Subnet(
                f"{name}-{count}",
                vpc_id=vpc.id,
                availability_zone=zone,
                cidr_block=str(block),
                tags={"Name": args.prefix},
                opts=self._kept,
            )
            aws.ec2.RouteTableAssociation(
                f"{name}-{count}", subnet_id=subnet.id, route_table_id=routes.id, opts=self._kept
            )
            made.append(subnet.id)
        return made

    def _security_group(self, name: str, args: NetworkArgs, vpc: aws.ec2.Vpc) -> pulumi.Output[str]:
        group = aws.ec2.SecurityGroup(
            name,
            name=args.prefix,
            description="Tasks that take and verify backups: outward only",
            vpc_id=vpc.id,
            tags={"Name": args.prefix},
            opts=self._kept,
        )
        for what, (protocol, port, block) in OPEN.items():
            aws.vpc.SecurityGroupEgressRule(
                f"{name}-{what}",
                security_group_id=group.id,
                description=what,
                ip_protocol=protocol,
                from_port=port,
                to_port=port,
                cidr_ipv4=block,
                opts=self._kept,
            )
        return group.id
