"""Compromised instances to contain: a small web fleet as an attacker would find it.

A fleet shares its VPC, Auto Scaling group, load balancers and role. Each victim has two interfaces (a private
one, and a public one in another VPC), two volumes (one of them unencrypted), and is reached by an ALB on two
ports, by a second target group through its address, and by a Classic Load Balancer.
"""

from __future__ import annotations

import json
import random
import uuid
from dataclasses import dataclass, field
from typing import Any

from .stack import Elsewhere, LocalStack

Place = LocalStack | Elsewhere  # where the instances are

AMI = "ami-12c6146b"  # one that moto knows, with root device /dev/sda1
ROOT, DATA = "/dev/sda1", "/dev/sdf"
USER_DATA = "#!/bin/sh\nexport DB_PASSWORD=hunter2\n"
PROTECTIONS = ("disableApiTermination", "disableApiStop", "instanceInitiatedShutdownBehavior")
OPEN = [{"CidrIp": "0.0.0.0/0"}]
OPEN_V6 = [{"CidrIpv6": "::/0"}]


@dataclass(frozen=True)
class Victim:
    """One instance, and the ids of all that containment must find on it."""

    instance: str
    private_ip: str
    interfaces: tuple[str, ...]
    volumes: dict[str, str]  # by device name
    vpcs: tuple[str, ...]
    open_group: str | None = None
    auto_scaling_group: str | None = None
    instance_target_group: str | None = None
    ip_target_group: str | None = None
    classic_load_balancer: str | None = None
    role: str | None = None
    profile: str | None = None


@dataclass
class Fleet:
    """What the victims of one fleet share."""

    name: str
    network: str = field(default_factory=lambda: f"10.{random.SystemRandom().randint(42, 250)}")  # its addresses are hardly another's too
    vpc: str = ""
    other_vpc: str = ""
    private_subnet: str = ""
    public_subnet: str = ""
    other_subnet: str = ""
    group: str = ""
    other_group: str = ""
    role: str = ""
    profile: str = ""
    instance_targets: str = ""
    ip_targets: str = ""
    classic: str = ""
    scaling: str = ""


def build_victims(stack: Place, count: int = 1, *, name: str | None = None, lifecycle: str = "on-demand") -> list[Victim]:
    """A fleet of `count` victims in a VPC of its own."""
    fleet = Fleet(name or f"shop-{uuid.uuid4().hex[:6]}")
    build_network(stack, fleet)
    build_role(stack, fleet)
    build_load_balancers(stack, fleet)
    build_scaling_group(stack, fleet, count)
    return [build_one(stack, fleet, number, lifecycle) for number in range(1, count + 1)]


def bare_instance(stack: Place) -> Victim:
    """An instance with nothing around it: no group, no target, no profile, one interface, one volume."""
    fleet = Fleet(f"bare-{uuid.uuid4().hex[:6]}")
    build_network(stack, fleet)
    instance = run_instance(stack, fleet, fleet.name, [ROOT], profile=None)
    return describe(stack, fleet, instance, bare=True)


# --- Building ----------------------------------------------------------------------------------------------------


def build_network(stack: Place, fleet: Fleet) -> None:
    """Two VPCs; in the first a private subnet behind a NAT gateway, and a public one, in the same zone."""
    fleet.vpc = new_vpc(stack, fleet.name, f"{fleet.network}.0.0/16")
    fleet.other_vpc = new_vpc(stack, f"{fleet.name}-partner", "10.41.0.0/16")
    fleet.public_subnet = new_subnet(stack, fleet.vpc, f"{fleet.network}.0.0/24", 0)
    fleet.private_subnet = new_subnet(stack, fleet.vpc, f"{fleet.network}.1.0/24", 1)
    fleet.other_subnet = new_subnet(stack, fleet.other_vpc, "10.41.0.0/24", 0)
    route_to_internet(stack, fleet.vpc, fleet.public_subnet)
    route_to_internet(stack, fleet.other_vpc, fleet.other_subnet)
    route_through_nat(stack, fleet)
    fleet.group = open_group(stack, fleet.vpc, f"{fleet.name}-web")
    fleet.other_group = open_group(stack, fleet.other_vpc, f"{fleet.name}-partner")


