"""A containment as a test starts it, and what it leaves: the case's records, its evidence, the instance off the network."""

from __future__ import annotations

import json
from typing import Any

from .stack import ACCOUNT, PROJECT, Execution, LocalStack
from .victim import Place, Victim, snapshot_of_world


def contain(stack: LocalStack, *instances: str, **options: Any) -> Execution:
    return stack.run({"InstanceIds": list(instances), "Region": stack.region, **options})


def statuses(execution: Execution, instance: str) -> dict[str, str]:
    return {step["Step"]: step["Status"] for step in execution.instance(instance)["Steps"]}


def schema(name: str) -> dict[str, Any]:
    return json.loads((PROJECT / "events" / f"{name}.schema.json").read_text(encoding="utf-8"))


def groups_named(stack: Place, name: str, victim: Victim) -> dict[str, dict[str, Any]]:
    """Cordon's groups of this name in the victim's VPCs, by VPC."""
    filters = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": list(victim.vpcs)}]
    found = stack.client("ec2").describe_security_groups(Filters=filters)["SecurityGroups"]
    return {group["VpcId"]: group for group in found}


def journal(stack: LocalStack, victim: Victim, account: str = ACCOUNT) -> dict[str, dict[str, Any]]:
    """What the case table has of the instance, record by record."""
    items = stack.client("dynamodb").query(
        TableName=stack.outputs["CaseTableName"], KeyConditionExpression="#i = :i", ExpressionAttributeNames={"#i": "Instance"},
        ExpressionAttributeValues={":i": {"S": f"{account}/{stack.region}/{victim.instance}"}},
    )["Items"]  # fmt: skip
    return {item["Record"]["S"]: {name: next(iter(value.values())) for name, value in item.items()} for item in items}


def evidence(stack: LocalStack, victim: Victim, account: str = ACCOUNT) -> dict[str, Any]:
    """The JSON that the instance's cases have put into the bucket, by the name before its time."""
    s3, bucket = stack.client("s3"), stack.outputs["EvidenceBucketName"]
    prefix = f"cases/{account}/{stack.region}/{victim.instance}"
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", []) if one["Key"].endswith(".json")]
    return {key.rsplit("/", 1)[1].rsplit("-", 1)[0]: json.load(s3.get_object(Bucket=bucket, Key=key)["Body"]) for key in keys}


def isolated(stack: Place, victim: Victim) -> bool:
    """As AWS shows it: every interface has one group, Cordon's of its VPC, and that has no rule."""
    world = snapshot_of_world(stack, victim)
    ours = {group["GroupId"] for group in groups_named(stack, "cordon-isolation", victim).values()}
    return all(len(groups) == 1 and set(groups) <= ours for groups in world["Groups"].values()) and not any(world["Rules"].values())
