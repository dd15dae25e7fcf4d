"""EC2: interface endpoints of a VPC."""

from __future__ import annotations

import ipaddress
import uuid
from typing import Any

import pytest

from support.stack import LocalStack

proves = pytest.mark.proves

def vpc_with_subnet(ec2: Any) -> tuple[str, str]:
    vpc = ec2.create_vpc(CidrBlock="10.70.0.0/16")["Vpc"]["VpcId"]
    return vpc, ec2.create_subnet(VpcId=vpc, CidrBlock="10.70.1.0/24")["Subnet"]["SubnetId"]


def interfaces_of(ec2: Any, endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    filters = [{"Name": "network-interface-id", "Values": endpoint["NetworkInterfaceIds"]}]
    return ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]


@proves("moto.ec2.vpc_endpoints.interfaces")
def test_an_endpoints_interface_has_an_address_of_its_subnet_and_its_groups(moto: LocalStack) -> None:
    ec2 = moto.client("ec2")
    vpc, subnet = vpc_with_subnet(ec2)
    group = ec2.create_security_group(GroupName=f"e-{uuid.uuid4().hex[:8]}", Description="endpoints", VpcId=vpc)["GroupId"]
    wanted = {"VpcEndpointType": "Interface", "VpcId": vpc, "ServiceName": f"com.amazonaws.{moto.region}.ssm", "SubnetIds": [subnet]}
    (interface,) = interfaces_of(ec2, ec2.create_vpc_endpoint(**wanted, SecurityGroupIds=[group])["VpcEndpoint"])
    assert [one["GroupId"] for one in interface["Groups"]] == [group]
    assert ipaddress.ip_address(interface["PrivateIpAddress"]) in ipaddress.ip_network("10.70.1.0/24")
    assert (interface["InterfaceType"], interface["RequesterManaged"]) == ("vpc_endpoint", True)


@proves("moto.ec2.vpc_endpoints.interfaces")
def test_an_endpoint_without_a_group_gets_the_vpcs_default_one(moto: LocalStack) -> None:
    ec2 = moto.client("ec2")
    vpc, subnet = vpc_with_subnet(ec2)
    service = f"com.amazonaws.{moto.region}.ssm"
    endpoint = ec2.create_vpc_endpoint(VpcEndpointType="Interface", VpcId=vpc, ServiceName=service, SubnetIds=[subnet])["VpcEndpoint"]
    shown = ec2.describe_vpc_endpoints(VpcEndpointIds=[endpoint["VpcEndpointId"]])["VpcEndpoints"][0]
    (interface,) = interfaces_of(ec2, endpoint)
    assert [one["GroupName"] for one in shown["Groups"]] == [one["GroupName"] for one in interface["Groups"]] == ["default"]