def new_vpc(stack: Place, name: str, block: str) -> str:
    """Dual-stack: a rule for IPv4 alone then leaves the IPv6 half open."""
    vpc = stack.client("ec2").create_vpc(CidrBlock=block, AmazonProvidedIpv6CidrBlock=True, TagSpecifications=tags("vpc", name))
    return vpc["Vpc"]["VpcId"]


def new_subnet(stack: Place, vpc: str, block: str, number: int) -> str:
    ec2 = stack.client("ec2")
    ipv6 = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]
    part = ipv6.replace("00::/56", f"{number:02x}::/64")
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=block, Ipv6CidrBlock=part, AvailabilityZone=f"{stack.region}a")
    return subnet["Subnet"]["SubnetId"]


def route_to_internet(stack: Place, vpc: str, subnet: str) -> None:
    ec2 = stack.client("ec2")
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    ec2.create_route(RouteTableId=table, DestinationIpv6CidrBlock="::/0", GatewayId=gateway)
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)


def route_through_nat(stack: Place, fleet: Fleet) -> None:
    """The usual private subnet. A NAT gateway tracks flows by itself: changing groups does not cut them."""
    ec2 = stack.client("ec2")
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    nat = ec2.create_nat_gateway(SubnetId=fleet.public_subnet, AllocationId=address)["NatGateway"]["NatGatewayId"]
    table = ec2.create_route_table(VpcId=fleet.vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat)
    ec2.associate_route_table(RouteTableId=table, SubnetId=fleet.private_subnet)


def open_group(stack: Place, vpc: str, name: str) -> str:
    """Open to the world on 22 and 80, in both families."""
    ec2 = stack.client("ec2")
    group = ec2.create_security_group(GroupName=name, Description="web servers", VpcId=vpc)["GroupId"]
    rules = [{"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": OPEN, "Ipv6Ranges": OPEN_V6} for port in (22, 80)]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rules)
    return group


def build_role(stack: Place, fleet: Fleet) -> None:
    iam = stack.client("iam")
    fleet.role, fleet.profile = f"{fleet.name}-role", f"{fleet.name}-profile"
    iam.create_role(RoleName=fleet.role, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}))  # fmt: skip
    iam.put_role_policy(RoleName=fleet.role, PolicyName="shop", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}))  # fmt: skip
    iam.create_instance_profile(InstanceProfileName=fleet.profile)
    iam.add_role_to_instance_profile(InstanceProfileName=fleet.profile, RoleName=fleet.role)


def build_load_balancers(stack: Place, fleet: Fleet) -> None:
    """An ALB that forwards to a target group of instances and one of addresses, and a Classic Load Balancer."""
    elb = stack.client("elbv2")
    fleet.instance_targets = new_target_group(elb, fleet, "instance")
    fleet.ip_targets = new_target_group(elb, fleet, "ip")
    second_zone = stack.client("ec2").create_subnet(VpcId=fleet.vpc, CidrBlock=f"{fleet.network}.2.0/24", AvailabilityZone=f"{stack.region}c")
    subnets = [fleet.public_subnet, second_zone["Subnet"]["SubnetId"]]
    balancer = elb.create_load_balancer(Name=fleet.name, Subnets=subnets, Type="application")["LoadBalancers"][0]["LoadBalancerArn"]
    for port, targets in ((80, fleet.instance_targets), (8081, fleet.ip_targets)):
        action = [{"Type": "forward", "TargetGroupArn": targets}]
        elb.create_listener(LoadBalancerArn=balancer, Protocol="HTTP", Port=port, DefaultActions=action)
    fleet.classic = f"{fleet.name}-classic"
    listener = {"Protocol": "HTTP", "LoadBalancerPort": 80, "InstanceProtocol": "HTTP", "InstancePort": 80}
    stack.client("elb").create_load_balancer(LoadBalancerName=fleet.classic, Listeners=[listener], Subnets=[fleet.public_subnet])


def new_target_group(elb: Any, fleet: Fleet, kind: str) -> str:
    name = f"{fleet.name}-{kind}"
    return elb.create_target_group(Name=name, Protocol="HTTP", Port=80, VpcId=fleet.vpc, TargetType=kind)["TargetGroups"][0]["TargetGroupArn"]


