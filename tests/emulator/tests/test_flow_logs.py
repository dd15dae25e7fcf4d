"""EC2: flow logs."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from support.refusal import refusal
from support.stack import LocalStack
from support.victim import bare_instance

proves = pytest.mark.proves

BUCKET = "arn:aws:s3:::flows/flow-logs/"


def flow_log(interface: str, **more: Any) -> dict[str, Any]:
    return {
        "ResourceIds": [interface], "ResourceType": "NetworkInterface", "TrafficType": "ALL", "LogDestinationType": "s3",
        "LogDestination": BUCKET, "MaxAggregationInterval": 60, **more,
    }  # fmt: skip


@proves("moto.ec2.flow_logs.to_s3")
def test_a_flow_log_goes_to_a_bucket_that_moto_does_not_have(moto: LocalStack) -> None:
    ec2, victim = moto.client("ec2"), bare_instance(moto)
    tags = [{"ResourceType": "vpc-flow-log", "Tags": [{"Key": "CordonCase", "Value": "c-1"}]}]
    made = ec2.create_flow_logs(**flow_log(victim.interfaces[0], TagSpecifications=tags))
    assert made.get("Unsuccessful", []) == []
    found = ec2.describe_flow_logs(Filters=[{"Name": "resource-id", "Values": [victim.interfaces[0]]}])["FlowLogs"]
    assert [(one["FlowLogId"], one["LogDestination"], one["FlowLogStatus"]) for one in found] == [(made["FlowLogIds"][0], BUCKET, "ACTIVE")]
    assert found[0]["Tags"] == [{"Key": "CordonCase", "Value": "c-1"}]
    assert refusal(ec2.create_flow_logs, **flow_log(victim.interfaces[0]))[0] == "FlowLogAlreadyExists"
    assert refusal(ec2.create_flow_logs, **flow_log(victim.interfaces[0], LogDestination=f"{BUCKET}AWSLogs/"))[0] == "InvalidParameter"


@proves("moto.ec2.flow_logs.client_token")
def test_a_request_repeated_under_its_token_creates_no_second_flow_log(moto: LocalStack) -> None:
    ec2, victim = moto.client("ec2"), bare_instance(moto)
    request = flow_log(victim.interfaces[0], ClientToken=uuid.uuid4().hex)
    assert ec2.create_flow_logs(**request)["FlowLogIds"] == ec2.create_flow_logs(**request)["FlowLogIds"]
    assert refusal(ec2.create_flow_logs, **{**request, "TrafficType": "ACCEPT"})[0] == "IdempotentParameterMismatch"
