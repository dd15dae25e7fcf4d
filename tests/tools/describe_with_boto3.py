"""The same work as functions/describe-instance, as a Python function would do it: what the Rust one is measured against.

It has clients at module level, as AWS recommends, and the smallest runtime loop that the Lambda Runtime API allows,
so that nothing but Python and boto3 weighs on it.
"""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any

import boto3

ec2 = boto3.client("ec2")
autoscaling = boto3.client("autoscaling")
dynamodb = boto3.client("dynamodb")
s3 = boto3.client("s3")

TABLE = os.environ["CASE_TABLE"]
BUCKET = os.environ["EVIDENCE_BUCKET"]
ATTRIBUTES = ("userData", "disableApiTermination", "disableApiStop", "instanceInitiatedShutdownBehavior")


def handle(event: dict[str, Any]) -> dict[str, Any]:
    """Reads everything that containment needs, opens the case, journals first states and stores the replies."""
    instance = event["InstanceId"]
    key = {"Instance": {"S": f"{event['AccountId']}/{event['Region']}/{instance}"}, "Record": {"S": "case"}}
    case = dynamodb.get_item(TableName=TABLE, Key=key, ConsistentRead=True).get("Item")
    replies = describe(instance)
    if case is None:
        item = {**key, "CaseId": {"S": event["CaseId"]}, "Status": {"S": "Open"}}
        dynamodb.put_item(TableName=TABLE, Item=item, ConditionExpression="attribute_not_exists(CaseId)")
    evidence = json.dumps(replies, default=str).encode()
    s3.put_object(Bucket=BUCKET, Key=f"cases/{event['CaseId']}/describe-instance.json", Body=evidence, ContentType="application/json")
    for interface in replies["Interfaces"]["NetworkInterfaces"]:
        keep_first(key, event["CaseId"], interface)
    return facts(event, replies)


def describe(instance: str) -> dict[str, Any]:
    of_instance = [{"Name": "attachment.instance-id", "Values": [instance]}]
    association = [{"Name": "instance-id", "Values": [instance]}]
    named = [{"Name": "group-name", "Values": ["cordon-isolation", "cordon-conversion"]}]
    return {
        "Instance": ec2.describe_instances(InstanceIds=[instance]),
        "Volumes": ec2.describe_volumes(Filters=of_instance),
        "Profile": ec2.describe_iam_instance_profile_associations(Filters=association),
        "Attributes": [ec2.describe_instance_attribute(InstanceId=instance, Attribute=one) for one in ATTRIBUTES],
        "Membership": autoscaling.describe_auto_scaling_instances(InstanceIds=[instance]),
        "Interfaces": ec2.describe_network_interfaces(Filters=of_instance),
        "Groups": ec2.describe_security_groups(Filters=named),
    }


def keep_first(key: dict[str, Any], case: str, interface: dict[str, Any]) -> None:
    groups = json.dumps([group["GroupId"] for group in interface["Groups"]])
    dynamodb.update_item(
        TableName=TABLE, Key={**key, "Record": {"S": f"journal#{case}#isolate-network"}}, ReturnValues="ALL_NEW",
        UpdateExpression="SET #k0 = if_not_exists(#k0, :v0)", ExpressionAttributeValues={":v0": {"S": groups}},
        ExpressionAttributeNames={"#k0": f"{interface['NetworkInterfaceId']}|Groups"},
    )  # fmt: skip


def facts(event: dict[str, Any], replies: dict[str, Any]) -> dict[str, Any]:
    found = replies["Instance"]["Reservations"][0]["Instances"][0]
    groups = {one["NetworkInterfaceId"]: [group["GroupId"] for group in one["Groups"]] for one in replies["Interfaces"]["NetworkInterfaces"]}
    return {"Target": event, "Facts": {"InstanceType": found["InstanceType"], "State": found["State"]["Name"], "SecurityGroups": groups}}


def main() -> None:
    runtime = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
    while True:
        with urllib.request.urlopen(f"{runtime}/next") as reply:
            request, event = reply.headers["Lambda-Runtime-Aws-Request-Id"], json.load(reply)
        body = json.dumps(handle(event)).encode()
        with urllib.request.urlopen(f"{runtime}/{request}/response", data=body):
            pass


if __name__ == "__main__":
    main()