def build_scaling_group(stack: Place, fleet: Fleet, count: int) -> None:
    """The group has room below its desired capacity, so that it can let its members go without replacing them."""
    template = stack.client("ec2").create_launch_template(
        LaunchTemplateName=fleet.name, LaunchTemplateData={"ImageId": AMI, "InstanceType": "t3.micro", "SecurityGroupIds": [fleet.group]}
    )["LaunchTemplate"]["LaunchTemplateId"]
    fleet.scaling = f"{fleet.name}-group"
    stack.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName=fleet.scaling, MinSize=0, DesiredCapacity=0, MaxSize=count + 2, VPCZoneIdentifier=fleet.private_subnet,
        LaunchTemplate={"LaunchTemplateId": template}, TargetGroupARNs=[fleet.instance_targets], HealthCheckType="ELB",
    )  # fmt: skip


def build_one(stack: Place, fleet: Fleet, number: int, lifecycle: str) -> Victim:
    name = f"{fleet.name}-{number}"
    instance = run_instance(stack, fleet, name, [ROOT, DATA], profile=fleet.profile, lifecycle=lifecycle)
    attach_partner_interface(stack, fleet, instance)
    first_interface = described_instance(stack, instance)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    stack.client("ec2").assign_ipv6_addresses(NetworkInterfaceId=first_interface, Ipv6AddressCount=1)
    stack.client("autoscaling").attach_instances(AutoScalingGroupName=fleet.scaling, InstanceIds=[instance])
    victim = describe(stack, fleet, instance)
    elb = stack.client("elbv2")
    # The group has registered it on port 80 by joining; this one is a port override.
    elb.register_targets(TargetGroupArn=fleet.instance_targets, Targets=[{"Id": instance, "Port": 8080}])
    elb.register_targets(TargetGroupArn=fleet.ip_targets, Targets=[{"Id": victim.private_ip, "Port": 80}])
    stack.client("elb").register_instances_with_load_balancer(LoadBalancerName=fleet.classic, Instances=[{"InstanceId": instance}])
    return victim


def run_instance(
    stack: Place, fleet: Fleet, name: str, devices: list[str], *, profile: str | None, lifecycle: str = "on-demand"
) -> str:
    """The root volume is unencrypted and the data volume is encrypted; both go when the instance does."""
    volumes = [{"DeviceName": device, "Ebs": {"VolumeSize": 8, "VolumeType": "gp3", "DeleteOnTermination": True, "Encrypted": device == DATA}}
               for device in devices]  # fmt: skip
    interface = {"DeviceIndex": 0, "SubnetId": fleet.private_subnet, "Groups": [fleet.group], "DeleteOnTermination": True}
    options: dict[str, Any] = {"IamInstanceProfile": {"Name": profile}} if profile else {}
    if lifecycle == "spot":
        options["InstanceMarketOptions"] = {"MarketType": "spot"}
    started = stack.client("ec2").run_instances(
        ImageId=AMI, InstanceType="t3.micro", MinCount=1, MaxCount=1, UserData=USER_DATA, BlockDeviceMappings=volumes,
        NetworkInterfaces=[interface], TagSpecifications=tags("instance", name, Service="shop"), **options,
    )  # fmt: skip
    return started["Instances"][0]["InstanceId"]


def attach_partner_interface(stack: Place, fleet: Fleet, instance: str) -> None:
    """An instance may have an interface in another VPC of its zone: its groups are those of that VPC."""
    ec2 = stack.client("ec2")
    created = ec2.create_network_interface(SubnetId=fleet.other_subnet, Groups=[fleet.other_group], Description="partner")
    interface = created["NetworkInterface"]["NetworkInterfaceId"]
    attachment = ec2.attach_network_interface(NetworkInterfaceId=interface, InstanceId=instance, DeviceIndex=1)["AttachmentId"]
    setting = {"AttachmentId": attachment, "DeleteOnTermination": True}
    ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Attachment=setting)


