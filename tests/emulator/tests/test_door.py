"""The doors: the record of calls, and faults."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Iterator

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from emulator.call_record import BROKEN, is_change
from support.refusal import refusal
from support.stack import LocalStack, longest_chain
from support.victim import Victim, bare_instance, differences, snapshot_of_world

proves = pytest.mark.proves

@pytest.fixture(autouse=True)
def no_faults_left(moto: LocalStack, bare_stack: LocalStack) -> Iterator[None]:
    yield
    moto.inject()
    bare_stack.inject()


# --- The record


def test_every_call_is_recorded_with_its_error_and_only_changes_count_as_such(moto: LocalStack, bare: Victim) -> None:
    ec2, since = moto.client("ec2"), time.time()
    ec2.describe_vpcs()
    ec2.create_tags(Resources=[bare.instance], Tags=[{"Key": "Case", "Value": "1"}])
    assert refusal(ec2.create_tags, Resources=[bare.instance], Tags=[{"Key": "a", "Value": "b"}], DryRun=True)[0] == "DryRunOperation"
    calls = moto.calls(since, ours=True)
    assert [(call["Service"], call["Action"], call["Error"], is_change(call)) for call in calls] == [
        ("ec2", "DescribeVpcs", None, False), ("ec2", "CreateTags", None, True), ("ec2", "CreateTags", "DryRunOperation", False)]  # fmt: skip
    assert {(call["Account"], call["Region"], call["Caller"]) for call in calls} == {("123456789012", moto.region, "tests")}
    assert all(call["Start"] <= call["End"] for call in calls) and longest_chain(calls) == 3
    assert moto.calls(since) == []


def test_the_record_tells_both_generations_of_load_balancers_apart(moto: LocalStack) -> None:
    since = time.time()
    moto.client("elb").describe_load_balancers()
    moto.client("elbv2").describe_load_balancers()
    assert [call["Service"] for call in moto.calls(since, ours=True)] == ["elb", "elbv2"]


@proves("ministack.door.door")
def test_calls_to_ministack_are_recorded_by_service_action_and_error(bare_stack: LocalStack) -> None:
    since = time.time()
    bare_stack.client("dynamodb").list_tables()
    bare_stack.client("s3").list_buckets()
    with pytest.raises(ClientError):
        bare_stack.client("stepfunctions").describe_execution(executionArn="arn:aws:states:ap-northeast-1:123456789012:execution:a:b")
    recorded = [(call["Service"], call["Action"], call["Error"]) for call in bare_stack.calls(since, ours=True)]
    assert recorded == [("dynamodb", "ListTables", None), ("s3", "ListAllMyBuckets", None),
                        ("stepfunctions", "DescribeExecution", "ExecutionDoesNotExist")]  # fmt: skip


def test_a_call_that_moto_cannot_play_is_refused_with_the_reason(moto: LocalStack) -> None:
    since = time.time()
    code, reason = refusal(moto.client("ec2").describe_instances, Filters=[{"Name": "hibernation-options.configured", "Values": ["true"]}])
    assert code == "NotPlayedByLocalStack" and "hibernation-options.configured" in reason
    assert [call["Error"] for call in moto.calls(since, ours=True)] == [code]


def test_with_a_latency_parallel_calls_are_one_link_in_the_chain(moto: LocalStack) -> None:
    ec2 = moto.client("ec2")
    moto.inject({"Service": "*", "Action": "*", "DelaySeconds": 0.3})
    since = time.time()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: ec2.describe_vpcs(), range(3)))
    ec2.describe_subnets()
    calls = moto.calls(since, ours=True)
    assert len(calls) == 4 and longest_chain(calls) == 2


# --- Faults


@pytest.mark.parametrize(
    ("service", "action", "method"),
    [("ec2", "DescribeVpcs", "describe_vpcs"), ("autoscaling", "DescribeAutoScalingGroups", "describe_auto_scaling_groups"),
     ("elb", "DescribeLoadBalancers", "describe_load_balancers"), ("elbv2", "DescribeLoadBalancers", "describe_load_balancers"),
     ("iam", "ListRoles", "list_roles"), ("sts", "GetCallerIdentity", "get_caller_identity"),
     ("ssm", "DescribeInstanceInformation", "describe_instance_information")],
)  # fmt: skip
def test_a_fault_of_moto_has_the_shape_of_its_protocol(moto: LocalStack, service: str, action: str, method: str) -> None:
    moto.inject({"Service": service, "Action": action, "Code": "Throttling", "Status": 503, "Message": "Rate exceeded"})
    assert refusal(getattr(moto.client(service), method)) == ("Throttling", "Rate exceeded")


@pytest.mark.parametrize(("service", "action", "method"), [("dynamodb", "ListTables", "list_tables"), ("s3", "ListAllMyBuckets", "list_buckets")])
def test_a_fault_of_ministack_has_the_shape_of_its_protocol(bare_stack: LocalStack, service: str, action: str, method: str) -> None:
    bare_stack.inject({"Service": service, "Action": action, "Code": "SlowDown", "Status": 503, "Times": 1})
    with pytest.raises(ClientError, match="SlowDown"):
        getattr(bare_stack.client(service), method)()
    getattr(bare_stack.client(service), method)()


def test_a_fault_meets_its_resource_only_and_as_often_as_it_says(moto: LocalStack, bare: Victim) -> None:
    ec2 = moto.client("ec2")
    moto.inject({"Service": "ec2", "Action": "DescribeInstances", "Code": "RequestLimitExceeded", "Times": 1, "Resource": bare.instance})
    ec2.describe_instances()
    assert refusal(ec2.describe_instances, InstanceIds=[bare.instance])[0] == "RequestLimitExceeded"
    ec2.describe_instances(InstanceIds=[bare.instance])


def test_a_refused_call_has_no_effect_and_one_with_a_lost_answer_has(moto: LocalStack) -> None:
    ec2, victim = moto.client("ec2"), bare_instance(moto)
    before = snapshot_of_world(moto, victim)
    protect = {"InstanceId": victim.instance, "DisableApiTermination": {"Value": True}}
    moto.inject({"Service": "ec2", "Action": "ModifyInstanceAttribute", "Code": "UnauthorizedOperation", "Status": 403})
    assert refusal(ec2.modify_instance_attribute, **protect)[0] == "UnauthorizedOperation"
    assert snapshot_of_world(moto, victim) == before
    moto.inject({"Service": "ec2", "Action": "ModifyInstanceAttribute", "Code": "InternalError", "Status": 500, "Executed": True})
    assert refusal(ec2.modify_instance_attribute, **protect)[0] == "InternalError"
    assert differences(before, snapshot_of_world(moto, victim)) == [("Protection disableApiTermination", False, True)]


@pytest.mark.parametrize(("service", "action", "method"), [
    ("ec2", "DescribeVpcs", "describe_vpcs"), ("dynamodb", "ListTables", "list_tables"), ("s3", "ListAllMyBuckets", "list_buckets")])  # fmt: skip
def test_a_broken_connection_gives_no_answer_to_one_call(bare_stack: LocalStack, service: str, action: str, method: str) -> None:
    bare_stack.inject({"Service": service, "Action": action, "Breaks": "connection", "Times": 1})
    since, call = time.time(), getattr(bare_stack.client(service), method)
    with pytest.raises(ConnectionClosedError):
        call()
    call()
    assert [one["Error"] for one in bare_stack.calls(since, ours=True) if one["Action"] == action] == [BROKEN, None]


def test_a_broken_connection_gives_no_answer_to_a_head_request_either(bare_stack: LocalStack) -> None:
    """A HEAD request would not wait for the rest of an answer."""
    bucket, s3 = f"headed-{time.time_ns()}", bare_stack.client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": bare_stack.region})
    bare_stack.inject({"Service": "s3", "Action": "ListBucket", "Breaks": "connection", "Times": 1})
    with pytest.raises(ConnectionClosedError):
        s3.head_bucket(Bucket=bucket)
    s3.head_bucket(Bucket=bucket)


def test_a_fault_begins_after_the_first_calls_and_lasts_as_long_as_it_says(moto: LocalStack) -> None:
    ec2 = moto.client("ec2")
    moto.inject({"Service": "ec2", "Action": "DescribeVpcs", "Code": "RequestLimitExceeded", "Status": 503, "After": 1, "Seconds": 1})
    ec2.describe_vpcs()
    assert refusal(ec2.describe_vpcs)[0] == refusal(ec2.describe_vpcs)[0] == "RequestLimitExceeded"
    time.sleep(1.1)
    ec2.describe_vpcs()


def test_a_fault_that_stays_goes_on_counting_when_another_one_comes(moto: LocalStack) -> None:
    ec2 = moto.client("ec2")
    once = {"Service": "ec2", "Action": "DescribeVpcs", "Code": "RequestLimitExceeded", "Status": 503, "Times": 1}
    moto.inject(once)
    assert refusal(ec2.describe_vpcs)[0] == "RequestLimitExceeded"
    moto.inject({"Service": "ec2", "Action": "DescribeSubnets", "Code": "Throttling"}, once)
    ec2.describe_vpcs()
