"""A whole account's EC2 side as plain values that compare with ==, but for what a release leaves on purpose.

Left out: snapshots, which are evidence; the tag CordonReleased; Cordon's own security groups; how healthy a target is; and ids
that AWS gives anew to what is made anew, such as an association's.
"""

from __future__ import annotations

from typing import Any

from .victim import PROTECTIONS, Place, attribute_of, rule_line

OURS = ("cordon-conversion", "cordon-isolation", "cordon-capture")
RELEASED = "CordonReleased"


def account_snapshot(place: Place) -> dict[str, Any]:
    """Everything that containment could touch, of every instance of the account."""
    instances = instances_of(place)
    return {
        "Instances": {one["InstanceId"]: instance(place, one) for one in instances},
        "Interfaces": interfaces(place),
        "Volumes": volumes(place),
        "SecurityGroups": security_groups(place),
        "TargetGroups": target_groups(place),
        "ClassicLoadBalancers": classic_load_balancers(place),
        "AutoScalingGroups": auto_scaling_groups(place),
        "Roles": roles(place),
        "Profiles": profiles(place),
        "FlowLogs": flow_logs(place),
    }


def without_groups(world: dict[str, Any]) -> dict[str, Any]:
    """The world without Auto Scaling: its groups, and the tag that a group puts on its members."""
    untagged = lambda one: {**one, "Tags": {key: value for key, value in one["Tags"].items() if not key.startswith("aws:autoscaling:")}}
    return {**world, "Instances": {id_: untagged(one) for id_, one in world["Instances"].items()}, "AutoScalingGroups": {}}


def instances_of(place: Place) -> list[dict[str, Any]]:
    found = [one for reservation in everything(place.client("ec2"), "describe_instances", "Reservations") for one in reservation["Instances"]]
    return [one for one in found if one["State"]["Name"] != "terminated"]


def everything(client: Any, operation: str, field: str, **arguments: str) -> list[Any]:
    """All of a list, to the last page: a long session fills more pages than a test alone does."""
    return [one for page in client.get_paginator(operation).paginate(**arguments) for one in page[field]]


def instance(place: Place, one: dict[str, Any]) -> dict[str, Any]:
    return {
        "State": one["State"]["Name"],
        "Type": one["InstanceType"],
        "Profile": one.get("IamInstanceProfile", {}).get("Arn"),
        "Groups": sorted(group["GroupId"] for group in one.get("SecurityGroups", [])),
        "Tags": tags(one),
        "VolumesDeletedWithIt": {mapping["DeviceName"]: mapping["Ebs"]["DeleteOnTermination"] for mapping in one["BlockDeviceMappings"]},
        **{attribute: attribute_of(place, one["InstanceId"], attribute) for attribute in PROTECTIONS},
    }


def interfaces(place: Place) -> dict[str, Any]:
    found = everything(place.client("ec2"), "describe_network_interfaces", "NetworkInterfaces")
    return {one["NetworkInterfaceId"]: interface(one) for one in found}


def interface(one: dict[str, Any]) -> dict[str, Any]:
    attachment = one.get("Attachment") or {}
    return {
        "Groups": sorted(group["GroupId"] for group in one["Groups"]),
        "Instance": attachment.get("InstanceId"),
        "DeletedWithInstance": attachment.get("DeleteOnTermination"),
        "Addresses": sorted(address["PrivateIpAddress"] for address in one["PrivateIpAddresses"]),
        "Tags": tags({"Tags": one.get("TagSet", [])}),
    }


def volumes(place: Place) -> dict[str, Any]:
    return {
        one["VolumeId"]: {
            "Instance": next((attached["InstanceId"] for attached in one["Attachments"]), None),
            "DeletedWithInstance": [attached["DeleteOnTermination"] for attached in one["Attachments"]],
            "Encrypted": one["Encrypted"],
            "Tags": tags(one),
        }
        for one in everything(place.client("ec2"), "describe_volumes", "Volumes")
    }


def security_groups(place: Place) -> dict[str, Any]:
    client = place.client("ec2")
    groups = everything(client, "describe_security_groups", "SecurityGroups")
    rules = everything(client, "describe_security_group_rules", "SecurityGroupRules")
    return {
        one["GroupId"]: {"Name": one["GroupName"], "Tags": tags(one), "Rules": sorted(rule_line(rule) for rule in rules if rule["GroupId"] == one["GroupId"])}
        for one in groups
        if one["GroupName"] not in OURS
    }


def target_groups(place: Place) -> dict[str, list[str]]:
    """Whether each target is there, and not how healthy it is: a load balancer takes its time to find out."""
    client = place.client("elbv2")
    groups = [group["TargetGroupArn"] for group in everything(client, "describe_target_groups", "TargetGroups")]
    described = {arn: client.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"] for arn in groups}
    staying = lambda health: health["TargetHealth"]["State"] != "draining"
    return {arn: sorted(f"{one['Target']['Id']}:{one['Target']['Port']}" for one in healths if staying(one)) for arn, healths in described.items()}


def classic_load_balancers(place: Place) -> dict[str, list[str]]:
    found = everything(place.client("elb"), "describe_load_balancers", "LoadBalancerDescriptions")
    return {one["LoadBalancerName"]: sorted(member["InstanceId"] for member in one["Instances"]) for one in found}


def auto_scaling_groups(place: Place) -> dict[str, Any]:
    found = everything(place.client("autoscaling"), "describe_auto_scaling_groups", "AutoScalingGroups")
    return {
        one["AutoScalingGroupName"]: {
            **{name: one[name] for name in ("MinSize", "DesiredCapacity", "MaxSize")},
            "Members": {member["InstanceId"]: [member["LifecycleState"], member["ProtectedFromScaleIn"]] for member in one["Instances"]},
        }
        for one in found
    }


def roles(place: Place) -> dict[str, Any]:
    iam = place.client("iam")
    names = [role["RoleName"] for role in everything(iam, "list_roles", "Roles")]
    document = lambda name, policy: iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
    inline = lambda name: {policy: document(name, policy) for policy in everything(iam, "list_role_policies", "PolicyNames", RoleName=name)}
    attached = lambda name: sorted(one["PolicyArn"] for one in everything(iam, "list_attached_role_policies", "AttachedPolicies", RoleName=name))
    return {name: {"Inline": inline(name), "Attached": attached(name)} for name in names}


def profiles(place: Place) -> dict[str, list[str]]:
    found = everything(place.client("iam"), "list_instance_profiles", "InstanceProfiles")
    return {one["Arn"]: sorted(role["RoleName"] for role in one["Roles"]) for one in found}


def flow_logs(place: Place) -> list[str]:
    return sorted(one["ResourceId"] for one in everything(place.client("ec2"), "describe_flow_logs", "FlowLogs"))


def tags(resource: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", []) if tag["Key"] != RELEASED}