def describe(stack: Place, fleet: Fleet, instance: str, *, bare: bool = False) -> Victim:
    found = described_instance(stack, instance)
    interfaces = sorted(found["NetworkInterfaces"], key=lambda one: one["Attachment"]["DeviceIndex"])
    shared = {} if bare else {
        "auto_scaling_group": fleet.scaling, "instance_target_group": fleet.instance_targets, "ip_target_group": fleet.ip_targets,
        "classic_load_balancer": fleet.classic, "role": fleet.role, "profile": fleet.profile,
    }  # fmt: skip
    return Victim(
        instance=instance,
        private_ip=found["PrivateIpAddress"],
        interfaces=tuple(one["NetworkInterfaceId"] for one in interfaces),
        volumes={mapping["DeviceName"]: mapping["Ebs"]["VolumeId"] for mapping in found["BlockDeviceMappings"]},
        vpcs=tuple(one["VpcId"] for one in interfaces),
        open_group=fleet.group,
        **shared,
    )


def described_instance(stack: Place, instance: str) -> dict[str, Any]:
    return stack.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]


def tags(kind: str, name: str, **more: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in {"Name": name, **more}.items()]}]


# --- Looking -----------------------------------------------------------------------------------------------------


def snapshot_of_world(stack: Place, victim: Victim) -> dict[str, Any]:
    """All that containment could change about the instance, as plain values that compare with ==."""
    instance = described_instance(stack, victim.instance)
    return {
        "State": instance["State"]["Name"],
        "Groups": groups_by_interface(stack, victim),
        "Rules": rules_by_interface(stack, victim),
        "AutoScaling": scaling_of(stack, victim),
        "Targets": targets_of(stack, victim),
        "ClassicLoadBalancers": classic_of(stack, victim),
        "Protection": {attribute: attribute_of(stack, victim.instance, attribute) for attribute in PROTECTIONS},
        "VolumesDeletedWithInstance": {one["DeviceName"]: one["Ebs"]["DeleteOnTermination"] for one in instance["BlockDeviceMappings"]},
        "InterfacesDeletedWithInstance": {
            one["NetworkInterfaceId"]: one["Attachment"]["DeleteOnTermination"] for one in instance["NetworkInterfaces"]
        },
        "Tags": tags_of(stack, [victim.instance, *victim.volumes.values(), *victim.interfaces]),
        "Profile": instance.get("IamInstanceProfile", {}).get("Arn"),
        "RolePolicies": role_policies_of(stack, victim),
        "Snapshots": snapshots_of(stack, victim),
    }


def differences(before: dict[str, Any], after: dict[str, Any], path: str = "") -> list[tuple[str, Any, Any]]:
    """The places where two worlds differ, each as path, before and after."""
    found = []
    for key in sorted({*before, *after}, key=str):
        old, new, where = before.get(key), after.get(key), f"{path}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{where} ")
        elif old != new:
            found.append((where, old, new))
    return found


def interfaces_of(stack: Place, victim: Victim) -> list[dict[str, Any]]:
    of_instance = [{"Name": "attachment.instance-id", "Values": [victim.instance]}]
    return stack.client("ec2").describe_network_interfaces(Filters=of_instance)["NetworkInterfaces"]


def groups_by_interface(stack: Place, victim: Victim) -> dict[str, list[str]]:
    return {one["NetworkInterfaceId"]: sorted(group["GroupId"] for group in one["Groups"]) for one in interfaces_of(stack, victim)}


def rules_by_interface(stack: Place, victim: Victim) -> dict[str, list[str]]:
    """What each interface lets in and out now, one line a rule, whichever groups it has that from."""
    groups = groups_by_interface(stack, victim)
    of_groups = [{"Name": "group-id", "Values": sorted({group for ids in groups.values() for group in ids})}]
    rules = stack.client("ec2").describe_security_group_rules(Filters=of_groups)["SecurityGroupRules"]
    return {interface: sorted({rule_line(rule) for rule in rules if rule["GroupId"] in ids}) for interface, ids in groups.items()}


def rule_line(rule: dict[str, Any]) -> str:
    direction = "out" if rule["IsEgress"] else "in"
    peer = rule.get("CidrIpv4") or rule.get("CidrIpv6") or rule.get("ReferencedGroupInfo", {}).get("GroupId") or rule.get("PrefixListId")
    ports = "" if rule["IpProtocol"] == "-1" else f" {rule.get('FromPort')}-{rule.get('ToPort')}"
    return f"{direction} {rule['IpProtocol']}{ports} {peer}"


