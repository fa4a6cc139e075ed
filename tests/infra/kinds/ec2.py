"""Networks."""

from __future__ import annotations

from typing import Any

from tests.infra.cloud import Cloud
from tests.infra.kinds import Properties, kind, picked, tag_list


def _tags(what: str, inputs: Properties) -> dict[str, Any]:
    return {"TagSpecifications": [{"ResourceType": what, "Tags": tag_list(inputs)}]} if inputs.get("tags") else {}


def _create_vpc(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock=inputs["cidrBlock"], **_tags("vpc", inputs))["Vpc"]
    _update_vpc(cloud, vpc["VpcId"], inputs)
    return vpc["VpcId"], {"arn": f"arn:aws:ec2:{cloud.region}:{cloud.account}:vpc/{vpc['VpcId']}"}


def _update_vpc(cloud: Cloud, id_: str, inputs: Properties) -> Properties:
    ec2 = cloud.client("ec2")  # AWS takes one of these at a time
    ec2.modify_vpc_attribute(VpcId=id_, EnableDnsSupport={"Value": inputs.get("enableDnsSupport", True)})
    ec2.modify_vpc_attribute(VpcId=id_, EnableDnsHostnames={"Value": inputs.get("enableDnsHostnames", False)})
    return {}


kind(
    "aws:ec2/vpc:Vpc",
    create=_create_vpc,
    update=_update_vpc,
    delete=lambda cloud, id_, known: cloud.client("ec2").delete_vpc(VpcId=id_) and None,
    replaced_by=frozenset({"cidrBlock"}),
)


def _create_gateway(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    ec2 = cloud.client("ec2")
    id_ = ec2.create_internet_gateway(**_tags("internet-gateway", inputs))["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=id_, VpcId=inputs["vpcId"])
    return id_, {}


def _delete_gateway(cloud: Cloud, id_: str, known: Properties) -> None:
    ec2 = cloud.client("ec2")
    ec2.detach_internet_gateway(InternetGatewayId=id_, VpcId=known["vpcId"])
    ec2.delete_internet_gateway(InternetGatewayId=id_)


kind(
    "aws:ec2/internetGateway:InternetGateway",
    create=_create_gateway,
    delete=_delete_gateway,
    replaced_by=frozenset({"vpcId"}),
)


def _create_table(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    made = cloud.client("ec2").create_route_table(VpcId=inputs["vpcId"], **_tags("route-table", inputs))
    return made["RouteTable"]["RouteTableId"], {}


kind(
    "aws:ec2/routeTable:RouteTable",
    create=_create_table,
    delete=lambda cloud, id_, known: cloud.client("ec2").delete_route_table(RouteTableId=id_) and None,
    replaced_by=frozenset({"vpcId"}),
)


def _create_route(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    cloud.client("ec2").create_route(
        RouteTableId=inputs["routeTableId"],
        **picked(inputs, {"destinationCidrBlock": "DestinationCidrBlock", "gatewayId": "GatewayId"}),
    )
    return f"{inputs['routeTableId']}:{inputs['destinationCidrBlock']}", {}


kind(
    "aws:ec2/route:Route",
    create=_create_route,
    delete=lambda cloud, id_, known: (
        cloud.client("ec2").delete_route(
            RouteTableId=known["routeTableId"], DestinationCidrBlock=known["destinationCidrBlock"]
        )
        and None
    ),
    replaced_by=frozenset({"routeTableId", "destinationCidrBlock", "gatewayId"}),
)


def _create_subnet(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    subnet = cloud.client("ec2").create_subnet(
        VpcId=inputs["vpcId"], CidrBlock=inputs["cidrBlock"], AvailabilityZone=inputs["availabilityZone"],
        **_tags("subnet", inputs),
    )["Subnet"]  # fmt: skip
    return subnet["SubnetId"], {"arn": subnet["SubnetArn"]}


kind(
    "aws:ec2/subnet:Subnet",
    create=_create_subnet,
    delete=lambda cloud, id_, known: cloud.client("ec2").delete_subnet(SubnetId=id_) and None,
    replaced_by=frozenset({"vpcId", "cidrBlock", "availabilityZone"}),
)


def _create_association(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    made = cloud.client("ec2").associate_route_table(RouteTableId=inputs["routeTableId"], SubnetId=inputs["subnetId"])
    return made["AssociationId"], {}


kind(
    "aws:ec2/routeTableAssociation:RouteTableAssociation",
    create=_create_association,
    delete=lambda cloud, id_, known: cloud.client("ec2").disassociate_route_table(AssociationId=id_) and None,
    replaced_by=frozenset({"routeTableId", "subnetId"}),
)


def _create_endpoint(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    made = cloud.client("ec2").create_vpc_endpoint(
        VpcId=inputs["vpcId"], ServiceName=inputs["serviceName"], VpcEndpointType=inputs["vpcEndpointType"],
        RouteTableIds=inputs["routeTableIds"], **_tags("vpc-endpoint", inputs),
    )["VpcEndpoint"]  # fmt: skip
    return made["VpcEndpointId"], {}


kind(
    "aws:ec2/vpcEndpoint:VpcEndpoint",
    create=_create_endpoint,
    delete=lambda cloud, id_, known: cloud.client("ec2").delete_vpc_endpoints(VpcEndpointIds=[id_]) and None,
    replaced_by=frozenset({"vpcId", "serviceName", "vpcEndpointType", "routeTableIds"}),
)


def _create_group(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    """Without the rule that lets everything out, which AWS adds and the provider takes away."""
    ec2 = cloud.client("ec2")
    id_ = ec2.create_security_group(
        GroupName=inputs["name"], Description=inputs["description"], VpcId=inputs["vpcId"],
        **_tags("security-group", inputs),
    )["GroupId"]  # fmt: skip
    anywhere = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2.revoke_security_group_egress(GroupId=id_, IpPermissions=anywhere)
    return id_, {"arn": f"arn:aws:ec2:{cloud.region}:{cloud.account}:security-group/{id_}"}


kind(
    "aws:ec2/securityGroup:SecurityGroup",
    create=_create_group,
    delete=lambda cloud, id_, known: cloud.client("ec2").delete_security_group(GroupId=id_) and None,
    replaced_by=frozenset({"name", "description", "vpcId"}),
)


def _create_egress(cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
    rule = {"IpProtocol": inputs["ipProtocol"], "FromPort": inputs["fromPort"], "ToPort": inputs["toPort"]}
    where = [{"CidrIp": inputs["cidrIpv4"], "Description": inputs.get("description", "")}]
    made = cloud.client("ec2").authorize_security_group_egress(
        GroupId=inputs["securityGroupId"], IpPermissions=[{**rule, "IpRanges": where}]
    )
    return made["SecurityGroupRules"][0]["SecurityGroupRuleId"], {}


kind(
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
    create=_create_egress,
    delete=lambda cloud, id_, known: (
        cloud.client("ec2").revoke_security_group_egress(GroupId=known["securityGroupId"], SecurityGroupRuleIds=[id_])
        and None
    ),
    replaced_by=frozenset({"securityGroupId", "ipProtocol", "fromPort", "toPort", "cidrIpv4"}),
)
