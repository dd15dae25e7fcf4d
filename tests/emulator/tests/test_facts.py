"""What the local stack mends for the investigator's facts, each against the behaviour that AWS documents."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any, Callable, Iterator

import pytest
from botocore.exceptions import ClientError

from support.stack import LocalStack
from support.trail import put_event
from support.victim import AMI, Victim, bare_instance

OTHER = "999999999999"
BUCKET = "arn:aws:s3:::flows/flow-logs/"


@pytest.fixture(scope="module")
def bare(moto: LocalStack) -> Victim:
    return bare_instance(moto)


@pytest.fixture
def account(moto: LocalStack) -> Iterator[str]:
    """An account of its own for each test: two requests a second are one account's."""
    yield str(uuid.uuid4().int)[:12]


def refusal(call: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ClientError) as refused:
        call(**arguments)
    return refused.value.response["Error"]["Code"]


def by(key: str, value: str) -> dict[str, Any]:
    return {"LookupAttributes": [{"AttributeKey": key, "AttributeValue": value}]}


# --- CloudTrail


def test_events_are_found_by_one_attribute_in_their_account_and_region_newest_first(moto: LocalStack, account: str) -> None:
    for name, ago in (("RunInstances", 300), ("StopInstances", 100), ("StartInstances", 200)):
        put_event(moto, name, ago=ago, about=["i-1"], account=account)
    put_event(moto, "RunInstances", about=["i-1"], account=account, region="us-east-1")
    put_event(moto, "RunInstances", about=["i-2"], account=account)
    trail = moto.client("cloudtrail", account=account)
    found = trail.lookup_events(**by("ResourceName", "i-1"))["Events"]
    assert [event["EventName"] for event in found] == ["StopInstances", "StartInstances", "RunInstances"]
    assert json.loads(found[0]["CloudTrailEvent"])["userIdentity"]["arn"] == f"arn:aws:iam::{account}:user/eve"
    assert [event["Resources"][0]["ResourceName"] for event in trail.lookup_events(**by("EventName", "RunInstances"))["Events"]] == ["i-2", "i-1"]


def test_a_roles_session_is_found_by_its_name_as_user_name(moto: LocalStack, account: str) -> None:
    put_event(moto, "ListBuckets", by="web", session="i-1", account=account)
    put_event(moto, "ListBuckets", account=account)
    found = moto.client("cloudtrail", account=account).lookup_events(**by("Username", "i-1"))["Events"]
    assert [event["Username"] for event in found] == ["i-1"]


def test_only_the_span_and_the_last_90_days_are_answered(moto: LocalStack, account: str) -> None:
    for ago in (10, 7_200, 91 * 86_400):
        put_event(moto, "StopInstances", ago=ago, account=account)
    trail = moto.client("cloudtrail", account=account)
    assert len(trail.lookup_events(StartTime=time.time() - 3_600, EndTime=time.time())["Events"]) == 1
    assert len(trail.lookup_events(StartTime=0, EndTime=time.time())["Events"]) == 2


def test_pages_of_fifty_go_on_with_a_token_that_belongs_to_the_question(moto: LocalStack, account: str) -> None:
    for number in range(1, 61):
        put_event(moto, "DescribeInstances", ago=number, account=account, about=["i-1"])
    trail = moto.client("cloudtrail", account=account)
    asked = {**by("ResourceName", "i-1"), "StartTime": time.time() - 600, "EndTime": time.time()}
    first = trail.lookup_events(**asked)
    second = trail.lookup_events(**asked, NextToken=first["NextToken"])
    assert (len(first["Events"]), len(second["Events"]), "NextToken" in second) == (50, 10, False)
    time.sleep(1)
    other = {**asked, **by("ResourceName", "i-2")}
    assert refusal(trail.lookup_events, **other, NextToken=first["NextToken"]) == "InvalidNextTokenException"


def test_a_third_request_within_a_second_is_throttled_in_this_region_only(moto: LocalStack, account: str) -> None:
    trail = moto.client("cloudtrail", account=account)
    trail.lookup_events()
    trail.lookup_events()
    assert refusal(trail.lookup_events) == "ThrottlingException"
    moto.client("cloudtrail", account=account, region="us-east-1").lookup_events()
    time.sleep(1)
    trail.lookup_events()


def test_what_the_api_does_not_take_is_refused(moto: LocalStack, account: str) -> None:
    trail = moto.client("cloudtrail", account=account)
    assert refusal(trail.lookup_events, StartTime=time.time(), EndTime=time.time() - 60) == "InvalidTimeRangeException"
    two = [{"AttributeKey": "EventName", "AttributeValue": "a"}, {"AttributeKey": "Username", "AttributeValue": "b"}]
    assert refusal(trail.lookup_events, LookupAttributes=two) == "InvalidLookupAttributesException"