def scaling_of(stack: Place, victim: Victim) -> dict[str, Any] | None:
    """The instance's place in its group, and the group's sizes, since a detach may change those."""
    client = stack.client("autoscaling")
    members = client.describe_auto_scaling_instances(InstanceIds=[victim.instance])["AutoScalingInstances"]
    if not members:
        return None
    return {key: members[0][key] for key in ("AutoScalingGroupName", "LifecycleState", "HealthStatus", "ProtectedFromScaleIn")}


def scaling_sizes(stack: Place, name: str) -> dict[str, Any]:
    group = stack.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]
    members = sorted(member["InstanceId"] for member in group["Instances"])
    return {**{key: group[key] for key in ("MinSize", "DesiredCapacity", "MaxSize")}, "Members": members}


def targets_of(stack: Place, victim: Victim) -> list[str]:
    """Each registration of the instance or of one of its addresses, in any target group, with port and health."""
    client = stack.client("elbv2")
    own = {victim.instance, *(address["PrivateIpAddress"] for one in interfaces_of(stack, victim) for address in one["PrivateIpAddresses"])}
    groups = [group for page in client.get_paginator("describe_target_groups").paginate() for group in page["TargetGroups"]]
    found = []
    for group in (group for group in groups if group["VpcId"] in victim.vpcs):
        for health in client.describe_target_health(TargetGroupArn=group["TargetGroupArn"])["TargetHealthDescriptions"]:
            if health["Target"]["Id"] in own:
                found.append(f"{group['TargetGroupName']} {health['Target']['Id']}:{health['Target']['Port']} {health['TargetHealth']['State']}")
    return sorted(found)


def registered_ports(stack: Place, victim: Victim) -> list[int]:
    """The ports on which the instance is registered with its target group of instances."""
    health = stack.client("elbv2").describe_target_health(TargetGroupArn=victim.instance_target_group)["TargetHealthDescriptions"]
    return sorted(one["Target"]["Port"] for one in health if one["Target"]["Id"] == victim.instance)


def classic_of(stack: Place, victim: Victim) -> list[str]:
    pages = stack.client("elb").get_paginator("describe_load_balancers").paginate()  # a long session has more than one
    balancers = [one for page in pages for one in page["LoadBalancerDescriptions"]]
    return sorted(one["LoadBalancerName"] for one in balancers if {"InstanceId": victim.instance} in one["Instances"])


def attribute_of(stack: Place, instance: str, attribute: str) -> Any:
    answer = stack.client("ec2").describe_instance_attribute(InstanceId=instance, Attribute=attribute)
    return answer[attribute[0].upper() + attribute[1:]]["Value"]


def tags_of(stack: Place, resources: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {resource: {} for resource in resources}
    for tag in stack.client("ec2").describe_tags(Filters=[{"Name": "resource-id", "Values": resources}])["Tags"]:
        found[tag["ResourceId"]][tag["Key"]] = tag["Value"]
    return found


def role_policies_of(stack: Place, victim: Victim) -> dict[str, Any]:
    if victim.role is None:
        return {}
    iam = stack.client("iam")
    names = iam.list_role_policies(RoleName=victim.role)["PolicyNames"]
    return {name: iam.get_role_policy(RoleName=victim.role, PolicyName=name)["PolicyDocument"] for name in names}


def snapshots_of(stack: Place, victim: Victim) -> dict[str, dict[str, Any]]:
    """Snapshots of the instance's volumes, and their copies, which name their source only in tags."""
    snapshots = stack.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]
    of_volumes = {one["SnapshotId"] for one in snapshots if one["VolumeId"] in victim.volumes.values()}
    return {one["SnapshotId"]: snapshot_line(one) for one in snapshots if one["SnapshotId"] in of_volumes or names_one_of(one, victim, of_volumes)}


def names_one_of(snapshot: dict[str, Any], victim: Victim, sources: set[str]) -> bool:
    values = {tag["Value"] for tag in snapshot.get("Tags", [])}
    return bool(values & {victim.instance, *victim.volumes.values(), *sources})


def snapshot_line(snapshot: dict[str, Any]) -> dict[str, Any]:
    tags_ = {tag["Key"]: tag["Value"] for tag in snapshot.get("Tags", [])}
    return {**{key: snapshot.get(key) for key in ("VolumeId", "State", "Encrypted", "KmsKeyId")}, "Tags": tags_}
