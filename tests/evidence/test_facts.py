"""Facts for the investigator and flow logs, by the deployed functions, as the workflow invokes them."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from typing import Any


from support.containment import journal
from support.member import MEMBER, deploy_member_role
from support.stack import ACCOUNT, LocalStack
from support.trail import put_event
from support.victim import USER_DATA, Place, Victim, bare_instance, build_victims

OTHER = "999999999999"


def invoke(stack: LocalStack, function: str, victim: Victim, account: str = ACCOUNT, **more: Any) -> tuple[bool, dict[str, Any]]:
    """Whether the function answered, and what it said."""
    target = {"AccountId": account, "Region": stack.region, "InstanceId": victim.instance, "CaseId": case_of(victim), **more}
    machine = stack.outputs["StateMachineArn"].rsplit(":", 1)[1]
    answer = stack.client("lambda").invoke(FunctionName=f"{machine}-{function}", Payload=json.dumps(target))
    return "FunctionError" not in answer, json.loads(answer["Payload"].read())


def case_of(victim: Victim) -> str:
    return f"{victim.instance}-20261121T030007Z"


def objects(stack: LocalStack, victim: Victim, account: str = ACCOUNT) -> dict[str, tuple[str, bytes]]:
    """What the case has in the bucket: key by the name before its time, and bytes."""
    s3, bucket = stack.client("s3"), stack.outputs["EvidenceBucketName"]
    prefix = f"cases/{account}/{stack.region}/{case_of(victim)}/"
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]
    return {key.rsplit("/", 1)[1].rsplit("-", 1)[0]: (key, s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys}


def facts(stack: LocalStack, victim: Victim, account: str = ACCOUNT) -> dict[str, Any]:
    return json.loads(objects(stack, victim, account)["collect-facts"][1])["Facts"]


def run_on(stack: LocalStack, image: str) -> Victim:
    """An instance of this image with one interface."""
    victim = bare_instance(stack)
    started = stack.client("ec2").run_instances(ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1)["Instances"][0]
    return Victim(started["InstanceId"], started["PrivateIpAddress"], victim.interfaces, {}, victim.vpcs)


# --- collect-facts


def test_an_investigator_learns_whose_image_it_is_who_launched_it_and_what_its_credentials_did(stack: LocalStack) -> None:
    theirs = stack.client("ec2", account=OTHER)
    image = theirs.register_image(Name="hardened-base", RootDeviceName="/dev/sda1")["ImageId"]
    theirs.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": ACCOUNT}]})
    victim = run_on(stack, image)
    session = {"by": "shop-role", "session": victim.instance}
    put_event(stack, "RunInstances", ago=1, about=[victim.instance], by="user/eve", sourceIPAddress="203.0.113.9")
    put_event(stack, "ModifyInstanceAttribute", ago=1, about=[victim.instance], by="user/mallory")
    put_event(stack, "AssumeRole", service="sts.amazonaws.com", requestParameters={"roleArn": f"arn:aws:iam::{ACCOUNT}:role/admin"}, **session)
    put_event(stack, "CreateUser", service="iam.amazonaws.com", region="us-east-1", requestParameters={"userName": "backdoor"}, **session)
    put_event(stack, "GetCallerIdentity", service="sts.amazonaws.com", errorCode="AccessDenied", userAgent="curl/8\x1b[31m", **session)
    put_event(stack, "ListBuckets", ago=25 * 3600, **session)

    answered, said = invoke(stack, "collect-facts", victim)
    assert answered and said["Status"] == "Done", said
    assert f"shared with this account by account {OTHER}" in said["Reason"] and "1 of them for other sessions" in said["Reason"]
    found = facts(stack, victim)
    assert (found["Image"]["Origin"], found["Image"]["Name"], found["Missed"]) == ("Shared", "hardened-base", [])
    trail = found["CloudTrail"]
    assert trail["Regions"] == [stack.region, "us-east-1"] and "15 minutes" in " ".join(trail["Notes"])
    assert (trail["Launch"]["By"], trail["Launch"]["From"]) == (f"arn:aws:iam::{ACCOUNT}:user/eve", "203.0.113.9")
    assert "ModifyInstanceAttribute" in [call["Call"] for call in trail["Instance"]["Changes"]["Newest"]]
    did = trail["Credentials"]
    assert (did["Events"], did["Refused"]) == (3, 1), "the one before the 24 hours is not among them"
    assert did["OtherSessions"]["Newest"][0]["Of"] == [f"arn:aws:iam::{ACCOUNT}:role/admin"]
    assert [(call["Call"], call["Of"], call["Region"]) for call in did["Persistence"]["Newest"]] == [("CreateUser", ["backdoor"], "us-east-1")]
    assert {one["Value"] for one in did["UserAgents"]["Most"]} == {"aws-cli/2.31", "curl/8\ufffd[31m"}


def test_what_was_collected_is_evidence_with_a_line_in_the_ledger_each(stack: LocalStack) -> None:
    victim = bare_instance(stack)
    answered, said = invoke(stack, "collect-facts", victim)
    assert answered and said["Status"] == "Done", said
    kept = objects(stack, victim)
    assert set(kept) == {"collect-facts", "console-output", "console-screenshot"}
    assert kept["console-screenshot"][1].startswith(b"\xff\xd8\xff") and b"Linux version" in kept["console-output"][1]
    found = facts(stack, victim)
    for fact, name in (("ConsoleOutput", "console-output"), ("ConsoleScreenshot", "console-screenshot")):
        assert (found[fact]["Evidence"], found[fact]["Bytes"]) == (kept[name][0], len(kept[name][1]))
    ledger = {name.split("|")[0] for name in journal(stack, victim)[f"journal#{case_of(victim)}#evidence"] if "|" in name}
    assert ledger == {key for key, _ in kept.values()}
    whole = json.loads(kept["collect-facts"][1])
    asked = {reply["Operation"].split(":")[-1].lower() for reply in whole["Replies"]}
    assert asked == {"describeinstances", "describeimages", "getconsoleoutput", "getconsolescreenshot", "lookupevents"}
    assert kept["collect-facts"][0] in said["Reason"]


def test_a_dry_run_reads_and_stores_nothing(stack: LocalStack) -> None:
    victim = bare_instance(stack)
    answered, said = invoke(stack, "collect-facts", victim, DryRun=True)
    assert answered and said["Status"] == "Done" and "stores nothing" in said["Reason"]
    assert objects(stack, victim) == {} and f"journal#{case_of(victim)}#evidence" not in journal(stack, victim)


def test_what_is_denied_is_named_and_the_rest_is_stored(stack: LocalStack) -> None:
    victim = bare_instance(stack)
    put_event(stack, "RunInstances", ago=1, about=[victim.instance])
    stack.inject(
        {"Service": "ec2", "Action": "DescribeImages", "Code": "UnauthorizedOperation", "Status": 403},
        {"Service": "ec2", "Action": "GetConsoleScreenshot", "Code": "UnauthorizedOperation", "Status": 403},
    )
    answered, said = invoke(stack, "collect-facts", victim)
    assert answered and said["Status"] == "Failed"
    assert "ec2:DescribeImages" in said["Reason"] and "ec2:GetConsoleScreenshot" in said["Reason"]
    found = facts(stack, victim)
    assert len(found["Missed"]) == 2 and (found["Image"], found["ConsoleScreenshot"]) == (None, None)
    assert found["ConsoleOutput"]["Bytes"] > 0 and found["CloudTrail"]["Launch"]["Call"] == "RunInstances"


def test_without_the_permission_for_cloudtrail_everything_else_is_there(stack: LocalStack) -> None:
    victim = bare_instance(stack)
    stack.inject({"Service": "cloudtrail", "Action": "LookupEvents", "Code": "AccessDeniedException"})
    since = time.time()
    answered, said = invoke(stack, "collect-facts", victim)
    assert answered and said["Status"] == "Failed" and "cloudtrail:LookupEvents" in said["Reason"]
    assert len([call for call in stack.calls(since) if call["Action"] == "LookupEvents"]) == 2, "one in each Region"
    found = facts(stack, victim)
    assert found["Image"]["Origin"] and found["ConsoleOutput"]["Bytes"] and found["CloudTrail"]["Credentials"]["Events"] == 0


def test_a_deregistered_image_and_a_stopped_instances_screen_are_facts_and_no_failures(stack: LocalStack) -> None:
    ec2 = stack.client("ec2")
    image = ec2.register_image(Name=f"gone-{uuid.uuid4().hex[:6]}", RootDeviceName="/dev/sda1")["ImageId"]
    victim = run_on(stack, image)
    ec2.deregister_image(ImageId=image)
    ec2.stop_instances(InstanceIds=[victim.instance])
    answered, said = invoke(stack, "collect-facts", victim)
    assert answered and said["Status"] == "Done", said
    found = facts(stack, victim)
    assert found["Image"]["Origin"] == "Gone" and "deregistered" in found["Image"]["InWords"]
    assert "IncorrectInstanceState" in found["ConsoleScreenshot"]["None"]


def test_a_list_without_an_end_is_cut_at_a_thousand_events_and_says_so_within_the_functions_time(stack: LocalStack) -> None:
    victim = bare_instance(stack)
    for number in range(1_060):
        put_event(stack, f"Call{number % 40}", ago=number + 1, by="shop-role", session=victim.instance, read_only=True)
    since = time.time()
    answered, said = invoke(stack, "collect-facts", victim)
    assert answered and said["Status"] == "Done", said
    found = facts(stack, victim)["CloudTrail"]
    assert found["Credentials"]["Events"] == 1_000
    assert found["Credentials"]["Calls"]["Distinct"] == 40 and len(found["Credentials"]["Calls"]["Most"]) == 20
    assert any("only the 1000 newest were read" in note for note in found["Notes"])
    here = [call for call in stack.calls(since) if call["Action"] == "LookupEvents" and call["Region"] == stack.region]
    # The first may meet those of the test before.
    assert not any(call["Error"] for call in here[2:]), "two requests a second are not exceeded"
    assert time.time() - since < 30


def test_the_facts_of_another_accounts_instance_are_read_there_and_kept_at_home(stack: LocalStack) -> None:
    deploy_member_role(stack, MEMBER, SnapshotKeyArn=stack.outputs["KeyArn"])
    victim = bare_instance(stack.elsewhere(MEMBER))
    put_event(stack, "RunInstances", ago=1, about=[victim.instance], account=MEMBER)
    answered, said = invoke(stack, "collect-facts", victim, MEMBER)
    assert answered and said["Status"] == "Done", said
    assert facts(stack, victim, MEMBER)["CloudTrail"]["Launch"]["By"] == f"arn:aws:iam::{MEMBER}:user/eve"


# --- describe-instance


def test_user_data_is_told_by_its_hash_and_every_public_address_is_there(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    ec2 = stack.client("ec2")
    address = ec2.allocate_address(Domain="vpc")
    ec2.associate_address(AllocationId=address["AllocationId"], NetworkInterfaceId=victim.interfaces[1])
    answered, said = invoke(stack, "describe-instance", victim)
    assert answered, said
    found = said["Facts"]
    assert found["UserData"] == {"Present": True, "Bytes": len(USER_DATA), "Sha256": hashlib.sha256(USER_DATA.encode()).hexdigest()}
    assert address["PublicIp"] in found["PublicIpAddresses"] and found["InstanceId"] == victim.instance
    assert "hunter2" not in json.dumps(found)


# --- create-flow-logs


def flow_logs(stack: Place, victim: Victim) -> dict[str, list[dict[str, Any]]]:
    """By what they are made for."""
    made: dict[str, list[dict[str, Any]]] = {}
    for log in stack.client("ec2").describe_flow_logs()["FlowLogs"]:
        made.setdefault(log["ResourceId"], []).append(log)
    return {resource: made[resource] for resource in (*victim.interfaces, *victim.vpcs) if resource in made}


def test_every_interface_gets_a_flow_log_of_all_traffic_into_the_cases_folder_once(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    answered, said = invoke(stack, "create-flow-logs", victim)
    assert answered and said["Status"] == "Done", said
    made = flow_logs(stack, victim)
    assert set(made) == set(victim.interfaces) and all(len(logs) == 1 for logs in made.values())
    for (log,) in made.values():
        bucket, _, folder = log["LogDestination"].removeprefix("arn:aws:s3:::").partition("/")
        assert folder == f"flow-logs/{ACCOUNT}/{stack.region}/{case_of(victim)}/"
        assert bucket != stack.outputs["EvidenceBucketName"], "they arrive there by replication"
        assert (log["TrafficType"], log["MaxAggregationInterval"]) == ("ALL", 60) and "${action}" in log["LogFormat"]
        assert {tag["Key"]: tag["Value"] for tag in log["Tags"]}["CordonCase"] == case_of(victim)
    assert {change["Resource"] for change in said["Changes"]} == set(victim.interfaces)
    before = journal(stack, victim)[f"journal#{case_of(victim)}#create-flow-logs"]
    assert json.loads(before[f"{victim.interfaces[0]}|FlowLogs"]) == {"Covered": False}

    now = time.time()
    answered, again = invoke(stack, "create-flow-logs", victim)
    assert answered and again["Status"] == "Done" and again["Changes"] == said["Changes"]
    assert stack.changes(now) == [] and flow_logs(stack, victim) == made


def test_a_flow_log_of_the_vpc_is_respected_and_only_the_other_vpcs_interface_gets_one(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    theirs = {"TrafficType": "ALL", "LogDestinationType": "s3", "LogDestination": "arn:aws:s3:::theirs/"}
    stack.client("ec2").create_flow_logs(ResourceIds=[victim.vpcs[0]], ResourceType="VPC", **theirs)
    answered, said = invoke(stack, "create-flow-logs", victim)
    assert answered and said["Status"] == "Done", said
    assert set(flow_logs(stack, victim)) == {victim.vpcs[0], victim.interfaces[1]}


def test_a_flow_log_of_rejected_traffic_alone_is_not_enough(stack: LocalStack) -> None:
    victim = bare_instance(stack)
    rejected = {"TrafficType": "REJECT", "LogDestinationType": "s3", "LogDestination": "arn:aws:s3:::theirs/"}
    stack.client("ec2").create_flow_logs(ResourceIds=[victim.vpcs[0]], ResourceType="VPC", **rejected)
    assert invoke(stack, "create-flow-logs", victim)[1]["Status"] == "Done"
    assert set(flow_logs(stack, victim)) == {victim.vpcs[0], victim.interfaces[0]}


def test_a_dry_run_plans_flow_logs_and_makes_none(stack: LocalStack) -> None:
    victim, now = bare_instance(stack), time.time()
    answered, said = invoke(stack, "create-flow-logs", victim, DryRun=True)
    assert answered and said["Status"] == "Planned" and said["Changes"][0]["After"] == {"Covered": True}
    assert flow_logs(stack, victim) == {} and [call for call in stack.changes(now)] == []


def test_a_refused_flow_log_is_a_failure_that_names_the_interface_and_what_aws_said(stack: LocalStack) -> None:
    victim = bare_instance(stack)
    stack.inject({"Service": "ec2", "Action": "CreateFlowLogs", "Code": "FlowLogsLimitExceeded", "Message": "too many flow logs"})
    answered, said = invoke(stack, "create-flow-logs", victim)
    assert not answered and said["errorType"] == "NotContained"
    outcome = json.loads(said["errorMessage"])
    assert outcome["Status"] == "Failed" and f"ec2:CreateFlowLogs on {victim.interfaces[0]}: FlowLogsLimitExceeded" in outcome["Reason"]


def test_an_answer_that_was_lost_makes_no_second_flow_log(stack: LocalStack) -> None:
    victim = bare_instance(stack)
    stack.inject({"Service": "ec2", "Action": "CreateFlowLogs", "Code": "InternalError", "Status": 500, "Executed": True, "Times": 1})
    answered, said = invoke(stack, "create-flow-logs", victim)
    assert answered and said["Status"] == "Done", said
    assert [len(logs) for logs in flow_logs(stack, victim).values()] == [1]


def test_an_interface_in_another_account_is_covered_from_here(stack: LocalStack) -> None:
    deploy_member_role(stack, MEMBER, SnapshotKeyArn=stack.outputs["KeyArn"])
    there = stack.elsewhere(MEMBER)
    victim = bare_instance(there)
    answered, said = invoke(stack, "create-flow-logs", victim, MEMBER)
    assert answered and said["Status"] == "Done", said
    ((log,),) = flow_logs(there, victim).values()
    assert f"/flow-logs/{MEMBER}/" in log["LogDestination"]