# --- The console


def test_a_running_instance_has_a_screenshot_and_a_stopped_or_bare_metal_one_has_none(moto: LocalStack) -> None:
    ec2, victim = moto.client("ec2"), bare_instance(moto)
    picture = ec2.get_console_screenshot(InstanceId=victim.instance)
    assert base64.b64decode(picture["ImageData"]).startswith(b"\xff\xd8\xff") and picture["InstanceId"] == victim.instance
    ec2.stop_instances(InstanceIds=[victim.instance])
    assert refusal(ec2.get_console_screenshot, InstanceId=victim.instance) == "IncorrectInstanceState"
    metal = ec2.run_instances(ImageId=AMI, InstanceType="m5.metal", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    assert refusal(ec2.get_console_screenshot, InstanceId=metal) == "UnsupportedOperation"


def test_the_latest_output_is_for_newer_types_only(moto: LocalStack, bare: Victim) -> None:
    ec2 = moto.client("ec2")
    assert ec2.get_console_output(InstanceId=bare.instance, Latest=True)["Output"]
    older = ec2.run_instances(ImageId=AMI, InstanceType="t2.micro", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    assert refusal(ec2.get_console_output, InstanceId=older, Latest=True) == "UnsupportedOperation"
    assert ec2.get_console_output(InstanceId=older)["Output"]


# --- Images of other accounts


def test_an_image_is_seen_by_those_it_is_shared_with_and_by_all_when_public(moto: LocalStack, bare: Victim) -> None:
    theirs, ours = moto.client("ec2", account=OTHER), moto.client("ec2")
    image = theirs.register_image(Name=f"tools-{uuid.uuid4().hex[:6]}", RootDeviceName="/dev/sda1")["ImageId"]
    assert refusal(ours.describe_images, ImageIds=[image]) == "InvalidAMIID.NotFound"
    theirs.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": "123456789012"}]})
    (seen,) = ours.describe_images(ImageIds=[image])["Images"]
    assert (seen["OwnerId"], seen["Public"]) == (OTHER, False)
    assert refusal(moto.client("ec2", account="888888888888").describe_images, ImageIds=[image]) == "InvalidAMIID.NotFound"
    theirs.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"Group": "all"}]})
    (seen,) = moto.client("ec2", account="888888888888").describe_images(ImageIds=[image])["Images"]
    assert seen["Public"] is True


# --- Flow logs


def flow_log(interface: str, **more: Any) -> dict[str, Any]:
    return {
        "ResourceIds": [interface], "ResourceType": "NetworkInterface", "TrafficType": "ALL", "LogDestinationType": "s3",
        "LogDestination": BUCKET, "MaxAggregationInterval": 60, **more,
    }  # fmt: skip


def test_a_flow_log_goes_to_a_bucket_that_moto_does_not_have_with_its_tags(moto: LocalStack) -> None:
    ec2, victim = moto.client("ec2"), bare_instance(moto)
    tags = [{"ResourceType": "vpc-flow-log", "Tags": [{"Key": "CordonCase", "Value": "c-1"}]}]
    made = ec2.create_flow_logs(**flow_log(victim.interfaces[0], TagSpecifications=tags))
    assert made.get("Unsuccessful", []) == []
    found = ec2.describe_flow_logs(Filters=[{"Name": "resource-id", "Values": [victim.interfaces[0]]}])["FlowLogs"]
    assert [(one["FlowLogId"], one["LogDestination"], one["FlowLogStatus"]) for one in found] == [(made["FlowLogIds"][0], BUCKET, "ACTIVE")]
    assert found[0]["Tags"] == [{"Key": "CordonCase", "Value": "c-1"}]
    assert refusal(ec2.create_flow_logs, **flow_log(victim.interfaces[0])) == "FlowLogAlreadyExists"
    assert refusal(ec2.create_flow_logs, **flow_log(victim.interfaces[0], LogDestination=f"{BUCKET}AWSLogs/")) == "InvalidParameter"


def test_a_request_that_is_repeated_under_its_token_makes_no_second_flow_log(moto: LocalStack) -> None:
    ec2, victim = moto.client("ec2"), bare_instance(moto)
    request = flow_log(victim.interfaces[0], ClientToken=uuid.uuid4().hex)
    assert ec2.create_flow_logs(**request)["FlowLogIds"] == ec2.create_flow_logs(**request)["FlowLogIds"]
    assert refusal(ec2.create_flow_logs, **{**request, "TrafficType": "ACCEPT"}) == "IdempotentParameterMismatch"
