"""The window that isolation leaves for a capture: endpoints to reach through it, and the functions that open and close it."""

from __future__ import annotations

import json
import uuid
from typing import Any

from .stack import ACCOUNT, LocalStack
from .victim import Place, Victim
HTTPS = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}


def invoke(stack: LocalStack, name: str, payload: dict[str, Any]) -> dict[str, Any]:
    machine = stack.outputs["StateMachineArn"].rsplit(":", 1)[1]
    answer = stack.client("lambda").invoke(FunctionName=f"{machine}-{name}", Payload=json.dumps(payload))
    said = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, said
    return said


def target(stack: LocalStack, victim: Victim, account: str = ACCOUNT, **more: Any) -> dict[str, Any]:
    case = {"AccountId": account, "Region": stack.region, "InstanceId": victim.instance, "CaseId": f"{victim.instance}-20261121T030007Z"}
    return {**case, **more}


def isolate(stack: LocalStack, victim: Victim, *, window: bool, account: str = ACCOUNT) -> dict[str, Any]:
    return invoke(stack, "isolate-network", target(stack, victim, account, CaptureWindow=window))


def subnet_of(place: Place, interface: str) -> str:
    return place.client("ec2").describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"][0]["SubnetId"]


def add_endpoints(place: Place, victim: Victim, number: int = 0, *, services: tuple[str, ...] = ("ssm", "ssmmessages"), s3: bool = True,
                  let_in: str | None = "10.0.0.0/8") -> list[str]:  # fmt: skip
    """Endpoints in the VPC of one of the victim's interfaces, S3's by a route of its subnet; answers what the window has to reach."""
    ec2, vpc, subnet = place.client("ec2"), victim.vpcs[number], subnet_of(place, victim.interfaces[number])
    group = ec2.create_security_group(GroupName=f"endpoints-{uuid.uuid4().hex[:8]}", Description="endpoints", VpcId=vpc)["GroupId"]
    if let_in:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{**HTTPS, "IpRanges": [{"CidrIp": let_in}]}])
    peers = []
    for service in services:
        endpoint = ec2.create_vpc_endpoint(VpcEndpointType="Interface", VpcId=vpc, ServiceName=f"com.amazonaws.{place.region}.{service}",
                                           SubnetIds=[subnet], SecurityGroupIds=[group], PrivateDnsEnabled=True)["VpcEndpoint"]  # fmt: skip
        interfaces = ec2.describe_network_interfaces(NetworkInterfaceIds=endpoint["NetworkInterfaceIds"])["NetworkInterfaces"]
        peers += [f"{one['PrivateIpAddress']}/32" for one in interfaces]
    if s3:
        tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
        of_subnet = [one for one in tables if any(part.get("SubnetId") == subnet for part in one["Associations"])]
        table = (of_subnet or [one for one in tables if any(part.get("Main") for part in one["Associations"])])[0]["RouteTableId"]
        ec2.create_vpc_endpoint(VpcEndpointType="Gateway", VpcId=vpc, ServiceName=f"com.amazonaws.{place.region}.s3", RouteTableIds=[table])
        routes = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
        peers += [route["DestinationPrefixListId"] for route in routes if "DestinationPrefixListId" in route]
    return peers


def window_rules(peers: list[str]) -> list[str]:
    return sorted(f"out tcp 443-443 {peer}" for peer in peers)


def groups_of(place: Place, victim: Victim) -> dict[str, list[str]]:
    """The names of each interface's groups."""
    found = place.client("ec2").describe_network_interfaces(NetworkInterfaceIds=list(victim.interfaces))["NetworkInterfaces"]
    return {one["NetworkInterfaceId"]: [group["GroupName"] for group in one["Groups"]] for one in found}
